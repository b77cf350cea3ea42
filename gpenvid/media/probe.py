"""What is in a file: asked once, before any work."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.logging
from av.codec.hwaccel import hwdevices_available
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from gpenvid.errors import MediaError
from gpenvid.media.card import CAN_STAY, accelerator
from gpenvid.media.hdr import HdrTags, hdr_tags

_EXIF_CODECS = frozenset({"mjpeg", "png", "webp", "tiff", "jpegls", "jpeg2000", "avif", "apng"})
_PACKETS_BEFORE_A_PICTURE = 2000
_IMPLAUSIBLE_RATE = 1000
_CHROMA_LOCATION = re.compile(r"\b(topleft|top|left|center|bottomleft|bottom)\b")


@dataclass(frozen=True, slots=True)
class ColorTags:
    """How the samples mean colour, as FFmpeg's enumeration values; 2 (range: 0) is unspecified.

    chroma_location: left, center, topleft, top, bottomleft, bottom, or "" where the file doesn't say.
    """

    primaries: int = 2
    trc: int = 2
    space: int = 2
    range: int = 0
    chroma_location: str = ""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream. type: video, audio, subtitle, data, attachment; codec is "" where nobody knows its name."""

    index: int
    type: str
    codec: str


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What is in a file. Times are seconds as fractions.

    start: the time at which the file begins, as its container says; duration is None where it doesn't.
    width, height: of the stored picture, before rotation. frames: an estimate. rotation: degrees, counterclockwise,
    that turn the stored picture upright; display_matrix: the same in full, nine numbers in FFmpeg's fixed-point layout.
    """

    path: Path
    format: str
    kind: Literal["video", "image"]
    start: Fraction
    duration: Fraction | None
    video_index: int
    codec: str
    profile: str
    width: int
    height: int
    pix_fmt: str
    average_rate: Fraction | None
    frames: int | None
    time_base: Fraction
    rotation: int
    display_matrix: tuple[int, ...] | None
    sample_aspect_ratio: Fraction
    interlaced: bool
    color: ColorTags
    hdr: HdrTags | None
    streams: tuple[StreamInfo, ...]


def open_input(path: Path, hwaccel: str = "none", card: int | None = None) -> InputContainer:
    """Open a local file for reading.

    hwaccel: what decodes, FFmpeg's word for it; `auto` for a graphics card if one is there, else the processor. What
    the card can't decode, the processor does. card: the CUDA device whose context is the thread's current one; what it
    decodes stays in its memory, if that is possible.
    Raises MediaError if it is missing, a directory, not permitted or no media, or there is no such card.
    """
    if path.is_dir():
        raise MediaError(f"{path}: is a directory, not a media file")
    if not path.exists():
        raise MediaError(f"{path}: no such file")
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise MediaError(f"{path}: is empty")
        # The prefix keeps a name such as "a:b.mp4" from being taken for a protocol.
        url = f"file:{path}"
        for kind, keeper in _ways(hwaccel, card):
            try:
                if kind not in hwdevices_available():
                    raise ValueError(f"FFmpeg is built without {kind}")
                return av.open(url, "r", metadata_errors="replace", hwaccel=accelerator(kind, keeper))
            except (av.error.FFmpegError, ValueError) as error:
                if hwaccel != "auto" and keeper is None and _opens(url):
                    raise MediaError(f"--hwaccel {kind}: can't be used here; use auto or none") from error
        return av.open(url, "r", metadata_errors="replace")
    except av.error.PermissionError as error:
        raise MediaError(f"{path}: not permitted to read it") from error
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(f"{path}: not a media file that can be read ({_reason(error)})") from error


def _ways(hwaccel: str, card: int | None) -> Iterator[tuple[str, int | None]]:
    """What to try in turn: kinds of hardware acceleration, and the card in whose memory pictures stay, or None."""
    for kind in hwdevices_available() if hwaccel == "auto" else [hwaccel] if hwaccel != "none" else []:
        if kind == "cuda" and card is not None and CAN_STAY:
            yield kind, card
        yield kind, None


def _opens(url: str) -> bool:
    try:
        av.open(url).close()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def picture_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream whose pictures are meant to be watched: never an attached cover.

    Raises MediaError if there is none, or if no decoder knows it.
    """
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        raise MediaError(f"{path}: has no video stream")
    best = container.streams.best("video")
    stream = next((stream for stream in streams if best is not None and stream.index == best.index), streams[0])
    if stream.codec_context is None:
        raise MediaError(f"{path}: no decoder for its video stream")
    return stream


