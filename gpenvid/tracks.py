"""A video's faces, followed but not restored: as data, drawn over the video, or plotted."""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import av
import cv2
import numpy as np

from gpenvid.enhancer import chosen_detector
from gpenvid.errors import MediaError, OptionsError
from gpenvid.faces.detect import Detector
from gpenvid.faces.plot import Panel, plot_rgb, plot_svg
from gpenvid.faces.show import LANDMARKS, draw, label_height, picture_json
from gpenvid.follow import Follower, Picture
from gpenvid.media import pixels
from gpenvid.media.probe import probe
from gpenvid.media.reader import Reader
from gpenvid.media.target import Target
from gpenvid.media.writer import FORMATS, Writer
from gpenvid.options import Options
from gpenvid.report import Counts, StageClock
from gpenvid.stages import prefetch
from gpenvid.types import Face, Track

DEPTH = 8
"""Pictures that wait between two stages at most."""

PLOTTED = 4
"""So many tracks are plotted: those seen longest."""

PLOTTED_PICTURES = 20_000
"""Of each track, so many pictures are plotted."""


@dataclass(slots=True)
class Followed:
    """What was done. pictures and tracks: how many; seconds: wall time; outputs: the files written."""

    outputs: list[str]
    pictures: int = 0
    tracks: int = 0
    cuts: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)


def tracks(
    input: str | Path,
    outputs: Sequence[str | Path],
    *,
    on_progress: Callable[[int, int | None, int], None] | None = None,
    stop: threading.Event | None = None,
    detector: Detector | None = None,
    **options: Any,
) -> Followed:
    """Follow the faces of a video exactly as `enhance` would, and write what was seen.

    outputs: files, by suffix: .json (every track in every picture, raw and smoothed), .svg or .png (the motion of the
    tracks seen longest), or a video with the tracks drawn over it, of which there may be one. on_progress: called after
    each picture with the pictures done, the pictures expected (None when unknown) and the tracks in that picture. stop:
    once set, the outputs are finished properly with what was read. detector: used instead of the one that the options
    name. options: any field of the dataclasses in `gpenvid.options`.

    The outputs appear when they are complete, or not at all. Raises a GpenvidError with a one-line message.
    """
    chosen = Options.of(**options)
    source, begin, stop = Path(input), time.perf_counter(), stop or threading.Event()
    info = probe(source)
    if info.kind == "image":
        raise MediaError(f"{source}: is a still image; tracks need a video")
    targets = _checked([Path(output) for output in outputs], source)
    follower = Follower(chosen, detector or chosen_detector(chosen), Counts(), StageClock())
    done, seen = Followed([str(target.path) for target in targets]), set[int]()
    with Reader(source, chosen.reader) as reader, ExitStack() as files:
        written: list[_Output] = []
        copied = None
        for target in targets:
            if target.path.suffix.lower() in FORMATS:
                writer = files.enter_context(Writer(target.path, reader, chosen.encoder))
                written.append(_Overlay(writer))
                copied = writer.copy
            else:
                written.append(files.enter_context(_FILES[target.path.suffix.lower()](target)))
        decoded = prefetch(_until(stop, reader.pictures(copied)), DEPTH, "decode")
        followed = prefetch(follower.follow(decoded), DEPTH, "follow")
        with closing(decoded), closing(followed):
            for picture, shown in followed:
                done.pictures += 1
                seen |= {track.id for track in shown}
                used = {id(track.raw) for track in shown}
                strays = [face for face in picture.faces or () if id(face) not in used]
                for output in written:
                    output.add(picture, shown, strays)
                if on_progress is not None:
                    on_progress(done.pictures, info.frames, len(shown))
    done.notes = reader.notes + [note for output in written for note in output.notes]
    done.tracks, done.cuts = len(seen), follower.counts.cuts
    done.seconds, done.interrupted = time.perf_counter() - begin, stop.is_set()
    return done


def _checked(outputs: list[Path], source: Path) -> list[Target]:
    """Refuse what can't be written before any work."""
    known = [*_FILES, *FORMATS]
    if not outputs:
        raise OptionsError("tracks: name the output with -o, for example -o tracks.json")
    for path in outputs:
        if path.suffix.lower() not in known:
            suffix = path.suffix or "no extension"
            raise OptionsError(f"{path}: don't know how to write tracks as {suffix}; use {', '.join(known)}")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise OptionsError("tracks: the same output is named twice")
    if sum(path.suffix.lower() in FORMATS for path in outputs) > 1:
        raise OptionsError("tracks: only one of the outputs can be a video")
    return [Target(path, (source,)) for path in outputs]


