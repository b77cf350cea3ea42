"""The multi-box loss of single-shot detectors, for RetinaFace's anchors (Liu et al. 2016; Deng et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gpenvid.types import Float, Image

STRIDES = (8, 16, 32)
ANCHOR_SIDES = ((16, 32), (64, 128), (256, 512))
"""Two square anchors in pixels at every cell of each stride, as in facexlib's mobile0.25."""
VARIANCES = (0.1, 0.2)
MEAN_BGR = (104.0, 117.0, 123.0)
"""What facexlib subtracts from a BGR picture before its RetinaFace."""
FACE, BACKGROUND, IGNORED = 1, 0, -1
EYES = 4.5
"""The distance between the eyes of a face that fills its anchor, in units of the landmarks' offsets."""


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What the network should say at each of A anchors, or of N x A.

    labels: (A,) int64 of FACE, BACKGROUND, IGNORED; boxes: (A, 4) and landmarks: (A, 10) float32, encoded relative to
    the anchor, meaningful where the label is FACE.
    """

    labels: Tensor
    boxes: Tensor
    landmarks: Tensor


def normalise(pictures: Image) -> Tensor:
    """Turn RGB pictures (N, S, S, 3) uint8 into the network's input: (N, 3, S, S) float32, BGR, mean subtracted."""
    bgr = torch.from_numpy(np.ascontiguousarray(pictures[..., ::-1])).permute(0, 3, 1, 2)
    return bgr.float() - torch.tensor(MEAN_BGR)[:, None, None]


