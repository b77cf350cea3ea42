"""The widest maps of one face on a CPU: what scales them goes into the weights, which are smaller there.

A styled convolution elsewhere passes over its maps six times beside the convolution itself: it scales the inputs,
scales the outputs, appends the features, activates. Here scales, bias and activation are part of the convolution, and
what is appended stays beside it: a convolution of two maps is the sum of two. For several faces this is no faster, as
each has weights of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gpenvid.gpen import onednn
from gpenvid.gpen.ops import GAIN, SLOPE, ModulatedConv2d, ModulatedProjection

LEAST_RATIO = 4
"""Samples of a map per element of the weight from which this way is the faster one."""


def pays(conv: ModulatedConv2d, size: int) -> bool:
    """Whether to go this way, for results of that height and width."""
    _, outputs, inputs, _, _ = conv.weight.shape
    return size**2 * outputs >= LEAST_RATIO * 9 * inputs * outputs and conv.prepared_winograd is None


def convolve(conv: ModulatedConv2d, parts: tuple[Tensor, ...], style: Tensor, bias: Tensor) -> Tensor:
    """The demodulated convolution with its bias and activation.

    parts: one map (1, inputs, H, W), or two of half as many channels each; style: (1, style_dim); bias: (outputs,).
    Returns (1, outputs, H, W), or (1, outputs, 2H, 2W) when upsampling.
    """
    weight = conv.weights(parts[0].dtype)
    scales, gains = (each[0] for each in conv.factors(style, weight))
    bias, gains = bias * GAIN, gains * GAIN
    if conv.blur is not None:
        (x,) = parts
        larger = F.conv_transpose2d(x, weight.tensor * scales[:, None, None, None], stride=2)
        lowpass = conv.blur.kernel * gains[:, None, None, None]
        return onednn.convolve(larger, lowpass, bias, padding=1, groups=len(gains), after=onednn.leaky(SLOPE))
    factors = torch.outer(gains, scales)[:, :, None, None]
    if len(parts) == 1:
        return onednn.convolve(parts[0], weight.tensor * factors, bias, padding=1, after=onednn.leaky(SLOPE))
    half = len(scales) // 2
    total = onednn.convolve(parts[1], weight.tensor[:, half:] * factors[:, half:], bias, padding=1)
    onednn.add_convolved(total, parts[0], weight.tensor[:, :half] * factors[:, :half], padding=1)
    return F.leaky_relu(total, SLOPE, inplace=True)


def weighted(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Features (1, C, H, W) as they are appended: times the weight (1,), with the bias (C,), activated."""
    channels = features.shape[1]
    each = (weight * GAIN).expand(channels)[:, None, None, None]
    return onednn.convolve(features, each, bias * GAIN, groups=channels, after=onednn.leaky(SLOPE))


def project(conv: ModulatedProjection, parts: tuple[Tensor, ...], style: Tensor) -> Tensor:
    """The two halves of a map, (1, C, H, W) each, to RGB (1, 3, H, W)."""
    matrix = conv.matrix(style)
    _, channels, height, width = parts[0].shape
    a, b = (part.permute(0, 2, 3, 1).reshape(1, height * width, channels).transpose(1, 2) for part in parts)
    rgb = torch.baddbmm(torch.bmm(matrix[..., :channels], a), matrix[..., channels:], b)
    return rgb.view(1, 3, height, width)
