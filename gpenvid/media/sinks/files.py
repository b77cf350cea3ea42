"""Outputs on this machine: one file, a folder of recordings, an HLS folder, standard output."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from pathlib import Path

from gpenvid.errors import MediaError, OptionsError
from gpenvid.media.sinks.formats import FORMATS, live_options
from gpenvid.media.sinks.muxer import Muxer
from gpenvid.media.sinks.packets import EncodedPacket, Track
from gpenvid.media.target import Target
from gpenvid.options import SinkOptions

FILE_FORMATS = {".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".ts": "mpegts", ".nut": "nut"}
"""Formats of files by extension."""

_AT_ONCE = getattr(select, "PIPE_BUF", 512)
_A_WHILE = 0.2


class FileOutput:
    """One file, from the first key picture to the end; it appears under its name when it is complete."""

    reopens = False
    live = False

    def __init__(self, path: str | Path) -> None:
        """Raises MediaError for a place where no file can be written, OptionsError for an unknown extension."""
        self.path = Path(path)
        self.name = str(path)
        self.format = FORMATS[file_format(self.path)]
        self._target = Target(self.path)
        self._muxer: Muxer | None = None

    def open(self, tracks: Sequence[Track]) -> None:
        """Begin the file. Raises MediaError."""
        self._target.claim()
        self._muxer = Muxer(f"file:{self._target.part}", self.name, self.format.name, tracks, self.format.options)

    def write(self, packet: EncodedPacket) -> None:
        """Add a packet. Raises MediaError if the disk is full."""
        assert self._muxer is not None
        self._muxer.write(packet)

    def close(self) -> None:
        """Complete the file; without a picture in it there is none. Raises MediaError."""
        if self._muxer is None:
            return
        self._muxer.close()
        if self._muxer.written:
            self._target.commit()
        else:
            self._target.discard()
        self._muxer = None

    def abort(self) -> None:
        """Leave nothing."""
        if self._muxer is not None:
            self._muxer.abort()
            self._muxer = None
        self._target.discard()

    def interrupt(self) -> None:
        """Nothing here waits for others."""


class HlsOutput:
    """A playlist and its segments for a web server: MPEG-TS segments, cut at key pictures, the old ones deleted.

    A playlist that is there already is continued, after a mark of discontinuity.
    """

    reopens = True
    live = False
    format = FORMATS["hls"]

    def __init__(self, path: str | Path, options: SinkOptions) -> None:
        """path: of the playlist. Raises MediaError if its folder can't be made or written."""
        self.path = Path(path)
        self.name = str(path)
        make_folder(self.path.parent)
        Target(self.path)
        self._options = {
            "hls_time": f"{options.hls_segment:g}",
            "hls_list_size": str(options.hls_list),
            "hls_flags": "delete_segments+append_list+discont_start+independent_segments+program_date_time+temp_file",
            "hls_segment_filename": str(self.path.with_name(f"{self.path.stem.replace('%', '%%')}-%06d.ts")),
        }
        self._muxer: Muxer | None = None

    def open(self, tracks: Sequence[Track]) -> None:
        """Begin a segment. Raises MediaError."""
        options = {**live_options(self.format), **self._options}
        self._muxer = Muxer(str(self.path), self.name, self.format.name, tracks, options)

    def write(self, packet: EncodedPacket) -> None:
        """Add a packet. Raises MediaError."""
        assert self._muxer is not None
        self._muxer.write(packet)

    def close(self) -> None:
        """Complete the last segment and say in the playlist that no more comes. Raises MediaError."""
        if self._muxer is not None:
            self._muxer.close()

    def abort(self) -> None:
        """Let go of the segment."""
        if self._muxer is not None:
            self._muxer.abort()
            self._muxer = None

    def interrupt(self) -> None:
        """Nothing here waits for others."""


class PipeOutput:
    """Standard output, or any other pipe. Its reader's end is the end of the output."""

    reopens = False
    live = True

    def __init__(self, format: str, descriptor: int = 1) -> None:
        """format: mpegts or matroska."""
        self.name = "standard output"
        self.format = FORMATS[format]
        self._pipe = Pipe(descriptor)
        self._muxer: Muxer | None = None

    def open(self, tracks: Sequence[Track]) -> None:
        """Write the header. Raises MediaError."""
        options = live_options(self.format)
        if self.format.name == "matroska":
            options |= {"live": "1", "cluster_time_limit": "0"}
        self._muxer = Muxer(self._pipe, self.name, self.format.name, tracks, options)

    def write(self, packet: EncodedPacket) -> None:
        """Write a packet. Raises MediaError if nobody reads any more."""
        assert self._muxer is not None
        self._muxer.write(packet)

    def close(self) -> None:
        """Write what is left. Raises MediaError."""
        if self._muxer is not None:
            self._muxer.close()

    def abort(self) -> None:
        """Write no more."""
        self._pipe.shut = True
        if self._muxer is not None:
            self._muxer.abort()

    def interrupt(self) -> None:
        """Let the write that waits for the reader fail."""
        self._pipe.shut = True


class Pipe:
    """A file descriptor as FFmpeg writes to it: in order, never forever, and without Python's lock while it waits."""

    def __init__(self, descriptor: int) -> None:
        self.shut = False
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        """Write all of it. Raises OSError when the reader is gone or the pipe is shut."""
        rest = memoryview(data)
        while rest:
            if self.shut:
                raise BrokenPipeError("shut")
            _, ready, _ = select.select([], [self._descriptor], [], _A_WHILE)
            if ready:  # so many bytes fit at least, so that this doesn't wait
                rest = rest[os.write(self._descriptor, rest[:_AT_ONCE]) :]
        return len(data)


def file_format(path: Path) -> str:
    """FFmpeg's name of the format by the extension. Raises OptionsError for one that isn't known."""
    format = FILE_FORMATS.get(path.suffix.lower())
    if format is None:
        raise OptionsError(
            f"{path}: don't know how to write {path.suffix or 'no extension'}; use {', '.join(FILE_FORMATS)}"
        )
    return format


def make_folder(folder: Path) -> None:
    """Make the folder and those above it. Raises MediaError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"{folder}: can't make this folder ({(error.strerror or str(error)).lower()})") from error
