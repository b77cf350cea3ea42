from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from gpenvid.stages import Lane, Outlet, Taken, background, latest, prefetch


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gpenvid")]


def test_every_item_arrives_in_order() -> None:
    assert list(prefetch(range(1000), depth=3)) == list(range(1000))
    assert threads() == []


def test_never_more_than_depth_ahead() -> None:
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for i in range(50):
            taken += 1
            yield i

    for seen, _ in enumerate(prefetch(source(), depth=4), start=1):
        # depth in the queue, one in the producer's hands waiting for room, one in the consumer's.
        assert taken <= seen + 4 + 1


def test_an_exception_keeps_its_place_in_the_order() -> None:
    def source() -> Iterator[int]:
        yield from (1, 2, 3)
        raise OSError("cable")

    seen = []
    with pytest.raises(OSError, match="cable"):
        for item in prefetch(source(), depth=8):
            seen.append(item)
    assert seen == [1, 2, 3]
    assert threads() == []


def test_closing_early_closes_the_source_in_its_thread_and_joins() -> None:
    closed_in = []

    def source() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed_in.append(threading.current_thread().name)

    stage = prefetch(source(), depth=2, name="decode")
    assert next(stage) == 0
    stage.close()  # type: ignore[attr-defined]
    assert closed_in == ["gpenvid-decode"]
    assert threads() == []


def test_stages_chain_and_all_end() -> None:
    chain = prefetch(prefetch(iter(range(100)), depth=2), depth=2)
    assert next(chain) == 0
    assert len(threads()) == 2
    chain.close()  # type: ignore[attr-defined]
    assert threads() == []


@pytest.mark.parametrize("depth", [0, -1])
def test_refuses_a_depth_that_could_never_pass_anything(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth {depth}"):
        next(prefetch([1], depth=depth))


def test_background_joins_and_raises_what_the_work_raised() -> None:
    stop = threading.Event()
    with background(lambda: stop.wait(100) and None, "watch"):
        assert threads() == ["gpenvid-watch"]
        stop.set()
    assert threads() == []

    def fail() -> None:
        raise OSError("cable")

    with pytest.raises(OSError, match="cable"), background(fail, "watch"):
        pass
    with pytest.raises(KeyError), background(fail, "watch"):
        raise KeyError


def test_latest_gives_the_freshest_and_tells_of_every_other() -> None:
    gate, dropped = threading.Event(), []
    produced = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        gate.wait(100)
        yield from range(1, 100)
        produced.set()

    stage = latest([Lane(source())], lambda lane, item: dropped.append((lane, item)))
    assert next(stage) == [Taken(0, [0])]
    gate.set()
    assert produced.wait(100)
    rest = [taken for news in stage for taken in news]
    assert [item for taken in rest for item in taken.items] == [99]
    assert rest[-1].ended
    assert dropped == [(0, i) for i in range(1, 99)]
    assert threads() == []


def test_latest_keeps_as_many_as_there_is_room_for() -> None:
    produced, dropped = threading.Event(), []

    def source() -> Iterator[int]:
        yield from range(10)
        produced.set()

    stage = latest([Lane(source(), depth=4)], lambda lane, item: dropped.append(item))
    first = next(stage)
    assert produced.wait(100)
    got = [item for news in [first, *stage] for taken in news for item in taken.items]
    assert sorted(got + dropped) == list(range(10))
    assert got[-4:] == [6, 7, 8, 9]


def test_latest_can_wait_and_then_drops_nothing() -> None:
    stage = latest([Lane(iter(range(500)), depth=3, wait=True)], lambda lane, item: pytest.fail("dropped"))
    news = list(stage)
    assert [item for taken in news for item in taken[0].items] == list(range(500))
    assert all(len(taken[0].items) <= 3 for taken in news)


def test_latest_joins_lanes_and_one_that_fails_ends_alone() -> None:
    def failing() -> Iterator[str]:
        yield "a"
        raise OSError("cable")

    lanes: list[Lane[object]] = [Lane(failing(), 9, True), Lane(iter(range(50)), 9, True)]
    news = [taken for each in latest(lanes, lambda lane, item: None) for taken in each]
    assert [item for taken in news if taken.lane == 1 for item in taken.items] == list(range(50))
    assert [item for taken in news if taken.lane == 0 for item in taken.items] == ["a"]
    (end,) = [taken for taken in news if taken.lane == 0 and taken.ended]
    assert isinstance(end.error, OSError)
    assert [taken.error for taken in news if taken.lane == 1 and taken.ended] == [None]


@pytest.mark.parametrize("wait", [False, True])
def test_latest_closed_early_closes_its_sources_in_their_threads_and_joins(wait: bool) -> None:
    closed_in = []

    def source() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed_in.append(threading.current_thread().name)

    stage = latest([Lane(source(), 2, wait), Lane(source(), 2, wait)], lambda lane, item: None)
    next(stage)
    stage.close()
    assert sorted(closed_in) == ["gpenvid-live-0", "gpenvid-live-1"]


def test_an_outlet_passes_on_in_order_and_finishes_what_waits() -> None:
    seen: list[int] = []
    outlet: Outlet[int] = Outlet(lambda inbox: seen.extend(inbox), depth=100, name="file")
    assert all(outlet.offer(item) for item in range(50))
    assert threads() == ["gpenvid-file"]
    assert outlet.close(10)
    assert seen == list(range(50))
    assert threads() == []
    assert not outlet.offer(51)


def test_an_outlet_refuses_what_it_has_no_room_for_and_never_waits() -> None:
    go, seen = threading.Event(), []

    def work(inbox: Outlet[int]) -> None:
        go.wait(100)
        seen.extend(inbox)

    outlet = Outlet(work, depth=3, name="slow")
    assert [outlet.offer(item) for item in range(5)] == [True, True, True, False, False]
    go.set()
    assert outlet.close(10)
    assert seen == [0, 1, 2]


def test_an_outlet_whose_work_fails_refuses_everything() -> None:
    def work(inbox: Outlet[int]) -> None:
        for _ in inbox:
            raise OSError("cable")

    outlet = Outlet(work, depth=3, name="broken")
    outlet.offer(1)
    while outlet.error is None:
        pass
    assert str(outlet.error) == "cable"
    assert outlet.close(10)
    assert not outlet.offer(2)


def test_work_that_waits_for_nothing_is_told_when_nobody_waits_for_it() -> None:
    def work(inbox: Outlet[int]) -> None:
        while not inbox.given_up:
            assert inbox.get(timeout=0.001) is None

    assert not Outlet(work, depth=1, name="stuck").close(0.05)
    assert threads() == []
