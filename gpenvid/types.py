"""The values that travel between the rooms. Pictures themselves travel as `av.VideoFrame`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Image = NDArray[np.uint8]
"""RGB, uint8, (H, W, 3)."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One detection.

    box: (4,) float32, x0 y0 x1 y1 in pixels; landmarks: (5, 2) float32 pixels, in the order left eye, right eye,
    nose, left mouth corner, right mouth corner, where left is the picture's left; score in [0, 1].
    Pixel coordinates have their origin in the centre of the top left pixel.
    """

    box: Float
    landmarks: Float
    score: float

    def __post_init__(self) -> None:
        """Refuse arrays of another shape with a ValueError."""
        if self.box.shape != (4,) or self.landmarks.shape != (5, 2):
            raise ValueError(
                f"Face needs box (4,) and landmarks (5, 2), got {self.box.shape} and {self.landmarks.shape}"
            )

    @property
    def size(self) -> float:
        """The longer side of the box in pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


class Track(NamedTuple):
    """One face in one picture, after association and smoothing.

    id: positive, stable over the life of the track; face: the smoothed face; strength in [0, 1]: how much of the
    restoration to show (tracks fade in and out); detected: whether a detection of this very picture supports it;
    raw: that detection, before smoothing.
    """

    id: int
    face: Face
    strength: float = 1.0
    detected: bool = True
    raw: Face | None = None
