"""The child process that talks to a live source, and what it says.

FFmpeg's network code can hang where no other thread can interrupt it. Here it hangs alone: this process opens the
source, hands its packets over a socket to the process that decodes them, and is killed when it has been silent too
long, by its parent or, should that be gone, by its own alarm.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Stream

from gpenvid.errors import MediaError
from gpenvid.media.address import Address
from gpenvid.media.probe import picture_stream
from gpenvid.redact import redacted

MAX_DAMAGED_RUN = 300
"""So many unreadable packets in a row end the connection."""

_GENERATE_PTS = 1
_SURE_RATE = 300
_AHEAD = 0.2
_ABSENT = (av.error.ConnectionRefusedError, av.error.FileNotFoundError)
_FINAL = (
    av.error.HTTPUnauthorizedError,
    av.error.HTTPForbiddenError,
    av.error.ProtocolNotFoundError,
    av.error.OptionNotFoundError,
)


@dataclass(frozen=True, slots=True)
class Order:
    """What the child is to open. limit: seconds of silence, in opening or after, that it allows itself; 0 for ever."""

    target: str
    format: str | None
    options: dict[str, str] = field(repr=False)
    paced: bool
    limit: float


@dataclass(frozen=True, slots=True)
class Opened:
    """The source is open. header: a NUT file with the parameters of the picture stream and the sound stream, if any."""

    header: bytes
    sound: bool
    rate: Fraction | None


@dataclass(frozen=True, slots=True)
class Received:
    """One packet. sound: or picture; arrived: seconds on the monotonic clock, which all processes share."""

    sound: bool
    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    time_base: Fraction
    keyframe: bool
    corrupt: bool
    arrived: float


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A packet that could not be read."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The connection is over. error: why, in words, "" when the stream came to its end.

    final: trying again would not help, or do harm: cameras lock out who tries wrong passwords. absent: nobody was at
    the address.
    """

    error: str
    final: bool = False
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Knock:
    """Asks the child, before any order, to find out whether anybody is at the address."""

    address: Address


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a knock: whether somebody is there, None where that can't be known."""

    there: bool | None


Message = Opened | Received | Unreadable | Ended | Answer


def main() -> None:
    """Carry out order after order from the socket named on the command line; exit when it closes or None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then hangs up
    connection = Connection(int(sys.argv[1]))
    av.logging.set_level(None)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (message := connection.recv()) is not None:
            if isinstance(message, Knock):
                connection.send(Answer(message.address.there()))
            else:
                ended = _run(message, connection)
                _rearm(0)
                connection.send(ended)
    os._exit(0)  # FFmpeg's own clean-up must not be what hangs


def _run(order: Order, connection: Connection) -> Ended:
    try:
        _rearm(order.limit)
        with av.open(
            order.target, "r", format=order.format, options=dict(order.options), metadata_errors="replace"
        ) as container:
            _forward(container, order, connection)
    except MediaError as error:
        return Ended(str(error))
    except (av.error.FFmpegError, ValueError) as error:
        return Ended(redacted(_reason(error)), isinstance(error, _FINAL), isinstance(error, _ABSENT))
    return Ended("")


def _forward(container: InputContainer, order: Order, connection: Connection) -> None:
    """Hand over what comes until the stream ends or the parent hangs up."""
    video = picture_stream(container, Path("the source"))
    sound = container.streams.best("audio")
    if sound is not None and getattr(sound, "codec_context", None) is None:
        sound = None
    container.flags &= ~_GENERATE_PTS  # would hold packets back until later ones tell their times
    rates = (video.average_rate, video.guessed_rate)
    rate = next((Fraction(rate) for rate in rates if rate and rate < _SURE_RATE), None)
    connection.send(Opened(_header([video, sound] if sound else [video]), sound is not None, rate))
    pace = _Pace() if order.paced else None
    wanted = {video.index: False} | ({sound.index: True} if sound else {})
    damaged = 0
    packets = container.demux()
    while True:
        _rearm(order.limit)
        try:
            packet = next(packets, None)
        except av.error.EOFError:
            return
        except av.error.InvalidDataError:
            damaged += 1
            if damaged > MAX_DAMAGED_RUN:
                raise
            connection.send(Unreadable())
            packets = container.demux()
            continue
        if packet is None or connection.poll():  # a parent that has hung up, or wants an end
            return
        if not packet.size or packet.stream_index not in wanted:
            continue
        damaged = 0
        if packet.has_sidedata("new_extradata"):
            raise MediaError("the stream's parameters have changed")
        if pace is not None:
            pace.wait(packet)
        connection.send(_received(packet, wanted[packet.stream_index]))


def _received(packet: av.Packet[Stream], sound: bool) -> Received:
    return Received(
        sound,
        bytes(packet),
        packet.pts,
        packet.dts,
        packet.duration or 0,
        Fraction(packet.time_base),
        packet.is_keyframe,
        packet.is_corrupt,
        time.monotonic(),
    )


class _Pace:
    """Holds back packets that come before their time."""

    def __init__(self) -> None:
        self._start: float | None = None

    def wait(self, packet: av.Packet[Stream]) -> None:
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            return
        seconds, now = float(stamp * packet.time_base), time.monotonic()
        if self._start is None or abs(self._start + seconds - now) > 10:
            self._start = now - seconds
        elif (early := self._start + seconds - now) > _AHEAD:
            time.sleep(early - _AHEAD)


def _header(streams: list[Any]) -> bytes:
    """A NUT file with these streams' parameters: FFmpeg's own way of writing them down for every codec."""
    file = io.BytesIO()
    with av.open(file, "w", format="nut") as container:
        copies = [container.add_stream_from_template(stream) for stream in streams]
        context = copies[0].codec_context
        if not context.width or not context.height:  # the decoder will see; the file must have some
            context.width, context.height = 16, 16
        packet = av.Packet(b"\0")  # without one, the file has no place from which it could be read
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = copies[0], 0, 0, True
        container.mux_one(packet)
    return file.getvalue()


def _rearm(limit: float) -> None:
    """Have the kernel end this process if it isn't called again in time; it doesn't ask whether anybody listens."""
    signal.setitimer(signal.ITIMER_REAL, limit)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".").lower()
