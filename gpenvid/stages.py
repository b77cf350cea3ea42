"""The bridges between stages: the only place where threads are started."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Queue
from typing import TypeVar

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
        try:
            close = getattr(source, "close", None)
            if close is not None:
                close()
        except BaseException as raised:
            error = error or raised
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
