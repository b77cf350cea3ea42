"""Media made on the spot, so that every expectation is exact."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition


@dataclass
class Clip:
    """What to put into a file. pts are in `time_base` units; by default one tick a picture, of 1 / rate."""

    size: tuple[int, int] = (64, 48)
    count: int = 20
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    rate: int = 25
    time_base: Fraction | None = None
    pts: list[int] | None = None
    options: dict[str, str] = field(default_factory=dict)
    audio: int = 1
    audio_codec: str = "aac"
    subtitles: list[tuple[float, float, str]] = field(default_factory=list)
    subtitle_codec: str = "subrip"
    attachment: bytes = b""
    cover: bytes = b""
    chapters: list[tuple[float, float, str]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    video_metadata: dict[str, str] = field(default_factory=dict)
    rotation: int = 0
    flipped: bool = False
    sar: Fraction = Fraction(1)
    color: tuple[int, int, int, int] = (2, 2, 2, 0)
    interlaced: bool = False


def picture(index: int, size: tuple[int, int], pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """A smooth moving pattern, different for every index."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    red = 128 + 100 * np.sin((x + 3 * index) / 17)
    green = 128 + 100 * np.cos((y - 2 * index) / 13)
    blue = 128 + 100 * np.sin((x + y + index) / 23)
    rgb = np.dstack([red, green, blue]).round().astype(np.uint8)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24").reformat(format=pix_fmt)


def make_clip(path: Path, clip: Clip | None = None) -> Path:
    """Write the clip; the container follows from the suffix."""
    clip = clip or Clip()
    packets: list[Any] = []
    with av.open(str(path), "w") as container:
        container.metadata.update(clip.metadata)
        video = _video_stream(container, clip)
        tracks = [_audio_stream(container, clip, number) for number in range(clip.audio)]
        texts = _subtitle_stream(container, clip) if clip.subtitles else None
        if clip.attachment:
            container.add_attachment("font.ttf", "font/ttf", clip.attachment)
        cover = _cover_stream(container) if clip.cover else None
        container.set_chapters(
            [
                {
                    "id": i + 1,
                    "start": int(a * 1000),
                    "end": int(b * 1000),
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": t},
                }
                for i, (a, b, t) in enumerate(clip.chapters)
            ]
        )
        container.start_encoding()
        pts = clip.pts or list(range(clip.count))
        for index, stamp in enumerate(pts):
            frame = picture(index, clip.size, clip.pix_fmt)
            frame.pts, frame.time_base = stamp, video.codec_context.time_base
            frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = clip.color
            packets += video.encode(frame)
        packets += video.encode(None)
        seconds = float((pts[-1] + 1) * (clip.time_base or Fraction(1, clip.rate)))
        for number, track in enumerate(tracks):
            packets += _sound(track, number, seconds)
        packets += _text_packets(texts, clip)
        if cover is not None:
            packet = av.Packet(clip.cover)
            packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 1000)
            container.mux(packet)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def _video_stream(container: Any, clip: Clip) -> Any:
    stream = container.add_stream(clip.codec, rate=clip.rate)
    context = stream.codec_context
    (context.width, context.height), context.pix_fmt = clip.size, clip.pix_fmt
    context.time_base = stream.time_base = clip.time_base or Fraction(1, clip.rate)
    context.sample_aspect_ratio = clip.sar
    context.color_primaries, context.color_trc, context.colorspace, context.color_range = clip.color
    context.options = dict(clip.options)
    stream.metadata.update(clip.video_metadata)
    stream.disposition = Disposition.default.value
    if clip.interlaced:
        context.flags |= av.codec.context.Flags.interlaced_dct
    if clip.rotation or clip.flipped:
        stream.set_display_rotation(clip.rotation, hflip=clip.flipped)
    return stream


def _audio_stream(container: Any, clip: Clip, number: int) -> Any:
    stream = container.add_stream(clip.audio_codec, rate=48000)
    stream.codec_context.layout = "mono"
    stream.metadata["language"] = ("eng", "fra", "deu")[number]
    stream.disposition = (Disposition.default if number == 0 else Disposition.comment).value
    return stream


def _subtitle_stream(container: Any, clip: Clip) -> Any:
    stream = container.add_mux_stream(clip.subtitle_codec, time_base=Fraction(1, 1000))
    stream.metadata["language"] = "eng"
    return stream


def _cover_stream(container: Any) -> Any:
    stream = container.add_mux_stream("png", width=4, height=4, time_base=Fraction(1, 1000))
    stream.disposition = Disposition.attached_pic.value
    return stream


def _sound(stream: Any, number: int, seconds: float) -> list[Any]:
    """A sine of 220 Hz, an octave higher for every further track."""
    size = stream.codec_context.frame_size or 1024
    packets: list[Any] = []
    total = int(seconds * 48000)
    for start in range(0, total, size):
        at = np.arange(start, min(start + size, total), dtype=np.float32)
        wave = 0.3 * np.sin(2 * np.pi * 220 * 2**number * at / 48000)
        form = stream.codec_context.format.name
        samples = wave.astype(np.float32) if form.startswith("flt") else (wave * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format=form, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _text_packets(stream: Any, clip: Clip) -> list[Any]:
    packets = []
    for start, length, text in clip.subtitles:
        data = text.encode()
        if clip.subtitle_codec == "mov_text":
            data = struct.pack(">H", len(data)) + data
        packet = av.Packet(data)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = int(start * 1000)
        packet.duration = int(length * 1000)
        packet.is_keyframe = True
        packets.append(packet)
    return packets


@dataclass
class Packets:
    """The packets of one stream: presentation times in seconds, durations in seconds, and a hash of each payload."""

    type: str
    times: list[Fraction]
    durations: list[Fraction]
    hashes: list[str]


def packets_of(path: Path) -> list[Packets]:
    """The packets of every stream in the order of the file."""
    with av.open(str(path)) as container:
        found = [Packets(stream.type, [], [], []) for stream in container.streams]
        for packet in container.demux():
            if packet.size:
                stream = found[packet.stream_index]
                stream.times.append((packet.pts or 0) * packet.time_base)
                stream.durations.append((packet.duration or 0) * packet.time_base)
                stream.hashes.append(hashlib.sha256(bytes(packet)).hexdigest())
        return found


def picture_times(path: Path) -> list[Fraction]:
    """The presentation times of the decoded pictures, in seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]  # type: ignore[operator]


def planes_of(frame: av.VideoFrame) -> list[np.ndarray]:
    """The bytes of every plane without padding at the ends of rows, copied."""
    result = []
    for index, plane in enumerate(frame.planes):
        component = next(c for c in frame.format.components if c.plane == index)
        count = sum(c.plane == index for c in frame.format.components)
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, abs(plane.line_size))
        width = component.width * max(1, (component.bits + 7) // 8) * count
        if frame.format.name in ("yuyv422", "uyvy422", "yvyu422"):
            width = frame.width * 2
        elif frame.format.name in ("rgb0", "bgr0", "0rgb", "0bgr"):
            width = frame.width * 4
        result.append(rows[:, :width].copy())
    return result
