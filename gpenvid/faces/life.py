"""A face's life from its first detection to its last, and second thoughts about whose detections they were.

Where one face hides another, or two come back at once, the first detections may be taken for the wrong one's. A few
more settle it: people differ in size and in the shape of their landmarks by more than the detections of one do.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

import numpy as np

from gpenvid.faces.geometry import Real, Sightings, longer
from gpenvid.faces.likeness import apart, astray, difference
from gpenvid.types import Face

LEAST = 0.05
"""The strength to which a face has faded where it is detected for the last time."""

PAUSE, ASIDE = 0.1, 0.05
"""After so many seconds unseen, or so far from where it should be, in sizes, a face may be another."""

REVIEWS = (3, 5, 8, 12)
"""After so many detections since then that is looked into."""

_OTHER, _SUDDEN = 2.0, 0.33
"""By more than this, in variances, do looks differ that aren't one person's; this share of it is beyond any trend."""

_SAME = 3.0
"""By less than this do looks that may be one person's."""

_RATHER = 2.0
"""By so much more do looks differ from what they were, than those of a face found again do, if that one is the same."""

RECALL = 2.0
"""Seconds for which a doubt is remembered."""


@dataclass(slots=True)
class Life:
    """A face from its first detection to its last."""

    id: int
    slot: int
    confirmed: bool
    shown: float  # strength in the last picture handed out
    times: list[float]  # of the detections, on the tracker's clock
    faces: list[Face]  # the detections
    seen: Sightings  # the detections, and room for more
    runs: int = 1  # of the detector, since birth
    doubts: list[int] = field(default_factory=list)  # the detections from which on it may be another
    sudden: list[int] = field(default_factory=list)  # those of them that came from where it could not be
    fresh: bool = True  # it may yet turn out to go on from another Life
    until: float = np.inf  # when it goes on as another Life of the same id

    def note(self, time: float, face: Face, one: np.void) -> None:
        """Take down that it was detected again, as what."""
        count = len(self.times)
        if count == len(self.seen):
            self.seen = longer(self.seen, max(count, 32))
        self.seen[count] = one
        self.times.append(time)
        self.faces.append(face)

    def last_seen(self, clocks: Sequence[float]) -> list[int]:
        """The number of the last detection at each of those times, -1 where it isn't there: not yet, or as another."""
        times, i, found = self.times, bisect_right(self.times, clocks[0]) - 1, []
        for clock in clocks:
            while i + 1 < len(times) and times[i + 1] <= clock:
                i += 1
            found.append(i if clock < self.until else -1)
        return found

    def end(self, i: int, bridge: float) -> int:
        """The last detection before a gap that is too long to bridge, from detection i on."""
        times = self.times
        while i + 1 < len(times) and times[i + 1] - times[i] <= bridge:
            i += 1
        return i

    def stays(self, end: int, now: float, bridge: float) -> bool:
        """Whether nothing that is known now says that it is gone after such an end."""
        return end + 1 == len(self.times) and now - self.times[end] <= bridge

    def fading(self, end: int, clock: float, fade: float) -> float:
        """The strength of a face that is gone after such an end: it falls towards that, and beyond it below 0."""
        last = self.times[end]
        return (last - clock) / fade + LEAST if fade else float(clock <= last)

    def takeover(self) -> int | None:
        """Return the detection from which on this is somebody else, None if there is no such or no review is due."""
        found, most = None, 0.0
        count = len(self.times)
        turn = count - REVIEWS[0]
        if turn in self.doubts and turn >= REVIEWS[0] and self._came_from_elsewhere(turn):
            self.sudden.append(turn)
        due = [turn for turn in self.sudden if count - turn in REVIEWS]
        if due and any(self._change(turn) for turn in due):
            for turn in self.sudden:
                off = self._change(turn) if count - turn <= REVIEWS[-1] else 0.0
                if off > most:
                    found, most = turn, off
        while self.doubts and self.times[-1] - self.times[self.doubts[0]] > RECALL:
            turn = self.doubts.pop(0)
            self.sudden = [other for other in self.sudden if other != turn]
        return found

    def _change(self, turn: int) -> float:
        """How much the look differs before a detection and from it on; 0 if that is one person's."""
        if min(turn, len(self.times) - turn) < REVIEWS[0]:
            return 0.0
        start, count = max(turn - 16, 0), len(self.times)
        if not apart(self.seen[start:turn], self.seen[turn:count]):
            return 0.0
        before, after = self.past(start, turn), self.past(turn, count)
        off, limit = difference(*before, *after, True, False), _OTHER * (1 + 2 / len(after[0]))
        return off if off > limit and _beyond_trend(before, after) > limit * _SUDDEN else 0.0

    def _came_from_elsewhere(self, turn: int) -> bool:
        """Whether a face was unseen before a detection, or that and the next two are not where they should be."""
        if self.times[turn] - self.times[turn - 1] > PAUSE:
            return True
        before, after = self.past(max(turn - 8, 0), turn), self.past(turn, turn + 3)
        return astray(*before, *after) > 2 * ASIDE * exp(before[1]["looks"][-1, 0])

    @property
    def settled(self) -> int:
        """How many of the detections are its own beyond doubt."""
        count = len(self.times)
        for turn in reversed(self.doubts):
            if 0 < turn < count < turn + REVIEWS[0]:
                count = turn
        return count

    @property
    def seen_last(self) -> float:
        """When it was seen last, beyond doubt."""
        return self.times[self.settled - 1]

    def forget(self, count: int) -> None:
        """Drop the first detections."""
        del self.times[:count], self.faces[:count]
        self.seen = self.seen[count:].copy()
        self.doubts, self.sudden = (
            [turn - count for turn in turns if turn >= count] for turns in (self.doubts, self.sudden)
        )

    def past(self, start: int, stop: int) -> Past:
        """What was detected from one detection to before another."""
        return np.array(self.times[start:stop]), self.seen[start : min(stop, len(self.times))]


