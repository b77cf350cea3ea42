"""What is remembered of each followed face, beside its filters: what it looks like, how noisy it is, where it was."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpenvid.faces.geometry import CHANNELS, PIXELS, SPREAD, Complex, Index, Real
from gpenvid.faces.kalman import UNSEEN
from gpenvid.native import compiled, median_of_few

NOISE = np.array([0.2, 1, 1, 1, 1, 4, 4])
"""Variance of each channel's noise, in that of a landmark's coordinate (channel 0) or that over |b|^2 (others)."""

MOTION = np.array([1, 0.25, 0.1, 0.1, 0.1, 0.05, 0.05])
"""How much each channel moves, as a variance, beside the centre."""

_TYPICAL = 1.35
"""The median over channels of the squared surprise, where noise is as assumed."""

_NOISE, _COURSE, _LOOK = 0.5, 0.4, 1.5
"""Seconds over which are learnt a face's noise, its course, and what it looks like and how much that varies."""

FACE = np.dtype(
    [
        ("unit", np.float64),  # |b|, in pixels
        ("scale", np.float64, CHANNELS),  # the unit of each channel's motion, squared
        ("size", np.float64),  # of its box when it was seen last, see `SIGHTING`
        ("noise", np.float64),  # variance of its detections, beside what detections usually have
        ("first", np.float64),  # when it was seen first, and last, in seconds
        ("seen", np.float64),
        ("doubts", np.intp),  # detections in a row that contradicted the past
        ("last", np.complex128, CHANNELS),  # what it was like when it was seen last
        ("course", np.complex128),  # its velocity then, over half a second
        ("look", np.float64, 7),  # what it looks like, see `SIGHTING`
        ("varies", np.float64, 7),  # and the variance of that
    ]
)
"""What is remembered of a face."""

Faces = NDArray[np.void]
"""Of dtype FACE, one in each slot."""


def strangers(count: int) -> Faces:
    """So many faces of which nothing is known."""
    faces: Faces = np.zeros(count, FACE)
    faces["unit"] = faces["noise"] = 1
    faces["scale"] = MOTION
    return faces


@compiled
def usual_noise(unit: float, score: float, times: float) -> Real:
    """The variance (C,) of the channels of a detection, so many times what is usual at a score."""
    r, noise = (PIXELS**2 + SPREAD**2 * unit * unit) / max(score, 0.3) * times, np.empty(CHANNELS)
    for i in range(CHANNELS):
        noise[i] = NOISE[i] * r / (unit * unit if i else 1.0)
    return noise


@compiled
def measured(faces: Any, slots: Index, mean: Complex, seen: Any, which: Index) -> tuple[Complex, Real]:
    """Measurements of all slots and their variances, (slots, C), from the detections `which` of the faces in `slots`.

    mean: (slots, C), what is expected; the roll is taken where it is nearest to that. Others are unseen.
    """
    z, R = mean.copy(), np.full(mean.shape, UNSEEN)
    for n in range(len(slots)):
        slot, one = slots[n], seen[which[n]]
        noise = usual_noise(faces[slot].unit, one.score, faces[slot].noise)
        for i in range(CHANNELS):
            z[slot, i], R[slot, i] = one.channels[i], noise[i]
        turns = np.floor((mean[slot, 1].imag - z[slot, 1].imag) / (2 * np.pi) + 0.5)
        z[slot, 1] += complex(0, 2 * np.pi * turns)
    return z, R


@compiled
def learn(faces: Any, slots: Index, clock: float, lost: Real, off: Real, now: Complex, seen: Any, which: Index) -> None:
    """Learn what all faces are like at a time in seconds, by their estimates (3, slots, C).

    Of those in slots, which were unseen for `lost` seconds (n,), also their noise, 0.6 to 30 times as usual, from how
    far off (slots, C) the detections `which` were. Less is not believed: an alignment steadier than the face does no
    harm, a less steady one is seen. The median over the channels doesn't mind an outlier, or a motion that only some of
    them show. And their looks, in which an outlier counts as far as it is likely.
    """
    for slot in range(len(faces)):
        faces[slot].unit = np.exp(min(max(now[0, slot, 1].real, -5.0), 10.0))
        faces[slot].scale[0] = faces[slot].unit ** 2
    for n in range(len(slots)):
        slot = slots[n]
        face = faces[slot]
        share = -np.expm1(-lost[n] / _NOISE)
        face.noise *= 1 + share * (min(median_of_few(off[slot, :5]) / _TYPICAL, 6.0) - 1)
        face.noise = min(max(face.noise, 0.6), 30.0)
        face.course += -np.expm1(-lost[n] / _COURSE) * (now[1, slot, 0] - face.course)
        share = -np.expm1(-lost[n] / _LOOK)
        for i in range(7):
            most = 3 * np.sqrt(face.varies[i])
            gap = min(max(seen[which[n]].looks[i] - face.look[i], -most), most)
            face.look[i] += share * gap
            face.varies[i] += share * (gap * gap - face.varies[i])
        for i in range(CHANNELS):
            face.last[i] = now[0, slot, i]
        sides = face.last[6]
        face.size = np.exp(face.last[1].real + 0.5 * (sides.real + sides.imag))
        face.seen = clock
