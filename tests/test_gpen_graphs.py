"""Sizes of recorded batches, what a recording computes and, on a GPU, the recordings themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.graphs import Graphs, bucket, picture
from gpenvid.gpen.restorer import GpenRestorer, from_network, to_network

SMALL = Architecture(size=32, channel_multiplier=1, narrow=0.0625, n_mlp=2, style_dim=24)


def small() -> FullGenerator:
    torch.manual_seed(0)
    return FullGenerator(SMALL)


def faces(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_batches_are_filled_up_to_powers_of_two() -> None:
    assert [bucket(count) for count in (1, 2, 3, 4, 5, 8, 9, 33)] == [1, 2, 4, 4, 8, 8, 16, 64]


def test_a_recording_computes_what_the_restorer_computes_elsewhere() -> None:
    network = small().prepare()
    with torch.inference_mode():
        expected = from_network(network(to_network(faces(3), torch.device("cpu"))))
        assert np.array_equal(picture(network, torch.from_numpy(faces(3))).numpy(), expected)
    every = torch.arange(256, dtype=torch.uint8).repeat_interleave(12).view(1, 32, 32, 3)
    assert torch.equal(picture(torch.nn.Identity(), every), every)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_recordings_agree_with_the_cpu_at_every_batch(precision: str) -> None:
    exact = GpenRestorer(small(), 32).restore(faces(9)).astype(int)
    restorer = GpenRestorer(small(), 32, device="cuda", precision=precision, batch=8)
    for count in (9, 1, 3, 8, 3):
        assert np.abs(restorer.restore(faces(9)[:count]) - exact[:count]).max() <= 2
    assert restorer._graphs is not None
    assert sorted(restorer._graphs.recordings) == [1, 4, 8]


@pytest.mark.cuda
def test_recordings_can_be_forgotten_and_made_again() -> None:
    graphs = Graphs(small().cuda().prepare(torch.float16).requires_grad_(False), 32, torch.device("cuda"))
    with torch.inference_mode():
        before = graphs.restore(faces(2))
        graphs.forget()
        assert graphs.recordings == {}
        assert np.array_equal(graphs.restore(faces(2)), before)
    assert not np.shares_memory(before, graphs.restore(faces(2)))
