"""Composed pictures: portraits of the sheets pasted at many sizes into backgrounds, with the labels that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gpenvid.evaluate import read_picture
from gpenvid.faces.closeup import MIRROR
from gpenvid.train.multibox import longer_sides
from gpenvid.train.sheets import Tile
from gpenvid.train.textures import BACKGROUNDS, colour, texture
from gpenvid.types import Float, Image

LARGEST = 384
"""Longer side in pixels to which tiles are reduced when they are loaded."""
SMALLEST_LABEL = 10.0
"""Faces whose longer side is below this many pixels count neither as faces nor as background."""
MOST_COVERED = 0.55
"""Faces of which another hides more count as neither, too."""


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """A tile in memory: picture (H, W, 3), boxes (n, 4) and landmarks (n, 5, 2) float32 in its pixels."""

    picture: Image
    boxes: Float
    landmarks: Float


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture with its labels.

    picture: (S, S, 3) RGB; boxes: (n, 4) x0 y0 x1 y1 and landmarks: (n, 5, 2), float32 pixels with the origin in the
    centre of the top left pixel, in Face's order; counts: (n,) bool, False where a face is too small or too hidden to
    be demanded, and finding it is no fault either.
    """

    picture: Image
    boxes: Float
    landmarks: Float
    counts: NDArray[np.bool_]


def load_portraits(tiles: Sequence[Tile], largest: int = LARGEST) -> list[Portrait]:
    """Decode the tiles, sheet by sheet; those whose longer side exceeds `largest` pixels are reduced to it."""
    portraits = []
    sheet: tuple[object, Image | None] = (None, None)
    for tile in sorted(tiles, key=lambda tile: tile.path):
        if sheet[0] != tile.path:
            sheet = (tile.path, read_picture(tile.path))
        assert sheet[1] is not None
        cut = tile.cut(sheet[1])
        factor = min(1.0, largest / max(cut.shape[:2]))
        size = (round(cut.shape[1] * factor), round(cut.shape[0] * factor))
        scale = np.array([size[0] / cut.shape[1], size[1] / cut.shape[0]], np.float32)
        picture = cv2.resize(cut, size, interpolation=cv2.INTER_AREA) if factor < 1 else cut.copy()
        boxes = np.array([face.box for face in tile.faces], np.float32).reshape(-1, 2, 2)
        marks = np.array([face.landmarks for face in tile.faces], np.float32).reshape(-1, 5, 2)
        boxes, marks = (boxes + 0.5) * scale - 0.5, (marks + 0.5) * scale - 0.5
        portraits.append(Portrait(np.asarray(picture, np.uint8), boxes.reshape(-1, 4), marks))
    return portraits


def move_box(box: Float, matrix: NDArray[np.float64]) -> Float:
    """Carry a face's box through an affine map (2, 3).

    The box is taken for the ellipse that it encloses, because a turned head has a smaller box than its box's turned
    corners: half-width and half-height are the norms of the map's rows weighted with the semi-axes.
    """
    centre = matrix[:, :2] @ [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2] + matrix[:, 2]
    axes = np.array([(box[2] - box[0]) / 2, (box[3] - box[1]) / 2])
    half = np.sqrt(((matrix[:, :2] * axes) ** 2).sum(1))
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def move_points(points: Float, matrix: NDArray[np.float64]) -> Float:
    """Carry landmarks (5, 2) through an affine map (2, 3); a mirroring map also swaps left and right."""
    moved: Float = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return moved[MIRROR] if np.linalg.det(matrix[:, :2]) < 0 else moved


