"""Pictures without faces, drawn from numbers: backgrounds and hard negatives for the detector."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from gpenvid.types import Float, Image

Draw = Callable[[np.random.Generator, int, int], Float]


def texture(rng: np.random.Generator, height: int, width: int, kinds: tuple[str, ...] = ()) -> Image:
    """Draw one faceless picture (height, width, 3): one of `kinds` (default: TRAINED), often with another over it."""
    names = kinds or TRAINED
    rows, columns, height, width = height, width, max(height, 32), max(width, 32)
    picture = DRAWERS[names[rng.integers(len(names))]](rng, height, width)
    if rng.random() < 0.5:
        other = DRAWERS[names[rng.integers(len(names))]](rng, height, width)
        mask = _octaves(rng, height, width, int(rng.integers(2, 6)))[..., None]
        mask = np.clip((mask - 0.5) * rng.uniform(1, 30) + 0.5, 0, 1)
        picture = picture * (1 - mask) + other * mask
    return np.clip(picture[:rows, :columns], 0, 255).astype(np.uint8)


def colour(rng: np.random.Generator) -> Float:
    """Return a random RGB colour (3,), a third of the time one of human skin."""
    return skin(rng) if rng.random() < 0.35 else rng.uniform(0, 255, 3).astype(np.float32)


def skin(rng: np.random.Generator) -> Float:
    """Return a random colour of human skin, RGB (3,)."""
    tone = np.array([230, 185, 155]) * rng.uniform(0.3, 1.1) + rng.normal(0, 8, 3)
    return np.clip(tone, 0, 255).astype(np.float32)


def _octaves(rng: np.random.Generator, height: int, width: int, octaves: int) -> Float:
    """Sum of smoothly enlarged noise fields, scaled to 0..1."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cells = 2 + 2**octave
        field = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        total += cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    low, high = total.min(), total.max()
    return np.asarray((total - low) / max(high - low, 1e-6), dtype=np.float32)


def _mix(rng: np.random.Generator, share: Float) -> Float:
    one, two = colour(rng), colour(rng)
    return np.asarray(one + (two - one) * share[..., None], dtype=np.float32)


def _gradient(rng: np.random.Generator, height: int, width: int) -> Float:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = x * np.cos(angle) + y * np.sin(angle)
    return _mix(rng, np.asarray((ramp - ramp.min()) / (np.ptp(ramp) + 1e-6), dtype=np.float32))


def _clouds(rng: np.random.Generator, height: int, width: int) -> Float:
    return _mix(rng, _octaves(rng, height, width, int(rng.integers(2, 8))))


