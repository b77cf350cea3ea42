"""Rolling recordings: files by time, cut at key pictures, the oldest deleted when there are too many."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from gpenvid.errors import MediaError, OptionsError
from gpenvid.media.sinks import TIME_BASE
from gpenvid.media.sinks.encoder import VIDEO
from gpenvid.media.sinks.files import file_format, make_folder
from gpenvid.media.sinks.formats import FORMATS
from gpenvid.media.sinks.muxer import Muxer, complete
from gpenvid.media.sinks.packets import EncodedPacket, Track
from gpenvid.media.target import Target, leftovers
from gpenvid.options import SinkOptions

DEFAULT_PATTERN = "%Y%m%d-%H%M%S.mkv"
"""Names of the files in a folder that was given alone."""

_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "j": 3, "y": 2, "f": 6}
_GIGABYTE = 1_000_000_000

log = logging.getLogger(__name__)


class Recordings:
    """Files named by the time at which they begin. Each is complete or absent, and begins at time 0.

    A file ends with the first key picture after `segment` seconds. What a process that died was writing is completed,
    as far as it can be read. Retention looks only at files whose names could be ours.
    """

    reopens = True
    live = False

    def __init__(self, pattern: str | Path, options: SinkOptions, now: Callable[[], datetime] = datetime.now) -> None:
        """pattern: a path with codes of strftime, in folders too, such as `door/%Y-%m-%d/%H%M%S.mkv`.

        Raises OptionsError for a code that isn't a number, MediaError for a folder that can't be made.
        """
        self.name = str(pattern)
        self._pattern = Path(pattern)
        self.format = FORMATS[file_format(self._pattern)]
        self._options = options
        # So that all but the last second is on the disk, should the process die.
        self._written = self.format.options | {"flush_packets": "1"}
        if self.format.name == "matroska":
            self._written |= {"cluster_time_limit": "1000"}
        self._segment = round(options.segment / TIME_BASE)
        self._now = now
        fixed = next(i for i, part in enumerate(self._pattern.parts) if "%" in part)
        self._root = Path(*self._pattern.parts[:fixed])
        self._ours = _matcher(Path(*self._pattern.parts[fixed:]))
        make_folder(self._root)
        Target(self._root / "recording")
        self._tracks: Sequence[Track] = ()
        self._muxer: Muxer | None = None
        self._target: Target | None = None
        self._began = 0
        self._ahead: deque[EncodedPacket] = deque()

    def open(self, tracks: Sequence[Track]) -> None:
        """Get ready; a file begins with the first key picture. Raises MediaError."""
        self._tracks = tracks
        for part, path in leftovers(self._root):
            if self._ours.fullmatch(path.relative_to(self._root).as_posix()):
                complete(part, path, self.format.name)

    def write(self, packet: EncodedPacket) -> None:
        """Add a packet, to a new file if it is time for one. Raises MediaError; then the file that was open is gone."""
        if packet.track != VIDEO:
            self._ahead.append(packet)
            return
        self._write_sound(packet.dts)
        due = self._muxer is None or packet.dts - self._began >= self._segment
        if due and packet.key:
            self._finish()
            self._begin(packet)
        if self._muxer is not None:
            self._muxer.write(packet)

    def close(self) -> None:
        """Complete the file and delete what is too much. Raises MediaError."""
        self._write_sound(None)
        self._finish()

    def _finish(self) -> None:
        muxer, target = self._muxer, self._target
        if muxer is None or target is None:
            return
        muxer.close()
        target.commit()
        self._muxer = self._target = None
        self._retain()

    def abort(self) -> None:
        """Leave nothing of the file that is open."""
        self._ahead.clear()
        if self._muxer is not None:
            self._muxer.abort()
        if self._target is not None:
            self._target.discard()
        self._muxer = self._target = None

    def interrupt(self) -> None:
        """Nothing here waits for others."""

    def _write_sound(self, until: int | None) -> None:
        """Write the sound before this time: it comes a little ahead, and may belong to the next file."""
        while self._ahead and (until is None or self._ahead[0].dts < until):
            packet = self._ahead.popleft()
            if self._muxer is not None:
                self._muxer.write(packet)

    def _begin(self, packet: EncodedPacket) -> None:
        path = Path(self._now().strftime(str(self._pattern)))
        make_folder(path.parent)
        number, free = 1, path
        while free.exists():
            number += 1
            free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        self._target = Target(free)
        self._target.claim()
        self._began = packet.dts
        self._muxer = Muxer(f"file:{self._target.part}", str(free), self.format.name, self._tracks, self._written)

    def _retain(self) -> None:
        """Delete the oldest files beyond the limits of number, age and size; folders that this empties go too."""
        options = self._options
        found = []
        for path in self._root.rglob("*"):
            if self._ours.fullmatch(path.relative_to(self._root).as_posix()) and path.is_file():
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        found.sort(reverse=True)
        size = 0
        for number, (changed, length, path) in enumerate(found, start=1):
            size += length
            old = options.keep_hours and time.time() - changed > options.keep_hours * 3600
            many = options.keep_files and number > options.keep_files
            large = options.keep_gigabytes and size > options.keep_gigabytes * _GIGABYTE
            if old or many or large:
                self._delete(path)

    def _delete(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            folder = path.parent
            while folder != self._root and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent
        except OSError as error:
            raise MediaError(f"{path}: can't be deleted ({(error.strerror or str(error)).lower()})") from error
        log.info("deleted the old recording %s", path)


def _matcher(pattern: Path) -> re.Pattern[str]:
    """What names of this pattern look like; raises OptionsError for a code whose look isn't known."""
    text = pattern.with_suffix("").as_posix()
    looks = ""
    for literal, code in re.findall(r"([^%]+)|%(.?)", text):
        if literal:
            looks += re.escape(literal)
        elif code == "%":
            looks += "%"
        elif code in _DIGITS:
            looks += rf"\d{{{_DIGITS[code]}}}"
        else:
            known = " ".join(f"%{each}" for each in _DIGITS)
            raise OptionsError(f"{pattern}: %{code} can't be used in the name of a recording; use {known}")
    return re.compile(looks + r"(-\d+)?" + re.escape(pattern.suffix))
