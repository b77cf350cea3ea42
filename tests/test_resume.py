"""A job that was killed goes on where it was, and the result is what it would have been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from fakes import PaintRestorer, SquareDetector, mean_inside
from media_factory import Clip, make_clip, packets_of, picture_times

import gpenvid
from gpenvid.media import writer
from gpenvid.media.journal import Journal
from gpenvid.media.reader import Reader

Film = Callable[..., Path]
SETTINGS = {"encoder_options": ("g=10",), "preset": "veryfast", "lag": 0.2}


class PowerCutError(Exception):
    """What ends a run."""


class Failing(PaintRestorer):
    """Paints so many faces, then the power goes off."""

    def __init__(self, faces: int) -> None:
        super().__init__()
        self.left = faces

    def restore(self, crops: Any) -> Any:
        self.left -= len(crops)
        if self.left < 0:
            raise PowerCutError
        return super().restore(crops)


def run(source: Path, target: Path, faces: int = 10_000, **settings: Any) -> gpenvid.Report:
    return gpenvid.enhance(
        source, target, restorer=Failing(faces), detector=SquareDetector(), **{**SETTINGS, **settings}
    )


def killed(source: Path, target: Path, faces: int, **settings: Any) -> None:
    with pytest.raises(PowerCutError):
        run(source, target, faces, **settings)


@pytest.fixture(autouse=True)
def keep_every_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WORTH_KEEPING", -1)
    monkeypatch.setattr("gpenvid.run.LEAD_IN", Fraction(1, 2))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_resumed_film_is_whole(film: Film, tmp_path: Path, suffix: str) -> None:
    source = film(frames=90, width=320, height=180)
    whole, pieces = tmp_path / f"whole.{suffix}", tmp_path / "pieces" / f"out.{suffix}"
    pieces.parent.mkdir()
    run(source, whole)
    killed(source, pieces, 70)
    assert not pieces.exists()
    report = run(source, pieces)
    assert report.resumed is not None and 1 < report.resumed < 70 / 25
    assert report.counts.restored <= 90 - (report.resumed - 0.5) * 25 + 2
    assert any("going on at" in note for note in report.notes)
    assert picture_times(pieces) == picture_times(whole)
    one, other = packets_of(whole), packets_of(pieces)
    assert one[1] == other[1]
    assert [round(float(time), 3) for time in picture_times(pieces)] == [
        round(float(time), 3) for time in picture_times(source)
    ]
    with av.open(pieces) as container:
        for index, frame in enumerate(container.decode(video=0)):
            rgb = frame.to_ndarray(format="rgb24")
            assert mean_inside(rgb, 100 + 2 * index, 120, 20) == pytest.approx((200, 60, 60), abs=12)
    assert [path.name for path in pieces.parent.iterdir()] == [f"out.{suffix}"]


def test_resumed_twice_and_trimmed(film: Film, tmp_path: Path) -> None:
    source = film(frames=100)
    trim = {"start": 0.5, "end": 3.6}
    run(source, tmp_path / "whole.mp4", **trim)
    target = tmp_path / "out.mp4"
    killed(source, target, 40, **trim)
    killed(source, target, 40, **trim)
    assert run(source, target, **trim).resumed
    assert picture_times(target) == picture_times(tmp_path / "whole.mp4")
    assert packets_of(target)[1] == packets_of(tmp_path / "whole.mp4")[1]


def test_what_is_kept_is_told(film: Film, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    killed(film(frames=30), tmp_path / "out.mp4", 20)
    assert "out.mp4: what was made so far is kept; the same command goes on from there" in caplog.text
    assert (tmp_path / ".resume-out.mp4").exists()


def test_other_options_or_another_input_start_anew(film: Film, tmp_path: Path) -> None:
    source, target = film(frames=60), tmp_path / "out.mp4"
    killed(source, target, 40)
    assert run(source, target, blend=50).resumed is None
    killed(source, target, 40)
    os.utime(source, (1, 1))
    assert run(source, target).resumed is None
    killed(source, target, 40)
    assert run(source, target, resume=False).resumed is None
    assert len(picture_times(target)) == 60


def test_a_short_job_that_fails_leaves_nothing(film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WORTH_KEEPING", 60)
    source, target = film(frames=60), tmp_path / "there" / "out.mp4"
    target.parent.mkdir()
    killed(source, target, 40)
    assert list(target.parent.iterdir()) == []


_STUCK = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_resume import Failing, SETTINGS, SquareDetector, journal_is_long
import gpenvid
class Stuck(Failing):
    def restore(self, crops):
        while journal_is_long(Path(sys.argv[2])):
            time.sleep(1)
        return super().restore(crops)
Stuck.__qualname__ = "Failing"
gpenvid.enhance(sys.argv[1], sys.argv[2], restorer=Stuck(10_000), detector=SquareDetector(), **SETTINGS)
"""


