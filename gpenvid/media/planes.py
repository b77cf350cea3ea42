"""A picture as layers of samples: where they lie, and what they mean, so that each is edited where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from gpenvid.media.color import chroma_scale, rgb_to_ycbcr, scale_and_offset
from gpenvid.media.layouts import LAYOUTS, Layout, Samples, add_samples, samples, values
from gpenvid.media.pixels import chroma_phase
from gpenvid.types import Float


class Shaped(Protocol):
    """A component's samples: a NumPy array in the host's memory, a PyTorch tensor in a card's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns first."""
        ...


P = TypeVar("P", bound=Shaped)


@dataclass(frozen=True)
class Sampling(Generic[P]):
    """Views of a picture's components that are sampled at the same places: luma; both of chroma; red, green and blue.

    grain: picture pixels per sample, across and down; phase: picture coordinates of the first sample's centre. zero:
    for each component, the sample value that stands for nothing: black, or no colour.
    """

    grain: tuple[float, float]
    phase: tuple[float, float]
    zero: tuple[float, ...]
    _components: tuple[P, ...]
    _layout: Layout

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in samples."""
        return self._components[0].shape[1], self._components[0].shape[0]


class Layer(Sampling[Samples]):
    """Such components of a picture in the host's memory."""

    def read(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[Any]:
        """Copy the samples of the rectangle: (y1 - y0, x1 - x0, C), without the C if it is 1; uint8 or uint16."""
        parts = [values(component[y0:y1, x0:x1], self._layout) for component in self._components]
        return parts[0] if len(parts) == 1 else np.asarray(cv2.merge(parts))

    def above_zero(self, x0: int, y0: int, x1: int, y1: int) -> Float:
        """As `read`, less what stands for nothing, float32."""
        zero = np.float32(self.zero[0]) if len(set(self.zero)) == 1 else np.array(self.zero, np.float32)
        above: Float = self.read(x0, y0, x1, y1) - zero
        return above

    def add(self, x0: int, y0: int, change: Float) -> None:
        """Add float32 (h, w, C), or (h, w) if C is 1, from sample (x0, y0) on, rounded and clipped to the depth.

        Where the change rounds to zero every bit stays. The picture must be writable.
        """
        height, width = change.shape[:2]
        for component, own in zip(self._components, cv2.split(change), strict=True):
            add_samples(component[y0 : y0 + height, x0 : x0 + width], np.asarray(own), self._layout)


L = TypeVar("L", bound="Sampling[Any]")


@dataclass(frozen=True)
class Layers(Generic[L]):
    """All layers of a picture but alpha, and how colours are made of them.

    to_samples: (C, 3), RGB differences in 8-bit codes to differences of samples, C over all layers. to_rgb: (3, C + 1),
    samples to RGB in 8-bit codes; the last column is added.
    """

    layers: tuple[L, ...]
    to_samples: Float
    to_rgb: NDArray[np.float64]


def layers(frame: av.VideoFrame) -> Layers[Layer]:
    """The layers of a picture, as views into it. Raises ValueError for a format that can't be edited in place."""
    layout = LAYOUTS.get(frame.format.name)
    if layout is None:
        raise ValueError(f"pixel format {frame.format.name} can't be edited in place")
    return arranged(frame, layout, tuple(samples(frame, component, layout) for component in layout.components), Layer)


def arranged(
    frame: av.VideoFrame,
    layout: Layout,
    parts: tuple[P, ...],
    kind: Callable[[tuple[float, float], tuple[float, float], tuple[float, ...], tuple[P, ...], Layout], L],
) -> Layers[L]:
    """The layers of a picture of that layout, made of its components' samples by `kind`."""
    scale, offset = scale_and_offset(frame, layout)
    if layout.model == "yuv":
        middle = float(1 << (layout.depth - 1))
        grain = (float(1 << layout.log2_x), float(1 << layout.log2_y))
        found = [
            kind((1.0, 1.0), (0.0, 0.0), (offset,), parts[:1], layout),
            kind(grain, chroma_phase(frame, layout), (middle, middle), parts[1:], layout),
        ]
        unit = chroma_scale(frame, layout)
        to_samples = rgb_to_ycbcr(frame) * np.array([[scale], [unit], [unit]])
        inverse = np.linalg.inv(to_samples)
    else:
        found = [kind((1.0, 1.0), (0.0, 0.0), (offset,) * len(parts), parts, layout)]
        to_samples = (rgb_to_ycbcr(frame)[:1] if layout.model == "gray" else np.eye(3)) * np.float64(scale)
        inverse = (np.ones((3, 1)) if layout.model == "gray" else np.eye(3)) / scale
    zero = [each for layer in found for each in layer.zero]
    return Layers(tuple(found), to_samples.astype(np.float32), np.column_stack([inverse, -inverse @ zero]))
