"""Pictures in, the same pictures with the faces that are followed through them out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import av
import numpy as np
from numpy.typing import NDArray

from gpenvid.faces.detect import Detector
from gpenvid.faces.scene import SceneDetector
from gpenvid.faces.track import Tracker
from gpenvid.media import pixels
from gpenvid.options import Options
from gpenvid.report import Counts, StageClock
from gpenvid.types import Face, Image, Track

DETECT_BATCH = 4
"""Pictures searched for faces at once when look-ahead allows it."""


@dataclass(slots=True)
class Picture:
    """A picture on its way. `to_stored` (2, 3) maps upright square pixels, in which faces are, to stored pixels.

    seconds: its presentation time; small: its upright RGB copy, `to_small` times as large; faces: what was detected in
    it, None if it was not searched.
    """

    frame: av.VideoFrame
    seconds: float
    small: Image
    to_small: float
    to_stored: NDArray[np.float64]
    faces: list[Face] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture in square pixels."""
        height, width = self.small.shape[:2]
        return round(width / self.to_small), round(height / self.to_small)


class Follower:
    """Finds faces and follows them; what it sees and how long that takes goes to `counts` and `clock`.

    reduce: makes the small copies, as `media.pixels.reduced` does.
    """

    def __init__(
        self,
        options: Options,
        detector: Detector,
        counts: Counts,
        clock: StageClock,
        reduce: pixels.Reduce = pixels.reduced,
    ) -> None:
        self.options = options
        self.reduce = reduce
        self.detector = detector
        self.counts = counts
        self.clock = clock

    def follow(self, frames: Iterable[av.VideoFrame]) -> Iterator[tuple[Picture, list[Track]]]:
        """Yield every picture of a video, in order, once its tracks are final; each call starts with fresh ones."""
        every, lag = self.options.tracker.detect_every, self.options.tracker.lag
        tracker, scene = Tracker(self.options.tracker), SceneDetector()
        waiting: deque[Picture] = deque()
        source, rest = iter(frames), 0
        while pictures := [self.picture(frame) for frame in islice(source, DETECT_BATCH if lag > 0 else 1)]:
            cuts = []
            for picture in pictures:
                with self.clock("track"):
                    cuts.append(scene.update(picture.small, picture.seconds))
            look = []
            for cut in cuts:
                rest = 0 if cut else rest
                look.append(rest == 0)
                rest = (rest + 1) % every
            found = iter(self.detect([picture for picture, wanted in zip(pictures, look, strict=True) if wanted]))
            for picture, wanted, cut in zip(pictures, look, cuts, strict=True):
                waiting.append(picture)
                self.counts.cuts += cut
                picture.faces = next(found) if wanted else None
                with self.clock("track"):
                    final = tracker.update(picture.faces, picture.seconds, cut=cut, size=picture.size)
                for _, tracks in final:
                    yield waiting.popleft(), tracks
        for _, tracks in tracker.flush():
            yield waiting.popleft(), tracks

    def picture(self, frame: av.VideoFrame) -> Picture:
        """Make the small copy of a decoded picture, in any pixel format of `media.pixels.EDITABLE`."""
        with self.clock("thumbnail"):
            small, small_to_stored = pixels.thumbnail(frame, self.options.detector.detect_size, self.reduce)
            scale = float(np.sqrt(abs(np.linalg.det(small_to_stored[:, :2]))))
            # Upright pixels of the picture's own size: p = (s + 0.5) * scale - 0.5 for a thumbnail pixel s.
            to_stored = small_to_stored.copy()
            to_stored[:, :2] /= scale
            to_stored[:, 2] += small_to_stored[:, :2].sum(axis=1) * (0.5 / scale - 0.5)
            seconds = float(frame.pts * frame.time_base) if frame.pts and frame.time_base else 0.0
        return Picture(frame, seconds, small, 1 / scale, to_stored)

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """The faces of each picture in its upright pixels, largest first."""
        if not pictures:
            return []
        with self.clock("detect"):
            found = self.detector.detect([picture.small for picture in pictures])
        most = self.options.detector.max_faces or None
        return [
            sorted((_scaled(face, 1 / picture.to_small) for face in faces), key=lambda face: face.size, reverse=True)[
                :most
            ]
            for picture, faces in zip(pictures, found, strict=True)
        ]


def _scaled(face: Face, scale: float) -> Face:
    """The face in a picture `scale` times as large; pixel centres are at whole numbers."""
    box = (face.box + 0.5) * scale - 0.5
    landmarks = (face.landmarks + 0.5) * scale - 0.5
    return Face(box.astype(np.float32), landmarks.astype(np.float32), face.score)
