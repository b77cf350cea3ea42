"""Scenes of the detector's training that are hard in the ways real pictures are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gpenvid.train.crowded import HEAD, Crowded
from gpenvid.train.scenes import MOST_COVERED, Composer, Portrait, Scene, grow
from gpenvid.types import Float

pytestmark = pytest.mark.usefixtures("one_thread")

BOX = np.array([[40, 30, 88, 94]], np.float32)
POINTS = np.array([[[52, 54], [76, 54], [64, 66], [55, 78], [73, 78]]], np.float32)


def doll(tone: int) -> Portrait:
    """A head of one shade of gray before a darker ground."""
    picture = np.full((128, 128, 3), tone // 2, np.uint8)
    cv2.ellipse(picture, (64, 62), (24, 32), 0, 0, 360, (tone, tone, tone), -1)
    return Portrait(picture, BOX.copy(), POINTS.copy())


def scenes(count: int = 150, size: int = 192) -> list[tuple[Scene, Scene]]:
    """Each scene with more in it, and the same without."""
    portraits = [doll(tone) for tone in (90, 150, 210)]
    return [
        (
            Crowded(portraits, seed=3, clear=True).scene(number, size),
            Plain(portraits, seed=3, clear=True).scene(number, size),
        )
        for number in range(count)
    ]


class Plain(Crowded):
    """Nothing added."""

    def add(self, rng: np.random.Generator, canvas: Float, boxes: list[Float], marks: list[Float]) -> list[float]:
        return Composer.add(self, rng, canvas, boxes, marks)


def middle(box: Float, size: int) -> tuple[slice, slice]:
    """The inner half of a box, as far as it lies in the picture."""
    x0, y0, x1, y1 = np.clip(grow(box, 0.5), 0, size).astype(int)
    return slice(y0, y1), slice(x0, x1)


def test_a_scene_is_a_function_of_seed_number_and_size() -> None:
    one, two = (Crowded([doll(150)], seed=5).scene(7, 128) for _ in range(2))
    np.testing.assert_array_equal(one.picture, two.picture)
    np.testing.assert_array_equal(one.boxes, two.boxes)


def test_what_is_added_leaves_the_faces_that_were_there() -> None:
    changed = 0
    for more, plain in scenes():
        count = len(plain.boxes)
        np.testing.assert_array_equal(more.boxes[:count], plain.boxes)
        np.testing.assert_array_equal(more.counts[:count], plain.counts)
        for box in plain.boxes:
            inner = middle(box, 192)
            off = np.abs(more.picture[inner].astype(int) - plain.picture[inner])
            assert off.max(initial=0) <= 8, "no more than the soft edge of a neighbour"
        changed += int((more.picture != plain.picture).any())
    assert changed > 40


def test_a_face_behind_another_is_one_as_long_as_enough_of_it_is_seen() -> None:
    seen = {True: 0, False: 0}
    for more, plain in scenes():
        for box, counts in zip(more.boxes[len(plain.boxes) :], more.counts[len(plain.boxes) :], strict=True):
            x0, y0, x1, y1 = np.clip(box, 0, 192).astype(int)
            shown = (more.picture[y0:y1, x0:x1] != plain.picture[y0:y1, x0:x1]).any(-1).mean()
            assert shown > (0.3 if counts else 0.1), (box, shown)
            seen[bool(counts)] += 1
    assert seen[True] >= 10
    assert seen[False] >= 1
    assert 0.5 <= MOST_COVERED <= 0.6, "half a face is a face"


def test_parts_of_faces_are_pasted_where_no_face_is_and_are_none() -> None:
    alone = 0
    for more, plain in scenes():
        different = (more.picture != plain.picture).any(-1)
        for box in more.boxes[len(plain.boxes) :]:
            x0, y0, x1, y1 = np.clip(grow(box, 1.8), 0, 192).astype(int)
            different[y0:y1, x0:x1] = False
        alone += int(different.sum() > 30)
    assert alone > 10


def test_a_small_portrait_does_not_hide_the_ears_of_a_large_face() -> None:
    composer, large = Crowded([doll(150)], seed=1), np.array([100, 100, 200, 200], np.float32)
    beside = np.array([205, 130, 245, 170], np.float32)
    assert Composer([doll(150)], seed=1).fits(beside, large)
    assert not composer.fits(beside, large)
    assert composer.fits(beside + 100 * (HEAD - 1) * np.array([1, 0, 1, 0], np.float32), large)
    assert composer.fits(np.array([205, 100, 295, 190], np.float32), large), "one of its size stands beside it"


def test_some_faces_fill_the_picture() -> None:
    composer = Crowded([doll(150)], seed=2)
    lengths = [composer.sizes(np.random.default_rng(seed), 200) for seed in range(200)]
    filling = [each for each in lengths if len(each) == 1 and each[0] > 184]
    assert 10 < len(filling) < 40
    assert max(each[0] for each in filling) <= 280
