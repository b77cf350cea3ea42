"""One clock for a live session, whatever happens to the clocks of its source."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from gpenvid.media.sinks import TIME_BASE

_SECOND = TIME_BASE.denominator
_BACKWARD = _SECOND // 2
_FORWARD = 2 * _SECOND
_PLAUSIBLE = _SECOND
_REMEMBERED = 8


@dataclass(slots=True)
class _Stream:
    """The last packet of a stream: its own time, session time, arrival, all in microseconds; and its epoch."""

    source: int
    session: int
    arrived: int
    epoch: int


class Timeline:
    """Turns the decode times of a source into session time: microseconds that never run backwards for long.

    Within an epoch every stream is shifted by the same amount, so that distances between pictures, and between
    picture and sound, are those of the source. A new epoch begins with a connection, and where a stream's clock
    falls back by more than half a second or runs ahead of its arrival by more than two: a wrap, a jump, a restart.
    It continues where arrival says. The other streams follow when they jump in their turn.
    """

    def __init__(self) -> None:
        self.jumps = 0
        self.end = 0
        """The latest session time given out."""
        self._shifts: dict[int, int] = {}  # of the latest epochs, by number
        self._streams: dict[str, _Stream] = {}
        self._restart_at: int | None = 0

    def restart(self, now: int) -> None:
        """Begin anew: the next packet, of whatever stream, comes at session time `now`, but after all that came before.

        now: microseconds.
        """
        self._streams.clear()
        self._shifts.clear()
        self._restart_at = max(now, self.end + 1)

    def postpone(self, now: int) -> None:
        """As `restart`, if no packet has come since the last one: something without a time took its place."""
        if self._restart_at is not None:
            self._restart_at = max(self._restart_at, now)

    def shift(self, stream: str, time: int, time_base: Fraction, arrived: int) -> int:
        """What is to be added to the packet's times, in microseconds.

        stream: a key of the stream; time: of the packet on the source's clock, in `time_base` units, in decode order;
        arrived: when it came, on any steady clock, in microseconds.
        """
        source = microseconds(time, time_base)
        if self._restart_at is not None:
            self._shifts, self._restart_at = {0: self._restart_at - source}, None
        last = self._streams.get(stream)
        epoch = last.epoch if last else max(self._shifts)
        if last is not None:
            waited = max(0, arrived - last.arrived)
            advanced = source - last.source
            jumped = advanced < -_BACKWARD or advanced > _FORWARD + waited + waited // 2
            if jumped or epoch not in self._shifts:
                epoch = self._jump(last, source, last.session + max(waited, 1))
        session = source + self._shifts[epoch]
        self._streams[stream] = _Stream(source, session, arrived, epoch)
        self.end = max(self.end, session)
        return self._shifts[epoch]

    def _jump(self, last: _Stream, source: int, expected: int) -> int:
        """The epoch that a stream enters whose clock has jumped: one that another stream opened, or a new one."""
        for epoch, shift in self._shifts.items():
            if epoch > last.epoch and abs(source + shift - expected) < _PLAUSIBLE:
                return epoch
        latest = max(self._shifts) + 1
        self._shifts[latest] = expected - source
        self._shifts.pop(latest - _REMEMBERED, None)
        self.jumps += 1
        return latest


def microseconds(time: int, time_base: Fraction) -> int:
    """A time in `time_base` units, rounded to microseconds."""
    return round(time * time_base * _SECOND)
