"""A live session as outputs see it, without a source: pictures and sound on the session's clock."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_factory import Clip, make_clip, picture
from numpy.typing import NDArray

from gpenvid.media.sinks import TIME_BASE, LiveStreams
from gpenvid.media.sinks.fanout import Fanout

SIZE = (160, 120)
RATE = 25
SOUND_AHEAD = 0.2
SYSTEM_PYTHON = "/usr/bin/python3"


class Feed:
    """Pictures at 25 a second and the packets of a sine; sound comes 0.2 s ahead of the pictures of its time."""

    def __init__(self, folder: Path, seconds: float = 4, audio_codec: str | None = "aac", suffix: str = ".mov") -> None:
        self.seconds = seconds
        # Only its sound is used: a picture a second is enough.
        clip = Clip(count=max(1, round(seconds)), rate=1, audio_codec=audio_codec or "aac")
        self._source = av.open(str(make_clip(folder / f"feed-{audio_codec}{suffix}", clip)))
        audio = self._source.streams.audio[0] if audio_codec else None
        self.streams = LiveStreams(*SIZE, "yuv420p", Fraction(RATE), audio=audio)
        self._packets = [packet for packet in self._source.demux(audio) if packet.size] if audio else []
        self.count = 0

    def give(self, sink: Fanout, seconds: float | None = None, pace: float = 0) -> None:
        """Give so many seconds of it, all by default. pace: seconds to wait after each picture."""
        end = self.seconds if seconds is None else self.count / RATE + seconds
        while self.count < round(end * RATE):
            self.sound(sink, self.count / RATE + SOUND_AHEAD)
            sink.video(self.picture(self.count))
            self.count += 1
            time.sleep(pace)

    def picture(self, index: int) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(_samples(index % 64), "yuv420p")
        frame.pts, frame.time_base = index * 1_000_000 // RATE, TIME_BASE
        return frame

    def sound(self, sink: Fanout, until: float) -> None:
        """Give the sound up to this time."""
        while self._packets and self._packets[0].pts * self._packets[0].time_base <= until:
            packet = self._packets.pop(0)
            copy: Any = av.Packet(bytes(packet))
            copy.time_base = TIME_BASE
            copy.pts = copy.dts = round(packet.pts * packet.time_base / TIME_BASE)
            copy.duration = round(packet.duration * packet.time_base / TIME_BASE)
            copy.is_keyframe = True
            sink.packet(copy)


@lru_cache(maxsize=64)
def _samples(index: int) -> NDArray[np.uint8]:
    return picture(index, SIZE).to_ndarray()


@contextmanager
def opened(sink: Fanout, feed: Feed) -> Iterator[Fanout]:
    """The sink between `open` and `close`, once every output is open."""
    sink.open(feed.streams)
    try:
        until(lambda: all(state.state != "opening" for state in sink.states))
        yield sink
    finally:
        sink.close()


def until(condition: Callable[[], object], seconds: float = 150) -> None:
    """Wait for something that happens soon. Fails if it doesn't."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"did not happen within {seconds} s")
        time.sleep(0.01)


def read(path: Any, *, strict: bool = True, **options: Any) -> dict[str, list[float]]:
    """What is in a file: times of the pictures, of the key pictures and of the sound's packets, in seconds.

    strict: every picture must be decodable; without, a file that isn't complete yet is read as far as it goes.
    """
    told: dict[str, list[float]] = {"pictures": [], "keys": [], "sound": []}
    source = str(path) if isinstance(path, Path) else path
    with suppress(*(() if strict else (av.error.FFmpegError,))), av.open(source, **options) as container:
        for packet in container.demux():
            if not packet.size or packet.pts is None:
                continue
            time_ = float(packet.pts * packet.time_base)
            told["pictures" if packet.stream.type == "video" else "sound"].append(time_)
            if packet.stream.type == "video" and packet.is_keyframe:
                told["keys"].append(time_)
    if strict:
        with av.open(source, **options) as container:
            assert sum(1 for _ in container.decode(video=0)) == len(told["pictures"])
    return told


def needs(*commands: str, gstreamer: bool = False) -> None:
    """Skip where a peer isn't installed; fail where it must be."""
    missing = [command for command in commands if shutil.which(command) is None]
    if gstreamer:
        probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
        found = Path(SYSTEM_PYTHON).exists() and subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True)
        if not found or found.returncode:
            missing.append("GStreamer's RTSP server (gir1.2-gst-rtsp-server-1.0)")
    if missing:
        if os.environ.get("GPENVID_REQUIRE_SERVERS"):
            pytest.fail(f"GPENVID_REQUIRE_SERVERS is set and {', '.join(missing)} isn't installed")
        pytest.skip(f"{', '.join(missing)} isn't installed")
