"""EXIF, ICC profile and XMP of still images: taken out of one file's bytes and put into another's."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
_SEGMENT_LIMIT = 65533
_ORIENTATION_TAG = 274
_ICC_TAG = 34675
_XMP_TAG = 700
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """What a still says about itself besides its pixels; empty where it says nothing.

    exif: the TIFF structure without any prefix; icc: the profile; xmp: the XML packet; orientation: EXIF's 1 to 8.
    """

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    orientation: int = 1


def read_metadata(data: bytes) -> ImageMetadata:
    """The metadata in the bytes of a JPEG, PNG, WebP or TIFF file. What is malformed is passed over."""
    try:
        if data[:2] == b"\xff\xd8":
            exif, icc, xmp = _from_jpeg(data)
        elif data[:8] == b"\x89PNG\r\n\x1a\n":
            exif, icc, xmp = _from_png(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            chunks = dict(_webp_chunks(data))
            exif, icc, xmp = (
                chunks.get(b"EXIF", b"").removeprefix(_EXIF),
                chunks.get(b"ICCP", b""),
                chunks.get(b"XMP ", b""),
            )
        elif data[:4] in (b"II*\0", b"MM\0*"):
            exif, icc, xmp = b"", _tiff_tag(data, _ICC_TAG), _tiff_tag(data, _XMP_TAG)
            return ImageMetadata(exif, icc, xmp, _orientation(data))
        else:
            return ImageMetadata()
    except (struct.error, zlib.error, IndexError, ValueError):
        return ImageMetadata()
    return ImageMetadata(exif, icc, xmp, _orientation(exif))


def add_metadata(data: bytes, metadata: ImageMetadata, size: tuple[int, int], *, alpha: bool) -> bytes:
    """An encoded image with the metadata put in. BMP holds none; TIFF holds no EXIF but the orientation."""
    if data[:2] == b"\xff\xd8":
        return _into_jpeg(data, metadata)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _into_png(data, metadata)
    if data[:4] == b"RIFF":
        return _into_webp(data, metadata, size, alpha)
    if data[:4] == b"II*\0":
        return _into_tiff(data, metadata)
    return data


def _from_jpeg(data: bytes) -> tuple[bytes, bytes, bytes]:
    exif = xmp = b""
    parts: dict[int, bytes] = {}
    for marker, body in _jpeg_segments(data):
        if marker == 0xE1 and body.startswith(_EXIF):
            exif = exif or body[len(_EXIF) :]
        elif marker == 0xE1 and body.startswith(_XMP):
            xmp = xmp or body[len(_XMP) :]
        elif marker == 0xE2 and body.startswith(_ICC):
            parts[body[len(_ICC)]] = body[len(_ICC) + 2 :]
    return exif, b"".join(parts[number] for number in sorted(parts)), xmp


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers and bodies up to the image data."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:
            at += 1
            continue
        length = struct.unpack_from(">H", data, at + 2)[0]
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + length


def _from_png(data: bytes) -> tuple[bytes, bytes, bytes]:
    exif = icc = xmp = b""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        if kind == b"eXIf":
            exif = body
        elif kind == b"iCCP":
            icc = zlib.decompress(body[body.index(b"\0") + 2 :])
        elif kind == b"iTXt" and body.startswith(_PNG_XMP):
            xmp = body[len(_PNG_XMP) :]
        at += 12 + length
    return exif, icc, xmp


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _tiff_entries(data: bytes) -> tuple[str, list[tuple[int, int, int, int]]]:
    """Byte order, and (tag, type, count, where its value lies) of the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(order + "I", data, 4)[0]
    entries = []
    for index in range(struct.unpack_from(order + "H", data, at)[0]):
        place = at + 2 + 12 * index
        tag, kind, count = struct.unpack_from(order + "HHI", data, place)
        inline = _TIFF_SIZES.get(kind, 1) * count <= 4
        entries.append((tag, kind, count, place + 8 if inline else struct.unpack_from(order + "I", data, place + 8)[0]))
    return order, entries


