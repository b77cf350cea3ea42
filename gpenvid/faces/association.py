"""Which detection is which face: gated assignment by position and size, confident detections first.

The two stages are ByteTrack's (Zhang et al. 2022): what the confident detections leave over may still be found by weak
ones, but a weak detection never starts a track.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.intp]

FAR = 1e6


def distances(centres: Complex, sizes: Real, found: Complex, found_sizes: Real) -> tuple[Real, Real]:
    """Return (T, D): how far each detection lies from each prediction, in face sizes, and how much the log sizes differ."""
    near = np.abs(centres[:, None] - found) / np.sqrt(sizes[:, None] * found_sizes)
    return near, np.abs(np.log(sizes[:, None] / found_sizes))


def assign(cost: Real, rows: Index, columns: Index) -> list[tuple[int, int]]:
    """Return the cheapest pairing (row, column) among the given rows and columns of cost; FAR pairs are refused."""
    if not len(rows) or not len(columns):
        return []
    part = cost[np.ix_(rows, columns)]
    i, j = linear_sum_assignment(part)
    keep = part[i, j] < FAR
    return list(zip(rows[i[keep]].tolist(), columns[j[keep]].tolist(), strict=True))


def duplicates(boxes: Real, of: Real) -> NDArray[np.bool_]:
    """Return (N,): boxes (N, 4) that overlap one of `of` (K, 4) by more than half, as intersection over smaller area."""
    low = np.maximum(boxes[:, None, :2], of[:, :2])
    high = np.minimum(boxes[:, None, 2:], of[:, 2:])
    common = np.prod(np.maximum(high - low, 0), -1)
    smaller = np.minimum(np.prod(boxes[:, 2:] - boxes[:, :2], -1)[:, None], np.prod(of[:, 2:] - of[:, :2], -1))
    flags: NDArray[np.bool_] = (common > 0.5 * smaller).any(1)
    return flags
