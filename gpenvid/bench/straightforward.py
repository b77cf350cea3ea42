"""GPEN the way the papers put it: a baseline. Every sample has its own weights, in one grouped convolution.

Modulation and demodulation as in StyleGAN2 (Karras et al. 2020, section 2.2), with the grouped convolution and the
zero-stuffed filtering that its appendix B describes; features are appended as in GPEN (Yang et al. 2021).
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpenvid.gpen.arch import FullGenerator, StyledConv, ToRGB
from gpenvid.gpen.ops import ConvLayer, EqualConv2d, FusedLeakyReLU, ModulatedConv2d, binomial_kernel


def filtered(x: Tensor, kernel: Tensor, *, up: int = 1, pad: tuple[int, int]) -> Tensor:
    """Put up - 1 zeros behind each pixel, pad before and behind, and convolve each channel with the kernel."""
    n, channels, height, width = x.shape
    if up > 1:
        x = F.pad(x.view(n, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
        x = x.view(n, channels, height * up, width * up)
    x = F.pad(x, (*pad, *pad))
    x = F.conv2d(x.reshape(n * channels, 1, *x.shape[2:]), kernel[None, None])
    return x.view(n, channels, *x.shape[2:])


def activated(x: Tensor, bias: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2 and gain 2^0.5 after the bias."""
    return F.leaky_relu(x + bias.view(1, -1, 1, 1), 0.2) * math.sqrt(2)


def modulated(x: Tensor, style: Tensor, weight: Tensor, *, up: bool = False, demodulate: bool = True) -> Tensor:
    """x: (N, I, H, W), style: (N, I), weight: (O, I, k, k), scaled. One group of the convolution per sample."""
    n, inputs, height, width = x.shape
    outputs, _, size, _ = weight.shape
    weights = weight[None] * style[:, None, :, None, None]
    if demodulate:
        weights = weights * torch.rsqrt(weights.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    x = x.reshape(1, n * inputs, height, width)
    if up:
        weights = weights.transpose(1, 2).reshape(n * inputs, outputs, size, size)
        x = F.conv_transpose2d(x, weights, stride=2, groups=n)
    else:
        x = F.conv2d(x, weights.view(n * outputs, inputs, size, size), padding=size // 2, groups=n)
    return x.view(n, outputs, *x.shape[2:])


class Straightforward(nn.Module):
    """The restorer with the parameters of a FullGenerator, which it shares; same input, same output."""

    kernel: Tensor

    def __init__(self, network: FullGenerator) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("kernel", binomial_kernel())

    def forward(self, x: Tensor) -> Tensor:
        """RGB in [-1, 1], (N, 3, size, size), to the same."""
        features = []
        for level in range(len(self.network.architecture.resolutions)):
            x = self._encoded(cast(ConvLayer, getattr(self.network, f"ecd{level}")[0]), x)
            features.append(x)
        features.reverse()
        generator = self.network.generator
        style = generator.style(self.network.final_linear(x.flatten(1)))
        x = self._styled(generator.conv1, generator.input(len(x)), style, features[0])
        rgb = self._projected(generator.to_rgb1, x, style, None)
        for level, feature in enumerate(features[1:]):
            x = self._styled(cast(StyledConv, generator.convs[2 * level]), x, style, feature)
            x = self._styled(cast(StyledConv, generator.convs[2 * level + 1]), x, style, feature)
            rgb = self._projected(cast(ToRGB, generator.to_rgbs[level]), x, style, rgb)
        return rgb

    def _encoded(self, layer: ConvLayer, x: Tensor) -> Tensor:
        convolution = next(each for each in layer if isinstance(each, EqualConv2d))
        activation = next(each for each in layer if isinstance(each, FusedLeakyReLU))
        weight = convolution.weight / math.sqrt(convolution.weight[0].numel())
        if convolution.stride == 2:
            x = F.conv2d(filtered(x, self.kernel, pad=(2, 2)), weight, stride=2)
        else:
            x = F.conv2d(x, weight, padding=convolution.padding)
        return activated(x, activation.bias)

    def _styled(self, layer: StyledConv, x: Tensor, style: Tensor, features: Tensor) -> Tensor:
        convolution: ModulatedConv2d = layer.conv
        up = convolution.blur is not None
        x = modulated(x, convolution.modulation(style), convolution.weight[0] * convolution.scale, up=up)
        if up:
            x = filtered(x, self.kernel * 4, pad=(1, 1))
        return activated(torch.cat([x, features * layer.noise.weight], dim=1), layer.activate.bias)

    def _projected(self, layer: ToRGB, x: Tensor, style: Tensor, below: Tensor | None) -> Tensor:
        weight = layer.conv.weight[0] * layer.conv.scale
        rgb = modulated(x, layer.conv.modulation(style), weight, demodulate=False) + layer.bias
        return rgb if below is None else rgb + filtered(below, self.kernel * 4, up=2, pad=(2, 1))
