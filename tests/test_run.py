"""The whole way of a picture, from file to file."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from fakes import BlindDetector, IdentityRestorer, PaintRestorer, SquareDetector, mean_inside, picture

import gpenvid
from gpenvid.errors import GpenvidError, MediaError, OptionsError
from gpenvid.report import StageClock
from gpenvid.run import enhance, enhance_folder
from gpenvid.weights import shipped

Film = Callable[..., Path]


def run(source: Path, target: Path | None, **settings: Any) -> gpenvid.Report:
    return enhance(source, target, **{"restorer": PaintRestorer(), "detector": SquareDetector(), **settings})


def times(path: Path) -> list[tuple[int, str]]:
    with av.open(path) as container:
        return [(frame.pts, str(frame.time_base)) for frame in container.decode(video=0)]


def audio_packets(path: Path) -> list[tuple[str, str]]:
    with av.open(path) as container:
        stream = container.streams.audio[0]
        return [
            (hashlib.sha256(bytes(packet)).hexdigest(), str(packet.pts * packet.time_base))
            for packet in container.demux(stream)
            if packet.size
        ]


def test_same_video_with_painted_faces(film: Film, tmp_path: Path) -> None:
    source, target = film(), tmp_path / "out.mp4"
    report = run(source, target)
    assert times(target) == times(source)
    assert audio_packets(target) == audio_packets(source)
    with av.open(target) as container:
        assert container.metadata["title"] == "a test film"
        for i, frame in enumerate(container.decode(video=0)):
            assert mean_inside(frame.to_ndarray(format="rgb24"), 100 + 2 * i, 120, 16) == pytest.approx(
                [200, 60, 60], abs=6
            )
    assert (report.counts.pictures, report.counts.restored, report.counts.tracks) == (20, 20, 1)
    assert [(track.first, track.pictures) for track in report.tracks] == [(0.0, 20)]
    assert not report.interrupted
    assert {"decode", "detect", "restore", "paste", "encode"} <= report.stages.keys()


@pytest.mark.parametrize("clip", ["old_film.mp4", "surveillance.mp4"])
def test_a_sample_keeps_every_time_and_length(clip: str, tmp_path: Path) -> None:
    source, target = shipped("samples") / clip, tmp_path / "out.mp4"
    run(source, target, detector=BlindDetector(), preset="ultrafast")
    assert times(target) == times(source)
    assert audio_packets(target) == audio_packets(source)
    with av.open(source) as a, av.open(target) as b:
        assert [stream.type for stream in b.streams] == [stream.type for stream in a.streams]
        assert [stream.duration for stream in b.streams] == [stream.duration for stream in a.streams]
        assert b.duration == a.duration


def test_without_a_face_the_output_is_a_copy_and_says_so(film: Film, tmp_path: Path) -> None:
    source, target = film(frames=6), tmp_path / "out.mkv"
    report = run(source, target, detector=BlindDetector(), codec="ffv1")
    with av.open(source) as a, av.open(target) as b:
        for left, right in zip(a.decode(video=0), b.decode(video=0), strict=True):
            assert (left.to_ndarray() == right.to_ndarray()).all()
    assert any("no face" in note for note in report.notes)


def test_the_report_is_json_with_the_inputs_checksum(film: Film, tmp_path: Path) -> None:
    source = film(frames=5)
    run(source, tmp_path / "out.mp4", report=tmp_path / "report.json", blend=80)
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["input_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert told["counts"]["pictures"] == told["counts"]["restored"] == 5
    assert told["options"]["paste"]["blend"] == 80
    assert {"gpenvid", "torch", "av"} <= told["versions"].keys()


def test_the_profile_is_a_chrome_trace_of_every_thread(film: Film, tmp_path: Path) -> None:
    report = run(film(frames=6), tmp_path / "out.mp4", profile=tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())
    rows = {event["args"]["name"]: event["tid"] for event in events if event["name"] == "thread_name"}
    spans = [event for event in events if event["ph"] == "X"]
    own_threads = {f"gpenvid-{name}" for name in ("decode", "find", "restore", "paste")}
    assert own_threads | {"MainThread"} == set(rows)
    assert {span["name"] for span in spans} == report.stages.keys()
    for stage, seconds in report.stages.items():
        assert sum(span["dur"] for span in spans if span["name"] == stage) == pytest.approx(
            seconds * 1e6, rel=1e-2, abs=150
        )
    assert [span["name"] for span in spans if span["tid"] == rows["MainThread"]] == ["encode"] * 6
    for row in rows.values():
        own = sorted((span["ts"], span["ts"] + span["dur"]) for span in spans if span["tid"] == row)
        assert all(end <= begin + 0.2 for (_, end), (begin, _) in pairwise(own))


def test_the_bottleneck_is_the_longest_stage_of_the_busiest_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("gpenvid.report.time", SimpleNamespace(perf_counter=lambda: now))
    clock = StageClock()
    assert clock.bottleneck == ""

    def spend(stage: str, seconds: float) -> None:
        nonlocal now
        with clock(stage):
            now += seconds

    for name, spent in [("one", {"restore": 3.0}), ("two", {"encode": 2.0, "mux": 2.5}), ("three", {"decode": 4.0})]:
        thread = threading.Thread(name=name, target=lambda spent=spent: [spend(*each) for each in spent.items()])
        thread.start()
        thread.join()
    assert clock.seconds == {"restore": 3.0, "encode": 2.0, "mux": 2.5, "decode": 4.0}
    assert clock.bottleneck == "mux"


def test_the_report_names_the_bottleneck(film: Film, tmp_path: Path) -> None:
    report = run(film(frames=6), tmp_path / "out.mp4")
    assert report.bottleneck in report.stages


@pytest.mark.parametrize("name", ["report", "profile"])
def test_a_report_never_replaces_the_input(film: Film, tmp_path: Path, name: str) -> None:
    source = film(frames=3)
    before = source.read_bytes()
    with pytest.raises(MediaError, match="is the input itself"):
        run(source, tmp_path / "out.mp4", **{name: source})
    with pytest.raises(MediaError, match="no such folder"):
        run(source, tmp_path / "out.mp4", **{name: tmp_path / "nowhere" / "report.json"})
    assert source.read_bytes() == before
    assert not (tmp_path / "out.mp4").exists()


def test_progress_counts_pictures_and_faces(film: Film, tmp_path: Path) -> None:
    told: list[tuple[int, int | None, int]] = []
    run(film(frames=12), tmp_path / "out.mp4", on_progress=lambda *now: told.append(now))
    assert [done for done, _, _ in told] == list(range(1, 13))
    assert told[-1] == (12, 12, 12)


def test_stopping_early_finishes_the_file_properly(film: Film, tmp_path: Path) -> None:
    stop = threading.Event()
    source, target = film(frames=100), tmp_path / "out.mp4"
    report = run(source, target, stop=stop, on_progress=lambda done, total, faces: stop.set())
    assert report.interrupted
    kept = times(target)
    assert 1 <= len(kept) < 100
    assert kept == times(source)[: len(kept)]


def test_trimmed_by_time(film: Film, tmp_path: Path) -> None:
    source, target = film(frames=50), tmp_path / "out.mp4"
    run(source, target, start=0.4, end=1.2)
    expected = [pts for pts in (40 * i + (7 if i % 3 == 1 else 0) for i in range(50)) if 400 <= pts < 1200]
    with av.open(target) as container:
        assert [round(frame.time * 1000) for frame in container.decode(video=0)] == [
            pts - expected[0] for pts in expected
        ]


def test_faces_are_saved_as_png(film: Film, tmp_path: Path) -> None:
    run(film(frames=4), tmp_path / "out.mp4", save_faces=tmp_path / "faces")
    names = sorted(path.name for path in (tmp_path / "faces").iterdir())
    assert len(names) == 8
    with av.open(tmp_path / "faces" / names[1]) as container:
        restored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert (restored == np.full((64, 64, 3), (200, 60, 60))).all()


def test_faces_only_writes_nothing_else(film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(frames=3)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    report = run(source, None, save_faces=work / "faces", faces_only=True)
    assert report.output is None
    assert [path.name for path in work.iterdir()] == ["faces"]
    with pytest.raises(OptionsError, match="--save-faces"):
        run(source, None, faces_only=True)


def test_default_output_lies_in_the_working_directory(
    film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = film(frames=3)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    run(source, None)
    assert [path.name for path in work.iterdir()] == ["output_film.mp4"]


def test_an_image(tmp_path: Path) -> None:
    rgb = picture(320, 240, (100, 120, 48))
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    av.VideoFrame.from_ndarray(rgb, "rgb24").save(source)
    report = run(source, target)
    with av.open(target) as container:
        out = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert mean_inside(out, 100, 120, 16) == pytest.approx([200, 60, 60], abs=2)
    assert (out[:60] == rgb[:60]).all()
    assert (report.counts.pictures, report.counts.restored) == (1, 1)


def test_a_folder_goes_on_after_a_bad_file(film: Film, tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    source = film("album/a.mp4", frames=3)
    (tmp_path / "album" / "b.mp4").write_text("not a video")
    av.VideoFrame.from_ndarray(picture(64, 64), "rgb24").save(tmp_path / "album" / "c.png")
    places = {"report": tmp_path / "told", "save_faces": tmp_path / "faces"}
    networks = {"restorer": PaintRestorer(), "detector": SquareDetector()}
    results = enhance_folder(source.parent, tmp_path / "better", **places, **networks)
    assert sorted(path.name for path in (tmp_path / "told").iterdir()) == ["a.mp4.json", "c.png.json"]
    assert sorted(path.name for path in (tmp_path / "faces").iterdir()) == ["a.mp4", "c.png"]
    assert [isinstance(result, GpenvidError) for result in results] == [False, True, False]
    assert sorted(path.name for path in (tmp_path / "better").iterdir()) == ["a.mp4", "c.png"]


@pytest.mark.parametrize("failing", ["restorer", "detector"])
def test_a_failure_leaves_nothing_and_no_thread(film: Film, tmp_path: Path, failing: str) -> None:
    class Broken(IdentityRestorer):
        def restore(self, crops: Any) -> Any:
            raise MediaError("the cable")

        def detect(self, images: Any) -> Any:
            raise MediaError("the cable")

    source = film(frames=30)
    target = tmp_path / "out" / "out.mp4"
    target.parent.mkdir()
    with pytest.raises(MediaError, match="the cable"):
        run(source, target, **{failing: Broken()})
    assert list(target.parent.iterdir()) == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("gpenvid")] == []


def test_an_output_that_exists_is_kept_until_the_new_one_is_complete(film: Film, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("precious")

    class Broken(IdentityRestorer):
        def restore(self, crops: Any) -> Any:
            raise MediaError("the cable")

    source = film(frames=5)
    with pytest.raises(MediaError):
        run(source, target, restorer=Broken())
    assert target.read_text() == "precious"
    run(source, target)
    assert len(times(target)) == 5


def test_unknown_options_are_named(film: Film, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="blendd"):
        run(film(frames=2), tmp_path / "out.mp4", blendd=50)
