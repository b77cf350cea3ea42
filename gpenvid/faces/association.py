"""Which detection is which face: gated assignment by position and size, confident detections first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from gpenvid.faces.geometry import Sightings
from gpenvid.faces.memory import Faces
from gpenvid.native import compiled

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

_FAR = 1e6

_BRIEF = 0.12
"""So many seconds unseen, a face is where its filters say."""

DRIFT = 0.1
"""How much a face's look may change in a second unseen, beside its usual variation."""

REACH = 0.45
"""How far from its place, in sizes, a face may be that was seen just now."""

_STRANGER, _UNLIKE = 9.0, 0.85
"""So strange a detection is somebody else, unless it is just where the face must be, which needs no likeness beyond
this; half as strange, where it is half as far off as may be."""

_VAGUE = 0.1
"""How much more a pair costs with the logarithm of a face's reach: where it may be anywhere it is seldom just here."""

_CALM = 0.2
"""Where one face is so near its place, in sizes, no other leaps that was seen just now: nobody knocked the camera."""

_DOUBTFUL, _LEAPING = 4.0, 2.5
"""A weak detection, and one that takes a leap, must be less strange than this."""


EXPECTED = np.dtype(
    [
        ("centre", np.complex128),  # where a face should be, in pixels
        ("size", np.float64),  # of its box when it was seen last, in pixels
        ("lost", np.float64),  # seconds since then
        ("reach", np.float64),  # how far from there it is searched, in sizes
        ("handicap", np.float64),  # against faces that aren't certain
        ("fresh", np.intp),  # whether it was seen just now
    ]
)
"""What is expected of a face in the next picture."""


@compiled
def outlook(
    faces: Any, slots: Index, certain: Flags, mean: Complex, seen: Any, clock: float, bridge: float
) -> tuple[Any, Real]:
    """What is expected of the faces in slots (T,), and how little the detections (D,) look like them, (T, D).

    certain: (T,); mean: (slots, C), what their filters say, but one that is lost for longer went straight on; clock:
    the time, in seconds; bridge: seconds for which one that is unseen is as good as seen. Unlikeness is about 1 if they
    are the same: the mean over size and shape of the squared difference from a face's usual look, over its usual
    variance.
    """
    expected, odd = np.empty(len(slots), EXPECTED), np.zeros((len(slots), len(seen)))
    for t in range(len(slots)):
        face, here = faces[slots[t]], expected[t]
        lost = clock - face.seen
        here.centre = face.last[0] + face.course * lost if lost > _BRIEF else mean[slots[t], 0]
        here.size, here.lost, here.fresh = face.size, lost, lost <= bridge
        here.reach, here.handicap = REACH + min(0.8 * lost, 1.2), 0.0 if certain[t] else 0.3
        free = 0.01**2 + (DRIFT * lost) ** 2
        for d in range(len(seen)):
            for i in range(7):
                off = seen[d].looks[i] - face.look[i]
                odd[t, d] += min(off * off / (face.varies[i] + free), 16.0) / 7
    return expected, odd


def associate(
    expected: Faces, seen: Sightings, odd: Real, confident: Flags, alike: Callable[[], Flags]
) -> tuple[Index, Index, Real]:
    """Pair faces with detections; returns the indices of both, and how far off they are, in sizes, (n,) each.

    expected: (T,) of dtype EXPECTED; seen: (D,); odd: (T, D), how little they look like each other: about 1 if they are
    the same; confident: (D,), which of the detections are.

    The two stages are ByteTrack's (Zhang et al. 2022): what the confident detections leave over may be found by weak
    ones. A third one lets a face jump, by a knock against the camera, an edit within the shot or a turn while hidden,
    if it stays `alike` (T, D), which is asked for only then.
    """
    (near, cost, gated), i, j, clear = _weigh(expected, seen, odd, confident)
    most = min(near.shape)
    if clear and len(i) == most:
        return i, j, near[i, j]
    fresh, everyone = expected["fresh"] > 0, np.ones(len(near), np.bool_)
    if not clear:
        i, j = _assign(gated, everyone, confident)
        if len(i) < most and not confident.all():
            known = np.where(odd < _DOUBTFUL, gated, _FAR)
            i, j = _joined(i, j, _assign(known, _without(fresh, i), ~confident))
    if len(i) < most:
        calm = (fresh[i] & (near[i, j] < _CALM)).any()
        faces = _without(~fresh if calm else everyone, i)
        free = _without(confident, j)
        if faces.any() and free.any():
            far = np.where(fresh, 2, 1.4 + expected["reach"])[:, None]
            leaps = np.where((near < far) & (odd < _LEAPING) & alike(), cost, _FAR)
            i, j = _joined(i, j, _assign(leaps, faces, free))
    return i, j, near[i, j]


