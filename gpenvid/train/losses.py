"""What training minimises. Pictures are float32 (N, 3, S, S) in [-1, 1]; every loss is a scalar."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def luma(x: Tensor) -> Tensor:
    """ITU-R BT.601 luma of RGB, (N, 1, H, W)."""
    return (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences along x and y, both cropped to (N, C, H - 1, W - 1)."""
    corner = x[..., :-1, :-1]
    return x[..., :-1, 1:] - corner, x[..., 1:, :-1] - corner


def multiscale_gradient_loss(x: Tensor, truth: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute error of the forward differences, averaged over `scales` octaves."""
    error = x - truth  # both steps are linear
    total = x.new_zeros(())
    for _ in range(scales):
        dx, dy = differences(error)
        total = total + dx.abs().mean() + dy.abs().mean()
        error = F.avg_pool2d(error, 2)
    return total / (2 * scales)


def local_energy_loss(x: Tensor, truth: Tensor, patch: int = 8) -> Tensor:
    """Mean absolute error of the luma gradient's root mean square within patches of `patch` pixels.

    Where detail lies exactly can't be known from a bad picture, how much of it there is can: this term wants the
    amount, where an absolute error alone answers doubt with blur.
    """

    def amplitude(picture: Tensor) -> Tensor:
        dx, dy = differences(F.pad(luma(picture), (0, 1, 0, 1), mode="replicate"))
        return (F.avg_pool2d(dx.square() + dy.square(), patch) + 1e-5).sqrt()

    return (amplitude(x) - amplitude(truth)).abs().mean()


def gradient_similarity_loss(x: Tensor, truth: Tensor) -> Tensor:
    """1 - mean + standard deviation of the gradient magnitude similarity (GMSD, Xue et al. 2014) of the luma.

    Like the metric: luma in 0 to 255, averaged down by 2, Prewitt operators, c = 170.
    """
    c = 170.0

    def magnitude(picture: Tensor) -> Tensor:
        y = F.avg_pool2d(luma(picture) * 127.5, 2)
        kernel = y.new_tensor([[1, 0, -1]] * 3).view(1, 1, 3, 3) / 3
        dx, dy = F.conv2d(y, kernel), F.conv2d(y, kernel.transpose(2, 3))
        return (dx.square() + dy.square() + 1e-3).sqrt()

    a, b = magnitude(x), magnitude(truth)
    similarity = (2 * a * b + c) / (a.square() + b.square() + c)
    deviation = (similarity.var(dim=(1, 2, 3), unbiased=False) + 1e-8).sqrt()
    return 1 - similarity.mean() + deviation.mean()


@dataclass(frozen=True, kw_only=True, slots=True)
class ContentWeights:
    """Shares of the terms of `content_loss`; knee: the error up to which L1 is rounded off."""

    l1: float = 1.0
    gradient: float = 1.0
    energy: float = 0.3
    similarity: float = 0.05
    knee: float = 0.1


def content_loss(x: Tensor, truth: Tensor, weights: ContentWeights) -> Tensor:
    """How far the restored picture is from the truth: smooth L1 and terms about its gradients."""
    total = weights.l1 * F.smooth_l1_loss(x, truth, beta=weights.knee)
    if weights.gradient:
        total = total + weights.gradient * multiscale_gradient_loss(x, truth)
    if weights.energy:
        total = total + weights.energy * local_energy_loss(x, truth)
    if weights.similarity:
        total = total + weights.similarity * gradient_similarity_loss(x, truth)
    return total


def generator_gan_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating: softplus(-D(fake)) (Goodfellow et al. 2014)."""
    return F.softplus(-fake_logits).mean()


def discriminator_gan_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic: softplus(-D(real)) + softplus(D(fake))."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(real_logits: Tensor, real: Tensor) -> Tensor:
    """Mean squared norm of the gradient of D at real pictures (Mescheder et al. 2018); `real` requires grad."""
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def feature_matching_loss(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean absolute difference of the discriminator's features, averaged over its blocks; `real` is a constant."""
    errors = [(a - b.detach()).abs().mean() for a, b in zip(fake, real, strict=True)]
    return torch.stack(errors).mean()
