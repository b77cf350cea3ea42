"""An optional, tighter paste mask: facexlib's ParseNet says which pixels of a restored crop are face."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import torch
from facexlib.parsing.parsenet import ParseNet
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gpenvid import weights
from gpenvid.device import resolve_device
from gpenvid.errors import WeightsError
from gpenvid.faces.align import feather
from gpenvid.faces.checkpoint import read_state_dict
from gpenvid.types import Float

NETWORK_SIZE = 512
"""The side of the crops that ParseNet was trained on."""

CLASSES = 19
FACE_CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15)
"""Skin, features, hair and earrings; not background (0), hat (14), necklace, neck or clothes (16 to 18)."""

SOFTNESS = 16 / 512
"""Standard deviation of the blur at the mask's edge, as a share of the crop's side."""


class FaceParser:
    """ParseNet as a source of paste masks. Holds no state between calls; use one per thread all the same."""

    def __init__(
        self, network: ParseNet, *, device: str | torch.device = "auto", batch: int = 4, size: int = NETWORK_SIZE
    ) -> None:
        """Take over a loaded network.

        batch: most crops in one pass; size: side at which the network sees a crop, a multiple of 16. Raises
        DeviceError if the device isn't there.
        """
        self.device = resolve_device(device)
        self.batch = batch
        self.size = size
        self._network = network.eval().to(self.device)

    def mask(self, crops: NDArray[np.uint8]) -> Float:
        """Make the soft masks of the face in aligned RGB crops.

        crops: (N, S, S, 3) uint8, N may be 0. Returns (N, S, S) float32 in [0, 1], blurred by SOFTNESS and never
        more than `feather(S)`, so zero along the border. Raises ValueError for another shape.
        """
        if crops.ndim != 4 or crops.shape[1] != crops.shape[2] or crops.shape[3] != 3 or crops.dtype != np.uint8:
            raise ValueError(f"crops must be uint8 (N, S, S, 3), got {crops.dtype} {crops.shape}")
        size = crops.shape[1]
        masks = np.empty(crops.shape[:3], np.float32)
        for start in range(0, len(crops), self.batch):
            shares = self._face_share(torch.from_numpy(crops[start : start + self.batch]).to(self.device))
            for mask, share in zip(masks[start : start + self.batch], shares.cpu().numpy(), strict=True):
                soft = cv2.GaussianBlur(share, (0, 0), SOFTNESS * size, borderType=cv2.BORDER_REPLICATE)
                np.minimum(np.clip(soft, 0, 1), feather(size), out=mask)
        return masks

    @torch.inference_mode()
    def _face_share(self, crops: Tensor) -> Tensor:
        """Give the probability of any face class, (N, S, S) float32, for uint8 (N, S, S, 3)."""
        size = (crops.shape[1], crops.shape[2])
        x = crops.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1
        x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        share = self._network(x)[0].softmax(1)[:, list(FACE_CLASSES)].sum(1, keepdim=True)
        return F.interpolate(share, size, mode="bilinear", align_corners=False, antialias=True).squeeze(1)


def load_parser(
    name_or_path: str | os.PathLike[str] = "parsenet",
    device: str | torch.device = "auto",
    *,
    weights_dir: str | Path | None = None,
    offline: bool | None = None,
) -> FaceParser:
    """Load facexlib's ParseNet by its registered name (downloaded if absent, unless `offline`) or from a file.

    Raises WeightsError, which names the file, if it is missing, unsafe, damaged or something else; DeviceError if the
    device isn't there.
    """
    place = resolve_device(device)
    folder = None if weights_dir is None else Path(weights_dir)
    path = weights.resolve(name_or_path, "parser", weights_dir=folder, offline=offline).path
    state = read_state_dict(path)
    network = ParseNet(in_size=NETWORK_SIZE, out_size=NETWORK_SIZE, parsing_ch=CLASSES)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path.name}: not the state dict of facexlib's ParseNet") from error
    return FaceParser(network, device=place)
