"""A sink that remembers what it got."""

from __future__ import annotations

import struct
import threading
import time
from dataclasses import dataclass

import av
from av.stream import Stream
from rtsp_camera import milliseconds, painted

from gpenvid.errors import MediaError
from gpenvid.media.sinks import TIME_BASE, LiveStreams


@dataclass
class Seen:
    """One picture: session time and monotonic time in seconds, what is painted, mean colour of its middle."""

    pts: float
    at: float
    taken: int
    age: float
    middle: tuple[int, int, int]
    size: tuple[int, int]


class GatheringSink:
    """Keeps what came. takes: seconds that a picture costs; fail_after: pictures after which it fails for good."""

    def __init__(self, name: str = "gathering", takes: float = 0.0, fail_after: int | None = None) -> None:
        self.name = name
        self.takes = takes
        self.fail_after = fail_after
        self.streams: LiveStreams | None = None
        self.pictures: list[Seen] = []
        self.sound: list[tuple[float, bytes]] = []
        self.calls: list[str] = []
        self.came = threading.Condition()

    def open(self, streams: LiveStreams) -> None:
        self.calls.append("open")
        self.streams = streams

    def video(self, frame: av.VideoFrame) -> None:
        assert frame.pts is not None and frame.time_base == TIME_BASE
        if self.fail_after is not None and len(self.pictures) >= self.fail_after:
            raise MediaError("the sink is gone")
        time.sleep(self.takes)
        rgb = frame.to_ndarray(format="rgb24")
        height, width = rgb.shape[:2]
        taken = painted(rgb)
        red, green, blue = rgb[height // 2 - 3 : height // 2 + 3, width // 2 - 3 : width // 2 + 3].mean((0, 1))
        with self.came:
            self.pictures.append(
                Seen(
                    float(frame.pts * TIME_BASE),
                    time.monotonic(),
                    taken,
                    (milliseconds() - taken) / 1000,
                    (round(red), round(green), round(blue)),
                    (width, height),
                )
            )
            self.came.notify_all()

    def packet(self, packet: av.Packet[Stream]) -> None:
        assert packet.pts is not None and packet.time_base == TIME_BASE
        self.sound.append((float(packet.pts * TIME_BASE), bytes(packet)))

    def close(self) -> None:
        self.calls.append("close")

    def wait_for(self, count: int, seconds: float = 100) -> None:
        """Until so many pictures have come."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.pictures) >= count, seconds), f"{len(self.pictures)} pictures"

    def offsets(self) -> tuple[list[float], list[float]]:
        """Session time less the time painted into each picture, and less that written into each packet of sound."""
        pictures = [seen.pts - seen.taken / 1000 for seen in self.pictures]
        sound = [pts - struct.unpack(">I", data[:4])[0] / 1000 for pts, data in self.sound if data[:1] != b"\xff"]
        return pictures, sound
