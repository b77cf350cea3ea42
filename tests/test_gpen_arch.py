"""The network against reference outputs of the official implementation."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gpenvid.bench.restorer import extremes
from gpenvid.gpen.arch import Architecture, Discriminator, FullGenerator, StyledConv
from gpenvid.gpen.checkpoint import load_generator
from gpenvid.weights import shipped

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


def test_prepared_weights_change_nothing_but_time(tiny: FullGenerator) -> None:
    x, y, _ = golden("gpen_tiny_64")
    prepared = copy.deepcopy(tiny).prepare()
    with torch.inference_mode():
        torch.testing.assert_close(prepared(x), y, rtol=0, atol=1e-4)
    assert prepared.state_dict().keys() == tiny.state_dict().keys()


@pytest.mark.parametrize("change", ["train", "load_state_dict"])
def test_prepared_weights_are_dropped_when_parameters_change(tiny: FullGenerator, change: str) -> None:
    x, y, state = golden("gpen_tiny_64")
    network = FullGenerator(TINY).prepare()
    if change == "train":
        network.train()
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                tensor.copy_(state[name])
    else:
        network.load_state_dict(state)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), y, rtol=0, atol=1e-4)


def test_inference_leaves_input_and_parameters_alone(tiny: FullGenerator) -> None:
    x, _, state = golden("gpen_tiny_64")
    before = x.clone()
    with torch.inference_mode():
        tiny(x)
    assert torch.equal(x, before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in tiny.state_dict().items())


def test_with_and_without_autograd_agree(tiny: FullGenerator) -> None:
    x, y, _ = golden("gpen_tiny_64")
    with_autograd = tiny(x)
    assert with_autograd.requires_grad
    torch.testing.assert_close(with_autograd.detach(), y, rtol=0, atol=1e-4)


def test_gradients_reach_every_parameter_also_of_a_prepared_network(tiny: FullGenerator) -> None:
    x = golden("gpen_tiny_64")[0][:1]
    network = copy.deepcopy(tiny).prepare()
    network(x).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


SMALL = Architecture(size=16, channel_multiplier=1, narrow=0.0157, n_mlp=1, style_dim=8)


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gradient_of_the_generator_is_the_slope() -> None:
    torch.manual_seed(0)
    network = FullGenerator(SMALL).double()
    network.compute_dtype = torch.float64
    for name, parameter in network.named_parameters():
        if name.endswith("noise.weight"):
            torch.nn.init.ones_(parameter)
    x, direction, weights = (noise(2, 3, 16, 16, seed=seed) for seed in range(3))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((network(x) * weights).sum(), x)
    with torch.inference_mode():
        ahead, behind = ((network(x + h * direction) * weights).sum() for h in (1e-6, -1e-6))
    assert (gradient * direction).sum().item() == pytest.approx((ahead - behind).item() / 2e-6, rel=1e-5)


def test_discriminator_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    network = Discriminator(SMALL).double()
    x = noise(2, 3, 16, 16, seed=0)

    def penalty() -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(leaf).sum(), leaf, create_graph=True)
        return gradient.square().sum()

    parameter = network.convs[1].conv2[1].weight
    (second,) = torch.autograd.grad(penalty(), parameter)
    direction = noise(*parameter.shape, seed=1)
    values = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            parameter += step * direction
        values.append(penalty().item())
    assert (second * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.08)])
def test_half_precision_stays_close(tiny: FullGenerator, dtype: torch.dtype, tolerance: float) -> None:
    x, y, _ = golden("gpen_tiny_64")
    x, y = x[:1], y[:1]
    network = copy.deepcopy(tiny).prepare(dtype)
    with torch.inference_mode():
        result = network(x)
    assert result.dtype == torch.float32
    assert (result - y).abs().max() < tolerance * y.abs().max()


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 60), (torch.bfloat16, 45)])
def test_the_shipped_model_in_half_precision(dtype: torch.dtype, least: float) -> None:
    """Black, white, gray, saturated and noisy pictures: nothing overflows, and pixels are nearly the same."""
    path = shipped("weights") / "gpen-lite.pth"
    full, half = load_generator(path).prepare(), load_generator(path).prepare(dtype)
    for pictures in extremes(full.size, 1).values():
        with torch.inference_mode():
            x = pictures(0)
            exact, result = full(x), half(x)
        assert result.isfinite().all()
        peak = max(2.0, (exact.max() - exact.min()).item())
        assert 20 * math.log10(peak) - 10 * math.log10((result - exact).square().mean().item()) > least


def test_large_styles_and_weights_do_not_overflow_half_precision(tiny: FullGenerator) -> None:
    """Demodulation undoes any scale of style and weight, even one that float16 couldn't hold."""
    x, y, _ = golden("gpen_tiny_64")
    x, y = x[:1], y[:1]
    network = copy.deepcopy(tiny)
    for module in network.modules():
        if isinstance(module, StyledConv):
            for parameter in (module.conv.weight, module.conv.modulation.weight, module.conv.modulation.bias):
                parameter.data *= 3e4
    with torch.inference_mode():
        torch.testing.assert_close(network(x), y, rtol=0, atol=1e-4)
        assert (network.prepare(torch.float16)(x) - y).abs().max() < 0.01 * y.abs().max()


def test_activations_beyond_float16_are_clamped(tiny: FullGenerator) -> None:
    x = golden("gpen_tiny_64")[0][:1]
    network = copy.deepcopy(tiny)
    for name, parameter in network.named_parameters():
        if name.startswith("ecd") and name.endswith("weight"):
            parameter.data *= 1e3
    with torch.inference_mode():
        assert not network(x).isnan().any()
        assert network.prepare(torch.float16)(x).isfinite().all()


@pytest.mark.parametrize("size", [8, 63, 100, 4096])
def test_sizes_outside_the_channel_table_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size {size}: must be one of 16, 32, 64, 128, 256, 512, 1024, 2048"):
        Architecture(size=size)


@pytest.mark.parametrize("size", [128, 256, 512, 1024, 2048])
def test_every_size_works(size: int) -> None:
    torch.manual_seed(size)
    network = FullGenerator(Architecture(size=size, channel_multiplier=1, narrow=0.125, n_mlp=1, style_dim=16))
    network.prepare()
    with torch.inference_mode():
        restored = network(torch.linspace(-1, 1, size).expand(1, 3, size, size))
    assert restored.shape == (1, 3, size, size)
    assert restored.isfinite().all()
    assert restored.std() > 0


def test_a_network_can_be_exported_for_any_batch() -> None:
    network = FullGenerator(SMALL).prepare().requires_grad_(False)
    x = torch.linspace(-1, 1, 4 * 3 * 16 * 16).view(4, 3, 16, 16)
    exported = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},)).module()
    with torch.inference_mode():
        for count in (1, 4):
            torch.testing.assert_close(exported(x[:count]), network(x[:count]), rtol=0, atol=1e-5)