def _grain(rng: np.random.Generator, height: int, width: int) -> Float:
    step = int(rng.integers(1, 6))
    field = rng.normal(0, rng.uniform(5, 60), (height // step + 1, width // step + 1, 3)).astype(np.float32)
    return colour(rng) + np.asarray(
        cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32
    )


def _stripes(rng: np.random.Generator, height: int, width: int) -> Float:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    period, angle = rng.uniform(4, max(height, width) / 2), rng.uniform(0, np.pi)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
    return _mix(rng, np.asarray(np.clip(wave * rng.uniform(0.5, 20), -1, 1) / 2 + 0.5, dtype=np.float32))


def _grid(rng: np.random.Generator, height: int, width: int) -> Float:
    """Windows, bricks or tiles, each cell of its own shade."""
    cell_h, cell_w = int(rng.integers(6, 80)), int(rng.integers(6, 80))
    shade = rng.uniform(0, rng.uniform(0.1, 1), (height // cell_h + 2, width // cell_w + 2)).astype(np.float32)
    picture = _mix(rng, np.kron(shade, np.ones((cell_h, cell_w), np.float32))[:height, :width])
    joint = colour(rng)
    thick = int(rng.integers(0, 5))
    for offset in range(thick):
        picture[offset::cell_h] = joint
        picture[:, offset::cell_w] = joint
    return picture


def _shapes(rng: np.random.Generator, height: int, width: int) -> Float:
    """Ellipses, boxes and polygons: bodies, balls, furniture; heads without a face among them."""
    picture = _gradient(rng, height, width)
    for _ in range(int(rng.integers(2, 30))):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        radius = np.exp(rng.uniform(np.log(4), np.log(min(height, width) / 2)))
        tone = colour(rng).tolist()
        kind = rng.integers(4)
        if kind == 0:
            axes = (int(radius) + 1, int(radius * rng.uniform(0.6, 1.6)) + 1)
            cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, tone, -1, cv2.LINE_AA)
        elif kind == 1:
            corner = (int(centre[0] + radius), int(centre[1] + radius * rng.uniform(0.3, 3)))
            cv2.rectangle(picture, centre, corner, tone, -1)
        elif kind == 2:
            points = (np.array(centre) + rng.normal(0, radius, (int(rng.integers(3, 7)), 2))).astype(np.int32)
            cv2.fillPoly(picture, [points], tone, cv2.LINE_AA)
        else:
            _torso(picture, rng, centre, radius, tone)
    return picture


def _torso(picture: Float, rng: np.random.Generator, centre: tuple[int, int], radius: float, tone: list[float]) -> None:
    """A person from behind: hair-coloured head over shoulders."""
    x, y = centre
    r = int(radius / 2) + 2
    cv2.ellipse(picture, (x, y + 3 * r), (int(2.2 * r), 2 * r), 0, 180, 360, tone, -1, cv2.LINE_AA)
    cv2.ellipse(picture, (x, y), (r, int(1.3 * r)), 0, 0, 360, colour(rng).tolist(), -1, cv2.LINE_AA)


def _dots(rng: np.random.Generator, height: int, width: int) -> Float:
    """Pairs and rows of dots on plain blobs: what a careless detector takes for eyes and a mouth."""
    picture = _clouds(rng, height, width)
    for _ in range(int(rng.integers(1, 15))):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        r = int(np.exp(rng.uniform(np.log(5), np.log(60))))
        cv2.ellipse(
            picture, (x, y), (r, int(r * rng.uniform(0.7, 1.5))), 0, 0, 360, colour(rng).tolist(), -1, cv2.LINE_AA
        )
        dark = (colour(rng) * 0.4).tolist()
        for _ in range(int(rng.integers(1, 5))):
            spot = (int(x + rng.normal(0, r * 0.4)), int(y + rng.normal(0, r * 0.4)))
            cv2.circle(picture, spot, max(r // int(rng.integers(4, 10)), 1), dark, -1, cv2.LINE_AA)
    return picture


def _text(rng: np.random.Generator, height: int, width: int) -> Float:
    picture = np.clip(_gradient(rng, height, width), 0, 255).astype(np.uint8)  # putText takes no floats
    scale = float(rng.uniform(0.3, 2.5))
    font, ink = int(rng.integers(0, 8)), colour(rng).tolist()
    for y in range(int(rng.integers(5, 20)), height + 20, max(int(scale * 32), 6)):
        words = "".join(chr(c) for c in rng.choice([32, *range(48, 58), *range(65, 91), *range(97, 123)], 60))
        cv2.putText(
            picture, words, (int(rng.integers(-40, 10)), y), font, scale, ink, int(rng.integers(1, 4)), cv2.LINE_AA
        )
    return picture.astype(np.float32)


def _strands(rng: np.random.Generator, height: int, width: int) -> Float:
    """Hair, grass, branches: many curved lines with one dominant direction."""
    picture = _clouds(rng, height, width)
    angle = rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(30, 200))):
        start = rng.uniform(0, [width, height])
        turn = angle + np.cumsum(rng.normal(0, 0.25, 8))
        path = start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(3, 25), 0)
        cv2.polylines(
            picture, [path.astype(np.int32)], False, colour(rng).tolist(), int(rng.integers(1, 4)), cv2.LINE_AA
        )
    return picture


def _cells(rng: np.random.Generator, height: int, width: int) -> Float:
    """Voronoi cells: pebbles, leaves, scales."""
    count = int(rng.integers(10, 120))
    seeds = rng.uniform(0, 1, (count, 2)).astype(np.float32) * [width, height]
    y, x = np.mgrid[0:height:2, 0:width:2].astype(np.float32)
    distance = np.hypot(x[..., None] - seeds[:, 0], y[..., None] - seeds[:, 1])
    nearest = distance.argmin(-1)
    edge = np.clip(distance.min(-1) / rng.uniform(5, 60), 0, 1)[..., None]
    tones = np.stack([colour(rng) for _ in range(count)])
    return np.asarray(cv2.resize((tones[nearest] * (1 - 0.6 * edge)).astype(np.float32), (width, height)), np.float32)


def _rings(rng: np.random.Generator, height: int, width: int) -> Float:
    """Rings and spirals around one or two centres: targets, wheels, eyes of no face."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    wave = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(1, 3))):
        dx, dy = x - rng.uniform(0, width), y - rng.uniform(0, height)
        turns = int(rng.integers(0, 4))
        wave += np.sin(np.hypot(dx, dy) * 2 * np.pi / rng.uniform(6, 80) + turns * np.arctan2(dy, dx))
    return _mix(rng, np.clip(wave / 2 + 0.5, 0, 1))


DRAWERS: dict[str, Draw] = {
    "gradient": _gradient,
    "clouds": _clouds,
    "grain": _grain,
    "stripes": _stripes,
    "grid": _grid,
    "shapes": _shapes,
    "dots": _dots,
    "text": _text,
    "strands": _strands,
    "cells": _cells,
    "rings": _rings,
}
UNSEEN = ("cells", "rings")
"""Kinds that training never sees; the evaluation draws them too."""
TRAINED = tuple(name for name in DRAWERS if name not in UNSEEN)
BACKGROUNDS = (*TRAINED, "dots", "dots", "dots", "text", "text", "shapes")
"""Kinds behind composed scenes: what is most easily taken for a face comes most often."""
