"""The smaller parts of a live session: names of sources, held pictures, silence, several cameras in a file, figures."""

from __future__ import annotations

import socket
import sys
import urllib.request
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from fakes import picture
from live_run import pictures
from live_sink import GatheringSink
from rtsp_camera import Camera, CameraServer

from gpenvid import cli
from gpenvid.errors import MediaError, OptionsError
from gpenvid.media.address import parse_address
from gpenvid.media.fit import Fit
from gpenvid.media.mark import copy, marked
from gpenvid.media.silence import Silence
from gpenvid.media.sinks import TIME_BASE, LiveStreams
from gpenvid.media.sinks.lane import OutputState
from gpenvid.options import SourceOptions
from gpenvid.streaming.config import read_cameras
from gpenvid.streaming.health import health
from gpenvid.streaming.report import Latency

toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no tomllib")


def frame(width: int = 320, height: int = 240, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    made = av.VideoFrame.from_ndarray(picture(width, height, (width / 2, height / 2, 40)), "rgb24")
    made = made.reformat(format=pix_fmt)
    made.pts, made.time_base = 1000, TIME_BASE
    return made


@pytest.mark.parametrize(
    ("source", "options", "target", "format", "kind"),
    [
        ("rtsp://user:pw@host/x", {}, "rtsp://user:pw@host/x", None, "peer"),
        ("rtsp://0.0.0.0:8554/x", {"listen": True}, "rtsp://0.0.0.0:8554/x", "rtsp", "listen"),
        ("udp://239.0.0.1:1234", {}, "udp://239.0.0.1:1234", None, "listen"),
        ("webcam:2", {}, "/dev/video2", "v4l2", "device"),
        ("/dev/video0", {}, "/dev/video0", "v4l2", "device"),
        ("x11grab::1.0", {}, ":1.0", "x11grab", "device"),
        ("-", {}, "pipe:0", None, "pipe"),
    ],
)
def test_what_ffmpeg_is_asked_for(source: str, options: dict[str, bool], target: str, format: str, kind: str) -> None:
    if sys.platform != "linux" and format == "v4l2":
        pytest.skip("webcams have other names here")
    address = parse_address(source, SourceOptions(**options))
    assert (address.target, address.format, address.kind) == (target, format, kind)
    assert "pw" not in address.name


def test_options_reach_the_source() -> None:
    options = SourceOptions(
        rtsp_transport="udp", size="640x480", rate=5.0, camera_format="mjpeg", source_options=("buffer_size=1",)
    )
    assert parse_address("rtsp://h/", options).options["rtsp_transport"] == "udp"
    assert parse_address("rtsp://h/", options).options["timeout"] == "2500000"
    webcam = parse_address("/dev/video0", options).options
    assert (webcam["video_size"], webcam["framerate"], webcam["buffer_size"]) == ("640x480", "5", "1")
    assert "mjpeg" in webcam.values()


def test_who_is_there() -> None:
    with CameraServer(Camera()) as server:
        address = parse_address(server.url, SourceOptions())
        assert address.there() is True
    assert address.there() is False
    assert parse_address("/dev/video97", SourceOptions()).there() is False
    assert parse_address("udp://127.0.0.1:9", SourceOptions()).there() is None


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12", "yuv422p10le", "gray"])
def test_a_held_picture_is_marked_in_a_corner_and_the_same_elsewhere(pix_fmt: str) -> None:
    given = frame(pix_fmt=pix_fmt)
    twin, held = copy(given, 5), marked(given)
    before, after = (each.to_ndarray(format="rgb24").astype(int) for each in (given, held))
    assert (twin.pts, (twin.to_ndarray(format="rgb24") == before).all()) == (5, True)
    assert (before[45:] == after[45:]).all() and (before[:, 130:] == after[:, 130:]).all()
    corner = after[8:36, 8:118]
    assert corner.max() > 220 and np.median(corner) < 0.5 * np.median(before[8:36, 8:118])


def test_a_picture_too_small_for_letters_is_held_without() -> None:
    given = frame(16, 4)
    assert (marked(given).to_ndarray(format="rgb24") == given.to_ndarray(format="rgb24")).all()


def test_another_shape_gets_black_beside_it_and_keeps_its_time() -> None:
    fit = Fit(LiveStreams(320, 240, "yuv420p"))
    assert fit(given := frame()) is given
    tall = fit(frame(120, 240, "yuv444p"))
    assert (tall.width, tall.height, tall.format.name, tall.pts, tall.time_base) == (
        320,
        240,
        "yuv420p",
        1000,
        TIME_BASE,
    )
    rgb = tall.to_ndarray(format="rgb24")
    assert rgb[:, :96].max() <= 1 and rgb[:, 224:].max() <= 1
    assert rgb[115:125, 155:165].mean((0, 1)) == pytest.approx([20, 200, 40], abs=8)
    assert fit.fitted == 1


@pytest.mark.parametrize(("codec", "rate", "length"), [("aac", 16000, 1024), ("pcm_mulaw", 8000, 1024)])
def test_silence_in_the_codec_of_the_sound(codec: str, rate: int, length: int, tmp_path: Path) -> None:
    with av.open(tmp_path / "tone.mov", "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        tone = (np.sin(np.arange(rate) / 9)[None] * 9000).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(tone, "s16", "mono")
        sound.sample_rate, sound.pts = rate, 0
        for each in av.AudioFifo(), None:
            if each is not None:
                each.write(sound)
                for part in each.read_many(1024):
                    part.time_base = Fraction(1, rate)
                    resampled = av.AudioResampler(stream.codec_context.format.name, "mono", rate).resample(part)
                    container.mux([packet for chunk in resampled for packet in stream.encode(chunk)])
            else:
                container.mux(stream.encode(None))
    with av.open(tmp_path / "tone.mov") as container:
        template = container.streams.audio[0]
        silence = Silence(template)
        assert silence.possible
        packets = silence.packets(1_000_000, 2_000_000)
        assert len(packets) == rate // length
        assert [packet.pts for packet in packets[:2]] == [1_000_000, 1_000_000 + round(length / rate * 1e6)]
        decoder = av.CodecContext.create(codec, "r")
        decoder.sample_rate, decoder.layout = rate, "mono"
        if template.codec_context.extradata:
            decoder.extradata = template.codec_context.extradata
        heard = [sound.to_ndarray() for packet in packets[:5] for sound in decoder.decode(packet)]
        loudest = max(float(np.abs(each.astype(np.float64)).max()) for each in heard)
        assert loudest <= (8 if heard[0].dtype == np.int16 else 1e-4)


def test_percentiles_of_the_latency() -> None:
    latency = Latency()
    assert latency.percentile(0.5) is None
    for i in range(1, 1001):
        latency.add(i / 1000)
    assert latency.percentile(0.5) == pytest.approx(0.5, rel=0.021)
    assert latency.percentile(0.99) == pytest.approx(0.99, rel=0.021)


@toml
def test_cameras_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cameras.toml"
    path.write_text(
        'model = "gpen-lite"\nlate = "pass"\n'
        '[[camera]]\nname = "door"\nsource = "rtsp://door/"\noutput = ["a.mkv", "b.mkv"]\nstall = 5.0\n'
        '[[camera]]\nsource = "rtsp://hall/"\noutput = "c.mkv"\nsource-option = ["a=b"]\n'
    )
    cameras, common = read_cameras(path)
    assert common == {"model": "gpen-lite", "late": "pass"}
    assert [(camera.name, camera.outputs) for camera in cameras] == [
        ("door", ("a.mkv", "b.mkv")),
        ("camera2", ("c.mkv",)),
    ]
    assert [camera.options for camera in cameras] == [{"stall": 5.0}, {"source_options": ("a=b",)}]


@toml
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no table"),
        ("[[camera]]\nsource = 'rtsp://a/'\n", "camera1: has no output"),
        ("[[camera]]\noutput = 'a.mkv'\n", "camera1: has no source"),
        ("[[camera]]\nsource = 'rtsp://a/'\noutput = 'a.mkv'\ncolour = 'red'\n", "camera1: colour: no such option"),
        ("[[camera", "is no TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cameras.toml"
    path.write_text(text)
    with pytest.raises(OptionsError, match=message):
        read_cameras(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="can't be read"):
        read_cameras(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "live: name a source, or --config"),
        (["rtsp://h/", "--config", "x.toml"], "live: name a source, or --config"),
        (["--config", "none.toml"], "none.toml: can't be read"),
        (["--config", "none.toml", "-o", "a.mkv"], "outputs stand in the file"),
        (["rtsp://h/"], "name at least one output"),
        (["rtsp://h/", "-o", "a.mkv", "--lag", "1"], "--lag 1"),
    ],
)
def test_the_command_says_in_one_line_what_it_can_not_do(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["live", *words]) == 1
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rtsp://h/", "-o", "a.mkv", "--end", "3"], "--start, --end: a live source has neither"),
        (["rtsp://h/", "-o", "a.mkv", "--save-faces", "x"], "not for a live source"),
        (["gopher://h/", "-o", "a.mkv"], "don't know gopher"),
        (["webcam:0"], "name at least one output"),
    ],
)
def test_enhance_takes_live_sources_too(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["enhance", *words]) == 1
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1


