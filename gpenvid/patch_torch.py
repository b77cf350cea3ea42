"""Faces cut out of pictures and put back on a device, as `patch` does it with OpenCV.

What crosses to the device and back is the part of the picture that a face covers, once each way. Samples are read from
the picture, and changes added to it, where the picture is: on the host, or on the graphics card that decoded it, and
then nothing of it crosses but the aligned face and the small copy in which faces are searched.
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
from gpenvid.media import pixels
from gpenvid.media.card import on_card
from gpenvid.media.planes import Layers, Sampling, layers
from gpenvid.media.planes_torch import device_layers
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
        with self._at_work(frame):
            picture = _layers(frame)
            regions, maps = [], []
            for layer in picture.layers:
                to_crop = from_samples(matrix, layer)
                bounds = align.crop_bounds(to_crop, size, *layer.size)
                if bounds is None:
                    return None
                regions.append(layer.read(*bounds))
                maps.append(align.localize(to_crop, *bounds[:2]))
            there = self._upload(*regions, picture.to_rgb.astype(np.float32))
            parts = [align_torch.sample(_planes(each), to, size) for each, to in zip(there[:-1], maps, strict=True)]
            return self._codes(torch.cat(parts), there[-1])

    @torch.inference_mode()
    def reduced(self, frame: av.VideoFrame, size: tuple[int, int]) -> Image:
        """See `media.pixels.reduced`; one on a card is made small there. Raises DeviceError as `cut_out` does."""
        if not on_card(frame):
            return pixels.reduced(frame, size)
        scale = np.array(size) / (frame.width, frame.height)
        to_small = np.column_stack([np.diag(scale), (scale - 1) / 2])  # pixel centres at whole numbers
        with self._at_work(frame):
            picture = device_layers(frame)
            (to_rgb,) = self._upload(picture.to_rgb.astype(np.float32))
            whole = [
                (_planes(layer.read(0, 0, *layer.size)), from_samples(to_small, layer)) for layer in picture.layers
            ]
            parts = [align_torch.resample(planes, to, size, "reflection") for planes, to in whole]
            return self._codes(torch.cat(parts), to_rgb)

    @torch.inference_mode()
    def put_back(self, frame: av.VideoFrame, matrix: align.Matrix, crop: Image, restored: Image, mask: Float) -> None:
        """See `patch.put_back`; where contrast is hard, samples may differ by a code of 8 bits or two from it.

        Those outside the mask keep every bit here, too.
        Raises DeviceError when there is no memory left.
        """
        with self._at_work(frame):
            picture = _layers(frame)
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
            *samples, before, after, weight, to_samples = self._upload(
                *regions, crop, restored, np.ascontiguousarray(mask), picture.to_samples
            )
            change, replaced = align_torch.difference(_planes(before), _planes(after), weight[None], matrix)
            change = _mixed(change, to_samples)
            spread = [
                align_torch.spread(change[own], replaced, _above_zero(values, layer), to_crop)
                for (layer, _, own), values, to_crop in zip(touched, samples, maps, strict=True)
            ]
            changes = [each[0] if len(each) == 1 else each.permute(1, 2, 0) for each in spread]
            if on_card(frame):
                for (layer, bounds, _), change in zip(touched, changes, strict=True):
                    layer.add(*bounds[:2], change)
                return
            added = self._download(torch.cat([each.flatten() for each in changes]))
        ends = np.cumsum([each.numel() for each in changes])
        for (layer, bounds, _), change, part in zip(touched, changes, np.split(added, ends[:-1]), strict=True):
            layer.add(*bounds[:2], part.reshape(change.shape))

    @contextmanager
    def _at_work(self, frame: av.VideoFrame) -> Iterator[None]:
        """On this thread's stream; behind what FFmpeg does to a picture on the card, and before what it does next."""
        try:
            if self.device.type != "cuda":
                yield
                return
            with torch.cuda.device(self.device):
                if not hasattr(self._own, "stream"):
                    self._own.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                with torch.cuda.stream(self._own.stream):
                    decoder = torch.cuda.default_stream() if on_card(frame) else None
                    if decoder is not None:
                        self._own.stream.wait_stream(decoder)
                    yield
                    if decoder is not None:
                        decoder.wait_stream(self._own.stream)
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceError(f"{self.device}: out of memory for pasting; use --paste-on cpu") from error

    def _codes(self, samples: Tensor, to_rgb: Tensor) -> Image:
        """(C, h, w) samples to RGB (h, w, 3) uint8 on the host."""
        codes = _mixed(samples, to_rgb).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
        result: Image = self._download(codes)
        return result

    def _upload(self, *values: NDArray[Any] | Tensor) -> list[Tensor]:
        """Arrays to the device in one transfer; uint16 comes as int32, the others as they are, as do tensors."""
        arrays = [each for each in values if not isinstance(each, Tensor)]
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
        uploaded = iter(placed)
        return [each if isinstance(each, Tensor) else next(uploaded) for each in values]

    def _download(self, there: Tensor) -> NDArray[Any]:
        """One transfer, and the only wait for the device."""
        if self.device.type != "cuda":
            return np.asarray(there.cpu().numpy())
        host = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
        host.copy_(there, non_blocking=True)
        self._own.stream.synchronize()
        return np.asarray(host.numpy())


def _layers(frame: av.VideoFrame) -> Layers[Any]:
    """Of a picture wherever it is: `Layer` or `DeviceLayer`, which have the same methods."""
    return device_layers(frame) if on_card(frame) else layers(frame)


def _planes(picture: Tensor) -> Tensor:
    """(h, w) or (h, w, C) of any type to (C, h, w) float32."""
    return (picture[None] if picture.ndim == 2 else picture.permute(2, 0, 1)).float()


def _above_zero(values: Tensor, layer: Sampling[Any]) -> Tensor:
    planes = _planes(values)
    if len(set(layer.zero)) == 1:
        return planes - layer.zero[0]
    return torch.stack([plane - zero for plane, zero in zip(planes, layer.zero, strict=True)])


def _mixed(planes: Tensor, matrix: Tensor) -> Tensor:
    """Map (I, h, w) by a matrix (O, I), or (O, I + 1) whose last column is added, to (O, h, w)."""
    inputs = planes.shape[0]
    mixed = (matrix[:, :inputs] @ planes.reshape(inputs, -1)).view(-1, *planes.shape[1:])
    return mixed if matrix.shape[1] == inputs else mixed + matrix[:, inputs, None, None]
