"""3 x 3 convolutions on a CPU with a quarter of the multiplications.

Winograd's minimal filtering F(4 x 4, 3 x 3) (Lavin and Gray, 2016): each 6 x 6 piece of the input gives 4 x 4 outputs
from 36 products per pair of channels instead of 144. It is machine code throughout, a few pieces at once, so that what
lies between the steps stays in the cache. What a styled convolution does to its maps beside the convolution is done
while they pass by: activation and scaling on the way in; gain, activation, the maps that are appended and their
projection to RGB on the way out.

The matrices are those of Toom and Cook for the points 0, +-3/4, +-3/2 and infinity: with the usual 0, +-1, +-2 the
rounding errors of float32 are five times as large.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import carray  # type: ignore[attr-defined]
from numpy.typing import NDArray
from torch import Tensor

from gpenvid.gpen import threads
from gpenvid.gpen.activation import SLOPE, Raw
from gpenvid.gpen.lanes import WIDTH, larger, load, spread, store, total
from gpenvid.gpen.products import HEIGHT, multiply
from gpenvid.native import c_function, claim, compiled, floats_at, inlined, warn_of_compiling

NEAR, FAR = 0.75, 1.5
POINTS = (0.0, NEAR, -NEAR, FAR, -FAR)

OUTPUT, TAPS = 4, 3
PIECE = OUTPUT + TAPS - 1

LEAST_PRODUCT = 256 * 128
"""Inputs times outputs from which one thread is faster than all with a direct convolution; all of them always are."""

LEAST_SIZE = 16
"""Height and width from which it is: below, reading four times the weights takes longer. They are multiples of it."""

BLOCK = 4
"""Pieces side by side that are transformed at once, so many channels as there are lanes: in the nearest cache."""

NARROW, GROUP = 8 << 20, 3
"""Bytes of a weight up to which a thread takes the products of its own pieces alone, and blocks that it has at once."""

TOGETHER = 64
"""Blocks that all threads have at once where weights are larger, so that these are read seldom."""


@lru_cache(maxsize=1)
def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A (4, 6), G (6, 3), B (6, 6), float64: correlating d (6,) with g (3,) gives A ((G g) * (B d))."""
    points = np.array(POINTS)
    a, g, b = np.zeros((OUTPUT, PIECE)), np.zeros((PIECE, TAPS)), np.zeros((PIECE, PIECE))
    for j, point in enumerate(points):
        others = np.delete(points, j)
        a[:, j] = point ** np.arange(OUTPUT)
        g[j] = point ** np.arange(TAPS) / np.prod(point - others)
        b[j, :-1] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1  # infinity
    b[-1] = np.poly(points)[::-1]
    return a, g, b


def transform_weight(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) to what `convolve` takes: (36, O / 16, I, 16)."""
    g, (outputs, inputs) = torch.from_numpy(matrices()[1]).to(weight.device), weight.shape[:2]
    transformed = torch.einsum("ua,ocab,vb->uvco", g, weight.double(), g)
    transformed = transformed.reshape(PIECE**2, inputs, outputs).to(weight.dtype)
    return transformed.view(PIECE**2, inputs, outputs // WIDTH, WIDTH).transpose(1, 2).contiguous()


def pays(inputs: int, outputs: int, size: int) -> bool:
    """Whether this way is the faster one for feature maps of that height and width."""
    whole = inputs % (2 * WIDTH) == outputs % WIDTH == size % LEAST_SIZE == 0
    return whole and size >= LEAST_SIZE and (threads.available() or inputs * outputs >= LEAST_PRODUCT)


_NUMBERS = ("next", "first", "count", "height", "width", "inputs", "outputs", "room", "keep")
_RAWS = [f"{raw}_{field}" for raw in ("own", "foreign", "more") for field in Raw._fields]
_ARRAYS = (*_RAWS, "scale", "weight", "gain", "shift", "matrix", "pieces", "products", "maps", "rgb")
_JOB = np.dtype([(name, np.int64) for name in (*_NUMBERS, *_ARRAYS)])
"""What the machine code is told: numbers, and the addresses of arrays, as in `convolve`.