def probe(path: str | Path) -> MediaInfo:
    """What is in a file; decodes its first picture, because only pictures carry the rotation.

    Raises MediaError if it is missing, a directory, unreadable, or holds no video or no picture that can be decoded.
    """
    path = Path(path)
    with open_input(path) as container:
        stream = picture_stream(container, path)
        frame = _first_picture(container, stream, path)
        matrix = display_matrix(frame, _codec_name(stream))
        rates = (stream.average_rate, stream.guessed_rate)
        rate = next((rate for rate in rates if rate and rate < _IMPLAUSIBLE_RATE), None)
        duration = _duration(container, stream)
        frames = stream.frames or (round(duration * rate) if duration is not None and rate else None)
        name = container.format.name
        # pix_fmt and the colour tags come from the picture: more exact than what the container promises.
        return MediaInfo(
            path=path,
            format=name,
            kind="image" if name.endswith("_pipe") or name == "image2" else "video",
            start=Fraction(container.start_time or 0, av.time_base),
            duration=duration,
            video_index=stream.index,
            codec=_codec_name(stream),
            profile=stream.profile or "",
            width=frame.width,
            height=frame.height,
            pix_fmt=frame.format.name,
            average_rate=Fraction(rate) if rate else None,
            frames=frames,
            time_base=Fraction(stream.time_base or Fraction(1, av.time_base)),
            rotation=frame.rotation,
            display_matrix=matrix,
            sample_aspect_ratio=Fraction(stream.sample_aspect_ratio or 1) or Fraction(1),
            interlaced=frame.interlaced_frame,
            color=ColorTags(
                primaries=int(frame.color_primaries),
                trc=int(frame.color_trc),
                space=int(frame.colorspace),
                range=int(frame.color_range),
                chroma_location=_chroma_location(container, stream.index),
            ),
            hdr=None if _codec_name(stream) in _EXIF_CODECS else hdr_tags(frame),
            streams=tuple(StreamInfo(s.index, s.type, _codec_name(s)) for s in container.streams),
        )


def display_matrix(frame: av.VideoFrame, codec: str) -> tuple[int, ...] | None:
    """The picture's display matrix as FFmpeg stores it, or None. Ask before `make_writable`, never after.

    From pictures of codecs that may carry EXIF only the rotation is taken: PyAV 18 frees EXIF side data twice.
    """
    if codec in _EXIF_CODECS:
        return rotation_matrix(frame.rotation) if frame.rotation else None
    try:
        data: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # side data of a kind that this PyAV has no name for
        return None
    return struct.unpack("=9i", bytes(data)) if data is not None else None


def rotation_matrix(degrees: int, *, mirrored: bool = False) -> tuple[int, ...]:
    """The display matrix that turns counterclockwise by a multiple of 90 degrees, then mirrors left and right."""
    cosine = {0: 1, 180: -1}.get(degrees % 360, 0) << 16
    sine = {90: 1, 270: -1}.get(degrees % 360, 0) << 16
    sign = -1 if mirrored else 1
    return (sign * cosine, -sine, 0, sign * sine, cosine, 0, 0, 0, 1 << 30)


def _first_picture(container: InputContainer, stream: VideoStream, path: Path) -> av.VideoFrame:
    """Decode until there is a picture; damaged packets before it are passed over."""
    packets = container.demux(stream)
    for _ in range(_PACKETS_BEFORE_A_PICTURE):
        try:
            packet = next(packets, None)
            pictures = stream.decode(packet)
        except av.error.InvalidDataError:
            continue
        except av.error.FFmpegError:
            break
        if pictures:
            return pictures[0]
        if packet is None:
            break
    raise MediaError(f"{path}: no picture of its video stream ({_codec_name(stream)}) can be decoded")


def _duration(container: InputContainer, stream: VideoStream) -> Fraction | None:
    if stream.duration is not None and stream.time_base is not None:
        return Fraction(stream.duration * stream.time_base)
    if container.duration is not None:
        return Fraction(container.duration, av.time_base)
    return None


def _codec_name(stream: av.stream.Stream) -> str:
    """The codec's name (h264, not the decoder's), "" where unknown."""
    if stream.codec_context is not None:
        return str(stream.codec_context.codec.canonical_name)
    return str(getattr(stream, "name", None) or "") if stream.type == "data" else ""


def _chroma_location(container: InputContainer, index: int) -> str:
    """Where chroma samples sit. PyAV has no attribute for it, but FFmpeg tells it in a verbose description."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    av.logging.set_libav_level(av.logging.VERBOSE)
    try:
        description = str(container.dumps_format())  # type: ignore[attr-defined]  # missing in PyAV's stubs
    finally:
        av.logging.set_libav_level(av.logging.INFO)
        av.logging.set_level(level)
    for line in description.splitlines():
        if re.match(rf"\s*Stream #0:{index}\b", line) and (found := _CHROMA_LOCATION.search(line)):
            return found[1]
    return ""


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".").lower()
