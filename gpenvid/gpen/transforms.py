"""The transforms of Winograd's minimal filtering, as machine code: what comes before and after the products.

B d B' of a piece d of the input, 6 x 6, and A p A' of products p, 6 x 6, for the matrices of `winograd.filtering`. What
`job` tells is said in `winograd`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpenvid.gpen.activation import SLOPE
from gpenvid.gpen.lanes import WIDTH, larger, load, spread, store, total
from gpenvid.native import compiled, floats_at, inlined

NEAR, FAR = 0.75, 1.5
POINTS = (0.0, NEAR, -NEAR, FAR, -FAR)

OUTPUT, TAPS = 4, 3
PIECE = OUTPUT + TAPS - 1

BLOCK = 4
"""Pieces side by side that are transformed at once, so many channels as there are lanes: in the nearest cache."""

SCRATCH = PIECE * (OUTPUT * BLOCK + TAPS - 1) * WIDTH
"""Numbers that a thread needs room for between the two directions of a transform."""


@compiled
def read(job: Any, block: int, s: Any, pieces: Any, room: int, place: int) -> None:
    """Transform a block of the inputs to `pieces` (36, room, inputs), from `place` on."""
    width, inputs, channels = job.width, job.inputs, job.inputs // 2
    row, left = block // (width // 16), 16 * (block % (width // 16)) - 1
    picture, top = row // (job.height // 4), 4 * (row % (job.height // 4)) - 1
    for half in range(2):
        raw = floats_at(job.foreign_map if half else job.own_map)
        gains = floats_at(job.foreign_gain if half else job.own_gain)
        shifts = floats_at(job.foreign_shift if half else job.own_shift)
        for c in range(0, channels, 16):
            gain, shift = load(gains, picture * channels + c), load(shifts, c)
            scale = load(floats_at(job.scale), picture * inputs + half * channels + c)
            for k in range(18):
                x = left + k
                if x < 0 or x >= width:
                    for i in range(6):
                        store(s, 16 * (18 * i + k), spread(np.float32(0)))
                    continue
                d0 = _input(job, raw, picture, top, x, channels, c, gain, shift, scale)
                d1 = _input(job, raw, picture, top + 1, x, channels, c, gain, shift, scale)
                d2 = _input(job, raw, picture, top + 2, x, channels, c, gain, shift, scale)
                d3 = _input(job, raw, picture, top + 3, x, channels, c, gain, shift, scale)
                d4 = _input(job, raw, picture, top + 4, x, channels, c, gain, shift, scale)
                d5 = _input(job, raw, picture, top + 5, x, channels, c, gain, shift, scale)
                _filter(d0, d1, d2, d3, d4, d5, s, 16 * k, 16 * 18)
            for column in range(4):
                for i in range(6):
                    at, to = 16 * (18 * i + 4 * column), (6 * i * room + place + column) * inputs + half * channels + c
                    d0, d1, d2, d3 = load(s, at), load(s, at + 16), load(s, at + 32), load(s, at + 48)
                    _filter(d0, d1, d2, d3, load(s, at + 64), load(s, at + 80), pieces, to, room * inputs)


@inlined
def _input(
    job: Any, raw: Any, picture: int, y: int, x: int, channels: int, c: int, gain: Any, shift: Any, scale: Any
) -> Any:
    """What the map means there, to scale; nothing beyond its edge."""
    if y < 0 or y >= job.height:
        return spread(np.float32(0))
    return _activated(load(raw, ((picture * job.height + y) * job.width + x) * channels + c), gain, shift) * scale


@inlined
def _activated(value: Any, gain: Any, shift: Any) -> Any:
    value = value * gain + shift
    return larger(value, value * spread(np.float32(SLOPE)))


@inlined
def _filter(d0: Any, d1: Any, d2: Any, d3: Any, d4: Any, d5: Any, out: Any, to: int, step: int) -> None:
    """Write B d to out[to], step apart."""
    near, far, product = spread(np.float32(NEAR**2)), spread(np.float32(FAR**2)), spread(np.float32((NEAR * FAR) ** 2))
    both, one, other = spread(np.float32(NEAR**2 + FAR**2)), spread(np.float32(NEAR)), spread(np.float32(FAR))
    store(out, to, product * d0 - both * d2 + d4)
    even, odd = d4 - far * d2, one * (d3 - far * d1)
    store(out, to + step, even + odd)
    store(out, to + 2 * step, even - odd)
    even, odd = d4 - near * d2, other * (d3 - near * d1)
    store(out, to + 3 * step, even + odd)
    store(out, to + 4 * step, even - odd)
    store(out, to + 5 * step, product * d1 - both * d3 + d5)


@compiled
def write(job: Any, block: int, s: Any, products: Any, room: int, place: int) -> None:
    """Transform a block of products (36, room, outputs), from `place` on, to the outputs."""
    height, width, channels = job.height, job.width, job.outputs
    row, left = block // (width // 16), 16 * (block % (width // 16))
    picture, top = row // (height // 4), 4 * (row % (height // 4))
    raw, maps, rgb, matrix = floats_at(job.more_map), floats_at(job.maps), floats_at(job.rgb), floats_at(job.matrix)
    step = room * channels
    for c in range(0, channels, 16):
        gain, shift = load(floats_at(job.gain), picture * channels + c), load(floats_at(job.shift), c)
        more_gain = load(floats_at(job.more_gain), picture * channels + c)
        more_shift = load(floats_at(job.more_shift), c)
        for column in range(4):
            for i in range(6):
                at = (6 * i * room + place + column) * channels + c
                p0, p1, p2 = load(products, at), load(products, at + step), load(products, at + 2 * step)
                p3, p4 = load(products, at + 3 * step), load(products, at + 4 * step)
                o0, o1, o2, o3 = _gathered(p0, p1, p2, p3, p4, load(products, at + 5 * step))
                to = 16 * (16 * i + 4 * column)
                store(s, to, o0)
                store(s, to + 16, o1)
                store(s, to + 32, o2)
                store(s, to + 48, o3)
        for x in range(16):
            p0, p1, p2 = load(s, 16 * x), load(s, 16 * (16 + x)), load(s, 16 * (32 + x))
            p3, p4, p5 = load(s, 16 * (48 + x)), load(s, 16 * (64 + x)), load(s, 16 * (80 + x))
            o0, o1, o2, o3 = _gathered(p0, p1, p2, p3, p4, p5)
            for k in range(4):
                value = o0 if k == 0 else o1 if k == 1 else o2 if k == 2 else o3
                at = (picture * height + top + k) * width + left + x
                own = _activated(value, gain, shift)
                appended = _activated(load(raw, at * channels + c), more_gain, more_shift)
                if job.keep:
                    store(maps, 2 * at * channels + c, own)
                    store(maps, (2 * at + 1) * channels + c, appended)
                for colour in range(3):
                    to, factor = at + (2 * picture + colour) * height * width, 2 * (3 * picture + colour) * channels + c
                    sums = own * load(matrix, factor) + appended * load(matrix, factor + channels)
                    rgb[to] = total(sums) + (rgb[to] if c else np.float32(0))


@inlined
def _gathered(p0: Any, p1: Any, p2: Any, p3: Any, p4: Any, p5: Any) -> tuple[Any, Any, Any, Any]:
    """A p."""
    near, far = np.float32(NEAR), np.float32(FAR)
    even, odd, other_even, other_odd = p1 + p2, p1 - p2, p3 + p4, p3 - p4
    first = p0 + even + other_even
    second = spread(near) * odd + spread(far) * other_odd
    third = spread(near * near) * even + spread(far * far) * other_even
    return first, second, third, spread(near * near * near) * odd + spread(far * far * far) * other_odd + p5