def _tiff_tag(data: bytes, wanted: int) -> bytes:
    for tag, kind, count, place in _tiff_entries(data)[1]:
        if tag == wanted:
            return data[place : place + count * _TIFF_SIZES.get(kind, 1)]
    return b""


def _orientation(exif: bytes) -> int:
    if exif[:2] not in (b"II", b"MM"):
        return 1
    try:
        value = _tiff_tag(exif, _ORIENTATION_TAG)
        found = int(struct.unpack(("<" if exif[:2] == b"II" else ">") + "H", value)[0])
    except struct.error:
        return 1
    return found if 1 <= found <= 8 else 1


def _into_jpeg(data: bytes, metadata: ImageMetadata) -> bytes:
    segments = []
    if metadata.exif and len(metadata.exif) + len(_EXIF) <= _SEGMENT_LIMIT:
        segments.append((0xE1, _EXIF + metadata.exif))
    if metadata.xmp and len(metadata.xmp) + len(_XMP) <= _SEGMENT_LIMIT:
        segments.append((0xE1, _XMP + metadata.xmp))
    step = _SEGMENT_LIMIT - len(_ICC) - 2
    parts = [metadata.icc[at : at + step] for at in range(0, len(metadata.icc), step)]
    for number, part in enumerate(parts, 1):
        segments.append((0xE2, _ICC + bytes([number, len(parts)]) + part))
    at = 2
    if data[2:4] == b"\xff\xe0":
        at += 2 + struct.unpack_from(">H", data, 4)[0]
    packed = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return data[:at] + packed + data[at:]


def _into_png(data: bytes, metadata: ImageMetadata) -> bytes:
    chunks = []
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append((b"iTXt", _PNG_XMP + metadata.xmp))
    packed = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    behind_header = 8 + 12 + struct.unpack_from(">I", data, 8)[0]
    return data[:behind_header] + packed + data[behind_header:]


def _into_webp(data: bytes, metadata: ImageMetadata, size: tuple[int, int], alpha: bool) -> bytes:
    if not (metadata.exif or metadata.icc or metadata.xmp):
        return data
    picture = [(kind, body) for kind, body in _webp_chunks(data) if kind in (b"VP8 ", b"VP8L", b"ALPH")]
    flags = 0x20 * bool(metadata.icc) | 0x10 * alpha | 0x08 * bool(metadata.exif) | 0x04 * bool(metadata.xmp)
    header = bytes([flags, 0, 0, 0]) + (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
    chunks = [(b"VP8X", header), (b"ICCP", metadata.icc), *picture, (b"EXIF", metadata.exif), (b"XMP ", metadata.xmp)]
    body = b"".join(
        struct.pack("<4sI", kind, len(part)) + part + b"\0" * (len(part) % 2) for kind, part in chunks if part
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _into_tiff(data: bytes, metadata: ImageMetadata) -> bytes:
    """A new directory behind the file: the old one's entries and ours."""
    if metadata.orientation == 1 and not metadata.icc and not metadata.xmp:
        return data
    at, count = (
        struct.unpack_from("<I", data, 4)[0],
        struct.unpack_from("<H", data, struct.unpack_from("<I", data, 4)[0])[0],
    )
    entries = {
        struct.unpack_from("<H", data, at + 2 + 12 * i)[0]: data[at + 2 + 12 * i : at + 14 + 12 * i]
        for i in range(count)
    }
    data += b"\0" * (len(data) % 2)
    entries[_ORIENTATION_TAG] = struct.pack("<HHIHH", _ORIENTATION_TAG, 3, 1, metadata.orientation, 0)
    for tag, kind, value in ((_ICC_TAG, 7, metadata.icc), (_XMP_TAG, 1, metadata.xmp)):
        if value:
            entries[tag] = struct.pack("<HHII", tag, kind, len(value), len(data))
            data += value + b"\0" * (len(value) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + b"\0\0\0\0"
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory
