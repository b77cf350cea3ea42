"""Outputs on this machine: what is written can be played, from its first picture on, with sound in its place."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import av
import pytest
from sink_feed import RATE, Feed, opened, read, until

from gpenvid.errors import GpenvidError, MediaError, OptionsError
from gpenvid.media.sinks import Sink, lane
from gpenvid.media.sinks.choose import choose_sink
from gpenvid.media.sinks.fanout import Fanout
from gpenvid.media.sinks.files import FileOutput, PipeOutput
from gpenvid.media.sinks.packets import EncodedPacket
from gpenvid.media.sinks.recordings import Recordings
from gpenvid.media.sinks.screen import RawOutput
from gpenvid.options import EncoderOptions, SinkOptions


def give(words: list[Path | str], feed: Feed, options: SinkOptions | None = None, codec: str = "auto") -> Fanout:
    sink = choose_sink([str(word) for word in words], EncoderOptions(codec=codec), options or SinkOptions())
    with opened(sink, feed):
        feed.give(sink)
    return sink


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "ts"])
def test_a_file_has_every_picture_and_the_sound_of_its_time(tmp_path: Path, suffix: str) -> None:
    sink = give([tmp_path / f"out.{suffix}"], Feed(tmp_path, 3), SinkOptions(keyframes=1))
    assert isinstance(sink, Sink)
    told = read(tmp_path / f"out.{suffix}")
    start = told["pictures"][0]
    assert [round((t - start) * 1000) for t in told["pictures"]] == [40 * i for i in range(75)]
    assert [round(t - start, 3) for t in told["keys"]] == [0, 1, 2]
    # AAC in frames of 1024 samples at 48 kHz, from the first that isn't older than the first picture.
    gaps = {round((b - a) * 1000) for a, b in zip(told["sound"], told["sound"][1:], strict=False)}
    assert gaps <= {21, 22}
    assert abs(told["sound"][0] - start) < 0.022
    assert 2.9 < told["sound"][-1] - start <= 3.0
    assert [(state.state, state.pictures, state.dropped) for state in sink.states] == [("closed", 75, 0)]
    assert sink.notes == []


def test_the_sound_is_copied_where_the_container_takes_it_and_encoded_where_not(tmp_path: Path) -> None:
    words: list[Path | str] = [tmp_path / name for name in ("out.mov", "out.mp4", "out.ts")]
    sink = give(words, Feed(tmp_path, 3, "pcm_mulaw"))
    assert sink.notes == [
        "sound pcm_mulaw can't be sent as mp4: encoded as aac",
        "sound pcm_mulaw can't be sent as mpegts: encoded as aac",
    ]
    for name, codec in (("out.mov", "pcm_mulaw"), ("out.mp4", "aac"), ("out.ts", "aac")):
        probed = subprocess_probe(tmp_path / name)
        assert probed == ["h264", codec]
        told = read(tmp_path / name)
        assert len(told["pictures"]) == 75
        assert abs(told["sound"][0] - told["pictures"][0]) < 0.03
        assert told["sound"][-1] - told["pictures"][0] > 2.8


def subprocess_probe(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [stream.codec_context.codec.canonical_name for stream in container.streams]


def test_sound_that_comes_long_before_the_first_picture_waits_for_it(tmp_path: Path) -> None:
    feed, sink = Feed(tmp_path, 6), choose_sink([str(tmp_path / "out.mkv")])
    with opened(sink, feed):
        feed.sound(sink, 5.0)
        feed.give(sink)
    told = read(tmp_path / "out.mkv")
    assert len(told["sound"]) == pytest.approx(6 * 48000 / 1024, abs=2)
    assert abs(told["sound"][0]) < 0.022


def test_without_sound(tmp_path: Path) -> None:
    give([tmp_path / "out.mkv"], Feed(tmp_path, 1, None))
    assert read(tmp_path / "out.mkv")["sound"] == []


def test_pictures_are_encoded_once_for_all(tmp_path: Path) -> None:
    """The same bytes in both files; a second encoder would have to be as deterministic as it is."""
    feed = Feed(tmp_path, 1)
    sink = choose_sink([str(tmp_path / "a.nut"), str(tmp_path / "b.nut")])
    with opened(sink, feed):
        assert [thread.name for thread in threading.enumerate()].count("gpenvid-output") == 2
        feed.give(sink)
        assert sink._encoder is not None
        encoder = sink._encoder
    assert encoder.notes == []
    assert (tmp_path / "a.nut").read_bytes() == (tmp_path / "b.nut").read_bytes()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpenvid")]


def test_recordings_are_cut_at_key_pictures_and_lose_nothing(tmp_path: Path) -> None:
    feed, times = Feed(tmp_path, 7), iter(range(100))
    folder = tmp_path / "rec"
    recordings = Recordings(
        folder / "%Y" / "%H%M%S.mkv",
        SinkOptions(segment=2, keyframes=1),
        now=lambda: datetime(2030, 1, 2, 3, 4, 5) + timedelta(seconds=2 * next(times)),
    )
    sink = Fanout([recordings], keyframes=1)
    with opened(sink, feed):
        feed.give(sink, 5)
        until(lambda: sink.states[0].pictures == 125)
        # Complete or absent: what is being written has another name.
        assert sorted(path.name for path in (folder / "2030").glob("[0-9]*")) == ["030405.mkv", "030407.mkv"]
        feed.give(sink)
    files = sorted(folder.rglob("*.mkv"))
    assert [path.name for path in files] == ["030405.mkv", "030407.mkv", "030409.mkv", "030411.mkv"]
    told = [read(path) for path in files]
    assert [len(each["pictures"]) for each in told] == [50, 50, 50, 25]
    assert [each["keys"] for each in told] == [[0, 1], [0, 1], [0, 1], [0]]
    assert sum(len(each["sound"]) for each in told) == pytest.approx(7 * 48000 / 1024, abs=2)
    assert all(abs(each["sound"][0]) < 0.022 for each in told)


def test_what_a_killed_process_was_recording_is_completed(tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    program = (
        "import os, signal, sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path\n"
        "from sink_feed import Feed, until\n"
        "from gpenvid.media.sinks.choose import choose_sink\n"
        "feed, sink = Feed(Path(sys.argv[3]), 6), choose_sink([sys.argv[4]])\n"
        "sink.open(feed.streams); feed.give(sink)\n"
        "until(lambda: sink.states[0].pictures == 150)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    here = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", program, str(here), str(here.parent), str(tmp_path), f"{folder}/"], timeout=240
    )
    (part,) = folder.iterdir()
    assert part.name.startswith(".part-")
    stranger = folder / ".part-999999-holiday.mkv"
    stranger.write_bytes(b"not ours")
    broken = folder / ".part-999999-20200101-000000.mkv"
    broken.write_bytes(b"nothing that can be read")
    give([f"{folder}/"], Feed(tmp_path, 1, None))
    completed = folder / part.name.split("-", 2)[2]
    assert not part.exists()
    assert not broken.exists()
    assert stranger.exists()
    told = read(completed)
    # The last second may not have reached the disk.
    assert 120 <= len(told["pictures"]) <= 150
    assert told["keys"] == [0, 2, 4]
    assert len(told["sound"]) > 200


def test_every_picture_is_out_before_the_next_comes(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    feed, sink = Feed(tmp_path, 2), Fanout([PipeOutput("mpegts", writer)])
    received = bytearray()

    def arrived() -> int:
        with contextlib.suppress(BlockingIOError):
            received.extend(os.read(reader, 1 << 16))
        if not received:
            return 0
        with av.open(io.BytesIO(received), format="mpegts") as container:
            return sum(packet.size > 0 for packet in container.demux(video=0))

    with opened(sink, feed):
        for index in range(25):
            feed.give(sink, 1 / RATE)
            until(lambda index=index: arrived() == index + 1)
    os.close(reader)
    os.close(writer)


def test_sound_comes_in_order_and_never_more_than_a_packet_ahead(tmp_path: Path) -> None:
    given: list[EncodedPacket] = []

    class Listener(FileOutput):
        def write(self, packet: EncodedPacket) -> None:
            given.append(packet)

    feed, sink = Feed(tmp_path, 3), Fanout([Listener(tmp_path / "out.nut")])
    with opened(sink, feed):
        feed.give(sink)
    assert sum(packet.track == "video" for packet in given) == 75
    sound = [packet.dts for packet in given if packet.track != "video"]
    assert sound == sorted(sound)
    heard = 0
    for packet in given:
        if packet.track == "video":
            due = sum(dts <= packet.dts for dts in sound)
            assert due <= heard <= due + 1
        heard += packet.track != "video"


def test_recordings_of_the_same_moment_get_a_number(tmp_path: Path) -> None:
    options = SinkOptions(segment=0.4, keyframes=0.4)
    recordings = Recordings(tmp_path / "%H.ts", options, now=lambda: datetime(2030, 1, 1, 7))
    feed, sink = Feed(tmp_path, 1, None), Fanout([recordings], keyframes=0.4)
    with opened(sink, feed):
        feed.give(sink)
    assert sorted(path.name for path in tmp_path.glob("07*")) == ["07-2.ts", "07-3.ts", "07.ts"]


def old_recordings(folder: Path, count: int, size: int = 1000) -> None:
    """Files that look like recordings, the oldest first, an hour apart; and some that don't."""
    folder.mkdir()
    now = datetime.now().timestamp()
    for index in range(count):
        path = folder / f"2020010{index + 1}-000000.mkv"
        path.write_bytes(bytes(size))
        os.utime(path, (now - 3600 * (count - index), now - 3600 * (count - index)))
    for other in ("holiday.mkv", "20200101.mkv", "20200101-000000.mp4", "x20200101-000000.mkv"):
        (folder / other).write_bytes(bytes(10))
        os.utime(folder / other, (0, 0))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (SinkOptions(keep_files=3), ["20200104-000000.mkv", "20200105-000000.mkv"]),
        (SinkOptions(keep_hours=2.5), ["20200104-000000.mkv", "20200105-000000.mkv"]),
        (SinkOptions(keep_gigabytes=0.000_101), ["20200105-000000.mkv"]),
        (SinkOptions(), [f"2020010{i}-000000.mkv" for i in range(1, 6)]),
    ],
    ids=["number", "age", "size", "no limit"],
)
def test_old_recordings_are_deleted_and_nothing_else(tmp_path: Path, options: SinkOptions, kept: list[str]) -> None:
    folder = tmp_path / "rec"
    old_recordings(folder, 5, size=50_000)
    give([f"{folder}/"], Feed(tmp_path, 1, None), options)
    left = sorted(path.name for path in folder.iterdir())
    new = [name for name in left if re.fullmatch(r"\d{8}-\d{6}\.mkv", name) and not name.startswith("2020")]
    assert len(new) == 1
    others = ["20200101-000000.mp4", "20200101.mkv", "holiday.mkv", "x20200101-000000.mkv"]
    assert sorted(left) == sorted([*kept, *new, *others])


