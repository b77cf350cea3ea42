"""3 x 3 convolutions with stride 2 on a CPU, as `halves` explains them: the larger map is the input."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray  # type: ignore[attr-defined]
from torch import Tensor

from gpenvid.gpen import halves, threads
from gpenvid.gpen.activation import SLOPE
from gpenvid.gpen.halves import GROUP, ROOM, SCRATCH, filtered, multiply_all, planes_of, store_even, store_four
from gpenvid.gpen.lanes import WIDTH, larger, load, spread
from gpenvid.gpen.products import multiply
from gpenvid.gpen.transforms import BLOCK
from gpenvid.native import c_function, claim, compiled, floats_at, warn_of_compiling

_FIELDS = ("next", "blocks", "height", "width", "inputs", "outputs", "x", "weight", "bias", "y")
_JOB = np.dtype([(name, np.int64) for name in _FIELDS])


def takes(x: Tensor) -> bool:
    """Whether x (N, I, H, W) is of a size for which this way is the faster one."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    odd = x.shape[2] % 2 == x.shape[3] % 2 == 1
    least = halves.LEAST_SIZE
    return odd and min(height, width) >= least and height % least == width % least == 0


def transform_weight(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) to what `convolve` takes."""
    return halves.transform_weight(weight, forwards=True)


def convolve(x: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    """Correlate x (N, I, 2H + 1, 2W + 1), of a size that it `takes`, add the bias (O,) and activate; float32 on a CPU.

    transformed: of `transform_weight`. Returns (N, O, H, W), channels-last.
    """
    if torch.compiler.is_compiling():
        made: Tensor = _operator(x, transformed, bias)
        return made
    (count, inputs, height, width), outputs = x.shape, transformed.shape[1] * WIDTH
    height, width = height // 2, width // 2
    x, bias = x.contiguous(memory_format=torch.channels_last), bias.contiguous()
    y = x.new_empty(count, height, width, outputs)
    job = np.zeros(1, _JOB)
    numbers = {"height": height, "width": width, "inputs": inputs, "outputs": outputs}
    numbers |= {"blocks": count * height * width // (16 * BLOCK), "x": x.data_ptr(), "bias": bias.data_ptr()}
    for name, value in (numbers | {"weight": transformed.data_ptr(), "y": y.data_ptr()}).items():
        job[name] = value
    threads.run(_machine_code(), job)
    return y.permute(0, 3, 1, 2)


@torch.library.custom_op("gpenvid::reduce", mutates_args=())
def _operator(x: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    """`convolve` for `torch.compile`, which can't look into it."""
    return convolve(x, transformed, bias)


@_operator.register_fake
def _(x: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    count, _, height, width = x.shape
    return x.new_empty(count, height // 2, width // 2, transformed.shape[1] * WIDTH).permute(0, 3, 1, 2)


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
def _write(job: Any, block: int, s: Any, products: Any, place: int) -> None:
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
