"""A product of small matrices that both lie in the cache of the thread that needs it.

PyTorch's products take two thirds more time for matrices as small as these, and all threads take part in each: what one
thread has just made would travel to others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpenvid.gpen.lanes import WIDTH, load, spread, store
from gpenvid.native import compiled

HEIGHT = 6
"""Rows of a block of the result, which stays in registers until it is done: with AVX2 twelve of sixteen."""


@compiled
def multiply(a: Any, at: int, b: Any, start: int, out: Any, to: int, rows: int, depth: int, columns: int) -> None:
    """Write the product of (rows, depth) at a[at] and (depth, columns) at b[start] to out[to], float32.

    rows: a multiple of HEIGHT; columns: of lanes.WIDTH; b lies in panels, (columns / WIDTH, depth, WIDTH).
    """
    for panel in range(columns // WIDTH):
        for row in range(rows // HEIGHT):
            t0 = t1 = t2 = t3 = t4 = t5 = spread(np.float32(0))
            r0 = at + HEIGHT * row * depth
            r1, r2, r3, r4, r5 = r0 + depth, r0 + 2 * depth, r0 + 3 * depth, r0 + 4 * depth, r0 + 5 * depth
            for k in range(depth):
                line = load(b, start + (panel * depth + k) * WIDTH)
                t0 = t0 + spread(a[r0 + k]) * line
                t1 = t1 + spread(a[r1 + k]) * line
                t2 = t2 + spread(a[r2 + k]) * line
                t3 = t3 + spread(a[r3 + k]) * line
                t4 = t4 + spread(a[r4 + k]) * line
                t5 = t5 + spread(a[r5 + k]) * line
            into = to + HEIGHT * row * columns + panel * WIDTH
            store(out, into, t0)
            store(out, into + columns, t1)
            store(out, into + 2 * columns, t2)
            store(out, into + 3 * columns, t3)
            store(out, into + 4 * columns, t4)
            store(out, into + 5 * columns, t5)
