"""How much restored faces flicker in a clip, with the flicker filter and without it, beside the input itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gpenvid import metrics
from gpenvid.bench import Table
from gpenvid.enhancer import Enhancer
from gpenvid.errors import OptionsError
from gpenvid.faces.align import feather
from gpenvid.media.reader import Reader
from gpenvid.options import Options, TrackerOptions
from gpenvid.types import Float, Image, Track
from gpenvid.weights import shipped

WINDOW = 5
"""Pictures over which the deviation in time is taken: 0.2 s, in which a tracked face hardly changes."""

SAMPLES = ("old_film.mp4", "surveillance.mp4")


@dataclass(slots=True)
class Flicker:
    """Means over all faces of a clip, in aligned crops; values are 8-bit codes.

    e_warp: mean squared difference from the crop before, moved along the optical flow of the *input* (so that all ways
    are judged with one motion); deviation: standard deviation over five pictures. faces: how many crops were compared.
    """

    e_warp: float = 0.0
    deviation: float = 0.0
    faces: int = 0


@dataclass(slots=True)
class _Meter:
    """Takes what `Enhancer.on_face` hears; input crops and restored ones are judged alike."""

    given: list[tuple[float, float]] = field(default_factory=list)
    restored: list[tuple[float, float]] = field(default_factory=list)
    _seen: dict[int, deque[tuple[Image, Image]]] = field(default_factory=dict)

    def __call__(self, track: Track, seconds: float, crop: Image, restored: Image) -> None:
        if track.strength < 1:
            return
        seen = self._seen.setdefault(track.id, deque(maxlen=WINDOW))
        seen.append((crop, restored))
        if len(seen) < WINDOW:
            return
        flow, visible = motion(seen[-2][0], seen[-1][0])
        middle = feather(crop.shape[0]) > 0.5
        for figures, which in ((self.given, 0), (self.restored, 1)):
            clip = np.stack([pair[which] for pair in seen])
            figures.append(
                (metrics.e_warp(clip[-2:], flow[None], visible[None]), metrics.temporal_std(clip[:, middle]))
            )


def motion(before: Image, now: Image) -> tuple[Float, NDArray[np.bool_]]:
    """Return the backward flow (S, S, 2) from a crop to the one before, and where (S, S) it can be relied on.

    Dense inverse search (Kroeger et al. 2016) on gray copies without their noise; relied on in the middle of the crop,
    where the flow there and back cancel to within a pixel (Sundaram et al. 2010).
    """
    side = now.shape[0]
    gray = [cv2.GaussianBlur(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), (0, 0), side / 96) for each in (before, now)]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    back = np.asarray(search.calc(gray[1], gray[0], np.zeros((side, side, 2), np.float32)), np.float32)
    forth = np.asarray(search.calc(gray[0], gray[1], np.zeros((side, side, 2), np.float32)), np.float32)
    where = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).astype(np.float32) + back
    there = cv2.remap(forth, where[..., 0], where[..., 1], cv2.INTER_LINEAR)
    returned: NDArray[np.bool_] = np.linalg.norm(back + there, axis=-1) < 1
    return back, returned & (feather(side) > 0.5)


def measure(source: str | Path, stability: float, **networks: Any) -> tuple[Flicker, Flicker]:
    """Enhance a video without writing it; return the flicker of the input's faces and of the restored ones.

    networks: restorer and detector, by default the best that are there.
    """
    meter = _Meter()
    enhancer = Enhancer(Options(tracker=TrackerOptions(stability=stability)), on_face=meter, **networks)
    with Reader(source) as reader:
        for _ in enhancer.process(reader.pictures()):
            pass

    def mean(figures: Sequence[tuple[float, float]]) -> Flicker:
        if not figures:
            return Flicker()
        e_warp, deviation = np.mean(figures, 0).tolist()
        return Flicker(e_warp, deviation, len(figures))

    return mean(meter.given), mean(meter.restored)


def run(input: str | None = None, **networks: Any) -> list[Table]:
    """Measure a clip, by default the samples: the input, the restoration with --stability 0, and with the default."""
    sources = [Path(input)] if input else [shipped("samples") / name for name in SAMPLES]
    networks = networks or _networks()
    usual = TrackerOptions().stability
    rows: list[tuple[str | float, ...]] = []
    for source in sources:
        given, bare = measure(source, 0, **networks)
        if not given.faces:
            raise OptionsError(f"--input {source}: no face is followed for {WINDOW} pictures")
        ways = {"input": given, "--stability 0": bare, f"--stability {usual:g}": measure(source, usual, **networks)[1]}
        for label, each in ways.items():
            ratios = each.e_warp / bare.e_warp, each.deviation / bare.deviation
            rows.append((source.name, str(each.faces), label, each.e_warp, ratios[0], each.deviation, ratios[1]))
    header = ("clip", "faces", "way", "E_warp", "x bare", "deviation", "x bare")
    return [Table("Flicker of faces in aligned crops", header, rows)]


def _networks() -> dict[str, Any]:
    loaded = Enhancer()
    return {"restorer": loaded.restorer, "detector": loaded.detector}
