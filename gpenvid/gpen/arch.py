"""GPEN: a convolutional encoder in front of a StyleGAN2 generator (Yang et al. 2021, "GAN Prior Embedded Network").

The encoder's last feature map gives the style; each of its feature maps also enters the generator where StyleGAN2 has
noise, appended to the channels rather than added. There is no randomness: one picture gives one result.
Parameter names and shapes are the official ones, so that official checkpoints load as they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from gpenvid.gpen import winograd
from gpenvid.gpen.activation import GAIN, Raw
from gpenvid.gpen.ops import (
    ConvLayer,
    EqualLinear,
    FusedLeakyReLU,
    ModulatedConv2d,
    ModulatedProjection,
    PixelNorm,
    Upsample,
    join,
    minibatch_deviation,
    normal,
)
from gpenvid.gpen.prepared import Prepared

SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
"""Resolutions that a network can have; those below 128 serve tests rather than faces."""

LR_MLP = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """What distinguishes one GPEN from another; the official ones have style_dim 512 and n_mlp 8.

    size: side of the square input and output in pixels; narrow scales all widths, channel_multiplier those from
    64 pixels up.
    """

    size: int
    channel_multiplier: float = 2
    narrow: float = 1.0
    n_mlp: int = 8
    style_dim: int = 512

    def __post_init__(self) -> None:
        """Refuse a size that isn't in SIZES and empty layers with a ValueError."""
        if self.size not in SIZES:
            raise ValueError(f"size {self.size}: must be one of {', '.join(map(str, SIZES))}")
        if self.n_mlp < 0 or self.style_dim < 1 or min(map(self.channels, self.resolutions)) < 1:
            raise ValueError(f"{self}: a layer without channels")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ... size."""
        return tuple(2**i for i in range(2, int(math.log2(self.size)) + 1))

    def channels(self, resolution: int) -> int:
        """Width of the feature maps at a resolution."""
        # Rounded down, but for what floating point loses when the factors were recovered from widths.
        if resolution <= 32:
            return int(512 * self.narrow + 1e-6)
        return int(16384 // resolution * self.channel_multiplier * self.narrow + 1e-6)


class ConstantInput(nn.Module):
    """The learned 4 x 4 map at which the generator starts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(normal(1, channels, 4, 4))

    def forward(self, batch: int) -> Tensor:
        """(batch, channels, 4, 4), a copy."""
        return self.input.repeat(batch, 1, 1, 1)