Past = tuple[Real, Sightings]
"""Times (n,) of a face's detections in a row, and what it was seen as."""


def kin(lost: Sequence[Life], found: Life) -> Life | None:
    """Return which of the faces lost before another was found it is: it looks like it, and could get there."""
    best, which = _SAME, None
    for life in lost:
        off = _strange(life, life.settled, found)
        if off < best:
            best, which = off, life
    return which


def displaced(lives: Sequence[Life], found: Life) -> tuple[Life, int] | None:
    """Return by whom a face was displaced that is found again, and since which detection; None if it was not.

    It looks more like one of the others before a doubt than that one does since.
    """
    most, which = _RATHER, None
    for life in lives:
        for turn in life.doubts:
            if REVIEWS[0] <= turn <= len(life.times) - REVIEWS[0] and life.times[turn] < found.times[0]:
                before = life.past(max(turn - 16, 0), turn)
                since = difference(*before, *life.past(turn, turn + REVIEWS[-1]), False, False)
                off = _strange(life, turn, found) if since > most else _SAME
                if off < _SAME and since - off > most:
                    most, which = since - off, (life, turn)
    return which


def _strange(life: Life, turn: int, found: Life) -> float:
    """How little a face that is found is the one that was seen until a turn, by looks and place."""
    before, after = life.past(max(turn - 16, 0), turn), found.past(0, REVIEWS[-1])
    gap = after[0][0] - before[0][-1]
    place = before[1]["channels"][-1, 0] + course(*before) * gap
    far = abs(after[1]["channels"][0, 0] - place) / exp(before[1]["looks"][-1, 0])
    return float(difference(*before, *after, False, False) + 2 * max(far / (1 + 2.5 * gap) - 1, 0.0))


def course(times: Real, seen: Sightings) -> complex:
    """The mean velocity of a face's centre."""
    t = times - times.mean()
    return complex((t * seen["channels"][:, 0]).sum() / max(float((t**2).sum()), 1e-3))


def _beyond_trend(before: Past, after: Past) -> float:
    """How much looks differ beyond any trend: a head that turns or comes nearer stays itself."""
    return difference(before[0][-8:], before[1][-8:], after[0][:8], after[1][:8], True, True)
