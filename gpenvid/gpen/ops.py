"""The layers of StyleGAN2 as GPEN uses them, in plain PyTorch.

Parameters keep the names, shapes and scaling of the official code (equalised learning rate: a stored weight is
multiplied by 1 / sqrt(fan in) when used), so official state dicts load as they are. What differs is the arithmetic:
modulation scales the activations instead of the weights, so that one dense convolution serves the whole batch, and
blurs are depthwise convolutions.

Parameters stay float32; activations may be float16 or bfloat16. In half precision a convolution's weights are brought
to a bounded L1 norm per output, so that no sum of products can overflow, and the norm is multiplied back afterwards.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = (1.0, 3.0, 3.0, 1.0)
"""The binomial low-pass of StyleGAN2, before normalisation."""

SLOPE = 0.2
GAIN = math.sqrt(2.0)

HALF_NORM = 32.0
"""L1 norm of half precision weights: no output exceeds 32 times the largest input."""

HALF_CLAMP = 1024.0
"""Bound of half precision activations; 32 * 1024 lies within the range of float16."""


def binomial_kernel(gain: float = 1.0) -> Tensor:
    """The (4, 4) float32 low-pass [1, 3, 3, 1] x [1, 3, 3, 1]; its sum is `gain`."""
    taps = torch.tensor(TAPS)
    kernel = torch.outer(taps, taps)
    return kernel * (gain / kernel.sum())


def activate(x: Tensor, bias: Tensor) -> Tensor:
    """Leaky ReLU of x + bias with slope 0.2 and gain sqrt(2); x: (N, C, ...), bias: (C,). Half precision is clamped."""
    x = x + bias.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))
    x = F.leaky_relu(x, SLOPE) * GAIN
    return x if x.dtype == torch.float32 else x.clamp(-HALF_CLAMP, HALF_CLAMP)


class PixelNorm(nn.Module):
    """Scale each row of (N, C) to unit mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x / rms(x)."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate, optionally followed by the leaky ReLU; always float32."""

    def __init__(
        self, inputs: int, outputs: int, *, bias_init: float = 0.0, lr_mul: float = 1.0, activated: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mul)
        self.bias = nn.Parameter(torch.full((outputs,), bias_init))
        self.scale = lr_mul / math.sqrt(inputs)
        self.lr_mul = lr_mul
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) to (N, outputs)."""
        x = F.linear(x.float() * self.scale, self.weight)
        bias = self.bias * self.lr_mul
        return activate(x, bias) if self.activated else x + bias


class Blur(nn.Module):
    """The binomial low-pass as a depthwise convolution with zero padding `pad` and, while at it, a stride.

    Kept square: two 1-D passes cost more than one 4 x 4 pass, because both are bound by memory.
    """

    kernel: Tensor

    def __init__(self, pad: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("kernel", binomial_kernel(gain))
        self.pad = pad

    def forward(self, x: Tensor, *, stride: int = 1) -> Tensor:
        """(N, C, H, W) to (N, C, H', W') with H' = (H + 2 pad - 4) // stride + 1."""
        channels = x.shape[1]
        weight = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(x, weight, stride=stride, padding=self.pad, groups=channels)


class Upsample(nn.Module):
    """Twice the size: zeros between the pixels, then the binomial low-pass with gain 4."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", binomial_kernel(4.0))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 2H, 2W)."""
        channels = x.shape[1]
        weight = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


class EqualConv2d(nn.Module):
    """Convolution without bias, with equalised learning rate."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.scale = 1 / math.sqrt(inputs * size**2)
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H', W')."""
        weight = (self.weight * self.scale).to(x.dtype)
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding)


class FusedLeakyReLU(nn.Module):
    """Bias and leaky ReLU with gain sqrt(2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, ...) to the same shape."""
        return activate(x, self.bias)


class ConvLayer(nn.Sequential):
    """Convolution of an encoder or discriminator: [blur,] convolution[, bias and activation]."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, downsample: bool = False, activated: bool = True
    ) -> None:
        layers: list[nn.Module] = []
        if downsample:
            # A 1x1 convolution with stride picks every second pixel: let the blur produce only those.
            layers.append(Blur((size + 1) // 2))
            layers.append(EqualConv2d(inputs, outputs, size, stride=1 if size == 1 else 2))
        else:
            layers.append(EqualConv2d(inputs, outputs, size, padding=size // 2))
        if activated:
            layers.append(FusedLeakyReLU(outputs))
        super().__init__(*layers)
        self.blur_stride = 2 if downsample and size == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H', W'), H' = H / 2 when downsampling."""
        for layer in self:
            x = layer(x, stride=self.blur_stride) if isinstance(layer, Blur) else layer(x)
        return x


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style, per sample (StyleGAN2, section 2.2).

    Instead of one weight per sample, the activations are scaled before and the outputs after one shared convolution:
    conv(x, w s) d = d conv(x s, w), where d = 1 / sqrt(sum over inputs and taps of (w s)^2) undoes the change of scale.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        style_dim: int,
        *,
        demodulate: bool = True,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, size, size))
        self.modulation = EqualLinear(style_dim, inputs, bias_init=1.0)
        self.scale = 1 / math.sqrt(inputs * size**2)
        self.demodulate = demodulate
        self.padding = size // 2
        self.blur = Blur(1, gain=4.0) if upsample else None

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: (N, inputs, H, W), style: (N, style_dim). Returns (N, outputs, H, W), or 2H, 2W when upsampling."""
        scales = self.modulation(style) * self.scale
        weight = self.weight[0]
        if self.demodulate:
            energy = weight.square().sum(dim=(2, 3))
            gains = torch.rsqrt(F.linear(scales.square(), energy) + 1e-8)
        else:
            gains = scales.new_ones(len(x), len(weight))
        if x.dtype != torch.float32:
            largest = scales.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
            norm = weight.abs().sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12) / HALF_NORM
            scales, gains = scales / largest, (gains * largest * norm.view(1, -1)).clamp(max=6e4)
            weight = (weight / norm).to(x.dtype)
        x = x * scales.to(x.dtype)[:, :, None, None]
        if self.blur is None:
            x = F.conv2d(x, weight, padding=self.padding)
        else:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        return x * gains.to(x.dtype)[:, :, None, None] if self.demodulate else x * gains[:, :, None, None]


def minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """Append one channel with the mean standard deviation over groups of the batch (Karras et al. 2018).

    x: (N, C, H, W), N divisible by min(N, group). Returns (N, C + 1, H, W).
    """
    n, _, h, w = x.shape
    group = min(n, group)
    groups = x.float().reshape(group, -1, *x.shape[1:])
    deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    plane = deviation.repeat(group).view(n, 1, 1, 1).expand(n, 1, h, w)
    return torch.cat([x, plane.to(x.dtype)], dim=1)
