"""The bridges between stages: the only place where threads are started."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


def prefetch(items: Iterable[T], depth: int, name: str = "prefetch") -> Generator[T, None, None]:
    """Iterate `items` in a thread of their own, at most `depth` items ahead of the consumer; nothing is dropped.

    An exception raised by `items` reaches the consumer in its place in the order. When the consumer stops early
    (closes the generator), `items` is closed in its own thread and the thread is joined before close returns.
    """
    if depth < 1:
        raise ValueError(f"depth {depth}: must be 1 or more")
    queue: Queue[T | _End] = Queue(depth)
    stop = threading.Event()

    def work() -> None:
        error = None
        source = iter(items)
        try:
            for item in source:
                queue.put(item)
                if stop.is_set():
                    break
        except BaseException as raised:
            error = raised
        error = _close(source, error)
        queue.put(_End(error))

    thread = threading.Thread(target=work, name=f"gpenvid-{name}", daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        while thread.is_alive():
            try:
                queue.get(timeout=0.01)
            except Empty:
                continue
        thread.join()


def _close(source: object, error: BaseException | None) -> BaseException | None:
    """Close an iterator, if it can be closed, after this error or none; the first error that there was."""
    try:
        close = getattr(source, "close", None)
        if close is not None:
            close()
    except BaseException as raised:
        return error or raised
    return error


@dataclass(frozen=True, slots=True)
class Lane(Generic[T]):
    """One of the iterables that `latest` joins.

    depth: items that wait at most. wait: whether the producer waits when there is no room; else its oldest item goes.
    """

    items: Iterable[T]
    depth: int = 1
    wait: bool = False


@dataclass(frozen=True, slots=True)
class Taken(Generic[T]):
    """What waited in a lane, oldest first. ended: there will be no more of it; error: because of this exception."""

    lane: int
    items: list[T]
    ended: bool = False
    error: BaseException | None = None


@dataclass(slots=True)
class _Waiting(Generic[T]):
    items: deque[T] = field(default_factory=deque)
    ended: bool = False
    told: bool = False
    error: BaseException | None = None

    @property
    def news(self) -> bool:
        return bool(self.items) or (self.ended and not self.told)

    def take(self, lane: int) -> Taken[T]:
        taken = Taken(lane, list(self.items), self.ended, self.error)
        self.items.clear()
        self.told = self.ended
        return taken


def latest(
    lanes: Sequence[Lane[T]], dropped: Callable[[int, T], None], name: str = "live"
) -> Generator[list[Taken[T]], None, None]:
    """Iterate every lane in a thread of its own; each time the consumer asks, give it all that waits in any of them.

    A lane without anything new doesn't appear. Items that found no room are given to `dropped(lane, item)`, from the
    lane's thread. A lane that raises ends alone. Ends after all lanes have; when the consumer stops early, each lane is
    closed in its thread, once its iterator has come to its next item.
    """
    if any(lane.depth < 1 for lane in lanes):
        raise ValueError(f"depths {[lane.depth for lane in lanes]}: must be 1 or more")
    news = threading.Condition()
    waiting: list[_Waiting[T]] = [_Waiting() for _ in lanes]
    stop = threading.Event()

    def work(number: int, lane: Lane[T], mine: _Waiting[T]) -> None:
        error = None
        source = iter(lane.items)
        try:
            for item in source:
                with news:
                    if lane.wait:
                        news.wait_for(lambda: len(mine.items) < lane.depth or stop.is_set())
                    overtaken = mine.items.popleft() if len(mine.items) >= lane.depth else None
                    if not stop.is_set():
                        mine.items.append(item)
                    news.notify_all()
                if overtaken is not None:
                    dropped(number, overtaken)
                if stop.is_set():
                    break
        except BaseException as raised:
            error = raised
        error = _close(source, error)
        with news:
            mine.ended, mine.error = True, error
            news.notify_all()

    threads = [
        threading.Thread(target=work, args=(i, lane, waiting[i]), name=f"gpenvid-{name}-{i}", daemon=True)
        for i, lane in enumerate(lanes)
    ]
    for thread in threads:
        thread.start()
    try:
        while not all(each.told for each in waiting):
            with news:
                news.wait_for(lambda: any(each.news for each in waiting))
                taken = [each.take(i) for i, each in enumerate(waiting) if each.news]
                news.notify_all()
            yield taken
    finally:
        with news:
            stop.set()
            news.notify_all()
        for thread in threads:
            thread.join()


@contextmanager
def background(work: Callable[[], None], name: str) -> Iterator[None]:
    """Run `work` in a thread of its own beside the `with` block, and join it at the end of the block.

    The block's end doesn't tell `work` to return: whoever enters arranges for that before. An exception of `work` is
    raised there, unless the block raises its own.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as raised:
            errors.append(raised)

    thread = threading.Thread(target=run, name=f"gpenvid-{name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


class Outlet(Generic[T]):
    """Hands items over to `work`, which takes them in a thread of its own, and never makes the giver wait.

    The giver's end is `offer` and `close`; `work` is called with the outlet and takes with `get`, or by iterating,
    until nothing comes any more. `error` is what `work` raised, if it did; then every offer is refused.
    """

    def __init__(self, work: Callable[[Outlet[T]], None], depth: int, name: str) -> None:
        """Start the thread. At most `depth` items wait."""
        if depth < 1:
            raise ValueError(f"depth {depth}: must be 1 or more")
        self.error: BaseException | None = None
        self._items: deque[T] = deque()
        self._depth = depth
        self._changed = threading.Condition()
        self._ended = False
        self._given_up = False
        self._done = False
        self._thread = threading.Thread(target=self._run, args=(work,), name=f"gpenvid-{name}", daemon=True)
        self._thread.start()

    def offer(self, item: T) -> bool:
        """Give an item; whether there was room for it."""
        with self._changed:
            if self._ended or self._done or len(self._items) >= self._depth:
                return False
            self._items.append(item)
            self._changed.notify()
            return True

    def end(self) -> None:
        """Say that no more comes, and don't wait."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self, timeout: float, interrupt: Callable[[], None] = lambda: None) -> bool:
        """Say that no more comes and wait for `work` to finish with what it has; whether it did within the timeout.

        After the timeout `given_up` is set, `interrupt` is called and `work` has five seconds to notice; a thread that
        is stuck in a call that doesn't return even then is left behind, and ends with the process.
        """
        self.end()
        self._thread.join(timeout)
        if not self._thread.is_alive():
            return True
        self._given_up = True
        interrupt()
        self._thread.join(5)
        return False

    def get(self, timeout: float | None = None) -> T | None:
        """The next item, for `work`. None if nothing came for so many seconds, or nothing comes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended, timeout)
            return self._items.popleft() if self._items and not self._given_up else None

    def __iter__(self) -> Iterator[T]:
        """Take items until nothing comes any more, for `work`."""
        while (item := self.get()) is not None:
            yield item

    @property
    def ended(self) -> bool:
        """Whether no more is offered; some may still wait."""
        return self._ended

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for `work` any more: it must return as soon as it can."""
        return self._given_up

    def _run(self, work: Callable[[Outlet[T]], None]) -> None:
        try:
            work(self)
        except BaseException as raised:
            self.error = raised
        finally:
            with self._changed:
                self._done = True
                self._items.clear()
