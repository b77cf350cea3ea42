"""What the restorer's benchmark compares is the same network."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpenvid import cli
from gpenvid.bench import Table
from gpenvid.bench import restorer as bench
from gpenvid.bench.straightforward import Straightforward
from gpenvid.gpen.arch import Architecture

TINY = Architecture(size=32, channel_multiplier=1, narrow=0.0625, n_mlp=1, style_dim=16)


def test_the_straightforward_way_is_the_same_network() -> None:
    network = bench.random_network(TINY)
    x = bench.random_pictures(3, 32)
    with torch.inference_mode():
        torch.testing.assert_close(Straightforward(network)(x), network(x), rtol=0, atol=1e-5)
    assert network(x).std() > 0.1


@pytest.mark.parametrize("engines", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_ways_agree_and_ratios_are_to_the_same_round(engines: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not engines:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    threads = torch.get_num_threads()
    (table,) = bench.run_cpu(replace(TINY, size=16, n_mlp=0), batches=(1, 2), threads=1, rounds=1, compiled=False)
    rows = table.dicts()
    others = [bench.ORT, bench.ORT_STRAIGHT] if engines else []
    others += [bench.OPENVINO] if importlib.util.find_spec("openvino") else []
    assert [(row["batch"], row["way"]) for row in rows] == [
        (batch, way) for batch in ("1", "2") for way in [bench.STRAIGHT, *others, bench.OURS]
    ]
    base = {row["batch"]: row["ms a face"] for row in rows if row["way"] == bench.STRAIGHT}
    for row in rows:
        assert row["error"] < 2e-5
        assert row["x straightforward"] == pytest.approx(row["ms a face"] / base[row["batch"]])
    assert torch.get_num_threads() == threads


def test_ways_take_turns() -> None:
    turns: list[str] = []
    ways = {name: (lambda x, name=name: turns.append(name)) for name in "ab"}
    took = bench.timed(ways, torch.zeros(1), rounds=2)
    assert turns == ["a", "b"] * 3
    assert [len(times) for times in took.values()] == [2, 2]


@pytest.mark.parametrize("kind", ["black", "white", "gray", "saturated", "one colour", "noise"])
def test_extreme_inputs(kind: str) -> None:
    x = bench.extremes(8, 2)[kind](0)
    assert x.shape == (2, 3, 8, 8)
    assert x.abs().max() <= 1
    assert (x.abs() == 1).all() == (kind in ("black", "white", "saturated", "one colour"))
    assert (x == x[:, :, :1, :1]).all() == (kind not in ("saturated", "noise"))


def test_half_precision_is_judged_on_the_device_at_hand() -> None:
    table = bench.half_precision(replace(TINY, size=16), torch.device("cpu"), inputs=12, batch=2)
    for row in table.dicts():
        assert row["least PSNR dB"] >= 45
        assert row["not finite"] == 0


def test_as_many_inputs_as_asked_for_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        bench,
        "extremes",
        lambda size, batch: {
            kind: lambda seed: seen.append(batch) or torch.zeros(batch, 3, size, size) for kind in "abc"
        },
    )
    bench.half_precision(replace(TINY, size=16), torch.device("cpu"), inputs=13, batch=2)
    assert sum(seen) == 18  # the least multiple of three kinds and two at once that is no less


def test_the_command_refuses_a_device_for_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "restorer", "tracking", "--device", "cpu"]) == 1
    said = "gpenvid: --device cpu: is for `gpenvid bench restorer|pipeline|latency|memory`\n"
    assert capsys.readouterr().err == said


def test_several_benchmarks_in_one_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    def run(what: str, **choices: str) -> list[Table]:
        asked.append((what, choices))
        return [Table(f"About {what}", ("way", "ratio"), [("ours", 2.0)])]

    monkeypatch.setattr("gpenvid.bench.run", run)
    words = ["bench", "restorer", "latency", "--device", "cuda:1", "--json", str(tmp_path / "a.json")]
    assert cli.main(words) == 0
    assert asked == [("restorer", {"device": "cuda:1"}), ("latency", {"device": "cuda:1"})]
    assert json.loads((tmp_path / "a.json").read_text()) == {
        f"About {what}": [{"way": "ours", "ratio": 2.0}] for what in ("restorer", "latency")
    }


def test_the_restorer_at_hand() -> None:
    here = bench.present("cpu", 3)
    assert (here.device, here.batch, here.precision) == (torch.device("cpu"), 3, "fp32")
    assert here.sha256


@pytest.mark.cuda
def test_the_restorer_on_a_card_is_the_large_one_in_half_precision() -> None:
    there = bench.present("cuda", 3)
    assert (there.size, there.batch, there.precision) == (512, 3, "fp16")
