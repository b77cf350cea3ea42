"""Live sessions against a camera of the tests' own: what comes out when all goes well, and when it doesn't."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fakes import SlowRestorer
from live_run import delays, demuxers, pictures, run, run_all, running
from live_sink import GatheringSink, Seen
from rtsp_camera import Camera, CameraServer
from sink_feed import until

from gpenvid.errors import MediaError, OptionsError

PAINTED = pytest.approx((200, 60, 60), abs=12)


def restored(seen: Any) -> bool:
    return bool(seen.middle == PAINTED)


def increasing(sink: GatheringSink) -> bool:
    times = [seen.pts for seen in sink.pictures]
    sound = [pts for pts, _ in sink.sound]
    return all(a < b for a, b in itertools.pairwise(times)) and all(a < b for a, b in itertools.pairwise(sound))


def holds(sink: GatheringSink) -> list[tuple[Seen, Seen]]:
    """Pictures that show what the one before them showed, behind that one."""
    return [(a, b) for a, b in itertools.pairwise(sink.pictures) if a.taken == b.taken]


def left_out(sink: GatheringSink) -> int:
    """Pictures of the camera, 15 a second, that never came out, between the first and the last that did."""
    return round(15 * (sink.pictures[-1].pts - sink.pictures[0].pts)) + 1 - len(sink.pictures) if sink.pictures else 0


def steps(sink: GatheringSink) -> list[float]:
    return [b.pts - a.pts for a, b in itertools.pairwise(sink.pictures)]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_every_picture_is_restored_in_time_and_in_step_with_the_sound(codec: str) -> None:
    sink = GatheringSink()
    with CameraServer(Camera(codec=codec)) as server:
        report = pictures(server.url, sink, 30, late="wait")
    assert report.cameras[0].pictures.restored == len(sink.pictures)
    assert all(restored(seen) for seen in sink.pictures)
    assert sink.calls == ["open", "close"]
    assert sink.streams is not None and (sink.streams.width, sink.streams.height) == (160, 120)
    assert increasing(sink)
    assert steps(sink)[2:] == pytest.approx([1 / 15] * (len(sink.pictures) - 3), abs=2e-5)
    shown, sound = sink.offsets()
    assert max(shown[2:]) - min(sound) < 0.01 and max(sound) - min(shown[2:]) < 0.01


def test_a_size_that_changes_is_fitted_into_the_first_one() -> None:
    sink = GatheringSink()
    with CameraServer(Camera(sizes=((160, 120), (240, 320)), change_every=10)) as server:
        report = pictures(server.url, sink, 35, late="wait")
    assert {seen.size for seen in sink.pictures} == {(160, 120)}
    assert report.cameras[0].pictures.fitted == pytest.approx(len(sink.pictures) / 2, abs=6)
    assert all(restored(seen) for seen in sink.pictures)


def test_time_goes_on_when_the_cameras_clock_does_not() -> None:
    """A wrap, a jump ahead and a jump back, each at a camera of its own."""
    faults: list[dict[str, int]] = [
        {"first_timestamp": 2**32 - 60_000},
        {"jump_after": 12, "jump_by": 90_000 * 1000},
        {"jump_after": 12, "jump_by": -90_000 * 1000},
    ]
    sinks = [GatheringSink(str(fault)) for fault in faults]
    with ExitStack() as stack:
        servers = [stack.enter_context(CameraServer(Camera(**fault))) for fault in faults]
        cameras = {sink: server.url for sink, server in zip(sinks, servers, strict=True)}
        end = stack.enter_context(running(run_all, cameras, late="wait"))
        for sink in sinks:
            sink.wait_for(30)
        end()
    for sink in sinks:
        assert increasing(sink)
        first = {seen.taken: seen.pts for seen in reversed(sink.pictures)}
        times = [pts - taken / 1000 for taken, pts in first.items()]
        assert max(times) - min(times) < 1.0  # of 1000 seconds, or of 47722 at the wrap


def test_damage_is_counted_and_survived() -> None:
    sink = GatheringSink()
    with CameraServer(Camera(corrupt=0.2, seed=3)) as server:
        report = pictures(server.url, sink, 30, late="wait")
    received = report.cameras[0].received
    assert received["connections"] == 1
    assert received["damaged"] + received["concealed"] >= 3
    assert increasing(sink)


@pytest.mark.parametrize("timed", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_stall_is_seen_within_3_seconds_and_the_last_picture_held_with_silence(timed: bool) -> None:
    sink = GatheringSink()
    camera = Camera(silent_after=15)
    with CameraServer(camera) as server, running(run, server.url, sink) as end, delays() as late:
        while not (held := holds(sink)):
            sink.wait_for(len(sink.pictures) + 1, 100)
        assert not timed or held[0][1].at - held[0][0].at < 3 + late()
        assert held[0][1].middle == held[0][0].middle
        report = end()
    received = report.cameras[0].received
    assert received["losses"] >= 1
    assert report.cameras[0].pictures.held >= 1
    assert received["silent"] >= 1
    assert increasing(sink)


def test_a_demuxer_that_hangs_costs_a_restart_not_the_session() -> None:
    sink = GatheringSink()
    with CameraServer(Camera()) as server, running(run, server.url, sink, stall=1.0) as end:
        sink.wait_for(5)
        os.kill(demuxers()[-1], signal.SIGSTOP)
        stopped = time.monotonic()
        while sink.pictures[-1].taken / 1000 < stopped + 0.5:
            sink.wait_for(len(sink.pictures) + 1, 100)
        report = end()
    received = report.cameras[0].received
    assert (received["losses"], received["connections"]) == (1, 2)
    assert demuxers() == []


def test_a_server_that_comes_back_is_not_left_waiting_for_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpenvid.media.live.BACK_OFF", (1000.0,))
    sink = GatheringSink()
    server = CameraServer(Camera())
    server.start()
    try:
        with running(run, server.url, sink) as end:
            sink.wait_for(10)
            server.stop()
            until(lambda: len(holds(sink)) > 15)
            back = time.monotonic()
            server.start()
            until(lambda: sink.pictures[-1].taken / 1000 > back)
            report = end()
    finally:
        server.stop()
    received = report.cameras[0].received
    assert (received["connections"], received["losses"]) == (2, 1)
    assert received["away"] > 1.5
    assert increasing(sink)


@pytest.mark.long
@pytest.mark.parametrize("away", [4, 30])
def test_a_server_that_dies_is_held_and_taken_up_again_within_a_second_of_its_return(away: float) -> None:
    sink = GatheringSink()
    server = CameraServer(Camera())
    server.start()
    try:
        with running(run, server.url, sink) as end, delays() as late:
            sink.wait_for(10)
            server.stop()
            time.sleep(away)  # the next attempts by back-off alone would come 7 s and some 35 s after the loss
            held = len(sink.pictures)
            server.start()
            back = time.monotonic()
            connections = server.camera.connections
            while server.camera.connections == connections or sink.pictures[-1].taken / 1000 < back:
                assert time.monotonic() < back + 10
                time.sleep(0.01)
            took = time.monotonic() - back
            sink.wait_for(len(sink.pictures) + 10)
            report, slow = end(), late()
    finally:
        server.stop()
    assert took < 1 + slow
    assert held >= 10 + 2 * away
    assert report.cameras[0].received["connections"] == 2
    assert report.cameras[0].received["away"] == pytest.approx(away + took, abs=0.5 + slow)
    assert increasing(sink)
    assert max(steps(sink)) < 1 + slow
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(sink.sound)]
    assert max(gaps) < 1 + slow


def test_a_connection_torn_in_the_middle_of_a_packet_is_made_anew() -> None:
    sink = GatheringSink()
    with CameraServer(Camera(reset_after=12)) as server:
        report = pictures(server.url, sink, 30, late="wait")
    assert report.cameras[0].received["connections"] >= 2
    assert increasing(sink)


def test_a_wrong_password_is_tried_once_and_not_told(capfd: pytest.CaptureFixture[str]) -> None:
    with CameraServer(Camera(credentials=("user", "right"))) as server:
        url = server.url.replace("//", "//user:wr0ng@")
        with pytest.raises(MediaError, match="401") as failure:
            run(url, GatheringSink(), duration=5.0)
        assert server.camera.connections == 0
    assert "wr0ng" not in str(failure.value)
    assert "wr0ng" not in "".join(capfd.readouterr())


def test_the_right_password_opens() -> None:
    sink = GatheringSink()
    with CameraServer(Camera(credentials=("user", "right"))) as server:
        report = pictures(server.url.replace("//", "//user:right@"), sink, 3)
    assert sink.pictures
    assert "right" not in report.to_json()


def test_what_is_not_there_yet_is_waited_for() -> None:
    sink = GatheringSink()
    with CameraServer(Camera(missing=True)) as server, running(run, server.url, sink) as end:
        while not server.camera.refused:
            time.sleep(0.02)
        assert sink.calls == []
        server.camera.missing = False
        sink.wait_for(5)
        assert end().cameras[0].received["attempts"] >= 2


def test_a_session_without_a_picture_ends_when_its_time_is_over_and_is_an_error() -> None:
    sink = GatheringSink()
    with CameraServer(Camera(missing=True)) as server:
        began = time.monotonic()
        with pytest.raises(MediaError, match="no picture came"):
            run(server.url, sink, duration=1.0)
    assert time.monotonic() - began < 60  # it waits for nothing else
    assert sink.calls == []


def test_stop_on_loss_finishes_the_outputs_with_what_had_come_and_is_an_error() -> None:
    sink = GatheringSink()
    with CameraServer(Camera(reset_after=10)) as server, pytest.raises(MediaError, match="lost"):
        run(server.url, sink, restorer=SlowRestorer(0.1), on_loss="stop", late="wait")
    assert sink.calls == ["open", "close"]
    assert 8 <= len(sink.pictures) <= 10


def test_pictures_that_come_while_the_restorer_is_busy_are_dropped() -> None:
    sink = GatheringSink()
    with CameraServer(Camera()) as server, running(run, server.url, sink, restorer=SlowRestorer(0.2)) as end:
        until(lambda: left_out(sink) > len(sink.pictures) > 3)
        report = end()
    counts = report.cameras[0].pictures
    assert counts.dropped > counts.restored > 3
    assert counts.passed == 0
    assert all(restored(seen) for seen in sink.pictures)


def test_late_pictures_can_be_passed_through() -> None:
    sink = GatheringSink()
    with (
        CameraServer(Camera()) as server,
        running(run, server.url, sink, restorer=SlowRestorer(0.2), late="pass") as end,
    ):
        until(lambda: sum(not restored(seen) for seen in sink.pictures) > sum(map(restored, sink.pictures)) > 1)
        report = end()
    counts = report.cameras[0].pictures
    assert min(counts.passed, counts.restored) > 1
    assert len(sink.pictures) == counts.passed + counts.restored
    assert sum(restored(seen) for seen in sink.pictures) == counts.restored


@pytest.mark.long
def test_effort_goes_down_until_pictures_come_on_time() -> None:
    sink = GatheringSink()
    with (
        CameraServer(Camera()) as server,
        running(run, server.url, sink, restorer=SlowRestorer(0.2), degrade=True) as end,
    ):
        while sum(not restored(seen) for seen in sink.pictures) < 5:
            sink.wait_for(len(sink.pictures) + 1)
        report = end()
    assert report.degraded >= 6
    assert report.cameras[0].pictures.passed >= 5


def test_a_picture_older_than_the_limit_is_late() -> None:
    sink = GatheringSink()
    slow = {"restorer": SlowRestorer(0.12), "late": "pass", "max_latency": 0.1}
    with CameraServer(Camera()) as server, running(run, server.url, sink, **slow) as end:
        sink.wait_for(10)
        report = end()
    assert report.cameras[0].pictures.passed > report.cameras[0].pictures.restored


def test_a_sink_that_fails_for_good_ends_its_camera_alone() -> None:
    good, bad, none = GatheringSink("good"), GatheringSink("bad", fail_after=5), GatheringSink("none")
    with CameraServer(Camera()) as first, CameraServer(Camera()) as second:
        cameras = {bad: first.url, good: second.url, none: "rtsp://127.0.0.1:9/none"}
        with running(run_all, cameras, duration=1000.0) as end:
            until(lambda: bad.calls == ["open", "close"])
            good.wait_for(len(good.pictures) + 10)
            report = end()
    one, two, three = report.cameras
    assert (one.error, two.error) == ("the sink is gone", None)
    assert len(bad.pictures) == 5
    assert two.pictures.restored > 10
    assert three.received["decoded"] == 0


def test_a_camera_that_never_came_says_why() -> None:
    with CameraServer(Camera()) as server:
        cameras = {GatheringSink("one"): server.url, GatheringSink("none"): "rtsp://127.0.0.1:9/none"}
        report = run_all(cameras, duration=1.5)
    assert str(report.cameras[1].error).startswith("none: no picture came: ")


@pytest.mark.long  # whether faces meet in a batch depends on when they come; `test_together` tells it exactly
def test_the_faces_of_all_cameras_are_restored_in_one_batch() -> None:
    # While it is busy with one camera's face, those of the others gather.
    sinks, restorer = [GatheringSink(str(i)) for i in range(3)], SlowRestorer(0.1)
    with CameraServer(Camera()) as a, CameraServer(Camera()) as b, CameraServer(Camera()) as c:
        cameras = {sink: server.url for sink, server in zip(sinks, (a, b, c), strict=True)}
        with running(run_all, cameras, restorer=restorer) as end:
            for sink in sinks:
                sink.wait_for(20)
            end()
    assert max(restorer.batches) >= 2
    for sink in sinks:
        assert sum(restored(seen) for seen in sink.pictures) >= 15


def test_the_report_is_written_and_holds_no_secret(tmp_path: Path) -> None:
    sink = GatheringSink()
    with CameraServer(Camera(credentials=("user", "s3cret"))) as server:
        pictures(server.url.replace("//", "//user:s3cret@"), sink, 3, report=tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    assert "s3cret" not in text
    told = json.loads(text)
    assert told["cameras"][0]["pictures"]["restored"] == len(sink.pictures) > 0


def test_a_file_is_played_at_its_own_pace_and_nothing_of_it_is_lost(film: Callable[..., Path]) -> None:
    sink = GatheringSink()
    began = time.monotonic()
    report = run(str(film(frames=30)), sink, restorer=SlowRestorer(0.02))
    assert time.monotonic() - began > 0.8
    assert report.cameras[0].pictures.restored == len(sink.pictures) == 30


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("gopher://somewhere/", {}, "don't know gopher"),
        ("nowhere.mkv", {}, "nowhere.mkv: no such file or device"),
        ("rtsp://camera/", {"lag": 0.4}, "--lag 0.4"),
        ("rtsp://camera/", {"stall": 0.0}, "--stall 0.0"),
        ("rtsp://camera/", {"size": "big"}, "--size big"),
        ("rtsp://camera/", {"late": "never"}, "--late never"),
        ("webcam:front", {}, "webcam:front"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(source: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((OptionsError, MediaError), match=message.replace(".", r"\.")):
        run(source, GatheringSink(), **options)
