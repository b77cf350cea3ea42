"""The transforms of a convolution with stride 2, as machine code: the larger map of `halves` is the input.

What `job` tells is said in `strided`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpenvid.gpen.activation import SLOPE
from gpenvid.gpen.halves import ROOM, filtered, planes_of, store_even, store_four
from gpenvid.gpen.lanes import larger, load, spread
from gpenvid.native import compiled, floats_at


@compiled
def read(job: Any, block: int, s: Any, pieces: Any, place: int) -> None:
    """Transform a block of the inputs to `pieces`, from `place` on in each plane."""
    height, width, inputs, x = job.height, job.width, job.inputs, floats_at(job.x)
    row, left = block // (width // 16), 16 * (block % (width // 16))
    picture, top = row // (height // 4), 4 * (row % (height // 4))
    line, plane = (2 * width + 1) * inputs, ROOM * inputs
    for c in range(0, inputs, 16):
        for k in range(33):
            at = ((picture * (2 * height + 1) + 2 * top) * (2 * width + 1) + 2 * left + k) * inputs + c
            d0, d1, d2 = load(x, at), load(x, at + 2 * line), load(x, at + 4 * line)
            store_even(d0, d1, d2, load(x, at + 6 * line), load(x, at + 8 * line), s, 16 * k, 16 * 33)
            d0, d1, d2 = load(x, at + line), load(x, at + 3 * line), load(x, at + 5 * line)
            store_four(d0, d1, d2, load(x, at + 7 * line), s, 16 * (5 * 33 + k), 16 * 33)
        for column in range(4):
            for i in range(9):
                even, apart, odd = planes_of(i)
                at, to = 16 * (33 * i + 8 * column), (place + column) * inputs + c
                d0, d1, d2 = load(s, at), load(s, at + 32), load(s, at + 64)
                store_even(d0, d1, d2, load(s, at + 96), load(s, at + 128), pieces, even * plane + to, apart * plane)
                d0, d1, d2 = load(s, at + 16), load(s, at + 48), load(s, at + 80)
                store_four(d0, d1, d2, load(s, at + 112), pieces, odd * plane + to, plane)


@compiled
def write(job: Any, block: int, s: Any, products: Any, place: int) -> None:
    """Transform a block of products, from `place` on in each plane, to the outputs."""
    height, width, outputs, y, biases = job.height, job.width, job.outputs, floats_at(job.y), floats_at(job.bias)
    row, left = block // (width // 16), 16 * (block % (width // 16))
    picture, top, plane = row // (height // 4), 4 * (row % (height // 4)), ROOM * outputs
    for c in range(0, outputs, 16):
        bias, slope = load(biases, c), spread(np.float32(SLOPE))
        for column in range(4):
            for i in range(9):
                even, apart, odd = planes_of(i)
                at, to = (place + column) * outputs + c, 16 * (16 * i + 4 * column)
                o0, o1, o2, o3 = filtered(products, even * plane + at, apart * plane)
                o0, o1 = o0 + load(products, odd * plane + at), o1 + load(products, (odd + 1) * plane + at)
                o2, o3 = o2 + load(products, (odd + 2) * plane + at), o3 + load(products, (odd + 3) * plane + at)
                store_four(o0, o1, o2, o3, s, to, 16)
        for x in range(16):
            o0, o1, o2, o3 = filtered(s, 16 * x, 16 * 16)
            o0, o1 = o0 + load(s, 16 * (80 + x)) + bias, o1 + load(s, 16 * (96 + x)) + bias
            o2, o3 = o2 + load(s, 16 * (112 + x)) + bias, o3 + load(s, 16 * (128 + x)) + bias
            to = ((picture * height + top) * width + left + x) * outputs + c
            step = width * outputs
            store_four(
                larger(o0, o0 * slope),
                larger(o1, o1 * slope),
                larger(o2, o2 * slope),
                larger(o3, o3 * slope),
                y,
                to,
                step,
            )
