"""The last layers of a trained detector, fitted anew: with the features fixed, each is a small convex problem.

Stochastic steps leave these layers a little off, and see few of the rare pictures that fool them. Here they are fitted
to many scenes and faceless textures at once, with every background anchor in its due weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpenvid.train.crowded import Crowded
from gpenvid.train.multibox import BACKGROUND, FACE, STRIDES, VARIANCES, anchors, match, normalise
from gpenvid.train.negatives import without_faces
from gpenvid.train.scenes import Portrait, Scene
from gpenvid.train.textures import BACKGROUNDS, texture
from gpenvid.types import Float

EASY, EASY_SHARE = 0.02, 0.04
"""Of the many background anchors scored below EASY a share is enough, if it counts so much more."""
RIDGE = 1e-4
"""Price of moving a weight by the size at which it moves the output by one for a typical feature."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """Of one level and anchor size, over many pictures: features (n, C), labels (n,) 1 or 0, weights (n,);
    of the faces (m of n) features, landmark targets (m, 10) and per face what a unit of them is in eye distances.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    faces: Tensor
    marks: Tensor
    units: Tensor


def refitting_scenes(portraits: list[Portrait], scenes: int, textures: int, *, seed: int) -> Iterator[Scene]:
    """Scenes of both training sizes, a third of them clear, then faceless textures of the trained kinds."""
    composers = [Crowded(portraits, seed=seed, clear=clear) for clear in (True, False, False)]
    for number in range(scenes):
        yield composers[number % 3].scene(number, 512 if number % 2 else 256)
    for number in range(textures):
        kinds = BACKGROUNDS if number % 2 else ()
        yield without_faces(texture(np.random.default_rng([seed, number]), 320, 320, kinds))


def refit_heads(
    network: Any, scenes: Iterable[Scene], *, ridge: float = RIDGE, easy: float = EASY_SHARE, seed: int = 0
) -> None:
    """Fit the class and landmark layers of a RetinaFace in its training phase to the scenes, in place.

    Classes by logistic regression, landmarks by the Huber loss in units of the distance of the eyes, both from the
    present weights and held near them by `ridge`. Few scenes need a larger share of `easy` background.
    """
    for (level, kind), known in _collect(network, scenes, easy, np.random.default_rng(seed)).items():
        classes, marks = network.ClassHead[level].conv1x1, network.LandmarkHead[level].conv1x1
        if not known.labels.any() or known.labels.all():
            continue
        both = slice(2 * kind, 2 * kind + 2)
        weight, bias = classes.weight.data[both, :, 0, 0], classes.bias.data[both]
        change, shift = _fit_classes(known, weight[1] - weight[0], bias[1] - bias[0], ridge)
        weight += torch.stack([-change, change]) / 2  # views: the layer itself changes
        bias += torch.stack([-shift, shift]) / 2
        ten = slice(10 * kind, 10 * kind + 10)
        weight, bias = marks.weight.data[ten, :, 0, 0], marks.bias.data[ten]
        moved, shifted = _fit_marks(known, weight, bias, ridge)
        weight += moved
        bias += shifted


@torch.no_grad()
def _collect(
    network: Any, scenes: Iterable[Scene], easy: float, rng: np.random.Generator
) -> dict[tuple[int, int], Anchors]:
    """Run the network over the scenes and keep the anchors that matter, by level and anchor size."""
    features: dict[int, Tensor] = {}

    def keep(level: int) -> Any:
        def hook(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            features[level] = inputs[0][0].flatten(1).T.contiguous()

        return hook

    hooks = [head.register_forward_hook(keep(level)) for level, head in enumerate(network.ClassHead)]
    parts: dict[tuple[int, int], list[Anchors]] = {}
    try:
        for scene in scenes:
            size = len(scene.picture)
            prior = anchors(size)
            labels, _, marks = match(scene.boxes, scene.landmarks, scene.counts, prior)
            chances = network(normalise(scene.picture[None]))[1][0].softmax(-1)[:, 1].numpy()
            units = _units(marks)
            start = 0
            for level, stride in enumerate(STRIDES):
                cells = (-(-size // stride)) ** 2
                for kind in range(2):
                    mine = slice(start + kind, start + 2 * cells, 2)
                    parts.setdefault((level, kind), []).append(
                        _chosen(features[level], labels[mine], chances[mine], marks[mine], units[mine], easy, rng)
                    )
                start += 2 * cells
    finally:
        for hook in hooks:
            hook.remove()
    names = Anchors.__slots__
    return {
        key: Anchors(*(torch.cat([getattr(part, name) for part in group]) for name in names))
        for key, group in parts.items()
    }


def _units(marks: Float) -> Float:
    """What an anchor's unit of landmark offset is, in distances of the eyes of its face, which `marks` hold."""
    eyes = marks[:, :2] - marks[:, 2:4]
    # Profiles have next to no distance between the eyes; they shall not outweigh all others.
    return np.asarray(1 / np.maximum(np.linalg.norm(eyes, axis=1), 0.2 / VARIANCES[0]), np.float32)


def _chosen(
    features: Tensor, labels: Any, chances: Float, marks: Float, units: Float, share: float, rng: np.random.Generator
) -> Anchors:
    easy = (labels == BACKGROUND) & (chances < EASY) & (rng.random(len(labels)) < share)
    taken = (labels == FACE) | ((labels == BACKGROUND) & (chances >= EASY)) | easy
    face = labels == FACE
    return Anchors(
        features[torch.from_numpy(taken)],
        torch.from_numpy(face[taken].astype(np.float32)),
        torch.from_numpy(np.where(easy, 1 / share, 1)[taken].astype(np.float32)),
        features[torch.from_numpy(face)],
        torch.from_numpy(marks[face]),
        # An anchor's answer matters as far as it is the one that is kept: the surest of its face.
        torch.from_numpy((units * chances)[face]),
    )


def _fit_classes(known: Anchors, weight: Tensor, bias: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The change of the difference of the two logits' weights (C,) and biases ()."""
    scale = known.features.std(0) + 1e-3
    found = known.labels.sum()

    def loss(change: Tensor) -> Tensor:
        logits = known.features @ (weight + change[:-1] / scale) + bias + change[-1]
        each = F.binary_cross_entropy_with_logits(logits, known.labels, weight=known.weights, reduction="sum")
        return each / found + ridge * change.square().sum()

    change = _minimise(loss, torch.zeros(len(weight) + 1))
    return change[:-1] / scale, change[-1]


def _fit_marks(known: Anchors, weight: Tensor, bias: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The change of the landmark layer's weights (10, C) and biases (10,)."""
    scale = known.faces.std(0, correction=0) + 1e-3

    def loss(change: Tensor) -> Tensor:
        answers = known.faces @ (weight + change[:, :-1] / scale).T + bias + change[:, -1]
        errors = (answers - known.marks) * known.units[:, None]
        return F.smooth_l1_loss(errors, torch.zeros_like(errors), beta=0.02) * 10 + ridge * change.square().sum()

    change = _minimise(loss, torch.zeros(10, weight.shape[1] + 1))
    return change[:, :-1] / scale, change[:, -1]


def _minimise(loss: Any, start: Tensor) -> Tensor:
    point = start.requires_grad_()
    search = torch.optim.LBFGS([point], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        value: Tensor = loss(point)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    search.step(closure)  # type: ignore[no-untyped-call]
    return point.detach()
