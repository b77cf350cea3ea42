"""What the encoder made so far, kept beside an output in the making, so that a killed job goes on where it was."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av

from gpenvid.media.target import alive

_RECORD = struct.Struct("<4q4I")
_NO_TIME = -(1 << 63)


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a job goes on: before a keyframe at `time` (s), `pictures` packets and `offset` bytes into the journal."""

    time: Fraction
    pictures: int
    offset: int


class Journal:
    """The packets of one encoder in their order, in a file that is readable up to wherever its writer was killed.

    The first line says of which job they are, and with which codec headers. A record is damaged, and the last one, if
    its checksum is wrong.
    """

    def __init__(self, path: Path, job: str, extradata: bytes) -> None:
        """Look for what an earlier run of the same job left; `cut` is where it goes on, None to start anew.

        job: a text that is the same only for the same input, options and program. extradata: the encoder's headers:
        packets made under other ones don't go with them. Raises OSError.
        """
        self.path = path
        head = {"job": job, "extradata": extradata.hex(), "pid": f"{os.getpid():010d}"}
        self.cut = self._find_cut(head)
        if self.cut is None:
            path.write_bytes(b"")
        else:
            os.truncate(path, self.cut.offset)
        self._file: BinaryIO = path.open("r+b")
        self._file.write(json.dumps(head).encode() + b"\n")  # as long as the one of the earlier run
        self._file.seek(0, os.SEEK_END)
        self._earlier = self._packets_before_cut()
        self._next = next(self._earlier, None)

    @staticmethod
    def is_taken(path: Path) -> bool:
        """Whether a process that is alive writes this journal."""
        head = _head(path)
        return head is not None and int(head["pid"]) != os.getpid() and alive(head["pid"])

    def append(self, packets: list[av.Packet[Any]]) -> None:
        """Keep packets; what stands before a keyframe is given to the system. Raises OSError."""
        for packet in packets:
            data = bytes(packet)
            times = [_NO_TIME if each is None else each for each in (packet.pts, packet.dts, packet.duration)]
            base = packet.time_base
            record = _RECORD.pack(
                *times, packet.is_keyframe, base.numerator, base.denominator, len(data), zlib.crc32(data)
            )
            if packet.is_keyframe:
                self._file.flush()
            self._file.write(record + data)

    def due(self, until: Fraction | None = None) -> Iterator[av.Packet[Any]]:
        """The packets before the cut that weren't given yet; only those with a decode time up to `until` seconds."""
        while (packet := self._next) is not None:
            if until is not None and packet.dts is not None and packet.dts * packet.time_base > until:
                return
            self._next = next(self._earlier, None)
            yield packet

    def _packets_before_cut(self) -> Generator[av.Packet[Any], None, None]:
        if self.cut is None:
            return
        with self.path.open("rb") as file:
            for packet, offset in _packets(file):
                if offset >= self.cut.offset:
                    return
                yield packet

    def close(self, *, keep: bool = False) -> None:
        """Done with it; it is removed unless it is to be kept for another run."""
        self._earlier.close()
        self._file.close()
        if not keep:
            self.path.unlink(missing_ok=True)

    def _find_cut(self, head: dict[str, str]) -> Cut | None:
        """The last keyframe with which a new encoder can take over.

        That is one behind which no picture is shown that comes earlier, as in an open group of pictures; so a later
        picture must be there to tell.
        """
        found = _head(self.path)
        if found is None or {**found, "pid": ""} != {**head, "pid": ""}:
            return None
        best = candidate = None
        with self.path.open("rb") as file:
            for count, (packet, offset) in enumerate(_packets(file)):
                if packet.pts is None:
                    return None
                time = packet.pts * packet.time_base
                if candidate is not None:
                    best = candidate if time > candidate.time else best
                    candidate = None
                if packet.is_keyframe and count:
                    candidate = Cut(time, count, offset)
        return best


def _head(path: Path) -> dict[str, str] | None:
    try:
        with path.open("rb") as file:
            head: dict[str, str] = json.loads(file.readline(1 << 20))
    except (OSError, ValueError):
        return None
    return head if isinstance(head, dict) and str(head.get("pid", "")).isdigit() else None


def _packets(file: BinaryIO) -> Iterator[tuple[av.Packet[Any], int]]:
    """The whole records behind the first line, each with the offset at which it begins."""
    offset = len(file.readline())
    while len(header := file.read(_RECORD.size)) == _RECORD.size:
        pts, dts, duration, keyframe, numerator, denominator, size, checksum = _RECORD.unpack(header)
        data = file.read(size)
        if len(data) < size or zlib.crc32(data) != checksum:
            return
        packet = av.Packet(data)
        packet.pts, packet.dts = (None if each == _NO_TIME else each for each in (pts, dts))
        packet.duration = 0 if duration == _NO_TIME else duration
        packet.time_base = Fraction(numerator, denominator)
        packet.is_keyframe = bool(keyframe)
        yield packet, offset
        offset += _RECORD.size + size
