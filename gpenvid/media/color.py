"""What samples mean: matrix, range, and conversion of whole pictures by swscale with both told explicitly."""

from __future__ import annotations

import threading
from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from gpenvid.media.layouts import LAYOUTS, Layout
from gpenvid.types import Float

_LUMA_WEIGHTS = {
    1: (0.2126, 0.7152, 0.0722),  # ITU-R BT.709
    4: (0.30, 0.59, 0.11),  # FCC 73.682
    5: (0.299, 0.587, 0.114),  # ITU-R BT.601 (625 lines)
    6: (0.299, 0.587, 0.114),  # ITU-R BT.601 (525 lines)
    7: (0.212, 0.701, 0.087),  # SMPTE 240M
    9: (0.2627, 0.6780, 0.0593),  # ITU-R BT.2020, non-constant luminance
    10: (0.2627, 0.6780, 0.0593),
}
_WIDE = "BT2020" if "BT2020" in Colorspace.__members__ else "ITU709"  # PyAV 17 doesn't know it
_SWSCALE_SPACE = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: _WIDE, 10: _WIDE}
_YCGCO = 8
_JPEG_RANGE = 2
_MPEG_RANGE = 1
_HD_LINES = 720


def full_range(frame: av.VideoFrame, layout: Layout) -> bool:
    """Gray and RGB are full range unless tagged otherwise, YCbCr is limited unless tagged otherwise."""
    if layout.model == "rgb" or layout.full or frame.color_range == _JPEG_RANGE:
        return True
    return layout.model == "gray" and frame.color_range != _MPEG_RANGE


def scale_and_offset(frame: av.VideoFrame, layout: Layout) -> tuple[float, float]:
    """Sample = 8-bit code * scale + offset, for luma, gray and RGB."""
    if full_range(frame, layout):
        return layout.top / 255, 0.0
    unit = 1 << (layout.depth - 8)
    return 219 * unit / 255, 16.0 * unit


def chroma_scale(frame: av.VideoFrame, layout: Layout) -> float:
    """Chroma sample = middle + scale * value, where the value spans [-127.5, 127.5]."""
    return layout.top / 255 if full_range(frame, layout) else 224 * (1 << (layout.depth - 8)) / 255


def rgb_to_ycbcr(frame: av.VideoFrame) -> Float:
    """RGB to luma, Cb, Cr, all in the same unit, (3, 3): Y = weights . RGB, Cb = (B - Y) / (2 - 2 Kb), Cr alike."""
    space = frame.colorspace
    if space == _YCGCO:
        return np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0, -0.5]], np.float32)
    red, green, blue = _LUMA_WEIGHTS.get(space) or _LUMA_WEIGHTS[1 if frame.height >= _HD_LINES else 5]
    to_cb, to_cr = 0.5 / (1 - blue), 0.5 / (1 - red)
    rows = [
        [red, green, blue],
        [-red * to_cb, -green * to_cb, 0.5],
        [0.5, -green * to_cr, -blue * to_cr],
    ]
    return np.array(rows, np.float32)


@lru_cache(maxsize=16)
def _reformatter(thread: int, source: str, pix_fmt: str, size: tuple[int, int]) -> VideoReformatter:
    """One for each thread and kind of conversion: to set swscale up takes as long as to scale a picture."""
    return VideoReformatter()


def convert(
    frame: av.VideoFrame,
    pix_fmt: str,
    size: tuple[int, int] | None = None,
    *,
    space: int | None = None,
    full: bool | None = None,
    interpolation: str = "BICUBIC",
) -> av.VideoFrame:
    """A converted copy of the picture, with its time and tags.

    size: (width, height), by default the same. space, full: matrix (FFmpeg's number) and range of the copy; by default,
    YCbCr stays what it is, RGB becomes full range, and YCbCr made from RGB is limited range.
    """
    width, height = size or (frame.width, frame.height)
    layout, target = LAYOUTS.get(frame.format.name), LAYOUTS.get(pix_fmt)
    was_rgb = layout.model == "rgb" if layout else frame.format.is_rgb
    was_full = full_range(frame, layout) if layout else was_rgb or frame.color_range == _JPEG_RANGE
    is_rgb = target.model == "rgb" if target else av.VideoFormat(pix_fmt).is_rgb
    if full is None:
        full = is_rgb or bool(target and target.full) or (was_full and not was_rgb)
    old_space = space_of(frame)
    new_space = old_space if space not in _SWSCALE_SPACE else space
    copy = _reformatter(threading.get_ident(), frame.format.name, pix_fmt, (width, height)).reformat(
        frame,
        width,
        height,
        pix_fmt,
        src_colorspace=Colorspace[_SWSCALE_SPACE[old_space]].value,
        dst_colorspace=Colorspace[_SWSCALE_SPACE[new_space]].value,
        src_color_range="JPEG" if was_full else "MPEG",
        dst_color_range="JPEG" if full else "MPEG",
        interpolation=interpolation,
    )
    copy.colorspace = frame.colorspace if space is None else space
    copy.color_range = _JPEG_RANGE if full else _MPEG_RANGE
    return copy


def space_of(frame: av.VideoFrame) -> int:
    """The picture's matrix, FFmpeg's number; BT.601 or BT.709, by its height, for one that isn't known to swscale."""
    space: int = frame.colorspace
    return space if space in _SWSCALE_SPACE else 1 if frame.height >= _HD_LINES else 5
