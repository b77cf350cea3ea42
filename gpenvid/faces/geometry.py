"""A face as seven complex channels: where it is, how large and turned, what shape, and its box.

The five landmarks, as complex numbers z, are the unitary transform of (mean, similarity to a template, 3 shape modes):

    z = c + b (t + sum_m u_m e_m),   t the template, centred and of norm 1, e_m orthonormal and orthogonal to t

Channels: 0 the centre c (pixels); 1 log b (log of the spread |b| in pixels, and the roll in radians); 2-4 the shape u;
5 the box's centre relative to the face, (box centre - c) / b; 6 log(width / |b|) + i log(height / |b|).
Noise of equal size on all landmarks becomes equal, independent noise on the channels 0 to 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gpenvid.types import Face

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Floats = TypeVar("Floats", NDArray[np.float32], NDArray[np.float64])

CHANNELS = 7

_LOOKS = np.array([2, 4, 5, 6, 7, 8, 9])  # of the real and imaginary parts: log size, shape

_TEMPLATE = np.array(
    [192.98 + 239.95j, 318.90 + 240.19j, 256.63 + 314.02j, 201.26 + 371.41j, 313.09 + 371.15j]
)  # the FFHQ template: any upright face would do


def _basis() -> Complex:
    """Rows: the mean, the template, three shape modes; orthonormal."""
    centred = _TEMPLATE - _TEMPLATE.mean()
    known = np.stack([np.ones(5), centred, [1, -1, 0, 1, -1], [1, 1, -4, 1, 1], [1, -1, 0, -1, 1]], 1)
    q, r = np.linalg.qr(known)
    phase = np.diag(r) / np.abs(np.diag(r))
    rows: Complex = (q * phase).T
    return rows


BASIS = _basis()
"""(5, 5) unitary; landmarks @ BASIS.conj().T are the coefficients."""

_ANALYSIS = np.ascontiguousarray(BASIS.conj().T) / np.array([5**0.5, 1, 1, 1, 1])


def encode(boxes: Real, landmarks: Complex) -> Complex:
    """Return the channels (N, 7) of boxes (N, 4), whose rows are contiguous, and landmarks (N, 5)."""
    corners = boxes.view(np.complex128)
    out = np.empty((len(boxes), CHANNELS), np.complex128)
    np.matmul(landmarks, _ANALYSIS, out=out[:, :5])
    b = out[:, 1:2].copy()
    b[np.abs(b) < 1e-3] = 1e-3
    out[:, 1:2] = np.log(b)
    sides = corners[:, 1] - corners[:, 0]
    out[:, 5] = corners[:, 0] + 0.5 * sides - out[:, 0]
    out[:, 2:6] /= b
    out[:, 6:].view(np.float64)[:] = np.log(np.maximum(sides[:, None].view(np.float64), 1e-3)) - out[:, 1:2].real
    return out


def decode(channels: Complex) -> tuple[Real, Complex]:
    """Return boxes (..., 4) and landmarks (..., 5) of channels (..., 7)."""
    c, b = channels[..., 0, None], np.exp(channels[..., 1, None])
    landmarks = c + b * (BASIS[1] + channels[..., 2:5] @ BASIS[2:])
    half = np.exp(channels[..., 6:7].real) + 1j * np.exp(channels[..., 6:7].imag)
    half *= np.abs(b) / 2
    middle = c + b * channels[..., 5:6]
    low, high = middle - half, middle + half
    return np.concatenate([low.real, low.imag, high.real, high.imag], -1), landmarks


def box_size(channels: Complex) -> Real:
    """The geometric mean of a box's sides in pixels, (...), of channels (..., 7)."""
    log_sides = channels[..., 6]
    size: Real = np.exp(channels[..., 1].real + 0.5 * (log_sides.real + log_sides.imag))
    return size


def looks(channels: Complex) -> Real:
    """What tells faces apart in channels (..., C): log size and shape, (..., 7) real."""
    return channels.view(np.float64).take(_LOOKS, -1)


@dataclass(frozen=True, slots=True)
class Sighting:
    """The detections of one picture as arrays."""

    boxes: Real  # (N, 4)
    landmarks: Complex  # (N, 5)
    scores: Real  # (N,)
    channels: Complex  # (N, 7)
    looks: Real  # (N, 7)
    sizes: Real  # (N,), of the boxes: the geometric means of their sides, in pixels

    @classmethod
    def of(cls, faces: Sequence[Face]) -> Sighting:
        """Gather detections, of which there may be none."""
        rows = [part.ravel() for face in faces for part in (face.box, face.landmarks)]
        values = np.concatenate(rows, dtype=np.float64).reshape(-1, 14) if rows else np.zeros((0, 14))
        boxes, landmarks = values[:, :4], values[:, 4:].view(np.complex128)
        scores = np.array([face.score for face in faces], np.float64)
        channels = encode(boxes, landmarks)
        return cls(boxes, landmarks, scores, channels, looks(channels), box_size(channels))

    def __len__(self) -> int:
        return len(self.scores)


def median(x: Floats) -> Floats:
    """The median over the first axis, as numpy's, which takes five times as long."""
    x = np.sort(x, axis=0)
    middle: Floats = (x[(len(x) - 1) // 2] + x[len(x) // 2]) / 2
    return middle


def robust(predicted: Complex, measured: Complex, sigma: float) -> tuple[Complex, float]:
    """Replace the gross outliers among measured landmarks (5,) by what the predicted face, moved, would show.

    The face is moved by the similarity that most of its landmarks agree on (iteratively reweighted least squares,
    Geman-McClure weights, from the median displacement). Returns the landmarks and the share of them that was believed.
    """
    shift = measured - predicted
    fit = predicted + np.median(shift.real) + 1j * np.median(shift.imag)
    weight = np.ones(5)
    for scale in (6.0, 4.0, 3.0, 3.0):
        weight = 1 / (1 + (np.abs(measured - fit) / (scale * sigma)) ** 2) ** 2
        total = weight.sum()
        if total < 1e-6:
            break
        p, m = (weight * predicted).sum() / total, (weight * measured).sum() / total
        turn = (weight * (predicted - p).conj() * (measured - m)).sum() / (weight * np.abs(predicted - p) ** 2).sum()
        fit = m + turn * (predicted - p)
    believed = np.abs(measured - fit) < 5 * sigma
    return np.where(believed, measured, fit), float(believed.mean())
