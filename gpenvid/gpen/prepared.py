"""Layers that derive their weights from the parameters once and keep them while nothing changes.

Parameters stay float32; activations may be float16 or bfloat16. Then a convolution's weights are brought to a fixed
L1 norm per output, so that no sum of products can overflow, and the norm is multiplied back afterwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gpenvid.gpen import onednn
from gpenvid.gpen.onednn import Packed

HALF_NORM = 32.0
"""L1 norm of half precision weights: no output exceeds 32 times the largest input."""

HALF_CLAMP = 1024.0
"""Bound of half precision activations; 32 * 1024 lies within the range of float16."""

TINY = 1e-12


def exporting() -> bool:
    """Whether the network is being recorded for another engine, which has ways of its own to be fast."""
    exporting = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return exporting or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def is_half(dtype: torch.dtype) -> bool:
    """Whether activations of this type need bounded arithmetic."""
    return dtype in (torch.float16, torch.bfloat16)


class Weight(NamedTuple):
    """What a convolution derives from its parameters.

    tensor: (O, I, k, k), or (I, O, k, k) for a transposed one, in the activations' type; norm: (O,) or (1,), by which
    the outputs must be multiplied; energy: (O, I), sum over the taps of the squared parameters (modulated only).
    """

    tensor: Tensor
    norm: Tensor
    energy: Tensor


class Prepared(nn.Module, ABC):
    """A layer that can derive its weights once and keep them, for as long as the parameters don't change.

    What is kept moves with the module between devices and isn't part of the state dict. It is dropped by `train()`
    and by loading a state dict; whoever changes parameters otherwise calls `prepare` again.
    """

    weight: nn.Parameter
    prepared_tensor: Tensor | None
    prepared_winograd: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        for name in (*Weight._fields, "winograd"):
            self.register_buffer(f"prepared_{name}", None, persistent=False)
        self.packed: Packed | None = None

    @abstractmethod
    def derive(self, dtype: torch.dtype) -> Weight:
        """The weights for activations of this type, differentiable."""

    def prepare(self, dtype: torch.dtype | None) -> None:
        """Keep the weights for activations of this type; None forgets them."""
        with torch.no_grad():
            derived = (
                Weight(*(t.clone(memory_format=torch.preserve_format) for t in self.derive(dtype))) if dtype else None
            )
        for name in Weight._fields:
            setattr(self, f"prepared_{name}", getattr(derived, name, None))
        self.prepared_winograd = None

    def transform(self, dtype: torch.dtype | None, weight: Callable[[], Tensor]) -> None:
        """Keep the weight that this layer goes Winograd's way with, as far as it can: float32 on a CPU."""
        if dtype == torch.float32 and self.weight.device.type == "cpu":
            self.prepared_winograd = weight()

    def transformed(self) -> Tensor:
        """The weight kept by `transform`."""
        assert self.prepared_winograd is not None
        return self.prepared_winograd

    def by_winograd(self, x: Tensor) -> bool:
        """Whether x, of a fitting size, goes Winograd's way: it is kept, and nothing but the result is wanted."""
        if self.prepared_winograd is None or x.dtype != torch.float32 or x.device.type != "cpu":
            return False
        return not torch.is_grad_enabled() and not exporting()

    def pack(self, dtype: torch.dtype | None, order: Callable[[Tensor], Packed]) -> Packed | None:
        """The tensor that was just prepared as oneDNN wants it, where that can be used; else None."""
        tensor = self.prepared_tensor
        usable = dtype == torch.float32 and tensor is not None and tensor.device.type == "cpu" and onednn.available()
        return order(tensor) if tensor is not None and usable else None

    def weights(self, dtype: torch.dtype) -> Weight:
        """The weights kept, or derived now: always so when gradients must reach the parameters."""
        kept = self.prepared_tensor
        if kept is None or kept.dtype != dtype or (torch.is_grad_enabled() and self.weight.requires_grad):
            return self.derive(dtype)
        return Weight(*(getattr(self, f"prepared_{name}") for name in Weight._fields))

    def train(self, mode: bool = True) -> Prepared:
        """Training changes the parameters: forget what was derived from them."""
        if mode:
            self.prepare(None)
        return super().train(mode)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], *args: Any) -> None:
        self.prepare(None)
        super()._load_from_state_dict(state_dict, *args)


def bounded(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(O, I, k, k) in another type, and what to multiply the outputs by: all ones unless it is a half type."""
    if not is_half(dtype):
        return weight, weight.new_ones(1)
    norm = weight.abs().sum(dim=(1, 2, 3)).clamp(min=TINY) / HALF_NORM
    return (weight / norm[:, None, None, None]).to(dtype), norm
