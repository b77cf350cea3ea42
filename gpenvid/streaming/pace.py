"""How much is done for each picture of a live session, so that there is time for the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """detect_every: faces are searched in every so-many-th picture; faces: the largest that are restored, None: all.

    With `faces` 0 nothing is done at all: pictures pass through.
    """

    detect_every: int = 1
    faces: int | None = None


LADDER = (Effort(), Effort(2), Effort(4), Effort(4, 4), Effort(4, 2), Effort(4, 1), Effort(4, 0))
"""From everything to nothing, in the order of what is missed least."""

_WINDOW = 0.5
_FULL = 0.9
_ROOM = 0.6
_FIRST_TRY = 1.0
_LAST_TRY = 30.0


class Pace:
    """Goes down the ladder while the work fills the time, and up again when there has been room for a while.

    A step up that doesn't hold makes the next try wait twice as long, up to half a minute; one that holds forgives.
    clock: seconds, steady.
    """

    def __init__(self, ladder: tuple[Effort, ...] = LADDER, clock: Callable[[], float] = time.monotonic) -> None:
        self.rung = 0
        self.steps = 0
        """How often a rung was left."""
        self._ladder = ladder
        self._clock = clock
        self._began = clock()
        self._worked = 0.0
        self._late = 0
        self._patience = _FIRST_TRY
        self._room_since: float | None = None
        self._rose: float | None = None

    @property
    def effort(self) -> Effort:
        """What to do for the next picture."""
        return self._ladder[self.rung]

    def took(self, seconds: float, late: int) -> None:
        """Take note of a round of work: how long it took, and how many pictures were late for it."""
        self._worked += seconds
        self._late += late
        now = self._clock()
        elapsed = now - self._began
        if elapsed < _WINDOW:
            return
        load, late_ones = self._worked / elapsed, self._late
        self._began, self._worked, self._late = now, 0.0, 0
        if load > _FULL or (late_ones and load > _ROOM):
            self._down(now)
        elif load < _ROOM and not late_ones:
            self._room(now)
        else:
            self._room_since = None

    def _down(self, now: float) -> None:
        self._room_since = None
        if self._rose is not None and now - self._rose < 2 * self._patience:
            self._patience = min(2 * self._patience, _LAST_TRY)
        self._rose = None
        self._move(min(self.rung + 1, len(self._ladder) - 1))

    def _room(self, now: float) -> None:
        if self._rose is not None and now - self._rose >= 2 * self._patience:
            self._patience, self._rose = _FIRST_TRY, None
        if self._room_since is None:
            self._room_since = now
        elif now - self._room_since >= self._patience and self.rung:
            self._room_since, self._rose = None, now
            self._move(self.rung - 1)

    def _move(self, rung: int) -> None:
        self.steps += rung != self.rung
        self.rung = rung
