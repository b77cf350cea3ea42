"""From what a user asked for to the file that is loaded."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from gpenvid.errors import WeightsError
from gpenvid.weights.download import fetch, is_offline
from gpenvid.weights.files import Status, expected_sha256, find, search_path, sha256_of, status, verify
from gpenvid.weights.registry import Kind, entries, entry

SUFFIXES = (".pth", ".pt")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A file to load. name: the registered one, or the file's stem; verified: its sha256 was known and is right."""

    name: str
    path: Path
    sha256: str
    verified: bool


def resolve(
    name_or_path: str | os.PathLike[str],
    kind: Kind,
    *,
    weights_dir: str | Path | None = None,
    offline: bool | None = None,
) -> Weights:
    """The file to load for what a user asked for.

    `auto`: the best of the kind that is present and verified, never from the network. A registered name: its file,
    verified, downloaded if absent and not `offline` (default: $GPENVID_OFFLINE). A path, or the name of a .pth file on
    the search path: that file, verified if it bears a registered file name. Raises WeightsError.
    """
    name = os.fspath(name_or_path)
    if name == "auto":
        return _best(kind, weights_dir)
    if name not in {known.name for known in entries()}:
        return _own_file(name, kind, weights_dir)
    known = entry(name)
    if known.kind != kind:
        raise WeightsError(f"{name}: is a {known.kind}, not a {kind}")
    if find(name, weights_dir=weights_dir) is None and not known.ships and not is_offline(offline):
        fetch(name, weights_dir=weights_dir, offline=offline)
    return _weights(verify(name, weights_dir=weights_dir))


def _weights(found: Status) -> Weights:
    assert found.path is not None and found.sha256 is not None
    if found.state == "unverified":
        log.warning("%s: nobody published its sha256, so it can't be verified", found.path)
    return Weights(name=found.entry.name, path=found.path, sha256=found.sha256, verified=found.state == "verified")


def _best(kind: Kind, weights_dir: str | Path | None) -> Weights:
    for known in entries(kind):
        found = status(known.name, weights_dir=weights_dir)
        if found.state == "verified":
            return _weights(found)
        if found.state == "damaged":
            log.warning("%s: damaged, passed over; see `gpenvid weights verify %s`", found.path, known.name)
        if found.state == "unverified":
            log.warning("%s: unverified, passed over; `gpenvid weights fetch %s` accepts it", found.path, known.name)
    folders = ", ".join(str(folder) for folder in search_path(weights_dir))
    first = entries(kind)[0].name
    raise WeightsError(f"no {kind} in {folders}; run `gpenvid weights fetch {first}`, or name a file")


def _own_file(name: str, kind: Kind, weights_dir: str | Path | None) -> Weights:
    path = Path(name)
    if not path.is_file() and path.name == name:
        names = [name] if path.suffix in SUFFIXES else [name + suffix for suffix in SUFFIXES]
        present = (folder / each for folder in search_path(weights_dir) for each in names)
        path = next((candidate for candidate in present if candidate.is_file()), path)
    if not path.is_file() and path.name == name and path.suffix not in SUFFIXES:
        raise WeightsError(
            f"{name}: no such file and no known {kind}; known are {', '.join(known.name for known in entries(kind))}"
        )
    got = sha256_of(path)
    known = next((each for each in entries() if each.filename == path.name), None)
    want = expected_sha256(known, path.parent) if known else None
    if want and got != want:
        raise WeightsError(
            f"{path}: sha256 is {got[:12]}, expected {want[:12]}; delete it if it should be the published file, "
            "rename it if it is your own"
        )
    return Weights(name=known.name if known and want else path.stem, path=path, sha256=got, verified=want is not None)
