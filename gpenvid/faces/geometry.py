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

import numpy as np
from numpy.typing import NDArray

from gpenvid.types import Face

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

CHANNELS = 7

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

_ANALYSIS = np.ascontiguousarray(BASIS.conj().T)


def encode(boxes: Real, landmarks: Complex) -> Complex:
    """Return the channels (N, 7) of boxes (N, 4) and landmarks (N, 5)."""
    a = landmarks @ _ANALYSIS
    c, b = a[:, 0] / 5**0.5, a[:, 1]
    b[np.abs(b) < 1e-3] = 1e-3
    low, high = boxes[:, :2], boxes[:, 2:]
    sides = np.log(np.maximum(high - low, 1e-3))
    middle = (low + high).view(np.complex128)[:, 0] / 2
    out = np.empty((len(boxes), CHANNELS), np.complex128)
    out[:, 0] = c
    out[:, 1] = np.log(b)
    out[:, 2:5] = a[:, 2:]
    out[:, 5] = middle - c
    out[:, 2:6] /= b[:, None]
    out[:, 6] = sides.view(np.complex128)[:, 0] - (1 + 1j) * out[:, 1].real
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


def looks(channels: Complex) -> Real:
    """What tells faces apart in channels (..., C): log size and shape, (..., 7) real."""
    return np.concatenate([channels[..., 1:2].real, channels[..., 2:5].real, channels[..., 2:5].imag], -1)


@dataclass(frozen=True, slots=True)
class Sighting:
    """The detections of one picture as arrays."""

    boxes: Real  # (N, 4)
    landmarks: Complex  # (N, 5)
    scores: Real  # (N,)
    channels: Complex  # (N, 7)

    @classmethod
    def of(cls, faces: Sequence[Face]) -> Sighting:
        """Gather detections, of which there may be none."""
        nothing = np.zeros(0, np.float32)
        boxes = np.concatenate([face.box for face in faces] or [nothing], dtype=np.float64).reshape(-1, 4)
        points = np.concatenate([face.landmarks.ravel() for face in faces] or [nothing], dtype=np.float64)
        landmarks = points.view(np.complex128).reshape(-1, 5)
        scores = np.array([face.score for face in faces], np.float64)
        return cls(boxes, landmarks, scores, encode(boxes, landmarks))

    def __len__(self) -> int:
        return len(self.scores)


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
