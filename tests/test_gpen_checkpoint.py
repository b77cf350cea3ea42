"""The architecture is read from the weights; anything but a GPEN is refused in one line."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpenvid.errors import WeightsError
from gpenvid.gpen.arch import Architecture, Discriminator, FullGenerator
from gpenvid.gpen.checkpoint import (
    GENERATOR_KEYS,
    empty_network,
    infer_architecture,
    infer_discriminator,
    load_discriminator,
    load_generator,
)
from gpenvid.weights import find_state_dict

MANIFEST: dict[str, dict[str, Any]] = json.loads(
    gzip.decompress((Path(__file__).parent / "golden" / "gpen_state_dict_manifest.json.gz").read_bytes())
)
SMALL = Architecture(size=16, channel_multiplier=1, narrow=0.0625, n_mlp=2, style_dim=24)


def meta_state(tensors: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in tensors.items()}


@pytest.fixture(scope="module")
def network() -> FullGenerator:
    torch.manual_seed(0)
    return FullGenerator(SMALL).eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "face.pth"


@pytest.mark.parametrize("name", MANIFEST)
def test_official_state_dicts_fit_exactly(name: str) -> None:
    state = meta_state(MANIFEST[name]["tensors"])
    assert infer_architecture(state) == Architecture(**MANIFEST[name]["config"])
    assert {key: list(t.shape) for key, t in empty_network(state).state_dict().items()} == MANIFEST[name]["tensors"]


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256, 512, 1024, 2048])
@pytest.mark.parametrize("factors", [(2, 1.0), (1, 0.5), (0.5, 0.3), (1.5, 0.33)])
def test_any_architecture_is_recovered_from_its_state_dict(size: int, factors: tuple[float, float]) -> None:
    architecture = Architecture(size=size, channel_multiplier=factors[0], narrow=factors[1], n_mlp=5, style_dim=96)
    with torch.device("meta"):
        state = FullGenerator(architecture).state_dict()
        critic = Discriminator(architecture).state_dict()
    for found in (infer_architecture(state), infer_discriminator(critic)):
        assert [found.channels(r) for r in found.resolutions] == [
            architecture.channels(r) for r in architecture.resolutions
        ]
    assert (infer_architecture(state).n_mlp, infer_architecture(state).style_dim) == (5, 96)
    assert empty_network(state).size == size
    assert empty_network(critic, infer_discriminator, Discriminator).architecture.size == size


NESTINGS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "plain": lambda state: state,
    "g_ema": lambda state: {"g": {"junk": torch.zeros(1)}, "g_ema": state, "step": 7, "g_optim": {"lr": 0.1}},
    "g": lambda state: {"g": state, "d": {}},
    "generator": lambda state: {"generator": state},
    "params_ema": lambda state: {"params_ema": state, "params": {}},
    "module": lambda state: {f"module.{key}": value for key, value in state.items()},
    "nested twice": lambda state: {"state_dict": {"g_ema": {f"module.{key}": value for key, value in state.items()}}},
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_state_dicts_are_found_where_training_programs_put_them(
    network: FullGenerator, path: Path, nesting: str
) -> None:
    torch.save(NESTINGS[nesting](network.state_dict()), path)
    loaded = load_generator(path)
    assert loaded.architecture == SMALL
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in loaded.state_dict().items())


def test_half_precision_files_are_loaded_as_float32(network: FullGenerator, path: Path) -> None:
    torch.save({key: tensor.half() for key, tensor in network.state_dict().items()}, path)
    loaded = load_generator(path).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[key], tensor.half().float()) for key, tensor in network.state_dict().items())


def test_discriminators_load_too(path: Path) -> None:
    critic = Discriminator(SMALL)
    torch.save({"g": {}, "d": critic.state_dict()}, path)
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(load_discriminator(path)(x), critic(x))


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["GPENVID_TEST_MARK"],)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load_generator(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_and_not_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.setenv("GPENVID_TEST_MARK", str(tmp_path / "mark"))
    torch.save({"generator.input.input": Hostile()}, path, _use_new_zipfile_serialization=zipped)
    assert refusal(path) == f"{path}: refused, it holds objects ({os.mkdir.__module__}.mkdir) and not only tensors"
    assert not (tmp_path / "mark").exists()


def test_a_tensor_larger_than_its_file_is_refused(path: Path) -> None:
    torch.save({"generator.input.input": torch.zeros(1).expand(1, 1 << 30, 4, 4)}, path)
    assert refusal(path) == f"{path}: refused, its tensors claim {1 << 36} bytes, more than the file holds"


def test_a_circle_of_dicts_is_refused(path: Path) -> None:
    circle: dict[str, Any] = {}
    circle["g"] = circle
    torch.save(circle, path)
    assert refusal(path) == f"{path}: not a state dict: 'g' isn't a weight"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page, not weights; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the weights; run `git lfs pull`"),
        (b"\x93NUMPY" + bytes(1000), "truncated or not a PyTorch checkpoint"),
    ],
)
def test_files_that_are_something_else_are_refused(path: Path, content: bytes, reason: str) -> None:
    path.write_bytes(content)
    assert refusal(path) == f"{path}: {reason}"


def test_a_missing_file_is_refused(path: Path) -> None:
    assert refusal(path) == f"{path}: No such file or directory"


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(network: FullGenerator, path: Path, share: float) -> None:
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert refusal(path) == f"{path}: truncated or not a PyTorch checkpoint"


def changed(state: dict[str, torch.Tensor], **changes: torch.Tensor | None) -> dict[str, Any]:
    state = dict(state)
    for name, tensor in changes.items():
        key = name.replace("__", ".")
        if tensor is None:
            del state[key]
        else:
            state[key] = tensor
    return state


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ecd2__0__2__bias": None}, "ecd2.0.2.bias is missing"),
        ({"ecd2__0__2__bias": torch.zeros(3)}, "ecd2.0.2.bias has shape (3,), expected (32,)"),
        ({"extra": torch.zeros(3)}, "extra doesn't belong to a GPEN of size 16"),
        ({"ecd2__0__2__bias": torch.full((32,), torch.nan)}, "ecd2.0.2.bias holds values that aren't finite"),
        (
            {"ecd2__0__2__bias": torch.zeros(32, dtype=torch.int64)},
            "ecd2.0.2.bias holds int64 instead of floating point",
        ),
        ({"generator__input__input": None}, "not a GPEN generator"),
        ({"generator__input__input": torch.zeros(1, 0, 4, 4)}, "a layer without channels"),
        ({"ecd3__0__1__weight": torch.zeros(1)}, "ecd3.0.0.kernel is missing"),
    ],
)
def test_a_state_dict_that_is_almost_right_is_refused(
    network: FullGenerator, path: Path, change: dict[str, torch.Tensor | None], reason: str
) -> None:
    torch.save(changed(network.state_dict(), **change), path)
    assert refusal(path) == f"{path}: {reason}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.zeros(1)], "holds a list, not a state dict"),
        ({}, "an empty state dict"),
        ({"epoch": 3}, "not a state dict: 'epoch' isn't a weight"),
        ({"sparse": torch.zeros(1).to_sparse()}, "not a state dict: 'sparse' isn't a weight"),
        ({3: torch.zeros(1)}, "not a state dict: '3' isn't a weight"),
    ],
)
def test_what_is_not_a_state_dict_is_told(content: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        find_state_dict(content, GENERATOR_KEYS)
