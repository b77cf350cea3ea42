"""The tracker's inner loops are machine code: made once, whatever is followed, wherever it can be kept."""

from __future__ import annotations

import errno
import pkgutil
import runpy
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

import gpenvid.faces
from gpenvid import native
from gpenvid.bench.motions import crowd
from gpenvid.faces.track import Tracker
from gpenvid.native import compiled, median_of_few, warn_of_compiling
from gpenvid.options import TrackerOptions


def _compiled() -> dict[str, Any]:
    """All compiled functions, by module and name."""
    modules = [import_module(f"gpenvid.faces.{found.name}") for found in pkgutil.iter_modules(gpenvid.faces.__path__)]
    return {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if hasattr(value, "py_func") and value.py_func.__module__ == module.__name__
    }


_INNER = {"gpenvid.faces.geometry._encode", "gpenvid.faces.likeness._mean_without"}
"""Called by compiled functions alone, which have several types of arrays and numbers from the beginning."""


def test_nothing_is_compiled_twice_however_many_faces_there_are() -> None:
    """An array of one face may look contiguous where that of two doesn't: another type, and seconds in mid-stream."""
    for count, lag in ((0, 0.5), (1, 0.0), (1, 0.5), (2, 0.0), (6, 0.5)):
        scene, tracker = crowd(count, seconds=8, misses=0.1), Tracker(TrackerOptions(lag=lag))
        for k in range(200):
            tracker.update(scene.detections(k) if count else [], k / 25)
        tracker.flush()
    kinds = {name: len(function.signatures) for name, function in _compiled().items()}
    assert {name: count for name, count in kinds.items() if count > 1 and name not in _INNER} == {}
    assert sum(count == 1 for count in kinds.values()) > 15


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same() -> None:
    made: dict[str, Any] = {}
    exec("def twice(x):\n    return 2 * x", made)
    assert compiled(made["twice"])(3.5) == 7


@pytest.mark.parametrize("kind", ["nbc", "nbi"])
def test_what_is_kept_is_made_anew_where_it_is_damaged(kind: str, tmp_path: Path) -> None:
    """A crash of the machine may leave files without an end, or without anything."""
    source = tmp_path / "kept.py"
    source.write_text("from gpenvid.native import compiled\n\n@compiled\ndef half(x):\n    return x / 2\n")

    def hits() -> int:
        half: Any = runpy.run_path(str(source))["half"]
        assert half(5.0) == 2.5
        return sum(half.stats.cache_hits.values())

    assert (hits(), hits()) == (0, 1)
    (file,) = (tmp_path / "__pycache__").glob(f"*.{kind}")
    for length in (file.stat().st_size // 2, 0):
        file.write_bytes(file.read_bytes()[:length])
        assert (hits(), hits()) == (0, 1)


def test_what_is_kept_is_made_anew_when_a_file_beside_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, other = tmp_path / "kept.py", tmp_path / "other.py"
    source.write_text("from gpenvid.native import compiled\n\n@compiled\ndef half(x):\n    return x / 2\n")

    def hits() -> int:
        native._stamp.cache_clear()
        half: Any = runpy.run_path(str(source))["half"]
        assert half(5.0) == 2.5
        return sum(half.stats.cache_hits.values())

    other.write_text("one = 1\n")
    assert (hits(), hits()) == (0, 1)
    other.write_text("one = 1.0\n")
    native._stamp.cache_clear()
    warn_of_compiling(runpy.run_path(str(source))["half"], "the half", "a second")
    assert "compiling the half" in caplog.text
    assert (hits(), hits()) == (0, 1)
    caplog.clear()
    warn_of_compiling(runpy.run_path(str(source))["half"], "the half", "a second")
    assert not caplog.records


def test_it_works_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    source = tmp_path / "full.py"
    source.write_text("from gpenvid.native import compiled\n\n@compiled\ndef half(x):\n    return x / 2\n")
    assert runpy.run_path(str(source))["half"](5.0) == 2.5


def test_the_wait_for_the_compiler_is_told_where_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    median_of_few(np.ones(3))
    warn_of_compiling(median_of_few, "the tracker", "ten seconds")
    assert not caplog.records
    made: dict[str, Any] = {}
    exec("def thrice(x):\n    return 3 * x", made)
    fresh = compiled(made["thrice"])
    for _ in range(2):
        warn_of_compiling(fresh, "the tracker", "ten seconds")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "compiling the tracker" in caplog.text


@pytest.mark.parametrize("count", range(1, 8))
def test_the_median_of_a_few_is_numpys(count: int) -> None:
    values = np.random.default_rng(count).standard_normal(count)
    kept = values.copy()
    assert median_of_few(values) == np.median(kept)
    np.testing.assert_array_equal(values, kept)