`count` blocks to do, from `first` on. pieces: (36, room, inputs), products: (36, room, outputs), of which a thread that
works alone has its own. Maps are channels-last, and not written unless to be kept.
"""


def convolve(
    own: Raw,
    foreign: Raw,
    scale: Tensor,
    weight: Tensor,
    gain: Tensor,
    shift: Tensor,
    more: Raw,
    matrix: Tensor,
    *,
    keep: bool = True,
) -> tuple[Tensor, Tensor]:
    """Correlate what two maps mean, side by side, with a weight, padded by one; float32 on a CPU.

    own and foreign: maps (N, I / 2, H, W), H and W multiples of 16; scale: (N, I), by which inputs are multiplied;
    weight: of `transform_weight`. Outputs are multiplied by the gain (N, O), the shift (O,) is added, and they are
    activated. Returns maps (N, 2 O, H, W), channels-last: the outputs, then what `more` (N, O, H, W) means; and those
    times the matrix (N, 3, 2 O): RGB (N, 3, H, W). Without `keep` the maps are empty.
    """
    raws = own, foreign, more
    if torch.compiler.is_compiling():
        made: tuple[Tensor, Tensor] = _operator([*own, *foreign, *more], scale, weight, gain, shift, matrix, keep)
        return made
    (count, channels, height, width), outputs = own.map.shape, more.map.shape[1]
    maps = weight.new_empty(count if keep else 0, height, width, 2 * outputs)
    rgb = weight.new_empty(count, 3, height, width)
    arrays = {"scale": scale, "weight": weight, "gain": gain, "shift": shift, "matrix": matrix}
    arrays = {name: each.contiguous() for name, each in arrays.items()} | {"maps": maps, "rgb": rgb}
    for name, raw in zip(("own", "foreign", "more"), raws, strict=True):
        arrays[f"{name}_map"] = raw.map.contiguous(memory_format=torch.channels_last)
        arrays |= {f"{name}_gain": raw.gain.contiguous(), f"{name}_shift": raw.shift.contiguous()}
    job = np.zeros(1, _JOB)
    numbers = {"height": height, "width": width, "inputs": 2 * channels, "outputs": outputs, "keep": keep}
    for name, value in (numbers | {name: each.data_ptr() for name, each in arrays.items()}).items():
        job[name] = value
    blocks = count * height * width // (OUTPUT**2 * BLOCK)
    if weight.nbytes <= NARROW:
        job["count"] = blocks
        threads.run(_machine_code().alone, job)
    else:
        _together(job, weight, blocks)
    return maps.permute(0, 3, 1, 2), rgb


def _together(job: NDArray[np.void], weight: Tensor, blocks: int) -> None:
    """Do so many blocks, each step of all threads together."""
    room = _whole(min(TOGETHER, blocks) * BLOCK)
    pieces, products = (weight.new_empty(PIECE**2, room, int(job[side][0])) for side in ("inputs", "outputs"))
    job["room"], job["pieces"], job["products"] = room, pieces.data_ptr(), products.data_ptr()
    for first in range(0, blocks, TOGETHER):
        job["first"], job["count"] = first, min(TOGETHER, blocks - first)
        for step in _machine_code()[:3]:
            job["next"] = 0
            threads.run(step, job)


@torch.library.custom_op("gpenvid::winograd", mutates_args=())
def _operator(
    raws: list[Tensor], scale: Tensor, weight: Tensor, gain: Tensor, shift: Tensor, matrix: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    """`convolve` for `torch.compile`, which can't look into it."""
    own, foreign, more = (Raw(*raws[i : i + 3]) for i in (0, 3, 6))
    return convolve(own, foreign, scale, weight, gain, shift, more, matrix, keep=keep)