class Composer:
    """Makes scene after scene, each a pure function of the seed, its number and its size."""

    def __init__(self, portraits: Sequence[Portrait], *, seed: int, clear: bool = False) -> None:
        """With `clear`, nothing is degraded or covered. Raises ValueError if no portrait has a face."""
        self.portraits = [portrait for portrait in portraits if len(portrait.boxes)]
        if not self.portraits:
            raise ValueError("composing scenes needs at least one portrait with a face, got none")
        self.seed = seed
        self.clear = clear

    def scene(self, number: int, size: int) -> Scene:
        """Compose scene `number`, size x size pixels."""
        rng = np.random.default_rng([self.seed, size, number])
        canvas = self._background(rng, size).astype(np.float32)
        boxes: list[Float] = []
        marks: list[Float] = []
        for target in -np.sort(-self.sizes(rng, size)):
            self._paste(rng, canvas, float(target), boxes, marks)
        covered = self.add(np.random.default_rng([self.seed, size, number, 1]), canvas, boxes, marks)
        picture = np.clip(canvas, 0, 255).astype(np.uint8)
        picture = picture if self.clear else weather(rng, picture)
        all_boxes = np.array(boxes, np.float32).reshape(-1, 4)
        all_marks = np.array(marks, np.float32).reshape(-1, 5, 2)
        seen = visible_share(all_boxes, size)
        keep = seen > 0.1
        counts = (seen > 0.6) & (longer_sides(all_boxes) >= SMALLEST_LABEL) & (np.array(covered) <= MOST_COVERED)
        return Scene(picture, all_boxes[keep], all_marks[keep], counts[keep])

    def sizes(self, rng: np.random.Generator, size: int) -> Float:
        """Draw how long the faces of a scene should be, (n,), in pixels."""
        crowd = int(rng.choice([0, 1, 3, 8, 16], p=[0.12, 0.16, 0.19, 0.31, 0.22]))
        lengths: Float = np.exp(rng.uniform(np.log(9), np.log(min(0.92 * size, 400)), crowd))
        return lengths

    def add(self, rng: np.random.Generator, canvas: Float, boxes: list[Float], marks: list[Float]) -> list[float]:
        """Add to a scene, with its own source of chance. Return the share of each face that another hides."""
        return [0.0] * len(boxes)

    def fits(self, area: Float, box: Float) -> bool:
        """Whether a portrait that takes an area (4,) of a scene leaves a face (4,) there to be seen."""
        return overlap(box, area) < 0.1 and overlap(area, box) < 0.3

    def _portrait(self, rng: np.random.Generator) -> Portrait:
        return self.portraits[int(rng.integers(len(self.portraits)))]

    def _background(self, rng: np.random.Generator, size: int) -> Image:
        if rng.random() < 0.5:
            return texture(rng, size, size, BACKGROUNDS)
        patch = faceless(rng, self._portrait(rng))
        scaled = cv2.resize(patch, (size, size), interpolation=cv2.INTER_LINEAR)
        return np.asarray(scaled[:, ::-1] if rng.random() < 0.5 else scaled, np.uint8)

    def _paste(
        self, rng: np.random.Generator, canvas: Float, target: float, boxes: list[Float], marks: list[Float]
    ) -> None:
        """Paste one portrait whose first face becomes `target` pixels long, where it hides no earlier face."""
        size = canvas.shape[0]
        portrait = self._portrait(rng)
        whole = len(portrait.boxes) > 1 or rng.random() < (0.6 if not boxes else 0.15)
        linear = linear_map(rng, portrait.boxes[0], target)
        for _ in range(12):
            centre = rng.uniform(-0.05 * size, 1.05 * size, 2) if rng.random() < 0.15 else _inside(rng, size, target)
            matrix = map_around(portrait.boxes[0], linear, centre)
            area = extent(portrait, matrix, whole=whole)
            if all(self.fits(area, box) for box in boxes):
                break
        else:
            return
        own_boxes, own_marks = paste(rng, canvas, portrait, matrix, whole=whole)
        boxes += own_boxes
        marks += own_marks
        if rng.random() < 0.2 and not self.clear:
            _occlude(rng, canvas, boxes[-1])


