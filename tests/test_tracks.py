"""`gpenvid tracks`: what is said about the faces of a video, drawn over it, and plotted."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from fakes import BlindDetector, SquareDetector, face_at, picture

from gpenvid import cli, enhancer
from gpenvid.errors import GpenvidError, OptionsError
from gpenvid.follow import Follower
from gpenvid.media.pixels import PictureTags, set_tags, thumbnail
from gpenvid.media.probe import rotation_matrix
from gpenvid.options import Options
from gpenvid.report import Counts, StageClock
from gpenvid.tracks import Followed, _paint, tracks
from gpenvid.types import Face, Image, Track

Film = Callable[..., Path]
SVG = "{http://www.w3.org/2000/svg}"


def run(source: Path, *outputs: Path, **settings: Any) -> Followed:
    return tracks(source, outputs, **{"detector": SquareDetector(), **settings})


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(path) as container:
        return list(container.decode(video=0))


def sound(path: Path) -> list[tuple[int, str]]:
    with av.open(path) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(packet.pts, hashlib.sha256(bytes(packet)).hexdigest()) for packet in packets]


def test_json_says_who_is_where_raw_and_smoothed(film: Film, tmp_path: Path) -> None:
    done = run(film(frames=12, faces=2), tmp_path / "tracks.json")
    assert (done.pictures, done.tracks, done.cuts, done.interrupted) == (12, 2, 0, False)
    data = json.loads((tmp_path / "tracks.json").read_text())
    assert (data["width"], data["height"]) == (320, 240)
    assert data["landmarks"][2] == "nose"
    assert [each["time"] for each in data["pictures"]] == [(40 * i + 7 * (i % 3 == 1)) / 1000 for i in range(12)]
    for i, each in enumerate(data["pictures"]):
        assert {track["id"] for track in each["tracks"]} == {1, 2} and each["strays"] == []
        for x, y, side in ((100, 120, 40), (230, 110, 36)):
            truth = face_at(x + 2 * i, y, 2 * side)
            (track,) = (t for t in each["tracks"] if abs(t["raw"]["box"][0] - truth.box[0]) < 10)
            np.testing.assert_allclose(track["raw"]["landmarks"], truth.landmarks, atol=1.5)
            np.testing.assert_allclose(track["landmarks"], truth.landmarks, atol=1.5)


class Sometimes(SquareDetector):
    """Misses the pictures 5 and 6, and sees something weak in picture 8."""

    def __init__(self) -> None:
        super().__init__()
        self.index = 0

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        found = []
        for faces in super().detect(images):
            found.append([] if self.index in (5, 6) else faces + [face_at(30, 30, 30, 0.4)] * (self.index == 8))
            self.index += 1
        return found


def test_raw_is_null_where_nothing_was_seen_and_what_is_no_track_is_a_stray(film: Film, tmp_path: Path) -> None:
    run(film(frames=12), tmp_path / "tracks.json", detector=Sometimes())
    pictures = json.loads((tmp_path / "tracks.json").read_text())["pictures"]
    assert [each["tracks"][0]["raw"] is None for each in pictures] == [i in (5, 6) for i in range(12)]
    assert [len(each["strays"]) for each in pictures] == [int(i == 8) for i in range(12)]
    assert pictures[8]["strays"][0]["score"] == 0.4


def test_the_overlay_is_the_same_video_with_boxes(film: Film, tmp_path: Path) -> None:
    source, target = film(name="film.mkv"), tmp_path / "over.mkv"
    run(source, target, codec="ffv1")
    before, after = decoded(source), decoded(target)
    assert [frame.pts for frame in after] == [frame.pts for frame in before]
    assert sound(target) == sound(source)
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        box = face_at(100 + 2 * i, 120, 80).box
        was, drawn = (np.frombuffer(frame.planes[0], np.uint8).reshape(240, -1)[:, :320] for frame in (a, b))
        changed = np.argwhere(was != drawn)
        np.testing.assert_allclose(changed.min(0)[1], box[0], atol=4)
        np.testing.assert_allclose(changed.max(0), box[[3, 2]], atol=4)
        assert box[1] - 14 < changed.min(0)[0] < box[1] - 3  # the number is above


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_what_is_drawn_stands_upright_in_a_turned_picture(degrees: int) -> None:
    follower = Follower(Options(), BlindDetector(), Counts(), StageClock())
    face = face_at(100, 80, 80)
    drawn = []
    for turn in (0, degrees):
        frame = av.VideoFrame.from_ndarray(np.zeros((180, 240, 3) if turn % 180 == 0 else (240, 180, 3), np.uint8))
        set_tags(frame, PictureTags(display_matrix=rotation_matrix(turn)))
        seen = follower.picture(frame)
        assert seen.size == (240, 180)
        _paint(seen, [face.box], 1.0, [Track(7, face)], [])
        drawn.append(thumbnail(frame, 0)[0])
    np.testing.assert_array_equal(*drawn)
    assert drawn[0].any()


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_plot_has_three_panels_for_each_track(film: Film, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"motion{suffix}"
    run(film(faces=2), target)
    if suffix == ".svg":
        words = "".join(ElementTree.parse(target).getroot().itertext())
        assert [words.count(f"track {n}: across") for n in (1, 2, 3)] == [1, 1, 0]
    else:
        (image,) = decoded(target)
        assert image.width > 1000 and image.height == image.width * 6 * 220 // 960


def test_without_a_face_every_output_says_so(film: Film, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("t.json", "m.svg", "o.mp4")]
    done = run(film(frames=4), *outputs, detector=BlindDetector())
    assert done.tracks == 0
    assert [p["tracks"] for p in json.loads(outputs[0].read_text())["pictures"]] == [[]] * 4
    assert "nothing to plot" in outputs[1].read_text()
    assert len(decoded(outputs[2])) == 4


def test_tracks_are_those_that_enhance_follows(film: Film, tmp_path: Path) -> None:
    run(film(), tmp_path / "tracks.json", detect_every=4)
    pictures = json.loads((tmp_path / "tracks.json").read_text())["pictures"]
    assert [each["tracks"][0]["raw"] is not None for each in pictures] == [i % 4 == 0 for i in range(20)]


def test_stopping_early_finishes_all_files(film: Film, tmp_path: Path) -> None:
    stop = threading.Event()
    outputs = [tmp_path / name for name in ("t.json", "o.mp4")]
    done = run(film(frames=60), *outputs, stop=stop, lag=0, on_progress=lambda n, total, faces: stop.set())
    assert done.interrupted and 1 <= done.pictures < 60
    assert len(json.loads(outputs[0].read_text())["pictures"]) == len(decoded(outputs[1])) == done.pictures


class Broken(SquareDetector):
    """Fails at the tenth picture."""

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        if sum(self.calls) >= 10:
            raise GpenvidError("the detector broke")
        return super().detect(images)


def test_a_failure_leaves_nothing_and_no_thread(film: Film, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "t.json").write_text("before")
    with pytest.raises(GpenvidError, match="broke"):
        run(film(), folder / "t.json", folder / "m.png", folder / "o.mp4", detector=Broken())
    assert [path.name for path in folder.iterdir()] == ["t.json"]
    assert (folder / "t.json").read_text() == "before"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpenvid")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "name the output"),
        (["t.txt"], "t.txt: don't know how to write tracks as .txt; use .json, .svg, .png, .mp4"),
        (["t"], "as no extension"),
        (["a.mp4", "b.mkv"], "only one"),
        (["t.json", "./t.json"], "named twice"),
        (["nowhere/t.json"], "no such folder"),
    ],
)
def test_what_can_not_be_done_is_refused(film: Film, tmp_path: Path, names: list[str], message: str) -> None:
    source = film(frames=3)
    with pytest.raises((OptionsError, GpenvidError), match=message):
        run(source, *(tmp_path / name for name in names))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4"]


def test_a_still_image_and_the_input_itself_are_refused(film: Film, tmp_path: Path) -> None:
    av.VideoFrame.from_ndarray(picture(64, 64), "rgb24").save(tmp_path / "still.png")
    with pytest.raises(GpenvidError, match="still image; tracks need a video"):
        run(tmp_path / "still.png", tmp_path / "t.json")
    source = film(frames=3)
    with pytest.raises(GpenvidError, match="is the input itself"):
        run(source, source)


def test_the_command(
    film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(enhancer, "load_detector", lambda *names, **options: SquareDetector())
    target = tmp_path / "t.json"
    assert (
        cli.main(["tracks", str(film(frames=6)), "-o", str(target), "-o", str(tmp_path / "m.svg"), "--lag", "0"]) == 0
    )
    told = capsys.readouterr()
    assert told.out == "" and f"{target}, {tmp_path / 'm.svg'}: 6 pictures, 1 tracks, 0 cuts" in told.err
    assert cli.main(["tracks", "-q", str(film(frames=3)), "-o", str(target), "--device", "cpu"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["tracks", str(tmp_path / "missing.mp4"), "-o", str(target)]) == 1
    assert capsys.readouterr().err == f"gpenvid: {tmp_path / 'missing.mp4'}: no such file\n"
