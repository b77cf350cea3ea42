"""A detector and restorers with closed-form behaviour, so that what the pipeline does can be told exactly."""

from __future__ import annotations

import time
from collections.abc import Sequence

import cv2
import numpy as np

from gpenvid.faces.align import TEMPLATE
from gpenvid.types import Face, Float, Image

GREEN = (20, 200, 40)
"""A face is a square of this colour on anything without green."""


def face_at(x: float, y: float, side: float, score: float = 0.9) -> Face:
    """An upright face whose aligned crop is the square with centre x, y and this side."""
    landmarks = (TEMPLATE + 0.5) / 512 * side - 0.5 + np.array([x - side / 2 + 0.5, y - side / 2 + 0.5])
    box = np.array([x - side * 0.3, y - side * 0.35, x + side * 0.3, y + side * 0.45], np.float32)
    return Face(box, landmarks.astype(np.float32), score)


def picture(width: int, height: int, *squares: tuple[float, float, float]) -> Image:
    """A grey textured RGB picture with a green square for each centre x, y and side."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.repeat((110 + 30 * np.sin(x / 9) * np.cos(y / 7))[:, :, None], 3, axis=2).astype(np.uint8)
    for cx, cy, side in squares:
        x0, y0 = round(cx - side / 2 + 0.5), round(cy - side / 2 + 0.5)
        rgb[max(y0, 0) : max(y0 + round(side), 0), max(x0, 0) : max(x0 + round(side), 0)] = GREEN
    return rgb


class SquareDetector:
    """Finds the green squares: each is a face whose crop is twice the square."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        self.calls.append(len(images))
        return [self._one(image) for image in images]

    def _one(self, image: Image) -> list[Face]:
        green = (image[:, :, 1].astype(int) - image[:, :, 0] > 80).astype(np.uint8)
        count, _, stats, centres = cv2.connectedComponentsWithStats(green)
        return [
            face_at(float(centres[i][0]), float(centres[i][1]), 2 * float(max(stats[i][2], stats[i][3])))
            for i in range(1, count)
            if stats[i][4] >= 16
        ]


class IdentityRestorer:
    """Gives back what it gets."""

    def __init__(self, size: int = 64) -> None:
        self.size = size
        self.batches: list[int] = []

    def restore(self, crops: Image) -> Image:
        self.batches.append(len(crops))
        return crops.copy()


class BrighterRestorer(IdentityRestorer):
    """Adds 20 to every sample."""

    def restore(self, crops: Image) -> Image:
        return np.clip(super().restore(crops).astype(int) + 20, 0, 255).astype(np.uint8)


class PaintRestorer(IdentityRestorer):
    """Paints every face in one colour."""

    def __init__(self, size: int = 64, colour: tuple[int, int, int] = (200, 60, 60)) -> None:
        super().__init__(size)
        self.colour = colour

    def restore(self, crops: Image) -> Image:
        return np.full_like(super().restore(crops), self.colour)


class SlowRestorer(PaintRestorer):
    """Takes so many seconds for a batch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def restore(self, crops: Image) -> Image:
        time.sleep(self.seconds)
        return super().restore(crops)


def no_faces(images: Sequence[Image]) -> list[list[Face]]:
    return [[] for _ in images]


class BlindDetector:
    """Never finds a face."""

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        return no_faces(images)


def mean_inside(rgb: Image, x: float, y: float, side: float) -> Float:
    """Mean colour of the square with centre x, y and this side."""
    x0, y0 = round(x - side / 2), round(y - side / 2)
    return rgb[y0 : y0 + round(side), x0 : x0 + round(side)].reshape(-1, 3).mean(axis=0).astype(np.float32)
