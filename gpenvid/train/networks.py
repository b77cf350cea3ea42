"""The networks of a training run, how they start, and what of them is trained."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gpenvid.errors import OptionsError
from gpenvid.gpen.arch import Architecture, Discriminator, FullGenerator
from gpenvid.gpen.checkpoint import load_discriminator, load_generator
from gpenvid.train.identity import start_as_identity
from gpenvid.train.options import TrainOptions

COLOUR_RATE = 0.1


@dataclass(slots=True)
class Networks:
    """generator: in training; average: its moving average, which is what a run is for; discriminator: or None."""

    generator: FullGenerator
    average: FullGenerator
    discriminator: Discriminator | None


def build_networks(options: TrainOptions) -> Networks:
    """Make the networks on the CPU, the same ones for one seed.

    A restorer starts from `init`, or as the identity, with or without the generator of `init_prior`. Raises
    WeightsError for unreadable files, OptionsError for those that don't fit together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        generator = _generator(options)
        architecture = generator.architecture
        adversarial = options.stage == "prior" or options.adversarial > 0
        discriminator = Discriminator(architecture) if adversarial else None
    if discriminator is not None and options.init_discriminator:
        loaded = load_discriminator(Path(options.init_discriminator))
        if {k: v.shape for k, v in loaded.state_dict().items()} != {
            k: v.shape for k, v in discriminator.state_dict().items()
        }:
            raise OptionsError(f"--init-discriminator {options.init_discriminator}: not of the generator's size")
        discriminator = loaded
    if options.freeze_prior:
        for name, parameter in generator.generator.named_parameters():
            parameter.requires_grad_(name.endswith("noise.weight"))
    average = copy.deepcopy(generator).requires_grad_(False).eval()
    return Networks(generator.train(), average, discriminator.train() if discriminator is not None else None)


def _generator(options: TrainOptions) -> FullGenerator:
    if options.init:
        return load_generator(Path(options.init)).requires_grad_(True)
    generator = FullGenerator(
        Architecture(
            size=options.size,
            channel_multiplier=options.channel_multiplier,
            narrow=options.narrow,
            n_mlp=options.n_mlp,
            style_dim=options.style_dim,
        )
    )
    if options.stage == "prior":
        return generator
    if not options.init_prior:
        start_as_identity(generator)
        return generator
    prior = load_generator(Path(options.init_prior))
    if prior.architecture != generator.architecture:
        raise OptionsError(f"--init-prior {options.init_prior}: {prior.architecture}, not {generator.architecture}")
    generator.generator.load_state_dict(prior.generator.state_dict())
    return generator


def generator_groups(generator: FullGenerator, options: TrainOptions) -> list[dict[str, object]]:
    """Adam's parameter groups: the prior at `lr`, the encoder at `lr_encoder`; with a frozen prior only the latter.

    The biases of the RGB projections learn ten times slower than the rest of the prior. Adam moves every parameter by
    about its rate in each step, and these shift the colour of the whole picture.
    """
    rates = {"encoder": options.lr_encoder, "prior": options.lr, "colour": options.lr * COLOUR_RATE}
    groups: dict[str, list[nn.Parameter]] = {kind: [] for kind in rates}
    for name, parameter in generator.named_parameters():
        prior = name.startswith("generator.")
        if not parameter.requires_grad or (options.stage == "prior" and not prior):
            continue
        if not prior or options.freeze_prior:
            groups["encoder"].append(parameter)
        else:
            colour = name.split(".")[1].startswith("to_rgb") and name.endswith("bias") and "modulation" not in name
            groups["colour" if colour else "prior"].append(parameter)
    return [{"params": groups[k], "lr": lr, "initial_lr": lr} for k, lr in rates.items() if groups[k]]


def random_picture(generator: FullGenerator, count: int, random: torch.Generator) -> Tensor:
    """What the prior alone makes of random styles and random features: RGB (count, 3, S, S) in about [-1, 1]."""
    architecture = generator.architecture
    device = next(generator.parameters()).device
    style = torch.randn(count, architecture.style_dim, generator=random).to(device)
    features = [
        torch.randn(count, architecture.channels(r), r, r, generator=random).to(device, generator.compute_dtype)
        for r in architecture.resolutions
    ]
    picture: Tensor = generator.generator(style, features)
    return picture


@torch.no_grad()
def average_into(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * network, parameter by parameter."""
    torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in network.parameters()], 1 - decay)
