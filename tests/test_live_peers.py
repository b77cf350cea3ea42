"""Live sources as others serve them: GStreamer's RTSP server, ffmpeg, a web server, a screen."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import av
import pytest
from fakes import PaintRestorer
from live_run import NETWORKS, delays, pictures, run, running
from live_sink import GatheringSink
from sink_feed import needs, until
from test_sinks_network import WITH_SOUND, certificate, free_port, listening, rtsp_server

from gpenvid.errors import MediaError
from gpenvid.streaming.session import live

VIDEO = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=15/1"
X264 = "x264enc tune=zerolatency sliced-threads=false threads=1 speed-preset=ultrafast key-int-max=8"
H264 = f"{VIDEO} ! {X264} ! rtph264pay name=pay0 pt=96 config-interval=-1"
H265 = f"{VIDEO} ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=8 ! rtph265pay name=pay0 pt=96"
SOUND = "audiotestsrc is-live=true ! audio/x-raw,rate=16000,channels=1"
AAC = f"{SOUND} ! avenc_aac ! aacparse ! rtpmp4gpay name=pay1 pt=97"
PCMU = "audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 pt=0"
PATTERN = ("-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=15:duration=60")
TONE = ("-f", "lavfi", "-i", "sine=duration=60:sample_rate=16000")
CODED = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-x264-params", "keyint=8", "-c:a", "aac")
STUBS = NETWORKS | {"restorer": PaintRestorer()}


@contextmanager
def ffmpeg(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    needs("ffmpeg")
    with subprocess.Popen(["ffmpeg", "-v", "error", *words], stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("video", "sound"), [(H264, AAC), (H265, PCMU)], ids=["H.264 and AAC", "H.265 and PCMU"])
def test_rtsp_is_pulled(video: str, sound: str) -> None:
    sink = GatheringSink()
    with rtsp_server(f"play:/camera:{video} {sound}") as port:
        report = pictures(f"rtsp://127.0.0.1:{port}/camera", sink, 20, late="wait")
    assert sink.streams is not None and sink.streams.audio is not None
    assert report.cameras[0].received["sound"] > 5
    assert report.cameras[0].received["connections"] == 1


def test_rtsp_is_pulled_encrypted(tmp_path: Path) -> None:
    sink = GatheringSink()
    with rtsp_server(f"play:/camera:{H264} {AAC}", tls=certificate(tmp_path)) as port:
        report = pictures(f"rtsps://127.0.0.1:{port}/camera", sink, 10, late="wait")
    assert report.cameras[0].received["connections"] == 1
    assert report.cameras[0].received["sound"] > 2


def test_rtsp_is_pulled_and_published(tmp_path: Path) -> None:
    received = tmp_path / "received.ts"
    with rtsp_server(f"play:/camera:{H264} {AAC}", WITH_SOUND.format(received)) as port:
        base = f"rtsp://127.0.0.1:{port}"

        def session(stop: threading.Event) -> object:
            return live(f"{base}/camera", [f"{base}/cam"], stop=stop, keyframes=0.5, **STUBS)

        with running(session) as end:
            until(lambda: received.exists() and received.stat().st_size >= 60_000)
            report = end()
    assert report.cameras[0].pictures.restored >= 10
    with av.open(str(received)) as container:
        shown = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    with av.open(str(received)) as container:
        heard = [packet.pts * packet.time_base for packet in container.demux(audio=0) if packet.pts is not None]
    assert len(shown) >= 10
    assert abs(float(heard[0] - shown[0])) < 0.7  # which of the two a recorder sees first is its own affair
    assert min(b - a for a, b in pairwise(shown)) > 0


@pytest.mark.long
def test_the_wrong_path_is_told_and_tried_again() -> None:
    with rtsp_server(f"play:/camera:{H264}") as port, pytest.raises(MediaError, match=r"no picture came: .*404"):
        live(f"rtsp://127.0.0.1:{port}/nothing", sink=GatheringSink(), **STUBS, duration=4.0)


def test_a_refused_password_ends_it() -> None:
    with (
        rtsp_server(f"play:/camera:{H264}", login="bob:right") as port,
        pytest.raises(MediaError, match="401") as error,
    ):
        live(f"rtsp://bob:wr0ng@127.0.0.1:{port}/camera", sink=GatheringSink(), **STUBS, duration=20.0)
    assert "401" in str(error.value)
    assert "wr0ng" not in str(error.value)


def test_rtsp_is_pushed_to_us() -> None:
    sink, port = GatheringSink(), free_port()
    url = f"rtsp://127.0.0.1:{port}/camera"
    push = (*PATTERN, *TONE, *CODED, "-f", "rtsp", "-rtsp_transport", "tcp", url)
    with running(run, url, sink, listen=True) as end:
        until(lambda: listening(port))
        with ffmpeg(*push):
            sink.wait_for(10)
        assert end().cameras[0].received["sound"] > 1


def test_mpeg_ts_over_udp() -> None:
    sink, url = GatheringSink(), f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with ffmpeg(*PATTERN, *TONE, *CODED, "-f", "mpegts", f"{url}?pkt_size=1316"):
        report = pictures(url, sink, 15, late="wait")
    assert report.cameras[0].received["sound"] > 1


def test_rtp_told_by_an_sdp_file(tmp_path: Path) -> None:
    sink, sdp, port = GatheringSink(), tmp_path / "camera.sdp", free_port(socket.SOCK_DGRAM) & ~1
    sdp.write_text(f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n")
    with ffmpeg(*PATTERN, *CODED, "-f", "rtp", f"rtp://127.0.0.1:{port}"):
        pictures(str(sdp), sink, 10, late="wait")


def test_rtmp_is_pushed_to_us() -> None:
    sink, port = GatheringSink(), free_port()
    url = f"rtmp://127.0.0.1:{port}/live/key"
    with running(run, url, sink, listen=True) as end:
        until(lambda: listening(port))
        with ffmpeg(*PATTERN, *TONE, *CODED, "-f", "flv", url):
            sink.wait_for(10)
        assert end().cameras[0].source.endswith("/live/***")


def test_mjpeg_over_http() -> None:
    sink, port = GatheringSink(), free_port()
    url = f"http://127.0.0.1:{port}/camera"
    served = (*PATTERN, "-c:v", "mjpeg", "-f", "mpjpeg", "-listen", "1", "-content_type")
    with ffmpeg(*served, "multipart/x-mixed-replace;boundary=ffmpeg", url):
        until(lambda: listening(port))
        pictures(url, sink, 10, late="wait")


def test_hls_at_its_own_pace(tmp_path: Path) -> None:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    sink = GatheringSink()
    try:
        hls = ("-f", "hls", "-hls_time", "1", "-hls_flags", "delete_segments", str(tmp_path / "live.m3u8"))
        with ffmpeg(*PATTERN, *TONE, *CODED, *hls), delays() as late:
            until((tmp_path / "live.m3u8").exists)
            pictures(f"http://127.0.0.1:{server.server_address[1]}/live.m3u8", sink, 30, late="wait")
            slow = late()
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
    took = sink.pictures[29].at - sink.pictures[0].at
    assert took > 1.3 - slow  # 29 intervals of 1/15 s are 1.93 s, of which a fifth may come ahead


def test_a_screen() -> None:
    needs("Xvfb")
    display = 90 + os.getpid() % 400
    with subprocess.Popen(
        ["Xvfb", f":{display}", "-screen", "0", "320x240x24", "-nolisten", "tcp"], stderr=subprocess.DEVNULL
    ) as server:
        try:
            until(Path(f"/tmp/.X11-unix/X{display}").exists)
            sink = GatheringSink()
            pictures(f"x11grab::{display}", sink, 10, size="160x120", rate=10.0, late="wait")
        finally:
            server.terminate()
    assert sink.pictures[0].size == (160, 120)


def test_a_webcam_that_is_not_there_is_waited_for() -> None:
    with pytest.raises(MediaError, match="webcam:77: no picture came"):
        live("webcam:77", sink=GatheringSink(), **STUBS, duration=0.8)


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from fakes import PaintRestorer, SquareDetector
from gpenvid import cli, enhancer
enhancer.load_restorer = lambda *names, **options: PaintRestorer()
enhancer.chosen_detector = lambda *names, **options: SquareDetector()
sys.exit(cli.main(sys.argv[1:]))
"""


