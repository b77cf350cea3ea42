"""Which detection is which face: gated assignment by position and size, confident detections first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

_FAR = 1e6

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


def associate(
    centres: Complex, sizes: Real, reach: Real, handicap: Real, fresh: Flags,
    found: Complex, found_sizes: Real, confident: Flags,
    strange: Callable[[Index, Index], Real], alike: Callable[[], Flags],
) -> tuple[Index, Index]:  # fmt: skip
    """Pair faces with detections; returns the indices of both, (n,) each.

    Faces (T,): predicted centres and sizes in pixels, the reach in which each is searched, in sizes, a handicap against
    faces that aren't certain, and whether it was seen just now. Detections (D,): centres, sizes, and whether each is a
    confident one. strange says of faces and detections, by indices that are broadcast, how little they look like each
    other: about 1 if they are the same. Neither it nor a cost is asked for where each has but one in its reach.

    The two stages are ByteTrack's (Zhang et al. 2022): what the confident detections leave over may be found by weak
    ones. A third one lets a face jump, by a knock against the camera, an edit within the shot or a turn while hidden,
    if it stays `alike` (T, D), which is asked for only then.
    """
    near = np.abs(centres[:, None] - found) / np.sqrt(sizes[:, None] * found_sizes)
    growth = np.abs(np.log(sizes[:, None] / found_sizes))
    limit = np.where(fresh, reach, 0.7)
    gate = (near < limit[:, None]) & (growth < np.where(fresh, 0.5, 0.3)[:, None])
    i, j = np.nonzero(gate)
    if len(i) == min(gate.shape) == len(set(i.tolist())) == len(set(j.tolist())):
        rest = 1 - near[i, j] / limit[i]
        if rest.min() > _UNLIKE and confident[j].all():
            return i, j
        odd = strange(i, j)
        sure = np.minimum(odd / _STRANGER, _UNLIKE) < rest
        if (sure & (confident[j] | fresh[i] & (odd < _DOUBTFUL))).all():
            return i, j
    odd = strange(np.arange(len(centres))[:, None], np.arange(len(found)))
    cost = near * np.where(fresh, 1, REACH / reach)[:, None] + 0.7 * growth
    cost += (handicap + _VAGUE * np.log(reach / REACH))[:, None]
    cost += np.minimum(0.1 * np.maximum(odd - 2, 0), 1)
    gated = np.where(gate & (near / limit[:, None] + np.minimum(odd / _STRANGER, _UNLIKE) < 1), cost, _FAR)
    everyone = np.ones(len(centres), bool)
    pairs = _assign(gated, everyone, confident)
    if len(pairs) < min(gate.shape):
        known = np.where(odd < _DOUBTFUL, gated, _FAR)
        pairs += _assign(known, _without(fresh, [i for i, _ in pairs]), ~confident)
        far = np.where(fresh, 2, 1.4 + reach)[:, None]
        leaps = np.where((near < far) & (odd < _LEAPING) & alike(), cost, _FAR)
        calm = any(fresh[i] and near[i, j] < _CALM for i, j in pairs)
        left = _without(~fresh if calm else everyone, [i for i, _ in pairs])
        pairs += _assign(leaps, left, _without(confident, [j for _, j in pairs]))
    i, j = np.array(pairs, np.intp).reshape(-1, 2).T
    return i, j


def _assign(cost: Real, rows: Flags, columns: Flags) -> list[tuple[int, int]]:
    """Return the cheapest pairing among the given rows and columns; pairs that are too far apart are refused."""
    r, c = np.flatnonzero(rows), np.flatnonzero(columns)
    if not len(r) or not len(c):
        return []
    part = cost if len(r) == len(rows) and len(c) == len(columns) else cost[np.ix_(r, c)]
    i, j = linear_sum_assignment(part)
    keep = part[i, j] < _FAR
    return list(zip(r[i[keep]].tolist(), c[j[keep]].tolist(), strict=True))


def _without(flags: Flags, indices: list[int]) -> Flags:
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
