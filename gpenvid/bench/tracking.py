"""How still and how true: the tracker against raw detections and other ways to smooth them, on known motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gpenvid.faces import geometry
from gpenvid.faces.track import Tracker
from gpenvid.options import TrackerOptions
from gpenvid.types import Face

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

SPREAD = 70.0
"""The spread |b| of the faces' landmarks in pixels: a box of 119 x 147."""


@dataclass(slots=True)
class Motion:
    """One face that moves as known. times (T,); channels (T, 7), see `geometry`; cuts: pictures that start a scene."""

    times: Real
    channels: Complex
    cuts: list[int] = field(default_factory=list)
    jumps: list[int] = field(default_factory=list)

    def truth(self) -> tuple[Real, Complex]:
        """Boxes (T, 4) and landmarks (T, 5)."""
        return geometry.decode(self.channels)


def motion(name: str, seconds: float = 10.0, seed: int = 0) -> Motion:
    """Return one of `MOTIONS` at 25 pictures a second (variable: 15 to 60)."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 25)) / 25
    if name == "variable rate":
        t = np.cumsum(rng.choice([1 / 60, 1 / 30, 1 / 25, 1 / 15], len(t)))
    place, log_scale, roll = np.zeros_like(t) + 0j, 0 * t, 0 * t
    cuts: list[int] = []
    jumps: list[int] = []
    shape = 0.03 * (rng.standard_normal(3) + 1j * rng.standard_normal(3)) * np.ones((len(t), 1))
    if name == "slow pan":
        place = 40 * t + 8j * t
    elif name in ("shake", "variable rate"):
        place = 10 * np.sin(4 * np.pi * t + 0.3) + 0j
    elif name == "zoom and roll":
        log_scale, roll = 0.5 * np.sin(2 * np.pi * t / 6), 0.4 * np.sin(2 * np.pi * t / 4)
    elif name == "jumps":
        jumps = [60, 131, 190]
        for k, (i, by) in enumerate(zip(jumps, (120 + 30j, -60 - 80j, 35 + 10j), strict=True)):
            place[i:] += by + 0 * k
    elif name == "cuts":
        cuts = [60, 131, 190]
        for i, by in zip(cuts, (220 + 30j, -160 - 80j, 10 + 10j), strict=True):
            place[i:] += by
            log_scale[i:] += 0.3 * (1 if by.real > 0 else -1)
    elif name == "walk and stop":
        speed = 60 * ((t % 4) < 2) * np.where((t % 8) < 4, 1, -1)
        place = np.cumsum(speed) / 25 + 3j * np.sin(2 * np.pi * 1.8 * t) * (speed != 0)
    elif name == "turning head":
        shape = shape + np.outer(0.25 * np.sin(2 * np.pi * t / 3), [1, 0.4, 0.2])
        place = 12 * np.sin(2 * np.pi * t / 3) + 0j
    elif name != "still":
        raise ValueError(f"no motion is called {name!r}")
    box = np.tile([-0.02 - 0.06j, np.log(1.7) + 1j * np.log(2.1)], (len(t), 1))
    log_b = np.log(SPREAD) + log_scale + 1j * roll
    channels = np.concatenate([(400 + 300j + place)[:, None], log_b[:, None], shape, box], 1)
    return Motion(t, channels, cuts, jumps)


MOTIONS = (
    "still",
    "slow pan",
    "shake",
    "zoom and roll",
    "jumps",
    "cuts",
    "variable rate",
    "walk and stop",
    "turning head",
)


@dataclass(slots=True)
class Seen:
    """What a detector makes of a motion: raw landmarks (T, 5) and boxes (T, 4), which pictures have one, which are off."""

    boxes: Real
    landmarks: Complex
    found: NDArray[np.bool_]
    outlier: NDArray[np.bool_]
    scores: Real

    def faces(self, k: int) -> list[Face]:
        """The detections of picture k."""
        if not self.found[k]:
            return []
        points = np.stack([self.landmarks[k].real, self.landmarks[k].imag], -1).astype(np.float32)
        return [Face(self.boxes[k].astype(np.float32), points, float(self.scores[k]))]


def detect(
    moving: Motion, noise: float = 1.0, gaps: float = 0.05, outliers: float = 0.03, slips: float = 0.0, seed: int = 1
) -> Seen:
    """Detect a motion with `noise` pixels on every coordinate, a share of misses, outliers and slips.

    An outlier throws one landmark, all landmarks independently, or all alike, by 15 to 60 pixels, and leaves the box;
    a slip moves box and landmarks alike. No first picture of a scene is missed or off.
    """
    rng = np.random.default_rng(seed)
    boxes, landmarks = moving.truth()
    T = len(landmarks)
    landmarks = landmarks + noise * (rng.standard_normal((T, 5)) + 1j * rng.standard_normal((T, 5)))
    boxes = boxes + 1.5 * noise * rng.standard_normal((T, 4))
    found = rng.random(T) >= gaps
    dice = rng.random(T)
    outlier = dice < outliers + slips
    special = [0, T - 1, *moving.cuts, *moving.jumps]
    found[[0, *moving.cuts]] = True
    outlier[special] = False
    for k in np.flatnonzero(outlier):
        off = rng.uniform(15, 60, 5) * np.exp(2j * np.pi * rng.random(5))
        kind = rng.integers(3)
        if dice[k] >= outliers:
            landmarks[k] += off[0]
            boxes[k] += np.array([off[0].real, off[0].imag] * 2)
        elif kind == 0:
            landmarks[k, rng.integers(5)] += off[0]
        else:
            landmarks[k] += off if kind == 1 else off[0]
    return Seen(boxes, landmarks, found, outlier, np.full(T, 0.95))


def follow(moving: Motion, seen: Seen, options: TrackerOptions) -> Complex:
    """Run the tracker; return its landmarks (T, 5), NaN where it shows nothing."""
    tracker = Tracker(options)
    done = []
    for k, time in enumerate(moving.times):
        done += tracker.update(seen.faces(k), float(time), cut=k in moving.cuts)
    done += tracker.flush()
    out = np.full((len(moving.times), 5), np.nan + 0j)
    for k, (_, tracks) in enumerate(done):
        for track in tracks[:1]:
            out[k] = track.face.landmarks[:, 0] + 1j * track.face.landmarks[:, 1]
    return out


def errors(truth: Complex, estimate: Complex, breaks: list[int]) -> tuple[float, float, float]:
    """Return the RMS position error and RMS acceleration error per coordinate, and the peak position error, in pixels."""
    e = estimate - truth
    a = e[2:] - 2 * e[1:-1] + e[:-2]
    return (
        float(np.sqrt(np.nanmean(np.abs(e) ** 2) / 2)),
        float(np.sqrt(np.nanmean(np.abs(a) ** 2) / 2)),
        float(np.nanmax(np.abs(e))),
    )


Smoother = Callable[[Motion, Seen], Complex]
