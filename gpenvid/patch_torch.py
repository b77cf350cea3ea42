"""Faces cut out of pictures and put back on a device, as `patch` does it with OpenCV.

What crosses to the device and back is the part of the picture that a face covers, once each way. Samples are read from
the picture, and changes added to it, on the host, where the picture is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpenvid.errors import DeviceError
from gpenvid.faces import align, align_torch
from gpenvid.media.planes import Layer, layers
from gpenvid.patch import from_samples
from gpenvid.types import Float, Image

ALIGNMENT = 16
"""Bytes at multiples of which arrays begin that travel together."""


class TorchPatch:
    """`patch.cut_out` and `patch.put_back` on a device. Both may be called from several threads.

    On CUDA each thread has a stream of its own, so that nobody waits for the network that runs meanwhile.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._own = threading.local()

    @torch.inference_mode()
    def cut_out(self, frame: av.VideoFrame, matrix: align.Matrix, size: int) -> Image | None:
        """See `patch.cut_out`; codes may differ from it by two. Raises DeviceError when there is no memory left."""
        picture = layers(frame)
        regions, maps = [], []
        for layer in picture.layers:
            to_crop = from_samples(matrix, layer)
            bounds = align.crop_bounds(to_crop, size, *layer.size)
            if bounds is None:
                return None
            regions.append(layer.read(*bounds))
            maps.append(align.localize(to_crop, *bounds[:2]))
        with self._at_work():
            there = self._upload(*regions, picture.to_rgb.astype(np.float32))
            parts = [align_torch.sample(_planes(each), to, size) for each, to in zip(there[:-1], maps, strict=True)]
            rgb = _mixed(torch.cat(parts), there[-1])
            codes = rgb.round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
            result: Image = self._download(codes)
        return result

    @torch.inference_mode()
    def put_back(self, frame: av.VideoFrame, matrix: align.Matrix, crop: Image, restored: Image, mask: Float) -> None:
        """See `patch.put_back`; where contrast is hard, samples may differ by a code of 8 bits or two from it.

        Those outside the mask keep every bit here, too.
        Raises DeviceError when there is no memory left.
        """
        picture = layers(frame)
        touched, regions, maps, first = [], [], [], 0
        for layer in picture.layers:
            own = slice(first, first + len(layer.zero))
            first = own.stop
            to_crop = from_samples(matrix, layer)
            bounds = align.spread_bounds(mask, to_crop, *layer.size)
            if bounds is not None:
                touched.append((layer, bounds, own))
                regions.append(layer.read(*bounds))
                maps.append(align.localize(to_crop, *bounds[:2]))
        if not touched:
            return
        with self._at_work():
            *samples, before, after, weight, to_samples = self._upload(
                *regions, crop, restored, np.ascontiguousarray(mask), picture.to_samples
            )
            change, replaced = align_torch.difference(_planes(before), _planes(after), weight[None], matrix)
            change = _mixed(change, to_samples)
            spread = [
                align_torch.spread(change[own], replaced, _above_zero(values, layer), to_crop).permute(1, 2, 0)
                for (layer, _, own), values, to_crop in zip(touched, samples, maps, strict=True)
            ]
            added = self._download(torch.cat([each.flatten() for each in spread]))
        first = 0
        for layer, bounds, _ in touched:
            shape = (bounds[3] - bounds[1], bounds[2] - bounds[0], *([len(layer.zero)] * (len(layer.zero) > 1)))
            count = int(np.prod(shape))
            layer.add(*bounds[:2], added[first : first + count].reshape(shape))
            first += count

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        try:
            if self.device.type != "cuda":
                yield
                return
            with torch.cuda.device(self.device):
                if not hasattr(self._own, "stream"):
                    self._own.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                with torch.cuda.stream(self._own.stream):
                    yield
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceError(f"{self.device}: out of memory for pasting; use --paste-on cpu") from error

    def _upload(self, *arrays: NDArray[Any]) -> list[Tensor]:
        """Arrays to the device in one transfer; uint16 comes as int32, the others as they are."""
        starts, total = [], 0
        for each in arrays:
            starts.append(total)
            total += -(-each.nbytes // ALIGNMENT) * ALIGNMENT
        host = torch.empty(total, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        for start, each in zip(starts, arrays, strict=True):
            host.numpy()[start : start + each.nbytes] = np.ascontiguousarray(each).view(np.uint8).reshape(-1)
        there = host.to(self.device, non_blocking=True)
        kinds = {"u1": torch.uint8, "u2": torch.int16, "f4": torch.float32}
        placed = []
        for start, each in zip(starts, arrays, strict=True):
            part = there[start : start + each.nbytes].view(kinds[each.dtype.str[1:]]).view(each.shape)
            placed.append(part.to(torch.int32) & 0xFFFF if part.dtype == torch.int16 else part)
        return placed

    def _download(self, there: Tensor) -> NDArray[Any]:
        """One transfer, and the only wait for the device."""
        if self.device.type != "cuda":
            return np.asarray(there.cpu().numpy())
        host = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
        host.copy_(there, non_blocking=True)
        self._own.stream.synchronize()
        return np.asarray(host.numpy())


def _planes(picture: Tensor) -> Tensor:
    """(h, w) or (h, w, C) of any type to (C, h, w) float32."""
    return (picture[None] if picture.ndim == 2 else picture.permute(2, 0, 1)).float()


def _above_zero(values: Tensor, layer: Layer) -> Tensor:
    planes = _planes(values)
    if len(set(layer.zero)) == 1:
        return planes - layer.zero[0]
    return torch.stack([plane - zero for plane, zero in zip(planes, layer.zero, strict=True)])


def _mixed(planes: Tensor, matrix: Tensor) -> Tensor:
    """Map (I, h, w) by a matrix (O, I), or (O, I + 1) whose last column is added, to (O, h, w)."""
    inputs = planes.shape[0]
    mixed = (matrix[:, :inputs] @ planes.reshape(inputs, -1)).view(-1, *planes.shape[1:])
    return mixed if matrix.shape[1] == inputs else mixed + matrix[:, inputs, None, None]
