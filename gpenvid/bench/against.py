"""No slower than before: a benchmark of this tree and of an earlier revision, in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpenvid.bench import Table
from gpenvid.errors import GpenvidError, OptionsError

Tables = dict[str, list[dict[str, Any]]]
"""What `gpenvid bench --json` writes: rows by the names of their columns, by the titles of the tables."""

ROOT = Path(__file__).resolve().parents[2]


def run(words: list[str], revision: str, *, rounds: int = 2, root: Path = ROOT) -> list[Table]:
    """Run `gpenvid bench WORDS` with the revision and with this tree, `rounds` times in turns; compare the figures.

    Needs a git checkout; the revision is checked out beside it for as long as it takes. Raises OptionsError without a
    checkout or for an unknown revision, GpenvidError when a run fails or nothing can be compared.
    """
    if not (root / ".git").exists():
        raise OptionsError(f"--against {revision}: {root} is no git checkout")
    with tempfile.TemporaryDirectory(prefix="gpenvid-against-") as folder:
        earlier = Path(folder) / "tree"
        added = _git(root, "worktree", "add", "--detach", str(earlier), revision)
        if added.returncode:
            raise OptionsError(f"--against {revision}: {added.stderr.strip().splitlines()[-1]}")
        try:
            runs: dict[Path, list[Tables]] = {earlier: [], root: []}
            for _ in range(rounds):
                for tree, tables in runs.items():
                    tables.append(_measured(tree, words, Path(folder) / "figures.json"))
        finally:
            _git(root, "worktree", "remove", "--force", str(earlier))
    return ratios(runs[earlier], runs[root], revision)


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)


def _measured(tree: Path, words: list[str], figures: Path) -> Tables:
    """One run in a process of its own, which imports the tree's package."""
    command = [sys.executable, "-m", "gpenvid", "bench", *words, "--json", str(figures)]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise GpenvidError(f"--against: `gpenvid bench {' '.join(words)}` failed in {tree}: {said[-1]}")
    tables: Tables = json.loads(figures.read_text(encoding="utf-8"))
    return tables


def ratios(earlier: list[Tables], now: list[Tables], revision: str) -> list[Table]:
    """For each figure that both have, the median now divided by the median then. Rows are known by their words."""
    tables = []
    then, today = _figures(earlier), _figures(now)
    for title, rows in today.items():
        known = then.get(title, {})
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        both = {words: row for words, row in rows.items() if words in known}
        if not both or not columns:
            continue
        cells: list[tuple[str | float, ...]] = [
            (", ".join(words), *(_ratio(row.get(name), known[words].get(name)) for name in columns))
            for words, row in both.items()
        ]
        tables.append(Table(f"{title}: now / {revision}", ("row", *columns), cells))
    if not tables:
        raise GpenvidError(f"--against {revision}: nothing in common with what is measured now")
    return tables


def _figures(runs: list[Tables]) -> dict[str, dict[tuple[str, ...], dict[str, list[float]]]]:
    """Title to row to column to the figures of all runs."""
    found: dict[str, dict[tuple[str, ...], dict[str, list[float]]]] = {}
    for tables in runs:
        for title, rows in tables.items():
            for row in rows:
                words = tuple(value for value in row.values() if isinstance(value, str))
                place = found.setdefault(title, {}).setdefault(words, {})
                for name, value in row.items():
                    if isinstance(value, int | float):
                        place.setdefault(name, []).append(value)
    return found


def _ratio(now: list[float] | None, then: list[float] | None) -> float:
    if not now or not then or not statistics.median(then):
        return float("nan")
    return statistics.median(now) / statistics.median(then)
