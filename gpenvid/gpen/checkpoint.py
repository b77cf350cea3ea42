"""From a file to a network: read tensors and nothing else, infer the architecture from them, check every key.

The official checkpoints are plain state dicts; training programs nest theirs under a key such as `g_ema`, beside
optimizers and a discriminator. `DataParallel` puts `module.` before every key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from gpenvid.errors import WeightsError
from gpenvid.gpen.arch import Architecture, Discriminator, FullGenerator
from gpenvid.weights import find_state_dict, read_checkpoint

GENERATOR_KEYS = ("g_ema", "params_ema", "g", "generator", "params", "state_dict", "model")
DISCRIMINATOR_KEYS = ("d", "discriminator", "params", "state_dict", "model")
"""Where training programs keep a network's state dict, best first."""

Network = TypeVar("Network", bound=nn.Module)


def load_generator(path: Path) -> FullGenerator:
    """The network in a checkpoint: float32, on the CPU, in evaluation mode.

    Raises WeightsError, one line that names the file and the reason, if the file is missing, truncated, holds anything
    but tensors and plain data, or isn't a GPEN down to the last key and shape.
    """
    return _load(path, GENERATOR_KEYS, infer_architecture, FullGenerator)


def load_discriminator(path: Path) -> Discriminator:
    """Like `load_generator`, for the discriminators that fine-tuning starts from."""
    return _load(path, DISCRIMINATOR_KEYS, infer_discriminator, Discriminator)


def _load(
    path: Path,
    keys: tuple[str, ...],
    infer: Callable[[Mapping[str, Tensor]], Architecture],
    build: Callable[[Architecture], Network],
) -> Network:
    content = read_checkpoint(path)
    try:
        state = find_state_dict(content, keys)
        network = empty_network(state, infer, build)
        state = {key: tensor.float().contiguous() for key, tensor in state.items()}
        damaged = next((key for key, tensor in state.items() if not tensor.isfinite().all()), None)
        if damaged is not None:
            raise ValueError(f"{damaged} holds values that aren't finite")
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None
    network.load_state_dict(state, assign=True)
    return network.eval()


def infer_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture whose state dict this is, from its keys and shapes alone.

    Raises ValueError with the reason if it isn't a GPEN; whether every key fits is for `empty_network` to check.
    """
    levels = _count(state, r"ecd(\d+)\.0\.\d\.weight")
    base, latent = state.get("generator.input.input"), state.get("final_linear.0.weight")
    if levels < 2 or base is None or base.ndim != 4 or latent is None or latent.ndim != 2:
        raise ValueError("not a GPEN generator")
    at_64 = state.get(f"ecd{levels - 5}.0.{0 if levels == 5 else 1}.weight")
    return _architecture(
        levels, base.shape[1], at_64, n_mlp=_count(state, r"generator\.style\.(\d+)\.weight"), style_dim=len(latent)
    )


def infer_discriminator(state: Mapping[str, Tensor]) -> Architecture:
    """The same for a discriminator's state dict; n_mlp and style_dim mean nothing there."""
    levels = _count(state, r"convs\.(\d+)\..*weight")
    base = state.get("final_conv.0.weight")
    if levels < 2 or base is None or base.ndim != 4:
        raise ValueError("not a GPEN discriminator")
    at_64 = state.get("convs.0.0.weight" if levels == 5 else f"convs.{levels - 5}.conv2.1.weight")
    return _architecture(levels, base.shape[0], at_64, n_mlp=8, style_dim=512)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for found in map(re.compile(pattern).fullmatch, state) if found})


def _architecture(levels: int, width: int, at_64: Tensor | None, *, n_mlp: int, style_dim: int) -> Architecture:
    """`levels`: resolutions from 4 up; width: channels at 4 x 4; at_64: the convolution that gives the map at 64."""
    if not width:
        raise ValueError("a layer without channels")
    return Architecture(
        size=2 ** (levels + 1) if levels < 12 else 0,
        channel_multiplier=1.0 if at_64 is None or not at_64.ndim else 2 * at_64.shape[0] / width,
        narrow=width / 512,
        n_mlp=n_mlp,
        style_dim=style_dim,
    )


def empty_network(
    state: Mapping[str, Tensor],
    infer: Callable[[Mapping[str, Tensor]], Architecture] = infer_architecture,
    build: Callable[[Architecture], Network] = FullGenerator,  # type: ignore[assignment]
) -> Network:
    """The network that a state dict belongs to, on the meta device (without data).

    Raises ValueError with the reason unless keys and shapes agree exactly.
    """
    architecture = infer(state)
    with torch.device("meta"):
        network = build(architecture)
    expected = network.state_dict()
    for key, tensor in expected.items():
        if key not in state:
            raise ValueError(f"{key} is missing")
        if state[key].shape != tensor.shape:
            raise ValueError(f"{key} has shape {tuple(state[key].shape)}, expected {tuple(tensor.shape)}")
        if not state[key].is_floating_point():
            raise ValueError(f"{key} holds {str(state[key].dtype).removeprefix('torch.')} instead of floating point")
    unknown = sorted(state.keys() - expected.keys())
    if unknown:
        raise ValueError(f"{unknown[0]} doesn't belong to a GPEN of size {architecture.size}")
    return network
