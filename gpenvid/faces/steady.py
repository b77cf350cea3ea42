"""The flicker filter: what a face shows in detail may not change faster than the face does."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce

import cv2
import numpy as np
from numpy.typing import NDArray

from gpenvid.faces.geometry import median
from gpenvid.types import Float, Image

FORGET = 2.0
"""Seconds after which a track that wasn't seen is dropped."""

_GRID = 64
"""Change is judged on copies of this many pixels a side."""

_LIGHT = 8.0
"""Crop sides per standard deviation of the blur that leaves of a crop its light only, which is never averaged."""

_FLOW = 128
"""Motion is searched on copies of half of this many pixels a side, or of the crop's."""

_LEAST_SIDE = 32
"""In smaller crops no motion is searched."""

_STILL = 0.05
"""Pixels of motion that count as none: a copy in place stays sharp."""

_CARRIED = 0.8
"""What evidence is worth after it was moved: every interpolation costs some sharpness and place."""


_UNTOUCHED, _TOUCHED = 0.3, 1.0
"""RMS codes by which a network must change a face, lately, for its detail to be averaged at all, and fully."""


@dataclass(slots=True)
class _Memory:
    time: float
    gray: Image  # (F, F), the crop in which motion is searched
    detail: Float  # (S, S, 3), the filtered detail
    look: Float  # (G, G, 3), what the crop looked like to which the detail belongs, but for its light
    count: Float  # (G, G), how many pictures' worth of evidence the detail holds
    noise: float  # mean absolute change of a still pixel of `look`
    change: float  # RMS by which the network changed the crop, lately


class FlickerFilter:
    """Averages, per track and pixel, a restored face's detail over as long as the face stays the same.

    The detail is what is left of the restored crop without the *input's* light (its coarsest structure), so that a
    lamp, or the flicker of a film, passes as it is. It is carried along with the motion in the crops (optical flow by
    dense inverse search: Kroeger et al. 2016). Where the crop then still differs from what it was when the average was
    made, by more than its noise, the average is let go: lids, lips and a turning head show no ghosts. A face that the
    network left as it was stays as it was. Durations are seconds: the picture rate doesn't matter.
    """

    def __init__(self, stability: float = 50.0) -> None:
        """stability: 0 (no filter) to 100 (averages over 0.5 s). Raises ValueError outside."""
        if not 0 <= stability <= 100:
            raise ValueError(f"stability must be 0 to 100, got {stability}")
        self.seconds = 0.005 * stability
        self._memories: dict[int, _Memory] = {}
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._search.setFinestScale(0)  # the preset's 2 takes half a pixel for 0.58
        self._search.setVariationalRefinementIterations(2)  # the preset's 5 take longer and steady no better

    def update(self, track_id: int, time: float | Fraction, crop: Image, restored: Image) -> Image:
        """Return the restored crop with its flicker taken out.

        crop, restored: (S, S, 3) uint8, aligned alike. Calls of one track come in the order of time; one that goes
        back in time, or comes with another S, starts anew.
        """
        now = float(time)
        self._drop(now)
        if not self.seconds:
            return restored
        side = min(_GRID, crop.shape[0])
        look = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        light = cv2.GaussianBlur(look, (0, 0), side / _LIGHT)
        look -= light
        light = cv2.resize(light, crop.shape[:2], interpolation=cv2.INTER_LINEAR)
        detail = np.asarray(cv2.subtract(restored, light, dtype=cv2.CV_32F), np.float32)
        gray, change = _searchable(crop), _rms(crop, restored)
        old = self._memories.get(track_id)
        if old is None or now - old.time < 0 or old.detail.shape != detail.shape:
            self._memories[track_id] = _Memory(now, gray, detail, look, np.ones((side, side), np.float32), 1.0, change)
            return restored
        before, seen, count = self._carried(old, gray)
        same, noise = _sameness(look, seen, old.noise, now - old.time)
        most = 1 / (1 - np.exp(-max(now - old.time, 1e-3) / self.seconds)) - 1
        kept = same * np.minimum(count, most)
        change = old.change + _share(now - old.time) * (change - old.change)
        touched = min(max((change - _UNTOUCHED) / (_TOUCHED - _UNTOUCHED), 0.0), 1.0)
        weight = np.float32(touched) * kept / (kept + 1)
        look += weight[..., None] * (seen - look)
        full = cv2.resize(weight, crop.shape[:2], interpolation=cv2.INTER_LINEAR)
        detail += cv2.merge([full] * 3) * (before - detail)
        self._memories[track_id] = _Memory(now, gray, detail, look, kept + 1, noise, change)
        return np.asarray(cv2.add(light, detail, dtype=cv2.CV_8U), np.uint8)

    def forget(self, track_id: int) -> None:
        """Forget a track, known or not."""
        self._memories.pop(track_id, None)

    def reset(self) -> None:
        """Forget all tracks: a new scene."""
        self._memories.clear()

    def _drop(self, now: float) -> None:
        for track_id in [i for i, memory in self._memories.items() if abs(now - memory.time) > FORGET]:
            del self._memories[track_id]

    def _carried(self, old: _Memory, gray: Image) -> tuple[Float, Float, Float]:
        """Return what is remembered, detail, look and count, moved to where it is now."""
        if min(gray.shape) < _LEAST_SIDE:
            return old.detail, old.look, old.count
        found = self._search.calc(gray, old.gray, np.zeros((*gray.shape, 2), np.float32))
        flow = np.asarray(cv2.GaussianBlur(found, (0, 0), gray.shape[0] / 64), np.float32) / np.float32(gray.shape[0])
        reach = _most(np.abs(flow)) * np.float32(old.detail.shape[0])
        if reach.max() < _STILL / 2:
            return old.detail, old.look, old.count
        flow *= np.clip(reach / _STILL - 0.5, 0, 1)[..., None]
        count = _CARRIED * _moved(old.count, flow)
        return _moved(old.detail, flow), _moved(old.look, flow), np.asarray(count, np.float32)


