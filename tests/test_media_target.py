"""An output is complete or absent, and what a killed process left is cleared away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpenvid.media.target import Target


def test_nothing_is_under_the_name_before_commit(tmp_path: Path) -> None:
    target = Target(tmp_path / "out.mp4")
    target.claim()
    target.part.write_bytes(b"half")
    assert not target.path.exists()
    target.part.write_bytes(b"whole")
    target.commit()
    assert target.path.read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_discard_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")
    target = Target(tmp_path / "out.mp4")
    target.claim()
    target.discard()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out.mp4": b"old"}


@pytest.mark.skipif(os.name == "nt", reason="process numbers can't be asked there")
def test_parts_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale = tmp_path / f".part-{dead.pid}-out[1].mp4"
    other = tmp_path / f".part-{dead.pid}-else.mp4"
    running = tmp_path / f".part-{os.getppid()}-out[1].mp4"
    for path in (stale, other, running):
        path.write_bytes(b"half")
    target = Target(tmp_path / "out[1].mp4")
    target.claim()
    assert sorted(tmp_path.iterdir()) == sorted([other, running, target.part])
