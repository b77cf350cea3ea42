"""Start a restorer as the identity: at step 0 it returns its input, so that training only has to learn corrections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch

from gpenvid.gpen.activation import GAIN, SLOPE
from gpenvid.gpen.arch import FullGenerator, StyledConv, ToRGB
from gpenvid.gpen.ops import ConvLayer, EqualConv2d, FusedLeakyReLU


@torch.no_grad()
def start_as_identity(network: FullGenerator) -> None:
    """Rewrite a freshly made network so that it returns its input (to rounding).

    The encoder's first map carries R, G, B and -R, -G, -B in its first six channels. The last injection appends it to
    the last feature map, and there the last RGB projection picks it up: a leaky ReLU of gain g and slope s, applied
    twice to x and to -x, gives outputs that differ by g^2 (1 + s^2) x. All other RGB projections start at zero, all
    injections at one. Raises ValueError if the first map has fewer than six channels.
    """
    # Stored weights are multiplied by 1 / sqrt(fan in) when used: 3 for the first layer, 2 width for the last.
    first, last = cast(Sequence[ConvLayer], network.ecd0)[0], cast(Sequence[ToRGB], network.generator.to_rgbs)[-1]
    convolution, activation = cast(EqualConv2d, first[0]), cast(FusedLeakyReLU, first[1])
    width = len(convolution.weight)
    if width < 6:
        raise ValueError(f"the identity needs 6 channels at full resolution, this network has {width}")
    convolution.weight[:6] = torch.cat([torch.eye(3), -torch.eye(3)])[:, :, None, None] * math.sqrt(3)
    activation.bias[:6] = 0
    for injection in (network.generator.conv1, *cast(Sequence[StyledConv], network.generator.convs)):
        injection.noise.weight.fill_(1)
    for projection in (network.generator.to_rgb1, *cast(Sequence[ToRGB], network.generator.to_rgbs)):
        projection.conv.weight.zero_()
    gain = GAIN**2 * (1 + SLOPE**2) / math.sqrt(2 * width)
    last.conv.modulation.weight[width : width + 6] = 0
    last.conv.weight[0, :, width : width + 3] = torch.eye(3)[:, :, None, None] / gain
    last.conv.weight[0, :, width + 3 : width + 6] = -torch.eye(3)[:, :, None, None] / gain
