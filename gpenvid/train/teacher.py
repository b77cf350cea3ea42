"""A teacher: another RetinaFace, whose answers over many views label the sheets more steadily than one look does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gpenvid.errors import WeightsError
from gpenvid.faces.detect import anchors_of, faces_in
from gpenvid.train.multibox import anchors, decode, normalise, overlaps
from gpenvid.train.scenes import Portrait, move_box, move_points
from gpenvid.types import Face, Float, Image

VIEWS = (64, 90, 128, 160)
"""Lengths in pixels to which a face is scaled for the views; each is seen twice, as it is and mirrored."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Detections of one picture, best first: boxes (n, 4), landmarks (n, 5, 2), scores (n,), float32, in pixels."""

    boxes: Float
    landmarks: Float
    scores: Float

    @classmethod
    def of(cls, faces: Sequence[Face]) -> Found:
        """Those faces, in their order."""
        boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
        landmarks = np.array([face.landmarks for face in faces], np.float32).reshape(-1, 5, 2)
        return cls(boxes, landmarks, np.array([face.score for face in faces], np.float32))


def load_retinaface(path: str | Path, *, phase: str = "test") -> Any:
    """Load facexlib's RetinaFace mobile0.25 from a state dict, with or without the `module.` prefix, on the CPU.

    Raises WeightsError if the file is missing or belongs to another network.
    """
    from facexlib.detection.retinaface import RetinaFace

    network = RetinaFace(network_name="mobile0.25", phase=phase, device="cpu")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    except OSError as error:
        raise WeightsError(
            f"{path}: {error.strerror or error}; a RetinaFace mobile0.25 state dict is needed"
        ) from error
    except (RuntimeError, AttributeError) as error:
        raise WeightsError(f"{path}: not a RetinaFace mobile0.25 state dict") from error
    return network.eval()


@torch.no_grad()
def find(network: Any, picture: Image, threshold: float) -> Found:
    """Detect faces in an RGB picture of any size, as the program does."""
    height, width = picture.shape[:2]
    boxes, scores, landmarks = network(normalise(picture[None]))
    answer = boxes[0], scores[0], landmarks[0]
    rows = faces_in(network, answer, anchors_of(network, height, width), (width, height), threshold).numpy()
    return Found(rows[:, :4], rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14])


@torch.no_grad()
def consensus(network: Any, portrait: Portrait, *, alone: bool = True, seed: int = 0) -> Portrait | None:
    """Label a portrait again: the median of the teacher's answers over VIEWS, each face on its own.

    Returns None where fewer than half of the views confirm a face, or, if its faces should be alone, where at least two
    show one that the portrait doesn't list: such a portrait would teach something wrong.
    """
    rng = np.random.default_rng(seed)
    boxes, landmarks, strangers = [], [], 0
    for box in portrait.boxes:
        answers: list[tuple[Float, Float]] = []
        for matrix, view in _views(rng, portrait.picture, box):
            prior = anchors(len(view))
            offsets, chances, marks = (part[0].numpy() for part in network(normalise(view[None])))
            sure = chances[:, 1] > 0.5
            found, points = decode(offsets[sure], marks[sure], prior[sure])
            mine = overlaps(found, move_box(box, matrix)[None])[:, 0]
            known = np.array([move_box(one, matrix) for one in portrait.boxes], np.float32)
            strangers += int((overlaps(found, known).max(1, initial=0) < 0.2).any())
            if mine.max(initial=0) >= 0.4:
                best = int(np.where(mine >= 0.4, chances[sure, 1], 0).argmax())
                back = _invert(matrix)
                answers.append((move_box(found[best], back), move_points(points[best], back)))
        if len(answers) < len(VIEWS) or (alone and strangers >= 2):
            return None
        boxes.append(np.median([answer[0] for answer in answers], 0))
        landmarks.append(np.median([answer[1] for answer in answers], 0))
    return Portrait(portrait.picture, np.array(boxes, np.float32), np.array(landmarks, np.float32))


def relabel(network: Any, portraits: Sequence[Portrait], cache: Path | None) -> list[Portrait]:
    """Apply `consensus` to all portraits; keep the answer in the file `cache` (.npz), if given, and read it next time.

    Portraits without a face or without consensus are left out.
    """
    if cache is not None and cache.exists():
        with np.load(cache) as stored:
            marks = [(stored[f"b{i}"], stored[f"l{i}"]) for i in range(len(portraits))]
    else:
        agreed = [consensus(network, portrait, seed=i) for i, portrait in enumerate(portraits)]
        none = (np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32))
        marks = [none if one is None else (one.boxes, one.landmarks) for one in agreed]
        named = {f"b{i}": boxes for i, (boxes, _) in enumerate(marks)}
        if cache is not None:
            np.savez(cache, **named, **{f"l{i}": landmarks for i, (_, landmarks) in enumerate(marks)})
    pairs = zip(portraits, marks, strict=True)
    return [Portrait(portrait.picture, boxes, landmarks) for portrait, (boxes, landmarks) in pairs if len(boxes)]


def _views(rng: np.random.Generator, picture: Image, box: Float) -> Iterator[tuple[NDArray[np.float64], Image]]:
    """Yield affine maps and the picture carried through them: the face at every length of VIEWS, plain and mirrored."""
    middle = (box[:2] + box[2:]) / 2
    for length in VIEWS:
        side = -(-int(2 * length) // 32) * 32
        scale = length / float(max(box[2] - box[0], box[3] - box[1]))
        smooth = picture
        if scale < 1:  # average before reducing, so that nothing aliases
            smooth = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.5 * np.sqrt(1 / scale**2 - 1) + 1e-3), np.uint8)
        for sign in (1, -1):
            linear = scale * np.diag([sign, 1.0])
            offset = side / 2 + rng.uniform(-12, 12, 2) - linear @ middle
            matrix = np.concatenate([linear, offset[:, None]], 1)
            flags, border = cv2.INTER_LINEAR, cv2.BORDER_CONSTANT
            yield (
                matrix,
                np.asarray(cv2.warpAffine(smooth, matrix, (side, side), flags=flags, borderMode=border), np.uint8),
            )


def _invert(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    inverse = np.linalg.inv(matrix[:, :2])
    return np.concatenate([inverse, (-inverse @ matrix[:, 2])[:, None]], 1)
