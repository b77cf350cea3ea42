"""Aligned faces in, better faces out: the network behind a door of uint8 arrays, in batches that fit the device."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpenvid import weights
from gpenvid.device import resolve_device
from gpenvid.errors import DeviceError, OptionsError
from gpenvid.gpen.arch import FullGenerator
from gpenvid.gpen.checkpoint import load_generator

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

log = logging.getLogger(__name__)


@runtime_checkable
class Restorer(Protocol):
    """What restores faces: a network, or anything that keeps this contract."""

    @property
    def size(self) -> int:
        """Side S of the square crops in pixels."""

    def restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Restore aligned RGB crops.

        crops: (N, S, S, 3) uint8, N may be 0; left as it is. Returns a new array of the same shape, face by face.
        Raises ValueError for another shape or type.
        """


def check_crops(crops: NDArray[np.uint8], size: int) -> None:
    """Raise ValueError unless crops are (N, size, size, 3) uint8."""
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise ValueError(f"crops must be (N, {size}, {size}, 3) uint8, got {crops.shape} {crops.dtype}")


def to_network(crops: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(N, S, S, 3) uint8 to (N, 3, S, S) float32 in [-1, 1] on the device."""
    pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(device)
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def from_network(pictures: Tensor) -> NDArray[np.uint8]:
    """(N, 3, S, S) about [-1, 1] to (N, S, S, 3) uint8: clipped, rounded to nearest."""
    pixels = pictures.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    array: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


class GpenRestorer:
    """A GPEN on a device. One call at a time; several restorers may share nothing and run in parallel.

    network: the torch module, RGB in [-1, 1], (N, 3, size, size) to the same; name and sha256: of the weights.
    """

    def __init__(
        self,
        network: nn.Module,
        size: int,
        *,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        batch: int = 8,
        name: str = "",
        sha256: str = "",
    ) -> None:
        if batch < 1:
            raise OptionsError(f"--batch {batch}: must be 1 or more")
        self._size = size
        self.device = torch.device(device)
        self.precision = precision
        self.batch = batch
        self.name = name
        self.sha256 = sha256
        self.network = network.requires_grad_(False).to(self.device).eval()
        if isinstance(network, FullGenerator):
            network.prepare(PRECISIONS[precision])

    @property
    def size(self) -> int:
        """Side of the square crops in pixels."""
        return self._size

    @torch.inference_mode()
    def restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Restorer.restore`.

        At most `batch` crops are in the network at once. When memory runs out, `batch` is halved, for good; DeviceError
        when one crop is too many.
        """
        check_crops(crops, self.size)
        restored = np.empty_like(crops)
        done = 0
        while done < len(crops):
            part = crops[done : done + self.batch]
            result = self._attempt(part)
            if result is None:
                self._shrink(len(part))
                continue
            restored[done : done + len(part)] = result
            done += len(part)
        return restored

    def _attempt(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The crops restored, or None when memory ran out."""
        try:
            return from_network(self.network(to_network(crops, self.device)))
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            return None

    def _shrink(self, tried: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tried == 1:
            raise DeviceError(f"{self.device}: out of memory for a single face of {self.size} pixels")
        self.batch = tried // 2
        log.warning("%s: out of memory with %d faces at once, going on with %d", self.device, tried, self.batch)


def _is_out_of_memory(error: RuntimeError) -> bool:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    message = str(error).lower()
    return "out of memory" in message or "can't allocate memory" in message or "not enough memory" in message


def load_restorer(
    name_or_path: str | os.PathLike[str] = "auto",
    *,
    device: str = "auto",
    precision: str = "auto",
    batch: int = 8,
    weights_dir: str | Path | None = None,
    offline: bool | None = None,
) -> GpenRestorer:
    """A restorer from weights: `auto` (the best that is present and verified), a registered name, or a file.

    device: auto, cpu, cuda, cuda:N or mps; precision: fp32, fp16, bf16 or auto (fp16 on CUDA, else fp32); batch: most
    faces at once. A registered name that isn't present is downloaded, unless `offline` (default: $GPENVID_OFFLINE).
    Raises WeightsError, DeviceError or OptionsError.
    """
    if precision not in ("auto", *PRECISIONS):
        raise OptionsError(f"--precision {precision}: must be auto, {', '.join(PRECISIONS)}")
    place = resolve_device(device)
    found = weights.resolve(name_or_path, "restorer", weights_dir=weights_dir, offline=offline)
    network = load_generator(found.path)
    if precision == "auto":
        precision = "fp16" if place.type == "cuda" else "fp32"
    return GpenRestorer(
        network,
        network.size,
        device=place,
        precision=precision,
        batch=batch,
        name=found.name,
        sha256=found.sha256,
    )
