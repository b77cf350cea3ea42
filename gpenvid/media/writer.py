"""Pictures and copied packets become a file."""

from __future__ import annotations

import logging
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
from av.container import OutputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from gpenvid.errors import GpenvidError, MediaError
from gpenvid.media.card import fetched
from gpenvid.media.color import convert
from gpenvid.media.encoder import add_encoder, output_colors, same_samples
from gpenvid.media.ends import Ends, end_with_stream
from gpenvid.media.journal import Journal
from gpenvid.media.kept import attach_cover, is_made_by_the_muxer, keep_file_tags, keep_stream_tags, refusal
from gpenvid.media.layouts import duplicate, nearest_editable
from gpenvid.media.reader import Reader
from gpenvid.media.target import Target
from gpenvid.options import EncoderOptions

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Output container by extension."""

_ALLOW = {"matroska": {"avoid_negative_ts": "disabled"}, "webm": {"avoid_negative_ts": "disabled"}}
WORTH_KEEPING = 60
"""Seconds of work behind which a failed job leaves its journal for another try."""

log = logging.getLogger(__name__)

_EMPTY_TEXT = b"\0\0"
_FASTSTART = {"movflags": "+faststart"}


class Writer:
    """Encodes pictures and muxes copied packets; the file appears under its name when all went well.

    Everything but the pictures is taken over from the reader: streams in their order, chapters, metadata, dispositions,
    rotation, colour tags, sample aspect ratio, time base. `notes` says what could not be kept.
    `write` and `copy` may be called from two threads.

    With `job`, a text that only the same work on the same input has, a journal is kept beside the output while it is
    made. Where an earlier run was killed, what that had encoded is taken over: pictures are expected from `resumed`
    seconds on, copied packets from the beginning.
    """

    def __init__(
        self,
        path: str | Path,
        reader: Reader,
        options: EncoderOptions = EncoderOptions(),  # noqa: B008 (frozen)
        *,
        job: str | None = None,
    ) -> None:
        """Refuse what can't work, before any work; see `Target`. Raises MediaError."""
        self.path = Path(path)
        self.notes: list[str] = []
        self.written = 0
        self.resumed: Fraction | None = None
        self._job = job
        self._journal: Journal | None = None
        self._replaying = threading.Lock()
        self._video_dts: int | None = None
        self._began = time.monotonic()
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
            self._take_over()
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
        frame = self._fitted(fetched(frame), stream)
        frame.pict_type = 0  # the decoder's would force the encoder's
        # A Python object on a picture that an encoder's own thread lets go of would wait for the GIL there, for ever.
        frame.opaque = None
        self._ends.saw(frame)
        self._replay()
        try:
            packets = self._rising(self._ends.timed(stream.encode(frame)))
            if self._journal is not None:
                self._journal.append(packets)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        self.written += 1
        self._mux(packets)

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
        if packet.dts is not None:
            self._replay(packet.dts * packet.time_base)
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
            self._replay()
            self._mux(self._rising(self._ends.timed(stream.encode(None), last=True)))
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
        if self._journal is not None:
            self._journal.close()

    def abort(self) -> None:
        """Give up: nothing is left of the output, but for the journal of more than a minute's work."""
        with self._lock:
            container, self._container, self._stream = self._container, None, None
            if container is not None:
                try:
                    container.close()
                except (av.error.FFmpegError, ValueError):
                    # What was broken while writing is broken when closing too; the file goes away in any case.
                    self._copies.clear()
        self._target.discard()
        if self._journal is not None:
            keep = time.monotonic() - self._began > WORTH_KEEPING
            self._journal.close(keep=keep)
            if keep:
                log.warning("%s: what was made so far is kept; the same command goes on from there", self.path)

    def _take_over(self) -> None:
        """Look whether an earlier run of the same job was killed. Raises MediaError if the folder can't be written."""
        if self._job is None or self._stream is None:
            return
        path = self._target.beside("resume")
        if Journal.is_taken(path):
            self.notes.append("another process writes this output: this one couldn't be resumed")
            return
        try:
            self._journal = Journal(path, self._job, bytes(self._stream.codec_context.extradata or b""))
        except OSError as error:
            raise self._failure(error) from error
        if (cut := self._journal.cut) is not None:
            self.resumed, self.written = cut.time, cut.pictures

    def _replay(self, until: Fraction | None = None) -> None:
        """Mux what an earlier run had encoded, up to a decode time, so that sound and picture stay interleaved."""
        with self._replaying:
            for packet in self._journal.due(until) if self._journal is not None else ():
                self._ends.replayed(packet)
                self._video_dts = packet.dts
                packet.stream = self._stream
                self._mux([packet])

    def _rising(self, packets: list[av.Packet[Any]]) -> list[av.Packet[Any]]:
        """After a resume a new encoder's decode times may begin before the end of the earlier one's: just behind."""
        for packet in packets if self.resumed is not None else ():
            if packet.dts is not None and self._video_dts is not None and packet.dts <= self._video_dts:
                packet.dts = self._video_dts + 1
            self._video_dts = packet.dts
        return packets

    def _open(self) -> None:
        reader, info = self._reader, self._reader.info
        options = dict(_ALLOW.get(self._format, _FASTSTART))
        container = av.open(f"file:{self._target.part}", "w", format=self._format, container_options=options)
        self._container = container
        keep_file_tags(container, reader)
        wanted = nearest_editable(info.pix_fmt)
        for source in reader.container.streams:
            if source.index == info.video_index:
                self._stream = add_encoder(container, info, wanted, self._options, self.notes)
                keep_stream_tags(source, self._stream)
            else:
                self._add_copy(container, source)
        try:
            container.start_encoding()
        except (av.error.FFmpegError, ValueError) as error:
            raise self._failure(error) from error

    def _add_copy(self, container: OutputContainer, source: Stream) -> None:
        """Take a stream over packet for packet, if the container can hold it; else say which and why not."""
        if is_made_by_the_muxer(source):
            return
        cover = bool(source.disposition & Disposition.attached_pic)
        if cover and self._format == "matroska":
            attach_cover(container, self._reader, source)
            return
        reason = refusal(source, self._format)
        if reason:
            name = next(stream.codec for stream in self._reader.info.streams if stream.index == source.index)
            what = "cover picture" if cover else f"{source.type} {name or 'unknown'}"
            self.notes.append(f"stream {source.index} ({what}) is not copied: {reason}")
            return
        copy = container.add_stream_from_template(source, opaque=True)
        copy.metadata.update(source.metadata)
        copy.disposition = source.disposition.value  # type: ignore[assignment]  # PyAV 17 wants the number
        self._copies[source.index] = copy

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
