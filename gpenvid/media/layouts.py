"""Where a picture's samples lie in memory, format by format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import av
import cv2
import numpy as np
from av.codec.codec import find_best_pix_fmt_of_list
from numpy.typing import NDArray

from gpenvid.types import Float

Samples = NDArray[Any]
"""uint8 or uint16 (possibly of the other byte order), a view into a picture's plane."""


@dataclass(frozen=True, slots=True)
class Component:
    """One component: samples of `plane` from `offset` on, every `step`-th, counted in samples."""

    plane: int
    offset: int = 0
    step: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """A pixel format. components: red, green, blue; or luma, Cb, Cr; or gray alone. Alpha is not among them.

    depth: bits of a sample; shift: unused low bits under it; log2_x, log2_y: chroma subsampling; full: whether the
    format itself says full range.
    """

    model: Literal["rgb", "yuv", "gray"]
    components: tuple[Component, ...]
    depth: int = 8
    dtype: str = "u1"
    shift: int = 0
    log2_x: int = 0
    log2_y: int = 0
    full: bool = False

    @property
    def top(self) -> int:
        """The largest sample value."""
        return (1 << self.depth) - 1


def samples(frame: av.VideoFrame, component: Component, layout: Layout) -> Samples:
    """The component's samples, (height, width) of its plane, as a view into the picture: writing writes the picture."""
    plane = frame.planes[component.plane]
    dtype = np.dtype(layout.dtype)
    rows: Samples = np.frombuffer(memoryview(plane), dtype).reshape(
        plane.height, abs(plane.line_size) // dtype.itemsize
    )
    if plane.line_size < 0:  # stored bottom up
        rows = rows[::-1]
    subsampled = component.plane != layout.components[0].plane or component is not layout.components[0]
    width = -(-frame.width >> layout.log2_x) if subsampled and layout.model == "yuv" else frame.width
    return rows[:, component.offset : component.offset + (width - 1) * component.step + 1 : component.step]


def values(part: Samples, layout: Layout) -> NDArray[Any]:
    """A copy of the samples as numbers, uint8 or uint16."""
    wide = np.uint8 if layout.depth == 8 else np.uint16
    return np.array(part >> layout.shift if layout.shift else part, wide, order="C")


def add_samples(part: Samples, change: Float, layout: Layout) -> None:
    """Add to samples in place, rounded and clipped. A change that rounds to zero leaves every bit, illegal ones too."""
    old = values(part, layout)
    new: Samples = cv2.add(old, np.ascontiguousarray(change), dtype=cv2.CV_8U if old.dtype == np.uint8 else cv2.CV_16U)
    if layout.top < np.iinfo(old.dtype).max:
        new = np.minimum(new, np.maximum(old, old.dtype.type(layout.top)))
    if layout.shift:
        part += (new - old) << layout.shift  # wraps for negative changes, as it should; the unused bits stay
    else:
        part[:] = new


def duplicate(frame: av.VideoFrame, pix_fmt: str | None = None) -> av.VideoFrame:
    """A copy of the picture that shares no memory with it, with its time and colour tags.

    pix_fmt: another name of a format with the very same samples. Raises KeyError for a format that isn't in LAYOUTS.
    """
    pix_fmt = pix_fmt or frame.format.name
    copy = av.VideoFrame(frame.width, frame.height, pix_fmt)
    layout, other = LAYOUTS[frame.format.name], LAYOUTS[pix_fmt]
    for source, target in zip(layout.components, other.components, strict=True):
        samples(copy, target, other)[:] = samples(frame, source, layout)
    copy.pts, copy.time_base, copy.duration = frame.pts, frame.time_base, frame.duration
    copy.color_range, copy.colorspace = frame.color_range, frame.colorspace
    copy.color_primaries, copy.color_trc = frame.color_primaries, frame.color_trc
    return copy


def _planar(depth: int, log2_x: int, log2_y: int, *, full: bool = False) -> Layout:
    planes = (Component(0), Component(1), Component(2))
    return Layout("yuv", planes, depth, _dtype(depth), 0, log2_x, log2_y, full)


def _dtype(depth: int, order: str = "<") -> str:
    return "u1" if depth == 8 else f"{order}u2"


