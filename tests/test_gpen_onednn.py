"""oneDNN's own operators give what PyTorch's functions give, and are asked only where they may be."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpenvid.gpen import onednn
from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.ops import EqualConv2d, EqualLinear, Upsample
from gpenvid.gpen.prepared import Prepared

SMALL = Architecture(size=64, channel_multiplier=1, narrow=0.0625, n_mlp=1, style_dim=8)

operators = pytest.mark.skipif(not onednn.available(), reason="this build of PyTorch has no such operators")


def noise(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def network() -> FullGenerator:
    torch.manual_seed(0)
    made = FullGenerator(SMALL)
    for name, parameter in made.named_parameters():
        if name.endswith(("noise.weight", "bias")):
            torch.nn.init.normal_(parameter)
    return made.requires_grad_(False)


@operators
@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_convolution_with_what_follows(stride: int, padding: int, packed: bool) -> None:
    x, weight, bias = noise(2, 6, 9, 9), noise(6, 6, 3, 3, seed=1), noise(6, seed=2)
    given = onednn.pack(weight, stride=stride, padding=padding) if packed else weight
    with torch.inference_mode():
        result = onednn.convolve(x, given, bias, stride=stride, padding=padding, after=onednn.leaky(0.2))
    wanted = F.leaky_relu(F.conv2d(x, weight, bias, stride=stride, padding=padding), 0.2)
    torch.testing.assert_close(result, wanted, rtol=0, atol=1e-5)


@operators
def test_a_transposed_convolution() -> None:
    x, weight = noise(1, 6, 8, 8), noise(6, 4, 3, 3, seed=3)
    with torch.inference_mode():
        larger = onednn.transpose(x, onednn.pack_transposed(weight, stride=2), stride=2)
    torch.testing.assert_close(larger, F.conv_transpose2d(x, weight, stride=2), rtol=0, atol=1e-5)


@operators
def test_a_weight_waits_in_the_order_that_each_shape_of_inputs_wants(capfd: pytest.CaptureFixture[str]) -> None:
    weight, upwards = noise(256, 256, 3, 3), noise(256, 128, 3, 3, seed=1)
    maps = [noise(count, 256, side, side, seed=2) for count, side in [(1, 4), (1, 16), (1, 32), (3, 16)]]

    class ForOneShape(onednn.Packed):
        """As if all inputs had the shape of the first."""

        def suiting(self, x: Tensor) -> Tensor:
            return super().suiting(maps[0])

    def convolve(packed: onednn.Packed, larger: onednn.Packed) -> list[Tensor]:
        alike = [onednn.convolve(x, packed, None, padding=1) for x in maps]
        return alike + [onednn.transpose(x, larger, stride=2) for x in maps]

    def done(*packed: onednn.Packed) -> list[str]:
        """What oneDNN says that it does."""
        convolve(*packed)
        capfd.readouterr()
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):  # type: ignore[no-untyped-call]
            convolve(*packed)
        return [line for line in capfd.readouterr().out.splitlines() if ",exec," in line]

    pair = onednn.pack(weight, padding=1), onednn.pack_transposed(upwards, stride=2)
    with torch.inference_mode():
        results, steps = convolve(*pair), done(*pair)
        others = done(*(ForOneShape(each._reorder, each._weight, *each._settings) for each in pair))
        assert pair[0].suiting(maps[0]) is pair[0].suiting(torch.empty_like(maps[0]))
    assert 2 * len(maps) <= len(steps) <= len(others)
    assert not any(",reorder,simple" in step for step in steps), "oneDNN's slowest way to another order"
    wanted = [F.conv2d(x, weight, padding=1) for x in maps] + [F.conv_transpose2d(x, upwards, stride=2) for x in maps]
    torch.testing.assert_close(results, wanted, rtol=0, atol=1e-3)


@operators
def test_where_it_may_be_asked() -> None:
    x = noise(1, 2, 4, 4)
    with torch.inference_mode():
        assert onednn.takes(x)
        assert not onednn.takes(x.double())
        assert not onednn.takes(x.to("meta"))
    assert not onednn.takes(x)  # autograd is on

    answers = []

    def asks(x: Tensor) -> Tensor:
        answers.append(onednn.takes(x))
        return x + 1

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.trace(asks, x, check_trace=False)
    assert answers == [False]


def test_a_build_that_changed_its_operators_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(2, 3, 64, 64).clamp(-1, 1)
    onednn.available.cache_clear()
    monkeypatch.setattr(onednn, "convolve", lambda *args, **named: torch.zeros(1, 2, 3, 3))
    try:
        with torch.inference_mode():
            made = network().prepare()
            assert not onednn.available()
            assert all(each.packed is None for each in made.modules() if isinstance(each, Prepared))
            common = made(x)
    finally:
        monkeypatch.undo()
        onednn.available.cache_clear()
    with torch.inference_mode():
        torch.testing.assert_close(network().prepare()(x), common, rtol=0, atol=1e-5)


@operators
@pytest.mark.parametrize("count", [1, 3])
def test_the_whole_network_gives_the_same(count: int) -> None:
    x = noise(count, 3, 64, 64).clamp(-1, 1)
    made = network()
    with torch.enable_grad():
        common = made(x)  # where autograd is on, PyTorch's own functions do everything
    with torch.inference_mode():
        torch.testing.assert_close(made(x), common, rtol=0, atol=1e-5)
        torch.testing.assert_close(made.prepare()(x), common, rtol=0, atol=1e-5)


@operators
def test_what_is_packed_goes_with_what_it_was_made_from() -> None:
    made = network().prepare()
    layers = [each for each in made.modules() if isinstance(each, Prepared)]
    assert all(each.packed is not None or each.prepared_winograd is not None for each in layers)
    x = noise(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(copy.deepcopy(made)(x), made(x), rtol=0, atol=0)
        torch.testing.assert_close(pickle.loads(pickle.dumps(made))(x), made(x), rtol=0, atol=1e-5)
    made.load_state_dict(made.state_dict())
    assert all(each.packed is each.prepared_winograd is None for each in layers)
    assert all(each.packed is each.prepared_winograd is None for each in layers if each.prepare(torch.bfloat16))
    made.prepare().train()
    assert all(each.packed is each.prepared_winograd is None for each in layers)


@operators
def test_layers_by_themselves() -> None:
    torch.manual_seed(0)
    x, rgb = noise(2, 6, 9, 9), noise(2, 3, 5, 7)
    convolution, linear, upsample = EqualConv2d(6, 4, 3, stride=2, gain=1.5), EqualLinear(6, 5, lr_mul=0.5), Upsample()
    torch.nn.init.normal_(linear.bias)
    bias = noise(4, seed=1)
    common = convolution(x, bias, activated=True), upsample(rgb), linear(x[..., 0, 0])
    convolution.prepare(torch.float32)
    with torch.inference_mode():
        packed = convolution(x, bias, activated=True), upsample(rgb), linear(x[..., 0, 0])
    for one, other in zip(packed, common, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    wanted = x[..., 0, 0] @ (linear.weight * 0.5 / 6**0.5).T + linear.bias * 0.5
    torch.testing.assert_close(common[2], wanted, rtol=0, atol=1e-6)
