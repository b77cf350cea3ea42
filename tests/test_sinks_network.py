"""Outputs over a network, against real peers on the loopback interface: ffmpeg and GStreamer's RTSP server."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import pytest
from sink_feed import SYSTEM_PYTHON, Feed, needs, opened, read, until

from gpenvid.errors import MediaError
from gpenvid.media.sinks import lane, network
from gpenvid.media.sinks.choose import choose_sink
from gpenvid.media.sinks.fanout import Fanout
from gpenvid.media.sinks.network import NetworkOutput
from gpenvid.options import SinkOptions

RECORD = (
    "record:/cam:rtph264depay name=depay0 ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au"
    " ! mpegtsmux name=mux ! filesink buffer-mode=2 location={0}"
)
WITH_SOUND = RECORD + " rtpmp4gdepay name=depay1 ! aacparse ! mux."
PACE = 0.005


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def rtsp_server(*mounts: str, port: int = 0, login: str = "", tls: Path | None = None) -> Iterator[int]:
    """A server in a process of its own; its port."""
    needs(gstreamer=True)
    command = [SYSTEM_PYTHON, str(Path(__file__).with_name("rtsp_server.py")), "--port", str(port)]
    command += ["--login", login] if login else []
    command += ["--tls", str(tls)] if tls else []
    with subprocess.Popen(
        [*command, *mounts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            yield int(server.stdout.readline().split()[1])
        finally:
            server.stdin.close()
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()


def certificate(folder: Path) -> Path:
    """A certificate that its holder has signed, and its key."""
    needs("openssl")
    pem = folder / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(pem), "-out", str(folder / "cert.pem")], check=True, capture_output=True)
    with pem.open("a") as file:
        file.write((folder / "cert.pem").read_text())
    return pem


def checked(path: Path, pictures: int, *, stamped: bool = True) -> None:
    """So many pictures, none missing in between, and sound beside them, not more than 40 ms off.

    stamped: the times are those that were sent; GStreamer shifts them by when packets came.
    """
    told = read(path)
    assert len(told["pictures"]) >= pictures
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    assert abs(told["sound"][0] - told["pictures"][0]) < (0.04 if stamped else 0.2)
    if stamped:
        gaps = [b - a for a, b in zip(told["pictures"], told["pictures"][1:], strict=False)]
        assert max(gaps) < 0.042
        assert abs(told["sound"][-1] - told["pictures"][-1]) < 0.1


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_publish(tmp_path: Path, transport: str) -> None:
    received = tmp_path / "received.ts"
    with rtsp_server(WITH_SOUND.format(received), login="bob:s3cret") as port:
        options = SinkOptions(publish_transport=transport)
        feed, sink = Feed(tmp_path, 3), choose_sink([f"rtsp://bob:s3cret@127.0.0.1:{port}/cam"], options=options)
        assert sink.name == f"rtsp://***@127.0.0.1:{port}/cam"
        with opened(sink, feed):
            assert sink.states[0].state == "open"
            feed.give(sink, pace=0.02)
            # The server's muxer keeps the last ones back, and nobody tells it that they were the last.
            until(lambda: len(read(received, strict=False)["pictures"]) >= 65)
        assert [(state.state, state.pictures, state.dropped) for state in sink.states] == [("closed", 75, 0)]
    checked(received, 65, stamped=False)


def test_rtsp_encrypted(tmp_path: Path) -> None:
    received = tmp_path / "received.ts"
    with rtsp_server(WITH_SOUND.format(received), tls=certificate(tmp_path)) as port:
        feed, sink = Feed(tmp_path, 2), choose_sink([f"rtsps://127.0.0.1:{port}/cam"])
        with opened(sink, feed):
            feed.give(sink, pace=0.02)
            until(lambda: len(read(received, strict=False)["pictures"]) >= 40)
    checked(received, 40, stamped=False)


def test_rtsp_with_a_wrong_password_or_path_says_so(tmp_path: Path) -> None:
    with rtsp_server(RECORD.format(tmp_path / "received.ts"), login="bob:s3cret") as port:
        feed = Feed(tmp_path, 1, None)
        for where, reason in (("bob:wr0ng@127.0.0.1:{}/cam", "401"), ("bob:s3cret@127.0.0.1:{}/else", "404")):
            sink = choose_sink([f"rtsp://{where.format(port)}"])
            sink.open(feed.streams)
            until(lambda sink=sink: sink.states[0].failures)
            with pytest.raises(MediaError) as caught:
                sink.close()
            assert reason in str(caught.value)
            assert "\n" not in str(caught.value)
            assert "wr0ng" not in str(caught.value)
            assert "s3cret" not in str(caught.value)


def test_rtmp_publish(tmp_path: Path) -> None:
    needs("ffmpeg")
    received, port = tmp_path / "received.mkv", free_port()
    command = ["ffmpeg", "-v", "error", "-listen", "1", "-i", f"rtmp://127.0.0.1:{port}/live/key", "-c", "copy"]
    with subprocess.Popen([*command, str(received)], stdin=subprocess.DEVNULL) as server:
        until(lambda: listening(port))
        feed, sink = Feed(tmp_path, 3), choose_sink([f"rtmp://127.0.0.1:{port}/live/key"])
        assert sink.name == f"rtmp://127.0.0.1:{port}/live/***"
        with opened(sink, feed):
            feed.give(sink, pace=PACE)
        assert [(state.state, state.pictures, state.dropped) for state in sink.states] == [("closed", 75, 0)]
        assert server.wait(150) == 0
    checked(received, 75)


def listening(port: int) -> bool:
    """Whether somebody listens there, without being a visitor."""
    tables = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in tables)


@pytest.mark.parametrize("scheme", ["udp", "rtp"])
def test_mpegts_over_udp(tmp_path: Path, scheme: str) -> None:
    needs("ffmpeg")
    received, port = tmp_path / "received.mkv", free_port(socket.SOCK_DGRAM)
    url = f"{scheme}://127.0.0.1:{port}"
    source = [url] if scheme == "udp" else [f"udp://127.0.0.1:{port}"]
    if scheme == "rtp":
        sdp = tmp_path / "stream.sdp"
        sdp.write_text(f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 33\n")
        source = [str(sdp)]
    command = ["ffmpeg", "-v", "quiet", "-protocol_whitelist", "file,udp,rtp", "-analyzeduration", "500000"]
    command += ["-i", *source]
    command += ["-frames:v", "30", "-c", "copy", str(received)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as receiver:
        feed, sink = Feed(tmp_path, 40), choose_sink([url], options=SinkOptions(keyframes=1))
        assert sink.name == url
        with opened(sink, feed):
            while receiver.poll() is None and feed.count < 3000:
                feed.give(sink, 0.2, pace=0.02)
        assert receiver.wait(150) == 0
    checked(received, 29)


def test_a_peer_that_comes_back_is_found_again_and_others_notice_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lane, "FIRST_DELAY", 0.2)
    port, files = free_port(), [tmp_path / "first.ts", tmp_path / "second.ts"]
    feed = Feed(tmp_path, 40, None)
    sink = choose_sink([f"rtsp://u:s3cret@127.0.0.1:{port}/cam", str(tmp_path / "file.mkv")])
    with opened(sink, feed):
        until(lambda: sink.states[0].failures == 1)
        assert sink.states[0].state == "waiting"
        for path in files:
            with rtsp_server(RECORD.format(path), port=port):
                while not path.exists() or path.stat().st_size < 10_000:
                    feed.give(sink, 0.2, pace=0.02)
                    assert feed.count < 3000
            feed.give(sink, 0.2, pace=0.02)
            until(lambda: feed.give(sink, 0.04) or sink.states[0].state == "waiting")
    assert sink.states[0].failures >= 3
    assert (sink.states[1].state, sink.states[1].pictures, sink.states[1].dropped) == ("closed", feed.count, 0)
    assert len(read(tmp_path / "file.mkv")["pictures"]) == feed.count
    for path in files:
        assert len(read(path)["pictures"]) > 5
    assert "open again" in caplog.text
    assert "s3cret" not in caplog.text


@contextmanager
def silent_server() -> Iterator[int]:
    """Takes connections and never says or reads anything."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        yield int(server.getsockname()[1])


