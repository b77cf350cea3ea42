"""A file becomes pictures, and packets that are only passed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from gpenvid.errors import MediaError
from gpenvid.media.card import can_be_edited, fetched, on_card
from gpenvid.media.color import convert
from gpenvid.media.layouts import nearest_editable
from gpenvid.media.pixels import PictureTags, set_tags
from gpenvid.media.probe import MediaInfo, open_input, picture_stream, probe
from gpenvid.options import ReaderOptions

MAX_DAMAGED_RUN = 300
"""So many undecodable packets in a row are an error, not damage that is worth passing over."""

_BACKWARD_JUMP = 1
_TRAILING = 2
_LONGEST_GROUP = 1000
_SEEK_MARGINS = (0, 2, 10, 60)

Copied = Callable[["av.Packet[Stream]"], None]


@dataclass(slots=True)
class Counts:
    """What happened while reading.

    decoded: pictures given out; damaged: packets that could not be read or decoded and were skipped; concealed:
    pictures that the decoder gave out although parts were missing; repaired: timestamps that were missing, double or
    backward and were replaced; breaks: points at which the clock of the file jumped back.
    """

    decoded: int = 0
    damaged: int = 0
    concealed: int = 0
    repaired: int = 0
    breaks: int = 0


class Reader:
    """Decodes the video stream of a file and hands over the packets of all others.

    Timestamps are those of the file, exactly. With `start` or `end` (seconds from the beginning of the file) only
    pictures with start <= time < end come, and every timestamp is shifted so that the first picture is at 0.
    `origin` is what was subtracted, in seconds; 0 without `start`.
    """

    def __init__(self, path: str | Path, options: ReaderOptions | None = None, *, card: int | None = None) -> None:
        """Look into the file. Raises MediaError as `probe` does.

        card: see `probe.open_input`; pictures that can be edited there stay in its memory (format `cuda`).
        """
        self._card = card
        self.path = Path(path)
        self.info: MediaInfo = probe(self.path)
        self.options = options or ReaderOptions()
        self.counts = Counts()
        self.notes: list[str] = []
        self.origin = Fraction(0)
        self._start = None if self.options.start is None else self.info.start + Fraction(str(self.options.start))
        self._end = None if self.options.end is None else self.info.start + Fraction(str(self.options.end))
        self._seek_to: Fraction | None = None
        self._damaged_run = 0
        self._container: InputContainer | None = None

    def __enter__(self) -> Reader:
        """Open the file; with `start`, find the first picture. Raises MediaError if there is none."""
        if self._start is not None:
            self.origin = self._find_origin(self._start)
        self._container = self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
            self._container = None

    @property
    def container(self) -> InputContainer:
        """The open container: for templates of copied streams, metadata and chapters."""
        if self._container is None:
            raise ValueError("Reader is used outside its with block")
        return self._container

    @property
    def end(self) -> Fraction | None:
        """The time at which output ends, on the shifted clock; None without `end`."""
        return None if self._end is None else self._end - self.origin

    def pictures(self, copied: Copied | None = None, *, first: Fraction | None = None) -> Iterator[av.VideoFrame]:
        """Decode the pictures in presentation order, those from the time `first` (s, on the output's clock) on.

        pts and time_base are always set; pts strictly increases. The format is one of `pixels.EDITABLE`, or `cuda`.
        Every packet of the other streams goes to `copied`, in the order of the file, from the thread that iterates.
        Raises MediaError when more than MAX_DAMAGED_RUN packets in a row are damaged, or when nothing could be decoded.
        """
        container = self.container
        stream = container.streams.video[_position(container, self.info.video_index)]
        stream.thread_type = "AUTO"
        clock = _Clock(stream, self.info, self.counts)
        skipped = None if first is None else first + self.origin
        for frame in self._raw(container, stream, copied, skipped):
            time_base = stream.time_base
            assert time_base is not None
            frame.time_base = time_base
            clock.repair(frame)
            assert frame.pts is not None
            time = frame.pts * time_base
            if (self._start is not None and time < self.origin) or (self._end is not None and time >= self._end):
                continue
            if skipped is not None and time < skipped:
                continue
            frame.pts -= round(self.origin / time_base)
            self.counts.decoded += 1
            self.counts.concealed += frame.is_corrupt
            yield self._editable(frame)
        if self.counts.decoded == 0 and first is None:
            raise MediaError(f"{self.path}: no picture could be decoded")
        self._note_losses(whole=first is None)

    def _open(self) -> InputContainer:
        container = open_input(self.path, self.options.hwaccel, self._card)
        if self._seek_to is not None:
            stream = picture_stream(container, self.path)
            assert stream.time_base is not None
            container.seek(int(self._seek_to / stream.time_base), stream=stream, backward=True)
        return container

    def _find_origin(self, start: Fraction) -> Fraction:
        """The time of the first picture at or after `start`; remembers a place to seek to from which it is decoded.

        A seek that lands behind the wanted picture shows no earlier picture, and is repeated further ahead.
        """
        for margin in (*_SEEK_MARGINS, None):
            self._seek_to = None if margin is None or start - margin <= self.info.start else start - margin
            early = self._seek_to is None
            with self._open() as container:
                stream = picture_stream(container, self.path)
                stream.thread_type = "AUTO"
                clock = _Clock(stream, self.info, Counts())
                for frame in self._raw(container, stream, None):
                    clock.repair(frame)
                    assert frame.pts is not None and stream.time_base is not None
                    time = frame.pts * stream.time_base
                    if time >= start:
                        if early or time == start:
                            self.counts, self._damaged_run = Counts(), 0
                            return Fraction(time)
                        break
                    early = True
        raise MediaError(f"{self.path}: has no picture at or after --start {self.options.start}")

    def _raw(
        self, container: InputContainer, stream: VideoStream, copied: Copied | None, first: Fraction | None = None
    ) -> Iterator[av.VideoFrame]:
        """Decoded pictures as they come; other packets, trimmed and shifted, to `copied`.

        Pictures are decoded from the last keyframe on that is not behind `first`.
        """
        epochs = _Epochs(self.counts)
        ended = False
        skipping = first is not None
        group: list[av.Packet[Stream]] = []
        for packet in self._packets(container):
            epochs.join(packet)
            if packet.stream_index != stream.index:
                if copied is not None and self._trim(packet):
                    copied(packet)
                continue
            if self._end is not None and packet.dts is not None:
                behind = packet.dts * packet.time_base - self._end
                if behind >= _TRAILING:
                    break
                ended = ended or behind >= 0
            if ended:
                continue
            if first is not None and skipping:
                if packet.is_keyframe and packet.pts is not None and packet.pts * packet.time_base <= first:
                    group.clear()
                group.append(packet)
                early = packet.pts is not None and packet.dts is not None and packet.dts * packet.time_base < first
                skipping = early and len(group) < _LONGEST_GROUP
                if skipping:
                    continue
                for waiting in group:
                    yield from self._decode(stream, waiting)
                group.clear()
                continue
            yield from self._decode(stream, packet)
        for waiting in group:
            yield from self._decode(stream, waiting)
        yield from self._decode(stream, None)

    def _packets(self, container: InputContainer) -> Iterator[av.Packet[Stream]]:
        """Demux, passing over what can't be read."""
        while True:
            try:
                for packet in container.demux():
                    if packet.size:
                        yield packet
                return
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                self._damage(error)

    def _decode(self, stream: VideoStream, packet: av.Packet[Stream] | None) -> list[av.VideoFrame]:
        try:
            frames = stream.decode(packet)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self._damage(error)
            return []
        if frames:
            self._damaged_run = 0
        return frames

    def _damage(self, error: av.error.FFmpegError) -> None:
        self.counts.damaged += 1
        self._damaged_run += 1
        if self._damaged_run > MAX_DAMAGED_RUN:
            raise MediaError(f"{self.path}: more than {MAX_DAMAGED_RUN} damaged packets in a row") from error

    def _trim(self, packet: av.Packet[Stream]) -> bool:
        """Shift a copied packet; whether it lies in the wanted part. A subtitle that is on already comes at 0."""
        if self._start is None and self._end is None:
            return True
        stream = packet.stream
        if stream.disposition & Disposition.attached_pic:
            return True
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            return True
        time_base = packet.time_base
        if self._end is not None and stamp * time_base >= self._end:
            return False
        if stamp * time_base < self.origin and self._start is not None:
            left = (stamp + (packet.duration or 0)) * time_base - self.origin
            if stream.type != "subtitle" or left <= 0:
                return False
            packet.pts = packet.dts = 0
            packet.duration = round(left / time_base)
            return True
        shift = round(self.origin / time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        return True

    def _editable(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The picture in a format that can be edited in place, with the tags that PyAV's pictures don't carry."""
        frame = frame if can_be_edited(frame) else fetched(frame)
        name = frame.format.name
        target = name if on_card(frame) else nearest_editable(name)
        if name != target:
            frame = convert(frame, target)
            note = f"pictures are {name}, which can't be edited in place: converted to {target}"
            if note not in self.notes:
                self.notes.append(note)
        info = self.info
        set_tags(frame, PictureTags(info.sample_aspect_ratio, info.color.chroma_location, info.display_matrix))
        return frame

    def _note_losses(self, *, whole: bool) -> None:
        counts = self.counts
        if counts.damaged:
            self.notes.append(f"{counts.damaged} damaged packets skipped")
        if counts.concealed:
            self.notes.append(f"{counts.concealed} pictures are damaged in the input")
        if counts.repaired:
            self.notes.append(f"{counts.repaired} missing or backward timestamps repaired")
        if counts.breaks:
            self.notes.append(f"the clock of the input jumped back {counts.breaks} times; time goes on without a gap")
        promised = self.container.streams[self.info.video_index].frames
        if whole and self._start is self._end is None and counts.decoded < 0.95 * promised:
            self.notes.append(f"the input promises {promised} pictures, only {counts.decoded} could be decoded")


class _Clock:
    """Gives every picture a pts later than the one before."""

    def __init__(self, stream: VideoStream, info: MediaInfo, counts: Counts) -> None:
        self._last: int | None = None
        self._counts = counts
        self._start = stream.start_time or 0
        assert stream.time_base is not None
        self._step = max(1, round(1 / (info.average_rate * stream.time_base))) if info.average_rate else 1

    def repair(self, frame: av.VideoFrame) -> None:
        if frame.pts is None:
            frame.pts = self._start if self._last is None else self._last + self._step
            self._counts.repaired += 1
        if self._last is not None and frame.pts <= self._last:
            frame.pts = self._last + 1
            self._counts.repaired += 1
        self._last = frame.pts


class _Epochs:
    """Joins recordings that were written one behind the other, where the clock jumps back (MPEG-TS, mostly).

    The first stream whose decode time falls back by more than a second opens an epoch: from there on, it is shifted to
    go on where picture and sound ended so far. Each other stream takes the same shift when it falls back in its turn.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._shifts = [Fraction(0)]
        self._epoch: dict[int, int] = {}
        self._last: dict[int, Fraction] = {}
        self._end = Fraction(0)

    def join(self, packet: av.Packet[Stream]) -> None:
        index, time_base = packet.stream_index, packet.time_base
        epoch = self._epoch.get(index, 0)
        if packet.dts is not None:
            time = packet.dts * time_base
            if time < self._last.get(index, time) - _BACKWARD_JUMP:
                if epoch + 1 == len(self._shifts) and packet.stream.type in ("video", "audio"):
                    self._shifts.append(self._end - time)
                    self._counts.breaks += 1
                epoch = min(epoch + 1, len(self._shifts) - 1)
                self._epoch[index] = epoch
            self._last[index] = time
        if epoch:
            shift = round(self._shifts[epoch] / time_base)
            packet.dts = None if packet.dts is None else packet.dts + shift
            packet.pts = None if packet.pts is None else packet.pts + shift
        if packet.pts is not None and packet.stream.type in ("video", "audio"):
            self._end = max(self._end, (packet.pts + (packet.duration or 0)) * time_base)


def _position(container: InputContainer, index: int) -> int:
    """Where among the video streams the stream with that index is."""
    return next(i for i, stream in enumerate(container.streams.video) if stream.index == index)
