"""Which of the faces are restored, and how much of each: choices that fade, so that nothing pops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpenvid.native import compiled
from gpenvid.options import TrackerOptions

Real = NDArray[np.floating]

_RAMP = 0.2
"""A face at the limit of size is not shown, one this share inside it is shown fully."""

_SLOPE = 15.0
"""Degrees before the limit of turn at which a face begins to fade."""

_LOYALTY = 1.25
"""Another face must be so much larger, or nearer the centre, to be chosen in place of the one chosen before."""


def turn(landmarks: Real) -> Real:
    """Estimate by how many degrees faces are turned left or right, 0 to 180, from landmarks (..., 5, 2).

    A nose lies about half the eyes' distance before the plane of eyes and mouth: what it shows of that is the tangent.
    """
    faces = np.ascontiguousarray(landmarks, np.float32).reshape(-1, 5, 2)
    return np.array([_turn(face) for face in faces]).reshape(landmarks.shape[:-2])


@compiled
def _turn(face: NDArray[np.float32]) -> float:
    """As `turn`, of one face (5, 2)."""
    left, right = complex(face[0, 0], face[0, 1]), complex(face[1, 0], face[1, 1])
    eyes, nose = left + right, complex(face[2, 0], face[2, 1])
    mouth = complex(face[3, 0], face[3, 1]) + complex(face[4, 0], face[4, 1])
    back = 1j * (mouth - eyes).conjugate()  # turns what points across the face into the real axis
    aside, apart = ((4 * nose - eyes - mouth) * back).real, ((right - left) * back).real
    return float(np.degrees(np.arctan2(0.5 * abs(aside), apart)))


@compiled
def _weights(
    boxes: NDArray[np.float32], landmarks: NDArray[np.float32], max_turn: float, max_face: float
) -> NDArray[np.float64]:
    """As `Selection.gates`, (N,); max_face: 0 for none."""
    weights = np.empty(len(boxes))
    for n in range(len(boxes)):
        weights[n] = min(max((max_turn - _turn(landmarks[n])) / _SLOPE, 0.0), 1.0)
        if max_face:
            size = max(boxes[n, 2] - boxes[n, 0], boxes[n, 3] - boxes[n, 1], 1e-3)
            weights[n] = min(weights[n], max((max_face / size - 1) / _RAMP, 0.0))
    return weights


class Selection:
    """Weighs faces by the options: by size and turn, and by `--faces`, whose choice is not given up lightly."""

    def __init__(self, options: TrackerOptions) -> None:
        """Choose nobody yet."""
        self._options = options
        self._chosen = 0
        self._ids = {int(word) for word in options.faces.split(",")} if options.faces[:1].isdigit() else set()

    def gates(self, boxes: Real, landmarks: Real) -> Real:
        """Return weights (...), 0 to 1, of boxes (..., 4) and landmarks (..., 5, 2) by size and turn."""
        most, turn = float(self._options.max_face), float(self._options.max_turn)
        return _weights(boxes.reshape(-1, 4), landmarks.reshape(-1, 5, 2), turn, most).reshape(boxes.shape[:-1])

    def chosen(self, ids: Sequence[int], boxes: Real, picture: tuple[int, int] | None) -> list[bool]:
        """Return which of the faces of one picture are chosen: ids (N,), boxes (N, 4), the picture's width and height.

        Raises ValueError if the choice is by the centre, and the picture's size is not known.
        """
        which = self._options.faces
        if which == "all" or not len(ids):
            return [True] * len(ids)
        if self._ids:
            return [i in self._ids for i in ids]
        if which == "largest":
            demerit = -np.log(np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], 1), 1e-3)) / 2
        elif picture is None:
            raise ValueError("--faces center needs the picture's size")
        else:
            demerit = np.log(np.linalg.norm((boxes[:, :2] + boxes[:, 2:] - np.array(picture)) / 2, axis=1) + 1e-3)
        demerit = demerit - np.log(_LOYALTY) * np.equal(ids, self._chosen)
        self._chosen = ids[int(demerit.argmin())]
        return [i == self._chosen for i in ids]
