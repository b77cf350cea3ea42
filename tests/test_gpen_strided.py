"""Convolutions that change the size by two give what the common ones give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpenvid.gpen import halves, strided, threads
from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.ops import EqualConv2d, ModulatedConv2d
from gpenvid.gpen.winograd import filtering


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SHAPES = [(1, 16, 16, 16, 16), (2, 48, 32, 16, 32), (3, 32, 16, 48, 16), (1, 128, 64, 64, 64)]
"""Pictures, inputs, outputs, height and width of the smaller map."""


def enlarged(count: int, inputs: int, outputs: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """What `transpose` and PyTorch, in float64, make of noise."""
    x, scale = noise(count, inputs, height, width), noise(count, inputs, seed=1)
    weight = noise(outputs, inputs, 3, 3, seed=2) / (9 * inputs) ** 0.5
    result = strided.transpose(x, scale, weight.transpose(0, 1), halves.transform_weight(weight, forwards=False))
    scaled = (x * scale[:, :, None, None]).double()
    return result, F.conv_transpose2d(scaled, weight.double().transpose(0, 1), stride=2)


def reduced(count: int, inputs: int, outputs: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """What `convolve` and PyTorch, in float64, make of noise."""
    x, bias = noise(count, inputs, 2 * height + 1, 2 * width + 1), noise(outputs, seed=1)
    weight = noise(outputs, inputs, 3, 3, seed=2) / (9 * inputs) ** 0.5
    result = strided.convolve(x, halves.transform_weight(weight, forwards=True), bias)
    return result, F.leaky_relu(F.conv2d(x.double(), weight.double(), bias.double(), stride=2), 0.2)


@pytest.mark.parametrize("way", [enlarged, reduced])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(way, shape) -> None:  # type: ignore[no-untyped-def]
    result, wanted = way(*shape)
    torch.testing.assert_close(result.double(), wanted, rtol=0, atol=5e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("way", [enlarged, reduced])
def test_the_threads_share_the_work_and_give_the_same(way, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    wanted, _ = way(*SHAPES[-1])
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            torch.testing.assert_close(way(*SHAPES[-1])[0], wanted, rtol=0, atol=0)
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(threads, "_parallel", lambda: None)  # an OpenMP that can't be had
    torch.testing.assert_close(way(*SHAPES[-1])[0], wanted, rtol=0, atol=0)


@pytest.mark.parametrize("way", [enlarged, reduced])
def test_rounding_errors_stay_small(way) -> None:  # type: ignore[no-untyped-def]
    result, wanted = way(1, 512, 32, 16, 16)
    assert (result - wanted).abs().max() < 6e-5
    assert (result - wanted).std() < 6e-6


def test_the_filter_of_two_taps() -> None:
    a, g, b = filtering(halves.POINTS, 2)
    d, taps = np.random.default_rng(0).standard_normal((2, 5))
    np.testing.assert_allclose(a @ ((g @ taps[:2]) * (b @ d)), np.correlate(d, taps[:2], "valid"), rtol=1e-12)


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "wanted"),
    [(64, 32, 16, True), (64, 32, 8, False), (64, 32, 24, False), (64, 40, 16, False), (512, 512, 64, False)],
)
def test_small_maps_odd_widths_and_large_weights_go_the_other_way(
    inputs: int, outputs: int, size: int, wanted: bool
) -> None:
    assert (strided.pays(inputs, outputs) and strided.fits(size, size)) == wanted
    larger = torch.empty(1, 1, 2 * size + 1, 2 * size + 1)
    assert (strided.pays(inputs, outputs) and strided.fits_halved(larger)) == wanted
    assert not strided.fits_halved(larger[:, :, 1:])


def test_without_the_threads_of_pytorch_they_go_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_parallel", lambda: None)
    assert not strided.pays(64, 32)


def test_what_is_kept_is_used_on_a_cpu_in_float32_alone() -> None:
    conv = ModulatedConv2d(64, 32, 8, size=32)
    conv.prepare(torch.float32)
    x = noise(1, 64, 32, 32)
    with torch.inference_mode():
        assert conv.by_winograd(x)
        assert not conv.by_winograd(x.double())
        assert not conv.to("meta").by_winograd(x.to("meta"))  # a network may be moved after it was prepared
    assert not conv.by_winograd(x)  # autograd is on


SMALL = Architecture(size=64, channel_multiplier=1, narrow=0.125, n_mlp=1, style_dim=8)


def test_the_whole_network_gives_the_same_and_learns_as_before() -> None:
    torch.manual_seed(0)
    network = FullGenerator(SMALL)
    for name, parameter in network.named_parameters():
        if name.endswith(("noise.weight", "bias")):
            torch.nn.init.normal_(parameter)
    x = noise(3, 3, 64, 64).clamp(-1, 1)
    with torch.inference_mode():
        direct, quick = network(x), network.prepare()(x)
    kept = [name for name, each in network.named_modules() if getattr(each, "prepared_winograd", None) is not None]
    layers = dict(network.named_modules())
    assert {type(layers[name]) for name in kept} == {EqualConv2d, ModulatedConv2d}
    assert "generator.convs.6.conv" in kept and "ecd1.0.1" in kept  # to 64 pixels, and from there
    assert not torch.equal(quick, direct)
    torch.testing.assert_close(quick, direct, rtol=0, atol=5e-5)
    network(x[:1]).sum().backward()  # autograd takes the direct way, and reaches the parameters
    assert all(layers[name].weight.grad.abs().sum() > 0 for name in kept)
