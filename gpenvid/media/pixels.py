"""Look at, and add to, a rectangle of a picture in the picture's own pixel format.

Interlaced pictures are treated as progressive ones: their fields share chroma phases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from gpenvid.media.color import chroma_scale, convert, rgb_to_ycbcr, scale_and_offset, space_of
from gpenvid.media.layouts import LAYOUTS, Layout, Samples, add_samples, samples, values
from gpenvid.types import Float, Image

Float64 = NDArray[np.float64]

EDITABLE: frozenset[str] = frozenset(LAYOUTS)
"""The pixel formats that can be read and edited in place."""

# Luma position of chroma sample 0, for a factor of 2: (across, down); "" is MPEG-2's and H.264's default.
_CHROMA_PHASE = {
    "": (0.0, 0.5),
    "left": (0.0, 0.5),
    "center": (0.5, 0.5),
    "topleft": (0.0, 0.0),
    "top": (0.5, 0.0),
    "bottomleft": (0.0, 1.0),
    "bottom": (0.5, 1.0),
}


@dataclass(frozen=True, slots=True)
class PictureTags:
    """What the stream says about a picture, and the picture itself can't carry in PyAV.

    sample_aspect_ratio: width over height of a pixel; chroma_location: a name, "" for the default (left);
    display_matrix: nine numbers in FFmpeg's fixed-point order, or None.
    """

    sample_aspect_ratio: Fraction = Fraction(1)
    chroma_location: str = ""
    display_matrix: tuple[int, ...] | None = None


def set_tags(frame: av.VideoFrame, tags: PictureTags) -> None:
    """Attach the tags to the picture; they follow it through `make_writable` and `reformat`."""
    frame.opaque = tags


def get_tags(frame: av.VideoFrame) -> PictureTags:
    """The tags attached to the picture; without any, the defaults."""
    tags = frame.opaque
    return tags if isinstance(tags, PictureTags) else PictureTags()


Reduce = Callable[[av.VideoFrame, tuple[int, int]], Image]
"""`reduced`, or what does the same elsewhere."""


def reduced(frame: av.VideoFrame, size: tuple[int, int]) -> Image:
    """The stored picture at that size (width, height), no larger than it is, as RGB (h, w, 3) uint8."""
    small = frame
    if size != (frame.width, frame.height):  # in its own format first: both at once takes swscale twice as long
        small = convert(frame, frame.format.name, size, space=space_of(frame), interpolation="AREA")
    return np.asarray(convert(small, "rgb24", interpolation="BILINEAR").to_ndarray(), np.uint8)


def thumbnail(frame: av.VideoFrame, longest_side: int, reduce: Reduce = reduced) -> tuple[Image, Float64]:
    """A small copy of the picture as a viewer sees it: upright, with square pixels, RGB (h, w, 3) uint8.

    longest_side: of the copy in pixels, 0 for as large as it can be without scaling up; never scaled up. Rotations by
    multiples of 90 degrees and mirroring are applied, others are not. reduce: makes the copy small.
    Also returns the (2, 3) matrix that maps (x, y, 1) in the copy to stored-picture coordinates; in both, the centre of
    the top left pixel is the origin.
    """
    tags = get_tags(frame)
    aspect = tags.sample_aspect_ratio
    width, height = frame.width * min(aspect, Fraction(1)), frame.height / max(aspect, Fraction(1))
    shrink = min(Fraction(1), longest_side / max(width, height)) if longest_side else Fraction(1)
    w, h = max(1, round(width * shrink)), max(1, round(height * shrink))
    image = reduce(frame, (w, h))
    a, b, c, d = _orientation(frame, tags)
    if a:
        image = image[::d, ::a]
        turn = np.array([[a, 0, (w - 1) * (a < 0)], [0, d, (h - 1) * (d < 0)]], np.float64)
    else:
        image = image.transpose(1, 0, 2)[::b, ::c]
        turn = np.array([[0, b, (w - 1) * (b < 0)], [c, 0, (h - 1) * (c < 0)]], np.float64)
    grow = np.array([frame.width / w, frame.height / h])
    matrix = turn * grow[:, None]
    matrix[:, 2] += (grow - 1) / 2
    return np.ascontiguousarray(image), matrix


def read_region(frame: av.VideoFrame, x0: int, y0: int, x1: int, y1: int) -> Image:
    """Copy the rectangle x0 <= x < x1, y0 <= y < y1 of the stored picture as RGB, (y1 - y0, x1 - x0, 3) uint8.

    The conversion follows the picture's matrix and range (where it has no matrix: BT.601 below 720 lines, else
    BT.709), chroma is interpolated linearly from where its location tag says that it sits.
    Raises ValueError if the format isn't in EDITABLE or the rectangle isn't inside the picture or is empty.
    """
    layout = _layout(frame, x0, y0, x1, y1)
    window = (slice(y0, y1), slice(x0, x1))
    if layout.model == "yuv":
        return _read_yuv(frame, layout, x0, y0, x1, y1)
    parts = [samples(frame, component, layout)[window] for component in layout.components]
    if layout.depth > 8 or layout.model == "gray":
        scale, offset = scale_and_offset(frame, layout)
        parts = [_to_uint8((part.astype(np.float32) - offset) / scale) for part in parts]
    return np.dstack(parts if len(parts) == 3 else parts * 3)


def add_region(frame: av.VideoFrame, x0: int, y0: int, delta: Float) -> None:
    """Add an RGB difference to the rectangle of the stored picture whose top left pixel is (x0, y0).

    delta: (h, w, 3) float32 in 8-bit code units, [-255, 255]. It is converted linearly by the picture's matrix, range
    and depth; its chroma is low-passed and subsampled to where the picture's chroma samples sit, which reaches up to a
    chroma sample beyond the rectangle; the sum is rounded and clipped to the depth. Where the (filtered) difference is
    zero the samples stay as they are, bit for bit. Alpha is left alone.
    The picture must be writable: call `frame.make_writable()` once before.
    Raises ValueError if the format isn't in EDITABLE or the rectangle isn't inside the picture or is empty.
    """
    height, width = delta.shape[:2]
    layout = _layout(frame, x0, y0, x0 + width, y0 + height)
    window = (slice(y0, y0 + height), slice(x0, x0 + width))
    scale, _ = scale_and_offset(frame, layout)
    if layout.model == "rgb":
        for channel, component in enumerate(layout.components):
            add_samples(samples(frame, component, layout)[window], delta[..., channel] * scale, layout)
        return
    unit = chroma_scale(frame, layout)
    matrix = rgb_to_ycbcr(frame) * np.array([[scale], [unit], [unit]], np.float32)
    change = np.asarray(cv2.transform(delta, matrix), np.float32)
    add_samples(samples(frame, layout.components[0], layout)[window], change[..., 0], layout)
    if layout.model == "gray":
        return
    across, down = chroma_phase(frame, layout)
    for channel, component in enumerate(layout.components[1:], 1):
        plane = samples(frame, component, layout)
        lower, top = _lower(change[..., channel], y0, frame.height, plane.shape[0], layout.log2_y, down)
        lower, left = _lower(lower.T, x0, frame.width, plane.shape[1], layout.log2_x, across)
        lower = lower.T
        add_samples(plane[top : top + lower.shape[0], left : left + lower.shape[1]], lower, layout)


def _orientation(frame: av.VideoFrame, tags: PictureTags) -> tuple[int, int, int, int]:
    """(a, b, c, d), each -1, 0 or 1: a stored (x, y) is seen at (a x + c y, b x + d y), but for a translation."""
    if tags.display_matrix is not None:
        a, b, _, c, d = (value / 65536 for value in tags.display_matrix[:5])
    else:
        angle = np.deg2rad(frame.rotation)
        a, b, c, d = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    a, b, c, d = (round(float(value)) if abs(value - round(float(value))) < 1e-3 else 2 for value in (a, b, c, d))
    if {abs(a * d), abs(b * c)} != {0, 1} or a * b or c * d:
        return 1, 0, 0, 1
    return int(a), int(b), int(c), int(d)


def _layout(frame: av.VideoFrame, x0: int, y0: int, x1: int, y1: int) -> Layout:
    layout = LAYOUTS.get(frame.format.name)
    if layout is None:
        raise ValueError(f"pixel format {frame.format.name} can't be edited in place")
    if not (0 <= x0 < x1 <= frame.width and 0 <= y0 < y1 <= frame.height):
        raise ValueError(f"rectangle ({x0}, {y0}, {x1}, {y1}) isn't inside the {frame.width}x{frame.height} picture")
    return layout


def _read_yuv(frame: av.VideoFrame, layout: Layout, x0: int, y0: int, x1: int, y1: int) -> Image:
    across, down = chroma_phase(frame, layout)
    scale, offset = scale_and_offset(frame, layout)
    unit, middle = chroma_scale(frame, layout), float(1 << (layout.depth - 1))
    luma, cb, cr = (samples(frame, component, layout) for component in layout.components)
    rows, row_step, first_row = _neighbourhood(y0, y1, cb.shape[0], layout.log2_y, down)
    columns, column_step, first_column = _neighbourhood(x0, x1, cb.shape[1], layout.log2_x, across)
    chroma = cv2.merge([_values(cb[rows, columns], layout), _values(cr[rows, columns], layout)])
    if layout.log2_x or layout.log2_y:
        chroma = cv2.warpAffine(
            chroma,
            np.array([[column_step, 0, first_column], [0, row_step, first_row]]),
            (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    ycbcr = cv2.merge([_values(luma[y0:y1, x0:x1], layout), *cv2.split(chroma)])
    # One affine map does the rest: offsets and scales of the samples, then the inverse matrix.
    inverse = np.linalg.inv(rgb_to_ycbcr(frame).astype(np.float64)) / [scale, unit, unit]
    shift = -inverse @ [offset, middle, middle]
    return _to_uint8(np.asarray(cv2.transform(ycbcr, np.column_stack([inverse, shift])), np.float32))


def _to_uint8(values: Float) -> Image:
    """Rounded and clipped."""
    return np.asarray(cv2.addWeighted(values, 1, values, 0, 0, dtype=cv2.CV_8U), np.uint8)


def _values(part: Samples, layout: Layout) -> Float:
    return values(part, layout).astype(np.float32)


def chroma_phase(frame: av.VideoFrame, layout: Layout) -> tuple[float, float]:
    """Luma coordinates of the first chroma sample. Vertical siting only matters where chroma is subsampled vertically.

    With factors other than 2 the samples are cosited across and centred down, as in DV and Indeo.
    """
    across, down = _CHROMA_PHASE.get(get_tags(frame).chroma_location, (0.0, 0.5))
    return across if layout.log2_x == 1 else 0.0, down if layout.log2_y == 1 else ((1 << layout.log2_y) - 1) / 2


def _neighbourhood(start: int, stop: int, size: int, log2: int, phase: float) -> tuple[slice, float, float]:
    """Which chroma samples lie around luma positions start..stop-1, and where among them these lie: step and first.

    Positions are multiples of 1/32 of a sample, which OpenCV's interpolation takes exactly.
    """
    if log2 == 0:
        return slice(start, stop), 1.0, 0.0
    step = 1 / (1 << log2)
    first = (start - phase) * step
    low = min(max(0, floor(first)), size - 1)
    high = min(max(low, floor((stop - 1 - phase) * step) + 1), size - 1)
    return slice(low, high + 1), step, first - low


def _lower(change: Float, start: int, size: int, chroma_size: int, log2: int, phase: float) -> tuple[Float, int]:
    """Low-pass and subsample along the first axis; returns the chroma change and the index of its first sample.

    The kernel is the triangle of linear interpolation, centred on the chroma sample: 1 2 1 where it sits on a luma
    sample, 1 3 3 1 where it sits between two. Outside the rectangle the change is zero; beyond the picture's edge it
    goes on as it is at the edge.
    """
    if log2 == 0:
        return change, start
    factor = 1 << log2
    taps = range(ceil(phase - factor + 1e-6), floor(phase + factor - 1e-6) + 1)
    kernel = np.array([factor - abs(tap - phase) for tap in taps], np.float32)
    kernel /= kernel.sum()
    stop = start + len(change)
    first = max(0, -(-(start - taps[-1]) // factor))
    last = min(chroma_size - 1, (stop - 1 - taps[0]) // factor)
    before = start - (factor * first + taps[0])
    after = factor * last + taps[-1] + 1 - stop
    padded = np.pad(change[max(0, -before) : len(change) + min(0, after)], ((max(0, before), max(0, after)), (0, 0)))
    if start == 0 and before > 0:
        padded[:before] = change[0]
    if stop == size and after > 0:
        padded[-after:] = change[-1]
    count = last - first + 1
    result = sum(weight * padded[i : i + factor * (count - 1) + 1 : factor] for i, weight in enumerate(kernel))
    return np.asarray(result, np.float32), first
