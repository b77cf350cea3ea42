"""Reads tensors out of a weights file, and nothing else: no code that it may hold is ever run."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpenvid.errors import WeightsError

SLACK = 1 << 20
"""Bytes by which a file's tensors may exceed its size: a few may share their storage."""

NESTING = 4
"""Levels of dicts that are searched for a state dict."""


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


def find_state_dict(content: Any, keys: tuple[str, ...]) -> dict[str, Tensor]:
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
