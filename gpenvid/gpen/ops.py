"""The layers of StyleGAN2 as GPEN uses them, in plain PyTorch.

Parameters keep the names, shapes and scaling of the official code (equalised learning rate: a stored weight is
multiplied by 1 / sqrt(fan in) when used), so official state dicts load as they are. What differs is the arithmetic:

* Modulation scales the activations instead of the weights, so that one dense convolution serves the whole batch.
* Blurs are depthwise convolutions; feature maps are laid out channels-last, which both those and the dense
  convolutions prefer.
* The gain of an activation is moved into the multiplications before it: leaky_relu(x) g = leaky_relu(x g) for g > 0.
* Without autograd, activations are worked on in place where nobody else reads them: on a CPU, fresh memory costs
  as much as the arithmetic.
* On a CPU, without autograd, convolutions go Winograd's way where that pays, elsewhere by oneDNN's own operators.

What is derived from the parameters, and how half precision is kept from overflowing, is in `prepared`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpenvid.gpen import halves, onednn, strided, winograd
from gpenvid.gpen.activation import GAIN, SLOPE, Raw
from gpenvid.gpen.prepared import HALF_CLAMP, HALF_NORM, TINY, Prepared, Weight, bounded, is_half

TAPS = (1.0, 3.0, 3.0, 1.0)
"""The binomial low-pass of StyleGAN2, before normalisation."""


def _out_of_place() -> bool:
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def binomial_kernel(gain: float = 1.0) -> Tensor:
    """The (4, 4) float32 low-pass [1, 3, 3, 1] x [1, 3, 3, 1]; its sum is `gain`."""
    scale = gain / sum(TAPS) ** 2
    return torch.tensor([[row * column * scale for column in TAPS] for row in TAPS])


def normal(*shape: int, std: float = 1.0) -> Tensor:
    """A tensor of normal deviates, left alone on the meta device, where drawing them would import half of PyTorch."""
    tensor = torch.empty(shape)
    return tensor if tensor.is_meta else tensor.normal_(std=std)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2, in place; half precision is clamped to what the next layer can take."""
    x = F.leaky_relu(x, SLOPE, inplace=True)
    if not is_half(x.dtype):
        return x
    bound = torch.clamp if _out_of_place() else torch.clamp_  # autograd needs what the ReLU gave
    return bound(x, -HALF_CLAMP, HALF_CLAMP)


class PixelNorm(nn.Module):
    """Scale each row of (N, C) to unit mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x / rms(x)."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate, optionally followed by the leaky ReLU; in the parameters' type."""

    def __init__(
        self, inputs: int, outputs: int, *, bias_init: float = 0.0, lr_mul: float = 1.0, activated: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(outputs, inputs, std=1 / lr_mul))
        self.bias = nn.Parameter(torch.full((outputs,), bias_init))
        self.scale = lr_mul / math.sqrt(inputs)
        self.lr_mul = lr_mul
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) to (N, outputs)."""
        gain = GAIN if self.activated else 1.0
        x = torch.addmm(
            self.bias, x.to(self.weight.dtype), self.weight.t(), beta=self.lr_mul * gain, alpha=self.scale * gain
        )
        return F.leaky_relu(x, SLOPE) if self.activated else x


class Blur(nn.Module):
    """The binomial low-pass with zero padding `pad`.

    One square pass: two 1-D passes are bound by memory and take twice as long.
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
        if onednn.takes(x):  # on a CPU linear interpolation, which the low-pass is, takes half the time
            padded = F.pad(x, (1, 1, 1, 1))
            larger: Tensor = F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)
            return larger[..., 2:-2, 2:-2]
        channels = x.shape[1]
        weight = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


