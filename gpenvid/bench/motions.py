"""Faces that move as known, and what a detector would make of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gpenvid.faces import geometry
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
    """What a detector makes of a motion: landmarks (T, 5) and boxes (T, 4), which were found, which are off, scores."""

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


@dataclass(slots=True)
class Crowd:
    """Faces that come, go, cross and hide. Per face its motion, when it can be seen, and what a detector sees."""

    faces: list[Motion]
    visible: list[NDArray[np.bool_]]
    seen: list[Seen]
    strays: list[list[Face]]  # per picture, detections of nothing

    def detections(self, k: int) -> list[Face]:
        """The detections of picture k."""
        return [face for seen in self.seen for face in seen.faces(k)] + self.strays[k]


def crowd(count: int, seconds: float = 20.0, misses: float = 0.3, seed: int = 0) -> Crowd:
    """Return `count` faces at 25 pictures a second, two to a lane, walking up and down and through each other.

    Each is hidden once for a second, and wherever a larger face covers a third of its box; the others are missed with
    the given probability, a third of those leaving a weak detection. Every second face enters late, every third leaves
    early. One picture in a hundred has a stray detection.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 25)) / 25
    faces, visible = [], []
    for i in range(count):
        spread = 40 + 35 * rng.random()
        lane, reach = 200 + 190 * (i // 2) + rng.uniform(-12, 12), 700.0
        if i % 2 == 0:
            speed, phase = rng.uniform(60, 130), rng.uniform(0, 2 * reach)
        x = 150 + np.abs((t * speed + phase + i % 2 * reach) % (2 * reach) - reach)
        y = lane + 4 * np.sin(2 * np.pi * (1.6 + 0.1 * i) * t + i)
        shape = 0.04 * (rng.standard_normal(3) + 1j * rng.standard_normal(3)) * np.ones((len(t), 1))
        box = np.tile([-0.02 - 0.06j, np.log(1.7) + 1j * np.log(2.1)], (len(t), 1))
        log_b = np.full(len(t), np.log(spread)) + 0.05j * np.sin(t + i)
        faces.append(Motion(t, np.concatenate([(x + 1j * y)[:, None], log_b[:, None], shape, box], 1)))
        enters = rng.uniform(1, 5) if i % 2 else 0.0
        leaves = rng.uniform(seconds - 5, seconds - 1) if i % 3 == 2 else seconds
        hidden = rng.uniform(6, max(seconds - 7, 6))
        visible.append((t >= enters) & (t <= leaves) & ~((t > hidden) & (t <= hidden + 1)))
    order = sorted(range(count), key=lambda i: faces[i].channels[0, 1].real)
    boxes = [face.truth()[0] for face in faces]
    for n, i in enumerate(order):
        for j in order[n + 1 :]:
            visible[i] &= ~(visible[j] & (_covered(boxes[i], boxes[j]) > 1 / 3))
    seen = [detect(face, gaps=0, outliers=0.01, seed=1000 * seed + i) for i, face in enumerate(faces)]
    for sight, can in zip(seen, visible, strict=True):
        missed = rng.random(len(t)) < misses
        weak = missed & (rng.random(len(t)) < 1 / 3)
        sight.scores = np.where(weak, 0.4, sight.scores)
        sight.found = can & (~missed | weak)
    strays: list[list[Face]] = []
    for _ in t:
        stray = [_stray(rng)] if rng.random() < 0.01 else []
        strays.append(stray)
    return Crowd(faces, visible, seen, strays)


def _covered(boxes: Real, by: Real) -> Real:
    """The share of boxes (T, 4) that `by` (T, 4) covers."""
    common = np.minimum(boxes[:, 2:], by[:, 2:]) - np.maximum(boxes[:, :2], by[:, :2])
    share: Real = np.prod(np.maximum(common, 0), 1) / np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    return share


def _stray(rng: np.random.Generator) -> Face:
    channels = np.array([[rng.uniform(100, 900) + 1j * rng.uniform(100, 700), np.log(50), 0, 0, 0, -0.05j, 0.5 + 0.7j]])
    boxes, landmarks = geometry.decode(channels)
    points = np.stack([landmarks[0].real, landmarks[0].imag], -1).astype(np.float32)
    return Face(boxes[0].astype(np.float32), points, 0.7)
