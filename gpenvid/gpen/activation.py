"""The activation of StyleGAN2, and feature maps that wait for it."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

SLOPE = 0.2
GAIN = math.sqrt(2.0)
"""leaky_relu(x) GAIN = leaky_relu(x GAIN): the gain can be moved into the multiplications before it."""


class Raw(NamedTuple):
    """A feature map before its activation, which gives leaky_relu(map * gain + shift).

    map: (N, C, H, W); gain: (N, C), and shift: (C,), in the parameters' type, with the activation's gain in them.
    """

    map: Tensor
    gain: Tensor
    shift: Tensor
