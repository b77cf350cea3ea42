"""Throughput and memory of reading and writing, against the least that PyAV can do."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream

from gpenvid.media.reader import Reader
from gpenvid.media.writer import Writer
from gpenvid.options import EncoderOptions

RATE = 25
_MEASURE = """
import sys
from pathlib import Path
from gpenvid.bench.media import peak_memory, through_reader_and_writer
through_reader_and_writer(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
sys.stdout.write(str(peak_memory()))
"""


def run(
    seconds: float = 10, size: tuple[int, int] = (1920, 1080), *, rounds: int = 3, preset: str = "veryfast"
) -> list[dict[str, Any]]:
    """Measure; takes some minutes at the default size. Returns rows, each with a "name" and what was measured.

    "throughput": pictures a second of a bare decode and encode, and of Reader and Writer, in turns in this process with
    the same encoder settings; ratio is the median of the rounds' ratios (1 is as fast as bare; the goal is 0.9), and
    cpu_ratio the same of processor time, which a busy machine disturbs less.
    "memory": peak bytes of a process that copies a clip of `seconds`, of one six times as long, and their ratio (the
    goal is within 5 %).
    """
    with tempfile.TemporaryDirectory(prefix="gpenvid-bench-") as folder:
        short, long = Path(folder) / "short.mp4", Path(folder) / "long.mp4"
        count = make_clip(short, seconds, size)
        repeat_clip(short, long, 6)
        return [_throughput(short, Path(folder), count, rounds, preset), _memory(short, long, Path(folder), preset)]


def make_clip(path: Path, seconds: float, size: tuple[int, int]) -> int:
    """Write a clip of moving shapes and grain, with sound; returns its number of pictures."""
    width, height = size
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    grain = rng.integers(-6, 7, (height, width + 64), np.int16)
    count = max(1, round(seconds * RATE))
    with av.open(str(path), "w") as container:
        video = cast(
            VideoStream, container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "g": "25"})
        )
        video.codec_context.width, video.codec_context.height = size
        video.codec_context.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=48000)
        base = 120 + 60 * np.sin(x / 97) * np.cos(y / 71)
        for index in range(count):
            shift = index * 7 % 64
            luma = np.roll(base, 3 * index, axis=1) + grain[:, shift : shift + width]
            frame = av.VideoFrame(width, height, "yuv420p")
            for plane, values in zip(
                frame.planes, (luma, x[::2, ::2] / width * 60 + 90, y[::2, ::2] / height * 60 + 90), strict=True
            ):
                rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
                rows[:, : plane.width] = values[: plane.height, : plane.width]
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(video.encode(frame))
        for start in range(0, int(count / RATE * 48000) - 1024, 1024):
            wave = np.sin(np.arange(start, start + 1024, dtype=np.float32) / 30).reshape(1, -1)
            tone = av.AudioFrame.from_ndarray(np.repeat(wave, 2, axis=0), format="fltp", layout="stereo")
            tone.sample_rate, tone.pts, tone.time_base = 48000, start, Fraction(1, 48000)
            container.mux(sound.encode(tone))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return count


def repeat_clip(source: Path, target: Path, times: int) -> None:
    """The clip several times behind itself, without encoding anew."""
    with av.open(str(target), "w") as output:
        copies: dict[int, Any] = {}
        ends: dict[int, int] = {}
        for turn in range(times):
            with av.open(str(source)) as container:
                duration = Fraction(container.duration or 0, av.time_base)
                for stream in container.streams:
                    if stream.index not in copies:
                        copies[stream.index] = output.add_stream_from_template(stream, opaque=True)
                for packet in container.demux():
                    if packet.dts is None or packet.pts is None:
                        continue
                    shift = round(turn * duration / packet.time_base)
                    packet.pts += shift
                    packet.dts = max(packet.dts + shift, ends.get(packet.stream_index, -(1 << 60)) + 1)
                    packet.pts = max(packet.pts, packet.dts)
                    ends[packet.stream_index] = packet.dts
                    packet.stream = copies[packet.stream_index]
                    output.mux(packet)


def peak_memory() -> int:
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


def _throughput(source: Path, folder: Path, count: int, rounds: int, preset: str) -> dict[str, Any]:
    ways: tuple[Callable[[Path, Path, str], None], ...] = (bare, through_reader_and_writer)
    took: tuple[list[float], list[float]] = ([], [])
    worked: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for way, times, work in zip(ways, took, worked, strict=True):
            begin, busy = time.perf_counter(), time.process_time()
            way(source, folder / "out.mp4", preset)
            times.append(time.perf_counter() - begin)
            work.append(time.process_time() - busy)
    return {
        "name": "throughput",
        "pictures": count,
        "bare_fps": count / statistics.median(took[0]),
        "gpenvid_fps": count / statistics.median(took[1]),
        "ratio": statistics.median(a / b for a, b in zip(*took, strict=True)),
        "cpu_ratio": statistics.median(a / b for a, b in zip(*worked, strict=True)),
    }


def _memory(short: Path, long: Path, folder: Path, preset: str) -> dict[str, Any]:
    peaks = []
    for clip in (short, long):
        command = [sys.executable, "-c", _MEASURE, str(clip), str(folder / "out.mp4"), preset]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {"name": "memory", "short_bytes": peaks[0], "long_bytes": peaks[1], "ratio": peaks[1] / peaks[0]}
