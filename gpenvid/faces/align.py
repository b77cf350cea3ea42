"""Geometry of an aligned face: where it lies, how it is cut out, and how the restored one is put back.

A matrix here is (2, 3) float64 and maps picture (or region) pixels to crop pixels, both with their origin in the
centre of the top left pixel. It is a similarity for square pixels; crop and paste take any invertible affine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gpenvid.faces.geometry import median
from gpenvid.types import Float, Image

Matrix = NDArray[np.float64]
Picture = NDArray[Any]
"""(h, w) or (h, w, C), uint8, uint16 or float32."""

TEMPLATE_SIZE = 512
TEMPLATE: Float = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ],
    np.float32,
)
"""FFHQ: left eye, right eye, nose, left and right mouth corner in a 512-pixel crop, as facexlib has them."""

TEMPLATE_GPEN: Float = np.array(
    [
        [202.0407, 242.8840],
        [309.4302, 242.2900],
        [256.0768, 303.9592],
        [211.9598, 366.8282],
        [300.8911, 366.3363],
    ],
    np.float32,
)
"""The same points in the crops of GPEN's own demo (inner padding 0.25), which show a little more around the face."""

BORDER = 26 / 512
"""The share of a crop along each edge that is never pasted, as in GPEN's demo."""

CLEAN, NOISY = 1.5, 4.0
"""Noise of a crop's finest band in codes (standard deviation): up to CLEAN all its detail counts as detail."""

REPLACE_BELOW = 0.7
"""Region pixels per crop pixel up to which a restored face replaces the region altogether."""


def fit_similarity(
    landmarks: NDArray[np.floating], size: int, *, template: Float = TEMPLATE, pixel_aspect: float = 1.0
) -> Matrix:
    """Fit the map that brings five landmarks closest to the template, in least squares over crop pixels.

    landmarks: (5, 2) picture pixels; size: side of the crop; template: (5, 2) at 512 pixels; pixel_aspect: width over
    height of a picture's pixel, so that a face is round in the crop. Returns (2, 3) picture px -> crop px: a rotation,
    uniform scale and shift (after the pixel aspect), never a mirror image. The closed form is Umeyama's (1991) in the
    plane, where it is one complex regression. Raises ValueError if the points coincide or aren't finite.
    """
    points = np.asarray(landmarks, np.float64) * (pixel_aspect, 1.0)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks must be 5 finite points, got {np.asarray(landmarks).tolist()}")
    target = (np.asarray(template, np.float64) + 0.5) * (size / TEMPLATE_SIZE) - 0.5
    z, w = points @ (1, 1j), target @ (1, 1j)
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    turn = np.vdot(centred, w - w.mean()) / max(spread, 1e-300)
    if spread < 1e-6 or abs(turn) < 1e-6:
        raise ValueError(f"landmarks fit no template: {np.asarray(landmarks).tolist()}")
    shift = w.mean() - turn * z.mean()
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    matrix[:, 0] *= pixel_aspect
    return matrix


