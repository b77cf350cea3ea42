"""How much memory the program takes, and that it doesn't take more the longer it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch

from gpenvid.bench import Table
from gpenvid.bench.clips import RATE, make_clip, waves
from gpenvid.bench.media import OneFace, peak_bytes
from gpenvid.bench.restorer import present
from gpenvid.enhancer import Enhancer
from gpenvid.run import enhance

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "one face at a time": {"batch": 1},
    "eight faces at a time": {"batch": 8},
    "no look-ahead": {"lag": 0.0},
    "detection in the full picture": {"detect_size": 0},
}
"""What is measured: a name, and the options of `enhance`."""


def run(
    seconds: float = 2, size: tuple[int, int] = (1280, 720), *, pictures: int = 10_000, device: str = "auto"
) -> list[Table]:
    """Measure; takes some minutes at the default size.

    Peak MB of a fresh process that enhances a film with two faces, per setting, and of the GPU where there is one;
    ratio: to the defaults. Growth: MB that a process has resident after a tenth of many small pictures with a face have
    gone through the Enhancer, and after all of them; their ratio is 1 when nothing is kept. The restorer is
    `restorer.present`, on the device.
    """
    with tempfile.TemporaryDirectory(prefix="gpenvid-bench-") as folder:
        source = Path(folder) / "in.mp4"
        make_clip(source, seconds, size, faces=2)
        peaks = {name: _fresh("peak", str(source), settings, device) for name, settings in SETTINGS.items()}
    early, late = _fresh("growth", pictures, device)
    base = peaks["defaults"][0]
    return [
        Table(
            f"Peak memory, {seconds:g} s of {size[0]}x{size[1]} with two faces",
            ("setting", "MB", "GPU MB", "ratio"),
            [(name, resident / 1e6, device / 1e6, resident / base) for name, (resident, device) in peaks.items()],
        ),
        Table(
            f"Memory over {pictures} pictures with a face",
            ("after a tenth MB", "after all MB", "ratio"),
            [(early / 1e6, late / 1e6, late / early)],
        ),
    ]


def peak(source: str, settings: dict[str, Any], device: str) -> tuple[int, int]:
    """Enhance the film; the peak bytes of this process, and of the GPU by PyTorch's count."""
    restorer = present(device, settings.get("batch", 0))
    enhance(source, Path(source).with_name("out.mp4"), restorer=restorer, device=device, preset="veryfast", **settings)
    return peak_bytes(), torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def growth(pictures: int, device: str) -> tuple[int, int]:
    """Send small pictures with a face through an Enhancer; bytes resident after a tenth of them, and after all."""
    enhancer = Enhancer(restorer=present(device), detector=OneFace(present=True))
    seen = []
    for index, _ in enumerate(enhancer.process(_endless(pictures)), start=1):
        if index in (pictures // 10, pictures):
            seen.append(resident_bytes())
    return seen[0], seen[1]


def resident_bytes() -> int:
    """The bytes of memory that this process has resident now; where the system doesn't tell, the most it had."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_bytes()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _endless(pictures: int) -> Iterator[av.VideoFrame]:
    """A second of small pictures over and over, each a picture of its own, its time going on."""
    second = [frame.to_ndarray() for frame in waves(RATE, (192, 128))]
    for index in range(pictures):
        frame = av.VideoFrame.from_ndarray(second[index % RATE], "yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, RATE)
        yield frame


def _fresh(function: str, *arguments: object) -> tuple[int, int]:
    """What a function of this module returns in a process of its own, set up as the program's."""
    call = (
        "import sys; from gpenvid.gpen.memory import spend_memory_for_time; spend_memory_for_time(); "
        f"from gpenvid.bench import memory; sys.stdout.write(str(list(memory.{function}(*{arguments!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", call], check=True, capture_output=True, text=True)
    first, second = json.loads(done.stdout.splitlines()[-1])
    return first, second
