"""A second look at a face that was found: close, upright, of one size, and in the mirror.

A network finds the points of a face best where the face is large and upright. So the part of the picture that holds it
is brought to that, whatever it was, and shown once more; and once more mirrored, because what the network gets wrong in
the same direction both times falls out of the mean. Whether it is a face at all is asked of the detector that found it;
where its points are, of a specialist if there is one, which has seen nothing but close-ups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from gpenvid.faces import align
from gpenvid.types import Face, Float, Image

SIDE, LENGTH = 192, 144
"""Pixels of a close-up's side, and of the longer side of the face's box in it."""

NEAR = 0.25
"""How far from the middle of a close-up a face may lie, in LENGTH, to be the one that is meant."""

SAY = 1.5
"""The most that the second look adds to the log odds of a face, or takes from them."""

SURE = 0.95
"""A face of this score or more is one, whatever a second look says."""

PADDING = (123, 117, 104)
"""What lies beyond the picture, in RGB: what the network is told is nothing."""

MIRROR = np.array([1, 0, 2, 4, 3])
"""Order of the five landmarks in a mirrored picture: left and right change places."""


class CloseUp(NamedTuple):
    """picture: (SIDE, SIDE, 3) uint8; matrix: (2, 3), from pixels of the whole picture to those of this one."""

    picture: Image
    matrix: align.Matrix


def close_up(picture: Image, face: Face) -> CloseUp:
    """Cut a face out of an RGB picture (H, W, 3) uint8, enlarged or reduced, and turned so that its eyes are level."""
    eyes = complex(*(face.landmarks[1] - face.landmarks[0]).tolist())
    scale = LENGTH / max(face.size, 1.0)
    turn = scale * (eyes.conjugate() / abs(eyes) if abs(eyes) > 1e-3 else 1)
    matrix = np.array([[turn.real, -turn.imag, 0.0], [turn.imag, turn.real, 0.0]])
    middle = (face.box[:2].astype(np.float64) + face.box[2:]) / 2
    matrix[:, 2] = (SIDE - 1) / 2 - matrix[:, :2] @ middle
    reach = int(np.ceil(0.75 * SIDE / scale)) + 4
    x0, y0 = (int(each) - reach for each in middle)
    part = _part(picture, x0, y0, 2 * reach + 1)
    return CloseUp(align.crop(part, align.localize(matrix, x0, y0), SIDE), matrix)


def _part(picture: Image, x0: int, y0: int, side: int) -> Image:
    """A square of a picture, (side, side, 3), which may reach beyond it."""
    height, width = picture.shape[:2]
    left, top = max(0, -x0), max(0, -y0)
    right, bottom = max(0, x0 + side - width), max(0, y0 + side - height)
    inside = picture[max(y0, 0) : max(y0 + side, 0), max(x0, 0) : max(x0 + side, 0)]
    if not inside.size:
        return np.full((side, side, 3), PADDING, np.uint8)
    padded = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT, value=PADDING)
    return np.asarray(padded, np.uint8)


def mirrored(picture: Image) -> Image:
    """The picture as a mirror shows it."""
    return np.ascontiguousarray(picture[:, ::-1])


def believed(face: Face, seen: Sequence[Face]) -> float:
    """The score of a face after its detector has seen these in its close-up.

    What that is worth is added as evidence is: log odds to log odds, within +-SAY.
    """
    again = _meant(seen)
    odds = _log_odds(face.score) + min(max(_log_odds(again.score if again else 0.0), -SAY), SAY)
    return 1 / (1 + math.exp(-odds))


def landmarks_of(face: Face, matrix: align.Matrix, seen: Sequence[Face], in_mirror: Sequence[Face]) -> Float:
    """Where the landmarks of a face are, (5, 2), in pixels of the whole picture, after a second look.

    matrix: of its close-up; seen, in_mirror: what was found in that and in its mirror image. The mean is taken.
    """
    middle, points = (SIDE - 1) / 2, []
    if straight := _meant(seen):
        points.append(straight.landmarks - middle)
    if turned := _meant(in_mirror):
        points.append(((turned.landmarks - middle) * (-1, 1))[MIRROR])
    if not points:
        return face.landmarks
    back = align.inverted(matrix)
    return np.asarray((np.mean(points, 0) + middle) @ back[:, :2].T + back[:, 2], np.float32)


def _meant(faces: Sequence[Face]) -> Face | None:
    """Which of the faces in a close-up it was made for."""
    near = [face for face in faces if np.abs(face.box[:2] + face.box[2:] + 1 - SIDE).max() < 2 * NEAR * LENGTH]
    return max(near, key=lambda face: face.score, default=None)


def _log_odds(score: float) -> float:
    score = min(max(score, 1e-6), 1 - 1e-6)
    return math.log(score / (1 - score))
