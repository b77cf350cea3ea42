"""Winograd's way gives what the direct one gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from gpenvid.gpen import threads, winograd
from gpenvid.gpen.activation import Raw
from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.ops import ModulatedConv2d
from gpenvid.gpen.products import multiply
from gpenvid.native import floats_at


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_filter_of_one_dimension() -> None:
    a, g, b = winograd.filtering()
    d, taps = np.random.default_rng(0).standard_normal((2, 6))
    np.testing.assert_allclose(a @ ((g @ taps[:3]) * (b @ d)), np.correlate(d, taps[:3], "valid"), rtol=1e-12)


def raw(x: Tensor, seed: int) -> Raw:
    return Raw(x, noise(*x.shape[:2], seed=seed).abs() + 0.5, noise(x.shape[1], seed=seed + 1))


def meant(each: Raw) -> Tensor:
    return F.leaky_relu(each.map * each.gain[:, :, None, None] + each.shift[:, None, None], 0.2)


class Case:
    """All that a styled convolution is given, and what it gives according to PyTorch, in float64."""

    def __init__(self, count: int, inputs: int, outputs: int, height: int, width: int) -> None:
        halves = [noise(count, inputs // 2, height, width, seed=seed) for seed in (0, 1)]
        self.own, self.foreign, self.more = (
            raw(each, 10 * i) for i, each in enumerate([*halves, noise(count, outputs, height, width, seed=2)])
        )
        self.weight = noise(outputs, inputs, 3, 3, seed=3) / (9 * inputs) ** 0.5
        self.scale, self.gain = noise(count, inputs, seed=4), noise(count, outputs, seed=5).abs() + 0.5
        self.shift, self.matrix = noise(outputs, seed=6), noise(count, 3, 2 * outputs, seed=7) / outputs**0.5
        own, foreign, more = (Raw(*(each.double() for each in it)) for it in (self.own, self.foreign, self.more))
        x = torch.cat([meant(own), meant(foreign)], dim=1) * self.scale.double()[:, :, None, None]
        convolved = F.conv2d(x, self.weight.double(), padding=1)
        self.maps = torch.cat([meant(Raw(convolved, self.gain.double(), self.shift.double())), meant(more)], dim=1)
        self.rgb = torch.einsum("nkc,nchw->nkhw", self.matrix.double(), self.maps)

    def convolve(self, *, keep: bool = True) -> tuple[Tensor, Tensor]:
        weight = winograd.transform_weight(self.weight)
        raws = self.own, self.foreign
        return winograd.convolve(*raws, self.scale, weight, self.gain, self.shift, self.more, self.matrix, keep=keep)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("count", "inputs", "outputs", "height", "width"),
    [(1, 32, 16, 16, 16), (2, 64, 48, 16, 32), (5, 32, 16, 48, 16), (3, 96, 16, 64, 64)],
)
def test_every_shape(
    alone: bool, count: int, inputs: int, outputs: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread for itself, or all together, which is for large weights."""
    monkeypatch.setattr(winograd, "NARROW", 8 << 20 if alone else 0)
    case = Case(count, inputs, outputs, height, width)
    maps, rgb = case.convolve()
    torch.testing.assert_close(maps.double(), case.maps, rtol=0, atol=5e-5)
    torch.testing.assert_close(rgb.double(), case.rgb, rtol=0, atol=5e-5)
    assert maps.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(case.convolve(keep=False)[1], rgb, rtol=0, atol=0)


def test_maps_in_any_order_of_memory() -> None:
    case = Case(2, 32, 16, 16, 16)
    maps, rgb = case.convolve()
    for name in ("own", "foreign", "more"):
        setattr(case, name, getattr(case, name)._replace(map=getattr(case, name).map.flip(3).flip(3).contiguous()))
    case.scale, case.gain = case.scale.T.contiguous().T, case.gain.T.contiguous().T
    torch.testing.assert_close(case.convolve(), (maps, rgb), rtol=0, atol=0)


@pytest.mark.parametrize("alone", [True, False])
def test_the_threads_share_the_work_and_give_the_same(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "NARROW", 8 << 20 if alone else 0)
    case, before = Case(2, 64, 32, 64, 64), torch.get_num_threads()
    wanted = case.convolve()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            torch.testing.assert_close(case.convolve(), wanted, rtol=0, atol=0)
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(threads, "_parallel", lambda: None)  # an OpenMP that can't be had
    assert not threads.available()
    torch.testing.assert_close(case.convolve(), wanted, rtol=0, atol=0)


def test_what_is_not_a_number_stays_so() -> None:
    case = Case(1, 32, 16, 16, 16)
    case.own.map[0, 3, 5, 7] = float("nan")
    maps, _ = case.convolve()
    assert maps[0, :16, 4:7, 6:9].isnan().all()
    assert not maps[0, 16:].isnan().any()


def test_rounding_errors_stay_small() -> None:
    case = Case(1, 512, 64, 16, 16)
    error = case.convolve()[0].double()[:, :64] - case.maps[:, :64]
    assert error.abs().max() < 3e-5
    assert error.std() < 3e-6


@pytest.mark.parametrize("shape", [(6, 8, 16), (12, 64, 48)])
def test_products_of_small_matrices(shape: tuple[int, int, int]) -> None:
    rows, depth, columns = shape
    a, b = np.random.default_rng(0).standard_normal((2, 4096)).astype(np.float32)
    a, b = a[: rows * depth].reshape(rows, depth), b[: depth * columns].reshape(depth, columns)
    panels, out = (
        np.ascontiguousarray(b.reshape(depth, -1, 16).transpose(1, 0, 2)),
        np.zeros((rows, columns), np.float32),
    )

    @njit
    def product(a: Any, b: Any, out: Any) -> None:
        places = floats_at(a.ctypes.data), floats_at(b.ctypes.data), floats_at(out.ctypes.data)
        multiply(places[0], 0, places[1], 0, places[2], 0, rows, depth, columns)

    product(a, panels, out)
    np.testing.assert_allclose(out, a @ b, atol=1e-5)


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


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "wanted"),
    [(64, 32, 256, True), (64, 32, 8, False), (64, 32, 20, False), (72, 32, 64, False), (64, 40, 64, False)],
)
def test_small_maps_and_odd_widths_go_the_other_way(inputs: int, outputs: int, size: int, wanted: bool) -> None:
    assert winograd.pays(inputs, outputs, size) == wanted


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
