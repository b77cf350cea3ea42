"""3 x 3 convolutions with stride 2, and transposed ones, on a CPU, as `halves` explains them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray  # type: ignore[attr-defined]
from torch import Tensor
from torch.nn import functional as F

from gpenvid.gpen import enlarge, reduce, threads
from gpenvid.gpen.halves import GROUP, LARGEST, LEAST_SIZE, ROOM, SCRATCH, multiply_all
from gpenvid.gpen.lanes import WIDTH
from gpenvid.gpen.products import multiply
from gpenvid.gpen.transforms import BLOCK
from gpenvid.native import c_function, claim, floats_at, warn_of_compiling

_NUMBERS = ("next", "enlarge", "blocks", "height", "width", "inputs", "outputs")
_JOB = np.dtype([(name, np.int64) for name in (*_NUMBERS, "x", "scale", "weight", "bias", "y")])
"""What the machine code is told: numbers, and the addresses of arrays, as in `transpose` and `convolve`.

Of so many blocks; height and width are those of the smaller map. x and y are channels-last.
"""


def pays(inputs: int, outputs: int) -> bool:
    """Whether these ways are faster than oneDNN's, for maps that are not too small."""
    whole = inputs % WIDTH == outputs % WIDTH == 0
    return whole and 36 * 4 * inputs * outputs <= LARGEST and threads.available()


def fits(height: int, width: int) -> bool:
    """Whether a smaller map of that size is large enough, and can be cut into blocks."""
    return min(height, width) >= LEAST_SIZE and height % LEAST_SIZE == width % LEAST_SIZE == 0


def fits_halved(x: Tensor) -> bool:
    """Whether x (N, I, 2H + 1, 2W + 1) is a larger map of which the smaller one fits."""
    return x.shape[2] % 2 == x.shape[3] % 2 == 1 and fits(x.shape[2] // 2, x.shape[3] // 2)


def transpose(x: Tensor, scale: Tensor, weight: Tensor, transformed: Tensor) -> Tensor:
    """The transposed convolution of x (N, I, H, W), H and W multiples of 16, scaled by (N, I); float32 on a CPU.

    weight: (I, O, 3, 3); transformed: of `halves.transform_weight`, backwards. Returns (N, O, 2H + 1, 2W + 1),
    channels-last.
    """
    if torch.compiler.is_compiling():
        made: Tensor = _transposing(x, scale, weight, transformed)
        return made
    (count, inputs, height, width), outputs = x.shape, weight.shape[1]
    x, scale = x.contiguous(memory_format=torch.channels_last), scale.contiguous()
    y = x.new_empty(count, 2 * height + 1, 2 * width + 1, outputs)
    job = _job(x, transformed, y, height=height, width=width, inputs=inputs, outputs=outputs, enlarge=1)
    job["scale"] = scale.data_ptr()
    threads.run(_machine_code(), job)
    result = y.permute(0, 3, 1, 2)
    scale = scale[:, :, None]
    result[:, :, -1] = F.conv_transpose1d(x[:, :, -1] * scale, weight[:, :, 2], stride=2)
    result[..., -1] = F.conv_transpose1d(x[..., -1] * scale, weight[..., 2], stride=2)
    return result


def convolve(x: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    """Correlate x (N, I, 2H + 1, 2W + 1), whose H and W are fit, add the bias (O,) and activate; float32 on a CPU.

    transformed: of `halves.transform_weight`, forwards. Returns (N, O, H, W), channels-last.
    """
    if torch.compiler.is_compiling():
        made: Tensor = _convolving(x, transformed, bias)
        return made
    (count, inputs, height, width), outputs = x.shape, transformed.shape[1] * WIDTH
    height, width = height // 2, width // 2
    x, bias = x.contiguous(memory_format=torch.channels_last), bias.contiguous()
    y = x.new_empty(count, height, width, outputs)
    job = _job(x, transformed, y, height=height, width=width, inputs=inputs, outputs=outputs)
    job["bias"] = bias.data_ptr()
    threads.run(_machine_code(), job)
    return y.permute(0, 3, 1, 2)


def _job(x: Tensor, weight: Tensor, y: Tensor, **numbers: int) -> Any:
    job = np.zeros(1, _JOB)
    numbers |= {"x": x.data_ptr(), "weight": weight.data_ptr(), "y": y.data_ptr()}
    numbers["blocks"] = len(x) * numbers["height"] * numbers["width"] // (16 * BLOCK)
    for name, value in numbers.items():
        job[name] = value
    return job


@torch.library.custom_op("gpenvid::enlarge", mutates_args=())
def _transposing(x: Tensor, scale: Tensor, weight: Tensor, transformed: Tensor) -> Tensor:
    """`transpose` for `torch.compile`, which can't look into it."""
    return transpose(x, scale, weight, transformed)


@_transposing.register_fake
def _(x: Tensor, scale: Tensor, weight: Tensor, transformed: Tensor) -> Tensor:
    count, _, height, width = x.shape
    return x.new_empty(count, 2 * height + 1, 2 * width + 1, weight.shape[1]).permute(0, 3, 1, 2)


@torch.library.custom_op("gpenvid::reduce", mutates_args=())
def _convolving(x: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    """`convolve` for `torch.compile`, which can't look into it."""
    return convolve(x, transformed, bias)


@_convolving.register_fake
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
            if job.enlarge:
                enlarge.read(job, first + i, s, pieces, BLOCK * i)
            else:
                reduce.read(job, first + i, s, pieces, BLOCK * i)
        multiply_all(pieces, weight, products, inputs, outputs)
        for i in range(count):
            if job.enlarge:
                enlarge.write(job, first + i, s, products, BLOCK * i)
            else:
                reduce.write(job, first + i, s, products, BLOCK * i)
        first = GROUP * claim(shared)
    space[0] = scratch[0] = 0  # else they would be free as soon as their addresses are known
