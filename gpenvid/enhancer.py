"""Pictures in, the same pictures with better faces out. No files, no threads, no globals."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import av
import numpy as np
import torch
from numpy.typing import NDArray

from gpenvid import patch
from gpenvid.faces import align
from gpenvid.faces.detect import Detector, load_detector
from gpenvid.faces.mask import FaceParser, load_parser
from gpenvid.faces.selection import Selection
from gpenvid.faces.steady import FlickerFilter
from gpenvid.faces.tone import keep_gray
from gpenvid.follow import Follower, Picture
from gpenvid.gpen.restorer import Restorer, load_restorer
from gpenvid.options import Options
from gpenvid.patch import Patch
from gpenvid.patch_torch import TorchPatch
from gpenvid.report import Counts, StageClock
from gpenvid.types import Float, Image, Track

Affine = NDArray[np.float64]
FaceCallback = Callable[[Track, float, Image, Image], None]
"""Called for each restored face: track, time in seconds, aligned crop, restored crop (both (S, S, 3) RGB)."""
T = TypeVar("T")


class Beside(Protocol):
    """Runs a step of the work beside the others, as `stages.prefetch` does."""

    def __call__(self, steps: Generator[T, None, None], name: str) -> Generator[T, None, None]:
        """What `steps` gives, in its order; closing it closes `steps`."""


@dataclass(slots=True)
class _Crop:
    """One face taken out of a picture. `matrix` maps stored picture px to crop px; the last two come later."""

    track: Track
    matrix: Affine
    crop: Image
    weight: float
    restored: Image = field(init=False)
    mask: Float = field(init=False)


_Found = tuple[Picture, list[_Crop]]


def _in_turn(steps: Generator[T, None, None], name: str) -> Generator[T, None, None]:
    return steps


class Enhancer:
    """Finds, follows and restores the faces of pictures.

    The networks are loaded as `options` say unless they are given. One Enhancer serves one
    sequence at a time; each call of `process` starts with fresh tracks. `counts` and `clock` grow over all calls.
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        restorer: Restorer | None = None,
        detector: Detector | None = None,
        parser: FaceParser | None = None,
        on_face: FaceCallback | None = None,
    ) -> None:
        self.options = options or Options()
        chosen = self.options
        self.restorer = restorer or load_restorer(
            chosen.restorer.model,
            device=chosen.restorer.device,
            precision=chosen.restorer.precision,
            batch=chosen.restorer.batch,
            backend=chosen.restorer.backend,
            provider=chosen.restorer.provider,
            compile=chosen.restorer.compile,
            weights_dir=chosen.weights.weights_dir,
            offline=chosen.weights.offline or None,
        )
        self.detector = detector or chosen_detector(chosen)
        self.parser = parser
        if parser is None and chosen.paste.mask == "parsed":
            self.parser = load_parser(
                device=chosen.restorer.first_device,
                weights_dir=chosen.weights.weights_dir,
                offline=chosen.weights.offline or None,
            )
        self.on_face = on_face
        self.counts = Counts()
        self.clock = StageClock()
        self._mask = align.feather(self.restorer.size)
        self._patch = chosen_patch(chosen.paste.paste_on, self.restorer)
        self._follower = Follower(chosen, self.detector, self.counts, self.clock, self._patch.reduced)

    @property
    def card(self) -> int | None:
        """The CUDA device on which faces are cut out and pasted: pictures that it decodes may stay there."""
        device = self._patch.device if isinstance(self._patch, TorchPatch) else torch.device("cpu")
        return (device.index or 0) if device.type == "cuda" else None

    def process(self, frames: Iterable[av.VideoFrame], beside: Beside = _in_turn) -> Iterator[av.VideoFrame]:
        """Yield every picture of a video, in order, with its faces restored in place.

        frames: decoded pictures with increasing pts and a time_base, in any pixel format of
        `media.pixels.EDITABLE`, or in the memory of `card`. beside: is given what each step makes and the step's name,
        "find" or "restore", and gives the same back, perhaps made in another thread; pasting is left to the caller's.
        By default one step follows the other, and at most the look-ahead plus one batch of pictures is held at any
        time.
        """
        steady = FlickerFilter(self.options.tracker.stability)
        with ExitStack() as running:
            found = running.enter_context(closing(beside(self._found(frames), "find")))
            restored = running.enter_context(closing(beside(self._restored(found), "restore")))
            for batch in restored:
                for picture, crops in batch:
                    yield self._give(picture, crops, steady)

    def together(self, followed: Sequence[tuple[Picture, list[Track], FlickerFilter]]) -> None:
        """Restore the faces of pictures in place, in one batch, wherever they come from; a live session does so.

        followed: pictures with the faces to restore and the filter of the sequence that each belongs to.
        """
        ready = [(picture, self._crops(picture, tracks), steady) for picture, tracks, steady in followed]
        self._restore([crop for _, taken, _ in ready for crop in taken])
        for picture, taken, steady in ready:
            self._give(picture, taken, steady)

    def still(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Restore the faces of one picture in place, without tracking."""
        frame.pts = frame.pts or 0
        picture = self._follower.picture(frame)
        faces = self._follower.detect([picture])[0]
        sure = [face for face in faces if face.score >= self.options.tracker.confident]
        tracks = [Track(i, face) for i, face in enumerate(sure, start=1)]
        if tracks:
            selection = Selection(self.options.tracker)
            boxes, landmarks = np.stack([face.box for face in sure]), np.stack([face.landmarks for face in sure])
            chosen = selection.chosen([track.id for track in tracks], boxes, picture.size)
            shown = selection.gates(boxes, landmarks) * chosen
            tracks = [track._replace(strength=float(each)) for track, each in zip(tracks, shown, strict=True)]
        crops = self._crops(picture, tracks)
        self._restore(crops)
        return self._give(picture, crops, steady=None)

    def image(self, rgb: Image) -> Image:
        """Restore the faces of an RGB uint8 picture (H, W, 3); returns a new array of the same shape."""
        better = self.still(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24"))
        return better.to_ndarray().astype(np.uint8, copy=False)

    def _found(self, frames: Iterable[av.VideoFrame]) -> Generator[_Found, None, None]:
        """Every picture with its aligned faces."""
        for picture, tracks in self._follower.follow(frames):
            yield picture, self._crops(picture, tracks)

    def _restored(self, found: Iterable[_Found]) -> Generator[list[_Found], None, None]:
        """Gather the crops of several pictures into batches, and restore them."""
        batch = getattr(self.restorer, "batch", 0) or self.options.restorer.batch or 4
        window = 2 * batch if self.options.tracker.lag > 0 else 1
        ready: list[_Found] = []
        gathered = 0
        for each in found:
            ready.append(each)
            gathered += len(each[1])
            if gathered == 0 or gathered >= batch or len(ready) >= window:
                self._restore([crop for _, crops in ready for crop in crops])
                yield ready
                ready, gathered = [], 0
        self._restore([crop for _, crops in ready for crop in crops])
        yield ready

    def _crops(self, picture: Picture, tracks: list[Track]) -> list[_Crop]:
        """Take the aligned faces out of a picture, at most one per track."""
        crops = []
        with self.clock("crop"):
            for track in tracks:
                self.counts.faces += 1
                weight = self._weight(track)
                if weight == 0:
                    self.counts.too_small += 1
                    continue
                try:
                    to_crop = align.fit_similarity(track.face.landmarks, self.restorer.size)
                except ValueError:  # points that lie on each other are no face
                    self.counts.skipped += 1
                    continue
                matrix = _compose(to_crop, align.inverted(picture.to_stored))
                crop = self._patch.cut_out(picture.frame, matrix, self.restorer.size)
                if crop is None:
                    self.counts.skipped += 1
                    continue
                crops.append(_Crop(track, matrix, crop, weight))
        return crops

    def _weight(self, track: Track) -> float:
        """How much of the restoration is shown: the track's strength, less for faces near the least size."""
        least = self.options.paste.min_face
        grown = 1.0 if least == 0 else float(np.clip((track.face.size / least - 1) / 0.25, 0, 1))
        return track.strength * grown * self.options.paste.blend / 100

    def _restore(self, crops: list[_Crop]) -> None:
        """All of them in one batch."""
        if not crops:
            return
        with self.clock("restore"):
            restored = self.restorer.restore(np.stack([crop.crop for crop in crops]))
        with self.clock("mask"):
            masks = self.parser.mask(restored) if self.parser else [self._mask] * len(crops)
        for crop, face, mask in zip(crops, restored, masks, strict=True):
            crop.restored, crop.mask = face, mask * np.float32(crop.weight)

    def _give(self, picture: Picture, taken: list[_Crop], steady: FlickerFilter | None) -> av.VideoFrame:
        if taken:
            with self.clock("paste"):
                self._put_back(picture, taken, steady)
        self.counts.pictures += 1
        return picture.frame

    def _put_back(self, picture: Picture, faces: list[_Crop], steady: FlickerFilter | None) -> None:
        picture.frame.make_writable()
        size, touched = self.restorer.size, list[tuple[int, int, int, int]]()
        for taken in faces:
            restored = keep_gray(taken.crop, taken.restored)
            if steady is not None:
                restored = steady.update(taken.track.id, picture.seconds, taken.crop, restored)
            box = align.crop_bounds(taken.matrix, size, picture.frame.width, picture.frame.height)
            beneath: Image | None = taken.crop
            if box is not None and any(_overlap(box, other) for other in touched):
                beneath = self._patch.cut_out(picture.frame, taken.matrix, size)
            if box is None or beneath is None:
                continue
            self._patch.put_back(picture.frame, taken.matrix, beneath, restored, taken.mask)
            touched.append(box)
            self.counts.restored += 1
            if self.on_face is not None:
                self.on_face(taken.track, picture.seconds, taken.crop, restored)


def chosen_detector(options: Options) -> Detector:
    """Load the face detector that the options name. Raises WeightsError or DeviceError."""
    return load_detector(
        options.detector.detector_model,
        device=options.restorer.first_device,
        threshold=options.detector.threshold,
        second_look=options.detector.second_look,
        weights_dir=options.weights.weights_dir,
        offline=options.weights.offline or None,
    )


def chosen_patch(where: str, restorer: Restorer) -> Patch:
    """Whatever cuts faces out and puts them back, on the restorer's device or the CPU.

    where: cpu, device, or auto: the device if that is a graphics card.
    """
    device = torch.device(getattr(restorer, "device", "cpu"))
    if where == "device" or (where == "auto" and device.type == "cuda"):
        return TorchPatch(device)
    return patch


def _compose(second: Affine, first: Affine) -> Affine:
    """The (2, 3) affine map that applies `first`, then `second`."""
    return np.asarray(second @ np.vstack([first, [0.0, 0.0, 1.0]]))


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
