"""Where live pictures and sound go: the contract that every output keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol, runtime_checkable

import av
from av.audio.stream import AudioStream
from av.stream import Stream

from gpenvid.media.probe import ColorTags

TIME_BASE = Fraction(1, 1_000_000)
"""Every picture and packet that reaches a sink counts time in these units: microseconds of the session's own clock."""


@dataclass(frozen=True, slots=True)
class LiveStreams:
    """What a live session offers its sinks. It stays so for the whole session, whatever happens to the source.

    width, height, pix_fmt: of every picture; pictures that come otherwise are converted before they get here.
    rate: of the pictures, as the source announces it, None where it doesn't; only rate control should rely on it.
    sample_aspect_ratio: width over height of a pixel. audio: the source's audio stream, a template for
    `add_stream_from_template`, whose codec context has its decoder's parameters; None without sound.
    """

    width: int
    height: int
    pix_fmt: str
    rate: Fraction | None = None
    sample_aspect_ratio: Fraction = Fraction(1)
    color: ColorTags = field(default_factory=ColorTags)
    audio: AudioStream | None = None


@runtime_checkable
class Sink(Protocol):
    """One output of a live session, or several of them behind one door.

    `open` comes once, then `video` and `packet`, from two different threads, then `close` once; `close` also comes
    after a failed `open`. Each raises MediaError when the output fails for good. An output whose other end may stall
    must not hold up the caller: it queues, and counts what it had to drop.
    """

    @property
    def name(self) -> str:
        """What the output is called in logs and reports; without user and password."""

    def open(self, streams: LiveStreams) -> None:
        """Get ready for these streams."""

    def video(self, frame: av.VideoFrame) -> None:
        """Take a picture: pts strictly increases, time_base is TIME_BASE.

        Other sinks get the same picture: it must not be written to.
        """

    def packet(self, packet: av.Packet[Stream]) -> None:
        """Take a packet of the audio stream: pts and dts increase, time_base is TIME_BASE, `stream` isn't set.

        Sound comes some way ahead of the pictures of the same time, because these are still being worked on. A muxer
        must be given a packet of its own: others get the same one.
        """

    def close(self) -> None:
        """Finish the output so that it can be played."""
