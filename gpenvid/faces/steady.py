"""The flicker filter: what the network adds to a face may not change faster than the face does."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from gpenvid.faces.align import detail_gain
from gpenvid.types import Float, Image

BASE = 96.0
"""Crop sides per standard deviation of the blur that takes the noise out of the crop before it is compared."""

FORGET = 2.0
"""Seconds after which a track that wasn't seen is dropped."""

_GRID = 64
"""Motion is judged on copies of this many pixels a side."""


@dataclass(slots=True)
class _Memory:
    time: float
    residual: Float  # (S, S, 3), the filtered residual
    look: Float  # (G, G, 3), what the crop looked like to which the residual belongs
    count: Float  # (G, G), how many pictures' worth of evidence the residual holds
    noise: float  # mean absolute change of a still pixel of the small copy


class ResidualFilter:
    """Averages, per track and pixel, the residual (restored - crop) over as long as the crop stays the same.

    Where the crop has changed from what it was when the average was made, by more than its noise, the average is
    let go: lids, lips and a turning head show no ghosts. The average is of the residual, not of the picture, so
    motion of the input passes through untouched. Durations are seconds: the picture rate doesn't matter.
    """

    def __init__(self, stability: float = 50.0) -> None:
        """stability: 0 (no filter) to 100 (averages over 0.5 s). Raises ValueError outside."""
        if not 0 <= stability <= 100:
            raise ValueError(f"stability must be 0 to 100, got {stability}")
        self.seconds = 0.005 * stability
        self._memories: dict[int, _Memory] = {}

    def update(self, track_id: int, time: float | Fraction, crop: Image, restored: Image) -> Image:
        """Return the restored crop with its flicker taken out.

        crop, restored: (S, S, 3) uint8, aligned alike. Calls of one track come in the order of time; one that goes
        back in time, or comes with another S, starts anew.
        """
        now = float(time)
        self._drop(now)
        if not self.seconds:
            return restored
        base = _without_noise(crop, restored)
        residual = np.asarray(cv2.subtract(restored, base, dtype=cv2.CV_32F), np.float32)
        side = min(_GRID, crop.shape[0])
        look = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        old = self._memories.get(track_id)
        if old is None or now < old.time or old.residual.shape != residual.shape:
            self._memories[track_id] = _Memory(now, residual, look, np.ones((side, side), np.float32), 1.0)
            return restored
        same, noise = _sameness(look, old, now - old.time)
        most = 1 / (1 - np.exp(-max(now - old.time, 1e-3) / self.seconds)) - 1
        kept = same * np.minimum(old.count, most)
        weight = kept / (kept + 1)
        look += weight[..., None] * (old.look - look)
        full = cv2.resize(weight, crop.shape[:2], interpolation=cv2.INTER_LINEAR)
        residual += cv2.merge([full] * 3) * (old.residual - residual)
        self._memories[track_id] = _Memory(now, residual, look, kept + 1, noise)
        return np.asarray(cv2.add(base, residual, dtype=cv2.CV_8U), np.uint8)

    def forget(self, track_id: int) -> None:
        """Forget a track, known or not."""
        self._memories.pop(track_id, None)

    def reset(self) -> None:
        """Forget all tracks: a new scene."""
        self._memories.clear()

    def _drop(self, now: float) -> None:
        for track_id in [i for i, memory in self._memories.items() if abs(now - memory.time) > FORGET]:
            del self._memories[track_id]


def _without_noise(crop: Image, restored: Image) -> Float:
    """The crop, (S, S, 3) float32, blurred where the network took its finest detail for noise; exact where it did not.

    The noise is new in every picture: an average of restored - crop would put it back.
    """
    kept = cv2.merge([detail_gain(crop, restored) ** 4] * 3)
    blurred = cv2.GaussianBlur(crop, (0, 0), crop.shape[0] / BASE).astype(np.float32)
    return np.asarray(blurred + kept * (crop.astype(np.float32) - blurred), np.float32)


def _sameness(look: Float, old: _Memory, dt: float) -> tuple[NDArray[np.float32], float]:
    """Return (G, G), 1 where the crop looks as it did, 0 where it doesn't, and the noise level for the next time."""
    change = cv2.absdiff(look, old.look).max(-1)
    quiet = float(np.median(change))
    noise = old.noise + (1 - np.exp(-dt / 0.3)) * (min(quiet, 4.0) - old.noise)
    change = cv2.GaussianBlur(change, (0, 0), look.shape[0] / 64)
    excess = np.maximum(change - 1.5 * noise, 0) / (3 + 1.5 * noise)
    return np.exp(-(excess**2)), noise