def faceless(rng: np.random.Generator, portrait: Portrait) -> Image:
    """Cut a part of a portrait that holds no face: beside, above or below every face with a margin of 10 % of its size.

    Where no such part is 24 pixels wide, a texture comes back instead.
    """
    height, width = portrait.picture.shape[:2]
    margin = 0.1 * (portrait.boxes[:, 2:] - portrait.boxes[:, :2])
    x0, y0 = np.clip((portrait.boxes[:, :2] - margin).min(0), 0, None)
    x1, y1 = (portrait.boxes[:, 2:] + margin).max(0)
    parts = [(0, 0, x0, height), (x1, 0, width, height), (0, 0, width, y0), (0, y1, width, height)]
    parts = [part for part in parts if part[2] - part[0] >= 24 and part[3] - part[1] >= 24]
    if not parts:
        return texture(rng, height, width)
    left, top, right, bottom = (int(value) for value in parts[int(rng.integers(len(parts)))])
    part_w, part_h = right - left, bottom - top
    side_w, side_h = (int(rng.integers(min(24, n), n + 1)) for n in (part_w, part_h))
    left, top = left + int(rng.integers(part_w - side_w + 1)), top + int(rng.integers(part_h - side_h + 1))
    return portrait.picture[top : top + side_h, left : left + side_w]


def weather(rng: np.random.Generator, picture: Image) -> Image:
    """Degrade seven pictures in ten as cameras and codecs do: light, gray, low resolution, blur, noise, JPEG."""
    size = picture.shape[:2]
    image = picture.astype(np.float32)
    if rng.random() < 0.3:
        return picture
    if rng.random() < 0.6:
        image = (image / 255) ** np.float32(np.exp(rng.normal(0, 0.35))) * 255
        image = (image - 128) * np.float32(rng.uniform(0.5, 1.3)) + 128 + np.float32(rng.normal(0, 25))
        image = image * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    if rng.random() < 0.15:
        image = np.repeat(image @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, 2)
    if rng.random() < 0.2:
        factor = rng.uniform(1.2, 3)
        small = cv2.resize(image, (int(size[1] / factor), int(size[0] / factor)), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    if rng.random() < 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 2))), np.float32)
    if rng.random() < 0.35:
        image = image + rng.normal(0, rng.uniform(1, 18), (*size, 1 if rng.random() < 0.3 else 3)).astype(np.float32)
    result = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        _, data = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))])
        result = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return result


def linear_map(rng: np.random.Generator, box: Float, target: float) -> NDArray[np.float64]:
    """A random similarity, mildly stretched, half the time mirrored, that makes the box `target` pixels long."""
    scale = target / float(max(box[2] - box[0], box[3] - box[1]))
    angle = np.deg2rad(rng.uniform(-40, 40) if rng.random() < 0.35 else rng.normal(0, 7))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.exp(rng.normal(0, 0.06))
    return scale * turn @ np.diag([stretch * (-1 if rng.random() < 0.5 else 1), 1 / stretch])


