"""The restorer's contract: the same suite runs over the network and over a fake."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx_graph import blurring_graph

from gpenvid.errors import DeviceError, OptionsError, WeightsError
from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.restorer import (
    PRECISIONS,
    GpenRestorer,
    Restorer,
    from_network,
    load_restorer,
    to_network,
)
from gpenvid.options import RestorerOptions

SMALL = Architecture(size=32, channel_multiplier=1, narrow=0.0625, n_mlp=2, style_dim=24)


class IdentityRestorer:
    """The fake that other rooms' tests use in the network's place."""

    size = 32

    def restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if crops.dtype != np.uint8 or crops.shape[1:] != (32, 32, 3):
            raise ValueError(f"crops must be (N, 32, 32, 3) uint8, got {crops.shape} {crops.dtype}")
        return crops.copy()


def small_network() -> FullGenerator:
    torch.manual_seed(0)
    return FullGenerator(SMALL)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(small_network().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def graph_file(weights_file: Path) -> Path:
    return blurring_graph(weights_file.with_suffix(".onnx"), 32)


@pytest.fixture(params=["fake", "identity network", "gpen", "loaded", "onnx"])
def restorer(request: pytest.FixtureRequest, weights_file: Path) -> Restorer:
    if request.param == "fake":
        return IdentityRestorer()
    if request.param == "identity network":
        return GpenRestorer(torch.nn.Identity(), 32)
    if request.param == "gpen":
        return GpenRestorer(small_network(), 32, batch=2)
    if request.param == "onnx":
        return load_restorer(request.getfixturevalue("graph_file"), device="cpu", batch=2)
    return load_restorer(weights_file, device="cpu")


def faces(count: int, size: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_implements_the_protocol(restorer: Restorer) -> None:
    assert isinstance(restorer, Restorer)
    assert restorer.size == 32


@pytest.mark.parametrize("count", [0, 1, 5])
def test_gives_as_many_faces_as_it_gets(restorer: Restorer, count: int) -> None:
    crops = faces(count)
    restored = restorer.restore(crops)
    assert restored.shape == crops.shape
    assert restored.dtype == np.uint8
    assert np.array_equal(crops, faces(count))
    assert not np.shares_memory(restored, crops)


def test_faces_do_not_influence_each_other(restorer: Restorer) -> None:
    crops = faces(3)
    one_by_one = np.concatenate([restorer.restore(crops[i : i + 1]) for i in range(3)])
    difference = np.abs(restorer.restore(crops).astype(int) - one_by_one)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.001


def test_accepts_views(restorer: Restorer) -> None:
    crops = faces(3)
    assert np.array_equal(restorer.restore(crops[::-1, :, ::-1]), restorer.restore(crops[::-1, :, ::-1].copy()))


@pytest.mark.parametrize(
    "crops",
    [faces(1, 16), faces(1)[0], faces(1)[..., :1], faces(1).astype(np.float32)],
    ids=["size", "rank", "gray", "float"],
)
def test_refuses_other_shapes_and_types(restorer: Restorer, crops: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"crops must be \(N, 32, 32, 3\) uint8, got"):
        restorer.restore(crops)


def test_identity_is_exact_for_every_value() -> None:
    crops = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, 32, 32, 3)
    assert np.array_equal(GpenRestorer(torch.nn.Identity(), 32).restore(crops), crops)


def test_network_sees_rgb_from_minus_one_to_one() -> None:
    crops = np.zeros((1, 2, 2, 3), np.uint8)
    crops[..., 0] = 255
    seen = to_network(crops, torch.device("cpu"))
    assert seen.shape == (1, 3, 2, 2)
    assert torch.equal(seen.amax(dim=(0, 2, 3)), torch.tensor([1.0, -1.0, -1.0]))


def test_results_are_rounded_and_clipped() -> None:
    levels = torch.tensor([-9.0, -1.0, 0.49 / 127.5 - 1, 0.51 / 127.5 - 1, 254.49 / 127.5 - 1, 254.51 / 127.5 - 1, 9.0])
    assert from_network(levels.view(1, 1, 1, -1)).ravel().tolist() == [0, 0, 0, 1, 254, 255, 255]


class Greedy(torch.nn.Module):
    """Runs out of memory above `limit` faces."""

    def __init__(self, limit: int, error: RuntimeError) -> None:
        super().__init__()
        self.limit = limit
        self.error = error
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.limit:
            raise self.error
        return -x


OUT_OF_MEMORY = {
    "cuda": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
}


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_out_of_memory_halves_the_batch_and_is_remembered(kind: str) -> None:
    network = Greedy(3, OUT_OF_MEMORY[kind])
    restorer = GpenRestorer(network, 32, batch=8)
    crops = faces(9)
    assert np.array_equal(restorer.restore(crops), 255 - crops)
    assert network.seen == [8, 4, 2, 2, 2, 2, 1]
    assert restorer.batch == 2
    restorer.restore(crops[:3])
    assert network.seen[7:] == [2, 1]


def test_out_of_memory_with_one_face_is_an_error() -> None:
    restorer = GpenRestorer(Greedy(0, OUT_OF_MEMORY["cuda"]), 32, batch=2)
    with pytest.raises(DeviceError, match=r"^cpu: out of memory for a single face of 32 pixels$"):
        restorer.restore(faces(2))


def test_other_errors_are_not_mistaken_for_memory() -> None:
    network = Greedy(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        GpenRestorer(network, 32).restore(faces(2))
    assert network.seen == [2]


def test_loaded_restorer_carries_what_a_report_needs(weights_file: Path) -> None:
    restorer = load_restorer(str(weights_file), device="cpu", batch=3)
    assert (restorer.name, restorer.precision, restorer.batch, restorer.device.type) == ("small", "fp32", 3, "cpu")
    assert len(restorer.sha256) == 64
    assert not any(parameter.requires_grad for parameter in restorer.network.parameters())


def test_the_network_of_a_restorer_gives_what_the_restorer_gives(weights_file: Path) -> None:
    restorer = load_restorer(weights_file, device="cpu")
    crops = faces(2)
    with torch.inference_mode():
        pictures = restorer.network(torch.from_numpy(crops).permute(0, 3, 1, 2) / 127.5 - 1)
    by_hand = ((pictures + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(by_hand - restorer.restore(crops)).max() <= 1


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 2), ("bf16", 16)])
def test_half_precision_gives_nearly_the_same_pixels(weights_file: Path, precision: str, tolerance: int) -> None:
    exact = load_restorer(weights_file, device="cpu").restore(faces(2)).astype(int)
    restorer = load_restorer(weights_file, device="cpu", precision=precision)
    assert restorer.network.compute_dtype == PRECISIONS[precision]
    assert np.abs(restorer.restore(faces(2)) - exact).max() <= tolerance


def test_nonsense_is_refused(weights_file: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"^--precision fp8: must be auto, fp32, fp16, bf16$"):
        load_restorer(weights_file, precision="fp8")
    with pytest.raises(OptionsError, match=r"^--batch -1: must be 0 or more$"):
        load_restorer(weights_file, device="cpu", batch=-1)
    with pytest.raises(WeightsError, match="No such file"):
        load_restorer(tmp_path / "absent.pth")


@pytest.mark.cuda
def test_cuda_in_half_precision_gives_nearly_the_same_pixels(weights_file: Path) -> None:
    if not torch.cuda.is_available() and not os.environ.get("GPENVID_REQUIRE_CUDA"):
        pytest.skip("no CUDA GPU")
    exact = load_restorer(weights_file, device="cpu").restore(faces(4)).astype(int)
    restorer = load_restorer(weights_file, device="cuda")
    assert restorer.precision == "fp16"
    assert np.abs(restorer.restore(faces(4)) - exact).max() <= 2


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:1"])
def test_options_accept_every_device(device: str) -> None:
    assert RestorerOptions(device=device).device == device


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"device": "gpu"},
            "--device gpu: must be auto, cpu, cuda, cuda:N or mps, or several of them with commas between",
        ),
        ({"precision": "fp8"}, "--precision fp8: must be auto, fp32, fp16 or bf16"),
        ({"batch": -1}, "--batch -1: must be 0 or more"),
        ({"backend": "caffe"}, "--backend caffe: must be torch or onnx"),
    ],
)
def test_options_refuse_nonsense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        RestorerOptions(**options)
    assert str(caught.value) == message