def _packed(model: Literal["rgb", "gray"], offsets: str, step: int, depth: int = 8, order: str = "<") -> Layout:
    parts = tuple(Component(0, int(offset), step) for offset in offsets)
    return Layout(model, parts, depth, _dtype(depth, order))


def _table() -> dict[str, Layout]:
    table: dict[str, Layout] = {}
    subsamplings = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0), "410": (2, 2)}
    for name, (x, y) in subsamplings.items():
        table[f"yuv{name}p"] = table[f"yuva{name}p"] = _planar(8, x, y)
        table[f"yuvj{name}p"] = _planar(8, x, y, full=True)
        for depth in (9, 10, 12, 14, 16):
            table[f"yuv{name}p{depth}le"] = table[f"yuva{name}p{depth}le"] = _planar(depth, x, y)
    for depth in (9, 10, 12, 14, 16):
        for order, name in (("<", "le"), (">", "be")):
            table[f"gray{depth}{name}"] = Layout("gray", (Component(0),), depth, f"{order}u2")
        red_green_blue = (Component(2), Component(0), Component(1))
        table[f"gbrp{depth}le"] = table[f"gbrap{depth}le"] = Layout("rgb", red_green_blue, depth, "<u2")
    table["gbrp"] = table["gbrap"] = Layout("rgb", (Component(2), Component(0), Component(1)))
    table["gray"] = Layout("gray", (Component(0),))
    for name, (x, y) in {"nv12": (1, 1), "nv16": (1, 0), "nv24": (0, 0)}.items():
        table[name] = Layout("yuv", (Component(0), Component(1, 0, 2), Component(1, 1, 2)), log2_x=x, log2_y=y)
    table["nv21"] = Layout("yuv", (Component(0), Component(1, 1, 2), Component(1, 0, 2)), log2_x=1, log2_y=1)
    for name, (depth, x, y) in {
        "p010le": (10, 1, 1),
        "p012le": (12, 1, 1),
        "p016le": (16, 1, 1),
        "p210le": (10, 1, 0),
        "p216le": (16, 1, 0),
        "p410le": (10, 0, 0),
    }.items():
        parts = (Component(0), Component(1, 0, 2), Component(1, 1, 2))
        table[name] = Layout("yuv", parts, depth, "<u2", 16 - depth, x, y)
    for name, (luma, cb, cr) in {"yuyv422": (0, 1, 3), "uyvy422": (1, 0, 2), "yvyu422": (0, 3, 1)}.items():
        table[name] = Layout("yuv", (Component(0, luma, 2), Component(0, cb, 4), Component(0, cr, 4)), log2_x=1)
    packed = {"rgb24": ("012", 3), "bgr24": ("210", 3), "rgba": ("012", 4), "bgra": ("210", 4), "argb": ("123", 4)}
    packed |= {"abgr": ("321", 4), "rgb0": ("012", 4), "bgr0": ("210", 4), "0rgb": ("123", 4), "0bgr": ("321", 4)}
    for name, (offsets, step) in packed.items():
        table[name] = _packed("rgb", offsets, step)
    for order, end in (("<", "le"), (">", "be")):
        for name, offsets, step in (
            ("rgb48", "012", 3),
            ("bgr48", "210", 3),
            ("rgba64", "012", 4),
            ("bgra64", "210", 4),
        ):
            table[name + end] = _packed("rgb", offsets, step, 16, order)
        table["ya16" + end] = _packed("gray", "0", 2, 16, order)
    table["ya8"] = _packed("gray", "0", 2)
    return {name: layout for name, layout in table.items() if _known(name)}


def _known(name: str) -> bool:
    """Whether this build of FFmpeg has the format: not every combination that the table could describe exists."""
    try:
        av.VideoFormat(name)
    except ValueError:
        return False
    return True


LAYOUTS: dict[str, Layout] = _table()


def nearest_editable(name: str) -> str:
    """The format itself if its samples can be edited in place, else the one to which a conversion loses least."""
    if name in LAYOUTS:
        return name
    best, _ = find_best_pix_fmt_of_list(sorted(LAYOUTS), name, has_alpha=True)
    return best.name if best is not None else "yuv444p"
