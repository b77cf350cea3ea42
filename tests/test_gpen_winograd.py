"""Winograd's way gives what the direct one gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gpenvid.gpen import winograd
from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.ops import ModulatedConv2d


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_filter_of_one_dimension() -> None:
    a, g, b = winograd.matrices()
    d, taps = np.random.default_rng(0).standard_normal((2, 6))
    np.testing.assert_allclose(a @ ((g @ taps[:3]) * (b @ d)), np.correlate(d, taps[:3], "valid"), rtol=1e-12)


@pytest.mark.parametrize(
    ("count", "inputs", "outputs", "height", "width"),
    [(1, 3, 5, 4, 4), (2, 8, 4, 8, 12), (5, 16, 16, 32, 16), (3, 2, 2, 64, 64)],
)
def test_every_shape(count: int, inputs: int, outputs: int, height: int, width: int) -> None:
    x = noise(count, inputs, height, width).double()
    weight = noise(outputs, inputs, 3, 3, seed=1).double()
    result = winograd.convolve(x, winograd.transform_weight(weight))
    torch.testing.assert_close(result, F.conv2d(x, weight, padding=1), rtol=0, atol=1e-11)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_rounding_errors_stay_small() -> None:
    x, weight = noise(1, 512, 16, 16), noise(64, 512, 3, 3, seed=1) / (9 * 512) ** 0.5
    result = winograd.convolve(x, winograd.transform_weight(weight))
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    assert (result - exact).abs().max() < 3e-5
    assert (result - exact).std() < 3e-6


WIDE = Architecture(size=32, channel_multiplier=1, narrow=0.5, n_mlp=1, style_dim=8)


def test_it_is_taken_only_where_it_pays_and_may() -> None:
    torch.manual_seed(0)
    network = FullGenerator(WIDE)
    layers = {name: each for name, each in network.named_modules() if isinstance(each, ModulatedConv2d)}
    kept = [name for name, each in layers.items() if each.prepare(torch.float32) or each.prepared_winograd is not None]
    assert kept == ["generator.convs.3.conv", "generator.convs.5.conv"]  # 16 and 32 pixels, not upsampled
    network.prepare(torch.bfloat16)
    assert all(each.prepared_winograd is None for each in layers.values())
    network.prepare().train()
    assert all(each.prepared_winograd is None for each in layers.values())


def test_the_whole_network_gives_the_same() -> None:
    torch.manual_seed(0)
    network = FullGenerator(WIDE)
    x = noise(3, 3, 32, 32).clamp(-1, 1)
    with torch.inference_mode():
        direct = network(x)
        quick = network.prepare()(x)
        single = torch.cat([network(one[None]) for one in x])
    assert not torch.equal(quick, direct)
    torch.testing.assert_close(quick, direct, rtol=0, atol=2e-5)
    torch.testing.assert_close(single, quick, rtol=0, atol=1e-5)
    assert network.state_dict().keys() == FullGenerator(WIDE).state_dict().keys()
    network(x[:1]).sum().backward()  # autograd takes the direct way, and reaches the parameters
    assert network.generator.convs[3].conv.weight.grad.abs().sum() > 0