def _until(stop: threading.Event, frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    for frame in frames:
        yield frame
        if stop.is_set():
            return


class _Output(ABC):
    """What takes every picture in turn."""

    notes: Sequence[str] = ()

    @abstractmethod
    def add(self, picture: Picture, tracks: list[Track], strays: list[Face]) -> None:
        """Take in the next picture, its tracks, and the detections that support none of them."""


class _Overlay(_Output):
    """Draws into the pictures where faces are, in their own pixel format, and writes them."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.notes = writer.notes

    def add(self, picture: Picture, tracks: list[Track], strays: list[Face]) -> None:
        if tracks or strays:
            picture.frame.make_writable()
            unit = max(picture.size) / 640
            for track in tracks:
                boxes = [each.box for each in (track.face, track.raw) if each is not None]
                _paint(picture, boxes, unit, [track], [])
            for face in strays:
                _paint(picture, [face.box], unit, [], [face])
        self.writer.write(picture.frame)


def _paint(
    picture: Picture, boxes: list[np.ndarray[Any, Any]], unit: float, tracks: list[Track], strays: list[Face]
) -> None:
    """Draw tracks or strays that lie in boxes into the picture, upright, whichever way it is stored."""
    room = label_height(unit) + 2
    low = np.floor(np.min([box[:2] for box in boxes], 0)) - room
    high = np.ceil(np.max([box[2:] for box in boxes], 0)) + room
    low, high = np.clip(low, 0, picture.size).astype(int), np.clip(high, 0, picture.size).astype(int)
    if (high - low < 2).any():
        return
    corners = np.array([[x, y, 1] for x in (low[0], high[0]) for y in (low[1], high[1])]) @ picture.to_stored.T
    bounds = (picture.frame.width, picture.frame.height)
    x0, y0 = np.clip(np.floor(corners.min(0)), 0, bounds).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(corners.max(0)), 0, bounds).astype(int).tolist()
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    region = pixels.read_region(picture.frame, x0, y0, x1, y1)
    to_region = picture.to_stored.copy()
    to_region[:, 2] += picture.to_stored[:, :2] @ low - [x0, y0]
    size = tuple((high - low).tolist())
    upright = np.asarray(
        cv2.warpAffine(
            region, to_region, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        ),
        np.uint8,
    )
    drawn = draw(upright, [_moved(track, low) for track in tracks], [_shifted(face, low) for face in strays], unit)
    delta = cv2.warpAffine(drawn.astype(np.float32) - upright, to_region, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    pixels.add_region(picture.frame, x0, y0, np.asarray(delta, np.float32))


def _moved(track: Track, origin: np.ndarray[Any, Any]) -> Track:
    raw = None if track.raw is None else _shifted(track.raw, origin)
    return Track(track.id, _shifted(track.face, origin), track.strength, track.detected, raw)


def _shifted(face: Face, origin: np.ndarray[Any, Any]) -> Face:
    by = origin.astype(np.float32)
    return Face(face.box - np.tile(by, 2), face.landmarks - by, face.score)


class _File(_Output):
    """A file that is whole or absent."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def __enter__(self) -> _File:
        self.target.claim()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.close()
            self.target.discard()
            return
        try:
            self.finish()
        except OSError as failure:
            self.target.discard()
            raise MediaError(f"{self.target.path}: can't be written ({failure.strerror})") from failure
        self.target.commit()

    def finish(self) -> None:
        """Complete the part."""
        self.close()

    def close(self) -> None:
        """Let go of the part."""


class _Json(_File):
    """A line for each picture, written as it comes."""

    file: TextIO

    def __enter__(self) -> _File:
        super().__enter__()
        self.file = self.target.part.open("w", encoding="utf-8")
        self.start = '{{"width": {}, "height": {}, "landmarks": {}, "pictures": ['
        return self

    def add(self, picture: Picture, tracks: list[Track], strays: list[Face]) -> None:
        head = self.start.format(*picture.size, json.dumps(LANDMARKS)) if self.start else ","
        self.start = ""
        try:
            self.file.write(f"{head}\n{json.dumps(picture_json(picture.seconds, tracks, strays))}")
        except OSError as failure:
            raise MediaError(f"{self.target.path}: can't be written ({failure.strerror})") from failure

    def finish(self) -> None:
        with self.file:
            self.file.write("\n]}\n")

    def close(self) -> None:
        self.file.close()


class _Plot(_File):
    """Gathers the motion of the tracks seen longest."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.motions: dict[int, list[tuple[float, complex, complex]]] = {}

    def add(self, picture: Picture, tracks: list[Track], strays: list[Face]) -> None:
        for track in tracks:
            motion = self.motions.setdefault(track.id, [])
            if len(motion) < PLOTTED_PICTURES:
                raw = complex(np.nan, np.nan) if track.raw is None else _centre(track.raw)
                motion.append((picture.seconds, raw, _centre(track.face)))
        if len(self.motions) > 2 * PLOTTED + len(tracks):
            here = {track.id for track in tracks}
            gone = [number for number in self.motions if number not in here]
            del self.motions[min(gone, key=lambda number: len(self.motions[number]))]

    def finish(self) -> None:
        longest = sorted(self.motions, key=lambda number: -len(self.motions[number]))[:PLOTTED]
        panels = [panel for number in sorted(longest) for panel in _panels(number, self.motions[number])]
        if self.target.path.suffix.lower() == ".svg":
            self.target.part.write_text(plot_svg(panels), encoding="utf-8")
        else:
            av.VideoFrame.from_ndarray(plot_rgb(panels), "rgb24").save(self.target.part)


def _centre(face: Face) -> complex:
    x, y = face.landmarks.mean(0)
    return complex(x, y)


def _panels(number: int, motion: list[tuple[float, complex, complex]]) -> list[Panel]:
    """Where the middle of a track's landmarks is, and how much it shakes, which the eye sees before anything else."""
    times, raw, smooth = (np.array(column) for column in zip(*motion, strict=True))
    panels = [
        Panel(f"track {number}: {name}", "px", times, {"raw": part(raw), "smoothed": part(smooth)})
        for name, part in (("across", np.real), ("down", np.imag))
    ]
    if len(times) > 2:
        shaking = {"raw": np.abs(np.diff(raw, 2)), "smoothed": np.abs(np.diff(smooth, 2))}
        panels.append(Panel(f"track {number}: second difference, picture to picture", "px", times[1:-1], shaking))
    return panels


_FILES: dict[str, type[_File]] = {".json": _Json, ".svg": _Plot, ".png": _Plot}
