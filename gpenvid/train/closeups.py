"""What a second look sees: close-ups of the faces of composed scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpenvid.faces.closeup import SIDE, close_up
from gpenvid.train.crowded import Crowded
from gpenvid.train.multibox import longer_sides
from gpenvid.train.scenes import Portrait, Scene, move_box, move_points, visible_share
from gpenvid.types import Face, Float

EACH = 4
"""Close-ups that are taken of a scene."""
WHOLE = 320
"""Side of the scenes in pixels."""
LEAST = 16.0
"""Length in pixels of the smallest face that is looked at."""
BOX_ERROR, LANDMARK_ERROR = 0.05, 0.1
"""How far off a first look is: standard deviations, of a box's sides in its length, of landmarks in eye distances."""


class CloseUps(Crowded):
    """A composer of close-ups: of faces as a first look sees them, a little off, and here and there of none."""

    def __init__(self, portraits: Sequence[Portrait], *, seed: int, clear: bool = False) -> None:
        """See Composer."""
        super().__init__(portraits, seed=seed, clear=clear)
        self._last: tuple[int, Scene] | None = None

    def scene(self, number: int, size: int = SIDE) -> Scene:
        """Compose close-up `number`; size can only be SIDE."""
        assert size == SIDE
        whole, turn = divmod(number, EACH)
        if self._last is None or self._last[0] != whole:
            self._last = whole, super().scene(whole, WHOLE)
        scene = self._last[1]
        fit = np.flatnonzero(scene.counts & (longer_sides(scene.boxes) >= LEAST))
        rng = np.random.default_rng([self.seed, 2, number])
        if not len(fit):
            return closer(scene, _anywhere(rng))
        face = np.random.default_rng([self.seed, 1, whole]).permutation(fit)[turn % len(fit)]
        return closer(scene, _as_first_seen(rng, scene.boxes[face], scene.landmarks[face]))


def closer(scene: Scene, face: Face) -> Scene:
    """What a scene shows of a face at the second look, with its labels."""
    view = close_up(scene.picture, face)
    boxes = np.array([move_box(box, view.matrix) for box in scene.boxes], np.float32).reshape(-1, 4)
    marks = np.array([move_points(points, view.matrix) for points in scene.landmarks], np.float32).reshape(-1, 5, 2)
    shown = visible_share(boxes, SIDE)
    keep = shown > 0.1
    return Scene(view.picture, boxes[keep], marks[keep], scene.counts[keep] & (shown[keep] > 0.6))


def _as_first_seen(rng: np.random.Generator, box: Float, landmarks: Float) -> Face:
    length, eyes = float((box[2:] - box[:2]).max()), float(np.linalg.norm(landmarks[1] - landmarks[0]))
    off_box, off_landmarks = rng.normal(0, BOX_ERROR * length, 4), rng.normal(0, LANDMARK_ERROR * eyes, (5, 2))
    return Face((box + off_box).astype(np.float32), (landmarks + off_landmarks).astype(np.float32), 1.0)


def _anywhere(rng: np.random.Generator) -> Face:
    length, middle = np.exp(rng.uniform(np.log(LEAST), np.log(WHOLE))), rng.uniform(0, WHOLE, 2)
    angle = rng.normal(0, 0.5)
    eye = 0.2 * length * np.array([np.cos(angle), np.sin(angle)])
    landmarks = middle + np.array([-eye, eye, (0, 0), (0, 0), (0, 0)])
    box = np.concatenate([middle - length / 2, middle + length / 2])
    return Face(box.astype(np.float32), landmarks.astype(np.float32), 1.0)
