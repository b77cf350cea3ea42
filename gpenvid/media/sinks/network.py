"""Outputs at the other end of a network: RTSP, RTMP, WHIP, MPEG-TS; each in a child process that can be given up."""

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

from gpenvid.errors import MediaError
from gpenvid.media.sinks.formats import FORMATS, live_options
from gpenvid.media.sinks.packets import EncodedPacket, Track, packed
from gpenvid.media.sinks.publish import CONNECTED, FAILED, FINISHED, Order
from gpenvid.redact import redacted

PATIENCE = 10.0
"""Seconds that a peer may take to connect, or to take a packet."""

_GRACE = 2.0
_PROGRAM = "from gpenvid.media.sinks.publish import main; main()"


class NetworkOutput:
    """Sends packets to a URL. What the peer doesn't take in time is an error, and it can be opened again."""

    reopens = True
    live = True

    def __init__(self, url: str, format: str, options: dict[str, str] | None = None) -> None:
        """url: as FFmpeg takes it. format: a key of FORMATS."""
        self.name = redacted(url)
        self.format = FORMATS[format]
        self._url = url
        self._options = {**live_options(self.format), **(options or {})}
        self._child: subprocess.Popen[bytes] | None = None
        self._said = b""

    def open(self, tracks: Sequence[Track]) -> None:
        """Connect. Raises MediaError if the peer isn't there, refuses, or takes longer than PATIENCE."""
        root = str(Path(__file__).parents[3])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._said = b""
        self._child = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": paths},
        )
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        names = tuple(track.name for track in tracks)
        order = Order(self._url, self.name, self.format.name, self._options, packed(tracks), names, PATIENCE)
        self._send(pickle.dumps(order))
        self._await(CONNECTED)

    def write(self, packet: EncodedPacket) -> None:
        """Send one packet. Raises MediaError if the connection is broken."""
        self._send(pickle.dumps(packet))

    def close(self) -> None:
        """Say goodbye. Raises MediaError if the peer doesn't let us in time."""
        if self._child is None:
            return
        try:
            assert self._child.stdin is not None
            self._child.stdin.close()
            self._await(FINISHED)
        finally:
            self.abort()

    def abort(self) -> None:
        """End the child at once."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def interrupt(self) -> None:
        """Let the call that waits for the peer fail."""
        child = self._child
        if child is not None:
            child.kill()

    def _send(self, data: bytes) -> None:
        child, deadline = self._child, time.monotonic() + PATIENCE + _GRACE
        if child is None:
            return
        assert child.stdin is not None
        rest = memoryview(data)
        while rest:
            self._listen(0)
            _, ready, _ = select.select([], [child.stdin], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise MediaError(f"{self.name}: nothing was taken for {PATIENCE:g} s")
            try:
                rest = rest[os.write(child.stdin.fileno(), rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                self._listen(_GRACE)
                raise MediaError(f"{self.name}: the connection broke") from error

    def _await(self, word: bytes) -> None:
        deadline = time.monotonic() + PATIENCE + _GRACE
        while word not in self._said:
            if time.monotonic() > deadline:
                raise MediaError(f"{self.name}: no answer for {PATIENCE:g} s")
            self._listen(deadline - time.monotonic())

    def _listen(self, patience: float) -> None:
        """Hear what the child says. Raises MediaError if it failed, or ended by its alarm."""
        child = self._child
        assert child is not None and child.stdout is not None
        ready, _, _ = select.select([child.stdout], [], [], max(0, patience))
        if not ready:
            return
        heard = os.read(child.stdout.fileno(), 65536)
        self._said += heard
        if FAILED in self._said:
            while ready and heard:
                ready, _, _ = select.select([child.stdout], [], [], _GRACE)
                heard = os.read(child.stdout.fileno(), 65536) if ready else b""
                self._said += heard
            raise MediaError(self._said.partition(FAILED)[2].decode(errors="replace"))
        if not heard and FINISHED not in self._said:
            raise MediaError(f"{self.name}: the other end took nothing for {PATIENCE:g} s")
