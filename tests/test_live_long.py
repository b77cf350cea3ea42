"""What only shows over time: memory, threads, drift between picture and sound, hundreds of outages.

Not part of the ordinary run: `pytest -m long`. $GPENVID_LONG_SECONDS (600) and $GPENVID_LONG_OUTAGES (200) shorten it.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from av.stream import Stream
from fakes import PaintRestorer, SlowRestorer
from live_run import NETWORKS, accounted, demuxers, lasting, run, running
from live_sink import GatheringSink
from rtsp_camera import Camera, CameraServer, milliseconds, painted
from test_live_peers import AAC, H264, ffmpeg
from test_sinks_network import WITH_SOUND, free_port, rtsp_server

from gpenvid.media.sinks import TIME_BASE, LiveStreams
from gpenvid.streaming.report import Latency
from gpenvid.streaming.session import CameraSpec, live_cameras

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

SECONDS = float(os.environ.get("GPENVID_LONG_SECONDS", "600"))
OUTAGES = int(os.environ.get("GPENVID_LONG_OUTAGES", "200"))
SERVER = """
import sys
sys.path.insert(0, {tests!r})
from rtsp_camera import Camera, CameraServer
with CameraServer(Camera(rate=10)) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Show a figure, whatever becomes of the test."""

    def write(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}\n")

    return write


class MeasuringSink:
    """Keeps the extremes of what comes, nothing else. Offsets: session time less the time written into it, seconds."""

    name = "measuring"

    def __init__(self) -> None:
        self.pictures = self.packets = 0
        self.shown: list[float] = []
        self.heard: list[float] = []
        self.age = Latency()

    def open(self, streams: LiveStreams) -> None:
        pass

    def video(self, frame: av.VideoFrame) -> None:
        self.pictures += 1
        if self.pictures > 20:
            taken = painted(frame.to_ndarray(format="rgb24"))
            self.age.add((milliseconds() - taken) / 1000)
            offset = float(frame.pts * TIME_BASE) - taken / 1000
            self.shown = [min([offset, *self.shown]), max([offset, *self.shown])]

    def packet(self, packet: av.Packet[Stream]) -> None:
        self.packets += 1
        offset = float(packet.pts * TIME_BASE) - struct.unpack(">I", bytes(packet)[:4])[0] / 1000
        self.heard = [min([offset, *self.heard]), max([offset, *self.heard])]

    def close(self) -> None:
        pass


def resident() -> int:
    """Bytes of memory that this process has resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_session_neither_grows_nor_drifts(tmp_path: Path, tell: Callable[[str], None]) -> None:
    sink = MeasuringSink()
    received = {name: tmp_path / f"{name}.ts" for name in ("GStreamer", "ffmpeg")}
    listening = f"rtsp://127.0.0.1:{free_port()}/cam"
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(tests=str(Path(__file__).parent))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None and server.stdin is not None
    samples: list[tuple[float, int, int]] = []
    stop, began = threading.Event(), time.monotonic()

    def watch() -> None:
        while not stop.wait(1):
            samples.append((time.monotonic() - began, resident(), threading.active_count()))

    with (
        rtsp_server(f"play:/camera:{H264} {AAC}", WITH_SOUND.format(received["GStreamer"])) as port,
        ffmpeg("-rtsp_flags", "listen", "-i", listening, "-c", "copy", str(received["ffmpeg"])) as recorder,
    ):
        own = f"rtsp://127.0.0.1:{int(server.stdout.readline())}/camera"
        base = f"rtsp://127.0.0.1:{port}"
        specs = [
            CameraSpec(name="own", source=own, sink=sink),
            CameraSpec(name="published", source=f"{base}/camera", outputs=(f"{base}/cam", listening)),
        ]
        watching = threading.Thread(target=watch)
        watching.start()
        networks = NETWORKS | {"restorer": PaintRestorer()}
        report = live_cameras(specs, **networks, duration=SECONDS, stall=20.0)
        stop.set()
        watching.join()
        recorder.wait(20)
    server.stdin.close()
    server.wait(10)
    spans = {name: span(path) for name, path in received.items()}
    tell(f"received: {spans}")
    for camera in report.cameras:
        tell(f"{camera.name}: {camera.pictures} {camera.received} {camera.latency} {camera.outputs}")
    warm = [each for each in samples if each[0] > min(60.0, SECONDS / 3)]
    growth = max(size for _, size, _ in warm[-5:]) - max(size for _, size, _ in warm[:5])
    threads = Counter(count for _, _, count in warm)
    tell(f"{sink.pictures} pictures, {sink.packets} packets of sound; memory {growth / 1e6:+.2f} MB; threads {threads}")
    tell(f"age by the time painted: p50 {sink.age.percentile(0.5)}, p99 {sink.age.percentile(0.99)}")
    tell(f"offsets of pictures {sink.shown}, of sound {sink.heard}")
    accounted(report)
    assert [camera.error for camera in report.cameras] == [None, None]
    assert [camera.received["connections"] for camera in report.cameras] == [1, 1]
    assert growth < 10_000_000
    assert len({count for _, _, count in warm[:-3]}) == 1
    assert max(sink.shown[1] - sink.heard[0], sink.heard[1] - sink.shown[0]) < 0.04
    for each in spans.values():
        assert abs(each["video"] - each["audio"]) < 0.7