@pytest.mark.parametrize(
    "url", ["rtsp://127.0.0.1:{}/cam", "rtmp://127.0.0.1:{}/live/key", "whip+http://127.0.0.1:{}/"]
)
def test_a_peer_that_never_answers_costs_nobody_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """FFmpeg hangs in connecting, with Python's lock held; pictures for the file flow on meanwhile."""
    monkeypatch.setattr(network, "PATIENCE", 2.5)
    with silent_server() as port:
        feed, sink = Feed(tmp_path, 3, None), choose_sink([url.format(port), str(tmp_path / "file.mkv")])
        sink.open(feed.streams)
        feed.give(sink)
        until(lambda: sink.states[1].pictures == 75)
        assert sink.states[0].state == "opening"
        until(lambda: sink.states[0].failures)
        sink.close()
    assert sink.states[0].state == "failed"
    assert sink.states[0].error.endswith(": the other end didn't answer for 2.5 s")
    assert len(read(tmp_path / "file.mkv")["pictures"]) == 75


def test_a_peer_that_stops_reading_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATIENCE", 1.0)
    with silent_server() as port:
        feed, output = Feed(tmp_path, 1, None), NetworkOutput(f"tcp://127.0.0.1:{port}", "mpegts")
        sink = Fanout([output])
        sink.open(feed.streams)
        until(lambda: sink.states[0].state == "open")
        big = feed.picture(0)
        track = sink._encoder
        assert track is not None
        packet = track.encode(big)[0]
        heavy = replace(packet, data=packet.data + bytes(8_000_000))
        with pytest.raises(MediaError, match="took nothing for 1 s"):
            for _ in range(5):
                output.write(heavy)
        with pytest.raises(MediaError, match="took nothing for 1 s"):
            sink.close()


class Whip(BaseHTTPRequestHandler):
    """A WHIP endpoint that looks at the offer and refuses it."""

    offers: list[tuple[str, str | None, str]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.offers.append((self.path, self.headers["Authorization"], body))
        self.send_error(403)

    def log_message(self, *arguments: object) -> None:
        pass


def test_whip_offers_h264_and_opus(tmp_path: Path) -> None:
    if "whip" not in av.formats_available:
        pytest.skip("this FFmpeg has no WHIP")
    Whip.offers.clear()
    server = HTTPServer(("127.0.0.1", 0), Whip)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        feed, sink = Feed(tmp_path, 1), choose_sink([f"whip+http://t0ken@127.0.0.1:{server.server_port}/room?x=1"])
        assert sink.name == f"whip+http://***@127.0.0.1:{server.server_port}/room?x=1"
        sink.open(feed.streams)
        until(lambda: sink.states[0].failures)
        with pytest.raises(MediaError, match="403"):
            sink.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    ((path, authorization, offer),) = Whip.offers[:1]
    assert (path, authorization) == ("/room?x=1", "Bearer t0ken")
    assert "H264/90000" in offer
    assert "opus/48000/2" in offer
    assert sink.notes == ["sound aac can't be sent as whip: encoded as opus"]
