"""Transposed 3 x 3 convolutions with stride 2 on a CPU, as `halves` explains them: the larger map is the result."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray  # type: ignore[attr-defined]
from torch import Tensor
from torch.nn import functional as F

from gpenvid.gpen import halves, threads
from gpenvid.gpen.halves import GROUP, ROOM, SCRATCH, filtered, multiply_all, planes_of, store_even, store_four
from gpenvid.gpen.lanes import load, spread, store
from gpenvid.gpen.products import multiply
from gpenvid.gpen.transforms import BLOCK
from gpenvid.native import c_function, claim, compiled, floats_at, warn_of_compiling

_FIELDS = ("next", "blocks", "height", "width", "inputs", "outputs", "x", "scale", "weight", "y")
_JOB = np.dtype([(name, np.int64) for name in _FIELDS])


def pays(inputs: int, outputs: int, size: int) -> bool:
    """Whether this way is the faster one for inputs of that height and width."""
    return halves.pays(inputs, outputs) and size >= halves.LEAST_SIZE and size % halves.LEAST_SIZE == 0


def transform_weight(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) to what `transpose` takes."""
    return halves.transform_weight(weight, forwards=False)


def transpose(x: Tensor, scale: Tensor, weight: Tensor, transformed: Tensor) -> Tensor:
    """The transposed convolution of x (N, I, H, W), H and W multiples of 16, scaled by (N, I); float32 on a CPU.

    weight: (I, O, 3, 3); transformed: of `transform_weight`. Returns (N, O, 2H + 1, 2W + 1), channels-last.
    """
    if torch.compiler.is_compiling():
        made: Tensor = _operator(x, scale, weight, transformed)
        return made
    (count, inputs, height, width), outputs = x.shape, weight.shape[1]
    x, scale = x.contiguous(memory_format=torch.channels_last), scale.contiguous()
    y = x.new_empty(count, 2 * height + 1, 2 * width + 1, outputs)
    job = np.zeros(1, _JOB)
    numbers = {"height": height, "width": width, "inputs": inputs, "outputs": outputs}
    numbers |= {"blocks": count * height * width // (16 * BLOCK), "x": x.data_ptr(), "scale": scale.data_ptr()}
    for name, value in (numbers | {"weight": transformed.data_ptr(), "y": y.data_ptr()}).items():
        job[name] = value
    threads.run(_machine_code(), job)
    result = y.permute(0, 3, 1, 2)
    scale = scale[:, :, None]
    result[:, :, -1] = F.conv_transpose1d(x[:, :, -1] * scale, weight[:, :, 2], stride=2)
    result[..., -1] = F.conv_transpose1d(x[..., -1] * scale, weight[..., 2], stride=2)
    return result


@torch.library.custom_op("gpenvid::enlarge", mutates_args=())
def _operator(x: Tensor, scale: Tensor, weight: Tensor, transformed: Tensor) -> Tensor:
    """`transpose` for `torch.compile`, which can't look into it."""
    return transpose(x, scale, weight, transformed)


@_operator.register_fake
def _(x: Tensor, scale: Tensor, weight: Tensor, transformed: Tensor) -> Tensor:
    count, _, height, width = x.shape
    return x.new_empty(count, 2 * height + 1, 2 * width + 1, weight.shape[1]).permute(0, 3, 1, 2)


@cache
def _machine_code() -> Any:
    warn_of_compiling(multiply, "the restorer", "ten seconds")
    return c_function(_share, _JOB)


def _share(shared: Any) -> None:
    """Do this thread's share."""
    job = carray(shared, 1)[0]
    inputs, outputs = job.inputs, job.outputs
    space, scratch = np.empty(81 * ROOM * (inputs + outputs), np.float32), np.zeros(SCRATCH, np.float32)
    weight, pieces, s = floats_at(job.weight), floats_at(space.ctypes.data), floats_at(scratch.ctypes.data)
    products = floats_at(space[81 * ROOM * inputs :].ctypes.data)
    first = GROUP * claim(shared)
    while first < job.blocks:
        count = min(GROUP, job.blocks - first)
        for i in range(count):
            _read(job, first + i, s, pieces, BLOCK * i)
        multiply_all(pieces, weight, products, inputs, outputs)
        for i in range(count):
            _write(job, first + i, s, products, BLOCK * i)
        first = GROUP * claim(shared)
    space[0] = scratch[0] = 0  # else they would be free as soon as their addresses are known


@compiled
def _read(job: Any, block: int, s: Any, pieces: Any, place: int) -> None:
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
def _write(job: Any, block: int, s: Any, products: Any, place: int) -> None:
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
