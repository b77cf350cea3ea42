"""Cuts are found in their very picture; dissolves, flashes, pans and changes of light are not cuts."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import cv2
import numpy as np
import pytest

from gpenvid.faces.scene import SceneDetector
from gpenvid.types import Image

SIZE = (240, 320)


@lru_cache
def _place(seed: int) -> np.ndarray:
    """A picture of somewhere, 480 x 960: soft shapes of many sizes, and a few objects with edges."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((480, 960, 3), np.float32) + rng.uniform(60, 190, 3).astype(np.float32)
    for sigma, contrast in ((60, 60), (20, 35), (6, 20)):
        noise = rng.standard_normal((480 // sigma * 6 + 2, 960 // sigma * 6 + 2, 3)).astype(np.float32)
        picture += (
            contrast * cv2.resize(cv2.GaussianBlur(noise, (0, 0), 2), (960, 480), interpolation=cv2.INTER_CUBIC) * 4
        )
    for _ in range(25):
        x, y = rng.integers(0, 960), rng.integers(0, 480)
        colour = rng.uniform(0, 255, 3).tolist()
        cv2.ellipse(
            picture, (int(x), int(y)), tuple(map(int, rng.integers(8, 70, 2))), rng.uniform(0, 180), 0, 360, colour, -1
        )
    return np.clip(picture, 0, 255)


def _view(place: np.ndarray, x: float = 200, y: float = 100, light: float = 1.0, seed: int = 0) -> Image:
    matrix = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
    view = cv2.warpAffine(place, matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT) * light
    return np.clip(view + np.random.default_rng(seed).normal(0, 3, view.shape), 0, 255).astype(np.uint8)


def _cuts(pictures: list[Image]) -> list[int]:
    detector = SceneDetector()
    return [k for k, picture in enumerate(pictures) if detector.update(picture, Fraction(k, 25))]


def _moving(place: np.ndarray, count: int, speed: float = 2.0, start: int = 0) -> list[Image]:
    return [_view(place, 100 + speed * k, seed=start + k) for k in range(count)]


@pytest.mark.parametrize("seed", range(6))
def test_a_cut_is_found_in_its_picture_and_nowhere_else(seed: int) -> None:
    pictures = (
        _moving(_place(seed), 20)
        + _moving(_place(seed + 100), 20, start=20)
        + _moving(_place(seed + 200), 15, start=40)
    )
    assert _cuts(pictures) == [20, 40]


@pytest.mark.parametrize("seed", range(4))
def test_a_dissolve_is_none(seed: int) -> None:
    a, b = _place(seed), _place(seed + 100)
    mix = [_view(a * (1 - k / 25) + b * k / 25, seed=k) for k in range(26)]
    assert _cuts(_moving(a, 10, 0) + mix + _moving(b, 10, 0)) == []


@pytest.mark.parametrize("strength", [1.6, 3.0, 100.0])
def test_a_flash_of_one_picture_is_none(strength: float) -> None:
    pictures = _moving(_place(0), 30)
    pictures[15] = _view(_place(0), 130, light=strength)
    assert _cuts(pictures) == []


def test_black_pictures_between_scenes_make_one_cut_and_within_a_scene_none() -> None:
    a, b, black = _moving(_place(1), 10), _moving(_place(2), 10), [np.zeros((*SIZE, 3), np.uint8)] * 3
    assert _cuts(a + black + b) == [13]
    assert _cuts(a + black + _moving(_place(1), 10, start=13)) == []


@pytest.mark.parametrize("speed", [10, 40, 80])
def test_a_fast_pan_is_none(speed: int) -> None:
    there = list(range(0, 480, speed))
    assert _cuts([_view(_place(3), x, seed=k) for k, x in enumerate(there + there[::-1])]) == []


def test_lights_that_go_off_and_on_are_none() -> None:
    pictures = [_view(_place(4), light=0.35 if 10 <= k < 20 else 1.0, seed=k) for k in range(30)]
    assert _cuts(pictures) == []


def test_somebody_who_walks_through_the_picture_is_none() -> None:
    pictures = []
    for k in range(30):
        picture = _view(_place(5), seed=k)
        cv2.rectangle(picture, (20 * k - 150, 40), (20 * k - 40, 239), (60, 40, 90), -1)
        pictures.append(picture)
    assert _cuts(pictures) == []


def test_size_depth_and_rate_do_not_matter() -> None:
    pictures = _moving(_place(1), 6) + _moving(_place(2), 6)
    for shape in ((64, 36), (1280, 720)):
        detector = SceneDetector()
        resized = [cv2.resize(picture, shape, interpolation=cv2.INTER_AREA) for picture in pictures]
        assert [detector.update(picture, k / 5) for k, picture in enumerate(resized)] == [False] * 6 + [True] + [
            False
        ] * 5


def test_a_long_gap_in_time_is_one_whatever_is_seen() -> None:
    view = _view(_place(1))
    scene = SceneDetector()
    times = (5.0, 5.04, 7.0, 9.0, 11.1, 11.14, 3611.14)
    assert [scene.update(view, time) for time in times] == [False, False, False, False, True, False, True]


def test_after_a_reset_the_first_picture_is_none() -> None:
    detector = SceneDetector()
    detector.update(_view(_place(1)), 0)
    detector.reset()
    assert not detector.update(_view(_place(2)), 1)


def test_sensitivity_is_refused_out_of_range() -> None:
    with pytest.raises(ValueError, match="101"):
        SceneDetector(101)