def anchors(size: int) -> Float:
    """Return the anchors of a square picture: (A, 4) float32, centre x, centre y, width, height in pixels."""
    levels = []
    for stride, sides in zip(STRIDES, ANCHOR_SIDES, strict=True):
        cells = (np.arange(-(-size // stride), dtype=np.float32) + 0.5) * stride
        y, x, side = np.meshgrid(cells, cells, np.array(sides, np.float32), indexing="ij")
        levels.append(np.stack([x, y, side, side], -1).reshape(-1, 4))
    return np.concatenate(levels)


def encode(boxes: Float, landmarks: Float, prior: Float) -> tuple[Float, Float]:
    """Express boxes (A, 4) and landmarks (A, 5, 2) relative to anchors (A, 4), as facexlib decodes them."""
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    offset = (centre - prior[:, :2]) / (VARIANCES[0] * prior[:, 2:])
    growth = np.log(np.maximum(side, 1e-3) / prior[:, 2:]) / VARIANCES[1]
    marks = (landmarks - prior[:, None, :2]) / (VARIANCES[0] * prior[:, None, 2:])
    return (
        np.concatenate([offset, growth], 1).astype(np.float32),
        marks.reshape(-1, 10).astype(np.float32),
    )


def decode(offsets: Float, marks: Float, prior: Float) -> tuple[Float, Float]:
    """Undo `encode`: offsets (A, 4) and marks (A, 10) become boxes (A, 4) and landmarks (A, 5, 2) in pixels."""
    centre = prior[:, :2] + offsets[:, :2] * VARIANCES[0] * prior[:, 2:]
    half = prior[:, 2:] * np.exp(offsets[:, 2:] * VARIANCES[1]) / 2
    landmarks = prior[:, None, :2] + marks.reshape(-1, 5, 2) * VARIANCES[0] * prior[:, None, 2:]
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32), landmarks.astype(np.float32)


def match(
    boxes: Float, landmarks: Float, counts: NDArray[np.bool_], prior: Float, *, threshold: float = 0.35
) -> tuple[NDArray[np.int64], Float, Float]:
    """Give every anchor its label and targets (labels, boxes, landmarks), shaped as in Targets.

    An anchor is a face if it overlaps one that counts by `threshold` (intersection over union), or if it is that
    face's best anchor and overlaps it by 0.2. It is ignored if it lies over a face that doesn't count.
    """
    labels = np.zeros(len(prior), np.int64)
    box_targets, mark_targets = np.zeros((len(prior), 4), np.float32), np.zeros((len(prior), 10), np.float32)
    if not len(boxes):
        return labels, box_targets, mark_targets
    corners = np.concatenate([prior[:, :2] - prior[:, 2:] / 2, prior[:, :2] + prior[:, 2:] / 2], 1)
    shared = overlaps(corners, boxes)
    longer = longer_sides(boxes)
    inside = ((prior[:, None, :2] >= boxes[:, :2]) & (prior[:, None, :2] <= boxes[:, 2:])).all(-1)
    hidden = (shared >= 0.2) | (inside & (prior[:, None, 2] <= 4 * longer))
    labels[hidden[:, ~counts].any(1)] = IGNORED
    demanded = np.flatnonzero(counts)
    if len(demanded):
        shared = shared[:, demanded]
        owner, best = shared.argmax(1), shared.max(1)
        for face, anchor in enumerate(shared.argmax(0)):
            if shared[anchor, face] >= 0.2:
                owner[anchor], best[anchor] = face, 1
        chosen = best >= threshold
        labels[chosen] = FACE
        picked = demanded[owner[chosen]]
        box_targets[chosen], mark_targets[chosen] = encode(boxes[picked], landmarks[picked], prior[chosen])
    return labels, box_targets, mark_targets


def multibox_loss(
    output: tuple[Tensor, Tensor, Tensor],
    targets: Targets,
    *,
    negatives: int = 7,
    least: int = 48,
    by_eyes: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the class, box and landmark losses of a batch, each a scalar per face anchor.

    output: the network's boxes (N, A, 4), class logits (N, A, 2) and landmarks (N, A, 10); targets of the same N x A.
    Of the background only the hardest anchors of the batch count: `negatives` per face anchor, and never fewer than
    `least` a picture; where the latter is more, the class loss is taken per `negatives` of them. Offsets are compared
    by smooth L1 with its bend at 0.1; with `by_eyes`, those of landmarks as if every face's eyes were EYES apart
    (or twice as far as they are: those of profiles are next to each other).
    """
    boxes, logits, landmarks = output
    face = targets.labels == FACE
    found = face.sum().clamp(min=1)
    entropy = F.cross_entropy(logits.flatten(0, 1), targets.labels.clamp(min=0).flatten(), reduction="none")
    background = entropy[(targets.labels == BACKGROUND).flatten()]
    hardest = min(max(int(found) * negatives, least * len(logits)), len(background))
    class_loss = entropy[face.flatten()].sum() + background.topk(hardest).values.sum()
    class_loss = class_loss / found.clamp(min=hardest / negatives)
    box_loss = F.smooth_l1_loss(boxes[face], targets.boxes[face], beta=0.1, reduction="sum") / found
    found_marks, marks = landmarks[face], targets.landmarks[face]
    if by_eyes:
        unit = EYES / (marks[:, :2] - marks[:, 2:4]).norm(dim=1, keepdim=True).clamp(min=EYES / 2)
        found_marks, marks = found_marks * unit, marks * unit
    mark_loss = F.smooth_l1_loss(found_marks, marks, beta=0.1, reduction="sum") / found
    return class_loss, box_loss, mark_loss


def overlaps(one: Float, two: Float) -> Float:
    """Intersection over union of every box of `one` (n, 4) with every box of `two` (m, 4): (n, m)."""
    sides = np.minimum(one[:, None, 2:], two[None, :, 2:]) - np.maximum(one[:, None, :2], two[None, :, :2])
    shared = np.clip(sides, 0, None).prod(-1)
    area_one, area_two = (one[:, 2:] - one[:, :2]).prod(-1), (two[:, 2:] - two[:, :2]).prod(-1)
    return np.asarray(shared / np.maximum(area_one[:, None] + area_two[None] - shared, 1e-9), np.float32)


def longer_sides(boxes: Float) -> Float:
    """The longer side of each box (n, 4), (n,)."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).max(1, initial=0), np.float32)


def targets_of(batch: list[tuple[Float, Float, NDArray[np.bool_]]], size: int, prior: Float | None = None) -> Targets:
    """Match the labels (boxes, landmarks, counts) of N square pictures of one size; tensors of N x A."""
    prior = anchors(size) if prior is None else prior
    matched = [match(boxes, landmarks, counts, prior) for boxes, landmarks, counts in batch]
    labels, boxes, landmarks = (torch.from_numpy(np.stack(part)) for part in zip(*matched, strict=True))
    return Targets(labels, boxes, landmarks)
