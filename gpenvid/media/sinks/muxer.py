"""Encoded packets become a container: a file, a folder or a connection, whatever FFmpeg can write to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.stream import Stream

from gpenvid.errors import MediaError
from gpenvid.media.sinks import TIME_BASE
from gpenvid.media.sinks.encoder import VIDEO
from gpenvid.media.sinks.packets import EncodedPacket, Track, add_track
from gpenvid.media.target import Target

log = logging.getLogger(__name__)


class Muxer:
    """Writes packets of several tracks. What comes before the first key picture, or is older than it, is left out.

    The first picture is at time 0; decode times increase within a track, so far as the container's clock can tell.
    """

    def __init__(
        self, target: Any, name: str, format: str, tracks: Sequence[Track], options: dict[str, str] | None = None
    ) -> None:
        """Open the container and write its header; a connection is made here.

        target: a URL or a writable binary file. name: what it is called in errors. format: FFmpeg's name of it.
        Raises MediaError.
        """
        self.name = name
        self.written = 0
        """Pictures so far."""
        self._origin: int | None = None
        self._last: dict[str, int] = {}
        self._container: OutputContainer | None = None
        try:
            self._container = av.open(target, "w", format=format, container_options=options or {})
            self._streams: dict[str, Stream] = {track.name: add_track(self._container, track) for track in tracks}
            self._container.start_encoding()
        except (OSError, ValueError, av.error.FFmpegError) as error:
            self._container = None
            raise self._failure(error, "can't be opened") from error

    @property
    def origin(self) -> int | None:
        """The time of the first picture on the session's clock, in TIME_BASE; None before it."""
        return self._origin

    def write(self, packet: EncodedPacket) -> None:
        """Write one packet, if its track is among ours. Raises MediaError."""
        stream = self._streams.get(packet.track)
        if stream is None or self._container is None:
            return
        if self._origin is None:
            if packet.track != VIDEO or not packet.key:
                return
            self._origin = packet.dts
        if packet.dts < self._origin:
            return
        assert stream.time_base is not None
        copy: av.Packet[Any] = av.Packet(packet.data)
        copy.stream = stream
        copy.time_base = stream.time_base
        tick = TIME_BASE / Fraction(stream.time_base)
        dts = max(round((packet.dts - self._origin) * tick), self._last.get(packet.track, -1) + 1)
        self._last[packet.track] = dts
        copy.dts, copy.pts = dts, max(dts, round((packet.pts - self._origin) * tick))
        copy.duration = round(packet.duration * tick)
        copy.is_keyframe = packet.key
        try:
            self._container.mux_one(copy)
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise self._failure(error, "can't be written") from error
        self.written += packet.track == VIDEO

    def close(self) -> None:
        """Write what is left and the end of the container. Raises MediaError."""
        container, self._container = self._container, None
        if container is None:
            return
        try:
            container.close()
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise self._failure(error, "can't be finished") from error

    def abort(self) -> None:
        """Let go of it, whatever its state."""
        try:
            self.close()
        except MediaError:
            self._streams = {}

    def _failure(self, error: Exception, what: str) -> MediaError:
        reason = str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".").lower()
        return MediaError(f"{self.name}: {what} ({reason})")


def complete(part: Path, path: Path, format: str) -> bool:
    """Copy what can be read of a file that was never finished to a whole one, and remove it; whether anything could.

    Raises MediaError if the new file can't be written.
    """
    target = Target(path)  # not claimed, for that would remove the part
    written = 0
    try:
        with (
            av.open(f"file:{part}", "r") as source,
            av.open(f"file:{target.part}", "w", format=format) as copy,
        ):
            streams = {each.index: copy.add_stream_from_template(each, opaque=True) for each in source.streams}
            for packet in source.demux():
                if packet.size and packet.dts is not None:
                    packet.stream = streams[packet.stream_index]
                    copy.mux_one(packet)
                    written += 1
    except (OSError, ValueError, av.error.FFmpegError) as error:
        log.warning("%s: was not finished, and ends early (%s)", path, str(error).lower())
    part.unlink(missing_ok=True)
    if written:
        target.commit()
    else:
        target.discard()
    return bool(written)