def test_hls_is_a_playlist_of_segments_of_which_the_old_ones_go(tmp_path: Path) -> None:
    playlist = tmp_path / "web" / "live.m3u8"
    options = SinkOptions(keyframes=1, hls_segment=1, hls_list=3)
    feed = Feed(tmp_path, 8)
    give([playlist], feed, options)
    lines = playlist.read_text().splitlines()
    assert [line for line in lines if line.startswith("#EXTINF")] == ["#EXTINF:1.000000,"] * 3
    assert lines[-1] == "#EXT-X-ENDLIST"
    assert [line for line in lines if line.endswith(".ts")] == [f"live-{i:06d}.ts" for i in (5, 6, 7)]
    told = read(playlist)
    assert len(told["pictures"]) == 75
    assert len(told["sound"]) == pytest.approx(3 * 48000 / 1024, abs=3)
    assert len(list(playlist.parent.glob("*.ts"))) <= 5
    give([playlist], Feed(tmp_path, 2), options)
    assert "#EXT-X-DISCONTINUITY" in playlist.read_text()


@pytest.mark.parametrize(("format", "codecs"), [("mpegts", ["h264", "aac"]), ("matroska", ["h264", "aac"])])
def test_standard_output_through_a_real_pipe(tmp_path: Path, format: str, codecs: list[str]) -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path\n"
        "from sink_feed import Feed, opened\n"
        "from gpenvid.media.sinks.choose import choose_sink\n"
        "from gpenvid.options import EncoderOptions, SinkOptions\n"
        "feed = Feed(Path(sys.argv[3]), 2)\n"
        "sink = choose_sink(['-'], EncoderOptions(), SinkOptions(format=sys.argv[4], keyframes=1))\n"
        "with opened(sink, feed): feed.give(sink)\n"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", program, str(here), str(here.parent), str(tmp_path), format]
    done = subprocess.run(command, capture_output=True, timeout=240, check=True)
    assert done.stderr == b""
    (tmp_path / "piped").write_bytes(done.stdout)
    told = read(tmp_path / "piped", format=format)
    assert len(told["pictures"]) == 50
    assert subprocess_probe(tmp_path / "piped") == codecs


