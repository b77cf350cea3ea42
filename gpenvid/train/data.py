"""Pairs of a good and a bad picture of one face, made on the fly from a pack of aligned crops.

A pack (`gpenvid.train.packs`) holds RGB uint8 (N, S, S, 3), faces aligned to FFHQ's template. Every pair is a pure
function of (seed, number): neither workers nor restarts change what a training run sees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from gpenvid.errors import MediaError, OptionsError
from gpenvid.evaluate import PICTURES, read_picture
from gpenvid.faces.align import crop, fit_similarity
from gpenvid.train.degradations import degrade, gray
from gpenvid.train.options import PrepareOptions
from gpenvid.train.packs import read_pack
from gpenvid.train.sheets import held_out, load_tiles
from gpenvid.types import Face, Float, Image

CLIPS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts")


def aligned_crop(image: Image, landmarks: Float, size: int) -> Image:
    """Cut the face of `landmarks` (5, 2) out of `image`, aligned to FFHQ's template, (size, size, 3)."""
    return crop(image, fit_similarity(landmarks, size), size)


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


class FaceFinder(Protocol):
    """What finds the faces of photographs: any of `gpenvid.faces.detect`."""

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """The faces of each picture."""
        ...


def sharpness(image: Image) -> float:
    """Variance of the luma's Laplacian: a few units for a blurred crop, hundreds for a sharp one."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def photographs_in(folder: str | Path) -> list[Path]:
    """The pictures in a folder and all below it, in order. Raises MediaError if there are none."""
    return _files_in(folder, PICTURES)


def photographs_and_clips_in(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """The pictures, and the videos, in a folder and all below it, in order. Raises MediaError if there are neither."""
    paths = _files_in(folder, PICTURES + CLIPS)
    clips = [path for path in paths if path.suffix.lower() in CLIPS]
    return [path for path in paths if path not in clips], clips


def _files_in(folder: str | Path, kinds: tuple[str, ...]) -> list[Path]:
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in kinds)
    if not paths:
        raise MediaError(f"{folder}: no pictures ({', '.join(kinds)})")
    return paths


def pack_photographs(folder: str | Path, detector: FaceFinder, options: PrepareOptions) -> tuple[Image, Counter[str]]:
    """All fit faces of the photographs below `folder`, (N, S, S, 3), in the order of their paths; and what was counted.

    Counted: "kept", and left out as "small", "blurred", or with their whole file as "unreadable" or "faceless".
    Raises MediaError if there is no picture at all.
    """
    paths = photographs_in(folder)
    counts: Counter[str] = Counter()
    crops = []
    for path in paths:
        try:
            picture = read_picture(path)
        except MediaError:
            counts["unreadable"] += 1
            continue
        faces = detector.detect([picture])[0]
        counts["faceless"] += not faces
        for face in faces:
            matrix = fit_similarity(face.landmarks, options.size)
            if 1 / np.hypot(*matrix[:, 0]) < options.least_side:
                counts["small"] += 1
                continue
            crops.append(crop(picture, matrix, options.size))
            if sharpness(crops[-1]) < options.least_sharpness:
                crops.pop()
                counts["blurred"] += 1
    counts["kept"] = len(crops)
    return np.stack(crops) if crops else np.empty((0, options.size, options.size, 3), np.uint8), counts


def load_faces(path: str | Path, size: int) -> Image:
    """The faces to train on, (N, size, size, 3): of a pack, or of a folder of sheets without those held out.

    Raises MediaError if the path is neither, OptionsError if a pack is empty or of another size.
    """
    path = Path(path)
    faces = pack_sheets(path, size, held=False, least_side=size) if path.is_dir() else read_pack(path)
    if faces.dtype != np.uint8 or faces.shape[1:] != (size, size, 3) or not len(faces):
        raise OptionsError(f"--data {path}: holds {faces.dtype} {faces.shape}, needs uint8 (N, {size}, {size}, 3)")
    return faces


def _jitter(rng: np.random.Generator, image: Image) -> Image:
    """Light of another room: gain and gamma within 10 %, balance within 4 %."""
    gain = rng.uniform(0.9, 1.1) * rng.uniform(0.96, 1.04, 3)
    table = 255 * (np.arange(256)[:, None] / 255) ** rng.uniform(0.9, 1.1) * gain
    table = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return np.stack([table[image[..., channel], channel] for channel in range(3)], axis=2)


def make_pair(
    faces: Image, seed: int, number: int, *, clean: float = 0.1, gray_share: float = 0.1, near: float = 0.0
) -> tuple[Image, Image]:
    """Pair `number` of the run with `seed`: (bad, good), RGB uint8 (S, S, 3).

    Each pass over `faces` has its own shuffled order. Half are mirrored, all have jittered light, a share of `clean`
    stays undegraded, and a share of `gray_share` is black and white in both pictures, so that old films stay so.
    A share of `near` is degraded at 1.3 to 2.5 times the size and then reduced, as happens to a face that is larger
    in its video than the network's picture: such noise is fainter and of another grain.
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
    strength = 0.0 if rng.random() < clean else float(rng.uniform(0.05, 0.9))
    if near and rng.random() < near:
        return _degrade_near(rng, good, strength), good
    return degrade(rng, good, strength), good


def _degrade_near(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """`degrade` at a larger scale. What the reduction alone takes away is given back, so that strength 0 is clean."""
    side = round(image.shape[0] * rng.uniform(1.3, 2.5))
    large = np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
    worse = degrade(rng, large, strength)
    size = (image.shape[1], image.shape[0])
    change = cv2.resize(worse.astype(np.float32) - large, size, interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(np.rint(image + change), 0, 255), np.uint8)


def to_tensor(image: Image) -> torch.Tensor:
    """RGB uint8 (..., H, W, 3) to float32 (..., 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.moveaxis(image.astype(np.float32) / 127.5 - 1, -1, -3).copy())


def to_image(tensor: torch.Tensor) -> Image:
    """The inverse of `to_tensor`, clipped and rounded."""
    values = tensor.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).numpy()
    return np.ascontiguousarray(np.moveaxis(values, -3, -1))


class Pairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """`make_pair` as a map-style dataset without an end."""

    def __init__(
        self, faces: Image, seed: int, *, clean: float = 0.1, gray_share: float = 0.1, near: float = 0.0
    ) -> None:
        self.faces, self.seed, self.clean, self.gray_share, self.near = faces, seed, clean, gray_share, near

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(bad, good), float32 (3, S, S) in [-1, 1]."""
        cv2.setNumThreads(0)
        shares = {"clean": self.clean, "gray_share": self.gray_share, "near": self.near}
        bad, good = make_pair(self.faces, self.seed, number, **shares)
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
