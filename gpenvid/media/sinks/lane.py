"""One output and the thread that serves it, so that none waits for another."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import av

from gpenvid.errors import MediaError
from gpenvid.media.sinks import LiveStreams
from gpenvid.media.sinks.encoder import VIDEO
from gpenvid.media.sinks.formats import Format
from gpenvid.media.sinks.packets import EncodedPacket, Track
from gpenvid.stages import Outlet

PACKETS = 512
"""Packets that wait for an output at most: some ten seconds."""

PICTURES = 2
"""Pictures that wait for an output at most; the fresher ones are worth more."""

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
STEADY = 5.0
"""Seconds that an output must go well until its next failure counts as the first."""

CLOSING = 15.0
"""Seconds that an output may take to finish."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class PacketOutput(Protocol):
    """An output that takes encoded packets. reopens: it may come back after a failure; live: what is old is useless."""

    name: str
    reopens: bool
    live: bool
    format: Format

    def open(self, tracks: Sequence[Track]) -> None:
        """Get ready for packets of these tracks. Raises MediaError."""

    def write(self, packet: EncodedPacket) -> None:
        """Take a packet. Raises MediaError."""

    def close(self) -> None:
        """Finish. Raises MediaError."""

    def abort(self) -> None:
        """Let go, after a failure."""

    def interrupt(self) -> None:
        """From another thread: make a call that is stuck fail."""


class PictureOutput(Protocol):
    """An output that takes pictures."""

    name: str
    reopens: bool

    def open(self, streams: LiveStreams) -> None:
        """Get ready for these pictures. Raises MediaError."""

    def show(self, frame: av.VideoFrame, time: int, /) -> bool:
        """Take a picture, time in TIME_BASE; False when it wants no more. Raises MediaError."""

    def close(self) -> None:
        """Finish. Raises MediaError."""

    def interrupt(self) -> None:
        """From another thread: make a call that is stuck fail."""


@dataclass(slots=True)
class OutputState:
    """How an output is doing. pictures, dropped: written, and lost because it was slow or away; failures: so far."""

    name: str
    state: Literal["opening", "open", "waiting", "closed", "failed"] = "opening"
    pictures: int = 0
    dropped: int = 0
    failures: int = 0
    error: str = ""


class _Lane(ABC, Generic[T]):
    """What waits for one output, and the thread that serves it."""

    def __init__(self, output: PacketOutput | PictureOutput, depth: int) -> None:
        """Begins to serve, so that it comes last in the constructors of those that derive from it."""
        self.state = OutputState(output.name)
        self._interrupt = output.interrupt
        self._outlet: Outlet[T] = Outlet(self._serve, depth, "output")

    def end(self) -> None:
        """Say that no more comes."""
        self._outlet.end()

    def close(self) -> None:
        """Wait until the output is finished, but not for ever."""
        if not self._outlet.close(CLOSING, self._interrupt):
            self.state.state, self.state.error = "failed", f"{self.state.name}: not finished in {CLOSING:g} s"
            log.error("%s", self.state.error)

    @abstractmethod
    def _serve(self, inbox: Outlet[T]) -> None:
        """Give the output what comes, until its end."""


class PacketLane(_Lane[EncodedPacket]):
    """Serves a `PacketOutput`. A network output that fails is opened again after 1, 2, 4 ... 60 s."""

    def __init__(self, output: PacketOutput, tracks: Sequence[Track], ask_for_key: Callable[[], None]) -> None:
        self._output = output
        self._tracks = tracks
        self._names = {track.name for track in tracks}
        self._ask_for_key = ask_for_key
        self._broken = True  # until a key picture comes, pictures can't be decoded
        super().__init__(output, PACKETS)

    def offer(self, packet: EncodedPacket) -> None:
        """Queue a packet, or drop it and with it all pictures up to the next key picture."""
        if packet.track not in self._names or self.state.state in ("failed", "closed"):
            return
        picture = packet.track == VIDEO
        if picture and self._broken and not packet.key:
            self.state.dropped += 1
            return
        taken = self._outlet.offer(packet)
        if picture:
            self._broken = not taken
            self.state.dropped += not taken

    def _serve(self, inbox: Outlet[EncodedPacket]) -> None:
        delay = FIRST_DELAY
        while True:
            opened = time.monotonic()
            try:
                self._output.open(self._tracks)
                self._note_open(inbox)
                opened = time.monotonic()
                for packet in inbox:
                    self._output.write(packet)
                    self.state.pictures += packet.track == VIDEO
                self._output.close()
                self.state.state = "closed"
                return
            except MediaError as error:
                self._output.abort()
                if time.monotonic() - opened > STEADY:
                    delay = FIRST_DELAY
                if not self._note_failure(error, inbox, delay):
                    return
            self._discard(inbox, delay)
            delay = min(2 * delay, LONGEST_DELAY)
            if inbox.ended:
                self.state.state = "failed"
                return

    def _note_open(self, inbox: Outlet[EncodedPacket]) -> None:
        if self.state.failures:
            log.warning("%s: open again", self.state.name)
        if self._output.live or self.state.failures:
            self._discard(inbox, 0)
            self._ask_for_key()
        self.state.state = "open"

    def _note_failure(self, error: MediaError, inbox: Outlet[EncodedPacket], delay: float) -> bool:
        """Whether it is worth trying again."""
        self.state.failures += 1
        self.state.error = str(error)
        if not self._output.reopens or inbox.ended:
            self.state.state = "failed"
            log.error("%s", error)
            return False
        self.state.state = "waiting"
        log.warning("%s; again in %g s", error, delay)
        return True

    def _discard(self, inbox: Outlet[EncodedPacket], seconds: float) -> None:
        """Throw away what has queued up and what comes for so long."""
        until = time.monotonic() + seconds
        while True:
            packet = inbox.get(max(0.0, until - time.monotonic()))
            if packet is not None:
                self.state.dropped += packet.track == VIDEO
            elif inbox.ended or time.monotonic() >= until:
                break
        self._broken = True


class PictureLane(_Lane[tuple[av.VideoFrame, int]]):
    """Serves a `PictureOutput`."""

    def __init__(self, output: PictureOutput, streams: LiveStreams) -> None:
        self._output = output
        self._streams = streams
        super().__init__(output, PICTURES)

    def offer(self, frame: av.VideoFrame, time: int) -> None:
        """Queue a picture, or drop it."""
        if self.state.state not in ("failed", "closed"):
            self.state.dropped += not self._outlet.offer((frame, time))

    def _serve(self, inbox: Outlet[tuple[av.VideoFrame, int]]) -> None:
        try:
            self._output.open(self._streams)
            self.state.state = "open"
            for frame, stamp in inbox:
                if not self._output.show(frame, stamp):
                    break
                self.state.pictures += 1
            self._output.close()
            self.state.state = "closed"
        except MediaError as error:
            self.state.failures += 1
            self.state.state, self.state.error = "failed", str(error)
            log.error("%s", error)
