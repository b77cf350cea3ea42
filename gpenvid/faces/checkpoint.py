"""Reads a state dict from a weights file, without running anything that the file may contain."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from gpenvid.errors import WeightsError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch weights file to the CPU; a `module.` prefix of the names is removed.

    The dict may lie under the key `state_dict`. Raises WeightsError, which names the file, if it is missing, damaged,
    holds anything but tensors, or would run code.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = "unsafe contents" if "GLOBAL" in str(error) else type(error).__name__
        raise WeightsError(f"{path.name}: not a readable weights file ({reason})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path.name}: holds no state dict")
    return {str(key).removeprefix("module."): value for key, value in state.items()}
