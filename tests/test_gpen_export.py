"""A network in other engines' files: the same results, or no file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_graph import blurring_graph

from gpenvid import cli
from gpenvid.errors import DeviceError, ExportError, OptionsError, WeightsError
from gpenvid.gpen import export as exporting
from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.export import export
from gpenvid.gpen.onnx import OnnxRestorer, choose_provider
from gpenvid.gpen.restorer import load_restorer

TINY = Architecture(size=16, channel_multiplier=1, narrow=0.0625, n_mlp=1, style_dim=8)


def tiny() -> FullGenerator:
    torch.manual_seed(0)
    network = FullGenerator(TINY)
    for name, parameter in network.named_parameters():
        if name.endswith("noise.weight"):
            torch.nn.init.ones_(parameter)
    return network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "tiny.pth"
    torch.save(tiny().state_dict(), path)
    return path


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("to", ["onnx", "torchscript"])
def test_every_batch_gives_what_pytorch_gives(to: str, tmp_path: Path) -> None:
    path = tmp_path / "network"
    assert export(tiny(), path, to) < 1e-4
    run = {"onnx": exporting._load_onnx, "torchscript": exporting._load_torchscript}[to](path)
    network = tiny().prepare().requires_grad_(False)
    for count in (1, 2, 5, 9):
        x = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(count)) * 2 - 1
        torch.testing.assert_close(run(x), network(x), rtol=0, atol=1e-5)
    assert [each.name for each in tmp_path.iterdir()] == ["network"]


@pytest.mark.long
def test_half_precision_graphs_are_close(tmp_path: Path) -> None:
    assert 0 < export(tiny(), tmp_path / "half.onnx", "onnx", dtype=torch.float16) < 0.05


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "network.ts"
    path.write_bytes(b"what was here before")
    load = exporting._load_torchscript
    for wrong in (lambda y: y + 0.01, lambda y: y * float("nan")):

        def broken(path: Path, wrong: Callable[[torch.Tensor], torch.Tensor] = wrong) -> Callable[..., torch.Tensor]:
            engine = load(path)
            return lambda x: wrong(engine(x))

        monkeypatch.setattr(exporting, "_load_torchscript", broken)
        with pytest.raises(ExportError, match=r"not written, it differs from PyTorch by (0\.01|inf)"):
            export(tiny(), path, "torchscript")
    assert path.read_bytes() == b"what was here before"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("to", "package", "extra"), [("onnx", "onnxscript", "onnx"), ("tensorrt", "tensorrt", "tensorrt")]
)
def test_a_missing_package_is_named_with_its_extra(
    to: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = exporting.importlib.util.find_spec
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(OptionsError, match=rf"^{package} is not installed; run `pip install 'gpenvid\[{to}\]'`$"):
        export(tiny(), tmp_path / "file", to)
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_and_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"^--to caffe: must be onnx, torchscript, tensorrt$"):
        export(tiny(), tmp_path / "file", "caffe")
    with pytest.raises(OptionsError, match=r"^--precision: an export is fp32 or fp16$"):
        export(tiny(), tmp_path / "file", "onnx", dtype=torch.bfloat16)


def test_weights_become_a_graph_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caplog.set_level(logging.WARNING)
    expected = load_restorer(checkpoint, device="cpu").restore(crops(3)).astype(int)
    for _ in range(2):
        restorer = load_restorer(checkpoint, device="cpu", backend="onnx", provider="cpu")
        assert np.abs(restorer.restore(crops(3)) - expected).max() <= 1
    assert (restorer.name, restorer.size, restorer.batch, len(restorer.sha256)) == ("tiny", 16, 4, 64)
    assert [path.suffix for path in (tmp_path / "gpenvid" / "onnx").iterdir()] == [".onnx"]
    assert caplog.text.count("making its ONNX graph") == 1


def test_a_graph_for_two_faces_at_a_time_is_fed_so(tmp_path: Path) -> None:
    restorer = OnnxRestorer(blurring_graph(tmp_path / "two.onnx", 16, batch=2), batch=8)
    assert restorer.batch == 2
    one_by_one = np.concatenate([restorer.restore(crops(3)[i : i + 1]) for i in range(3)])
    assert np.array_equal(restorer.restore(crops(3)), one_by_one)
    assert (one_by_one != crops(3)).any()


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("not a graph\n")
    with pytest.raises(WeightsError, match=r"text\.onnx: ONNX Runtime can't load it"):
        load_restorer(path, device="cpu")


@pytest.mark.parametrize(
    ("device", "there", "chosen"),
    [
        ("cpu", ["cpu"], "cpu"),
        ("cpu", ["cuda", "openvino", "cpu"], "openvino"),
        ("auto", ["tensorrt", "cuda", "cpu"], "cuda"),
        ("auto", ["directml", "cpu"], "directml"),
        ("auto", ["cpu"], "cpu"),
        ("cuda:1", ["tensorrt", "cuda", "cpu"], "cuda"),
        ("mps", ["coreml", "cpu"], "coreml"),
    ],
)
def test_the_provider_follows_the_device(
    device: str, there: list[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    from gpenvid.gpen.onnx import PROVIDERS

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [PROVIDERS[word] for word in there])
    assert choose_provider(device) == chosen
    assert choose_provider(device, there[0]) == there[0]


def test_a_provider_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DeviceError, match=r"^--provider coreml: this ONNX Runtime has .*cpu$"):
        choose_provider("auto", "coreml")
    with pytest.raises(OptionsError, match=r"^--provider gpu: must be auto, cuda, "):
        choose_provider("auto", "gpu")


def test_the_command(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "tiny.ts"
    assert cli.main(["export", str(checkpoint), "--to", "torchscript", "-o", str(target)]) == 0
    assert capsys.readouterr().out.startswith(f"{target}: agrees with PyTorch within ")
    assert target.stat().st_size > 0
    assert cli.main(["export", str(checkpoint), "--to", "onnx", "-o", str(tmp_path / "no" / "x.onnx")]) == 1
    assert capsys.readouterr().err == f"gpenvid: {tmp_path / 'no'}: no such folder\n"
