"""A face as seven complex channels: where it is, how large and turned, what shape, and its box.

The five landmarks, as complex numbers z, are the unitary transform of (mean, similarity to a template, 3 shape modes):

    z = c + b (t + sum_m u_m e_m),   t the template, centred and of norm 1, e_m orthonormal and orthogonal to t

Channels: 0 the centre c (pixels); 1 log b (log of the spread |b| in pixels, and the roll in radians); 2-4 the shape u;
5 the box's centre relative to the face, (box centre - c) / b; 6 log(width / |b|) + i log(height / |b|).
Noise of equal size on all landmarks becomes equal, independent noise on the channels 0 to 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpenvid.native import compiled, median_of_few
from gpenvid.types import Face

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.intp]
Flags = NDArray[np.bool_]
Floats = TypeVar("Floats", NDArray[np.float32], NDArray[np.float64])

CHANNELS = 7

PIXELS, SPREAD = 0.6, 0.012
"""How far off a detected landmark usually is, as a standard deviation: in pixels, and in |b| beside that."""

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


@compiled
def _encode(box: Real, landmarks: Complex, z: Complex) -> None:
    for i in range(5):
        z[i] = 0
        for j in range(5):
            z[i] += _ANALYSIS[j, i] * landmarks[j]
    b = z[1] if abs(z[1]) >= 1e-3 else 1e-3 + 0j
    z[1] = np.log(b)
    z[5] = 0.5 * complex(box[0] + box[2], box[1] + box[3]) - z[0]
    for i in range(2, 6):
        z[i] /= b
    width, height = max(box[2] - box[0], 1e-3), max(box[3] - box[1], 1e-3)
    z[6] = complex(np.log(width) - z[1].real, np.log(height) - z[1].real)


@compiled
def encode(boxes: Real, landmarks: Complex) -> Complex:
    """Return the channels (N, 7) of boxes (N, 4) and landmarks (N, 5)."""
    channels = np.empty((len(boxes), CHANNELS), np.complex128)
    for n in range(len(boxes)):
        _encode(boxes[n], landmarks[n], channels[n])
    return channels


@compiled
def decode(channels: Complex) -> tuple[Real, Complex]:
    """Return boxes (N, 4) and landmarks (N, 5) of channels (N, 7)."""
    boxes, landmarks = np.empty((len(channels), 4)), np.empty((len(channels), 5), np.complex128)
    for n in range(len(channels)):
        z = channels[n]
        b, unit = np.exp(z[1]), np.exp(z[1].real)
        for j in range(5):
            landmarks[n, j] = z[0] + b * (BASIS[1, j] + z[2] * BASIS[2, j] + z[3] * BASIS[3, j] + z[4] * BASIS[4, j])
        middle = z[0] + b * z[5]
        x, y = 0.5 * unit * np.exp(z[6].real), 0.5 * unit * np.exp(z[6].imag)
        boxes[n, 0], boxes[n, 1] = middle.real - x, middle.imag - y
        boxes[n, 2], boxes[n, 3] = middle.real + x, middle.imag + y
    return boxes, landmarks


@compiled
def drawn(channels: Complex) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return boxes (N, 4) and landmarks (N, 5, 2) of channels (N, 7)."""
    boxes, points = decode(channels)
    landmarks = np.empty((len(points), 5, 2), np.float32)
    for n in range(len(points)):
        for j in range(5):
            landmarks[n, j, 0], landmarks[n, j, 1] = points[n, j].real, points[n, j].imag
    return boxes.astype(np.float32), landmarks


SIGHTING = np.dtype(
    [
        ("score", np.float64),
        ("box", np.float64, 4),
        ("landmarks", np.complex128, 5),
        ("channels", np.complex128, CHANNELS),
        ("looks", np.float64, 7),  # what tells faces apart: log size and shape
        ("size", np.float64),  # of the box: the geometric mean of its sides, in pixels
    ]
)
"""A detection."""

Sightings = NDArray[np.void]
"""(N,) of dtype SIGHTING: the detections of one picture."""


def sight(faces: Sequence[Face]) -> Sightings:
    """Gather the detections of a picture, of which there may be none."""
    seen: Sightings = np.empty(len(faces), SIGHTING)
    if len(faces):
        parts = [part for face in faces for part in (face.box, face.landmarks)]
        seen["score"] = [face.score for face in faces]
        _describe(seen, np.concatenate(parts, axis=None, dtype=np.float64).reshape(-1, 14))
    return seen


@compiled
def _describe(seen: Any, rows: Real) -> None:
    """Fill in detections, scores apart, from rows (N, 14) of a box and five landmarks, x and y."""
    for n in range(len(rows)):
        one, row, z = seen[n], rows[n], seen[n].channels
        for i in range(4):
            one.box[i] = row[i]
        for i in range(5):
            one.landmarks[i] = complex(row[4 + 2 * i], row[5 + 2 * i])
        _encode(one.box, one.landmarks, z)
        one.looks[0] = z[1].real
        for i in range(3):
            one.looks[1 + 2 * i], one.looks[2 + 2 * i] = z[2 + i].real, z[2 + i].imag
        one.size = np.exp(z[1].real + 0.5 * (z[6].real + z[6].imag))


def longer(records: NDArray[np.void], more: int) -> NDArray[np.void]:
    """Records (n,), and `more` after them that are zero: numpy's `concatenate` takes twenty times as long."""
    longer: NDArray[np.void] = np.zeros(len(records) + more, records.dtype)
    longer[: len(records)] = records
    return longer


def median(x: Floats) -> Floats:
    """The median over the first axis, as numpy's, which takes five times as long."""
    x = np.sort(x, axis=0)
    middle: Floats = (x[(len(x) - 1) // 2] + x[len(x) // 2]) / 2
    return middle


@compiled
def robust(predicted: Complex, measured: Complex, sigma: float) -> tuple[Complex, float]:
    """Replace the gross outliers among measured landmarks (5,) by what the predicted face, moved, would show.

    The face is moved by the similarity that most of its landmarks agree on (iteratively reweighted least squares,
    Geman-McClure weights, from the median displacement). Returns the landmarks and the share of them that was believed.
    """
    points, fit, weight, believed = np.empty(5, np.complex128), np.empty(5, np.complex128), np.empty(5), 0
    away = complex(median_of_few(measured.real - predicted.real), median_of_few(measured.imag - predicted.imag))
    for i in range(5):
        fit[i] = predicted[i] + away
    for scale in (6.0, 4.0, 3.0, 3.0):
        total, p, m, turned, length = 0.0, 0j, 0j, 0j, 0.0
        for i in range(5):
            weight[i] = 1 / (1 + (abs(measured[i] - fit[i]) / (scale * sigma)) ** 2) ** 2
            total += weight[i]
        if total < 1e-6:
            break
        for i in range(5):
            p += weight[i] / total * predicted[i]
            m += weight[i] / total * measured[i]
        for i in range(5):
            arm = predicted[i] - p
            turned += weight[i] * arm.conjugate() * (measured[i] - m)
            length += weight[i] * (arm.real**2 + arm.imag**2)
        for i in range(5):
            fit[i] = m + turned / length * (predicted[i] - p)
    for i in range(5):
        sure = abs(measured[i] - fit[i]) < 5 * sigma
        believed += sure
        points[i] = measured[i] if sure else fit[i]
    return points, believed / 5
