"""torch.compile is an offer: where it fails, the network runs as it is."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.compiled import Compiled
from gpenvid.gpen.restorer import GpenRestorer

TINY = Architecture(size=16, channel_multiplier=1, narrow=0.0625, n_mlp=1, style_dim=8)


def tiny() -> FullGenerator:
    torch.manual_seed(0)
    return FullGenerator(TINY).prepare().requires_grad_(False)


class Picky(Compiled):
    """A translation that exists for some batches only, and that counts."""

    def __init__(self, network: torch.nn.Module, error: RuntimeError | None = None) -> None:
        super().__init__(network)
        self.batches: list[int] = []
        self.error = error
        self.translated = self.translate

    def translate(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        if self.error is not None:
            raise self.error
        return self.network(x)


def test_a_failing_compiler_is_one_line_and_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    network = tiny()
    compiled = Picky(network, RuntimeError("\n  no C++ compiler found\nlots of detail"))
    x = torch.linspace(-1, 1, 768).view(1, 3, 16, 16)
    for _ in range(2):
        assert torch.equal(compiled(x), network(x))
    assert compiled.batches == [1]
    assert [record.getMessage() for record in caplog.records] == ["--compile: no C++ compiler found; going on without"]


def test_memory_is_not_the_compilers_fault() -> None:
    compiled = Picky(tiny(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    with pytest.raises(RuntimeError, match="out of memory"):
        compiled(torch.zeros(1, 3, 16, 16))
    assert compiled.translated is not None


def test_only_full_batches_and_single_faces_are_translated() -> None:
    restorer = GpenRestorer(tiny(), 16, batch=3, compile=True)
    compiled = Picky(restorer.network)
    restorer._forward = compiled
    crops = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    plain = GpenRestorer(tiny(), 16).restore(crops).astype(int)
    assert np.abs(restorer.restore(crops) - plain).max() <= 1
    assert compiled.batches == [3, 3, 1, 1]


@pytest.mark.long
def test_a_missing_compiler_in_earnest(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(config, "force_disable_caches", True)
    network = tiny()
    x = torch.linspace(-1, 1, 768).view(1, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(Compiled(network)(x), network(x))
    (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("gpenvid")]
    assert told.endswith("going on without") and "\n" not in told
