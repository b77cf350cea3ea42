"""The compute device behind a word such as `auto` or `cuda:1`."""

from __future__ import annotations

import re

import torch

from gpenvid.errors import DeviceError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Turn auto, cpu, cuda, cuda:N or mps into a device that is present.

    auto prefers CUDA, then MPS, then the CPU. Raises DeviceError for another word or a device that isn't there.
    """
    word = str(name)
    if word == "auto":
        word = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if "," in word:
        raise DeviceError(f"device {word}: only restoring takes several devices; name one")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", word):
        raise DeviceError(f"device {word}: must be auto, cpu, cuda, cuda:N or mps")
    device = torch.device(word)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device mps: not available on this machine; use auto or cpu")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(f"device {word}: this machine has {count} CUDA devices; use auto or cpu")
    return device
