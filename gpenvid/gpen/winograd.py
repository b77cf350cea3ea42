"""3 x 3 convolutions with a quarter of the multiplications, as matrix products.

Winograd's minimal filtering F(4 x 4, 3 x 3) (Lavin and Gray, 2016): each 6 x 6 piece of the input gives 4 x 4 outputs
from 36 products per pair of channels instead of 144. All three steps are matrix products here, which any BLAS does
well; they pay where channels are many and pictures small. The matrices are those of Toom and Cook for the points 0,
+-3/4, +-3/2 and infinity: with the usual 0, +-1, +-2 the rounding errors of float32 are five times as large.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)

OUTPUT, TAPS = 4, 3
PIECE = OUTPUT + TAPS - 1

LEAST_PRODUCT = 256 * 128
"""Inputs times outputs from which it is faster than a direct convolution, measured with oneDNN's on AVX-512."""

LEAST_SIZE = 16
"""Height and width from which it is: below, reading four times the weights takes longer."""

TOGETHER = 256
"""Pieces worked on at once, so that what lies between the steps stays in the cache."""


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
    """(O, I, 3, 3) to what `convolve` takes: (36, I, O)."""
    g = torch.from_numpy(matrices()[1]).to(weight.device)
    transformed = torch.einsum("ua,ocab,vb->uvco", g, weight.double(), g)
    return transformed.reshape(PIECE**2, weight.shape[1], weight.shape[0]).to(weight.dtype)


def pays(inputs: int, outputs: int, size: int) -> bool:
    """Whether this way is the faster one for feature maps of that height and width."""
    return inputs * outputs >= LEAST_PRODUCT and size >= LEAST_SIZE and size % OUTPUT == 0


_TO_PRODUCTS, _TO_OUTPUT = (torch.from_numpy(np.kron(each, each)) for each in (matrices()[2], matrices()[0]))
"""The two-dimensional B (36, 36) and A (16, 36), float64."""


def convolve(x: Tensor, transformed: Tensor) -> Tensor:
    """Correlate x (N, I, H, W) with a weight, padded by one; H and W divisible by 4.

    transformed: of `transform_weight`. Returns (N, O, H, W), channels-last; fastest if x is.
    """
    count, _, height, width = x.shape
    rows, columns = height // OUTPUT, width // OUTPUT
    together = max(1, TOGETHER // (rows * columns))
    if count <= together:
        return _convolve(x, transformed)
    return torch.cat([_convolve(part, transformed) for part in torch.split(x, together)])


def _convolve(x: Tensor, transformed: Tensor) -> Tensor:
    to_products, to_output = _TO_PRODUCTS.to(x), _TO_OUTPUT.to(x)
    count, inputs, height, width = x.shape
    rows, columns = height // OUTPUT, width // OUTPUT
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    pieces = padded.unfold(1, PIECE, OUTPUT).unfold(2, PIECE, OUTPUT).permute(4, 5, 0, 1, 2, 3)
    products = torch.bmm((to_products @ pieces.reshape(PIECE**2, -1)).view(PIECE**2, -1, inputs), transformed)
    outputs = products.shape[2]
    y = (to_output @ products.view(PIECE**2, -1)).view(OUTPUT, OUTPUT, count, rows, columns, outputs)
    return y.permute(2, 3, 0, 4, 1, 5).reshape(count, height, width, outputs).permute(0, 3, 1, 2)
