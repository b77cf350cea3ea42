"""The benchmark of the media room runs and measures what it says."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from media_factory import packets_of, picture_times

from gpenvid.bench import Table, clips, media


def test_the_tables() -> None:
    tables = media.run(seconds=2, size=(160, 96), rounds=1, preset="ultrafast")
    throughput, memory = (table.dicts() for table in tables)
    assert [row["way"] for row in throughput] == ["bare PyAV", "Reader and Writer", "pipeline, no face"]
    for row in throughput:
        assert row["ratio"] == pytest.approx(row["pictures a second"] / throughput[0]["pictures a second"])
    assert [row["way"] for row in memory] == ["Reader and Writer", "pipeline"]
    for row in memory:
        # A clip six times as long takes no more memory.
        assert row["ratio"] == pytest.approx(row["long MB"] / row["short MB"])
        assert row["ratio"] < 1.05


def test_a_table_as_text() -> None:
    table = Table("Speed", ("way", "ratio"), [("bare", 1.0), ("ours", 0.98765)])
    assert table.text().split("\n") == ["Speed", " way   ratio", "bare       1", "ours  0.9877"]


def test_all_ways_write_the_same_pictures_and_sound(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    assert clips.make_clip(source, 0.4, (64, 48)) == 10
    media.bare(source, tmp_path / "a.mp4", "ultrafast")
    media.through_reader_and_writer(source, tmp_path / "b.mp4", "ultrafast")
    media.through_pipeline(source, tmp_path / "c.mp4", "ultrafast")
    a, b, c = (packets_of(tmp_path / name) for name in ("a.mp4", "b.mp4", "c.mp4"))
    assert a[0].hashes == b[0].hashes == c[0].hashes
    assert a[1].hashes == b[1].hashes == c[1].hashes
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        assert picture_times(tmp_path / name) == [Fraction(i, 25) for i in range(10)]


def test_a_repeated_clip_goes_on_behind_itself(tmp_path: Path) -> None:
    clips.make_clip(tmp_path / "in.mp4", 0.4, (64, 48))
    clips.repeat_clip(tmp_path / "in.mp4", tmp_path / "out.mp4", 3)
    assert len(picture_times(tmp_path / "out.mp4")) == 30