class EqualConv2d(Prepared):
    """Convolution with equalised learning rate; `gain` multiplies weights and bias."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(outputs, inputs, size, size))
        self.gain = gain
        self.scale = gain / math.sqrt(inputs * size**2)
        self.stride = stride
        self.padding = padding

    def derive(self, dtype: torch.dtype) -> Weight:
        """The parameters times their scale; norm and energy aren't used."""
        weight = (self.weight * self.scale).to(dtype).contiguous(memory_format=torch.channels_last)
        return Weight(weight, weight.new_ones(1), weight.new_ones(1))

    def prepare(self, dtype: torch.dtype | None) -> None:
        """See Prepared.prepare."""
        super().prepare(dtype)
        outputs, inputs, size, _ = self.weight.shape
        if self.stride == 2 and size == 3 and not self.padding and strided.pays(inputs, outputs):
            weight = self.weight.detach() * self.scale
            self.transform(dtype, lambda: halves.transform_weight(weight, forwards=True))
        self.packed = self.pack(dtype, lambda weight: onednn.pack(weight, stride=self.stride, padding=self.padding))

    def forward(self, x: Tensor, bias: Tensor | None = None, *, activated: bool = False) -> Tensor:
        """(N, inputs, H, W) to gain (conv(x) + bias), (N, outputs, H', W'), after the leaky ReLU if `activated`."""
        if bias is not None:
            bias = (bias * self.gain).to(x.dtype)
        if bias is not None and activated and self.by_winograd(x) and strided.fits_halved(x):
            return strided.convolve(x, self.transformed(), bias)
        if self.packed is not None and onednn.takes(x):
            after = onednn.leaky(SLOPE) if activated else onednn.PLAIN
            return onednn.convolve(x, self.packed, bias, stride=self.stride, padding=self.padding, after=after)
        result = self._convolve(x, bias)
        return leaky(result) if activated else result

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, self.weights(x.dtype).tensor, bias, stride=self.stride, padding=self.padding)


