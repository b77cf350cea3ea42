"""Pictures and copied packets become a file."""

from __future__ import annotations

import io
import mimetypes
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import av
from av.container import OutputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from gpenvid.errors import GpenvidError, MediaError
from gpenvid.media.color import convert
from gpenvid.media.encoder import add_encoder, output_colors, same_samples
from gpenvid.media.ends import Ends, end_with_stream
from gpenvid.media.layouts import duplicate, nearest_editable
from gpenvid.media.reader import Reader
from gpenvid.media.target import Target
from gpenvid.options import EncoderOptions

if TYPE_CHECKING:
    from av.container.core import Chapter

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Output container by extension."""

# Written by the muxer itself, or counted by another one over pictures that are no longer these.
_STALE_FILE_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder"}
_STALE_STREAM_TAGS = {"encoder", "duration", "bps", "number_of_frames", "number_of_bytes"}
_ALLOW = {"matroska": {"avoid_negative_ts": "disabled"}, "webm": {"avoid_negative_ts": "disabled"}}
_EMPTY_TEXT = b"\0\0"
_FASTSTART = {"movflags": "+faststart"}


class Writer:
    """Encodes pictures and muxes copied packets; the file appears under its name when all went well.

    Everything but the pictures is taken over from the reader: streams in their order, chapters, metadata, dispositions,
    rotation, colour tags, sample aspect ratio, time base. `notes` says what could not be kept.
    `write` and `copy` may be called from two threads.
    """

    def __init__(self, path: str | Path, reader: Reader, options: EncoderOptions = EncoderOptions()) -> None:  # noqa: B008
        """Refuse what can't work, before any work; see `Target`. Raises MediaError."""
        self.path = Path(path)
        self.notes: list[str] = []
        self.written = 0
        self._rounded = False
        self._reader = reader
        self._options = options
        self._target = Target(self.path, (reader.path,))
        self._format = FORMATS.get(self.path.suffix.lower(), "")
        if not self._format:
            known = ", ".join(FORMATS)
            raise MediaError(f"{self.path}: don't know how to write {self.path.suffix or 'no extension'}; use {known}")
        self._lock = threading.Lock()
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._copies: dict[int, Stream] = {}
        self._last_dts: dict[int, int] = {}
        self._unmuxable: dict[int, int] = {}
        self._ends = Ends()

    def __enter__(self) -> Writer:
        """Open encoder and file and write the header.

        Raises OptionsError or MediaError for an encoder, an option or a folder that can't do it.
        """
        self._target.claim()
        try:
            self._open()
        except BaseException:
            self.abort()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file and give it its name; after an exception, remove it."""
        if kind is not None:
            self.abort()
        else:
            self.close()

    def write(self, frame: av.VideoFrame) -> None:
        """Encode one picture. Its pts and time_base are kept; its format is converted if the encoder needs another.

        The picture loses its tags (`pixels.get_tags`) and its picture type; it must not be changed afterwards.

        Raises MediaError if the disk is full or the encoder fails.
        """
        stream = self._stream
        if stream is None:
            raise ValueError("Writer is used outside its with block")
        self._check_time(frame, stream)
        frame = self._fitted(frame, stream)
        frame.pict_type = 0  # the decoder's would force the encoder's
        # A Python object on a picture that an encoder's own thread lets go of would wait for the GIL there, for ever.
        frame.opaque = None
        self._ends.saw(frame)
        try:
            packets = stream.encode(frame)
        except av.error.FFmpegError as error:
            raise self._failure(error) from error
        self.written += 1
        self._mux(self._ends.timed(packets))

    def copy(self, packet: av.Packet[Any]) -> None:
        """Pass on one packet of another stream; the packet must not be used afterwards.

        One that the muxer can't take is left out and counted. Raises MediaError if the disk is full.
        """
        index = packet.stream_index
        stream = self._copies.get(index)
        if stream is None or self._container is None:
            return
        if stream.name == "mov_text" and bytes(packet) == _EMPTY_TEXT:
            return  # the muxer fills gaps between texts itself
        self._order(packet, index, stream)
        if not self._reader.origin:
            end_with_stream(packet)
        packet.stream = stream
        try:
            self._mux([packet])
        except MediaError as error:
            if not isinstance(error.__cause__, (av.error.InvalidDataError, av.error.ArgumentError, ValueError)):
                raise
            self._unmuxable[index] = self._unmuxable.get(index, 0) + 1

    def close(self) -> None:
        """Flush the encoder, complete the file, give it its name.

        Raises MediaError if that fails or no picture was written; then no file is left.
        """
        container, stream = self._container, self._stream
        if container is None or stream is None:
            return
        try:
            if not self.written:
                raise MediaError(f"{self.path}: no picture came, so nothing is written")
            self._mux(self._ends.timed(stream.encode(None), last=True))
            with self._lock:
                self._container = self._stream = None
                container.close()
        except av.error.FFmpegError as error:
            self.abort()
            raise self._failure(error) from error
        except BaseException:
            self.abort()
            raise
        for index, count in self._unmuxable.items():
            self.notes.append(f"{count} damaged packets of stream {index} left out")
        self._target.commit()

    def abort(self) -> None:
        """Give up: nothing is left of the output."""
        with self._lock:
            container, self._container, self._stream = self._container, None, None
            if container is not None:
                try:
                    container.close()
                except (av.error.FFmpegError, ValueError):
                    # What was broken while writing is broken when closing too; the file goes away in any case.
                    self._copies.clear()
        self._target.discard()

    def _open(self) -> None:
        reader, info = self._reader, self._reader.info
        options = dict(_ALLOW.get(self._format, _FASTSTART))
        container = av.open(f"file:{self._target.part}", "w", format=self._format, container_options=options)
        self._container = container
        self._keep_file_tags(container)
        wanted = nearest_editable(info.pix_fmt)
        for source in reader.container.streams:
            if source.index == info.video_index:
                self._stream = add_encoder(container, info, wanted, self._options, self.notes)
                self._keep_stream_tags(source, self._stream)
            else:
                self._add_copy(container, source)
        try:
            container.start_encoding()
        except (av.error.FFmpegError, ValueError) as error:
            raise self._failure(error) from error

    def _keep_file_tags(self, container: OutputContainer) -> None:
        source = self._reader.container
        container.metadata.update({k: v for k, v in source.metadata.items() if k.lower() not in _STALE_FILE_TAGS})
        origin, end = self._reader.origin, self._reader.end
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

    def _keep_stream_tags(self, source: Stream, copy: Stream) -> None:
        stale = {tag for tag in source.metadata if tag.lower().split("-")[0] in _STALE_STREAM_TAGS}
        stale |= {tag for tag in source.metadata if tag.upper().startswith("_STATISTICS")}
        copy.metadata.update({k: v for k, v in source.metadata.items() if k not in stale})
        copy.disposition = source.disposition.value  # type: ignore[assignment]  # PyAV 17 wants the number

    def _add_copy(self, container: OutputContainer, source: Stream) -> None:
        """Take a stream over packet for packet, if the container can hold it; else say which and why not."""
        if _is_made_by_the_muxer(source):
            return
        cover = bool(source.disposition & Disposition.attached_pic)
        if cover and self._format == "matroska":
            self._attach_cover(container, source)
            return
        reason = _refusal(source, self._format)
        if reason:
            name = next(stream.codec for stream in self._reader.info.streams if stream.index == source.index)
            what = "cover picture" if cover else f"{source.type} {name or 'unknown'}"
            self.notes.append(f"stream {source.index} ({what}) is not copied: {reason}")
            return
        copy = container.add_stream_from_template(source, opaque=True)
        copy.metadata.update(source.metadata)
        copy.disposition = source.disposition.value  # type: ignore[assignment]  # PyAV 17 wants the number
        self._copies[source.index] = copy

    def _attach_cover(self, container: OutputContainer, source: Stream) -> None:
        """Matroska holds cover pictures as attachments."""
        data = b""
        with av.open(f"file:{self._reader.path}", "r") as again:
            for packet in again.demux(again.streams[source.index]):
                data = bytes(packet)
                break
        kind = {"mjpeg": "image/jpeg"}.get(source.name or "", f"image/{source.name}")
        name = source.metadata.get("filename") or f"cover{mimetypes.guess_extension(kind) or ''}"
        container.add_attachment(name, source.metadata.get("mimetype", kind), data)

    def _fitted(self, frame: av.VideoFrame, stream: VideoStream) -> av.VideoFrame:
        """The picture in the encoder's format and size."""
        context = stream.codec_context
        if (frame.width, frame.height) != (context.width, context.height):
            note = f"pictures change size to {frame.width}x{frame.height}: scaled to {context.width}x{context.height}"
            if note not in self.notes:
                self.notes.append(note)
        pix_fmt = context.pix_fmt or frame.format.name
        colors = output_colors(self._reader.info, frame.format.name, context.name, pix_fmt)
        size = (context.width, context.height)
        if colors == self._reader.info.color and (frame.width, frame.height) == size:
            if frame.format.name == pix_fmt:
                return frame
            if same_samples(frame.format.name) == pix_fmt:
                return duplicate(frame, pix_fmt)
        return convert(frame, pix_fmt, size, space=colors.space, full=colors.range == 2 or None)

    def _check_time(self, frame: av.VideoFrame, stream: VideoStream) -> None:
        """Say once if the container's clock (Matroska's ticks in milliseconds) can't hold the exact time."""
        if self._rounded or frame.pts is None or frame.time_base is None or stream.time_base is None:
            return
        if (frame.pts * frame.time_base / stream.time_base).denominator != 1:
            self._rounded = True
            self.notes.append(f"{self._format} holds times in steps of {stream.time_base} s: times are rounded to them")

    def _order(self, packet: av.Packet[Any], index: int, stream: Stream) -> None:
        """Muxers want decode times that rise within a stream: a double or backward one moves just behind the last."""
        if packet.dts is None and stream.type != "video":
            packet.dts = packet.pts
        if packet.dts is None:
            return  # the muxer works it out from pts and reordering
        last = self._last_dts.get(index)
        if last is not None and packet.dts <= last and stream.type in ("audio", "video"):
            packet.dts = last + 1
            if packet.pts is not None:
                packet.pts = max(packet.pts, packet.dts)
        self._last_dts[index] = packet.dts

    def _mux(self, packets: list[av.Packet[Any]]) -> None:
        with self._lock:
            if self._container is None:
                return
            try:
                self._container.mux(packets)
            except (av.error.FFmpegError, ValueError) as error:
                raise self._failure(error) from error

    def _failure(self, error: Exception) -> GpenvidError:
        reason = str(getattr(error, "strerror", None) or error).lower()
        return MediaError(f"{self.path}: can't be written ({reason})")


def _is_made_by_the_muxer(source: Stream) -> bool:
    """Whether this is a track of MP4 or MOV that a muxer writes anew: chapter titles, or the start time code.

    The first comes from the chapters, the second from the metadata of the video stream.
    """
    container = source.container
    if source.type != "data" or "mov" not in container.format.name:
        return False
    return "timecode" in source.metadata or (source.name == "bin_data" and bool(container.chapters()))


def _refusal(source: Stream, container_format: str) -> str:
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
        helps = container_format != "matroska" and not _refusal(source, "matroska")
        return f"{container_format} can't hold it{'; write .mkv to keep it' if helps else ''}"
    return ""
