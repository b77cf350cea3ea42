"""The last picture, held while the source is away, and marked so that nobody takes it for the present."""

from __future__ import annotations

import av
import cv2
import numpy as np

from gpenvid.media.pixels import EDITABLE, add_region, get_tags, read_region, set_tags

TEXT = "SIGNAL LOST"

_SHARE = 0.3
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DIM = 0.35


def copy(frame: av.VideoFrame, pts: int) -> av.VideoFrame:
    """The same picture at another time, in memory of its own."""
    twin = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, twin.planes, strict=True):
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, abs(source.line_size))
        into = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, abs(target.line_size))
        width = min(rows.shape[1], into.shape[1])
        into[:, :width] = rows[:: -1 if source.line_size < 0 else 1, :width]
    twin.pts, twin.time_base = pts, frame.time_base
    twin.color_primaries, twin.color_trc = frame.color_primaries, frame.color_trc
    twin.colorspace, twin.color_range = frame.colorspace, frame.color_range
    set_tags(twin, get_tags(frame))
    return twin


def marked(frame: av.VideoFrame) -> av.VideoFrame:
    """A copy with TEXT in its upper left corner, on a darkened ground, about a third of the picture wide.

    A picture in a format that can't be edited, or too small for letters, is copied as it is.
    """
    twin = copy(frame, frame.pts or 0)
    (base_width, base_height), base_line = cv2.getTextSize(TEXT, _FONT, 1.0, 2)
    scale = _SHARE * frame.width / base_width
    margin = max(2, round(base_height * scale / 2))
    width, height = round(base_width * scale), round((base_height + base_line) * scale)
    x0, y0, x1, y1 = margin, margin, margin + width + 2 * margin, margin + height + 2 * margin
    if twin.format.name not in EDITABLE or x1 > frame.width or y1 > frame.height:
        return twin
    region = read_region(twin, x0, y0, x1, y1)
    wanted = (region * _DIM).astype(np.uint8)
    thickness = max(1, round(2 * scale))
    origin = (margin, margin + round(base_height * scale))
    cv2.putText(wanted, TEXT, origin, _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    twin.make_writable()
    add_region(twin, x0, y0, wanted.astype(np.float32) - region)
    return twin