def _share(dt: float) -> float:
    """What a new value counts that is learnt over 0.3 s."""
    return float(1 - np.exp(-dt / 0.3))


def _rms(crop: Image, restored: Image) -> float:
    """By how much a network changed a face; exactly 0 if it gave back what it got."""
    return float(cv2.norm(crop, restored, cv2.NORM_L2) / crop.size**0.5)


def _searchable(crop: Image) -> Image:
    """A gray copy without noise, of at most half of _FLOW pixels a side."""
    side = min(_FLOW, crop.shape[0])
    gray = cv2.cvtColor(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    gray = cv2.GaussianBlur(gray, (0, 0), side / 96)
    if side >= 2 * _LEAST_SIDE:
        gray = cv2.resize(gray, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(gray, np.uint8)


def _moved(values: Float, flow: Float) -> Float:
    """Fetch values (N, N) or RGB (N, N, 3) from where a backward flow (F, F, 2), in sides of the crop, says they were.

    Of RGB, green moves by a long kernel: OpenCV's cubic moves by a fifth more than it is told, its linear blurs. The
    long one takes six times as long as the cubic, which does for the little by which red and blue differ from green.
    Single values are moved linearly.
    """
    side = values.shape[0]
    where = cv2.resize(flow, (side, side), interpolation=cv2.INTER_LINEAR)
    x, y = cv2.split(np.asarray(where, np.float32) * np.float32(side) + _pixels(side))

    def fetched(plane: Float, method: int) -> Float:
        return np.asarray(cv2.remap(plane, x, y, method, borderMode=cv2.BORDER_REPLICATE), np.float32)

    if values.ndim == 2:
        return fetched(values, cv2.INTER_LINEAR)
    red, green, blue = np.moveaxis(values, 2, 0)
    redder, bluer = (fetched(each - green, cv2.INTER_CUBIC) for each in (red, blue))
    moved = fetched(green, cv2.INTER_LANCZOS4)
    return np.asarray(cv2.merge([moved + redder, moved, moved + bluer]), np.float32)


@lru_cache(maxsize=4)
def _pixels(side: int) -> Float:
    """The coordinates of pixels, (side, side, 2) x y."""
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).astype(np.float32)


def _most(values: Float) -> Float:
    """The largest of each pixel's channels, (N, N, C) to (N, N); numpy's own takes ten times as long."""
    return np.asarray(reduce(cv2.max, cv2.split(values)), np.float32)


def _sameness(look: Float, old: Float, usual: float, dt: float) -> tuple[NDArray[np.float32], float]:
    """Return (G, G), 1 where the crop looks as it did, 0 where it doesn't, and the noise level for the next time."""
    change = _most(np.asarray(cv2.absdiff(look, old)))
    quiet = float(median(change.ravel()))
    noise = usual + _share(dt) * (min(quiet, 4.0) - usual)
    change = np.asarray(cv2.GaussianBlur(change, (0, 0), look.shape[0] / 64), np.float32)
    excess = np.maximum(change - 1.5 * noise, 0) / (3 + 1.5 * noise)
    return np.exp(-(excess**2)), noise
