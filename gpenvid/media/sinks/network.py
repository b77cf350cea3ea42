"""Outputs at the other end of a network: RTSP, RTMP, WHIP, MPEG-TS; each in a child process that can be given up."""

from __future__ import annotations

from collections.abc import Sequence

from gpenvid.media.sinks.child import READY, Child
from gpenvid.media.sinks.formats import FORMATS, live_options
from gpenvid.media.sinks.packets import EncodedPacket, Track, packed
from gpenvid.media.sinks.publish import Order
from gpenvid.redact import redacted

PATIENCE = 10.0
"""Seconds that a peer may take to connect, or to take a packet."""

_PROGRAM = "from gpenvid.media.sinks.publish import main; main()"


class NetworkOutput:
    """Sends packets to a URL. What the peer doesn't take in time is an error, and it can be opened again."""

    reopens = True
    live = True

    def __init__(self, url: str, format: str, options: dict[str, str] | None = None, *, name: str = "") -> None:
        """url: as FFmpeg takes it. format: a key of FORMATS. name: what the user called it, if that is another."""
        self.name = redacted(name or url)
        self.format = FORMATS[format]
        self._url = url
        self._options = {**live_options(self.format), **(options or {})}
        self._child: Child | None = None

    def open(self, tracks: Sequence[Track]) -> None:
        """Connect. Raises MediaError if the peer isn't there, refuses, or takes longer than PATIENCE."""
        self._child = Child(self.name, ["-c", _PROGRAM], PATIENCE)
        names = tuple(track.name for track in tracks)
        self._child.send(Order(self._url, self.name, self.format.name, self._options, packed(tracks), names, PATIENCE))
        self._child.wait_for(READY)

    def write(self, packet: EncodedPacket) -> None:
        """Send one packet. Raises MediaError if the connection is broken."""
        assert self._child is not None
        self._child.send(packet)

    def close(self) -> None:
        """Say goodbye. Raises MediaError if the peer doesn't let us in time."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def abort(self) -> None:
        """Leave without a word."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def interrupt(self) -> None:
        """Let the call that waits for the peer fail."""
        child = self._child
        if child is not None:
            child.interrupt()
