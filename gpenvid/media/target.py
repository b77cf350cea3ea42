"""Where the output goes: complete or absent, and never over the input."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from gpenvid.errors import MediaError

_NAME_LIMIT = 200


class Target:
    """A file that appears under its name only when it is complete.

    It is written beside its place, in the same folder, under `part`, a hidden name with the same suffix.
    """

    def __init__(self, path: str | Path, sources: tuple[Path, ...] = ()) -> None:
        """Refuse what can't work: a directory, a folder that is missing or read-only, one of the sources.

        Raises MediaError.
        """
        self.path = Path(path)
        folder = self.path.parent
        if self.path.is_dir():
            raise MediaError(f"{self.path}: is a directory; name the output file")
        if not folder.is_dir():
            raise MediaError(f"{folder}: no such folder for the output")
        for source in sources:
            if self.path.exists() and source.exists() and self.path.samefile(source):
                raise MediaError(f"{self.path}: is the input itself, which is never overwritten; choose another output")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise MediaError(f"{folder}: not permitted to write here")
        stem = self.path.stem.encode()[:_NAME_LIMIT].decode(errors="ignore")
        self._name = f"{stem}{self.path.suffix}"
        self.part = folder / f".part-{os.getpid()}-{self._name}"

    def beside(self, purpose: str) -> Path:
        """A hidden name in the same folder for what belongs to this output."""
        return self.part.with_name(f".{purpose}-{self._name}")

    def claim(self) -> None:
        """Create the part, so that a folder that can't be written is found out before any work. Raises MediaError.

        Parts of the same file that a killed process left behind are removed.
        """
        try:
            for left in self.part.parent.glob(f".part-*-{glob.escape(self._name)}"):
                if not alive(left.name.split("-")[1]):
                    left.unlink(missing_ok=True)
            self.part.touch()
        except OSError as error:
            raise MediaError(
                f"{self.path.parent}: can't be written ({(error.strerror or str(error)).lower()})"
            ) from error

    def commit(self) -> None:
        """Bring the part to the disk and give it its name. Raises MediaError; then nothing is left."""
        try:
            with self.part.open("rb+") as file:
                os.fsync(file.fileno())
            self.part.replace(self.path)
        except OSError as error:
            self.discard()
            raise MediaError(f"{self.path}: can't be written ({(error.strerror or str(error)).lower()})") from error

    def discard(self) -> None:
        """Remove the part, if there is one."""
        self.part.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[tuple[Path, Path]]:
    """What processes that are gone left behind in this folder and those below it: the part, and what it was to be."""
    found = []
    for part in folder.rglob(".part-*-*"):
        _, pid, name = part.name.split("-", 2)
        if not alive(pid):
            found.append((part, part.with_name(name)))
    return sorted(found)


def alive(pid: str) -> bool:
    """Whether a process of that number runs; what is no number belongs to nobody who could be asked."""
    if not pid.isdigit() or os.name == "nt":
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
