"""Loads facexlib's networks from their files, strictly."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from gpenvid.errors import WeightsError
from gpenvid.weights import find_state_dict, read_checkpoint


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, also one under the key `state_dict`. Raises WeightsError, which names the file."""
    try:
        return find_state_dict(read_checkpoint(path), ("state_dict",))
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None
