"""The layers of a picture in a graphics card's memory, as `planes` has those of one in the host's.

PyTorch sees the picture's own memory, through DLPack.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from gpenvid.media.layouts import LAYOUTS
from gpenvid.media.planes import Layers, Sampling, arranged


@contextmanager
def current(card: int | None) -> Iterator[None]:
    """PyTorch's context on that CUDA device is the thread's current one, so that FFmpeg can join it."""
    if card is None:
        yield
        return
    with torch.cuda.device(card):
        torch.cuda.synchronize()  # makes the context, if nothing did before
        yield


class DeviceLayer(Sampling[Tensor]):
    """Such components of a picture in a card's memory; uint16 is seen as int16."""

    def read(self, x0: int, y0: int, x1: int, y1: int) -> Tensor:
        """Copy the samples of the rectangle: (y1 - y0, x1 - x0, C), without the C if it is 1; int32."""
        parts = [component[y0:y1, x0:x1] for component in self._components]
        stored = (parts[0] if len(parts) == 1 else torch.stack(parts, dim=2)).to(torch.int32)
        return (stored & 0xFFFF) >> self._layout.shift

    def add(self, x0: int, y0: int, change: Tensor) -> None:
        """Add float32 (h, w, C), or (h, w) if C is 1, from sample (x0, y0) on, rounded and clipped to the depth.

        Where the change rounds to zero every bit stays.
        """
        height, width = change.shape[:2]
        old = self.read(x0, y0, x0 + width, y0 + height)
        new = (old + change).round_().clamp_(min=0).to(torch.int32)
        stored = (new.minimum(old.clamp(min=self._layout.top)) - old) << self._layout.shift
        for component, own in zip(self._components, stored.view(height, width, -1).unbind(2), strict=True):
            # The sum wraps around for negative changes, as it should.
            component[y0 : y0 + height, x0 : x0 + width].add_(own.to(component.dtype))


def device_layers(frame: av.VideoFrame) -> Layers[DeviceLayer]:
    """The layers of a picture on a card that can be edited there (see `card`), as views into it.

    What is written to its memory must be waited for by whoever reads it next, and the other way round.
    """
    assert frame.sw_format is not None
    layout = LAYOUTS[frame.sw_format.name]
    # By capsule, so that PyTorch doesn't ask for its stream to be waited for, which PyAV refuses.
    planes = [from_dlpack(plane.__dlpack__()) for plane in frame.planes]
    planes = [plane.view(torch.int16) if plane.dtype == torch.uint16 else plane for plane in planes]
    return arranged(frame, layout, (planes[0], planes[1][..., 0], planes[1][..., 1]), DeviceLayer)
