"""Scene cuts, found in a small copy of each picture, within the picture that starts the new scene."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from gpenvid.types import Float, Image

_WIDTH, _HEIGHT = 64, 48


class SceneDetector:
    """Says of each picture whether it starts a new scene.

    Two pictures are of one scene if their structure agrees (the structure term of SSIM, Wang et al. 2004, which a change
    of light leaves alone) once the camera's shift is undone, or if their colours do. A cut must also stand out from
    what the last half second looked like: a shaking camera or a dissolve changes a little in every picture. A picture
    without structure (a white flash, a black frame) says nothing: the next one is compared with the one before it.
    """

    def __init__(self, sensitivity: float = 50.0) -> None:
        """sensitivity: 0 (finds no cuts) to 100 (finds too many). Raises ValueError outside."""
        if not 0 <= sensitivity <= 100:
            raise ValueError(f"sensitivity must be 0 to 100, got {sensitivity}")
        self.threshold = 0.95 - 0.007 * sensitivity
        self._gray: Float | None = None
        self._colours: Float | None = None
        self._usual = 0.0
        self._time = 0.0

    def reset(self) -> None:
        """Forget what was seen: the next picture starts a scene, and is not reported as a cut."""
        self._gray = self._colours = None
        self._usual = 0.0

    def update(self, image: Image, time: float | Fraction) -> bool:
        """Take in a small RGB copy (H, W, 3) of the next picture and its time in seconds; return whether it is a cut."""
        small = cv2.resize(image, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
        gray = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
        now = float(time)
        dt, self._time = min(max(now - self._time, 0.0), 0.5), now
        if gray.std() < 6:
            return False
        colours = _colours(small)
        before, colours_before = self._gray, self._colours
        self._gray, self._colours = gray, colours
        if before is None or colours_before is None:
            return False
        change = 1 - max(_structure(before, gray), _structure(*_shifted(before, gray)))
        faded = 1 - float(np.minimum(colours, colours_before).sum())
        score = change * min(1.0, 0.6 + faded)
        cut = score > self.threshold and score > 0.25 + 2 * self._usual
        if cut:
            self._usual = 0.0
        else:
            self._usual += (1 - np.exp(-dt / 0.3)) * (score - self._usual)
        return bool(cut)


def _colours(small: Image) -> Float:
    """The histogram of a picture's colours, 4 x 4 x 4 bins, of sum 1, after an overall change of light is undone."""
    bright = small.astype(np.float32)
    bright *= 110 / max(float(bright.mean()), 1.0)
    histogram = cv2.calcHist([bright], [0, 1, 2], None, [4, 4, 4], [0, 256] * 3)
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
    (dx, dy), _ = cv2.phaseCorrelate(a - a.mean(), b - b.mean(), _window())
    x, y = round(dx), round(dy)
    if abs(x) > _WIDTH // 2 or abs(y) > _HEIGHT // 2:
        return a, b
    rows_a, rows_b = slice(max(-y, 0), _HEIGHT - max(y, 0)), slice(max(y, 0), _HEIGHT - max(-y, 0))
    cols_a, cols_b = slice(max(-x, 0), _WIDTH - max(x, 0)), slice(max(x, 0), _WIDTH - max(-x, 0))
    return np.ascontiguousarray(a[rows_a, cols_a]), np.ascontiguousarray(b[rows_b, cols_b])


def _window() -> NDArray[np.float32]:
    return cv2.createHanningWindow((_WIDTH, _HEIGHT), cv2.CV_32F)
