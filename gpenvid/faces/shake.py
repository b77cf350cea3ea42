"""At what frequency all that is followed shakes, as it does before a camera that is carried or driven."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
_Values = TypeVar("_Values", Real, Complex)

SPAN, _SHORTEST = 2.0, 1.2
"""So many seconds of the past are looked at, or less where there are no more."""

_EVERY = 0.2
"""Seconds between two looks."""

_LEAST = 0.02
"""RMS of a shake that is worth a model of its own, in units of a face."""

_START, _STOP = 0.8, 0.6
"""A shake begins where an oscillation explains so much of what is no uniform motion, and ends where it doesn't."""

_TRIED, _PERIODS, _FEWEST = np.geomspace(0.8, 6.0, 32), 1.5, 2.5
"""Frequencies in Hz, of which so many periods must lie in the past, each of so many pictures at least."""

_ENOUGH = 20
"""So few pictures tell nothing."""

_STEP = 0.02
"""Frequencies are told to so much, in their logarithm."""


class Shake:
    """Finds the frequency by least squares (Lomb 1976) on the places of the faces, their uniform motion taken off."""

    def __init__(self) -> None:
        """Know of no shake."""
        self.frequency = 0.0
        """In Hz; 0 if nothing shakes."""
        self._record: deque[tuple[float, Complex]] = deque()
        self._looked = 0.0

    def note(self, clock: float, centres: Complex, units: Real, ages: Real) -> None:
        """Take in where faces are at a time in seconds, once a picture.

        centres (n,) and units |b| (n,) in pixels; ages (n,): seconds for which each was followed. From one call to the
        next n may only grow.
        """
        record = self._record
        record.append((clock, centres))
        while clock - record[0][0] > SPAN:
            record.popleft()
        if clock - self._looked < _EVERY:
            return
        self._looked, self.frequency, before = clock, 0.0, self.frequency
        old = np.flatnonzero(ages >= _SHORTEST)
        since = clock - ages[old].min(initial=SPAN) + 1e-6
        seen = [(time, places[old]) for time, places in record if time > since]
        if not len(old) or len(seen) < _ENOUGH:
            return
        t = np.array([time for time, _ in seen])
        z = _rest(t, np.stack([places for _, places in seen], 1))
        energy = (z.real**2 + z.imag**2).sum(1)
        moving = energy > len(t) * (_LEAST * units[old]) ** 2
        if moving.any():
            frequency, share = _strongest(t, z[moving], energy[moving])
            self.frequency = frequency if share > (_STOP if before else _START) else 0.0


def _strongest(t: Real, z: Complex, energy: Real) -> tuple[float, float]:
    """The frequency of the oscillation that explains most of z (n, N) at times (N,), and the share that it does.

    energy: (n,), the sums of |z|^2. The share is the mean over n.
    """
    periods = _TRIED * (t[-1] - t[0])
    tried = _TRIED[(periods >= _PERIODS) & (periods * _FEWEST <= len(t))]
    if not len(tried):
        return 0.0, 0.0
    phase = 2 * np.pi * tried[:, None] * t
    c, s = _rest(t, np.cos(phase)), _rest(t, np.sin(phase))
    cc, ss, cs = (c * c).sum(1), (s * s).sum(1), (c * s).sum(1)
    a, b = z @ c.T, z @ s.T
    explained = ss * np.abs(a) ** 2 + cc * np.abs(b) ** 2 - 2 * cs * (a * b.conj()).real
    share = (explained / (cc * ss - cs**2) / energy[:, None]).mean(0)
    best = int(share.argmax())
    place = np.log(tried[best])
    if 0 < best < len(share) - 1:  # between those tried, by the parabola through the three
        left, top, right = share[best - 1 : best + 2]
        place += 0.5 * (left - right) / (left - 2 * top + right) * np.log(tried[1] / tried[0])
    return float(np.exp(round(place / _STEP) * _STEP)), float(share[best])


def _rest(t: Real, values: _Values) -> _Values:
    """What is left of values (..., N) at times (N,) without their mean and slope."""
    t = t - t.mean()
    values = values - values.mean(-1, keepdims=True)
    return values - (values @ t / (t @ t))[..., None] * t
