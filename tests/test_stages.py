from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from gpenvid.stages import background, prefetch


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
    with background(lambda: stop.wait(10) and None, "watch"):
        assert threads() == ["gpenvid-watch"]
        stop.set()
    assert threads() == []

    def fail() -> None:
        raise OSError("cable")

    with pytest.raises(OSError, match="cable"), background(fail, "watch"):
        pass
    with pytest.raises(KeyError), background(fail, "watch"):
        raise KeyError
