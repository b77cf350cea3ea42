"""Downloading weights: mirrors in order, resumed where cut, verified before they get their name."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from tqdm import tqdm

from gpenvid.errors import WeightsError
from gpenvid.weights import files
from gpenvid.weights.registry import Entry, entry

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as cut."""

ATTEMPTS = 3
"""Connections in a row that may bring nothing before the next mirror is tried."""

PAUSE = 1.0
"""Seconds before the second attempt, doubled before each further one."""

BLOCK = 1 << 18

log = logging.getLogger(__name__)


class _MirrorError(Exception):
    """This mirror won't do; the message says why."""


@dataclass(frozen=True, slots=True)
class _Reply:
    """start: where in the file the body begins; total: the file's size, if told."""

    start: int
    total: int | None


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to anything else."""

    def redirect_request(self, req: urllib.request.Request, *args: Any) -> urllib.request.Request | None:
        """See the base class."""
        follow = super().redirect_request(req, *args)
        if follow is not None and req.type == "https" != follow.type:
            raise _MirrorError(f"redirects to {follow.type}")
        return follow


def is_offline(offline: bool | None = None) -> bool:
    """What was asked for, else whether $GPENVID_OFFLINE is set to something other than 0."""
    return os.environ.get("GPENVID_OFFLINE", "0") not in ("", "0") if offline is None else offline


def fetch(
    name: str, *, weights_dir: str | Path | None = None, offline: bool | None = None, progress: bool | None = None
) -> Path:
    """Make sure that an entry's file is here and its sha256 is known; download it if it isn't here.

    It goes into `weights_dir` or the user's cache. `progress`: a bar on standard error; None: if that is a terminal.
    Where nobody published a sha256, that of the first download, or of a file put here by hand, is recorded in
    `weights.lock` beside it. Returns the file. Raises WeightsError: offline, no mirror has it, damaged, disk full.
    """
    known = entry(name)
    folder = files.download_dir(weights_dir)
    present = files.status(name, weights_dir=weights_dir)
    elsewhere = present.path is not None and present.path.parent != folder
    try:
        if present.path is not None and present.state == "unverified" and not known.ships:
            _record(present.path, files.sha256_of(present.path), "put here by hand")
            return present.path
        if not (known.ships or elsewhere or present.state == "verified" or is_offline(offline)):
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder):
                if files.status(name, weights_dir=weights_dir).state != "verified":
                    log.warning("%s: %s", known.name, known.note)
                    _from_mirrors(known, folder / known.filename, files.expected_sha256(known, folder), progress)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{error.filename or folder}: {error.strerror or error}") from None
    found = files.verify(name, weights_dir=weights_dir).path
    assert found is not None
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process downloads into the folder, where the system can tell."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems can't lock; the checksum still guards
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _from_mirrors(known: Entry, target: Path, sha256: str | None, progress: bool | None) -> None:
    part = target.with_name(target.name + ".part")
    reasons = []
    for url in known.urls:
        try:
            got = _transfer(url, part, known, sha256, progress)
        except _MirrorError as failure:
            log.info("%s: %s", url, failure)
            reasons.append(f"{url}: {failure}")
            continue
        if sha256 is None:
            _record(target, got, url)
        part.replace(target)
        return
    raise WeightsError(
        f"{known.name}: can't be downloaded ({'; '.join(reasons)}); "
        f"try again later, or put the file into {target.parent} as {target.name}"
    )


def _transfer(url: str, part: Path, known: Entry, sha256: str | None, progress: bool | None) -> str:
    """Bring the whole file into `part`; returns its sha256. Raises _MirrorError."""
    for resumed in (part.exists(), False):
        _download(url, part, known, progress)
        got = files.hash_file(part)
        if sha256 in (None, got):
            return got
        part.unlink()
        if not resumed:
            break
        log.info("%s: the resumed file is damaged, starting over", part)
    raise _MirrorError(f"sha256 is {got[:12]}, expected {str(sha256)[:12]}")


def _download(url: str, part: Path, known: Entry, progress: bool | None) -> None:
    """Connect until the file is whole, each time from where the last connection ended."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _connect(url, part, known, progress):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:
                part.unlink()
                continue
            if error.code < 500 and error.code not in (408, 429):
                raise _MirrorError(f"{error.code} {error.reason}") from None
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures == ATTEMPTS:
            raise _MirrorError(reason)
        log.info("%s: %s, trying again", url, reason)
        time.sleep(PAUSE * 2 ** max(failures - 1, 0))


def _connect(url: str, part: Path, known: Entry, progress: bool | None) -> bool:
    """One connection, appended to `part`. Returns whether the file is whole now."""
    have = part.stat().st_size if part.exists() else 0
    if have and have == known.bytes:
        return True
    request = urllib.request.Request(url, headers={"User-Agent": "gpenvid", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.build_opener(_NoDowngrade).open(request, timeout=TIMEOUT) as response:
        reply = _read_headers(response.status, response.headers)
        if reply.start not in (0, have):
            raise _MirrorError(f"asked for byte {have}, got byte {reply.start}")
        if known.bytes is not None and reply.total not in (None, known.bytes):
            raise _MirrorError(f"has {reply.total} bytes, expected {known.bytes}")
        total = known.bytes if known.bytes is not None else reply.total
        with (
            part.open("ab" if reply.start else "wb") as file,
            tqdm(
                desc=known.filename,
                total=total,
                initial=reply.start,
                unit="B",
                unit_scale=True,
                disable=None if progress is None else not progress,
            ) as bar,
        ):
            _copy(response, file, bar, limit=None if total is None else total - reply.start)
        return total is None or part.stat().st_size == total


def _read_headers(status: int, headers: Mapping[str, str]) -> _Reply:
    if headers.get("Content-Type", "").startswith("text/html"):
        raise _MirrorError("answers with a web page")
    length = headers.get("Content-Length", "")
    if status != 206:
        return _Reply(0, int(length) if length.isdigit() else None)
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    if found is None:
        raise _MirrorError("answers a range request without Content-Range")
    return _Reply(int(found[1]), None if found[2] == "*" else int(found[2]))


def _copy(response: IO[bytes], file: IO[bytes], bar: tqdm[NoReturn], limit: int | None) -> None:
    copied = 0
    while block := _receive(response):
        copied += len(block)
        if limit is not None and copied > limit:
            raise _MirrorError(f"sends more than the {limit} bytes expected")
        file.write(block)
        bar.update(len(block))


def _receive(response: IO[bytes]) -> bytes:
    try:
        return response.read(BLOCK)
    except OSError as error:  # told apart from an error of the disk
        raise ConnectionError(str(error)) from None


def _record(path: Path, sha256: str, source: str) -> None:
    """Write down what a file without published checksum was when it first came."""
    lock = path.with_name(files.LOCK)
    content = json.loads(lock.read_text(encoding="utf-8")) if lock.exists() else {}
    content[path.name] = {"sha256": sha256, "source": source}
    draft = lock.with_name(lock.name + ".part")
    draft.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(lock)
    log.warning("%s: nobody published its sha256; recorded %s in %s", path.name, sha256[:12], lock)
