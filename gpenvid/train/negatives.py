"""Faceless pictures for the detector, and which of many it takes for faces: those are worth training on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from gpenvid.train.lookalikes import add_badges, add_hands, add_scrambled
from gpenvid.train.multibox import normalise
from gpenvid.train.scenes import Portrait, Scene, faceless, weather
from gpenvid.train.textures import BACKGROUNDS, TRAINED, colour, texture
from gpenvid.types import Float, Image

AT_ONCE = 16


def negative(rng: np.random.Generator, portraits: Sequence[Portrait], size: int) -> Image:
    """Draw a faceless picture (size, size, 3): a texture, a pattern, or what surrounds the faces of a portrait.

    Half of them hold what is taken for a face in real pictures: hands, badges, or a face whose parts are shuffled.
    """
    chance, portrait = rng.random(), portraits[int(rng.integers(len(portraits)))]
    if chance < 0.4:
        picture = texture(rng, size, size, BACKGROUNDS if rng.random() < 0.5 else TRAINED)
    elif chance < 0.7:
        picture = _painted(rng, size, _pattern(rng, size))
    else:
        patch = faceless(rng, portrait)
        picture = np.asarray(cv2.resize(patch, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
    picture = np.ascontiguousarray(picture)
    chance = rng.random()
    if chance < 0.2:
        add_hands(rng, picture)
    elif chance < 0.4:
        add_badges(rng, picture, lambda side: _pattern(rng, side))
    elif chance < 0.5:
        add_scrambled(rng, picture, portrait)
    elif chance < 0.7:  # faces are symmetric: so be some of what is none
        half = picture[:, : -(-size // 2)]
        picture = np.concatenate([half, half[:, : size // 2][:, ::-1]], 1)
    if rng.random() < 0.5:
        picture = weather(rng, np.ascontiguousarray(picture))
    return np.ascontiguousarray(picture)


def _pattern(rng: np.random.Generator, size: int) -> Float:
    """One field (size, size), or three of them (size, size, 3)."""
    field = (_network, _spots, _leaves)[int(rng.integers(3))](rng, size)
    return np.asarray(cv2.resize(field, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _painted(rng: np.random.Generator, size: int, share: Float) -> Image:
    """One field (S, S), or three of them (S, S, 3), as a picture between random colours."""
    low, high = share.min(axis=(0, 1)), share.max(axis=(0, 1))
    share = (share - low) / np.maximum(high - low, 1e-6)
    if share.ndim == 3:
        picture = share * 255
    else:
        one, two = colour(rng), colour(rng)
        picture = one + (two - one) * share[..., None]
    return np.clip(cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR), 0, 255).astype(np.uint8)


def _network(rng: np.random.Generator, size: int) -> Float:
    """A small random network over the coordinates (a "CPPN", Stanley 2007): folds, arcs and islands of any shape."""
    y, x = np.mgrid[-1 : 1 : (size // 2) * 1j, -1 : 1 : (size // 2) * 1j].astype(np.float32)
    x, y = x - np.float32(rng.uniform(-1, 1)), y - np.float32(rng.uniform(-1, 1))
    values = np.stack([x, y, np.hypot(x, y), np.ones_like(x)], -1) * np.float32(np.exp(rng.uniform(0, 2.3)))
    for layer in range(int(rng.integers(2, 5))):
        weights = rng.normal(0, 1.2 / np.sqrt(values.shape[-1]), (values.shape[-1], 12)).astype(np.float32)
        values = values @ weights
        values = np.sin(2 * values) if layer == 0 or rng.random() < 0.4 else np.tanh(2.5 * values)
    outputs = 3 if rng.random() < 0.4 else 1
    field = values @ rng.normal(0, 1, (12, outputs)).astype(np.float32)
    return np.asarray(field if outputs == 3 else field[..., 0], np.float32)


def _spots(rng: np.random.Generator, size: int) -> Float:
    """Noise sharpened and blurred in turns, as Turing patterns grow: spots, labyrinths, hides."""
    side = max(int(size / rng.uniform(1, 4)), 32)
    field = rng.normal(0, 1, (side, side)).astype(np.float32)
    near = float(rng.uniform(0.8, 3))
    lean = rng.uniform(-0.3, 0.3)
    for _ in range(int(rng.integers(2, 9))):
        inner = cv2.GaussianBlur(field, (0, 0), near)
        field = np.clip(6 * (inner - cv2.GaussianBlur(field, (0, 0), 1.7 * near)) + 0.5 * inner + lean, -1, 1)
    return np.asarray(cv2.GaussianBlur(field, (0, 0), float(rng.uniform(0.3, 1.5))), np.float32)


def _leaves(rng: np.random.Generator, size: int) -> Float:
    """Many shaded ovals over each other, of like direction or none: foliage, pebbles, feathers, crowds from afar."""
    picture = np.full((size, size, 3), rng.uniform(0, 60), np.float32)
    tone, angle, spread = colour(rng), rng.uniform(0, 180), rng.choice([10.0, 40.0, 180.0])
    length = np.exp(rng.uniform(np.log(6), np.log(70)))
    for _ in range(int(min(3 * (size / length) ** 2, 400)) + 8):
        x, y = rng.uniform(0, size, 2)
        long, turn = length * rng.uniform(0.6, 1.4), angle + rng.normal(0, spread)
        axes = (int(long / 2) + 1, int(long * rng.uniform(0.15, 0.5)) + 1)
        shade = tone * rng.uniform(0.4, 1.3) + rng.normal(0, 10, 3)
        cv2.ellipse(picture, (int(x), int(y)), axes, turn, 0, 360, shade.tolist(), -1, cv2.LINE_AA)
        if rng.random() < 0.5:
            inner = (max(axes[0] * 2 // 3, 1), max(axes[1] // 2, 1))
            at = (int(x - axes[1] * 0.2), int(y - axes[1] * 0.2))
            cv2.ellipse(picture, at, inner, turn, 0, 360, (shade * rng.uniform(0.7, 1.4)).tolist(), -1, cv2.LINE_AA)
    return picture


class HardNegatives:
    """The `kept` faceless pictures in which a detector is surest of faces; each a pure function of seed and number."""

    def __init__(self, portraits: Sequence[Portrait], size: int, *, seed: int, kept: int = 256) -> None:
        self.portraits, self.size, self.seed, self.kept = portraits, size, seed, kept
        self.numbers: list[int] = []
        self.seen = 0

    def picture(self, number: int) -> Image:
        """Draw picture `number`, (size, size, 3)."""
        return negative(np.random.default_rng([self.seed, 11, number]), self.portraits, self.size)

    def mine(self, network: Any, count: int) -> float:
        """Look at `count` new pictures and again at those remembered; remember the hardest, hardest first.

        network: gives logits; it is left in evaluation mode. Returns the mean face probability of the remembered.
        """
        numbers = [*self.numbers, *range(self.seen, self.seen + count)]
        self.seen += count
        chances = np.concatenate(
            [
                surest(network, [self.picture(n) for n in numbers[i : i + AT_ONCE]])
                for i in range(0, len(numbers), AT_ONCE)
            ]
        )
        order = np.argsort(-chances, kind="stable")[: self.kept]
        self.numbers = [numbers[i] for i in order]
        return float(chances[order].mean())

    def draw(self, rng: np.random.Generator) -> Scene:
        """One of the remembered pictures as a scene without faces, mirrored half the time. Mine first."""
        picture = self.picture(self.numbers[int(rng.integers(len(self.numbers)))])
        return without_faces(np.ascontiguousarray(picture[:, ::-1]) if rng.random() < 0.5 else picture)

    def scenes(self) -> Iterator[Scene]:
        """All remembered pictures as scenes without faces, hardest first."""
        return (without_faces(self.picture(number)) for number in self.numbers)


def without_faces(picture: Image) -> Scene:
    """The picture as a scene with nothing in it."""
    return Scene(picture, np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, bool))


@torch.no_grad()
def surest(network: Any, pictures: Sequence[Image]) -> Float:
    """The largest face probability of any anchor in each picture, (N,); the network gives logits."""
    logits: Tensor = network.eval()(normalise(np.stack(pictures)))[1]
    return np.asarray(logits.softmax(-1)[..., 1].amax(1).numpy(), np.float32)
