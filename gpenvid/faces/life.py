"""A face's life from its first detection to its last, and second thoughts about whose detections they were.

Where one face hides another, or two come back at once, the first detections may be taken for the wrong one's. A few
more settle it: people differ in size and in the shape of their landmarks by more than the detections of one do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

import numpy as np

from gpenvid.faces.geometry import CHANNELS, Complex, Real, looks, median
from gpenvid.types import Face

LEAST = 0.05
"""The strength to which a face has faded where it is detected for the last time."""

PAUSE, ASIDE = 0.1, 0.05
"""After so many seconds unseen, or so far from where it should be, in sizes, a face may be another."""

REVIEWS = (3, 5, 8, 12)
"""After so many detections since then that is looked into."""

_TURN = 2
"""In so many ways may a look change at once by a turn of the head or a smile: another person differs in more."""

_OTHER, _SUDDEN = 2.0, 0.33
"""By more than this, in variances, do looks differ that aren't one person's; this share of it is beyond any trend."""

_SAME = 3.0
"""By less than this do looks that may be one person's."""

_RATHER = 2.0
"""By so much more do looks differ from what they were, than those of a face found again do, if that one is the same."""

RECALL = 2.0
"""Seconds for which a doubt is remembered."""

_MODEL, _CHANGE = 0.01, 0.03
"""How much a look varies beside noise, and how much more in a second unseen."""


@dataclass(slots=True)
class Life:
    """A face from its first detection to its last."""

    id: int
    slot: int
    confirmed: bool
    shown: float  # strength in the last picture handed out
    times: list[float]  # of the detections, on the tracker's clock
    faces: list[Face]  # the detections
    channels: list[Complex]  # the detections, (7,) each
    runs: int = 1  # of the detector, since birth
    doubts: list[int] = field(default_factory=list)  # the detections from which on it may be another
    sudden: list[int] = field(default_factory=list)  # those of them that came from where it could not be
    fresh: bool = True  # it may yet turn out to go on from another Life
    until: float = np.inf  # when it goes on as another Life of the same id

    def end(self, i: int, bridge: float) -> int:
        """The last detection before a gap that is too long to bridge, from detection i on."""
        times = self.times
        while i + 1 < len(times) and times[i + 1] - times[i] <= bridge:
            i += 1
        return i

    def wanted(self, end: int, clock: float, now: float, bridge: float, fade: float) -> float:
        """The strength at a time with such an end, given what is known now: 0 to 1, or beyond.

        It falls towards the end, as far ahead as that is known.
        """
        last = self.times[end]
        if end + 1 == len(self.times) and now - last <= bridge:
            return 1.0
        return (last - clock) / fade + LEAST if fade else float(clock <= last)

    def takeover(self) -> int | None:
        """Return the detection from which on this is somebody else, None if there is no such or no review is due."""
        found, most = None, 0.0
        count = len(self.times)
        turn = count - REVIEWS[0]
        if turn in self.doubts and turn >= REVIEWS[0] and self._came_from_elsewhere(turn):
            self.sudden.append(turn)
        if self.sudden and any(count - turn in REVIEWS and self._change(turn) for turn in self.sudden):
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
        before, after = self.seen(max(turn - 16, 0), turn), self.seen(turn, len(self.times))
        if not _apart(before, after):
            return 0.0
        off, limit = _difference(before, after, _TURN), _OTHER * (1 + 2 / len(after[0]))
        return off if off > limit and _beyond_trend(before, after) > limit * _SUDDEN else 0.0

    def _came_from_elsewhere(self, turn: int) -> bool:
        """Whether a face was unseen before a detection, or that and the next two are not where they should be."""
        if self.times[turn] - self.times[turn - 1] > PAUSE:
            return True
        before, after = self.seen(max(turn - 8, 0), turn), self.seen(turn, turn + 3)
        aside = median(np.abs(_ahead(*before, after[0]) - after[1][:, 0])) / np.exp(before[1][-1, 1].real)
        return bool(aside > 2 * ASIDE)

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
        del self.times[:count], self.faces[:count], self.channels[:count]
        self.doubts, self.sudden = (
            [turn - count for turn in turns if turn >= count] for turns in (self.doubts, self.sudden)
        )

    def seen(self, start: int, stop: int) -> Sightings:
        """What was detected from one detection to before another."""
        return np.array(self.times[start:stop]), np.concatenate(self.channels[start:stop]).reshape(-1, CHANNELS)