def journal_is_long(target: Path) -> bool:
    journal = target.with_name(f".resume-{target.name}")
    return journal.exists() and journal.stat().st_size > 20_000


def test_a_killed_process(film: Film, tmp_path: Path) -> None:
    source, target = film(frames=90), tmp_path / "there" / "out.mp4"
    target.parent.mkdir()
    process = subprocess.Popen([sys.executable, "-c", _STUCK, source, target, Path(__file__).parent])
    journal = target.with_name(".resume-out.mp4")
    while not journal_is_long(target):
        assert process.poll() is None
        time.sleep(0.02)
    # While that process is alive, its journal is its own.
    assert Journal.is_taken(journal)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    assert run(source, target).resumed
    assert picture_times(target) == picture_times(source)
    assert [path.name for path in target.parent.iterdir()] == ["out.mp4"]


def packets(*times: int, keys: Iterable[int] = ()) -> list[Any]:
    made = []
    for index, pts in enumerate(times):
        packet = av.Packet(bytes([pts]) * (pts + 1))
        packet.pts, packet.dts, packet.duration = pts, index - 2, 1
        packet.time_base, packet.is_keyframe = Fraction(1, 25), pts in keys
        made.append(packet)
    return made


def journal_of(path: Path, made: list[Any]) -> Path:
    journal = Journal(path, "a job", b"header")
    journal.append(made)
    journal.close(keep=True)
    return path


def test_the_cut_is_the_last_keyframe_that_a_new_encoder_can_take_over(tmp_path: Path) -> None:
    made = packets(0, 2, 1, 3, 5, 4, 6, 8, 7, 9, keys=(0, 3, 6, 9))
    journal = Journal(journal_of(tmp_path / "j", made), "a job", b"header")
    # 9 may have earlier pictures behind it; nobody knows yet.
    assert journal.cut is not None
    assert (journal.cut.time, journal.cut.pictures) == (Fraction(6, 25), 6)
    assert [(p.pts, p.dts, p.duration, bytes(p), p.is_keyframe) for p in journal.due(Fraction(0))] == [
        (p.pts, p.dts, p.duration, bytes(p), p.is_keyframe) for p in made[:3]
    ]
    assert [p.pts for p in journal.due()] == [3, 5, 4]
    journal.close()


def test_a_keyframe_with_earlier_pictures_behind_it_is_no_cut(tmp_path: Path) -> None:
    journal_of(tmp_path / "j", packets(0, 2, 1, 5, 4, 3, 6, keys=(0, 5)))
    assert Journal(tmp_path / "j", "a job", b"header").cut is None


def test_a_journal_is_read_up_to_where_it_was_damaged(tmp_path: Path) -> None:
    made = packets(*range(20), keys=range(0, 20, 4))
    whole = journal_of(tmp_path / "j", made).read_bytes()
    cuts = []
    for size in range(len(whole)):
        (tmp_path / "j").write_bytes(whole[:size])
        journal = Journal(tmp_path / "j", "a job", b"header")
        cuts.append(journal.cut.pictures if journal.cut else 0)
        journal.close()
    assert sorted(set(cuts)) == [0, 4, 8, 12, 16]
    assert cuts == sorted(cuts)
    broken = bytearray(whole)
    broken[-30] ^= 1
    (tmp_path / "j").write_bytes(broken)
    assert Journal(tmp_path / "j", "a job", b"header").cut is not None
    for job, extradata in (("another", b"header"), ("a job", b"other")):
        journal_of(tmp_path / "j", made)
        assert Journal(tmp_path / "j", job, extradata).cut is None


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_reading_from_a_time_gives_the_same_pictures(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = make_clip(tmp_path / f"in.{suffix}", Clip(count=50, codec=codec, options={"g": "12", "bf": "2"}))

    def read(first: Fraction | None) -> tuple[list[tuple[Fraction, bytes]], list[tuple[int, bytes]]]:
        copied: list[tuple[int, bytes]] = []
        with Reader(path) as reader:
            pictures = [
                (frame.pts * frame.time_base, frame.to_ndarray().tobytes())
                for frame in reader.pictures(lambda packet: copied.append((packet.pts, bytes(packet))), first=first)
            ]
        return pictures, copied

    whole, copied = read(None)
    for first in (whole[0][0], whole[1][0], whole[11][0], whole[12][0], whole[37][0] + Fraction(1, 1000), whole[-1][0]):
        assert read(first) == ([each for each in whole if each[0] >= first], copied)
    assert read(whole[-1][0] + 1) == ([], copied)
