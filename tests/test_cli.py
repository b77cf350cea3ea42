"""The command: what it says, what it leaves, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from fakes import BlindDetector, PaintRestorer, SquareDetector

from gpenvid import cli, enhancer
from gpenvid.weights import shipped

Film = Callable[..., Path]


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command with networks that need no weights."""
    monkeypatch.setattr(enhancer, "load_restorer", lambda *names, **options: PaintRestorer())
    monkeypatch.setattr(enhancer, "load_detector", lambda *names, **options: SquareDetector())
    yield


def pictures(path: Path) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video(film: Film, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["enhance", str(film(frames=6)), "-o", str(tmp_path / "out.mp4")]) == 0
    assert pictures(tmp_path / "out.mp4") == 6
    told = capsys.readouterr()
    assert told.out == ""
    assert "6 pictures, 6 faces restored (1 track)" in told.err


def test_quiet_says_nothing(film: Film, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["enhance", "-q", "-i", str(film(frames=3)), "-o", str(tmp_path / "out.mp4")]) == 0
    assert capsys.readouterr() == ("", "")


def test_verbose_says_where_the_time_went(film: Film, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["enhance", "-v", str(film(frames=3)), "-o", str(tmp_path / "out.mp4")]) == 0
    assert "restore" in capsys.readouterr().err


def test_without_input_the_sample_is_enhanced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(enhancer, "load_detector", lambda *names, **options: BlindDetector())
    assert cli.main(["enhance", "--end", "0.5"]) == 0
    told = capsys.readouterr().err
    assert "sample" in told
    assert "no face" in told
    assert pictures(tmp_path / "output_old_film.mp4") == pytest.approx(8, abs=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.mp4"], "missing.mp4: no such file"),
        (["{text}"], "text.mp4: "),
        (["{tone}"], "tone.m4a: has no video stream"),
        (["{film}", "-o", "{folder}"], "is a directory"),
        (["{film}", "-o", "{film}"], "is the input itself"),
        (["{film}", "-o", "nowhere/out.mp4"], "no such folder"),
        (["{film}", "-o", "{folder}/out.xyz"], "don't know how to write .xyz"),
        (["{film}", "-o", "{folder}/out.mp4", "-c", "libx999"], "libx999"),
        (["{film}", "-o", "{folder}/out.mp4", "-e", "nonsense=1"], "nonsense"),
        (["{film}", "-o", "{folder}/out.mp4", "--crf", "400"], "crf"),
        (["{film}", "-o", "{folder}/out.mp4", "--blend", "300"], "--blend 300"),
        (["{film}", "-o", "{folder}/out.mp4", "--start", "50"], "--start 50"),
        (["{folder}"], "no video or image in this folder"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_line_and_leaves_nothing(
    words: list[str], message: str, film: Film, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "text.mp4").write_text("not a video\n")
    with av.open(tmp_path / "tone.m4a", "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 48000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    source = film(frames=5)
    before = source.read_bytes()
    places = {"film": source, "text": tmp_path / "text.mp4", "tone": tmp_path / "tone.m4a", "folder": folder}
    assert cli.main(["enhance", *(word.format(**places) for word in words)]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("gpenvid: ")
    assert len(told.splitlines()) == 1
    assert list(folder.iterdir()) == []
    assert source.read_bytes() == before


def test_wrong_usage_ends_with_2() -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["enhance", "film.mp4", "--precision", "int8"])
    assert end.value.code == 2


@pytest.mark.parametrize("command", ["enhance", "tracks", "weights", "bench"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"gpenvid {command}" in capsys.readouterr().out.split("examples:")[1]


PROGRAM = """
import sys, time
sys.path.insert(0, {tests!r})
from fakes import PaintRestorer, SquareDetector
from gpenvid import cli, enhancer
class Slow(PaintRestorer):
    def restore(self, crops):
        time.sleep(0.05 * len(crops))
        print("restored", flush=True)
        return super().restore(crops)
enhancer.load_restorer = lambda *names, **options: Slow()
enhancer.load_detector = lambda *names, **options: SquareDetector()
print("ready", flush=True)
sys.exit(cli.main({words!r}))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_file_properly(film: Film, tmp_path: Path, number: int) -> None:
    source, target = film(frames=200), tmp_path / "out.mp4"
    program = PROGRAM.format(tests=str(Path(__file__).parent), words=["enhance", str(source), "-o", str(target)])
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(3):
        assert process.stdout.readline() == "restored\n"
    os.kill(process.pid, number)
    _, told = process.communicate(timeout=150)
    assert process.returncode == 130
    assert "stopped early" in told
    assert 1 <= pictures(target) < 200
    assert list(tmp_path.glob(".part-*")) == []


def test_the_sample_is_in_the_package() -> None:
    assert (shipped("samples") / "old_film.mp4").is_file()