@compiled
def _weigh(expected: Any, seen: Any, odd: Real, confident: Flags) -> tuple[Real, Index, Index, bool]:
    """How near faces and detections are, in sizes, what each pair costs, and that where it may be one; (3, T, D).

    Then the pairs, by the indices of both, and whether they are beyond doubt: no other one may be.
    """
    T, D = odd.shape
    weighed = np.empty((3, T, D))
    near, cost, gated = weighed[0], weighed[1], weighed[2]
    i, j, count, clear = np.empty(min(T, D), np.intp), np.empty(min(T, D), np.intp), 0, True
    taken, sizes = np.zeros(D, np.bool_), np.empty(D)
    for d in range(D):
        sizes[d] = np.log(seen[d].size)
    for t in range(T):
        face = expected[t]
        limit, most = (face.reach, 0.5) if face.fresh else (0.7, 0.3)
        size, vague = np.log(face.size), face.handicap + _VAGUE * np.log(face.reach / REACH)
        alone = True
        for d in range(D):
            away = face.centre - seen[d].channels[0]
            near[t, d] = np.sqrt((away.real**2 + away.imag**2) / (face.size * seen[d].size))
            growth = abs(size - sizes[d])
            cost[t, d] = near[t, d] * (1.0 if face.fresh else REACH / face.reach) + 0.7 * growth + vague
            cost[t, d] += min(0.1 * max(odd[t, d] - 2, 0.0), 1.0)
            gated[t, d] = _FAR
            if near[t, d] >= limit or growth >= most:
                continue
            if near[t, d] / limit + min(odd[t, d] / _STRANGER, _UNLIKE) < 1:
                gated[t, d] = cost[t, d]
                clear &= confident[d] or (face.fresh and odd[t, d] < _DOUBTFUL)
            else:
                clear = False
            clear &= alone and not taken[d]
            if clear:
                i[count], j[count], count = t, d, count + 1
            alone, taken[d] = False, True
    return weighed, i[:count], j[:count], clear


def _assign(cost: Real, rows: Flags, columns: Flags) -> tuple[Index, Index]:
    """Return the cheapest pairing among the given rows and columns; pairs that are too far apart are refused."""
    allowed = _allowed(cost, rows, columns)
    return _near_enough(allowed, *linear_sum_assignment(allowed))


@compiled
def _allowed(cost: Real, rows: Flags, columns: Flags) -> Real:
    """The cost of pairs, too high for those in other rows or columns."""
    allowed = np.full(cost.shape, _FAR)
    for t in range(len(rows)):
        for d in range(len(columns)):
            if rows[t] and columns[d]:
                allowed[t, d] = cost[t, d]
    return allowed


@compiled
def _near_enough(cost: Real, i: Index, j: Index) -> tuple[Index, Index]:
    """Those of the pairs that aren't too far apart."""
    rows, columns, count = np.empty_like(i), np.empty_like(j), 0
    for n in range(len(i)):
        if cost[i[n], j[n]] < _FAR:
            rows[count], columns[count], count = i[n], j[n], count + 1
    return rows[:count], columns[:count]


def _joined(i: Index, j: Index, more: tuple[Index, Index]) -> tuple[Index, Index]:
    return np.concatenate([i, more[0]]), np.concatenate([j, more[1]])


def _without(flags: Flags, indices: Index) -> Flags:
    flags = flags.copy()
    flags[indices] = False
    return flags


def duplicates(boxes: Real, of: Real) -> Flags:
    """Return (N,): which boxes (N, 4) overlap one of `of` (K, 4) by more than half of the smaller one's area."""
    low = np.maximum(boxes[:, None, :2], of[:, :2])
    high = np.minimum(boxes[:, None, 2:], of[:, 2:])
    common = np.prod(np.maximum(high - low, 0), -1)
    smaller = np.minimum(np.prod(boxes[:, 2:] - boxes[:, :2], -1)[:, None], np.prod(of[:, 2:] - of[:, :2], -1))
    flags: Flags = (common > 0.5 * smaller).any(1)
    return flags