def command(*words: str) -> Sequence[str]:
    return [sys.executable, "-c", PROGRAM.format(tests=str(Path(__file__).parent)), "live", *words]


def test_through_real_pipes() -> None:
    needs("ffmpeg")
    needs("ffprobe")
    made = ("-f", "lavfi", "-i", "testsrc=size=160x120:rate=15:duration=2", "-f", "lavfi", "-i", "sine=duration=2")
    count = ("-count_frames", "-show_entries", "stream=codec_name,nb_read_frames", "-of", "csv=p=0")
    with (
        subprocess.Popen(["ffmpeg", "-v", "error", *made, *CODED, "-f", "matroska", "-"], stdout=subprocess.PIPE) as a,
        subprocess.Popen(command("-", "-o", "-", "--format", "matroska"), stdin=a.stdout, stdout=subprocess.PIPE) as b,
        subprocess.Popen(["ffprobe", "-v", "error", *count, "-"], stdin=b.stdout, stdout=subprocess.PIPE) as c,
    ):
        for process in (a, b):
            assert process.stdout is not None
            process.stdout.close()
        told, _ = c.communicate(timeout=200)
        assert (a.wait(150), b.wait(150)) == (0, 0)
    assert told.decode().split()[0] == "h264,30"
    assert told.decode().split()[1].startswith("aac,")


def test_a_reader_that_goes_ends_it() -> None:
    with (
        ffmpeg_to_pipe() as source,
        subprocess.Popen(
            command("-", "-o", "-"), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(20_000)
        process.stdout.close()
        told = process.stderr.read().decode()
        assert process.wait(150) in (0, 1)
    assert "Traceback" not in told


@contextmanager
def ffmpeg_to_pipe() -> Iterator[int]:
    needs("ffmpeg")
    words = ["ffmpeg", "-v", "quiet", *PATTERN, *TONE, *CODED, "-f", "matroska", "-"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.fileno()
        finally:
            process.kill()


def test_a_signal_ends_it_with_a_file_that_plays(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with rtsp_server(f"play:/camera:{H264} {AAC}") as port:
        words = command(f"rtsp://127.0.0.1:{port}/camera", "-o", str(target), "--keyframes", "0.3")
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            until(lambda: any(part.stat().st_size > 20_000 for part in tmp_path.glob(".part-*")))
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=150)
    assert (process.returncode, "Traceback" in told) == (0, False)
    with av.open(str(target)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 8
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