def map_around(box: Float, linear: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine map (2, 3) of that linear part that brings the middle of a box (4,) to a point (2,)."""
    middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    return np.concatenate([linear, (centre - linear @ middle)[:, None]], 1)


def _inside(rng: np.random.Generator, size: int, target: float) -> NDArray[np.float64]:
    room = min(target / 2, size / 2)
    return rng.uniform(room, size - room, 2)


def extent(portrait: Portrait, matrix: NDArray[np.float64], *, whole: bool) -> Float:
    """The box (4,) of a scene that pasting a portrait, whole or its head alone, may change."""
    if not whole:
        return move_box(grow(portrait.boxes[0], 1.7), matrix)
    height, width = portrait.picture.shape[:2]
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([corners.min(0), corners.max(0)]).astype(np.float32)


def paste(
    rng: np.random.Generator,
    canvas: Float,
    portrait: Portrait,
    matrix: NDArray[np.float64],
    *,
    whole: bool,
    grown: tuple[float, float] = (1.15, 1.6),
    before: Float | None = None,
) -> tuple[list[Float], list[Float]]:
    """Blend a portrait, carried through an affine map, into the canvas (S, S, 3), in place; return boxes and landmarks.

    whole: all of it, else an oval around its first face's box, so many times as large; before: (S, S), 0 to 1, where
    something hides it.
    """
    mask = _mask(rng, portrait, whole, grown)
    _warp_onto(canvas, portrait.picture, mask, matrix, rng.uniform(0.75, 1.2), before)
    return [move_box(box, matrix) for box in portrait.boxes], [move_points(each, matrix) for each in portrait.landmarks]


def _mask(rng: np.random.Generator, portrait: Portrait, whole: bool, grown: tuple[float, float]) -> Float:
    """What of the portrait is pasted, 0..1: all of it with hard or soft edges, or the head alone."""
    height, width = portrait.picture.shape[:2]
    mask = np.zeros((height, width), np.float32)
    if whole:
        border = int(rng.choice([1, 6, 24]))
        mask[border:-border, border:-border] = 1
    else:
        x0, y0, x1, y1 = grow(portrait.boxes[0], float(rng.uniform(*grown)))
        axes = (int((x1 - x0) / 2), int((y1 - y0) / 2))
        cv2.ellipse(mask, (int((x0 + x1) / 2), int((y0 + y1) / 2)), axes, 0, 0, 360, 1.0, -1)
        border = int(rng.choice([1, 4, 12]))
        mask[[0, -1]] = 0
        mask[:, [0, -1]] = 0
    return np.asarray(cv2.blur(mask, (2 * border + 1, 2 * border + 1)), np.float32)


def _warp_onto(
    canvas: Float, picture: Image, mask: Float, matrix: NDArray[np.float64], light: float, before: Float | None
) -> None:
    """Blend the warped picture into the canvas in place; strong reductions average first, so that nothing aliases."""
    size = canvas.shape[0]
    reduce = min(1.0, 1.5 * float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))))
    small = (max(round(picture.shape[1] * reduce), 2), max(round(picture.shape[0] * reduce), 2))
    back = np.array([picture.shape[1] / small[0], picture.shape[0] / small[1]])
    linear = matrix[:, :2] * back
    offset = matrix[:, :2] @ (0.5 * back - 0.5) + matrix[:, 2]
    if reduce < 1:
        picture = np.asarray(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, small, interpolation=cv2.INTER_AREA), np.float32)
    corners = np.array([[0, 0], [small[0], 0], [0, small[1]], [small[0], small[1]]]) @ linear.T + offset
    x0, y0 = np.clip(np.floor(corners.min(0)) - 1, 0, size).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(0)) + 2, 0, size).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    shifted = np.concatenate([linear, (offset - [x0, y0])[:, None]], 1)
    warped = cv2.warpAffine(picture, shifted, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR)
    alpha = cv2.warpAffine(mask, shifted, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR)[..., None]
    if before is not None:
        alpha = alpha * (1 - before[y0:y1, x0:x1, None])
    region = canvas[y0:y1, x0:x1]
    region += (np.asarray(warped, np.float32) * np.float32(light) - region) * alpha


def _occlude(rng: np.random.Generator, canvas: Float, box: Float) -> None:
    """Cover a side of the face, up to some 40 % of it, with a hand-like ellipse or a textured block."""
    width, height = box[2] - box[0], box[3] - box[1]
    angle = rng.uniform(0, 2 * np.pi)
    away = np.array([np.cos(angle) * width, np.sin(angle) * height]) * rng.uniform(0.35, 0.6)
    x, y = (int(value) for value in (box[:2] + box[2:]) / 2 + away)
    half_w, half_h = (max(int(rng.uniform(0.1, 0.4) * side), 1) for side in (width, height))
    if rng.random() < 0.5:
        cv2.ellipse(
            canvas, (x, y), (half_w, half_h), float(rng.uniform(0, 180)), 0, 360, colour(rng).tolist(), -1, cv2.LINE_AA
        )
        return
    left, top = max(x - half_w, 0), max(y - half_h, 0)
    region = canvas[top : max(y + half_h, 0), left : max(x + half_w, 0)]
    if region.size:
        region[:] = texture(rng, region.shape[0], region.shape[1])


def grow(box: Float, factor: float) -> Float:
    """A box (4,) about the same middle, so many times as long and wide."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * factor
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def overlap(box: Float, area: Float) -> float:
    """The share of the box that lies in the area."""
    sides = np.clip(np.minimum(box[2:], area[2:]) - np.maximum(box[:2], area[:2]), 0, None)
    return float(np.prod(sides) / max(float(np.prod(box[2:] - box[:2])), 1e-6))


def visible_share(boxes: Float, size: int) -> Float:
    """The share of each box (n, 4) that lies in a picture of size x size pixels, (n,)."""
    frame = np.array([-0.5, -0.5, size - 0.5, size - 0.5], np.float32)
    return np.array([overlap(box, frame) for box in boxes], np.float32)
