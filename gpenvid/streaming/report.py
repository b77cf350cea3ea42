"""What became of the pictures of a live session: counted while it runs, told at any time."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field
from math import ceil, log
from pathlib import Path
from typing import Any

from gpenvid.report import versions, write_whole

_LEAST = 1e-4
_GROWTH = log(1.02)


class Latency:
    """Ages of pictures in seconds, kept as a histogram: a day takes no more room than a minute. Safe from any thread.

    Percentiles are exact to 2 %.
    """

    def __init__(self) -> None:
        self._bins: dict[int, int] = {}
        self._lock = threading.Lock()
        self.count = 0

    def add(self, seconds: float) -> None:
        """One more picture of this age."""
        number = ceil(log(max(seconds, _LEAST) / _LEAST) / _GROWTH)
        with self._lock:
            self._bins[number] = self._bins.get(number, 0) + 1
            self.count += 1

    def percentile(self, share: float) -> float | None:
        """The age that this share (0 to 1) of the pictures did not exceed; None without any."""
        with self._lock:
            bins, wanted = sorted(self._bins.items()), share * self.count
        seen = 0
        for number, count in bins:
            seen += count
            if seen >= wanted:
                return float(_LEAST * 2.718281828459045 ** (number * _GROWTH))
        return None


@dataclass(slots=True)
class PictureCounts:
    """Every decoded picture is one of three: decoded = restored + passed + dropped, once the session has ended.

    restored: went through the networks, whether or not a face was in it; passed: given out as it came, because it was
    late or time was short; dropped: not given out. fitted: came in another size or format than the session's; held:
    pictures given out again while the source was away, which were counted before.
    """

    restored: int = 0
    passed: int = 0
    dropped: int = 0
    fitted: int = 0
    held: int = 0


@dataclass(slots=True)
class CameraReport:
    """One source and its outputs. latency: percentiles of the age of pictures, from arrival to encoded, seconds."""

    name: str
    source: str
    state: str
    pictures: PictureCounts
    received: dict[str, Any]
    outputs: list[dict[str, Any]]
    latency: dict[str, float | None]
    notes: list[str] = field(default_factory=list)
    error: str | None = None


@dataclass(slots=True)
class LiveReport:
    """What `live` did. seconds: wall time; degraded: how often the effort was changed; faces: as in `report.Counts`."""

    cameras: list[CameraReport]
    model: dict[str, Any]
    detector: dict[str, Any]
    options: dict[str, Any]
    faces: dict[str, int]
    stages: dict[str, float]
    degraded: int
    seconds: float
    versions: dict[str, str] = field(default_factory=lambda: versions())

    def to_json(self) -> str:
        """The report as indented JSON text."""
        return json.dumps(asdict(self), indent=2, default=str) + "\n"

    def write(self, path: str | Path) -> None:
        """Write the report as JSON, completely or not at all. Raises MediaError."""
        write_whole(path, self.to_json())
