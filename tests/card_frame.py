"""A picture as a graphics card's decoder leaves it there, but for the card: its memory is the host's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import av
from av.video.plane import VideoPlane

from gpenvid.media.layouts import duplicate


class CardPlane:
    """Can be seen through DLPack only."""

    def __init__(self, plane: VideoPlane) -> None:
        self._plane = plane

    def __dlpack__(self) -> Any:
        return self._plane.__dlpack__()


class CardFrame:
    """Behaves as an av.VideoFrame of format `cuda` whose samples are those of `stored`."""

    def __init__(self, stored: av.VideoFrame) -> None:
        self.__dict__["stored"] = stored
        self.__dict__["fetches"] = 0

    @property
    def format(self) -> Any:
        return SimpleNamespace(name="cuda")

    @property
    def sw_format(self) -> av.VideoFormat:
        return self.stored.format

    @property
    def planes(self) -> list[CardPlane]:
        return [CardPlane(plane) for plane in self.stored.planes]

    def reformat(self, *, format: str) -> av.VideoFrame:
        assert format == self.stored.format.name, "what is fetched from a card is in the format in which it is stored"
        self.__dict__["fetches"] += 1
        return duplicate(self.stored)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stored, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.stored, name, value)
