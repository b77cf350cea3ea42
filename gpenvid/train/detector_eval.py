"""How good a detector is: recall, precision, landmark error, and false faces in pictures that hold none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from gpenvid.evaluate import pictures_of
from gpenvid.faces.detect import Detector
from gpenvid.train.multibox import longer_sides, overlaps
from gpenvid.train.scenes import Composer, Portrait, Scene, load_portraits
from gpenvid.train.sheets import held_out, load_tiles
from gpenvid.train.teacher import Found, consensus, find, load_retinaface, relabel
from gpenvid.train.textures import DRAWERS, texture
from gpenvid.types import Float, Image

LEAST_FACE = 24.0
"""Faces whose longer side is below this many pixels are neither demanded nor held against the detector."""
EVERY = 5
"""Of clips one picture in so many is looked at."""
LEAST_OVERLAP = 0.5
"""Intersection over union from which a detection is the face."""


@dataclass(slots=True)
class Tally:
    """Counts over many pictures; `figures` turns them into rates."""

    faces: int = 0
    hits: int = 0
    detections: int = 0
    false: int = 0
    errors: list[float] | None = None

    def add(self, found: Found, truth: Scene) -> None:
        """Compare the detections of one picture with its labels. Each face is hit once, by the best detection left."""
        self.errors = [] if self.errors is None else self.errors
        shared = overlaps(found.boxes, truth.boxes)
        demanded = truth.counts & (longer_sides(truth.boxes) >= LEAST_FACE)
        taken = np.zeros(len(truth.boxes), bool)
        for row, size, landmarks in zip(shared, longer_sides(found.boxes), found.landmarks, strict=True):
            row = np.where(taken, 0, row)
            hit = int(row.argmax()) if len(row) and row.max() >= LEAST_OVERLAP else -1
            if hit < 0:
                self.detections += int(size >= LEAST_FACE)
                self.false += int(size >= LEAST_FACE)
                continue
            taken[hit] = True
            if demanded[hit]:
                self.detections += 1
                self.errors.append(landmark_error(landmarks, truth.landmarks[hit]))
        self.faces += int(demanded.sum())
        self.hits += int((taken & demanded).sum())

    def figures(self) -> dict[str, float]:
        """Return recall, precision, mean and median landmark error, and the counts; nan where nothing was counted."""
        errors = self.errors or [float("nan")]
        return {
            "recall": self.hits / self.faces if self.faces else float("nan"),
            "precision": 1 - self.false / self.detections if self.detections else float("nan"),
            "landmark_error": float(np.mean(errors)),
            "landmark_error_median": float(np.median(errors)),
            "faces": float(self.faces),
            "false": float(self.false),
        }


def landmark_error(landmarks: Float, truth: Float) -> float:
    """Mean distance of five landmarks (5, 2) from the truth, in units of the truth's distance between the eyes."""
    between = float(np.linalg.norm(truth[0] - truth[1]))
    return float(np.linalg.norm(landmarks - truth, axis=1).mean()) / max(between, 1e-6)


def judge(detector: Detector, scenes: Iterable[Scene]) -> dict[str, float]:
    """Run a detector over labelled pictures and return `Tally.figures`."""
    tally = Tally()
    for scene in scenes:
        tally.add(Found.of(detector.detect([scene.picture])[0]), scene)
    return tally.figures()


def seen_by(teacher: Any, pictures: Iterable[Image], *, threshold: float = 0.6, unsure: float = 0.2) -> list[Scene]:
    """Label pictures with a teacher's detections; those it is not sure of don't count."""
    scenes = []
    for picture in pictures:
        found = find(teacher, picture, unsure)
        scenes.append(Scene(picture, found.boxes, found.landmarks, found.scores >= threshold))
    return scenes


def false_faces(detector: Detector, pictures: Iterable[Image]) -> int:
    """Count detections of any size in pictures that hold no face."""
    return sum(len(detector.detect([picture])[0]) for picture in pictures)


