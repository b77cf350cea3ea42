"""From a file to a network: read tensors and nothing else, infer the architecture from them, check every key.

The official checkpoints are plain state dicts; training programs nest theirs under a key such as `g_ema`, beside
optimizers and a discriminator. `DataParallel` puts `module.` before every key.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gpenvid.errors import WeightsError
from gpenvid.gpen.arch import Architecture, Discriminator, FullGenerator

GENERATOR_KEYS = ("g_ema", "params_ema", "g", "generator", "params", "state_dict", "model")
DISCRIMINATOR_KEYS = ("d", "discriminator", "params", "state_dict", "model")
"""Where training programs keep a network's state dict, best first."""

SLACK = 1 << 20
"""Bytes by which a file's tensors may exceed its size: a few may share their storage."""

NESTING = 4
"""Levels of dicts that are searched for a state dict."""

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


def read_checkpoint(path: Path) -> Any:
    """Unpickle with `weights_only=True`: tensors, containers and numbers, never code. Raises WeightsError."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None
    if not start:
        raise WeightsError(f"{path}: the file is empty")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: a Git LFS pointer, not the weights; run `git lfs pull`")
    if start.lstrip().startswith(b"<"):
        raise WeightsError(f"{path}: a web page, not weights; download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes the unpickler raise
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"refused, it holds objects ({found[1]}) and not only tensors"
            if found
            else "truncated or not a PyTorch checkpoint"
        )
        raise WeightsError(f"{path}: {reason}") from None
    held = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(content))
    if held > path.stat().st_size + SLACK:
        raise WeightsError(f"{path}: refused, its tensors claim {held} bytes, more than the file holds")
    return content


def _tensors(content: Any) -> list[Tensor]:
    """Every tensor in nested containers; a hostile file may nest them in a circle."""
    found, seen, waiting = [], set(), [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return found


def find_state_dict(content: Any, keys: tuple[str, ...] = GENERATOR_KEYS) -> dict[str, Tensor]:
    """The state dict in what a file held: the whole of it, or what lies under the first of `keys` that is there.

    Raises ValueError with the reason.
    """
    for _ in range(NESTING):
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}, not a state dict")
        nested = next((content[key] for key in keys if isinstance(content.get(key), dict)), None)
        if nested is None:
            break
        content = nested
    strangers = [str(key) for key, value in content.items() if not (isinstance(key, str) and _is_weight(value))]
    if strangers or not content:
        raise ValueError(f"not a state dict: {strangers[0]!r} isn't a weight" if strangers else "an empty state dict")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _is_weight(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


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
