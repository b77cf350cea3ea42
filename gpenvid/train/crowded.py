"""Scenes with what is hard in real pictures: faces half behind others, faces that fill the picture, parts of faces.

An ear, an eye or a mouth, as large as a face elsewhere in the picture, is none. A face of which a head before it leaves
half is one.
"""

from __future__ import annotations

import cv2
import numpy as np

from gpenvid.train.scenes import (
    Composer,
    Portrait,
    extent,
    grow,
    linear_map,
    map_around,
    move_box,
    overlap,
    paste,
    visible_share,
)
from gpenvid.types import Float

BEHIND, PARTS, CLOSE = 0.35, 0.4, 0.15
"""The shares of scenes with a face behind another, with parts of faces, and with one face that fills them."""

HEAD = 1.35
"""So many times as long and wide as the box of a face is its head, ears and all."""


class Crowded(Composer):
    """A composer whose scenes, where there is more to them, have that drawn from another source of chance."""

    def sizes(self, rng: np.random.Generator, size: int) -> Float:
        """Now and then one face alone that fills the picture, or is larger than it."""
        wanted = super().sizes(rng, size)
        chance = np.random.default_rng(rng.integers(1 << 32))
        return np.array([chance.uniform(0.5, 1.4) * size]) if chance.random() < CLOSE else wanted

    def fits(self, area: Float, box: Float) -> bool:
        """Nor does a small portrait hide the ears of a large face: else it would learn that faces grow there."""
        small = max(box[2:] - box[:2]) > 2 * max(area[2:] - area[:2])
        return super().fits(area, box) and not (small and overlap(area, grow(box, HEAD)) > 0)

    def add(self, rng: np.random.Generator, canvas: Float, boxes: list[Float], marks: list[Float]) -> list[float]:
        """Put faces behind those that are there, then parts of faces beside them all."""
        covered = [0.0] * len(boxes)
        front = [box for box in boxes if max(box[2:] - box[:2]) >= 32]
        if front and rng.random() < BEHIND:
            for box in front[:3]:
                covered += self._behind(rng, canvas, box, boxes, marks)
        if rng.random() < PARTS:
            for _ in range(int(rng.integers(1, 5))):
                _paste_part(rng, canvas, self._portrait(rng), boxes)
        return covered

    def _behind(
        self, rng: np.random.Generator, canvas: Float, front: Float, boxes: list[Float], marks: list[Float]
    ) -> list[float]:
        """Paste a portrait behind the head of a face, if one fits there; return which share of its face that hides."""
        portrait = self._portrait(rng)
        if len(portrait.boxes) > 1:
            return []
        length = float(max(front[2:] - front[:2]))
        linear = linear_map(rng, portrait.boxes[0], length * rng.uniform(0.5, 1.1))
        head = _head(canvas, front)
        for _ in range(12):
            angle, away = rng.uniform(-np.pi, 0) if rng.random() < 0.8 else rng.uniform(0, np.pi), rng.uniform(0.4, 1.1)
            centre = (front[:2] + front[2:]) / 2 + length * away * np.array([np.cos(angle), np.sin(angle)])
            matrix = map_around(portrait.boxes[0], linear, centre)
            area, box = extent(portrait, matrix, whole=False), move_box(portrait.boxes[0], matrix)
            if visible_share(box[None], len(canvas))[0] < 0.7:
                continue
            x0, y0, x1, y1 = np.clip(box, 0, len(canvas)).astype(int)
            hidden = float(head[y0:y1, x0:x1].mean())
            others = [other for other in boxes if other is not front]
            if 0.15 < hidden < 0.6 and not any(overlap(area, other) for other in others):
                own_boxes, own_marks = paste(rng, canvas, portrait, matrix, whole=False, before=head)
                boxes += own_boxes
                marks += own_marks
                return [hidden]
        return []


def _head(canvas: Float, box: Float) -> Float:
    """Where the head of a face is, (S, S), 0 to 1: an oval around its box, higher up as hair is."""
    mask = np.zeros(canvas.shape[:2], np.float32)
    (width, height), middle = box[2:] - box[:2], (box[:2] + box[2:]) / 2
    centre = (int(middle[0]), int(middle[1] - 0.12 * height))
    cv2.ellipse(mask, centre, (int(0.62 * width), int(0.72 * height)), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.5 + 0.02 * float(width)), np.float32)


def _paste_part(rng: np.random.Generator, canvas: Float, portrait: Portrait, boxes: list[Float]) -> None:
    """Paste an ear, an eye or a mouth, as large as a face may be, where there is no face."""
    box, points = portrait.boxes[0], portrait.landmarks[0]
    (width, height), kind = box[2:] - box[:2], rng.integers(4)
    if kind < 2:  # an ear lies beside the box, between the heights of eyes and nose
        x = box[0] - 0.03 * width if kind else box[2] + 0.03 * width
        middle, side = np.array([x, (points[0, 1] + points[1, 1] + points[2, 1]) / 3]), 0.42 * height
    elif kind == 2:
        eye = points[int(rng.integers(2))]
        middle, side = eye, 0.8 * float(np.linalg.norm(points[1] - points[0]))
    else:
        middle, side = points[3:].mean(0), 1.3 * float(np.linalg.norm(points[4] - points[3]))
    side *= rng.uniform(0.8, 1.2)
    half = np.array([side, side]) / 2
    part = np.concatenate([middle - half, middle + half]).astype(np.float32)
    if part.min() < 0 or (part[2:] > portrait.picture.shape[1::-1]).any() or side < 12:
        return
    target = float(np.exp(rng.uniform(np.log(14), np.log(0.45 * len(canvas)))))
    matrix = map_around(part, linear_map(rng, part, target), rng.uniform(0, len(canvas), 2))
    if not any(overlap(move_box(grow(part, 1.2), matrix), other) for other in boxes):
        alone = Portrait(portrait.picture, part[None], points[None])
        paste(rng, canvas, alone, matrix, whole=False, grown=(0.9, 1.1))
