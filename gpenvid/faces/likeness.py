"""How much what was seen at two times looks like one person, and where a face goes: by medians, which no outlier moves.

A face was seen at times (n,) in seconds as what detections (n,) of dtype SIGHTING say; its looks are (n, 7), of which
the first is its log size: the noise of a look is in proportion to that.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpenvid.faces.geometry import PIXELS, SPREAD, Real
from gpenvid.native import compiled, median_of_few

_TURN = 2
"""In so many ways may a look change at once by a turn of the head or a smile: another person differs in more."""

_MODEL, _CHANGE = 0.01, 0.03
"""How much a look varies beside noise, and how much more in a second unseen."""


@compiled
def _usual(log_size: float) -> float:
    return PIXELS**2 * math.exp(-2 * log_size) + SPREAD**2


@compiled
def _looks(seen: Any) -> Real:
    looks = np.empty((len(seen), 7))
    for n in range(len(seen)):
        for i in range(7):
            looks[n, i] = seen[n].looks[i]
    return looks


@compiled
def _mean_without(square: Real, most: int) -> float:
    """The mean of squares, but for so many of the largest."""
    x = square.copy()
    for _ in range(most):
        x[x.argmax()] = 0
    return float(x.sum()) / (len(x) - most)


@compiled
def apart(before: Any, after: Any) -> bool:
    """Whether looks differ, by their medians, enough to be worth a comparison: it saves most of them."""
    first, second = _looks(before), _looks(after)
    square = np.empty(first.shape[1])
    for i in range(len(square)):
        square[i] = (median_of_few(first[:, i].copy()) - median_of_few(second[:, i].copy())) ** 2
    usual = (1 / len(before) + 1 / len(after)) * _usual(first[0, 0])
    return _mean_without(square, _TURN) > usual + _MODEL**2


@compiled
def _noise(before: Real, after: Real) -> float:
    """The variance of a detection's look: as usual, or as the second differences of looks say."""
    usual, found = _usual(before[0, 0]), 0.0
    first, second = max(len(before) - 2, 0), max(len(after) - 2, 0)
    count = first + second
    bends = np.empty(count)
    for i in range(before.shape[1]):
        for n in range(first):
            bends[n] = (before[n + 2, i] - 2 * before[n + 1, i] + before[n, i]) ** 2
        for n in range(second):
            bends[first + n] = (after[n + 2, i] - 2 * after[n + 1, i] + after[n, i]) ** 2
        found += (median_of_few(bends) if count else 0.0) / (before.shape[1] * 6 * 0.455)
    return max((4 * usual + count * found) / (4 + count), 0.3 * usual)


@compiled
def _end(times: Real, x: Real, then: float, noise: float, trend: bool) -> tuple[Real, float]:
    """The look at a time near the looks x (n, 7), of which outliers are left out, and its share of the noise.

    It is constant, or with a trend a line in time.
    """
    off = np.zeros(len(x))
    for i in range(x.shape[1]):
        middle = median_of_few(x[:, i].copy())
        for n in range(len(x)):
            off[n] = max(off[n], abs(x[n, i] - middle))
    limit = max(6 * noise**0.5, 2 * median_of_few(off))
    count, mean, centre = 0, np.zeros(x.shape[1]), 0.0
    for n in range(len(x)):
        if off[n] < limit:
            count += 1
            centre += times[n]
            for i in range(len(mean)):
                mean[i] += x[n, i]
    mean /= count
    centre /= count
    if not trend:
        return mean, 1 / count
    total, slope = 0.0, np.zeros(len(mean))
    for n in range(len(x)):
        if off[n] < limit:
            t = times[n] - centre
            total += t * t
            for i in range(len(mean)):
                slope[i] += t * x[n, i]
    total, at = max(total, 1e-9), then - centre
    for i in range(len(mean)):
        mean[i] += slope[i] * (at / total)
    return mean, 1 / count + at**2 / total


@compiled
def difference(times: Real, before: Any, later: Real, after: Any, sudden: bool, trend: bool) -> float:
    """How much looks differ before and after: the mean square over its variance, about 1 if it is chance.

    sudden: the largest differences are left out, as those of a turn; trend: beyond any trend.
    """
    last, first, start, end = times[-1], later[0], _looks(before), _looks(after)
    noise, between = _noise(start, end), min((first - last) / 2, 0.1)
    a, near = _end(times, start, last + between, noise, trend)
    b, far = _end(later, end, first - between, noise, trend)
    variance = (near + far) * noise + _MODEL**2 + (_CHANGE * (first - last)) ** 2
    for i in range(len(a)):
        a[i] = (b[i] - a[i]) ** 2 / variance
    return _mean_without(a, _TURN if sudden else 0)


@compiled
def astray(times: Real, before: Any, later: Real, after: Any) -> float:
    """How far a face was found later from where it should have been, by where it was before: the median, in pixels."""
    slopes, rests = np.empty((2, len(times) - 1)), np.empty((2, len(times)))
    for n in range(len(times) - 1):
        slope = (before[n + 1].channels[0] - before[n].channels[0]) / (times[n + 1] - times[n])
        slopes[0, n], slopes[1, n] = slope.real, slope.imag
    course = complex(median_of_few(slopes[0]), median_of_few(slopes[1]))
    for n in range(len(times)):
        rest = before[n].channels[0] - course * (times[n] - times[-1])
        rests[0, n], rests[1, n] = rest.real, rest.imag
    place, off = complex(median_of_few(rests[0]), median_of_few(rests[1])), np.empty(len(later))
    for n in range(len(later)):
        off[n] = abs(place + course * (later[n] - times[-1]) - after[n].channels[0])
    return median_of_few(off)
