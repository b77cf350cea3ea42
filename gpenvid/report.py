"""What was done: counted while the work goes on, told at the end."""

from __future__ import annotations

import json
import platform
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpenvid.errors import MediaError
from gpenvid.media.target import Target
from gpenvid.trace import Trace
from gpenvid.types import Track

MAX_TRACKS = 10_000
"""Tracks described one by one; later ones are only counted, so that a report of a day stays small."""


class StageClock:
    """Seconds spent in each stage, by name. A stage must be entered from one thread only.

    With `trace`, each stay in a stage is also drawn on its timeline.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.trace: Trace | None = None
        self._threads: dict[str, str] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent in the `with` block to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            self.seconds[stage] += end - start
            self._threads[stage] = threading.current_thread().name
            if self.trace is not None:
                self.trace.span(stage, start, end)

    @property
    def bottleneck(self) -> str:
        """The stage that the others wait for: the longest one of the busiest thread; "" before any work."""
        busy: dict[str, float] = defaultdict(float)
        for stage, spent in self.seconds.items():
            busy[self._threads[stage]] += spent
        return max(self.seconds, key=lambda stage: (busy[self._threads[stage]], self.seconds[stage]), default="")


@dataclass(slots=True)
class TrackSummary:
    """The life of one track: times in seconds, size of the face box in pixels of the upright picture."""

    id: int
    first: float
    last: float
    pictures: int
    mean_size: float
    mean_score: float

    @classmethod
    def born(cls, track: Track, seconds: float) -> TrackSummary:
        """The summary of a track that is seen for the first time."""
        return cls(track.id, seconds, seconds, 1, track.face.size, track.face.score)

    def seen(self, track: Track, seconds: float) -> None:
        """Account for the track's next picture."""
        self.last = seconds
        self.pictures += 1
        self.mean_size += (track.face.size - self.mean_size) / self.pictures
        self.mean_score += (track.face.score - self.mean_score) / self.pictures


@dataclass(slots=True)
class Counts:
    """What happened to the pictures and faces.

    faces = restored + too_small (for min_face, or faded out) + skipped (outside the picture, or no face's shape).
    """

    pictures: int = 0
    faces: int = 0
    restored: int = 0
    too_small: int = 0
    skipped: int = 0
    cuts: int = 0
    tracks: int = 0


@dataclass(slots=True)
class Report:
    """What `enhance` did with one input. `seconds` is wall time; `stages` overlap, so they may add up to more.

    `bottleneck` names the stage that the others wait for. `resumed`: where (s) the work of an earlier, killed run was
    gone on with; counts and tracks are those of this run.
    """

    input: str
    output: str | None
    model: dict[str, Any]
    detector: dict[str, Any]
    options: dict[str, Any]
    counts: Counts = field(default_factory=Counts)
    media: dict[str, Any] = field(default_factory=dict)
    tracks: list[TrackSummary] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    bottleneck: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    resumed: float | None = None
    input_sha256: str | None = None
    versions: dict[str, str] = field(default_factory=lambda: versions())

    def to_json(self) -> str:
        """The report as indented JSON text."""
        return json.dumps(asdict(self), indent=2, default=str) + "\n"

    def write(self, path: str | Path) -> None:
        """Write the report as JSON, completely or not at all. Raises MediaError."""
        write_whole(path, self.to_json())


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file, completely or not at all. Raises MediaError."""
    target = Target(path)
    target.claim()
    try:
        target.part.write_text(text, encoding="utf-8")
    except OSError as error:
        target.discard()
        raise MediaError(f"{path}: can't be written ({error.strerror})") from error
    target.commit()


def versions() -> dict[str, str]:
    """The versions of gpenvid, Python and the packages that decide the result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("gpenvid", "torch", "av", "opencv-python", "numpy", "facexlib"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