def faceless_pictures(count: int, *, seed: int, size: int = 320) -> list[Image]:
    """Draw textures of every kind, the ones that training never sees among them."""
    rngs = [np.random.default_rng([seed, number]) for number in range(count)]
    return [texture(rng, size, size, tuple(DRAWERS)) for rng in rngs]


def calibrate(network: Any, scenes: Sequence[Scene], *, threshold: float = 0.6) -> float:
    """Shift the class heads' biases so that `threshold` becomes the score at which misses equal false faces.

    Returns the score that did so before. The scenes should be new ones of training portraits, not held-out ones.
    """
    found = [find(network, scene.picture, 0.02) for scene in scenes]
    scores = np.linspace(0.05, 0.98, 94)

    def imbalance(score: float) -> float:
        tally = Tally()
        for detections, scene in zip(found, scenes, strict=True):
            sure = detections.scores > score
            tally.add(Found(detections.boxes[sure], detections.landmarks[sure], detections.scores[sure]), scene)
        return abs(tally.faces - tally.hits - tally.false)

    best = float(min(scores, key=imbalance))
    shift = float(np.log(threshold / (1 - threshold)) - np.log(best / (1 - best)))
    for head in network.ClassHead:
        head.conv1x1.bias.data[1::2] += shift
    return best


def evaluate_detector(
    detector: Detector,
    data: str | Path,
    *,
    teacher: str | Path | None = None,
    photographs: Sequence[Path] = (),
    clips: Sequence[Path] = (),
    labels: Path | None = None,
    scenes: int = 30,
    seed: int = 99,
) -> dict[str, dict[str, float]]:
    """Measure a detector on held-out sheets, on scenes composed of them and on faceless textures.

    data: folder of the sheets. With a teacher, their labels are its consensus (kept in the file `labels`, if given),
    and so are those of the photographs and of every fifth picture of the clips; agreement with its single look is
    measured as well. Keys: sheets, scenes (clear), scenes_degraded, textures, and with a teacher photographs, clips,
    sheets_teacher, scenes_teacher, photographs_teacher, clips_teacher.
    """
    portraits = load_portraits([tile for tile in load_tiles(data) if held_out(tile.sheet)])
    mentor = load_retinaface(teacher) if teacher else None
    if mentor is not None:
        portraits = relabel(mentor, portraits, labels)
    groups = {
        "sheets": [_as_scene(portrait) for portrait in portraits],
        "scenes": [Composer(portraits, seed=seed, clear=True).scene(number, 512) for number in range(scenes)],
        "scenes_degraded": [Composer(portraits, seed=seed).scene(number, 512) for number in range(scenes)],
    }
    if mentor is not None:
        for name in ("sheets", "scenes"):
            groups[f"{name}_teacher"] = seen_by(mentor, [scene.picture for scene in groups[name]])
        for name, files, every in (("photographs", photographs, 1), ("clips", clips, EVERY)):
            seen = seen_by(mentor, chain.from_iterable(islice(pictures_of(file), 0, None, every) for file in files))
            groups |= {name: [_agreed(mentor, scene) for scene in seen], f"{name}_teacher": seen}
    report = {name: judge(detector, group) for name, group in groups.items() if group}
    report["textures"] = {"false": float(false_faces(detector, faceless_pictures(200, seed=seed)))}
    return report


def _agreed(teacher: Any, scene: Scene) -> Scene:
    """A scene whose faces are where the teacher sees them on average over several views; those it loses stay."""
    boxes, landmarks = scene.boxes.copy(), scene.landmarks.copy()
    for i in np.flatnonzero(scene.counts):
        again = consensus(teacher, Portrait(scene.picture, boxes[i : i + 1], landmarks[i : i + 1]), alone=False)
        if again is not None:
            boxes[i], landmarks[i] = again.boxes[0], again.landmarks[0]
    return Scene(scene.picture, boxes, landmarks, scene.counts)


def _as_scene(portrait: Portrait) -> Scene:
    return Scene(portrait.picture, portrait.boxes, portrait.landmarks, np.ones(len(portrait.boxes), bool))
