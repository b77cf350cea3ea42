"""One job from source to sink: read, enhance, write; counted and reported."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import av

from gpenvid.enhancer import Enhancer
from gpenvid.errors import GpenvidError, MediaError, OptionsError
from gpenvid.faces.detect import Detector
from gpenvid.gpen.restorer import Restorer
from gpenvid.media.image import IMAGE_FORMATS, read_image, write_image
from gpenvid.media.planes_torch import current
from gpenvid.media.probe import MediaInfo, probe
from gpenvid.media.reader import Reader
from gpenvid.media.target import Target
from gpenvid.media.writer import FORMATS, Writer
from gpenvid.options import STAGES, Options
from gpenvid.report import MAX_TRACKS, Report, TrackSummary
from gpenvid.stages import prefetch
from gpenvid.trace import Trace
from gpenvid.types import Image, Track

T = TypeVar("T")

VIDEO_SUFFIXES = frozenset(FORMATS) | {
    *(".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".wmv", ".asf", ".flv", ".3gp", ".ogv", ".mxf", ".gif"),
}
"""What counts as a video in a folder."""

LEAD_IN = 2
"""Seconds before the point of a resume from which faces are followed again, so that they are known there."""

DEPTH = 8
"""Pictures that wait between two stages at most."""

AHEAD = 2
"""Pictures with their faces, and restored batches of them, that wait at most."""

ProgressCallback = Callable[[int, "int | None", int], None]
"""Called after each picture: pictures done, pictures expected (None when unknown), faces restored so far."""


def enhance(
    input: str | Path,
    output: str | Path | None = None,
    *,
    save_faces: str | Path | None = None,
    faces_only: bool = False,
    report: str | Path | None = None,
    profile: str | Path | None = None,
    on_progress: ProgressCallback | None = None,
    stop: threading.Event | None = None,
    resume: bool = True,
    restorer: Restorer | None = None,
    detector: Detector | None = None,
    **options: Any,
) -> Report:
    """Make the faces of a video or still image better and write the result.

    input: a video or image file. output: a file of the same kind; by default `output_<name>` in the working
    directory. save_faces: a folder that receives each aligned crop and its restoration as PNG; with faces_only
    nothing else is written. report: a JSON file that receives the report. profile: a JSON file that receives a
    timeline of the stages, for `chrome://tracing` or Perfetto. on_progress: called after each picture.
    stop: once set, the output is finished properly with the pictures read so far. resume: go on where an earlier run
    of the same job was killed; what is needed for that lies beside the output while it is made. restorer, detector:
    used instead of those that the options name. options: any field of the dataclasses in `gpenvid.options`.

    The output appears only when it is complete; a file that it replaces is kept until then.
    Raises MediaError, WeightsError, DeviceError or OptionsError, all GpenvidError, with a one-line message.
    """
    chosen = Options.of(**options)
    if faces_only and save_faces is None:
        raise OptionsError("--faces-only: name the folder with --save-faces DIR")
    source = Path(input)
    info = probe(source)
    target = (
        None if faces_only else Path(output) if output is not None else Path.cwd() / f"output_{writable_name(source)}"
    )
    if target is not None:
        Target(target, (source,))  # refuses what can't be written before the networks are loaded
    if report is not None:
        Target(report, (source,))
    trace = Trace(profile, (source,)) if profile is not None else nullcontext()
    saver = FaceSaver(save_faces) if save_faces is not None else None
    enhancer = Enhancer(chosen, restorer=restorer, detector=detector)
    with trace as enhancer.clock.trace:
        done = _Job(enhancer, source, info, target, saver, on_progress, stop, resume=resume).run()
    if report is not None:
        done.input_sha256 = _sha256(source)
        done.write(report)
    return done


def writable_name(source: Path) -> str:
    """The file's own name; with .mkv for a video whose container can't be written."""
    if source.suffix.lower() in IMAGE_FORMATS.keys() | FORMATS.keys():
        return source.name
    return f"{source.stem}.mkv"


class FaceSaver:
    """Writes each aligned crop and its restoration as PNG: `<track>_<milliseconds>_crop.png`, `..._restored.png`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = _folder(folder)

    def __call__(self, track: Track, seconds: float, crop: Image, restored: Image) -> None:
        """Write one pair. Raises MediaError."""
        for kind, rgb in (("crop", crop), ("restored", restored)):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
            path = self.folder / f"{track.id:04d}_{round(seconds * 1000):09d}_{kind}.png"
            try:
                frame.save(path)
            except (OSError, av.FFmpegError) as error:
                raise MediaError(f"{path}: can't be written ({error})") from error


class _Job:
    """One input on its way to one output."""

    def __init__(
        self,
        enhancer: Enhancer,
        source: Path,
        info: MediaInfo,
        target: Path | None,
        saver: FaceSaver | None,
        on_progress: ProgressCallback | None,
        stop: threading.Event | None,
        *,
        resume: bool,
    ) -> None:
        self.enhancer = enhancer
        enhancer.on_face = self._on_face
        self.saver = saver
        self.info = info
        self.source = source
        self.target = target
        self.on_progress = on_progress
        self.stop = stop or threading.Event()
        self.resume = resume
        self.tracks: dict[int, TrackSummary] = {}
        self.report = Report(
            input=str(source),
            output=str(target) if target else None,
            model=described(enhancer.restorer),
            detector=described(enhancer.detector),
            options=asdict(enhancer.options),
        )

    def _on_face(self, track: Track, seconds: float, crop: Image, restored: Image) -> None:
        if self.saver is not None:
            self.saver(track, seconds, crop, restored)
        if track.id in self.tracks:
            self.tracks[track.id].seen(track, seconds)
        else:
            self.enhancer.counts.tracks += 1
            if len(self.tracks) < MAX_TRACKS:
                self.tracks[track.id] = TrackSummary.born(track, seconds)

    def run(self) -> Report:
        """Do the work and tell what was done."""
        start = time.perf_counter()
        if self.info.kind == "image":
            self._still()
        else:
            self._video()
        report = self.report
        report.seconds = time.perf_counter() - start
        report.counts = self.enhancer.counts
        report.stages = {stage: round(seconds, 4) for stage, seconds in self.enhancer.clock.seconds.items()}
        report.bottleneck = self.enhancer.clock.bottleneck
        report.tracks = list(self.tracks.values())
        report.interrupted = self.stop.is_set()
        if report.counts.restored == 0:
            report.notes.append("no face was restored; the output is a plain copy" if self.target else "no face found")
        return report

    def _still(self) -> None:
        still = read_image(self.source)
        self.report.notes += still.notes
        self.enhancer.still(still.frame)
        if self.target is not None:
            self.report.notes += write_image(self.target, still)
        self._progress(1, 1)

    def _video(self) -> None:
        card = self.enhancer.card
        with current(card), Reader(self.source, self.enhancer.options.reader, card=card) as reader:
            if self.target is None:
                self._stream(reader, None)
            else:
                job = self._identity() if self.resume else None
                with Writer(self.target, reader, self.enhancer.options.encoder, job=job) as writer:
                    if writer.resumed is not None:
                        self.report.resumed = float(writer.resumed)
                        self.report.notes.append(
                            f"an earlier run was interrupted: going on at {float(writer.resumed):.1f} s"
                        )
                    self._stream(reader, writer)
                self.report.notes += writer.notes
            self.report.media = asdict(reader.counts)
            self.report.notes += reader.notes

    def _stream(self, reader: Reader, writer: Writer | None) -> None:
        """Decode, find faces, restore, paste and encode, each in a thread of its own; encoding in this one."""
        clock = self.enhancer.clock
        total = self.info.frames
        resumed = writer.resumed if writer else None
        first = None if resumed is None else resumed - LEAD_IN
        pictures = reader.pictures(writer.copy if writer else None, first=first)
        decoded = prefetch(self._until_stopped(_timed(pictures, "decode", clock)), DEPTH, "decode")
        enhanced = prefetch(self.enhancer.process(decoded, _beside), DEPTH, "paste")
        with closing(decoded), closing(enhanced):
            count = writer.written if writer else 0
            for picture in enhanced:
                assert picture.pts is not None and picture.time_base is not None
                if resumed is not None and picture.pts * picture.time_base < resumed:
                    continue
                count += 1
                if writer is not None:
                    with clock("encode"):
                        writer.write(picture)
                self._progress(count, total)

    def _identity(self) -> str:
        """A text that is the same only for the same input, networks, options and versions."""
        state = self.source.stat()
        told = [str(self.source.resolve()), state.st_size, state.st_mtime_ns, self.report.model, self.report.detector]
        told += [self.report.options, self.report.versions]
        return hashlib.sha256(json.dumps(told, default=str, sort_keys=True).encode()).hexdigest()

    def _until_stopped(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            yield item
            if self.stop.is_set():
                return

    def _progress(self, done: int, total: int | None) -> None:
        if self.on_progress is not None:
            self.on_progress(done, total, self.enhancer.counts.restored)


def enhance_folder(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    on_file: Callable[[Path, Report | GpenvidError], None] | None = None,
    **settings: Any,
) -> list[Report | GpenvidError]:
    """Enhance every video and image directly inside a folder.

    output: a folder, by default `output_<name>` in the working directory; each file keeps its name there.
    A file that fails doesn't stop the others: its error takes its report's place. on_file is called after each.
    settings: as for `enhance`; save_faces, report and profile name folders, which get something for each input.
    Raises MediaError when there is nothing to do.
    """
    folder = Path(folder)
    target = Path(output) if output is not None else Path.cwd() / f"output_{folder.resolve().name}"
    sources = [
        path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_FORMATS.keys() | VIDEO_SUFFIXES
    ]
    if not sources:
        raise MediaError(f"{folder}: no video or image in this folder")
    if target.resolve() == folder.resolve():
        raise MediaError(f"{target}: the output folder is the input folder; name another with -o")
    names = {each.name for stage in STAGES.values() for each in fields(stage)}
    networks = Enhancer(
        Options.of(**{name: settings[name] for name in names & settings.keys()}),
        restorer=settings.pop("restorer", None),
        detector=settings.pop("detector", None),
    )
    settings |= {"restorer": networks.restorer, "detector": networks.detector}
    apart = {name: _folder(settings.pop(name)) for name in ("report", "profile") if settings.get(name) is not None}
    faces_folder = settings.pop("save_faces", None)
    if not settings.get("faces_only"):
        _folder(target)
    results: list[Report | GpenvidError] = []
    for source in sources:
        own: dict[str, Any] = {name: place / f"{source.name}.json" for name, place in apart.items()}
        if faces_folder is not None:
            own["save_faces"] = Path(faces_folder) / source.name
        try:
            result: Report | GpenvidError = enhance(source, target / writable_name(source), **own, **settings)
        except GpenvidError as error:
            result = error
        results.append(result)
        if on_file is not None:
            on_file(source, result)
        stop = settings.get("stop")
        if stop is not None and stop.is_set():
            break
    return results


def _folder(path: str | Path) -> Path:
    """The folder, made if it isn't there. Raises MediaError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"{path}: can't make this folder ({error.strerror})") from error
    return Path(path)


def _beside(steps: Generator[T, None, None], name: str) -> Generator[T, None, None]:
    return prefetch(steps, AHEAD, name)


def _timed(items: Iterable[T], stage: str, clock: Callable[[str], Any]) -> Iterator[T]:
    """The same items, with the time that each took added to the stage."""
    source = iter(items)
    while True:
        with clock(stage):
            try:
                item = next(source)
            except StopIteration:
                return
        yield item


def described(part: object) -> dict[str, Any]:
    """Name and checksum of a network, as far as it tells them."""
    return {
        key: str(value)
        for key in ("name", "sha256", "size", "device", "devices", "precision")
        if (value := getattr(part, key, None)) is not None
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
