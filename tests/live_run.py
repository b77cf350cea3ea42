"""Live sessions with stub networks: in this thread or beside it, every picture accounted for, no thread left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes import PaintRestorer, SquareDetector
from live_sink import GatheringSink

from gpenvid.streaming.report import LiveReport
from gpenvid.streaming.session import CameraSpec, live, live_cameras

NETWORKS: dict[str, Any] = {"detector": SquareDetector(), "confirm": 0.0, "fade": 0.0, "degrade": False}


def run(url: str, sink: GatheringSink, **options: Any) -> LiveReport:
    report = live(url, sink=sink, **(NETWORKS | {"restorer": PaintRestorer()} | options))
    accounted(report)
    return report


def run_all(cameras: dict[GatheringSink, str], **options: Any) -> LiveReport:
    """Several cameras: their sinks and URLs."""
    specs = [CameraSpec(name=sink.name, source=url, sink=sink) for sink, url in cameras.items()]
    report = live_cameras(specs, **(NETWORKS | {"restorer": PaintRestorer()} | options))
    accounted(report)
    return report


def accounted(report: LiveReport) -> None:
    """Every decoded picture is one of three, and no thread is left."""
    for camera in report.cameras:
        counts = camera.pictures
        assert camera.received["decoded"] == counts.restored + counts.passed + counts.dropped
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("gpenvid")] == []


@contextmanager
def running(work: Callable[..., LiveReport], *what: Any, **options: Any) -> Iterator[Callable[[], LiveReport]]:
    """A session in a thread; calling what is given stops it and returns its report."""
    stop, done = threading.Event(), []
    thread = threading.Thread(target=lambda: done.append(work(*what, stop=stop, **options)))
    thread.start()

    def end() -> LiveReport:
        stop.set()
        thread.join(100)
        assert done, "the session did not end"
        return done[0]

    try:
        yield end
    finally:
        stop.set()
        thread.join(100)


def pictures(url: str, sink: GatheringSink, count: int, **options: Any) -> LiveReport:
    """A session that ends after so many pictures, however long they take."""
    with running(run, url, sink, **options) as end:
        sink.wait_for(count)
        return end()


def lasting(seconds: float, url: str, sink: GatheringSink, **options: Any) -> LiveReport:
    """A session that ends so many seconds after its first picture."""
    with running(run, url, sink, **options) as end:
        sink.wait_for(1)
        time.sleep(seconds)
        return end()


@contextmanager
def delays() -> Iterator[Callable[[], float]]:
    """Seconds by which this machine, busy with other things, has kept waiting; what is measured may be late by that."""
    late, over = 0.0, threading.Event()

    def wait() -> None:
        nonlocal late
        while not over.is_set():
            before = time.monotonic()
            time.sleep(0.01)
            late += time.monotonic() - before - 0.01

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield lambda: late
    finally:
        over.set()
        thread.join()


def demuxers() -> list[int]:
    """The demuxers of this process, youngest last."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == os.getpid() and b"gpenvid.media.demux" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return sorted(found)
