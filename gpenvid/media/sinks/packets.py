"""What travels from the encoders to the outputs: packets that many can share, and the tracks that they belong to."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import av
from av.container import OutputContainer
from av.stream import Stream

from gpenvid.media.sinks import TIME_BASE

_ANY_DATA = b"\0"


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """One packet; it never changes, so any number of outputs may hold it. pts, dts, duration: in TIME_BASE.

    track: the name of its `Track`. key: whether decoding can start here.
    """

    track: str
    data: bytes
    pts: int
    dts: int
    duration: int
    key: bool

    @classmethod
    def of(cls, packet: av.Packet[Any], track: str) -> EncodedPacket | None:
        """A copy of a packet in whatever time base; None if it is empty or has no time."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if not packet.size or stamp is None:
            return None
        scale = packet.time_base / TIME_BASE
        pts = stamp if packet.pts is None else packet.pts
        return cls(
            track,
            bytes(packet),
            round(pts * scale),
            round(stamp * scale),
            round((packet.duration or 0) * scale),
            packet.is_keyframe,
        )


@dataclass(frozen=True, slots=True)
class Track:
    """One elementary stream that outputs can be given.

    name: "video", or the sound's variant; template: a stream with the codec's parameters, for
    `add_stream_from_template`; codec: FFmpeg's name of it.
    """

    name: str
    codec: str
    template: Stream


def add_track(container: OutputContainer, track: Track) -> Stream:
    """A stream of the container for packets of this track. Raises ValueError or av.error.FFmpegError if it can't."""
    return container.add_stream_from_template(track.template, opaque=True)


def packed(tracks: Sequence[Track]) -> bytes:
    """The tracks' codec parameters as bytes, for another process; `unpacked` is the other end.

    They are a NUT file, which keeps the parameters as they are; it needs a packet a stream to be one.
    """
    file: Any = io.BytesIO()
    with av.open(file, "w", format="nut") as container:
        streams = [add_track(container, track) for track in tracks]
        container.start_encoding()
        for stream in streams:
            packet = av.Packet(_ANY_DATA)
            packet.stream, packet.time_base = stream, TIME_BASE
            packet.pts = packet.dts = 0
            packet.is_keyframe = True
            container.mux(packet)
    return bytes(file.getvalue())


def unpacked(data: bytes, names: Sequence[str]) -> list[Track]:
    """The tracks that were packed, under these names. Raises av.error.FFmpegError for bytes that are none."""
    file: Any = io.BytesIO(data)
    container = av.open(file, "r", format="nut", options={"probesize": "32", "analyzeduration": "0"})
    return [
        Track(name, stream.codec_context.codec.canonical_name, stream)
        for name, stream in zip(names, container.streams, strict=True)
        if stream.codec_context is not None
    ]
