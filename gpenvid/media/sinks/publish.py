"""The child process that talks to the peer of one network output.

FFmpeg's network code may hang, and PyAV holds Python's lock while it connects and hangs up. Here it does so alone: the
child takes packets from its standard input and says on its standard output when it is connected or what went wrong.
Where the peer takes nothing for too long, the child's own alarm ends it.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from dataclasses import dataclass, field

import av

from gpenvid.errors import MediaError
from gpenvid.media.sinks.child import FAILED, FINISHED, READY
from gpenvid.media.sinks.muxer import Muxer
from gpenvid.media.sinks.packets import EncodedPacket, unpacked


@dataclass(frozen=True, slots=True)
class Order:
    """Where to send what. tracks: as packed; patience: seconds that the peer may take for anything."""

    url: str = field(repr=False)
    name: str
    format: str
    options: dict[str, str] = field(repr=False)
    tracks: bytes
    track_names: tuple[str, ...]
    patience: float


def main() -> None:
    """Do what the order on standard input says, until standard input ends."""
    # The parent ends us, by the end of our input; signals to the whole group are for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    inbox = sys.stdin.buffer
    order: Order = pickle.load(inbox)
    try:
        _hurry(order.patience)
        tracks = unpacked(order.tracks, order.track_names)
        muxer = Muxer(order.url, order.name, order.format, tracks, order.options)
        _say(READY)
        while True:
            _hurry(0)
            try:
                packet: EncodedPacket = pickle.load(inbox)
            except (EOFError, pickle.UnpicklingError):  # the latter where the parent died in mid-packet
                break
            _hurry(order.patience)
            muxer.write(packet)
        _hurry(order.patience)
        muxer.close()
        _say(FINISHED)
    except (MediaError, av.error.FFmpegError, ValueError) as error:
        _say(FAILED + str(error).encode())
    # What is left inside FFmpeg after an error may hang once more.
    os._exit(0)


def _hurry(seconds: float) -> None:
    """Let the alarm end the process in so many seconds; 0 for never."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _say(what: bytes) -> None:
    try:
        os.write(1, what)
    except OSError:
        os._exit(1)
