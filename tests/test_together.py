"""Several live sequences: followed apart, restored together."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from fakes import PaintRestorer, SquareDetector, mean_inside, picture

from gpenvid.enhancer import Enhancer
from gpenvid.options import Options, TrackerOptions
from gpenvid.streaming.pace import Effort
from gpenvid.streaming.together import Following, Task, Together

PAINT = pytest.approx([200, 60, 60], abs=3)
OPTIONS = {"lag": 0.0, "confirm": 0.0, "fade": 0.0}


def frame(seconds: float, *squares: tuple[float, float, float]) -> av.VideoFrame:
    made = av.VideoFrame.from_ndarray(picture(320, 240, *squares), "rgb24")
    made.pts, made.time_base = round(seconds * 1000), Fraction(1, 1000)
    return made


def colour(frame: av.VideoFrame, x: float, y: float) -> np.ndarray:
    return mean_inside(frame.to_ndarray(), x, y, 12)


def together() -> tuple[Together, PaintRestorer, SquareDetector]:
    restorer, detector = PaintRestorer(), SquareDetector()
    return Together(Enhancer(Options.of(**OPTIONS), restorer=restorer, detector=detector)), restorer, detector


def test_pictures_of_several_sequences_are_one_batch_for_each_network() -> None:
    work, restorer, detector = together()
    frames = [frame(0, (80 + 30 * i, 120, 40)) for i in range(3)]
    work.enhance([Task(Following(TrackerOptions(**OPTIONS)), each, Effort()) for each in frames])
    assert (restorer.batches, detector.calls) == ([3], [3])
    assert [colour(each, 80 + 30 * i, 120) for i, each in enumerate(frames)] == [PAINT] * 3


def test_pictures_of_one_sequence_are_followed_in_their_order() -> None:
    work, restorer, _ = together()
    following = Following(TrackerOptions(**OPTIONS))
    frames = [frame(i / 25, (80 + 2 * i, 120, 40)) for i in range(4)]
    work.enhance([Task(following, each, Effort()) for each in frames])
    assert restorer.batches == [4]
    assert colour(frames[3], 86, 120) == PAINT


def test_less_effort_searches_less_often_and_restores_the_largest_faces_only() -> None:
    work, restorer, detector = together()
    following = Following(TrackerOptions(**OPTIONS))
    frames = [frame(i / 25, (80, 120, 40), (220, 120, 56)) for i in range(8)]
    for each in frames:
        work.enhance([Task(following, each, Effort(4, 1))])
    assert detector.calls == [1, 1]
    assert restorer.batches == [1] * 8
    assert colour(frames[7], 220, 120) == PAINT
    assert colour(frames[7], 80, 120) == pytest.approx([20, 200, 40], abs=3)


@pytest.mark.filterwarnings("error")
def test_faces_are_followed_anew_after_an_hour_away() -> None:
    work, _, _ = together()
    following = Following(TrackerOptions(**OPTIONS))
    frames = [frame(seconds, (80, 120, 40)) for seconds in (0, 0.04, 20, 20.04, 3620, 3620.04)]
    for each in frames:
        work.enhance([Task(following, each, Effort())])
        assert colour(each, 80, 120) == PAINT


def test_nothing_to_do_is_nothing_done() -> None:
    work, restorer, detector = together()
    work.enhance([])
    assert (restorer.batches, detector.calls) == ([], [])


def test_look_ahead_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lag 0\.4"):
        Following(TrackerOptions())
