"""Measures of pictures and of motion, as the literature defines them.

Pictures are (H, W, 3) or (H, W), clips (T, H, W, 3) or (T, H, W), of any real type; `peak` is the largest value a pixel
may take. Figures are averages over all pixels and channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Real = NDArray[np.float64]


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[Real, Real]:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"shapes differ: {x.shape} and {y.shape}")
    return x, y


def psnr(a: ArrayLike, b: ArrayLike, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures. Raises ValueError if shapes differ."""
    x, y = _pair(a, b)
    mse = float(np.mean((x - y) ** 2))
    return float("inf") if mse == 0 else 10 * float(np.log10(peak**2 / mse))


def ssim(a: ArrayLike, b: ArrayLike, peak: float = 255.0) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of sigma 1.5, 11 x 11, K1 0.01, K2 0.03; 1 if equal.

    Averaged over channels and over the pixels whose window lies inside. Raises ValueError if shapes differ or a side is
    under 11 pixels.
    """
    x, y = _pair(a, b)
    if min(x.shape[:2]) < 11:
        raise ValueError(f"ssim needs pictures of at least 11 x 11, got {x.shape[:2]}")

    def local(image: Real) -> Real:
        return np.asarray(cv2.GaussianBlur(image, (11, 11), 1.5), np.float64)[5:-5, 5:-5]

    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx * mx, local(y * y) - my * my, local(x * y) - mx * my
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def gmsd(a: ArrayLike, b: ArrayLike, peak: float = 255.0) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2014) of luma; 0 if equal, larger is worse.

    Prewitt gradients after 2 x 2 averaging, c = 170 at a peak of 255. Raises ValueError if shapes differ.
    """
    x, y = (_luma(image) for image in _pair(a, b))
    gradients = []
    for image in (x, y):
        h, w = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        half = image[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3))
        kernel = np.outer(np.ones(3), [1.0, 0, -1]) / 3
        gx, gy = cv2.filter2D(half, cv2.CV_64F, kernel), cv2.filter2D(half, cv2.CV_64F, kernel.T)
        gradients.append(np.sqrt(gx**2 + gy**2))
    c = 170 * (peak / 255) ** 2
    similarity = (2 * gradients[0] * gradients[1] + c) / (gradients[0] ** 2 + gradients[1] ** 2 + c)
    return float(similarity.std())


def _luma(image: Real) -> Real:
    return image @ np.array([0.299, 0.587, 0.114]) if image.ndim == 3 else image


def gradient_energy_ratio(image: ArrayLike, reference: ArrayLike) -> float:
    """Energy of the image's finite differences over that of the reference's: under 1 is softer, over 1 is sharper.

    Raises ValueError if shapes differ or the reference is flat.
    """
    energies = [sum(float(np.sum(np.diff(x, axis=axis) ** 2)) for axis in (0, 1)) for x in _pair(image, reference)]
    if energies[1] == 0:
        raise ValueError("the reference is flat")
    return energies[0] / energies[1]


def e_warp(clip: ArrayLike, flows: ArrayLike, masks: ArrayLike | None = None) -> float:
    """Warping error with known flow (Lai et al. 2018): mean squared difference of each picture from the one before.

    clip: (T, H, W[, 3]); flows: (T - 1, H, W, 2) backward flow in pixels, so that pixel p of picture t shows what pixel
    p + flows[t - 1][p] = (x, y) showed in picture t - 1; masks: (T - 1, H, W), 0 where it was hidden. Pixels that come
    from outside don't count. Bilinear sampling. Values are in the clip's own unit squared.
    """
    pictures = np.asarray(clip, np.float32)
    height, width = pictures.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    total, count = 0.0, 0.0
    for t, flow in enumerate(np.asarray(flows, np.float32)):
        where = grid + flow
        x, y = where[..., 0], where[..., 1]
        before = cv2.remap(pictures[t], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        square = (pictures[t + 1].astype(np.float64) - before) ** 2
        inside = ((where >= 0) & (where <= [width - 1, height - 1])).all(-1).astype(np.float64)
        if masks is not None:
            inside *= np.asarray(masks)[t]
        total += float((square.reshape(height, width, -1).mean(-1) * inside).sum())
        count += float(inside.sum())
    return total / count if count else 0.0


def frame_difference_mse(clip: ArrayLike, reference: ArrayLike) -> float:
    """Mean squared difference of the two clips' frame differences: flicker that the reference doesn't have."""
    x, y = _pair(clip, reference)
    return float(np.mean((np.diff(x, axis=0) - np.diff(y, axis=0)) ** 2))


def temporal_std(clip: ArrayLike) -> float:
    """Standard deviation over time, averaged over pixels: the flicker of a clip in which nothing moves."""
    return float(np.asarray(clip, np.float64).std(0).mean())


def position_error(points: ArrayLike, truth: ArrayLike) -> float:
    """Root mean square error per coordinate of points (T, ..., 2) in pixels; NaN rows don't count."""
    x, y = _pair(points, truth)
    return float(np.sqrt(np.nanmean((x - y) ** 2)))


def acceleration_error(points: ArrayLike, truth: ArrayLike) -> float:
    """Root mean square error per coordinate of the second differences of points (T, ..., 2), in pixels per frame^2.

    The root mean square form of the measure used for human motion (Kanazawa et al. 2019). Triples with a NaN don't
    count.
    """
    x, y = _pair(points, truth)
    return float(np.sqrt(np.nanmean(np.diff(x - y, n=2, axis=0) ** 2)))


def peak_error(points: ArrayLike, truth: ArrayLike) -> float:
    """Largest distance of a point from its truth, both (T, ..., 2), in pixels; NaN rows don't count."""
    x, y = _pair(points, truth)
    return float(np.nanmax(np.sqrt(((x - y) ** 2).sum(-1))))


def jitter(points: ArrayLike) -> float:
    """Root mean square second difference per coordinate of points (T, ..., 2) in pixels per frame^2."""
    return float(np.sqrt(np.nanmean(np.diff(np.asarray(points, np.float64), n=2, axis=0) ** 2)))


def average(measure: Callable[[ArrayLike, ArrayLike], float], a: Sequence[ArrayLike], b: Sequence[ArrayLike]) -> float:
    """Return the mean of a measure over pairs of pictures. Raises ValueError if the sequences differ in length."""
    return float(np.mean([measure(x, y) for x, y in zip(a, b, strict=True)]))
