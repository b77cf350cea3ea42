"""Convolutions on a CPU as oneDNN can do them but `torch.nn.functional` doesn't ask it to.

Weights wait in oneDNN's own order instead of being brought into it at every call, and bias and activation are done
while the results are still in registers. The operators are those that `torch.compile` makes use of; where a build
of PyTorch lacks them, or they have changed, `takes` says no, and callers go the common way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

PLAIN: tuple[Any, ...] = ("none", [], "")


def leaky(slope: float) -> tuple[Any, ...]:
    """The leaky ReLU, as the operators want it told."""
    return "leaky_relu", [slope], ""


@cache
def available() -> bool:
    """Whether this build of PyTorch has the operators and they do what they are asked."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # One result each of a sum, and of a sum that a larger picture spreads: what they are can be counted.
    x, weight = torch.ones(1, 2, 3, 3), torch.full((2, 2, 3, 3), -1.0)
    try:
        with torch.inference_mode():
            total = convolve(x, pack(weight, padding=1), weight.new_ones(2), padding=1, after=leaky(0.5))
            larger = transpose(x, pack_transposed(weight, stride=2), stride=2)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    middle = [float(each[0, 0, 1, 1]) for each in (total, larger)]
    return middle == [-8.5, -2.0]


def takes(x: Tensor) -> bool:
    """Whether these convolutions can work on x: float32 on a CPU, with nothing watching that must see PyTorch's own."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled():
        return False
    watched = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return not watched and available()


class Packed:
    """A weight in the order that oneDNN prefers, which depends on the processor and on what it is applied to.

    It is brought into that order once for each shape of inputs; shapes that want the same order share it, and so do
    copies of a network, as it never changes.
    """

    __slots__ = ("_by_order", "_by_shape", "_reorder", "_settings", "_weight")

    def __init__(self, reorder: Callable[..., Tensor], weight: Tensor, *settings: Any) -> None:
        """reorder: oneDNN's, given the weight, the settings and the shape of the inputs."""
        self._reorder = reorder
        self._weight = weight
        self._settings = settings
        self._by_shape: dict[torch.Size, Tensor] = {}
        self._by_order: dict[bytes, Tensor] = {}

    def suiting(self, x: Tensor) -> Tensor:
        """The weight, for inputs of x's shape."""
        kept = self._by_shape.get(x.shape)
        if kept is None:
            made = self._reorder(self._weight, *self._settings, x.shape)
            order = bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(made).numpy())
            kept = self._by_shape[x.shape] = self._by_order.setdefault(order, made)
        return kept

    def __deepcopy__(self, memo: dict[int, Any]) -> Packed:
        """The same."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Nothing: what is packed is derived, and is packed again where it is wanted."""
        return type(None), ()


def pack(weight: Tensor, *, stride: int = 1, padding: int = 0) -> Packed:
    """The weight (O, I, k, k) of a convolution, float32."""
    return Packed(torch.ops.mkldnn._reorder_convolution_weight, weight, [padding] * 2, [stride] * 2, [1, 1], 1)


def pack_transposed(weight: Tensor, *, stride: int) -> Packed:
    """The weight (I, O, k, k) of a transposed convolution, float32."""
    reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
    return Packed(reorder, weight, [0, 0], [0, 0], [stride] * 2, [1, 1], 1)


def convolve(
    x: Tensor,
    weight: Tensor | Packed,
    bias: Tensor | None,
    *,
    stride: int = 1,
    padding: int = 0,
    after: tuple[Any, ...] = PLAIN,
) -> Tensor:
    """Correlate x (N, I, H, W), channels-last, with (O, I, k, k), add the bias, then do `after`."""
    weight = weight.suiting(x) if isinstance(weight, Packed) else weight
    operator = torch.ops.mkldnn._convolution_pointwise
    result: Tensor = operator(x, weight, bias, [padding] * 2, [stride] * 2, [1, 1], 1, *after)
    return result


def transpose(x: Tensor, weight: Packed, *, stride: int) -> Tensor:
    """The transposed convolution of x (N, I, H, W), channels-last, by (I, O, k, k), without padding."""
    operator = torch.ops.mkldnn._convolution_transpose_pointwise
    result: Tensor = operator(x, weight.suiting(x), None, [0, 0], [0, 0], [stride] * 2, [1, 1], 1, *PLAIN)
    return result
