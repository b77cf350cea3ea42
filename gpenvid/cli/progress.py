"""What a long command shows while it works, and how it is asked to stop."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self.disable = True if quiet else None
        self.bar: tqdm[Any] | None = None

    def __call__(self, done: int, total: int | None, faces: int) -> None:
        """Show how far the work is; see `run.ProgressCallback`."""
        if self.bar is None:
            self.bar = tqdm(total=total, unit=" frames", disable=self.disable, dynamic_ncols=True)
        self.bar.update(done - self.bar.n)
        self.bar.set_postfix_str(f"{faces} faces", refresh=False)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the bar; the next picture starts another."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@contextmanager
def stoppable(told: str = "finishing the file; once more to abort") -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the file is finished properly; a second Ctrl-C aborts.

    told: what the first one is answered with.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print(f"\n{told}", file=sys.stderr)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
