"""The benchmarks of the whole program run and measure what they say."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import picture_times

from gpenvid import load_detector, load_restorer
from gpenvid.bench import latency, memory, pipeline
from gpenvid.bench.clips import make_clip, waves, with_faces

SIZE = (320, 180)


def test_a_film_can_have_one_face_or_none() -> None:
    for faces, places in ((1, [True, False]), (0, [False, False])):
        (frame,) = with_faces(waves(1, (640, 360)), faces)
        found = load_detector(threshold=0.6, device="cpu").detect([frame.to_ndarray(format="rgb24")])[0]
        assert [any(face.box[2] < 320 for face in found), any(face.box[0] > 320 for face in found)] == places


def test_the_film_has_two_faces_that_drift() -> None:
    first, *_, last = with_faces(waves(26, (640, 360)))
    places = []
    for frame in (first, last):
        faces = load_detector(threshold=0.6, device="cpu").detect([frame.to_ndarray(format="rgb24")])[0][:2]
        places.append(sorted(tuple((face.box[:2] + face.box[2:]) / 2) for face in faces))
    assert np.shape(places) == (2, 2, 2)
    (left, right), (left_later, right_later) = places
    assert left[0] < 320 < right[0]
    assert np.hypot(*np.subtract(left, left_later)) > 5
    assert np.hypot(*np.subtract(right, right_later)) > 5


def test_picture_by_picture_restores_the_faces_and_keeps_every_time(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    assert make_clip(source, 0.2, (640, 360), faces=2) == 5
    assert pipeline.PerPicture(load_restorer(device="cpu")).film(source, target, "ultrafast") == 10
    assert picture_times(target) == [Fraction(i, 25) for i in range(5)]


def test_pipeline() -> None:
    tables = pipeline.run(0.4, SIZE, rounds=1, preset="ultrafast", device="cpu", large=SIZE)
    speed, stages, alone = (table.dicts() for table in tables)
    assert [row["way"] for row in speed] == ["picture by picture", "gpenvid"]
    assert [row["ratio"] for row in speed] == pytest.approx(
        [1, speed[1]["pictures a second"] / speed[0]["pictures a second"]]
    )
    assert all(row["faces a picture"] <= pipeline.FACES for row in speed)
    assert {"decode", "detect", "encode"} <= {row["stage"] for row in stages}
    assert [row["stage"] for row in alone] == [
        *("decode", "find", "restore", "paste", "encode"),
        "all beside each other",
    ]
    slowest = min(row["pictures a second"] for row in alone[:-1])
    assert [row["ratio"] for row in alone] == pytest.approx([row["pictures a second"] / slowest for row in alone])
    assert "one face, --hwaccel none" in tables[-1].title


def test_latency() -> None:
    (table,) = latency.run(3, SIZE, device="cpu")
    base, *rows = table.dicts()
    assert base["ratio"] == 1
    for row in rows:
        assert row["ratio"] == pytest.approx(base["median ms"] / row["median ms"])
        assert row["p99 ms"] >= row["median ms"] > 0


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SETTINGS", {"defaults": {}})
    peaks, growth = (table.dicts() for table in memory.run(0.2, SIZE, pictures=60, device="cpu"))
    assert peaks == [{"setting": "defaults", "MB": peaks[0]["MB"], "GPU MB": 0.0, "ratio": 1.0}]
    assert peaks[0]["MB"] > 50
    assert growth[0]["ratio"] == pytest.approx(growth[0]["after all MB"] / growth[0]["after a tenth MB"])
