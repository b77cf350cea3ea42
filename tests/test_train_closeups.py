"""Close-ups for training the second look: of faces as the first look sees them, with labels that stay on the pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gpenvid.faces.closeup import LENGTH, SIDE
from gpenvid.train.closeups import EACH, CloseUps, closer
from gpenvid.train.detector import Trainer
from gpenvid.train.multibox import FACE, Targets, multibox_loss
from gpenvid.train.options import DetectorTraining
from gpenvid.train.scenes import Portrait, Scene
from gpenvid.types import Face, Float

pytestmark = pytest.mark.usefixtures("one_thread")

BOX = np.array([[40, 30, 88, 94]], np.float32)
POINTS = np.array([[[52, 54], [76, 54], [64, 66], [55, 78], [73, 78]]], np.float32)
TONES = ((255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 0), (0, 255, 255))


def doll() -> Portrait:
    """A gray head with five dots of different colours."""
    picture = np.full((128, 128, 3), 70, np.uint8)
    cv2.ellipse(picture, (64, 62), (24, 32), 0, 0, 360, (150, 150, 150), -1)
    for (x, y), tone in zip(POINTS[0], TONES, strict=True):
        cv2.circle(picture, (int(x), int(y)), 3, tone, -1)
    return Portrait(picture, BOX.copy(), POINTS.copy())


def dots(scene: Scene) -> Float:
    """Where the five dots of the largest face lie in a picture, (5, 2)."""
    places = []
    rows, columns = np.mgrid[: scene.picture.shape[0], : scene.picture.shape[1]]
    near = (np.abs(rows - SIDE / 2) < LENGTH / 2) & (np.abs(columns - SIDE / 2) < LENGTH / 2)
    for tone in TONES:
        weight = near * np.clip(1 - np.abs(scene.picture.astype(float) - tone).max(2) / 100, 0, 1)
        places.append([(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()])
    return np.array(places, np.float32)


def options(out: Path, **changes: object) -> DetectorTraining:
    small: dict[str, object] = {"batch": 2, "pool": 8, "steps": 40, "refit": 0, "hard": 0, "closeups": True}
    return DetectorTraining(out=str(out), **{**small, **changes})  # type: ignore[arg-type]


def test_a_close_up_shows_the_face_upright_with_its_labels_on_it() -> None:
    portrait = doll()
    scene = Scene(portrait.picture, portrait.boxes, portrait.landmarks, np.array([True]))
    near = closer(scene, Face(BOX[0], POINTS[0], 1.0))
    assert near.picture.shape == (SIDE, SIDE, 3)
    assert near.counts.tolist() == [True]
    np.testing.assert_allclose(dots(near), near.landmarks[0], atol=1.0)
    np.testing.assert_allclose(near.boxes[0], (SIDE - 1) / 2 + np.array([-54, -72, 54, 72]), atol=0.01)


def test_what_lies_beyond_it_has_no_label_and_what_it_cuts_does_not_count() -> None:
    boxes = BOX[0] + np.array([[0] * 4, [300, 0] * 2, [50, 0] * 2], np.float32)
    marks = np.repeat(POINTS, 3, 0)
    scene = Scene(doll().picture, boxes, marks, np.array([True, True, True]))
    assert closer(scene, Face(BOX[0], POINTS[0], 1.0)).counts.tolist() == [True, False]


def test_close_ups_are_a_function_of_seed_and_number() -> None:
    one, two = (CloseUps([doll()], seed=4) for _ in range(2))
    forth, back = [one.scene(i) for i in range(9)], [two.scene(i) for i in range(8, -1, -1)][::-1]
    for a, b in zip(forth, back, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
    assert not np.array_equal(CloseUps([doll()], seed=5).scene(0).picture, forth[0].picture)


def test_most_hold_a_face_about_as_a_second_look_does() -> None:
    composer = CloseUps([doll()], seed=6, clear=True)
    views = [composer.scene(number) for number in range(40 * EACH)]
    middle = [
        view.landmarks[i]
        for view in views
        for i in np.flatnonzero(view.counts)
        if np.abs(view.boxes[i].reshape(2, 2).mean(0) - (SIDE - 1) / 2).max() < 0.2 * LENGTH
        and (view.boxes[i, 3] - view.boxes[i, 1]) > 0.7 * LENGTH
    ]
    assert 0.7 < len(middle) / len(views) < 0.95
    eyes = np.array([landmarks[1] - landmarks[0] for landmarks in middle])
    angles = np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]))
    assert abs(np.mean(angles)) < 2
    assert 4 < np.std(angles) < 12


def test_errors_of_landmarks_count_by_the_distance_of_the_eyes() -> None:
    """Eyes 2.25 apart, half of EYES: errors count twice. So they do in a profile, where eyes are nearer."""
    marks = torch.zeros(1, 3, 10)
    marks[0, 0, 0], marks[0, 1, 0], marks[0, 2, 0] = 4.5, 2.25, 0.5
    targets = Targets(torch.full((1, 3), FACE), torch.zeros(1, 3, 4), marks)
    logits, boxes = torch.zeros(1, 3, 2), torch.zeros(1, 3, 4)
    losses = multibox_loss((boxes, logits, marks + 0.2), targets, by_eyes=True)
    assert float(losses[2]) == pytest.approx(10 * ((0.2 - 0.05) + 2 * (0.4 - 0.05)) / 3, rel=1e-5)


def test_training_is_on_close_ups(tmp_path: Path) -> None:
    trainer = Trainer(options(tmp_path), [doll()])
    pictures, targets = trainer.batch()
    assert pictures.shape == (2, 3, SIDE, SIDE)
    assert (targets.labels == FACE).any()
    figures = [trainer.train_step() for _ in range(2)]
    assert all(np.isfinite(list(each.values())).all() for each in figures)
