"""Batch and precision by trial, remembered per device and model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gpenvid.gpen.probe import Choice, fastest, remembered
from gpenvid.gpen.restorer import CPU_BATCH, GpenRestorer, load_restorer

CPU = torch.device("cpu")


def device(overhead: float, face: float, most: int) -> Callable[[int], float | None]:
    """A device that takes so many seconds a call and a face, with memory for `most` faces."""
    return lambda batch: overhead + face * batch if batch <= most else None


@pytest.mark.parametrize(
    ("overhead", "most", "batch"),
    [
        (0.0, 1000, 1),  # nothing to gain
        (1.0, 1000, 16),  # from 16 to 32: 1 + 1/16 to 1 + 1/32, less than 5 %
        (1.0, 5, 4),  # no memory for 8
        (1000.0, 1000, 64),  # and no more is tried
    ],
)
def test_the_batch_grows_while_it_pays(overhead: float, most: int, batch: int) -> None:
    assert fastest(["fp32"], lambda _: device(overhead, 1.0, most)) == Choice("fp32", batch)


def test_the_preferred_precision_wins_unless_another_is_faster() -> None:
    speeds = {"fp16": device(1, 1, 100), "fp32": device(1, 0.98, 100)}
    assert fastest(["fp16", "fp32"], speeds.__getitem__) == Choice("fp16", 16)
    speeds["fp32"] = device(1, 0.5, 100)
    assert fastest(["fp16", "fp32"], speeds.__getitem__) == Choice("fp32", 32)


def test_nothing_fits() -> None:
    assert fastest(["fp16", "fp32"], lambda _: device(1, 1, 0)) is None


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gpenvid" / "probe.json"


def test_a_device_is_probed_once_for_each_model(cache: Path) -> None:
    asked: list[str] = []

    def probe(word: str) -> Callable[[], Choice]:
        return lambda: (asked.append(word), Choice("fp16", 8))[1]

    for _ in range(2):
        assert remembered(CPU, "abc", "auto", probe("abc")) == Choice("fp16", 8)
        assert remembered(CPU, "def", "auto", probe("def")) == Choice("fp16", 8)
        assert remembered(CPU, "abc", "fp32", probe("abc fp32")) == Choice("fp16", 8)
    assert asked == ["abc", "def", "abc fp32"]
    assert len(json.loads(cache.read_text())) == 3
    assert [path.name for path in cache.parent.iterdir()] == ["probe.json"]


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"x": 1}'])
def test_a_damaged_memory_is_no_obstacle(content: str, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text(content)
    assert remembered(CPU, "abc", "auto", lambda: Choice("bf16", 2)) == Choice("bf16", 2)
    assert remembered(CPU, "abc", "auto", lambda: None) == Choice("bf16", 2)


def test_without_a_folder_to_write_to_every_time_is_the_first(cache: Path) -> None:
    cache.parent.write_text("a file where the folder would be")
    assert remembered(CPU, "abc", "auto", lambda: Choice("fp16", 4)) == Choice("fp16", 4)
    assert remembered(CPU, "abc", "auto", lambda: None) == Choice("fp32", 1)
    assert remembered(CPU, "abc", "bf16", lambda: None) == Choice("bf16", 1)


def test_a_cpu_is_not_probed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPENVID_OFFLINE", "1")
    restorer = load_restorer("gpen-lite", device="cpu")
    assert (restorer.precision, restorer.batch) == ("fp32", CPU_BATCH)
    assert not cache.exists()


def test_time_is_none_without_memory() -> None:
    class Greedy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return x

    restorer = GpenRestorer(Greedy(), 16, batch=8)
    assert restorer.seconds(4) is None
    taken = restorer.seconds(2)
    assert taken is not None and taken > 0