def test_raw_pictures_keep_the_time_by_being_repeated(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(Path(f"/proc/self/fd/{reader}").read_bytes()))
    thread.start()
    output, feed = RawOutput(writer), Feed(tmp_path, 1, None)
    output.open(feed.streams)
    for index in (0, 1, 4, 5):  # 2 and 3 never came
        output.show(feed.picture(index), round(index * 1_000_000 / RATE))
    output.close()
    os.close(writer)
    thread.join()
    os.close(reader)
    (data,) = received
    assert data.startswith(b"YUV4MPEG2 W160 H120 F25:1 Ip A0:0 C420")
    frames = data.split(b"FRAME\n")[1:]
    assert len(frames) == 6
    assert [frames.index(frame) for frame in frames] == [0, 1, 2, 2, 2, 5]
    assert frames[5] == feed.picture(5).to_ndarray().tobytes()


def test_a_reader_that_goes_ends_its_output_and_no_other(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    feed, sink = Feed(tmp_path, 4), Fanout([PipeOutput("mpegts", writer), FileOutput(tmp_path / "out.mkv")])
    with opened(sink, feed):
        feed.give(sink, 1)
        os.close(reader)
        feed.give(sink, 1, pace=0.001)
        until(lambda: sink.states[0].state == "failed")
        feed.give(sink)
    assert sink.states[0].error == "standard output: can't be written (broken pipe)"
    assert (sink.states[1].state, sink.states[1].pictures) == ("closed", 100)
    assert len(read(tmp_path / "out.mkv")["pictures"]) == 100
    os.close(writer)


def test_when_every_output_failed_the_sink_has(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    feed, sink = Feed(tmp_path, 4), Fanout([PipeOutput("mpegts", writer)])
    sink.open(feed.streams)
    with pytest.raises(MediaError) as caught:
        feed.give(sink, pace=0.01)
    assert str(caught.value) == "standard output: can't be written (broken pipe)"
    with pytest.raises(MediaError, match="standard output"):
        sink.close()
    os.close(writer)


def test_a_reader_that_sleeps_costs_its_own_pictures_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "PACKETS", 20)
    reader, writer = os.pipe()
    feed, sink = Feed(tmp_path, 6), Fanout([PipeOutput("mpegts", writer), FileOutput(tmp_path / "out.mkv")])
    sink.open(feed.streams)
    for index in range(150):
        feed.give(sink, 1 / RATE)
        until(lambda index=index: sink.states[1].pictures == index + 1)
    file = sink._packet_lanes[1]
    file.end()
    file.close()
    monkeypatch.setattr(lane, "CLOSING", 0.2)
    sink.close()
    assert sink.states[0].state == "failed"
    assert sink.states[0].error == "standard output: not finished in 0.2 s"
    assert sink.states[0].dropped > 0
    assert f"standard output: {sink.states[0].dropped} pictures dropped" in sink.notes
    assert (sink.states[1].state, sink.states[1].pictures, sink.states[1].dropped) == ("closed", 150, 0)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpenvid")]
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("out.xyz", "out.xyz: don't know how to write .xyz; use .mkv"),
        ("nowhere/out.mkv", "no such folder"),
        ("rec/%Q.mkv", "%Q can't be used in the name of a recording"),
        ("rec/%H", "don't know how to write no extension"),
        ("gopher://u:secret@host/x", "-o gopher://***@host/x: don't know how to send there"),
    ],
)
def test_words_that_make_no_sense_are_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GpenvidError) as caught:
        choose_sink([word])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_output_and_the_same_twice_are_refused() -> None:
    with pytest.raises(OptionsError, match="name at least one output"):
        choose_sink([])
    with pytest.raises(OptionsError, match=r"-o -: is named twice"):
        choose_sink(["-", "-"])


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ("ffv1", "out.mp4: mp4 can't carry ffv1; choose another --codec"),
        ("nonsense", "--codec nonsense: is no video encoder of this FFmpeg"),
        ("aac", "--codec aac: is no video encoder of this FFmpeg"),
    ],
)
def test_a_codec_that_an_output_cannot_carry_is_refused(tmp_path: Path, codec: str, message: str) -> None:
    sink, feed = choose_sink([str(tmp_path / "out.mp4")], EncoderOptions(codec=codec)), Feed(tmp_path, 1)
    with pytest.raises(OptionsError) as caught:
        sink.open(feed.streams)
    sink.close()
    assert str(caught.value).replace(f"{tmp_path}/", "") == message


def test_odd_pictures_are_scaled_and_that_is_said(tmp_path: Path) -> None:
    feed = Feed(tmp_path, 1, None)
    feed.streams = replace(feed.streams, width=161, height=121)
    sink = choose_sink([str(tmp_path / "out.mkv")])
    with opened(sink, feed):
        feed.give(sink)
    assert sink.notes == ["pictures of 161x121 are scaled to 160x120: yuv420p has no odd sizes"]


def test_the_pictures_that_are_given_are_not_changed(tmp_path: Path) -> None:
    feed, sink = Feed(tmp_path, 1, None), choose_sink([str(tmp_path / "out.mkv")])
    frame = feed.picture(0)
    frame.opaque = tag = object()
    with opened(sink, feed):
        sink.video(frame)
    assert frame.opaque is tag
    assert frame.pts == 0
    assert frame.to_ndarray().tobytes() == feed.picture(0).to_ndarray().tobytes()
