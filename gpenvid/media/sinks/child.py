"""A child process that does for an output what may hang, with the means to notice that it does."""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpenvid.errors import MediaError

READY = b"+"
FAILED = b"!"
FINISHED = b"."

_GRACE = 2.0


class Child:
    """Takes pickled messages on its standard input; says on its standard output READY, FINISHED, or FAILED and why.

    It is to end itself where something takes longer than `patience` seconds; if it doesn't, a little later it is
    given up. Every method raises MediaError when it failed.
    """

    def __init__(self, name: str, arguments: Sequence[str], patience: float) -> None:
        """Start it. name: of the output, for errors. arguments: of the Python interpreter."""
        self.name = name
        self._patience = patience
        self._said = b""
        root = Path(__file__).parents[3]
        own = "" if root.name.endswith("-packages") else str(root)  # installed packages are found without, in due order
        paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), own]))
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": paths},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        for pipe in (self._to, self._from):
            os.set_blocking(pipe.fileno(), False)

    @property
    def finished(self) -> bool:
        """Whether it said that it wants no more."""
        return FINISHED in self._said

    def send(self, message: Any) -> None:
        """Give it a message, unless it has finished."""
        deadline = time.monotonic() + self._patience + _GRACE
        rest = memoryview(pickle.dumps(message))
        while rest:
            self._listen(0)
            if self.finished:
                return
            _, ready, _ = select.select([], [self._to], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise self._stuck()
            try:
                rest = rest[os.write(self._to.fileno(), rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                self._listen(_GRACE)
                if not self.finished:
                    raise self._stuck() from error

    def wait_for(self, word: bytes) -> None:
        """Wait until it has said READY or FINISHED."""
        deadline = time.monotonic() + self._patience + _GRACE
        while word not in self._said:
            if time.monotonic() > deadline:
                raise self._stuck()
            self._listen(deadline - time.monotonic())

    def end(self) -> None:
        """Say that no more comes and wait until it has finished."""
        try:
            with suppress(OSError):
                self._to.close()
            self.wait_for(FINISHED)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._to, self._from):
            with suppress(OSError):
                pipe.close()

    def interrupt(self) -> None:
        """From another thread: let the call that waits for it fail."""
        self._process.kill()

    def _listen(self, patience: float) -> None:
        heard = self._hear(patience)
        while FAILED in self._said and heard:  # the reason may come in parts, up to the end
            heard = self._hear(_GRACE)
        if FAILED in self._said:
            raise MediaError(self._said.partition(FAILED)[2].decode(errors="replace"))
        if heard == b"" and not self.finished:
            raise self._stuck()

    def _hear(self, patience: float) -> bytes | None:
        """What it says within so many seconds; None for nothing, empty when it has ended."""
        ready, _, _ = select.select([self._from], [], [], max(0, patience))
        if not ready:
            return None
        heard = os.read(self._from.fileno(), 65536)
        self._said += heard
        return heard

    def _stuck(self) -> MediaError:
        what = "took nothing" if READY in self._said else "didn't answer"
        return MediaError(f"{self.name}: the other end {what} for {self._patience:g} s")