class FeatureInjection(nn.Module):
    """The weight of the encoder's features, which GPEN appends to the channels where StyleGAN2 adds noise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class StyledConv(nn.Module):
    """Modulated 3 x 3 convolution, feature injection, bias and activation; gives twice `outputs` channels."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, size: int = 0, upsample: bool = False) -> None:
        """size: H' and W', as far as known; see ModulatedConv2d."""
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, style_dim, size=size, upsample=upsample)
        self.noise = FeatureInjection()
        self.activate = FusedLeakyReLU(2 * outputs)

    def forward(self, x: Tensor, style: Tensor, features: Tensor) -> Tensor:
        """x: (N, inputs, H, W), overwritten when autograd is off; features: (N, outputs, H', W').

        Returns (N, 2 outputs, H', W').
        """
        return join(*self.raw(x, style, features))

    def raw(self, x: Tensor, style: Tensor, features: Tensor) -> tuple[Raw, Raw]:
        """As `forward`, but the two halves of its result before their activation."""
        x, gains = self.conv(x, style)
        gain, shift, appended = self._around(gains, features)
        return Raw(x, gain, shift), appended

    def after(
        self, parts: tuple[Raw, Raw], style: Tensor, features: Tensor, matrix: Tensor, *, keep: bool
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, of what another layer's `raw` has given; only where `conv.by_winograd` says so.

        Returns that (if it is to be kept), and what the matrix (N, 3, 2 outputs) makes of it: RGB (N, 3, H', W').
        """
        scales, gains = self.conv.factors(style, self.conv.weights(features.dtype))
        gain, shift, more = self._around(gains, features)
        return winograd.convolve(*parts, scales, self.conv.transformed(), gain, shift, more, matrix, keep=keep)

    def _around(self, gains: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Raw]:
        """Gain and shift of what is convolved, and what is appended to it, before their activation."""
        own, foreign = (self.activate.bias * GAIN).chunk(2)
        return gains * GAIN, own, Raw(features, (self.noise.weight * GAIN).expand(features.shape[:2]), foreign)


class ToRGB(nn.Module):
    """Project features to RGB and add the upsampled RGB of the resolution below. RGB is always float32."""

    def __init__(self, inputs: int, style_dim: int, *, upsample: bool = True) -> None:
        super().__init__()
        self.conv = ModulatedProjection(inputs, style_dim)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = Upsample() if upsample else None

    def forward(self, x: Tensor, style: Tensor, below: Tensor | None = None) -> Tensor:
        """x: (N, inputs, H, W), below: (N, 3, H/2, W/2). Returns (N, 3, H, W) float32."""
        return self.add(self.conv(x, style), below)

    def add(self, rgb: Tensor, below: Tensor | None) -> Tensor:
        """As `forward`, of what is projected already."""
        rgb = rgb + self.bias
        return rgb if self.upsample is None or below is None else rgb + self.upsample(below)


class Generator(nn.Module):
    """StyleGAN2's generator with skip connections, taking features where it had noise."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels, style_dim = architecture.channels, architecture.style_dim
        mlp = [EqualLinear(style_dim, style_dim, lr_mul=LR_MLP, activated=True) for _ in range(architecture.n_mlp)]
        self.style = nn.Sequential(PixelNorm(), *mlp)
        self.input = ConstantInput(channels(4))
        self.conv1 = StyledConv(channels(4), channels(4), style_dim)
        self.to_rgb1 = ToRGB(2 * channels(4), style_dim, upsample=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        inputs = 2 * channels(4)
        for resolution in architecture.resolutions[1:]:
            outputs = channels(resolution)
            self.convs.append(StyledConv(inputs, outputs, style_dim, size=resolution, upsample=True))
            self.convs.append(StyledConv(2 * outputs, outputs, style_dim, size=resolution))
            self.to_rgbs.append(ToRGB(2 * outputs, style_dim))
            inputs = 2 * outputs

    def forward(self, latent: Tensor, features: list[Tensor]) -> Tensor:
        """latent: (N, style_dim); features: one map per resolution, from 4 x 4 up. Returns RGB (N, 3, size, size)."""
        style = self.style(latent)
        x = self.input(latent.shape[0]).to(features[0].dtype)
        x = self.conv1(x, style, features[0])
        rgb: Tensor = self.to_rgb1(x, style)
        layers = zip(self.convs[::2], self.convs[1::2], self.to_rgbs, features[1:], strict=True)
        for larger, same, to_rgb, feature in cast(Iterable[tuple[StyledConv, StyledConv, ToRGB, Tensor]], layers):
            if same.conv.by_winograd(x):
                parts, matrix = larger.raw(x, style, feature), to_rgb.conv.matrix(style)
                x, own = same.after(parts, style, feature, matrix, keep=feature is not features[-1])
                rgb = to_rgb.add(own, rgb)
            else:
                x = same(larger(x, style, feature), style, feature)
                rgb = to_rgb(x, style, rgb)
        return rgb


class FullGenerator(nn.Module):
    """The whole restorer.

    `compute_dtype` is the type of the activations (parameters stay float32): float32, bfloat16 or float16. Set it for
    training in mixed precision; for inference call `prepare`.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.compute_dtype = torch.float32
        downwards = architecture.resolutions[::-1]
        self.ecd0 = nn.Sequential(ConvLayer(3, architecture.channels(architecture.size), 1))
        for i, (above, below) in enumerate(itertools.pairwise(downwards), start=1):
            layer = ConvLayer(architecture.channels(above), architecture.channels(below), 3, downsample=True)
            setattr(self, f"ecd{i}", nn.Sequential(layer))
        self.final_linear = nn.Sequential(
            EqualLinear(architecture.channels(4) * 16, architecture.style_dim, activated=True)
        )
        self.generator = Generator(architecture)

    @property
    def size(self) -> int:
        """Side of the square pictures in pixels."""
        return self.architecture.size

    def prepare(self, dtype: torch.dtype = torch.float32) -> FullGenerator:
        """Make inference fast: compute in `dtype` from now on and derive from the parameters once what can be.

        Holds until `train()` or `load_state_dict`; call it again after changing parameters in any other way.
        Returns self, in evaluation mode.
        """
        self.eval()
        self.compute_dtype = dtype
        for module in self.modules():
            if isinstance(module, Prepared):
                module.prepare(dtype)
        return self

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """RGB (N, 3, size, size) to the latent (N, style_dim) and the feature maps, from 4 x 4 up."""
        x = x.to(self.compute_dtype, memory_format=torch.channels_last)
        features = []
        for i in range(len(self.architecture.resolutions)):
            x = getattr(self, f"ecd{i}")(x)
            features.append(x)
        return self.final_linear(x.flatten(1)), features[::-1]

    def forward(self, x: Tensor) -> Tensor:
        """Restore RGB in [-1, 1], (N, 3, size, size). Returns float32 of the same shape, about [-1, 1], not clipped."""
        latent, features = self.encode(x)
        restored: Tensor = self.generator(latent, features)
        return restored


class ResBlock(nn.Module):
    """Two convolutions and a shortcut, halving the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, downsample=True)
        self.skip = ConvLayer(inputs, outputs, 1, downsample=True, activated=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H/2, W/2)."""
        total: Tensor = self.conv2(self.conv1(x)) + self.skip(x)
        return total * math.sqrt(0.5)


class Discriminator(nn.Module):
    """StyleGAN2's residual discriminator; of the architecture only size, channel_multiplier and narrow matter."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels, downwards = architecture.channels, architecture.resolutions[::-1]
        blocks = [ResBlock(channels(a), channels(b)) for a, b in itertools.pairwise(downwards)]
        self.convs = nn.Sequential(ConvLayer(3, channels(architecture.size), 1), *blocks)
        self.final_conv = ConvLayer(channels(4) + 1, channels(4), 3)
        self.final_linear = nn.Sequential(
            EqualLinear(channels(4) * 16, channels(4), activated=True), EqualLinear(channels(4), 1)
        )

    def features(self, x: Tensor) -> list[Tensor]:
        """RGB (N, 3, size, size) to the output of every block, from fine to coarse: for feature matching."""
        maps = []
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.convs:
            x = block(x)
            maps.append(x)
        return maps

    def head(self, features: Tensor) -> Tensor:
        """The last of `features` to logits (N, 1)."""
        x = self.final_conv(minibatch_deviation(features))
        logits: Tensor = self.final_linear(x.flatten(1))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """RGB in [-1, 1], (N, 3, size, size), to logits (N, 1); N at most 4 or a multiple of 4. Positive is real."""
        return self.head(self.features(x)[-1])