def crop_bounds(matrix: Matrix, size: int, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Bound the part of a width x height picture that a crop needs: x0, y0, x1, y1, the last two exclusive.

    Includes what the filters of crop and paste reach beyond the crop's edge. None if the crop lies outside.
    """
    x0, y0, x1, y1 = _preimage(matrix, -0.5, -0.5, size - 0.5, size - 0.5)
    margin_x, margin_y = 3.0 * np.maximum(footprint(inverted(matrix)), 1.0)
    if x1 < -0.5 or y1 < -0.5 or x0 > width - 0.5 or y0 > height - 0.5:
        return None
    return (
        max(0, int(np.floor(x0 - margin_x))),
        max(0, int(np.floor(y0 - margin_y))),
        min(width, int(np.ceil(x1 + margin_x)) + 1),
        min(height, int(np.ceil(y1 + margin_y)) + 1),
    )


def localize(matrix: Matrix, x0: float, y0: float) -> Matrix:
    """Turn picture px -> crop px into region px -> crop px, for a region whose first pixel is picture pixel x0, y0."""
    local = np.array(matrix, np.float64)
    local[:, 2] += local[:, :2] @ (x0, y0)
    return local


def crop(region: Image, matrix: Matrix, size: int) -> Image:
    """Cut the aligned face out of a region: (h, w, 3) uint8 -> (size, size, 3) uint8; see `sample`."""
    return to_codes(sample(region, matrix, size))


def sample(values: Picture, matrix: Matrix, size: int) -> Float:
    """Sample an aligned face in a picture, a part or a plane of it: (h, w[, C]) -> (size, size[, C]) float32.

    matrix: px of `values` -> crop px. Band-limited before it is reduced, cubic where it is enlarged; beyond the values,
    which should end only where the picture ends or the crop has no need of it, they are mirrored.
    """
    return _resample(values, matrix, (size, size), cv2.BORDER_REFLECT_101, smooth=True)


def to_codes(values: Float) -> Image:
    """Round and clip to uint8."""
    return np.asarray(cv2.addWeighted(values, 1, values, 0, 0, dtype=cv2.CV_8U), np.uint8)


@lru_cache(maxsize=16)
def feather(size: int, *, border: float = BORDER, softness: float = 0.15, power: float = 4.0) -> Float:
    """Make the soft mask of a face in crop space: (size, size) float32 in [0, 1], read-only.

    A superellipse of exponent `power` that touches the inner edge of `border` (share of the side along each edge,
    where the mask is exactly 0) and rises to 1 over `softness` of its radius, with two continuous derivatives.
    """
    axis = np.abs((np.arange(size) + 0.5) / size * 2 - 1) / (1 - 2 * border)
    radius = (axis[:, None] ** power + axis[None, :] ** power) ** (1 / power)
    t = np.clip((1 - radius) / softness, 0, 1)
    mask: Float = (t**3 * (t * (t * 6 - 15) + 10)).astype(np.float32)
    mask.setflags(write=False)
    return mask


def difference(crop_in: Image, restored: Image, mask: Float, matrix: Matrix) -> tuple[Float, Float]:
    """Say what makes a picture show the restored face: what to add, (S, S, 3) float32, and how much to take away first.

    crop_in: (S, S, 3) uint8, the crop as the network saw it; restored: the network's answer; mask: (S, S) in [0, 1];
    matrix: picture px -> crop px. The second, (S, S) float32 in [0, 1], is the share of the picture that is replaced.

    Where the face is smaller than the model, the restored face replaces the picture. Where it is larger, the difference
    restored - crop_in is added, and the band above the model's resolution stays the picture's own, as far as the
    network let the finest band that it can see pass (`passed`): detail of a sharp face stays, noise goes, and an
    unchanged crop changes nothing. Between REPLACE_BELOW and 1 picture pixel per crop pixel one turns smoothly into the
    other.
    """
    large = detail_kept(matrix)
    kept = large * passed(crop_in, restored) if large else np.zeros_like(mask)
    change = cv2.subtract(restored, cv2.multiply(crop_in, cv2.merge([kept] * 3), dtype=cv2.CV_32F), dtype=cv2.CV_32F)
    return np.asarray(cv2.multiply(change, cv2.merge([mask] * 3)), np.float32), mask * (1 - kept)


def spread(change: Float, replaced: Float, values: Picture, matrix: Matrix) -> Float:
    """Bring a `difference` to the picture that it is for: what to add to it, (h, w[, C]) float32.

    change: (S, S[, C]), in the unit of `values`; replaced: (S, S); values: (h, w[, C]), a picture, a part or a plane of
    it, in which 0 is nothing; matrix: px of `values` -> crop px. Reduced without aliasing; exactly zero where both are,
    give or take four pixels of the coarser grid.
    """
    shape = (values.shape[1], values.shape[0])
    back = inverted(matrix)
    delta = _resample(change, back, shape, cv2.BORDER_CONSTANT)
    if replaced.any():
        weight = _resample(replaced, back, shape, cv2.BORDER_CONSTANT)
        if values.ndim == 3:
            weight = np.asarray(cv2.merge([weight] * values.shape[2]), np.float32)
        delta -= np.asarray(cv2.multiply(weight, values, dtype=cv2.CV_32F))
    return delta


def spread_bounds(mask: Float, matrix: Matrix, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Bound the pixels of a width x height picture at which the mask (S, S), once spread, isn't zero.

    matrix: picture px -> crop px. x0, y0, x1, y1, the last two exclusive; None if there are none.
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    reach = 2 + 3 * max(1.0, float(footprint(matrix).max()))
    x0, y0, x1, y1 = _preimage(matrix, columns[0] - reach, rows[0] - reach, columns[-1] + reach, rows[-1] + reach)
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(width, int(np.ceil(x1)) + 1), min(height, int(np.ceil(y1)) + 1)
    return (left, top, right, bottom) if right > left and bottom > top else None


def passed(crop_in: Image, restored: Image) -> Float:
    """Say how much of the detail above the model's resolution should stay: (S, S) float32 in [0, 1], smooth.

    crop_in, restored: (S, S, 3) uint8. For a clean crop 1. The noisier the crop (by the median deviation of its finest
    band, between CLEAN and NOISY), the more it is the local regression of the restored face's finest band on the
    crop's, the gain of a Wiener filter: 1 where the network left or strengthened what it saw, near 0 where it took it
    for noise. Exactly 1 where the network changed nothing.
    """
    seen = _finest(crop_in)
    noise = float(median(np.abs(seen).ravel())) / 0.6745
    noisy = min(max((noise - CLEAN) / (NOISY - CLEAN), 0.0), 1.0)
    if noisy == 0:
        return np.ones_like(seen)
    gain = _detail_gain(seen, _finest(restored))
    return np.asarray(1 - noisy * (1 - gain), np.float32)


def _detail_gain(seen: Float, shown: Float) -> Float:
    """Regress the restored face's finest band on the crop's, locally: (S, S) float32 in [0, 1], smooth.

    1 where the network left or strengthened detail (exactly 1 where it changed nothing), near 0 where it took what it
    saw for noise, as the gain of a Wiener filter.
    """
    reach = seen.shape[0] / 40
    both, own = (cv2.GaussianBlur(cv2.multiply(seen, other), (0, 0), reach) for other in (shown, seen))
    both += 1
    own += 1
    return np.asarray(np.clip(cv2.divide(both, own), 0, 1), np.float32)


def _finest(face: Image) -> Float:
    """The upper half of the band of an RGB face's luma, (S, S) float32."""
    gray = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(gray - cv2.GaussianBlur(gray, (0, 0), 1.0))


def detail_kept(matrix: Matrix) -> float:
    """Say how much of the band above the model's resolution a paste keeps: 0 for a small face, 1 for a large one."""
    scale = float(footprint(inverted(matrix)).max())
    t = min(max((scale - REPLACE_BELOW) / (1 - REPLACE_BELOW), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def inverted(matrix: Matrix) -> Matrix:
    """The inverse of a (2, 3) affine map."""
    (a, b, x), (c, d, y) = matrix.tolist()
    det = a * d - b * c
    inverse: Matrix = np.array([[d, -b, b * y - d * x], [-c, a, c * x - a * y]]) / det
    return inverse


def footprint(matrix: Matrix) -> NDArray[np.float64]:
    """Give the extent (x, y), in destination px, of a round source pixel of diameter 1."""
    return np.asarray(np.sqrt((matrix[:, :2] ** 2).sum(axis=1)))


def _preimage(matrix: Matrix, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
    """Bound, in region px, the rectangle of crop px."""
    corners = np.array([[x0, x1, x0, x1], [y0, y0, y1, y1], [1, 1, 1, 1]], np.float64)
    low, high = (points := inverted(matrix) @ corners).min(axis=1), points.max(axis=1)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _resample(image: Picture, matrix: Matrix, shape: tuple[int, int], border: int, *, smooth: bool = False) -> Float:
    """Warp by matrix (source px -> destination px) to shape (width, height), float32, no aliasing where it is reduced.

    A filter in the source does what the warp, which is linear and so fast, leaves to be done: the low-pass of a
    reduction, and the sharpening that makes up for the warp's own loss. What is enlarged more than twice, and with
    `smooth` all but a clear reduction, is first enlarged twofold by a cubic, so that no facets show.
    """
    inverse = inverted(matrix)
    scale = footprint(inverse)
    lift = 0.0
    while scale.min() >= 4 and min(image.shape[:2]) > 4:
        image = np.asarray(cv2.pyrDown(image, borderType=cv2.BORDER_REFLECT_101))
        inverse, scale, lift = inverse / 2, scale / 2, lift / 4 + 1 / 8
    factor = 2 if scale.max() < (1.5 if smooth else 0.5) else 1
    lift += 1 / (12 * factor**2)
    across, down = (taps(max(round(float(each), 3), 1.0), lift) for each in scale)
    image = np.asarray(cv2.sepFilter2D(image, cv2.CV_32F, across, down, borderType=cv2.BORDER_REFLECT_101))
    if factor == 2:
        image = np.asarray(cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
        inverse = inverse * 2
        inverse[:, 2] += 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # Two channels at once take OpenCV five times as long, and it places them on a grid of 1/32 px.
    parts = cv2.split(image) if image.ndim == 3 and image.shape[2] == 2 else [image]
    parts = [cv2.warpAffine(part, inverse, shape, flags=flags, borderMode=border) for part in parts]
    return np.asarray(cv2.merge(parts) if len(parts) > 1 else parts[0])


@lru_cache(maxsize=64)
def taps(scale: float, lift: float) -> Float:
    """Make the filter that goes before a linear warp, for `scale` >= 1 source px per destination px.

    Lanczos-3 stretched to keep what that many times fewer samples can carry (the identity at 1 or less), convolved
    with (-lift, 1 + 2 lift, -lift), whose response is about 1 + lift (2 pi f)^2. That undoes, to second order, a linear
    interpolation between samples 1 / n apart, sinc(f / n)^2, with a lift of 1 / (12 n^2), and the halving of the
    samples by pyrDown, cos(pi f / 2)^4, with 1 / 8.
    """
    reach = int(np.ceil(3 * scale)) - 1 if scale > 1 else 0
    x = np.arange(-reach, reach + 1) / scale
    lowpass = np.sinc(x) * np.sinc(x / 3)
    return np.asarray(np.convolve(lowpass / lowpass.sum(), (-lift, 1 + 2 * lift, -lift)), np.float32)
