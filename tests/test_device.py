"""Words for devices."""

from __future__ import annotations

import pytest
import torch

from gpenvid.device import resolve_device
from gpenvid.errors import DeviceError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine with so many CUDA devices and, or not, MPS."""
    cuda, mps = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("machine", "word", "device"),
    [
        ((0, False), "auto", "cpu"),
        ((2, False), "auto", "cuda"),
        ((2, True), "auto", "cuda"),
        ((0, True), "auto", "mps"),
        ((2, True), "cpu", "cpu"),
        ((2, False), "cuda", "cuda"),
        ((2, False), "cuda:1", "cuda:1"),
        ((0, True), "mps", "mps"),
    ],
    indirect=["machine"],
)
def test_words(word: str, device: str) -> None:
    assert resolve_device(word) == torch.device(device)
    assert resolve_device(torch.device(device)) == torch.device(device)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("machine", "word", "reason"),
    [
        ((0, False), "cuda", "0 CUDA devices"),
        ((2, False), "cuda:2", "2 CUDA devices"),
        ((2, False), "mps", "not available"),
        ((2, True), "gpu", "must be auto, cpu, cuda, cuda:N or mps"),
        ((2, True), "cuda:", "must be"),
        ((2, False), "cuda:0,cuda:1", "only restoring takes several devices"),
        ((2, True), "", "must be"),
    ],
    indirect=["machine"],
)
def test_a_device_that_is_not_there(word: str, reason: str) -> None:
    with pytest.raises(DeviceError, match=reason) as caught:
        resolve_device(word)
    assert word in str(caught.value)