@_operator.register_fake
def _(
    raws: list[Tensor], scale: Tensor, weight: Tensor, gain: Tensor, shift: Tensor, matrix: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    count, outputs, height, width = raws[6].shape
    maps = weight.new_empty(count if keep else 0, height, width, 2 * outputs)
    return maps.permute(0, 3, 1, 2), weight.new_empty(count, 3, height, width)


@compiled
def _whole(rows: int) -> int:
    """The next multiple of HEIGHT."""
    return (rows + HEIGHT - 1) // HEIGHT * HEIGHT


class _Steps(NamedTuple):
    before: Any
    products: Any
    after: Any
    alone: Any


@cache
def _machine_code() -> _Steps:
    warn_of_compiling(_alone, "the restorer", "ten seconds")
    return _Steps(*(c_function(step, _JOB) for step in (_before, _products, _after, _alone)))


SCRATCH = PIECE * (OUTPUT * BLOCK + TAPS - 1) * WIDTH
"""Numbers that a thread needs room for between the two directions of a transform."""


def _before(shared: Any) -> None:
    """Transform this thread's share of the inputs."""
    job = carray(shared, 1)[0]
    pieces, scratch = floats_at(job.pieces), np.zeros(SCRATCH, np.float32)
    turn = claim(shared)
    while turn < job.count:
        _read(job, job.first + turn, floats_at(scratch.ctypes.data), pieces, job.room, BLOCK * turn)
        turn = claim(shared)
    scratch[0] = 0  # else it would be free as soon as its address is known


def _products(shared: Any) -> None:
    """Take this thread's share of the products."""
    job = carray(shared, 1)[0]
    inputs, outputs, rows = job.inputs, job.outputs, _whole(BLOCK * job.count)
    weight, pieces, made = floats_at(job.weight), floats_at(job.pieces), floats_at(job.products)
    i = claim(shared)
    while i < 36:
        at, start, to = i * job.room * inputs, i * inputs * outputs, i * job.room * outputs
        multiply(pieces, at, weight, start, made, to, rows, inputs, outputs)
        i = claim(shared)


def _after(shared: Any) -> None:
    """Transform this thread's share of the products."""
    job = carray(shared, 1)[0]
    made, scratch = floats_at(job.products), np.zeros(SCRATCH, np.float32)
    turn = claim(shared)
    while turn < job.count:
        _write(job, job.first + turn, floats_at(scratch.ctypes.data), made, job.room, BLOCK * turn)
        turn = claim(shared)
    scratch[0] = 0


def _alone(shared: Any) -> None:
    """Do all three steps for this thread's share of the inputs."""
    job = carray(shared, 1)[0]
    room, inputs, outputs = GROUP * BLOCK, job.inputs, job.outputs
    space, scratch = np.zeros(36 * room * (inputs + outputs), np.float32), np.zeros(SCRATCH, np.float32)
    weight, pieces, s = floats_at(job.weight), floats_at(space.ctypes.data), floats_at(scratch.ctypes.data)
    made = floats_at(space[36 * room * inputs :].ctypes.data)
    first = GROUP * claim(shared)
    while first < job.count:
        count = min(GROUP, job.count - first)
        for i in range(count):
            _read(job, first + i, s, pieces, room, BLOCK * i)
        for i in range(36):
            at, start, to = i * room * inputs, i * inputs * outputs, i * room * outputs
            multiply(pieces, at, weight, start, made, to, room, inputs, outputs)
        for i in range(count):
            _write(job, first + i, s, made, room, BLOCK * i)
        first = GROUP * claim(shared)
    space[0] = scratch[0] = 0


@compiled
def _read(job: Any, block: int, s: Any, pieces: Any, room: int, place: int) -> None:
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
def _write(job: Any, block: int, s: Any, products: Any, room: int, place: int) -> None:
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
