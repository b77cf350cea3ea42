"""The frequency of a shake: found where there is one, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from gpenvid.faces.shake import Shake

UNITS = np.array([70.0, 40.0])


def _note(shake: Shake, times: np.ndarray, motion: np.ndarray, noise: float = 0.5) -> list[float]:
    """Two faces that move alike; returns the frequency after each picture."""
    rng = np.random.default_rng(0)
    found = []
    for time, place in zip(times, motion, strict=True):
        places = np.array([300 + 200j, 600 + 100j]) + place + noise * rng.standard_normal((2, 2)) @ [1, 1j]
        if shake.note(float(time), places):
            shake.search(UNITS, np.full(2, time - times[0]))
        found.append(shake.frequency)
    return found


@pytest.mark.parametrize("frequency", [1.0, 1.5, 2.0, 3.1, 4.6])
def test_the_frequency_is_found_within_two_seconds(frequency: float) -> None:
    steps = np.random.default_rng(1).choice([1 / 60, 1 / 30, 1 / 25, 1 / 15], 150)
    times = np.cumsum(steps)
    found = np.array(_note(Shake(), times, 40 * times + 8 * np.exp(0.4j) * np.sin(2 * np.pi * frequency * times)))
    np.testing.assert_allclose(found[times > times[0] + 2.2], frequency, rtol=0.04)


@pytest.mark.parametrize("name", ["still", "pan", "jump", "walk and stop", "turn"])
def test_what_does_not_shake_has_none(name: str) -> None:
    times = np.arange(150) / 25
    motion = {
        "still": 0 * times,
        "pan": 40 * times + 8j * times,
        "jump": 90.0 * (times > 3),
        "walk and stop": 60 * np.minimum(times, 3),
        "turn": 12 * np.sin(2 * np.pi * times / 3),
    }[name]
    assert not any(_note(Shake(), times, motion))


def test_it_ends_with_the_shake_and_begins_again() -> None:
    times = np.arange(375) / 25
    shaking = (times < 5) | (times > 10)
    found = np.array(_note(Shake(), times, 10 * np.sin(4 * np.pi * times) * shaking)) > 0
    assert found[60:124].all() and not found[180:249].any() and found[310:].all()


def test_faces_that_move_each_in_its_own_way_are_no_shake() -> None:
    times = np.arange(150) / 25
    shake = Shake()
    for time in times:
        places = np.array([10 * np.sin(4 * np.pi * time), 40 * time**2]) + 0j
        if shake.note(float(time), places):
            shake.search(UNITS, np.full(2, time))
        assert shake.frequency == 0


def test_a_face_counts_once_it_has_been_followed_for_a_while() -> None:
    times = np.arange(100) / 25
    shake, found = Shake(), []
    for time in times:
        places = np.array([300 + 0j, 10 * np.sin(4 * np.pi * time)])[: 1 + (time >= 2)]
        if shake.note(float(time), places):
            shake.search(UNITS[: len(places)], np.array([time, time - 2])[: len(places)])
        found.append(shake.frequency)
    assert not any(found[:68]) and found[-1] == pytest.approx(2, rel=0.04)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rate", [0.4, 2, 5, 7, 10, 15])
def test_pictures_that_come_too_seldom_to_tell_show_no_shake(rate: float) -> None:
    times = np.arange(60) / rate
    drift = np.cumsum(np.random.default_rng(3).normal(0, 6, 60))
    assert not any(_note(Shake(), times, drift))
