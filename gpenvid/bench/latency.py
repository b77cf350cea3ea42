"""How long a picture takes when nothing may be looked ahead at, as in a live stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import av
import numpy as np

from gpenvid.bench import Table
from gpenvid.bench.clips import RATE, waves, with_faces
from gpenvid.bench.pipeline import PerPicture
from gpenvid.bench.restorer import present
from gpenvid.enhancer import Enhancer
from gpenvid.options import Options
from gpenvid.types import Float

WARM_UP = 5
"""Pictures that are not counted: the networks settle, the tracks are confirmed."""


def run(pictures: int = 60, size: tuple[int, int] = (1280, 720), *, device: str = "auto") -> list[Table]:
    """Measure; takes about a minute at the default size.

    Milliseconds from a decoded picture with two faces to the same picture restored, one at a time with `--lag 0`, with
    a detection in each picture and in every fourth. The baseline is facexlib's FaceRestoreHelper with the same
    networks. ratio: of the medians. The restorer is `restorer.present`, on the device.
    """
    restorer = present(device)
    each = Enhancer(Options.of(lag=0.0, device=device), restorer=restorer)
    rarely = Enhancer(Options.of(lag=0.0, detect_every=4, device=device), restorer=restorer, detector=each.detector)
    per_picture = PerPicture(restorer)
    count = pictures + WARM_UP
    ages = {
        "picture by picture": _times(_clip(count, size), lambda frame: per_picture.picture(_bgr(frame))),
        "gpenvid": _times(each.process(_clip(count, size))),
        "gpenvid, a detection every 4 pictures": _times(rarely.process(_clip(count, size))),
    }
    base = float(np.median(ages["picture by picture"]))
    rows: list[tuple[str | float, ...]] = [
        (name, float(np.median(ms)), float(np.percentile(ms, 99)), base / float(np.median(ms)))
        for name, ms in ages.items()
    ]
    title = f"Latency, {size[0]}x{size[1]} with two faces, {restorer.name} on {restorer.device}"
    return [Table(title, ("way", "median ms", "p99 ms", "ratio"), rows)]


def _times(items: Iterable[Any], work: Callable[[Any], object] = lambda item: item) -> Float:
    """Milliseconds that each item after the first few took, from asking for it to the end of the work on it."""
    took: list[float] = []
    start = time.perf_counter()
    for item in items:
        work(item)
        took.append(1000 * (time.perf_counter() - start))
        start = time.perf_counter()
    return np.array(took[WARM_UP:], np.float32)


def _clip(count: int, size: tuple[int, int]) -> list[av.VideoFrame]:
    frames = list(with_faces(waves(count, size)))
    for index, frame in enumerate(frames):
        frame.pts, frame.time_base = index, Fraction(1, RATE)
    return frames


def _bgr(frame: av.VideoFrame) -> Any:
    return frame.to_ndarray(format="bgr24")
