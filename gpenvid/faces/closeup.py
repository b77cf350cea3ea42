"""A second look at a face that was found: close, upright, of one size, and in the mirror.

A network finds the points of a face best where the face is large and upright. So the part of the picture that holds it
is brought to that, whatever it was, and shown once more; and once more mirrored, because what the network gets wrong in
the same direction both times falls out of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from gpenvid.faces import align
from gpenvid.types import Face, Image

SIDE, LENGTH = 192, 144
"""Pixels of a close-up's side, and of the longer side of the face's box in it."""

NEAR = 0.25
"""How far from the middle of a close-up a face may lie, in LENGTH, to be the one that is meant."""

SAY = 1.5
"""The most that the second look adds to the log odds of a face, or takes from them."""

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


def seen_again(face: Face, matrix: align.Matrix, plain: Sequence[Face], in_mirror: Sequence[Face]) -> Face:
    """What is known of a face after the second look.

    matrix: of its close-up; plain, in_mirror: the faces that were found in that and in its mirror image. The landmarks
    become the mean of what the two say, the box stays, and what they are worth is added to the score as evidence is:
    log odds to log odds, within +-SAY.
    """
    odds, points = _log_odds(face.score), []
    for faces, mirror in ((plain, False), (in_mirror, True)):
        near = [each for each in faces if np.abs(each.box[:2] + each.box[2:] + 1 - SIDE).max() < 2 * NEAR * LENGTH]
        best = max(near, key=lambda each: each.score, default=None)
        odds += min(max(_log_odds(best.score if best else 0.0), -SAY), SAY) / 2
        if best:
            middle = (SIDE - 1) / 2
            marks = best.landmarks - middle
            points.append((marks * (-1, 1))[MIRROR] + middle if mirror else best.landmarks)
    landmarks = face.landmarks
    if points:
        back = align.inverted(matrix)
        landmarks = np.asarray(np.mean(points, 0) @ back[:, :2].T + back[:, 2], np.float32)
    return Face(face.box, landmarks, 1 / (1 + math.exp(-odds)))


def _log_odds(score: float) -> float:
    score = min(max(score, 1e-6), 1 - 1e-6)
    return math.log(score / (1 - score))
