"""How near the whole program comes to its slowest stage: all of them beside each other, and each one alone."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from gpenvid.bench import Table
from gpenvid.bench.clips import make_clip, repeat_clip
from gpenvid.enhancer import Enhancer
from gpenvid.faces.detect import Detector
from gpenvid.gpen.restorer import Restorer
from gpenvid.media.planes_torch import current
from gpenvid.media.reader import Reader
from gpenvid.media.writer import Writer
from gpenvid.options import Options
from gpenvid.run import enhance

FINDING = ("thumbnail", "track", "detect", "crop")
"""What the thread that finds faces does, by the names of the clock."""


def measure(
    restorer: Restorer,
    detector: Detector,
    *,
    hwaccel: str = "none",
    seconds: float = 2,
    size: tuple[int, int] = (1920, 1080),
    rounds: int = 3,
    preset: str = "veryfast",
) -> Table:
    """Pictures a second of each stage alone, with all others at rest, and of the program, on a film with one face.

    ratio: to the slowest stage alone. The goal is 0.9 for the program, where the stages don't share their machine: a
    processor with cores for all of them and a graphics card. Medians of the rounds; in each, the film of `seconds`
    goes through the stages one after the other, and one four times as long through the program.
    """
    chosen: dict[str, Any] = {"max_faces": 1, "hwaccel": hwaccel, "codec": "libx264", "preset": preset}
    rates: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="gpenvid-bench-") as folder:
        short, long, target = (Path(folder) / name for name in ("short.mp4", "long.mp4", "out.mp4"))
        count = make_clip(short, seconds, size, faces=1)
        repeat_clip(short, long, 4)
        for _ in range(1 + rounds):
            took = _alone(short, target, Enhancer(Options.of(**chosen), restorer=restorer, detector=detector))
            rate = {stage: count / max(each, 1e-9) for stage, each in took.items()}
            begin = time.perf_counter()
            enhance(long, target, restorer=restorer, detector=detector, **chosen)
            rates.append(rate | {"all beside each other": 4 * count / (time.perf_counter() - begin)})
    medians = {name: statistics.median(rate[name] for rate in rates[1:]) for name in rates[0]}
    slowest = min(list(medians.values())[:-1])
    title = f"Each stage alone, and the program, {size[0]}x{size[1]} with one face, --hwaccel {hwaccel}"
    rows: list[tuple[str | float, ...]] = [(name, rate, rate / slowest) for name, rate in medians.items()]
    return Table(title, ("stage", "pictures a second", "ratio"), rows)


def _alone(source: Path, target: Path, enhancer: Enhancer) -> dict[str, float]:
    """Seconds that each stage takes for all pictures before the next begins."""
    options, clock = enhancer.options, enhancer.clock.seconds
    with (
        current(enhancer.card),
        Reader(source, options.reader, card=enhancer.card) as reader,
        Writer(target, reader, options.encoder) as writer,
    ):
        begin = time.perf_counter()
        pictures = list(reader.pictures())
        took = {"decode": time.perf_counter() - begin}
        pictures = list(enhancer.process(pictures))
        took |= {"find": sum(clock[part] for part in FINDING), "restore": clock["restore"], "paste": clock["paste"]}
        begin = time.perf_counter()
        for picture in pictures:
            writer.write(picture)
        writer.close()
        took["encode"] = time.perf_counter() - begin
    return took