Sightings = tuple[Real, Complex]
"""Times (n,) and channels (n, 7) of a face's detections in a row."""


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
                before = life.seen(max(turn - 16, 0), turn)
                since = _difference(before, life.seen(turn, turn + REVIEWS[-1]))
                off = _strange(life, turn, found) if since > most else _SAME
                if off < _SAME and since - off > most:
                    most, which = since - off, (life, turn)
    return which


def _strange(life: Life, turn: int, found: Life) -> float:
    """How little a face that is found is the one that was seen until a turn, by looks and place."""
    before, after = life.seen(max(turn - 16, 0), turn), found.seen(0, REVIEWS[-1])
    gap = after[0][0] - before[0][-1]
    place = before[1][-1, 0] + course(*before) * gap
    far = abs(after[1][0, 0] - place) / np.exp(before[1][-1, 1].real)
    return float(_difference(before, after) + 2 * max(far / (1 + 2.5 * gap) - 1, 0.0))


def course(times: Real, channels: Complex) -> complex:
    """The mean velocity of a face's centre."""
    t = times - times.mean()
    return complex((t * channels[:, 0]).sum() / max(float((t**2).sum()), 1e-3))


def _apart(before: Sightings, after: Sightings) -> bool:
    """Whether looks differ, by their medians, enough to be worth a comparison: it saves most of them."""
    off = median(looks(before[1])) - median(looks(after[1]))
    log_size = float(before[1][0, 1].real)
    usual = (1 / len(before[0]) + 1 / len(after[0])) * _usual(log_size)
    square = np.sort(off * off)
    return float(np.add.reduce(square[:-_TURN])) > (len(square) - _TURN) * (usual + _MODEL**2)


def _difference(before: Sightings, after: Sightings, but: int = 0, trend: bool = False) -> float:
    """How much looks differ before and after: the mean square over its variance, about 1 if it is chance.

    but: so many of the largest differences are left out.
    """
    last, first = before[0][-1], after[0][0]
    gap, a, b = first - last, looks(before[1]), looks(after[1])
    noise, between = _noise(float(before[1][0, 1].real), a, b), min(gap / 2, 0.1)
    a, near = _end(before[0], a, last + between, noise, trend)
    b, far = _end(after[0], b, first - between, noise, trend)
    off = (b - a) ** 2 / ((near + far) * noise + _MODEL**2 + (_CHANGE * gap) ** 2)
    off.sort()
    return float(np.add.reduce(off[: len(off) - but])) / (len(off) - but)


def _beyond_trend(before: Sightings, after: Sightings) -> float:
    """As `_difference`, but beyond any trend: a head that turns or comes nearer stays itself."""
    return _difference((before[0][-8:], before[1][-8:]), (after[0][:8], after[1][:8]), _TURN, trend=True)


def _ahead(times: Real, channels: Complex, then: Real) -> Complex:
    """Where a face should be then (m,), by medians, which no outlier moves."""
    z, t = channels[:, :1].view(np.float64), (times - times[-1])[:, None]
    slope = median((z[1:] - z[:-1]) / (t[1:] - t[:-1]))
    rest = median(z - slope * t)
    ahead: Complex = complex(*rest) + complex(*slope) * (then - times[-1])
    return ahead


def _noise(log_size: float, *parts: Real) -> float:
    """The variance of a detection's look: as usual, or as the second differences of parts (n, 7) of a life say."""
    usual = _usual(log_size)
    bends = np.concatenate([part[2:] - 2 * part[1:-1] + part[:-2] for part in parts])
    found = sum(median(bends * bends).tolist()) / (bends.shape[1] * 6 * 0.455) if len(bends) else usual
    return max((4 * usual + len(bends) * found) / (4 + len(bends)), 0.3 * usual)


def _usual(log_size: float) -> float:
    return 0.6**2 * exp(-2 * log_size) + 0.012**2


def _end(times: Real, x: Real, then: float, noise: float, trend: bool) -> tuple[Real, float]:
    """The look at a time near the looks x (n, 7), of which outliers are left out, and its share of the noise.

    It is constant, or with a trend a line in time.
    """
    off = np.abs(x - median(x)).max(1)
    keep = off < max(6 * noise**0.5, 2 * float(median(off)))
    x, t = x[keep], times[keep]
    n = len(t)
    mean: Real = np.add.reduce(x) / n
    if not trend:
        return mean, 1 / n
    middle = np.add.reduce(t) / n
    t, at = t - middle, then - middle
    total = max(float(t @ t), 1e-9)
    return mean + t @ x * (at / total), 1 / n + float(at**2) / total