class FusedLeakyReLU(nn.Module):
    """The bias of an activation; the layer that owns it applies it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))


class ConvLayer(nn.Sequential):
    """Convolution of an encoder or discriminator: [blur,] convolution[, bias and activation]."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, downsample: bool = False, activated: bool = True
    ) -> None:
        # A 1 x 1 convolution with stride picks every second pixel: let the blur produce only those.
        blur_stride = 2 if downsample and size == 1 else 1
        stride = 2 // blur_stride if downsample else 1
        padding = 0 if downsample else size // 2
        gain = GAIN if activated else 1.0
        layers: list[nn.Module] = [Blur((size + 1) // 2)] if downsample else []
        layers.append(EqualConv2d(inputs, outputs, size, stride=stride, padding=padding, gain=gain))
        if activated:
            layers.append(FusedLeakyReLU(outputs))
        super().__init__(*layers)
        self.blur_stride = blur_stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H', W'), H' = H / 2 when downsampling."""
        layers = list(self)
        if isinstance(layers[0], Blur):
            x = layers.pop(0)(x, stride=self.blur_stride)
        activated = len(layers) == 2
        result: Tensor = layers[0](x, layers[1].bias if activated else None, activated=activated)
        return result


class ModulatedConv2d(Prepared):
    """3 x 3 convolution whose input channels are scaled by a style, per sample (StyleGAN2, section 2.2).

    Instead of one weight per sample, the activations are scaled before and the outputs after one shared convolution:
    conv(x, w s) d = d conv(x s, w), where d = 1 / sqrt(sum over inputs and taps of (w s)^2) undoes the change of scale.
    """

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, size: int = 0, upsample: bool = False) -> None:
        """size: height and width of the feature maps, as far as known; it decides on the way, not on the result."""
        super().__init__()
        self.weight = nn.Parameter(normal(1, outputs, inputs, 3, 3))
        if upsample:
            self.winograd = strided.pays(inputs, outputs) and strided.fits(size // 2, size // 2)
        else:
            self.winograd = winograd.pays(inputs, outputs, size)
        self.modulation = EqualLinear(style_dim, inputs, bias_init=1.0)
        self.scale = 1 / math.sqrt(inputs * 9)
        self.blur = Blur(1, gain=4.0) if upsample else None

    def derive(self, dtype: torch.dtype) -> Weight:
        """See Weight."""
        weight = self.weight[0]
        tensor, norm = bounded(weight, dtype)
        tensor = tensor if self.blur is None else tensor.transpose(0, 1)
        return Weight(tensor.contiguous(memory_format=torch.channels_last), norm, weight.square().sum(dim=(2, 3)))

    def prepare(self, dtype: torch.dtype | None) -> None:
        """See Prepared.prepare."""
        super().prepare(dtype)
        if self.winograd:
            weight = self.weight.detach()[0]
            if self.blur is None:
                self.transform(dtype, lambda: winograd.transform_weight(weight))
            else:
                self.transform(dtype, lambda: halves.transform_weight(weight, forwards=False))
        if self.prepared_winograd is not None:
            self.packed = None
        elif self.blur is None:
            self.packed = self.pack(dtype, lambda weight: onednn.pack(weight, padding=1))
        else:
            self.packed = self.pack(dtype, lambda weight: onednn.pack_transposed(weight, stride=2))

    def factors(self, style: Tensor, weight: Weight) -> tuple[Tensor, Tensor]:
        """What to multiply the inputs (N, inputs) and the outputs (N, outputs) by; in the parameters' type."""
        scales = self.modulation(style) * self.scale
        return scales, torch.rsqrt(F.linear(scales.square(), weight.energy) + 1e-8) * weight.norm

    def forward(self, x: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, inputs, H, W), overwritten when autograd is off; style: (N, style_dim).

        Returns the convolution (N, outputs, H, W), or (N, outputs, 2H, 2W) when upsampling, and the gains
        (N, outputs), in the parameters' type, by which the caller must multiply it.
        """
        weight = self.weights(x.dtype)
        scales, gains = self.factors(style, weight)
        if self.blur is not None and self.by_winograd(x):
            larger = strided.transpose(x, scales, weight.tensor, self.transformed())
            return self.blur(larger), gains
        if is_half(x.dtype):
            largest = scales.abs().amax(dim=1, keepdim=True).clamp(min=TINY)
            scales, gains = scales / largest, gains * largest
        scales = scales.to(x.dtype)[:, :, None, None]
        x = x * scales if _out_of_place() else x.mul_(scales)
        return self._convolve(x, weight.tensor), gains

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        packed = self.packed if onednn.takes(x) else None
        if self.blur is None:
            return F.conv2d(x, weight, padding=1) if packed is None else onednn.convolve(x, packed, None, padding=1)
        larger = F.conv_transpose2d(x, weight, stride=2) if packed is None else onednn.transpose(x, packed, stride=2)
        result: Tensor = self.blur(larger)
        return result


class ModulatedProjection(nn.Module):
    """1 x 1 modulated convolution to RGB, without demodulation: one small matrix per sample."""

    def __init__(self, inputs: int, style_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(1, 3, inputs, 1, 1))
        self.modulation = EqualLinear(style_dim, inputs, bias_init=1.0)
        self.scale = 1 / math.sqrt(inputs)

    def matrix(self, style: Tensor) -> Tensor:
        """From channels to RGB, (N, 3, inputs), for the styles (N, style_dim)."""
        matrix: Tensor = (self.modulation(style) * self.scale)[:, None] * self.weight[..., 0, 0]
        return matrix

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: (N, inputs, H, W), style: (N, style_dim). Returns (N, 3, H, W) in the parameters' type."""
        n, channels, height, width = x.shape
        matrix = self.matrix(style)
        norm = matrix.new_ones(1)
        if is_half(x.dtype):
            norm = matrix.abs().sum(dim=2, keepdim=True).clamp(min=TINY) / HALF_NORM
        pixels = x.permute(0, 2, 3, 1).reshape(n, height * width, channels).transpose(1, 2)
        rgb: Tensor = torch.bmm((matrix / norm).to(x.dtype), pixels).to(matrix.dtype) * norm
        return rgb.view(n, 3, height, width)


def join(own: Raw, foreign: Raw) -> Tensor:
    """Append one map (N, C, H, W) to another and activate both, in as few passes as there can be: (N, 2C, H, W)."""
    count, channels, *size = own.map.shape
    x, scaled = own.map, []
    for raw in (own, foreign):
        gain = raw.gain.clamp(max=6e4).to(x.dtype)[:, :, None, None]
        scaled.append((raw.shift.to(x.dtype).view(1, -1, 1, 1), raw.map, gain))
    if _out_of_place():
        return leaky(torch.cat([torch.addcmul(*each) for each in scaled], dim=1))
    shape = (count, 2 * channels, *size)
    joined = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for each, half in zip(scaled, joined.chunk(2, dim=1), strict=True):
        torch.addcmul(*each, out=half)
    return leaky(joined)


def minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """Append one channel with the mean standard deviation over groups of the batch (Karras et al. 2018).

    x: (N, C, H, W), N divisible by min(N, group). Returns (N, C + 1, H, W).
    """
    n, _, h, w = x.shape
    group = min(n, group)
    groups = x.reshape(group, -1, *x.shape[1:])
    deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    plane = deviation.repeat(group).view(n, 1, 1, 1).expand(n, 1, h, w)
    return torch.cat([x, plane], dim=1)