def test_no_picture_is_older_than_the_one_before_it_took(tell: Callable[[str], None]) -> None:
    sink, interval = GatheringSink(), 1 / 15
    with CameraServer(Camera()) as server:
        report = lasting(60.0, server.url, sink, restorer=SlowRestorer(3 * interval), degrade=False, late="drop")
    latency, counts = report.cameras[0].latency, report.cameras[0].pictures
    tell(f"{counts}, age {latency}, an interval and the restorer {4 * interval:.3f}")
    assert counts.restored > 150
    assert latency["p99"] is not None and latency["p99"] < 4 * interval + 0.1


def span(path: Path) -> dict[str, float]:
    """Seconds from the first to the last packet of each kind of stream."""
    times: dict[str, list[float]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is not None:
                times.setdefault(packet.stream.type, []).append(float(packet.pts * packet.time_base))
    return {kind: each[-1] - each[0] for kind, each in times.items()}


def test_no_outage_is_the_last(tell: Callable[[str], None]) -> None:
    chance, sink, took = random.Random(1), GatheringSink(), []
    kinds: Counter[str] = Counter()
    with CameraServer(Camera(rate=10)) as server, running(run, server.url, sink, stall=1.0) as end:
        camera = server.camera
        sink.wait_for(5)
        for _ in range(OUTAGES):
            kind = chance.choice(["dies", "dies", "silent", "torn", "hangs"])
            kinds[kind] += 1
            time.sleep(chance.uniform(0, 0.5))
            since = camera.connections
            if kind == "dies":
                server.stop()
                time.sleep(chance.uniform(0, 1.5))
                server.start()
            elif kind == "hangs":
                os.kill(demuxers()[-1], signal.SIGSTOP)
            else:
                setattr(camera, "silent_after" if kind == "silent" else "reset_after", 0)
                deadline = time.monotonic() + 30
                while camera.connections == since and time.monotonic() < deadline:
                    time.sleep(0.02)
                camera.silent_after = camera.reset_after = None
            back = time.monotonic()
            with sink.came:
                assert sink.came.wait_for(lambda back=back: sink.pictures[-1].taken / 1000 > back, 30), kind
            if kind == "dies":
                took.append(time.monotonic() - back)
            del sink.pictures[:-1], sink.sound[:-1]
        report = end()
    received = report.cameras[0].received
    took.sort()
    tell(f"{dict(kinds)}: {received}; again after p50 {took[len(took) // 2]:.2f} s, max {took[-1]:.2f} s")
    assert report.cameras[0].error is None
    assert received["losses"] >= OUTAGES / 2
    assert took[int(len(took) * 0.9)] < 1
