"""A live source, supervised: pictures and sound while it is there, the passing of time while it is away."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
from av.stream import Stream

from gpenvid.errors import MediaError
from gpenvid.media.address import Address
from gpenvid.media.connection import BrokenError, Connection
from gpenvid.media.demux import Received
from gpenvid.media.silence import Silence
from gpenvid.media.sinks import TIME_BASE, LiveStreams
from gpenvid.media.timeline import Timeline, microseconds
from gpenvid.options import SourceOptions

log = logging.getLogger(__name__)

BACK_OFF = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds between attempts that give no picture, the last for ever. Up to a quarter more, by chance."""

_LEAST_PAUSE = 0.25
_KNOCK_EVERY = 0.25
_SLICE = 0.1
_BURSTS = 30.0
_LISTEN = 60.0
_SECOND = TIME_BASE.denominator
_HOLD_EVERY = 0.1


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture. pts and time_base are the session's; arrived: its packet's time on the monotonic clock, seconds."""

    frame: av.VideoFrame
    arrived: float


@dataclass(frozen=True, slots=True)
class Held:
    """The source is away, and at this session time (microseconds) the last picture should be shown again."""

    pts: int


@dataclass(slots=True)
class SourceCounts:
    """What happened to a source.

    decoded: pictures that came out of the decoder; disordered: of these, dropped because a later one had been given
    out; damaged: packets that could not be read or decoded; concealed: pictures given out with parts missing;
    untimed: pictures without a time, which got that of their arrival; jumps: breaks in the source's clock that were
    taken out; sound: packets of sound passed on; lost_sound: packets of sound without a place in the session; silent:
    packets of silence put in; attempts: to connect; connections: that gave a picture; losses: of these, lost again;
    away: seconds without the source, from when its loss was noticed.
    """

    decoded: int = 0
    disordered: int = 0
    damaged: int = 0
    concealed: int = 0
    untimed: int = 0
    jumps: int = 0
    sound: int = 0
    lost_sound: int = 0
    silent: int = 0
    attempts: int = 0
    connections: int = 0
    losses: int = 0
    away: float = 0.0


class LiveSource:
    """Connects, watches, reconnects. One thread iterates over `items`; it is the one that calls `on_packet`.

    on_packet: takes the packets of the sound in session time. hold: whether to go on while the source is away; else
    its loss is the end. stopped: asked every moment, ends the session. duration: ends it at this session time, seconds.
    `streams` is known from the first picture on. `state`, `reason` (why it is away) and `seen` (when the last picture
    came, on the monotonic clock) may be read from any thread.
    """

    def __init__(
        self,
        address: Address,
        options: SourceOptions = SourceOptions(),  # noqa: B008 (frozen)
        *,
        on_packet: Callable[[av.Packet[Stream]], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
        hold: bool = True,
        duration: float | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.address = address
        self.counts = SourceCounts()
        self.streams: LiveStreams | None = None
        self.state: Literal["connecting", "live", "away", "ended"] = "connecting"
        self.reason = ""
        self.seen: float | None = None
        self._options = options
        self._stopped = stopped
        self._hold = hold
        self._duration = duration
        self._chance = chance
        self._failures = 0
        self._closed = False  # nobody was at the address when last asked
        self._timeline = Timeline()
        self._sound = _Sound(self._timeline, self.counts, on_packet or (lambda packet: None))
        self._born = time.monotonic()
        self._zero = self._born  # the monotonic clock at session time 0
        self._last = -1  # session time of the last picture, shown or held
        self._away_since = 0.0
        self._complete = False

    def items(self) -> Iterator[Shown | Held]:
        """Pictures as they come and, while the source is away, the times at which to show the last one again.

        Raises MediaError where it is of no use to try again: when a password is refused or an address makes no sense
        before the first picture, when a file or pipe holds no picture, and when the source is lost with `hold` off.
        """
        connection: Connection | None = None
        try:
            while not self._over():
                connection = connection or Connection(self.address)
                try:
                    yield from self._wait(connection)
                    if self._over():
                        break
                    self.counts.attempts += 1
                    yield from self._session(connection)
                except (BrokenError, EOFError) as end:
                    if not connection.idle:
                        connection.kill()
                        connection = None
                    if self._ended(end):
                        break
        finally:
            if connection is not None:
                connection.hang_up()
            self.state = "ended"

    def _over(self) -> bool:
        late = self._duration is not None and not self.address.ends and self._now() >= self._duration * _SECOND
        return self._complete or self._stopped() or late

    def _now(self) -> int:
        """Session time by the monotonic clock, microseconds."""
        return round((time.monotonic() - self._zero) * _SECOND)

    @property
    def _every(self) -> float:
        """Seconds from picture to picture, as far as that is known."""
        rate = self.streams.rate if self.streams is not None else None
        return float(1 / rate) if rate else 0.04

    def _wait(self, connection: Connection) -> Iterator[Held]:
        """Let the time pass before the next attempt; less of it when a door opens that was closed."""
        if self.counts.attempts == 0:
            return
        pause = _LEAST_PAUSE
        if self._failures and self.address.kind != "listen":
            pause = BACK_OFF[min(self._failures, len(BACK_OFF)) - 1] * (1 + self._chance() / 4)
        began = time.monotonic()
        knocked = began
        connection.knock()
        while not self._over() and (left := began + pause - time.monotonic()) > 0:
            yield from self._held()
            connection.receive(min(left, _SLICE))
            if connection.answer is False:
                self._closed = True
            elif connection.answer and self._closed:
                self._closed, self._failures = False, 0
                return
            if self._closed and connection.answer is not None and time.monotonic() - knocked > _KNOCK_EVERY:
                knocked = time.monotonic()
                connection.knock()

    def _session(self, connection: Connection) -> Iterator[Shown | Held]:
        """One connection until its end. Raises BrokenError or, at the end of the stream, EOFError."""
        listening, ends = self.address.kind == "listen", self.address.ends
        quiet = max(self._options.stall, _BURSTS) if self.address.paced else self._options.stall
        opening = _LISTEN if listening else self._options.connect_timeout
        connection.open(0 if ends else 2 * max(opening, quiet))
        listened = 0.0  # seconds, without those in which this machine slept: they say nothing about the source
        packet_at = picture_at = None
        while not self._over():
            before = time.monotonic()
            message = connection.receive(_SLICE)
            listened += min(time.monotonic() - before, 2 * _SLICE)
            if message is not None and message.sound:
                self._sound.take(connection, message, live=picture_at is not None)
            elif message is not None:
                packet_at = listened
                for frame in connection.decode(message):
                    if picture_at is None:
                        self._arrived(connection, frame)
                    picture_at = listened
                    yield from self._shown(connection, frame, connection.arrival(frame, message.arrived))
            self.counts.damaged += connection.damages()
            if picture_at is None:
                yield from self._held()
            if ends:
                continue
            if packet_at is None:
                if listened > opening:
                    raise BrokenError(f"nothing came within {opening:g} s")
            elif listened - packet_at > quiet:
                raise BrokenError(f"silent for {quiet:g} s")
            elif listened - (picture_at or 0.0) > max(4 * quiet, opening):
                raise BrokenError("what comes can't be decoded")

    def _arrived(self, connection: Connection, frame: av.VideoFrame) -> None:
        """The first picture of a connection: the session begins, or goes on."""
        if self.streams is None:
            self.streams = connection.streams(frame)
            self._zero = time.monotonic()
            self._sound.expect(self.streams, connection)
        elif self.state == "away":
            self.counts.away += time.monotonic() - self._away_since
            self._sound.fill(self._now())
        self._timeline.restart(max(self._now(), self._last + 1, self._sound.end))
        self.state, self.reason, self._failures = "live", "", 0
        self.counts.connections += 1
        log.info("%s: %s, %dx%d", self.address.name, connection.codecs, frame.width, frame.height)

    def _shown(self, connection: Connection, frame: av.VideoFrame, arrived: float) -> Iterator[Shown]:
        if self._complete:
            return
        if frame.pts is None:
            session = max(self._now(), self._last + 1)
            self._timeline.postpone(session + round(self._every * _SECOND))
            self.counts.untimed += 1
        else:
            base = frame.time_base or Fraction(1)
            shift = self._timeline.shift("picture", frame.pts, base, round(arrived * _SECOND))
            session = microseconds(frame.pts, base) + shift
            self.counts.jumps = self._timeline.jumps
        if self._duration is not None and session >= self._duration * _SECOND:
            self._complete = True
            return
        self.counts.decoded += 1
        self.seen = time.monotonic()
        if session <= self._last:
            self.counts.disordered += 1
            return
        self.counts.concealed += frame.is_corrupt
        self._last = session
        frame = connection.editable(frame)
        frame.pts, frame.time_base = session, TIME_BASE
        yield Shown(frame, arrived)

    def _ended(self, end: BrokenError | EOFError) -> bool:
        """Note how a connection ended; whether that is the end of all. Raises MediaError if it is a bad one."""
        name, reason = self.address.name, str(end) or "the stream ended"
        first = self.streams is None
        if self.address.ends and first:
            raise MediaError(f"{name}: {'no picture in it' if isinstance(end, EOFError) else reason}") from end
        if self.address.ends:
            log.log(logging.INFO if isinstance(end, EOFError) else logging.WARNING, "%s: %s", name, reason)
            return True
        if first and isinstance(end, BrokenError) and end.final:
            raise MediaError(f"{name}: {reason}") from end
        self._failures += 1
        self._closed = isinstance(end, BrokenError) and end.absent
        if self.state == "live":
            self._failures = 0
            self.state, self._away_since = "away", time.monotonic()
            self.counts.losses += 1
            if not self._hold:
                raise MediaError(f"{name}: lost: {reason}") from end
        if reason != self.reason:
            log.warning("%s: %s; trying again", name, reason)
        self.reason = reason
        return False

    def _held(self) -> Iterator[Held]:
        """While the source is away: the last picture again if that is due, and silence up to now."""
        if self.state != "away" or self.streams is None:
            return
        now = self._now()
        if now - self._last >= max(_HOLD_EVERY, self._every) * _SECOND:
            self._last = now
            yield Held(now)
        self._sound.fill(now)


class _Sound:
    """The sound of a session: packets in session time, silence where there are none."""

    def __init__(
        self, timeline: Timeline, counts: SourceCounts, on_packet: Callable[[av.Packet[Stream]], None]
    ) -> None:
        self.end = 0
        """Session time up to which there is sound."""
        self._timeline = timeline
        self._counts = counts
        self._on_packet = on_packet
        self._parameters: tuple[str, int, str] | None = None
        self._silence: Silence | None = None
        self._last = -1

    def expect(self, streams: LiveStreams, connection: Connection) -> None:
        """This is the sound that the session will have; any other is left out."""
        self._parameters = connection.sound_parameters
        if streams.audio is not None:
            silence = Silence(streams.audio)
            self._silence = silence if silence.possible else None

    def take(self, connection: Connection, message: Received, *, live: bool) -> None:
        """Pass a packet on if it has a place in the session: not before the connection's first picture."""
        stamp = message.pts if message.pts is not None else message.dts
        if stamp is None or not live or connection.sound_parameters != self._parameters:
            self._counts.lost_sound += 1
            return
        shift = self._timeline.shift("sound", stamp, message.time_base, round(message.arrived * _SECOND))
        session = microseconds(stamp, message.time_base) + shift
        if session <= self._last:
            self._counts.lost_sound += 1
            return
        self._counts.sound += 1
        self._pass(av.Packet(message.data), session, microseconds(message.duration, message.time_base))

    def fill(self, until: int) -> None:
        """Silence up to this session time, in whole packets."""
        for packet in self._silence.packets(self.end, until) if self._silence is not None else ():
            assert packet.pts is not None
            self._counts.silent += 1
            self._pass(packet, packet.pts, packet.duration or 0)

    def _pass(self, packet: av.Packet[Stream], session: int, duration: int) -> None:
        packet.pts = packet.dts = session
        packet.duration, packet.time_base, packet.is_keyframe = duration, TIME_BASE, True
        self._last, self.end = session, session + duration
        self._on_packet(packet)
