"""Still images: a file becomes one picture, and a picture a file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.codec.codec import find_best_pix_fmt_of_list

from gpenvid.errors import MediaError
from gpenvid.media.color import convert
from gpenvid.media.image_metadata import ImageMetadata, add_metadata, read_metadata
from gpenvid.media.layouts import nearest_editable
from gpenvid.media.pixels import PictureTags, set_tags, thumbnail
from gpenvid.media.probe import rotation_matrix
from gpenvid.media.target import Target

IMAGE_FORMATS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".bmp": "bmp",
    ".tif": "tiff",
    ".tiff": "tiff",
}
"""Image format by extension."""

_ENCODERS = {"png": "png", "jpeg": "mjpeg", "webp": "libwebp", "bmp": "bmp", "tiff": "tiff"}
_UNSUITABLE = {"pal8", "monob", "monow", "rgb8", "bgr8", "rgb4_byte", "bgr4_byte", "rgb565le", "rgb555le", "rgb444le"}
_ORIENTATIONS = {
    1: None,
    2: rotation_matrix(0, mirrored=True),
    3: rotation_matrix(180),
    4: rotation_matrix(180, mirrored=True),
    5: rotation_matrix(270, mirrored=True),
    6: rotation_matrix(270),
    7: rotation_matrix(90, mirrored=True),
    8: rotation_matrix(90),
}
_QP_TO_LAMBDA = 118
_BMP_MAGIC = b"BM"


@dataclass(frozen=True, slots=True)
class StillImage:
    """A decoded still.

    frame: the picture in a format of `pixels.EDITABLE`, its pixels as stored, tagged with the EXIF orientation;
    writable, pts 0. format: png, jpeg, webp, bmp or tiff. lossless: whether the file was. notes: what was lost in
    reading.
    """

    path: Path
    frame: av.VideoFrame
    format: str
    metadata: ImageMetadata
    lossless: bool
    notes: tuple[str, ...] = ()


def read_image(path: str | Path) -> StillImage:
    """Read a PNG, JPEG, WebP, BMP or TIFF file, 8 or 16 bit, alpha kept.

    Raises MediaError if it is missing, a directory, or no such image.
    """
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path}: is a directory, not an image")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MediaError(f"{path}: no such file") from error
    except OSError as error:
        raise MediaError(f"{path}: can't be read ({(error.strerror or str(error)).lower()})") from error
    kind = _kind(data)
    if not kind:
        raise MediaError(f"{path}: is no PNG, JPEG, WebP, BMP or TIFF image")
    try:
        with av.open(io.BytesIO(data), "r") as container:
            decoded = next(container.decode(video=0))
    except (av.error.FFmpegError, StopIteration, IndexError, ValueError) as error:
        raise MediaError(f"{path}: can't be decoded as {kind.upper()}") from error
    metadata = read_metadata(data)
    name = nearest_editable(decoded.format.name)
    notes = () if name == decoded.format.name else (f"pixels are {decoded.format.name}: converted to {name}",)
    frame = _plain(decoded if not notes else convert(decoded, name))
    set_tags(frame, PictureTags(display_matrix=_ORIENTATIONS[metadata.orientation]))
    lossless = kind in ("png", "bmp", "tiff") or b"VP8L" in data[:64]
    return StillImage(path, frame, kind, metadata, lossless, notes)


def write_image(path: str | Path, image: StillImage, *, quality: int = 96) -> list[str]:
    """Write the picture, edited or not, with its metadata; the format follows from the extension.

    quality: of JPEG and lossy WebP, 1 to 100. Lossless formats keep depth and alpha; JPEG drops alpha.
    Returns notes on what the format could not hold. The file appears when it is complete.
    Raises MediaError for an unknown extension, a target that can't be written, or the image's own file.
    """
    target = Target(path, (image.path,))
    kind = IMAGE_FORMATS.get(target.path.suffix.lower())
    if kind is None:
        raise MediaError(f"{target.path}: don't know how to write {target.path.suffix or 'no extension'} as an image")
    frame, notes, metadata = image.frame, [], image.metadata
    if kind == "bmp" and metadata.orientation != 1:
        frame = av.VideoFrame.from_ndarray(thumbnail(frame, 0)[0], "rgb24")
        notes.append("BMP has no orientation: the picture is stored upright")
    data, stored = _encode(frame, kind, image.lossless, quality)
    if _has_alpha(frame.format.name) and not _has_alpha(stored):
        notes.append(f"{kind.upper()} has no alpha: it is dropped")
    if (metadata.exif or metadata.icc or metadata.xmp) and kind == "bmp":
        notes.append("BMP holds no metadata: it is dropped")
    data = add_metadata(data, metadata, (frame.width, frame.height), alpha=_has_alpha(frame.format.name))
    target.claim()
    try:
        target.part.write_bytes(data)
    except OSError as error:
        target.discard()
        raise MediaError(f"{target.path}: can't be written ({(error.strerror or str(error)).lower()})") from error
    target.commit()
    return notes


def _kind(data: bytes) -> str:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    return "bmp" if data[:2] == _BMP_MAGIC else ""


def _plain(frame: av.VideoFrame) -> av.VideoFrame:
    """A writable copy without side data: the metadata is carried apart, and encoders would write it twice."""
    copy = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, copy.planes, strict=True):
        step = abs(source.line_size)
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, step)
        rows = rows[::-1] if source.line_size < 0 else rows
        into = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)
        width = min(step, target.line_size)
        into[:, :width] = rows[:, :width]
    copy.colorspace, copy.color_range = frame.colorspace, frame.color_range
    copy.color_primaries, copy.color_trc = frame.color_primaries, frame.color_trc
    copy.pts, copy.time_base = 0, Fraction(1, 25)
    return copy


def _encode(frame: av.VideoFrame, kind: str, lossless: bool, quality: int) -> tuple[bytes, str]:
    """The encoded bytes, and the pixel format that was stored."""
    if kind == "jpeg" and frame.format.name == "gray":
        gray = frame.to_ndarray()
        return bytes(cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]), "gray"
    if kind == "bmp" and _has_alpha(frame.format.name):
        bgra = convert(frame, "bgra").to_ndarray()  # FFmpeg's BMP has no header that says that there is alpha
        return bytes(cv2.imencode(".bmp", bgra)[1]), "bgra"
    frame = _plain(frame)
    codec = av.Codec(_ENCODERS[kind], "w")
    formats = [pixel_format.name for pixel_format in codec.video_formats or () if pixel_format.name not in _UNSUITABLE]
    if kind == "jpeg":
        formats = [name for name in formats if name.startswith("yuvj")]
    if kind == "webp" and lossless:
        formats = ["bgra"]
    if kind == "tiff":
        formats = [name for name in formats if not name.startswith("yuv")]
    name = frame.format.name
    if name not in formats:
        best, _ = find_best_pix_fmt_of_list(formats, name, has_alpha=True)
        if best is None:
            raise MediaError(f"{kind.upper()} can't hold {name} pixels")
        name = best.name
        # WebP's YCbCr is BT.601 in limited range, whatever the picture's was.
        frame = convert(frame, name, space=5, full=False) if kind == "webp" and not lossless else convert(frame, name)
    context = cast(av.VideoCodecContext, av.CodecContext.create(codec, "w"))
    context.width, context.height, context.pix_fmt = frame.width, frame.height, name
    context.time_base = Fraction(1, 25)
    context.color_range, context.colorspace = frame.color_range, frame.colorspace
    context.thread_count = 1
    if kind == "jpeg":
        context.qscale = True
        context.qmin = 1
        context.options = {"global_quality": str(round(max(1.0, (100 - quality) / 4) * _QP_TO_LAMBDA))}
    elif kind == "webp":
        context.options = {"lossless": "1"} if lossless else {"quality": str(quality), "compression_level": "6"}
    elif kind == "tiff":
        context.options = {"compression_algo": "deflate"}
    try:
        packets = [*context.encode(frame), *context.encode(None)]
    except av.error.FFmpegError as error:
        raise MediaError(f"{kind.upper()} can't hold a {frame.width}x{frame.height} {name} picture") from error
    return b"".join(bytes(packet) for packet in packets), name


def _has_alpha(name: str) -> bool:
    return any(component.is_alpha for component in av.VideoFormat(name).components)
