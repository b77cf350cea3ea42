"""The transforms of a transposed convolution with stride 2, as machine code: the larger map of `halves` is the result.

What `job` tells is said in `strided`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpenvid.gpen.halves import ROOM, filtered, planes_of, store_even, store_four
from gpenvid.gpen.lanes import load, spread, store
from gpenvid.native import compiled, floats_at


@compiled
def read(job: Any, block: int, s: Any, pieces: Any, place: int) -> None:
    """Transform a block of the inputs to `pieces`, from `place` on in each plane."""
    height, width, inputs, x, scales = job.height, job.width, job.inputs, floats_at(job.x), floats_at(job.scale)
    row, left = block // (width // 16), 16 * (block % (width // 16)) - 1
    picture, top = row // (height // 4), 4 * (row % (height // 4))
    for c in range(0, inputs, 16):
        scale, nothing = load(scales, picture * inputs + c), spread(np.float32(0))
        for k in range(17):
            at, line = ((picture * height + top) * width + left + k) * inputs + c, width * inputs
            d0 = d1 = d2 = d3 = d4 = nothing
            if left + k >= 0:
                if top:
                    d0 = load(x, at - line) * scale
                d1, d2 = load(x, at) * scale, load(x, at + line) * scale
                d3, d4 = load(x, at + 2 * line) * scale, load(x, at + 3 * line) * scale
            store_even(d0, d1, d2, d3, d4, s, 16 * k, 16 * 17)
            store_four(d1, d2, d3, d4, s, 16 * (5 * 17 + k), 16 * 17)
        for column in range(4):
            for i in range(9):
                even, apart, odd = planes_of(i)
                at, to = 16 * (17 * i + 4 * column), (place + column) * inputs + c
                d0, d1, d2 = load(s, at), load(s, at + 16), load(s, at + 32)
                d3, d4, plane = load(s, at + 48), load(s, at + 64), ROOM * inputs
                store_even(d0, d1, d2, d3, d4, pieces, even * plane + to, apart * plane)
                store_four(d1, d2, d3, d4, pieces, odd * plane + to, plane)


@compiled
def write(job: Any, block: int, s: Any, products: Any, place: int) -> None:
    """Transform a block of products, from `place` on in each plane, to the outputs."""
    height, width, outputs, y = job.height, job.width, job.outputs, floats_at(job.y)
    row, left = block // (width // 16), 16 * (block % (width // 16))
    picture, top = row // (height // 4), 4 * (row % (height // 4))
    for c in range(0, outputs, 16):
        for column in range(4):
            for i in range(9):
                even, apart, odd = planes_of(i)
                at, to, plane = (place + column) * outputs + c, 16 * (32 * i + 8 * column), ROOM * outputs
                o0, o1, o2, o3 = filtered(products, even * plane + at, apart * plane)
                store_four(o0, o1, o2, o3, s, to, 32)
                for j in range(4):
                    store(s, to + 32 * j + 16, load(products, (odd + j) * plane + at))
        for x in range(32):
            to = ((picture * (2 * height + 1) + 2 * top) * (2 * width + 1) + 2 * left + x) * outputs + c
            line = (2 * width + 1) * outputs
            o0, o1, o2, o3 = filtered(s, 16 * x, 16 * 32)
            store_four(o0, o1, o2, o3, y, to, 2 * line)
            for j in range(4):
                store(y, to + (2 * j + 1) * line, load(s, 16 * (32 * (5 + j) + x)))
