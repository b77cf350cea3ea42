"""The ladder of effort: down when the work fills the time, up when there has been room, patiently."""

from __future__ import annotations

from itertools import pairwise

from gpenvid.streaming.pace import LADDER, Pace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def work(pace: Pace, clock: Clock, seconds: float, load: float, late: int = 0) -> list[int]:
    """So many seconds of ten rounds a second that each fill this share of the time; the rungs stood on."""
    rungs = []
    for _ in range(round(seconds * 10)):
        clock.now += 0.1
        pace.took(0.1 * load, late)
        if not rungs or rungs[-1] != pace.rung:
            rungs.append(pace.rung)
    return rungs


def paced() -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(clock=clock), clock


def test_nothing_is_given_up_while_there_is_time() -> None:
    pace, clock = paced()
    assert work(pace, clock, 60, 0.85) == [0]
    assert pace.effort == LADDER[0]


def test_goes_down_one_rung_every_half_second_and_ends_at_passing_through() -> None:
    pace, clock = paced()
    assert work(pace, clock, 5, 1.0) == [0, 1, 2, 3, 4, 5, 6]
    assert pace.effort.faces == 0
    assert pace.steps == 6


def test_late_pictures_count_as_too_much_work_before_the_time_is_full() -> None:
    pace, clock = paced()
    assert work(pace, clock, 1.1, 0.7, late=1) == [0, 1, 2]
    pace, clock = paced()
    assert work(pace, clock, 10, 0.2, late=1) == [0]


def test_recovers_when_the_load_falls() -> None:
    pace, clock = paced()
    work(pace, clock, 5, 1.0)
    assert work(pace, clock, 30, 0.1) == [6, 5, 4, 3, 2, 1, 0]


def test_a_step_up_that_does_not_hold_is_tried_less_and_less_often() -> None:
    pace, clock = paced()
    tries = []
    for _ in range(6000):
        clock.now += 0.1
        before = pace.rung
        pace.took(0.1 if pace.rung < 3 else 0.03, 0)
        if pace.rung < before:
            tries.append(clock.now)
    gaps = [b - a for a, b in pairwise(tries)]
    assert pace.rung in (2, 3)
    assert gaps[0] < 4
    assert gaps[-1] > 25
    assert max(gaps) < 40
