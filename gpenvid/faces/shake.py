"""At what frequency all that is followed shakes, as it does before a camera that is carried or driven."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpenvid.native import compiled

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

SPAN, _SHORTEST = 2.0, 0.75
"""So many seconds of the past are looked at, or less where there are no more."""

_AGAIN = 0.1
"""After so much of the time looked at, it is looked again."""

_LEAST = 0.02
"""RMS of a shake that is worth a model of its own, in units of a face."""

_START, _STOP = 0.8, 0.6
"""A shake begins where an oscillation explains so much of what is no uniform motion, and ends where it doesn't."""

_TRIED, _PERIODS, _FEWEST = np.geomspace(0.8, 6.0, 32), 1.3, 2.5
"""Frequencies in Hz, of which so many periods must lie in the past, each of so many pictures at least."""

_ENOUGH = 16
"""So few pictures tell nothing."""

_STEP = 0.02
"""Frequencies are told to so much, in their logarithm."""


class Shake:
    """Finds the frequency by least squares (Lomb 1976) on the places of the faces, their uniform motion taken off."""

    def __init__(self) -> None:
        """Know of no shake."""
        self.frequency = 0.0
        """In Hz; 0 if nothing shakes."""
        self._times, self._places = np.zeros(64), np.zeros((64, 0), np.complex128)
        self._count = 0  # of them that are taken
        self._due = 0.0

    def note(self, clock: float, centres: Complex) -> bool:
        """Take in where faces are at a time in seconds, once a picture; return whether it is time to `search` again.

        centres: (n,) in pixels; from one call to the next n may only grow.
        """
        if self._count == len(self._times) or len(centres) > self._places.shape[1]:
            self._make_room(clock - SPAN, len(centres))
        self._times[self._count], self._places[self._count] = clock, centres
        self._count += 1
        return clock >= self._due

    def search(self, units: Real, ages: Real) -> None:
        """Find out the frequency; units |b| (n,) in pixels, ages (n,): seconds for which each face was followed."""
        clock = float(self._times[self._count - 1])
        self.frequency, before = 0.0, self.frequency
        old = np.flatnonzero(ages >= _SHORTEST)
        span = float(ages[old].min(initial=SPAN if len(old) else _SHORTEST))
        since, self._due = clock - span + 1e-6, clock + _AGAIN * span
        first = int(self._times[: self._count].searchsorted(since, "right"))
        if not len(old) or self._count - first < _ENOUGH:
            return
        times, z = self._times[first : self._count], self._places[first : self._count].take(old, 1)
        frequency, share = _strongest(times, z, _LEAST * units[old])
        self.frequency = frequency if share > (_STOP if before else _START) else 0.0

    def _make_room(self, since: float, faces: int) -> None:
        """Forget what was before a time, and take down more pictures, of so many faces."""
        first = int(self._times[: self._count].searchsorted(since))
        times, places = self._times[first : self._count], self._places[first : self._count]
        self._count = len(times)
        self._times, self._places = (
            np.zeros(2 * self._count + 64),
            np.zeros((2 * self._count + 64, faces), np.complex128),
        )
        self._times[: self._count], self._places[: self._count, : places.shape[1]] = times, places


def _strongest(t: Real, z: Complex, least: Real) -> tuple[float, float]:
    """The frequency of the oscillation that explains most of z (N, n) at times (N,), and the share that it does.

    The share is the mean over those of the n whose RMS, their uniform motion taken off, is more than least (n,); it is
    0 if there are none.
    """
    tried, waves = _waves(np.rint((t - t[-1]) * 1e6).astype(np.int64).tobytes())
    z = z - z[0]
    return _peak(np.log(tried), _shares(waves @ z.view(np.float64), z, least))


@compiled
def _shares(parts: Real, z: Complex, least: Real) -> Real:
    """The share (F,) of each frequency in the motion of z (N, n) that isn't uniform; none if nothing moves.

    parts: (1 + 2 F, 2 n), what the waves, see `_waves`, find in the real and imaginary parts of z.
    """
    N, F, moving = len(z), len(parts) // 2, 0
    share = np.zeros(F)
    for n in range(z.shape[1]):
        mean, energy = 0j, 0.0
        for t in range(N):
            mean += z[t, n] / N
        for t in range(N):
            energy += (z[t, n].real - mean.real) ** 2 + (z[t, n].imag - mean.imag) ** 2
        energy -= parts[0, 2 * n] ** 2 + parts[0, 2 * n + 1] ** 2
        if energy <= N * least[n] ** 2:
            continue
        moving += 1
        for f in range(F):
            for row in range(1 + 2 * f, 3 + 2 * f):
                share[f] += (parts[row, 2 * n] ** 2 + parts[row, 2 * n + 1] ** 2) / energy
    return share / moving if moving else share[:0]


@compiled
def _peak(places: Real, share: Real) -> tuple[float, float]:
    """The frequency of the largest share (F,), of those whose logarithms are places (F,), and that share; 0 if none."""
    if not len(share):
        return 0.0, 0.0
    best = share.argmax()
    place = places[best]
    if 0 < best < len(share) - 1:  # between those tried, by the parabola through the three
        left, top, right = share[best - 1], share[best], share[best + 1]
        place += 0.5 * (left - right) / (left - 2 * top + right) * (places[1] - places[0])
    return float(np.exp(np.round(place / _STEP) * _STEP)), float(share[best])


@lru_cache(maxsize=64)
def _waves(times: bytes) -> tuple[Real, Real]:
    """The frequencies (F,) worth a try at times (N,), int64 microseconds, and what to look for there, (1 + 2 F, N).

    The first row is a slope; then, of every frequency, two that span its oscillations less mean and slope. Each is of
    norm 1, so that the squares of what they find are energies.
    """
    t = np.frombuffer(times, np.int64) / 1e6
    periods = _TRIED * (t[-1] - t[0])
    tried = _TRIED[(periods >= _PERIODS) & (periods * _FEWEST <= len(t))]
    slope = _unit(t - t.mean())
    phase = 2 * np.pi * tried[:, None] * t
    wave = np.stack([np.cos(phase), np.sin(phase)], 1)
    wave -= wave.mean(-1, keepdims=True)
    wave -= (wave @ slope)[..., None] * slope
    wave[:, 0] = _unit(wave[:, 0])
    wave[:, 1] -= (wave[:, 0] * wave[:, 1]).sum(-1, keepdims=True) * wave[:, 0]
    wave[:, 1] = _unit(wave[:, 1])
    return tried, np.concatenate([slope[None], wave.reshape(-1, len(t))])


def _unit(x: Real) -> Real:
    """Vectors (..., N) at norm 1."""
    unit: Real = x / np.sqrt((x * x).sum(-1, keepdims=True))
    return unit
