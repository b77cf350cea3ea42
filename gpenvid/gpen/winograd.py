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
from gpenvid.gpen.activation import Raw
from gpenvid.gpen.lanes import WIDTH
from gpenvid.gpen.products import HEIGHT, multiply
from gpenvid.gpen.transforms import BLOCK, OUTPUT, PIECE, POINTS, SCRATCH, TAPS, read, write
from gpenvid.native import c_function, claim, compiled, floats_at, warn_of_compiling

LEAST_SIZE = 16
"""Height and width from which it is: below, reading four times the weights takes longer. They are multiples of it."""

NARROW, GROUP = 8 << 20, 3
"""Bytes of a weight up to which a thread takes the products of its own pieces alone, and blocks that it has at once."""

TOGETHER = 64
"""Blocks that all threads have at once where weights are larger, so that these are read seldom."""


@lru_cache(maxsize=2)
def filtering(points: tuple[float, ...] = POINTS, taps: int = TAPS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, G, B, float64: correlating d (n,) with g (taps,) gives A ((G g) * (B d)), for n - 1 points and infinity."""
    piece = len(points) + 1
    a, g, b = np.zeros((piece - taps + 1, piece)), np.zeros((piece, taps)), np.zeros((piece, piece))
    for j, point in enumerate(points):
        others = np.delete(points, j)
        a[:, j] = point ** np.arange(len(a))
        g[j] = point ** np.arange(taps) / np.prod(point - others)
        b[j, :-1] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1  # infinity
    b[-1] = np.poly(points)[::-1]
    return a, g, b


def transform_weight(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) to what `convolve` takes: (36, O / 16, I, 16)."""
    g = torch.from_numpy(filtering()[1]).to(weight.device)
    return panels(torch.einsum("ua,ocab,vb->uvco", g, weight.double(), g).flatten(0, 1).to(weight.dtype))


def panels(matrices: Tensor) -> Tensor:
    """Matrices (n, I, O) in the order of `products.multiply`: (n, O / 16, I, 16)."""
    count, inputs, outputs = matrices.shape
    return matrices.reshape(count, inputs, outputs // WIDTH, WIDTH).transpose(1, 2).contiguous()


def pays(inputs: int, outputs: int, size: int) -> bool:
    """Whether this way is the faster one for feature maps of that height and width."""
    whole = inputs % (2 * WIDTH) == outputs % WIDTH == size % LEAST_SIZE == 0
    return whole and size >= LEAST_SIZE and threads.available()


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
    warn_of_compiling(multiply, "the restorer", "ten seconds")
    return _Steps(*(c_function(step, _JOB) for step in (_before, _products, _after, _alone)))


def _before(shared: Any) -> None:
    """Transform this thread's share of the inputs."""
    job = carray(shared, 1)[0]
    pieces, scratch = floats_at(job.pieces), np.zeros(SCRATCH, np.float32)
    turn = claim(shared)
    while turn < job.count:
        read(job, job.first + turn, floats_at(scratch.ctypes.data), pieces, job.room, BLOCK * turn)
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
        write(job, job.first + turn, floats_at(scratch.ctypes.data), made, job.room, BLOCK * turn)
        turn = claim(shared)
    scratch[0] = 0


def _alone(shared: Any) -> None:
    """Do all three steps for this thread's share of the inputs."""
    job = carray(shared, 1)[0]
    room, inputs, outputs = GROUP * BLOCK, job.inputs, job.outputs
    space, scratch = np.empty(36 * room * (inputs + outputs), np.float32), np.zeros(SCRATCH, np.float32)
    weight, pieces, s = floats_at(job.weight), floats_at(space.ctypes.data), floats_at(scratch.ctypes.data)
    made = floats_at(space[36 * room * inputs :].ctypes.data)
    first = GROUP * claim(shared)
    while first < job.count:
        count = min(GROUP, job.count - first)
        for i in range(count):
            read(job, first + i, s, pieces, room, BLOCK * i)
        for i in range(36):
            at, start, to = i * room * inputs, i * inputs * outputs, i * room * outputs
            multiply(pieces, at, weight, start, made, to, room, inputs, outputs)
        for i in range(count):
            write(job, first + i, s, made, room, BLOCK * i)
        first = GROUP * claim(shared)
    space[0] = scratch[0] = 0
