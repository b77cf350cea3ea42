"""The session's clock against sources whose clocks misbehave; all times in milliseconds unless said otherwise."""

from __future__ import annotations

from fractions import Fraction

from gpenvid.media.timeline import Timeline, microseconds

MS = Fraction(1, 1000)


def run(line: Timeline, packets: list[tuple[str, int, int]]) -> list[tuple[str, float]]:
    """(stream, source time, arrival) to (stream, session time)."""
    return [
        (stream, (time * 1000 + line.shift(stream, time, MS, arrived * 1000)) / 1000)
        for stream, time, arrived in packets
    ]


def test_a_session_begins_at_0_and_keeps_every_distance() -> None:
    packets = [("v", 5000, 90), ("a", 5010, 91), ("v", 5040, 130), ("a", 5031, 131), ("v", 5093, 180)]
    assert run(Timeline(), packets) == [("v", 0), ("a", 10), ("v", 40), ("a", 31), ("v", 93)]


def test_times_are_exact_to_half_a_microsecond() -> None:
    assert microseconds(3003, Fraction(1, 90000)) == 33367
    assert microseconds(1024, Fraction(1, 44100)) == 23220


def test_a_late_burst_is_no_jump() -> None:
    line = Timeline()
    run(line, [("v", 0, 0), ("v", 40, 40)])
    assert run(line, [("v", t, 2000) for t in range(80, 2040, 40)])[-1] == ("v", 2000)
    assert line.jumps == 0


def test_a_long_gap_that_arrival_confirms_is_kept() -> None:
    line = Timeline()
    assert run(line, [("v", 0, 0), ("v", 60_000, 59_000)]) == [("v", 0), ("v", 60_000)]
    assert line.jumps == 0


def test_a_wrap_goes_on_by_arrival_and_sound_follows_in_step() -> None:
    line = Timeline()
    top = 95_443_717
    before = [("v", top - 40, 0), ("a", top - 30, 5)]
    after = [("v", 0, 40), ("a", 10, 45), ("v", 40, 80), ("a", 31, 85)]
    assert run(line, before + after) == [("v", 0), ("a", 10), ("v", 40), ("a", 50), ("v", 80), ("a", 71)]
    assert line.jumps == 1


def test_a_jump_ahead_that_arrival_denies_is_taken_out() -> None:
    line = Timeline()
    assert run(line, [("v", 0, 0), ("v", 40, 40), ("v", 100_000, 80), ("v", 100_040, 120)])[2:] == [
        ("v", 80),
        ("v", 120),
    ]
    assert line.jumps == 1


def test_streams_that_jump_by_different_amounts_each_stay_where_they_were() -> None:
    line = Timeline()
    run(line, [("v", 10_000, 0), ("a", 10_000, 0)])
    assert run(line, [("v", 0, 40), ("a", 700_000, 40)]) == [("v", 40), ("a", 40)]
    assert line.jumps == 2


def test_a_step_back_of_less_than_half_a_second_is_passed_on() -> None:
    line = Timeline()
    assert run(line, [("v", 1000, 0), ("v", 1040, 40), ("v", 840, 80)])[-1] == ("v", -160)


def test_a_new_connection_comes_at_the_time_given_but_never_before_what_was_shown() -> None:
    line = Timeline()
    run(line, [("v", 0, 0), ("v", 40, 40)])
    line.restart(30_000_000)
    assert run(line, [("a", 777, 30_000), ("v", 787, 30_001)]) == [("a", 30_000), ("v", 30_010)]
    line.restart(0)
    assert run(line, [("v", 5, 31_000)]) == [("v", 30_010.001)]


def test_memory_does_not_grow_with_jumps() -> None:
    line = Timeline()
    for i in range(1000):
        run(line, [("v", 100_000 * (i % 2), i * 40), ("a", 100_000 * (i % 2), i * 40)])
    assert line.jumps == 999
    assert len(line._shifts) == 8


def test_a_stream_that_slept_through_many_jumps_wakes_where_arrival_says() -> None:
    line = Timeline()
    run(line, [("a", 0, 0)])
    run(line, [("v", 100_000 * (i % 2), i * 40) for i in range(20)])
    assert run(line, [("a", 7021, 800), ("a", 7042, 821)]) == [("a", 800), ("a", 821)]
