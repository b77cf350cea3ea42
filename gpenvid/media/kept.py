"""What goes over from the input to the output besides the streams' packets: tags, chapters, covers; and what can't."""

from __future__ import annotations

import io
import mimetypes
from typing import TYPE_CHECKING, Any

import av
from av.container import OutputContainer
from av.stream import Disposition, Stream

from gpenvid.media.reader import Reader

if TYPE_CHECKING:
    from av.container.core import Chapter

# Written by the muxer itself, or counted by another one over pictures that are no longer these.
_STALE_FILE_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder"}
_STALE_STREAM_TAGS = {"encoder", "duration", "bps", "number_of_frames", "number_of_bytes"}


def keep_file_tags(container: OutputContainer, reader: Reader) -> None:
    """Take over the metadata and the chapters, as far as they lie within what the reader gives."""
    source = reader.container
    container.metadata.update({k: v for k, v in source.metadata.items() if k.lower() not in _STALE_FILE_TAGS})
    origin, end = reader.origin, reader.end
    chapters: list[Chapter] = []
    for chapter in source.chapters():
        time_base = chapter["time_base"]
        if time_base is None:
            continue
        shift = round(origin / time_base)
        start, stop = max(0, chapter["start"] - shift) if shift else chapter["start"], chapter["end"] - shift
        if end is not None:
            stop = min(stop, round(end / time_base))
        if stop > start:
            chapter["start"], chapter["end"] = start, stop
            chapters.append(chapter)
    container.set_chapters(chapters)


def keep_stream_tags(source: Stream, copy: Stream) -> None:
    """Take over the metadata that is still true of the encoded stream, and the disposition."""
    stale = {tag for tag in source.metadata if tag.lower().split("-")[0] in _STALE_STREAM_TAGS}
    stale |= {tag for tag in source.metadata if tag.upper().startswith("_STATISTICS")}
    copy.metadata.update({k: v for k, v in source.metadata.items() if k not in stale})
    copy.disposition = source.disposition.value  # type: ignore[assignment]  # PyAV 17 wants the number


def attach_cover(container: OutputContainer, reader: Reader, source: Stream) -> None:
    """Matroska holds cover pictures as attachments."""
    data = b""
    with av.open(f"file:{reader.path}", "r") as again:
        for packet in again.demux(again.streams[source.index]):
            data = bytes(packet)
            break
    kind = {"mjpeg": "image/jpeg"}.get(source.name or "", f"image/{source.name}")
    name = source.metadata.get("filename") or f"cover{mimetypes.guess_extension(kind) or ''}"
    container.add_attachment(name, source.metadata.get("mimetype", kind), data)


def is_made_by_the_muxer(source: Stream) -> bool:
    """Whether this is a track of MP4 or MOV that a muxer writes anew: chapter titles, or the start time code.

    The first comes from the chapters, the second from the metadata of the video stream.
    """
    container = source.container
    if source.type != "data" or "mov" not in container.format.name:
        return False
    return "timecode" in source.metadata or (source.name == "bin_data" and bool(container.chapters()))


def refusal(source: Stream, container_format: str) -> str:
    """Why the container can't hold the stream, "" if it can: found out by writing a header of it alone, to memory."""
    if source.codec_context is None and source.type not in ("data", "attachment"):
        return "its codec is unknown"
    if source.disposition & Disposition.attached_pic and container_format in ("mov", "webm"):
        return f"{container_format} holds no covers; write .mkv or .mp4 to keep it"
    scratch: Any = io.BytesIO()
    try:
        with av.open(scratch, "w", format=container_format) as trial:
            trial.add_stream_from_template(source, opaque=True).metadata.update(source.metadata)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError, OSError):
        helps = container_format != "matroska" and not refusal(source, "matroska")
        return f"{container_format} can't hold it{'; write .mkv to keep it' if helps else ''}"
    return ""
