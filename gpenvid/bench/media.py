"""Throughput and memory of the media path and the whole pipeline, against the least that PyAV can do."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from gpenvid.bench import Table
from gpenvid.bench.clips import RATE, make_clip, repeat_clip
from gpenvid.faces import align
from gpenvid.media.reader import Reader
from gpenvid.media.writer import Writer
from gpenvid.options import EncoderOptions
from gpenvid.run import enhance
from gpenvid.types import Face, Image

Rows = list[tuple[str | float, ...]]
_MEASURE = """
import sys
from pathlib import Path
from gpenvid.bench import media
sys.stdout.write(str(media.peak_memory(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])))
"""


def run(
    seconds: float = 10, size: tuple[int, int] = (1920, 1080), *, rounds: int = 3, preset: str = "veryfast"
) -> list[Table]:
    """Measure; takes some minutes at the default size.

    Throughput: pictures a second of a bare decode and encode, of Reader and Writer, and of the whole pipeline (decode,
    small copy, tracker, encode) with an identity restorer when there is no face, in turns in this process with the same
    encoder settings; ratio is the median of the rounds' ratios to bare (1 is as fast; the goal is 0.9), and cpu_ratio
    the same of processor time, which a busy machine disturbs less.
    Memory: peak bytes of a process that copies a clip of `seconds`, and of one six times as long, with Reader and
    Writer alone and with the pipeline and one face a picture; and their ratio (the goal is within 5 %).
    """
    with tempfile.TemporaryDirectory(prefix="gpenvid-bench-") as folder:
        short, long = Path(folder) / "short.mp4", Path(folder) / "long.mp4"
        count = make_clip(short, seconds, size)
        repeat_clip(short, long, 6)
        throughput = _throughput(short, Path(folder), count, rounds, preset)
        memory = _memory(short, long, Path(folder), preset)
    return [
        Table(
            f"Throughput, {count} pictures of {size[0]}x{size[1]}",
            ("way", "pictures a second", "ratio", "cpu ratio"),
            throughput,
        ),
        Table(f"Peak memory, {seconds:g} s and {6 * seconds:g} s", ("way", "short MB", "long MB", "ratio"), memory),
    ]


def peak_bytes() -> int:
    """The most bytes of memory that this process has had resident."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands ru_maxrss down from the parent process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def bare(source: Path, target: Path, preset: str) -> None:
    """Decode and encode with PyAV alone: same encoder, same settings; sound is copied."""
    with (
        av.open(str(source)) as container,
        av.open(str(target), "w", container_options={"movflags": "+faststart"}) as output,
    ):
        video = container.streams.video[0]
        video.thread_type = "AUTO"
        encoder = cast(VideoStream, output.add_stream("libx264", rate=RATE))
        context = encoder.codec_context
        context.width, context.height, context.pix_fmt = video.width, video.height, video.pix_fmt
        assert video.time_base is not None
        context.time_base = video.time_base
        context.thread_type = "AUTO"
        context.options = {"crf": "17", "preset": preset}
        sound = output.add_stream_from_template(container.streams.audio[0])
        for packet in container.demux():
            if packet.stream.type == "audio":
                if packet.size:
                    packet.stream = sound
                    output.mux(packet)
                continue
            for frame in video.decode(packet):
                frame.pict_type = 0
                output.mux(encoder.encode(frame))
        output.mux(encoder.encode(None))


def through_reader_and_writer(source: Path, target: Path, preset: str) -> None:
    """Decode and encode as gpenvid does when it finds no face: every picture passes untouched."""
    with Reader(source) as reader, Writer(target, reader, EncoderOptions(crf=17, preset=preset)) as writer:
        for frame in reader.pictures(writer.copy):
            writer.write(frame)


class OneFace:
    """A detector that sees a face in the middle of every picture, or none."""

    def __init__(self, present: bool) -> None:
        self.present = present

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """The same for every picture."""
        return [[_middle(image)] if self.present else [] for image in images]


def _middle(image: Image) -> Face:
    height, width = image.shape[:2]
    side = height / 2
    landmarks = (align.TEMPLATE / align.TEMPLATE_SIZE - 0.5) * side + (width / 2, height / 2)
    box = np.array([width / 2 - side / 3, height / 2 - side / 3, width / 2 + side / 3, height / 2 + side / 3])
    return Face(box.astype(np.float32), landmarks.astype(np.float32), 0.99)


class _Identity:
    """A restorer that costs nothing."""

    size = 256

    def restore(self, crops: Image) -> Image:
        """A copy."""
        return np.asarray(crops.copy(), np.uint8)


def through_pipeline(source: Path, target: Path, preset: str, *, face: bool = False) -> None:
    """The whole way of a picture, with networks that cost nothing."""
    enhance(source, target, restorer=_Identity(), detector=OneFace(face), codec="libx264", crf=17, preset=preset)


def peak_memory(way: str, source: Path, target: Path, preset: str) -> int:
    """Go one way with a clip; the peak memory of this process in bytes so far."""
    if way == "pipeline":
        through_pipeline(source, target, preset, face=True)
    else:
        through_reader_and_writer(source, target, preset)
    return peak_bytes()


def _throughput(source: Path, folder: Path, count: int, rounds: int, preset: str) -> Rows:
    ways: dict[str, Callable[[Path, Path, str], None]] = {
        "bare PyAV": bare,
        "Reader and Writer": through_reader_and_writer,
        "pipeline, no face": through_pipeline,
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    worked: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begin, busy = time.perf_counter(), time.process_time()
            way(source, folder / "out.mp4", preset)
            took[name].append(time.perf_counter() - begin)
            worked[name].append(time.process_time() - busy)
    return [
        (
            name,
            count / statistics.median(took[name]),
            _median_ratio(took["bare PyAV"], took[name]),
            _median_ratio(worked["bare PyAV"], worked[name]),
        )
        for name in ways
    ]


def _median_ratio(bare_times: list[float], own_times: list[float]) -> float:
    return statistics.median(bare_time / own for bare_time, own in zip(bare_times, own_times, strict=True))


def _memory(short: Path, long: Path, folder: Path, preset: str) -> Rows:
    rows: Rows = []
    for way in ("Reader and Writer", "pipeline"):
        peaks = []
        for clip in (short, long):
            command = [sys.executable, "-c", _MEASURE, way, str(clip), str(folder / "out.mp4"), preset]
            peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        rows.append((way, peaks[0] / 1e6, peaks[1] / 1e6, peaks[1] / peaks[0]))
    return rows
