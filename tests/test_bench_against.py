"""This tree's figures over an earlier revision's."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import pytest

from gpenvid.bench import against
from gpenvid.errors import GpenvidError, OptionsError


def test_figures_are_compared_row_by_row() -> None:
    then = [{"Speed": [{"way": "a", "ms": 10.0, "size": 2.0}, {"way": "gone", "ms": 1.0}], "Old": [{"way": "a"}]}]
    now = [
        {"Speed": [{"way": "a", "ms": ms, "size": 2.0, "new": 1.0}, {"way": "b", "ms": 3.0}]} for ms in (4.0, 6.0, 5.0)
    ]
    (table,) = against.ratios(then, now, "v1")
    assert (table.title, table.header) == ("Speed: now / v1", ("row", "ms", "size", "new"))
    ((name, *figures),) = table.rows
    assert (name, figures[:2]) == ("a", [0.5, 1.0])
    assert math.isnan(figures[2])  # nothing to compare it with


def test_nothing_in_common() -> None:
    with pytest.raises(GpenvidError, match=r"^--against v1: nothing in common with what is measured now$"):
        against.ratios([{"A": [{"way": "a", "ms": 1.0}]}], [{"B": [{"way": "a", "ms": 1.0}]}], "v1")


PROGRAM = """
import json, sys
from pathlib import Path
assert sys.argv[1:4] == ["bench", "speed", "--json"]
seconds = {seconds}
if seconds < 0:
    sys.exit("something broke")
Path(sys.argv[4]).write_text(json.dumps({{"Speed": [{{"way": "ours", "seconds": seconds}}]}}))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A program that took 4 seconds in its first revision, failed in its second, and takes 3 now."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    root = tmp_path / "checkout"
    (root / "gpenvid").mkdir(parents=True)

    def git(*words: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run(["git", "-C", str(root), *who, *words], check=True, capture_output=True)

    git("init", "-q")
    (root / "gpenvid" / "__init__.py").touch()
    for seconds, tag in ((4, "first"), (-1, "broken"), (3, "")):
        (root / "gpenvid" / "__main__.py").write_text(PROGRAM.format(seconds=seconds))
        if tag:
            git("add", "-A")
            git("commit", "-qm", tag)
            git("tag", tag)
    return root


def test_both_trees_are_run(checkout: Path) -> None:
    (table,) = against.run(["speed"], "first", root=checkout)
    assert table.rows == [("ours", 0.75)]
    listed = subprocess.run(["git", "-C", str(checkout), "worktree", "list"], capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == 1


def test_what_goes_wrong_is_one_line(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(GpenvidError, match=r"^--against: `gpenvid bench speed` failed in .*: something broke$"):
        against.run(["speed"], "broken", root=checkout)
    with pytest.raises(OptionsError, match=r"^--against nowhere: .*nowhere.*$"):
        against.run(["speed"], "nowhere", root=checkout)
    with pytest.raises(OptionsError, match=r"is no git checkout$"):
        against.run(["speed"], "first", root=tmp_path)
