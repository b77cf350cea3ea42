"""Who is restored, and how much: choices that fade."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gpenvid.errors import OptionsError
from gpenvid.faces import geometry
from gpenvid.faces.selection import turn
from gpenvid.faces.track import Tracker
from gpenvid.options import TrackerOptions
from gpenvid.types import Face

MODEL = np.array([[-31.5, -36, 0], [31.5, -36, 0], [0, 2, 31.5], [-28, 29.5, 0], [28, 29.5, 0]])
"""A head's landmarks in space: the nose half the eyes' distance before the rest."""


def _turned(degrees: float, x: float = 300, y: float = 200, scale: float = 1.0) -> Face:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    points = scale * np.stack([MODEL[:, 0] * c + MODEL[:, 2] * s, MODEL[:, 1]], 1) + [x, y]
    box = np.array([x - 60 * scale, y - 75 * scale, x + 60 * scale, y + 70 * scale])
    return Face(box.astype(np.float32), points.astype(np.float32), 0.95)


def _strengths(
    pictures: list[list[Face]], size: tuple[int, int] | None = None, **options: object
) -> list[dict[int, float]]:
    tracker = Tracker(TrackerOptions(**options))  # type: ignore[arg-type]
    done = [d for k, faces in enumerate(pictures) for d in tracker.update(faces, k / 25, size=size)] + tracker.flush()
    return [{track.id: track.strength for track in tracks} for _, tracks in done]


@pytest.mark.parametrize("angle", [0, 20, -45, 60, -80])
def test_turn_is_read_from_the_nose(angle: float) -> None:
    assert turn(_turned(angle).landmarks) == pytest.approx(abs(angle), abs=0.5)


def test_turn_does_not_mind_roll_and_size() -> None:
    z = _turned(30).landmarks @ [1, 1j] * np.exp(0.6j) * 3
    assert turn(np.stack([z.real, z.imag], -1)) == pytest.approx(30, abs=0.5)


def test_a_face_fades_as_it_turns_to_profile_and_back() -> None:
    angles = np.concatenate([np.linspace(0, 88, 60), np.linspace(88, 0, 60)])
    strength = np.array([s.get(1, 0.0) for s in _strengths([[_turned(a)] for a in angles])])
    assert strength[:30].min() == 1 and strength[-30:].min() == 1 and strength[58:62].max() < 0.1
    assert np.abs(np.diff(strength)).max() <= 0.2 + 1e-9


def test_a_face_that_grows_too_large_fades() -> None:
    sizes = np.linspace(1, 2, 60)
    strengths = _strengths([[_turned(0, 500, 400, scale)] for scale in sizes], max_face=200)
    for scale, strength in zip(sizes, strengths, strict=True):
        if scale * 145 < 160:
            assert strength == {1: 1.0}
        if scale * 145 > 210:
            assert strength == {}


def test_the_largest_is_chosen_and_kept_until_another_is_clearly_larger() -> None:
    pictures = [[_turned(0, 300), _turned(0, 700, scale=0.8 + 0.01 * k)] for k in range(80)]
    strengths = _strengths(pictures, faces="largest")
    swap = next(k for k, s in enumerate(strengths) if 2 in s)
    assert 1.2 < 0.8 + 0.01 * swap < 1.35
    assert strengths[0] == {1: 1.0} and strengths[-1] == {2: 1.0}
    assert max(abs(a.get(1, 0) - b.get(1, 0)) for a, b in pairwise(strengths)) <= 0.2 + 1e-9


def test_the_central_face_needs_to_know_where_the_centre_is() -> None:
    pictures = [[_turned(0, 300), _turned(0, 700)]] * 20
    assert _strengths(pictures, size=(1280, 400), faces="center")[-1] == {2: 1.0}
    with pytest.raises(ValueError, match="size"):
        _strengths(pictures, faces="center")


def test_tracks_are_chosen_by_number() -> None:
    pictures = [[_turned(0, 300), _turned(0, 700), _turned(0, 1100)]] * 20
    assert [set(s) for s in _strengths(pictures, faces="1,3")] == [{1, 3}] * 20


@pytest.mark.parametrize("options", [{"faces": "biggest"}, {"faces": ""}, {"max_face": -1}, {"max_turn": 0}])
def test_nonsense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionsError):
        TrackerOptions(**options)  # type: ignore[arg-type]


def test_the_channels_template_faces_the_viewer() -> None:
    _, landmarks = geometry.decode(np.array([[0, np.log(50), 0, 0, 0, 0, 0]], complex))
    assert turn(np.stack([landmarks.real, landmarks.imag], -1))[0] < 2
