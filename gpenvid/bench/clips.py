"""The clips that are measured: generated, so that a figure means the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream

from gpenvid.types import Image
from gpenvid.weights import shipped

RATE = 25
"""Pictures a second."""


def make_clip(path: Path, seconds: float, size: tuple[int, int], *, faces: int = 0) -> int:
    """Write a clip of moving waves and grain, with sound; returns its number of pictures.

    size: (width, height), even. faces: none, one or two, of 0.4 of the height, that drift.
    """
    count = max(1, round(seconds * RATE))
    with av.open(str(path), "w") as container:
        video = cast(
            VideoStream, container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "g": "25"})
        )
        video.codec_context.width, video.codec_context.height = size
        video.codec_context.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=48000)
        pictures = with_faces(waves(count, size), faces)
        for index, frame in enumerate(pictures):
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


def waves(count: int, size: tuple[int, int]) -> Iterator[av.VideoFrame]:
    """Pictures of moving waves and grain, yuv420p."""
    width, height = size
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    grain = rng.integers(-6, 7, (height, width + 64), np.int16)
    base = 120 + 60 * np.sin(x / 97) * np.cos(y / 71)
    chroma = (x[::2, ::2] / width * 60 + 90, y[::2, ::2] / height * 60 + 90)
    for index in range(count):
        shift = index * 7 % 64
        luma = np.roll(base, 3 * index, axis=1) + grain[:, shift : shift + width]
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane, values in zip(frame.planes, (luma, *chroma), strict=True):
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
            rows[:, : plane.width] = values[: plane.height, : plane.width]
        yield frame


def with_faces(pictures: Iterable[av.VideoFrame], faces: int = 2) -> Iterator[av.VideoFrame]:
    """The same pictures with the portrait of the samples in two places or one, each on a path of its own."""
    if not faces:
        yield from pictures
        return
    portrait: Image | None = None
    for index, frame in enumerate(pictures):
        if portrait is None:
            side = round(0.8 * frame.height) // 2 * 2
            with av.open(str(shipped("samples") / "portrait.jpg")) as container:
                whole = next(container.decode(video=0))
            portrait = whole.reformat(side, side, "rgb24", interpolation="AREA").to_ndarray()
        rgb = frame.to_ndarray(format="rgb24")
        angle = 2 * np.pi * index / (4 * RATE)
        for column, turn in ((0.0, 1), (0.5, -1))[:faces]:
            x = round((column + 0.02 * (1 + np.sin(turn * angle))) * frame.width)
            y = round(0.1 * (1 + np.cos(turn * angle)) * frame.height)
            rgb[y : y + portrait.shape[0], x : x + portrait.shape[1]] = portrait
        yield av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")


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
