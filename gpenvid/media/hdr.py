"""HDR10's static metadata, which FFmpeg carries as side data of pictures and encoders want as parameters."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

_CHROMATICITY = Fraction(1, 50000)
_LUMINANCE = Fraction(1, 10000)


@dataclass(frozen=True, slots=True)
class HdrTags:
    """SMPTE ST 2086 mastering display and CTA-861.3 content light level, in the syntax of x264 and x265.

    mastering: G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min) in units of 0.00002 and 0.0001 cd/m2; light: "MaxCLL,MaxFALL". Either
    may be "".
    """

    mastering: str = ""
    light: str = ""

    def parameters(self, encoder: str) -> list[str]:
        """What to append to x264-params or x265-params."""
        names = {"libx264": ("mastering-display", "cll"), "libx265": ("master-display", "max-cll")}[encoder]
        return [f"{name}={value}" for name, value in zip(names, (self.mastering, self.light), strict=True) if value]


def hdr_tags(frame: av.VideoFrame) -> HdrTags | None:
    """The picture's HDR10 metadata, None if it has none. Ask before `make_writable`, never after."""
    try:
        side_data: Any = frame.side_data
        mastering, light = side_data.get("MASTERING_DISPLAY_METADATA"), side_data.get("CONTENT_LIGHT_LEVEL")
    except ValueError:  # side data of a kind that this PyAV has no name for
        return None
    if mastering is None and light is None:
        return None
    return HdrTags(_mastering(bytes(mastering)) if mastering is not None else "", _light(light))


def _mastering(data: bytes) -> str:
    """From FFmpeg's AVMasteringDisplayMetadata: red, green, blue and white as x, y; least and greatest luminance."""
    numbers = struct.unpack_from("=22i", data)
    if not (numbers[20] and numbers[21]):
        return ""
    values = [Fraction(numbers[i], numbers[i + 1] or 1) for i in range(0, 20, 2)]
    red, green, blue, white = (
        f"({round(x / _CHROMATICITY)},{round(y / _CHROMATICITY)})"
        for x, y in zip(values[0:8:2], values[1:8:2], strict=True)
    )
    least, greatest = (round(value / _LUMINANCE) for value in values[8:])
    return f"G{green}B{blue}R{red}WP{white}L({greatest},{least})"


def _light(data: Any) -> str:
    return "" if data is None else "{},{}".format(*struct.unpack_from("=2I", bytes(data)))
