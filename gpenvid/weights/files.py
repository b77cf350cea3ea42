"""Where weights lie and whether they are what they say.

A file is known by its sha256: from the registry, from the `SHA256SUMS` that lies beside shipped files, or, where
nobody published one, from `weights.lock`, in which the first download was recorded. Hashes are computed once a process.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from gpenvid.errors import WeightsError
from gpenvid.weights.registry import Entry, entry

SUMS = "SHA256SUMS"
LOCK = "weights.lock"

State = Literal["missing", "verified", "unverified", "damaged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What is known of one entry on this machine; unverified: present, but nobody knows its sha256."""

    entry: Entry
    state: State
    path: Path | None = None
    sha256: str | None = None


def shipped(what: Literal["weights", "samples"]) -> Path:
    """The folder that ships with the program: inside the package when installed, else beside it in the repository."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "shipped" / what
    return inside if inside.is_dir() else package.parent / what


def cache_dir() -> Path:
    """The user's own folder for downloaded weights: $XDG_CACHE_HOME/gpenvid/weights."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "gpenvid" / "weights"


def search_path(weights_dir: str | Path | None = None) -> list[Path]:
    """The folders that are searched, in order: the given one, those in $GPENVID_WEIGHTS, the shipped, the cache."""
    given = [Path(weights_dir)] if weights_dir else []
    named = [Path(name) for name in os.environ.get("GPENVID_WEIGHTS", "").split(os.pathsep) if name]
    return [*given, *named, shipped("weights"), cache_dir()]


def download_dir(weights_dir: str | Path | None = None) -> Path:
    """The folder that downloads go into: the given one, or the cache."""
    return Path(weights_dir) if weights_dir else cache_dir()


def find(name: str, *, weights_dir: str | Path | None = None) -> Path | None:
    """The first file on the search path that has the entry's file name; not verified. None if there is none."""
    filename = entry(name).filename
    return next((folder / filename for folder in search_path(weights_dir) if (folder / filename).is_file()), None)


def hash_file(path: Path) -> str:
    """sha256 of a file's content in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Like `hash_file`, remembered until the file changes. Raises WeightsError."""
    try:
        facts = path.stat()
        return _hash(path.resolve(), facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None


@lru_cache(maxsize=256)
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    return hash_file(path)


def expected_sha256(known: Entry, folder: Path) -> str | None:
    """What the entry's file in a folder must hash to; None where nobody knows. Raises WeightsError for a bad lock."""
    if known.sha256:
        return known.sha256
    if known.ships:
        return _sums(folder / SUMS).get(known.filename)
    return read_lock(folder).get(known.filename)


def _sums(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = [
        line.split(maxsplit=1)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    return {line[1].strip().lstrip("*"): line[0].lower() for line in lines if len(line) == 2}


def read_lock(folder: Path) -> dict[str, str]:
    """File name to sha256 of the first downloads into a folder."""
    path = folder / LOCK
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(record["sha256"]) for name, record in content.items()}
    except (ValueError, AttributeError, KeyError, TypeError):
        raise WeightsError(f"{path}: damaged; delete it, and the next download records its sha256 anew") from None


def status(name: str, *, weights_dir: str | Path | None = None) -> Status:
    """Find and hash one entry's file. Never touches the network."""
    known = entry(name)
    path = find(name, weights_dir=weights_dir)
    if path is None:
        return Status(entry=known, state="missing")
    got, want = sha256_of(path), expected_sha256(known, path.parent)
    state: State = "unverified" if want is None else "verified" if got == want else "damaged"
    return Status(entry=known, state=state, path=path, sha256=got)


def verify(name: str, *, weights_dir: str | Path | None = None) -> Status:
    """Like `status`, but raises WeightsError with the remedy if the file is missing or damaged."""
    found = status(name, weights_dir=weights_dir)
    if found.path is None:
        raise WeightsError(_missing(found.entry, weights_dir))
    if found.state == "damaged":
        want = expected_sha256(found.entry, found.path.parent)
        raise WeightsError(
            f"{found.path}: sha256 is {str(found.sha256)[:12]}, expected {str(want)[:12]}; "
            + ("install gpenvid again" if found.entry.ships else f"delete it and run `gpenvid weights fetch {name}`")
        )
    return found


def _missing(known: Entry, weights_dir: str | Path | None) -> str:
    folder = download_dir(weights_dir)
    if known.ships:
        return (
            f"{known.name}: {known.filename} should come with gpenvid but isn't in {shipped('weights')}; install again"
        )
    return (
        f"{known.name}: {known.filename} isn't here; run `gpenvid weights fetch {known.name}`, or download "
        f"{' or '.join(known.urls)} and put it into {folder} as {known.filename}"
    )
