"""The network against reference outputs of the official implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gpenvid.gpen.arch import Architecture, Discriminator, FullGenerator

GOLDEN = Path(__file__).parent / "golden"
TINY = Architecture(size=64, channel_multiplier=1, narrow=0.0625, n_mlp=3, style_dim=64)


def golden(name: str) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    arrays = np.load(GOLDEN / f"{name}.npz")
    state = {key.removeprefix("sd/"): torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith("sd/")}
    return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]), state


@pytest.fixture(scope="module")
def tiny() -> FullGenerator:
    network = FullGenerator(TINY)
    network.load_state_dict(golden("gpen_tiny_64")[2])
    return network.eval()


def test_generator_agrees_with_the_official_implementation(tiny: FullGenerator) -> None:
    x, y, _ = golden("gpen_tiny_64")
    with torch.inference_mode():
        torch.testing.assert_close(tiny(x), y, rtol=0, atol=1e-4)


def test_discriminator_agrees_with_the_official_implementation() -> None:
    x, y, state = golden("gpen_tiny_discriminator_64")
    network = Discriminator(TINY)
    network.load_state_dict(state)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), y, rtol=0, atol=1e-4)


def test_a_batch_equals_its_samples_one_by_one(tiny: FullGenerator) -> None:
    x, _, _ = golden("gpen_tiny_64")
    with torch.inference_mode():
        torch.testing.assert_close(tiny(x), torch.cat([tiny(one[None]) for one in x]), rtol=0, atol=1e-5)