def test_status_while_it_runs_and_none_after() -> None:
    told: dict[str, str] = {}
    with CameraServer(Camera()) as server:

        class Asking(GatheringSink):
            def video(self, frame: av.VideoFrame) -> None:
                super().video(frame)
                if len(self.pictures) == 10:
                    for page in ("metrics", "healthz"):
                        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=60) as answer:
                            told[page] = answer.read().decode()

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = server.url.replace("//", "//user:s3cret@")
        pictures(url, Asking(), 12, status_port=port, status_host="localhost", late="wait")
    assert told["healthz"] == "ok\n"
    lines = told["metrics"].splitlines()
    assert any(line.startswith("gpenvid_source_up{") and line.endswith(" 1") for line in lines)
    assert any('fate="restored"' in line and float(line.rpartition(" ")[2]) >= 9 for line in lines)
    assert "s3cret" not in told["metrics"]


def test_health_names_what_is_away_and_what_takes_nothing() -> None:
    def camera(state: str = "live", reason: str = "", *outputs: OutputState) -> Any:
        source, told = SimpleNamespace(state=state, reason=reason), [asdict(output) for output in outputs]
        return SimpleNamespace(name="door", error=None, source=source, report=lambda: SimpleNamespace(outputs=told))

    well = camera("live", "", OutputState("out.mp4", "open"), OutputState("preview:", "closed"))
    assert health([well, camera("ended")]) == ""
    assert health([camera("away", "the stream ended"), well]) == "door: the stream ended"
    assert health([camera("connecting")]) == "door: connecting"
    broken = OutputState("rtsp://there/cam", "waiting", error="rtsp://there/cam: connection refused")
    assert health([camera("live", "", broken)]) == "rtsp://there/cam: connection refused"
