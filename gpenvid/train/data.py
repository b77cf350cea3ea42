"""Pairs of a good and a bad picture of one face, made on the fly from a pack of aligned crops.

A pack is one `.npy` file: RGB uint8, (N, S, S, 3), faces aligned to FFHQ's template. Every pair is a pure function of
(seed, number): neither workers nor restarts change what a training run sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from gpenvid.train.degradations import degrade, gray
from gpenvid.train.sheets import held_out, load_tiles, read_picture
from gpenvid.types import Float, Image

FFHQ_TEMPLATE = (
    np.array(
        [
            [192.98138, 239.94708],
            [318.90277, 240.1936],
            [256.63416, 314.01935],
            [201.26117, 371.41043],
            [313.08905, 371.15118],
        ],
        np.float32,
    )
    / 512
)
"""Eyes, nose and mouth corners in units of the crop's side (facexlib)."""


def similarity(source: Float, target: Float) -> NDArray[np.float64]:
    """The 2 x 3 matrix of the rotation, scale and shift that best (least squares) takes `source` to `target`, (K, 2)."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    energy = float((a**2).sum())
    c = float((a * b).sum()) / energy
    s = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / energy
    linear = np.array([[c, -s], [s, c]])
    return np.column_stack([linear, target.mean(axis=0) - linear @ source.mean(axis=0)])


def aligned_crop(image: Image, landmarks: Float, size: int) -> Image:
    """Cut the face of `landmarks` (5, 2) out of `image`, aligned to FFHQ's template, (size, size, 3).

    The crop is sampled at the picture's own resolution and then averaged down, so that nothing aliases.
    """
    native = 1 / float(np.hypot(*similarity(landmarks, FFHQ_TEMPLATE)[:, 0]))
    factor = max(1, int(np.ceil(native / size)))
    side = factor * size
    matrix = similarity(landmarks, FFHQ_TEMPLATE * side - 0.5)
    crop = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def pack_sheets(root: str | Path, size: int, *, held: bool, least_side: float = 0) -> Image:
    """All faces of the sheets under `root` that are (not) held out, (N, size, size, 3), in the index's order.

    Faces whose native crop is smaller than `least_side` pixels are left out. Raises MediaError for an unreadable sheet.
    """
    crops, sheet, path = [], np.empty((0, 0, 3), np.uint8), None
    for tile in load_tiles(root):
        if held_out(tile.sheet) != held:
            continue
        if tile.path != path:
            sheet, path = read_picture(tile.path), tile.path
        picture = np.ascontiguousarray(tile.cut(sheet))
        crops += [aligned_crop(picture, f.landmarks, size) for f in tile.faces if f.crop_side >= least_side]
    return np.stack(crops) if crops else np.empty((0, size, size, 3), np.uint8)


def _jitter(rng: np.random.Generator, image: Image) -> Image:
    """Light of another room: gain and gamma within 10 %, balance within 4 %."""
    gain = rng.uniform(0.9, 1.1) * rng.uniform(0.96, 1.04, 3)
    table = 255 * (np.arange(256)[:, None] / 255) ** rng.uniform(0.9, 1.1) * gain
    table = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return np.stack([table[image[..., channel], channel] for channel in range(3)], axis=2)


def make_pair(faces: Image, seed: int, number: int, *, clean: float = 0.1, gray_share: float = 0.1) -> tuple[Image, Image]:
    """Pair `number` of the run with `seed`: (bad, good), RGB uint8 (S, S, 3).

    Each pass over `faces` has its own shuffled order. Half are mirrored, all have jittered light, a share of `clean`
    stays undegraded, and a share of `gray_share` is black and white in both pictures, so that old films stay so.
    """
    epoch, place = divmod(number, len(faces))
    order = np.random.default_rng((seed, epoch)).permutation(len(faces))
    rng = np.random.default_rng((seed, 1, number))
    good: Image = faces[order[place]]
    if rng.random() < 0.5:
        good = np.ascontiguousarray(good[:, ::-1])
    good = _jitter(rng, good)
    if rng.random() < gray_share:
        good = gray(rng, good, 1)
    strength = 0.0 if rng.random() < clean else float(rng.uniform(0.05, 1))
    return degrade(rng, good, strength), good


def to_tensor(image: Image) -> torch.Tensor:
    """RGB uint8 (..., H, W, 3) to float32 (..., 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.moveaxis(image.astype(np.float32) / 127.5 - 1, -1, -3).copy())


def to_image(tensor: torch.Tensor) -> Image:
    """The inverse of `to_tensor`, clipped and rounded."""
    values = tensor.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).numpy()
    return np.ascontiguousarray(np.moveaxis(values, -3, -1))


class Pairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """`make_pair` as a map-style dataset without an end."""

    def __init__(self, faces: Image, seed: int, *, clean: float = 0.1, gray_share: float = 0.1) -> None:
        self.faces, self.seed, self.clean, self.gray_share = faces, seed, clean, gray_share

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(bad, good), float32 (3, S, S) in [-1, 1]."""
        cv2.setNumThreads(0)
        bad, good = make_pair(self.faces, self.seed, number, clean=self.clean, gray_share=self.gray_share)
        return to_tensor(bad), to_tensor(good)


class Numbers(Sampler[list[int]]):
    """Batches of consecutive pair numbers from `start`, shared out evenly among the processes of a run."""

    def __init__(self, start: int, batch: int, *, rank: int = 0, world: int = 1) -> None:
        self.start, self.batch, self.rank, self.world = start, batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of `batch` numbers for ever."""
        number = self.start + self.rank * self.batch
        while True:
            yield list(range(number, number + self.batch))
            number += self.batch * self.world
