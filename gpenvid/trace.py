"""A timeline of the work, for people who want to see where the time goes."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from gpenvid.errors import MediaError
from gpenvid.media.target import Target

_ME = {"pid": 1}


class Trace:
    """Writes spans of time in Chrome's trace event format, one line each as they end: a long job needs no more memory.

    `chrome://tracing` and Perfetto show them, a row per thread. The file appears when it is complete.
    Use it as a context manager; `span` may be called from any thread.
    """

    def __init__(self, path: str | Path, sources: tuple[Path, ...] = ()) -> None:
        """Refuse what can't be written, or is one of the sources; see `Target`. Raises MediaError."""
        self._target = Target(path, sources)
        self._start = time.perf_counter()
        self._lock = threading.Lock()
        self._rows: dict[str, int] = {}
        self._file: TextIO | None = None

    def __enter__(self) -> Trace:
        """Open the file. Raises MediaError."""
        self._target.claim()
        self._file = self._target.part.open("w", encoding="utf-8")
        self._file.write("[\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file; what led up to a failure is kept too. Raises MediaError if the disk is full."""
        if self._file is None:
            return
        with self._lock:
            file, self._file = self._file, None
        try:
            with file:
                # The format wants no comma behind the last event.
                file.write(
                    json.dumps({"name": "process_name", "ph": "M", **_ME, "args": {"name": "gpenvid"}}) + "\n]\n"
                )
        except OSError as failure:
            self._target.discard()
            raise MediaError(f"{self._target.path}: can't be written ({failure.strerror})") from failure
        self._target.commit()

    def span(self, name: str, start: float, end: float) -> None:
        """One piece of work of the calling thread; times as of `time.perf_counter`, in seconds."""
        thread = threading.current_thread().name
        with self._lock:
            if self._file is None:
                return
            row = self._rows.get(thread)
            if row is None:
                row = self._rows[thread] = len(self._rows)
                self._event({"name": "thread_name", "ph": "M", "tid": row, "args": {"name": thread}})
            ts, dur = (start - self._start) * 1e6, (end - start) * 1e6
            self._event({"name": name, "ph": "X", "tid": row, "ts": round(ts, 1), "dur": round(dur, 1)})

    def _event(self, event: dict[str, object]) -> None:
        assert self._file is not None
        self._file.write(json.dumps({**event, **_ME}) + ",\n")
