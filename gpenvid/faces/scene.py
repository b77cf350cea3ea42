"""Scene cuts, found in a small copy of each picture, within the picture that starts the new scene."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np

from gpenvid.types import Float, Image

LONGEST_GAP = 2.0
"""Seconds without a picture after which nothing that was seen before says where a face is now."""

_WIDTH, _HEIGHT = 64, 48
_TAPER = cv2.createHanningWindow((_WIDTH, _HEIGHT), cv2.CV_32F)


class SceneDetector:
    """Says of each picture whether it starts a new scene.

    Two pictures are of one scene if their structure agrees (the structure term of SSIM, Wang et al. 2004, which a
    change of light leaves alone), as they are or with the camera's shift undone, and rather if their colours do. A cut
    must also be sudden, and stand out from what the last third of a second was like: a dissolve or a shaking camera
    does neither. After a gap in time of LONGEST_GAP all is new. A picture without structure (a white flash, a black
    frame) says nothing: the next one is compared with the one before it.
    """

    def __init__(self, sensitivity: float = 50.0) -> None:
        """sensitivity: 0 (finds no cuts) to 100 (finds too many). Raises ValueError outside."""
        if not 0 <= sensitivity <= 100:
            raise ValueError(f"sensitivity must be 0 to 100, got {sensitivity}")
        self.threshold = 0.8 - 0.007 * sensitivity
        self._small: Image | None = None
        self._gray: Float | None = None
        self._usual = 0.0
        self._time = 0.0

    def reset(self) -> None:
        """Forget what was seen: the next picture starts a scene, and is not reported as a cut."""
        self._small = self._gray = None
        self._usual = 0.0

    def update(self, image: Image, time: float | Fraction) -> bool:
        """Take in a small RGB copy (H, W, 3) of the next picture and its time in seconds; say if it is a cut."""
        small = _shrunk(image)
        gray = _gray(small)
        now = float(time)
        gap = now - self._time > LONGEST_GAP and self._small is not None
        if gap:
            self.reset()
        dt, self._time = min(max(now - self._time, 0.0), 0.5), now
        if gray.std() < 6:
            return gap
        before, small_before = self._gray, self._small
        self._gray, self._small = gray, small
        if before is None or small_before is None:
            return gap
        score = _difference(before, gray, small_before, small)
        sudden = np.abs(gray - before).mean() > 0.15 * (gray.std() + before.std())
        if sudden and score > max(self.threshold, 0.25 + 2 * self._usual):
            self._usual = 0.0
            return True
        self._usual += -np.expm1(-dt / 0.3) * (score - self._usual)
        return False


def _difference(gray_a: Float, gray_b: Float, small_a: Image, small_b: Image) -> float:
    """How little two pictures have in common, 0 to about 1."""
    change = 1 - _structure(gray_a, gray_b)
    if change > 0.25:
        a, b = _shifted(gray_a, gray_b)
        change = min(change, 1 - _structure(a, b) * (a.size / gray_a.size) ** 0.5)
    if change > 0.25 and not 0.75 < gray_a.mean() / gray_b.mean() < 1.33:
        dark, bright = sorted((small_a, small_b), key=np.mean)
        change = min(change, 1 - _structure(_gray(_exposed(dark, bright)), _gray(bright)))
    if change > 0.25:
        change *= min(1.6 - float(np.minimum(_colours(small_a), _colours(small_b)).sum()), 1.0)
    return change


def _shrunk(image: Image) -> Image:
    """The mean colours of 64 x 48 areas. Halving first is four times as fast as OpenCV's way to an odd size."""
    while image.shape[0] >= 2 * _HEIGHT and image.shape[1] >= 2 * _WIDTH:
        image = np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(image, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


def _gray(small: Image) -> Float:
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(luma, (0, 0), 1.0), np.float32)


def _exposed(dark: Image, bright: Image) -> Image:
    """What the dark picture would be like in the light of the bright one, in which much may be white."""
    open_ = bright < 250
    gain = float(bright[open_].sum()) / max(float(dark[open_].sum()), 1.0)
    exposed: Image = np.minimum(dark * max(gain, 1.0), 255).astype(np.uint8)
    return exposed


def _colours(small: Image) -> Float:
    """The histogram of a picture's colours, 4 x 4 x 4 bins, of sum 1, after an overall change of light is undone."""
    bright = small.astype(np.float32)
    bright *= 110 / max(float(bright.mean()), 1.0)
    histogram = np.asarray(cv2.calcHist([bright], [0, 1, 2], None, [4, 4, 4], [0, 256] * 3), np.float32)
    return histogram / max(float(histogram.sum()), 1.0)


def _structure(a: Float, b: Float) -> float:
    """The structure term of SSIM, averaged over windows: 1 if only the light differs, about 0 for strangers."""
    size = (9, 9)
    ma, mb = cv2.blur(a, size), cv2.blur(b, size)
    va = np.maximum(cv2.blur(a * a, size) - ma * ma, 0)
    vb = np.maximum(cv2.blur(b * b, size) - mb * mb, 0)
    cov = cv2.blur(a * b, size) - ma * mb
    spread = np.sqrt(va * vb)
    weight = np.maximum(va, vb) + 1
    return float((weight * (cov + 4) / (spread + 4)).sum() / weight.sum())


def _shifted(a: Float, b: Float) -> tuple[Float, Float]:
    """The parts of two pictures that show the same when the camera's shift between them is undone."""
    (dx, dy), _ = cv2.phaseCorrelate(a - a.mean(), b - b.mean(), _TAPER)
    x, y = round(dx), round(dy)
    if abs(x) > _WIDTH // 2 or abs(y) > _HEIGHT // 2:
        return a, b
    rows_a, rows_b = slice(max(-y, 0), _HEIGHT - max(y, 0)), slice(max(y, 0), _HEIGHT - max(-y, 0))
    cols_a, cols_b = slice(max(-x, 0), _WIDTH - max(x, 0)), slice(max(x, 0), _WIDTH - max(-x, 0))
    return np.ascontiguousarray(a[rows_a, cols_a]), np.ascontiguousarray(b[rows_b, cols_b])
