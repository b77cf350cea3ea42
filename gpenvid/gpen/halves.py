"""Convolutions that change the size by two, with little more than half of the multiplications: what both ways share.

What is even and what is odd in a direction of the larger map are looked at apart. In one dimension the middle tap joins
the smaller map to the odd half, pixel by pixel; the outer two join it to the even half, as a filter of two taps, four
results of which take five products instead of eight (Toom and Cook's, as in `winograd`). So 4 x 4 pixels of the smaller
map take 81 products per pair of channels instead of 144, with 36 matrices of weights: what is odd in a direction has
the same there for all four.

Planes of pieces and products, (81, ROOM, channels), are in the order of the weights: even in both directions, (5, 5);
even downwards, (5, 4); even across, (5, 4), those across first; odd, (4, 4).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpenvid.gpen.lanes import WIDTH, load, spread, store
from gpenvid.gpen.products import multiply
from gpenvid.gpen.transforms import BLOCK
from gpenvid.gpen.winograd import filtering, panels
from gpenvid.native import compiled, inlined

POINTS = (0.0, 1.0, -1.0, 2.0)

LEAST_SIZE = 16
"""Height and width of the smaller map from which this is faster than oneDNN's way; they are multiples of it."""

LARGEST = 12 << 20
"""Bytes of a transformed weight up to which it is: each thread reads the weights for every group of its blocks."""

GROUP = 3
ROOM = GROUP * BLOCK
"""Pieces that a thread has at once, `GROUP` blocks of them."""

SCRATCH = 9 * 33 * WIDTH
"""Numbers that a thread needs room for between the two directions of a transform."""


def transform_weight(weight: Tensor, *, forwards: bool) -> Tensor:
    """(O, I, 3, 3) to (36, O / 16, I, 16).

    forwards: the first of the even half's two taps comes first, as in a convolution; else last, as in a transposed one.
    """
    g, weight = torch.from_numpy(filtering(POINTS, 2)[1]).to(weight.device), weight.double()
    outer = [0, 2] if forwards else [2, 0]
    even = weight[:, :, outer]
    parts = [
        torch.einsum("ua,ocab,vb->uvco", g, even[..., outer], g).flatten(0, 1),
        torch.einsum("ua,oca->uco", g, even[..., 1]),
        torch.einsum("ua,oca->uco", g, weight[:, :, 1][..., outer]),
        weight[:, :, 1, 1].T[None],
    ]
    return panels(torch.cat(parts).float())


@compiled
def multiply_all(pieces: Any, weight: Any, products: Any, inputs: int, outputs: int) -> None:
    """All products of ROOM pieces."""
    plane = 0
    for i in range(36):
        planes = 1 if i < 25 else 4 if i < 35 else 16
        at, start, to = plane * ROOM * inputs, i * inputs * outputs, plane * ROOM * outputs
        multiply(pieces, at, weight, start, products, to, planes * ROOM, inputs, outputs)
        plane += planes


@inlined
def planes_of(line: int) -> tuple[int, int, int]:
    """The first plane of what is even across in a line (even downwards, then odd), how far they are apart; of odd."""
    if line < 5:
        return 5 * line, 1, 25 + 4 * line
    return 40 + line, 4, 45 + 4 * line


@inlined
def store_even(d0: Any, d1: Any, d2: Any, d3: Any, d4: Any, out: Any, to: int, step: int) -> None:
    """Write B d to out[to], step apart."""
    two = spread(np.float32(2))
    outer = d3 - d1
    store(out, to, two * (d0 - d2) + outer)
    store(out, to + step, outer - two * d1 + (d1 - d2))
    store(out, to + 2 * step, outer + two * (d1 - d2) + (d1 - d2))
    store(out, to + 3 * step, outer)
    store(out, to + 4 * step, d4 - d2 - two * outer)


@inlined
def store_four(d0: Any, d1: Any, d2: Any, d3: Any, out: Any, to: int, step: int) -> None:
    """Write them to out[to], step apart."""
    store(out, to, d0)
    store(out, to + step, d1)
    store(out, to + 2 * step, d2)
    store(out, to + 3 * step, d3)


@inlined
def filtered(products: Any, at: int, apart: int) -> tuple[Any, Any, Any, Any]:
    """A p, of five products that lie apart."""
    p0, p1, p2 = load(products, at), load(products, at + apart), load(products, at + 2 * apart)
    p3, p4 = load(products, at + 3 * apart), load(products, at + 4 * apart)
    even, odd, two = p1 + p2, p1 - p2, spread(np.float32(2))
    twice = two * p3
    return p0 + even + p3, odd + twice, even + two * twice, odd + two * two * twice + p4
