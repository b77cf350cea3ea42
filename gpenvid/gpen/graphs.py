"""CUDA: uint8 pictures in and out through pinned memory, the network replayed as a CUDA graph per size of batch.

A GPEN is some 150 small kernels; launched one by one they take longer than they run for a single face. A graph is one
launch. It is recorded for a fixed batch, so batches are filled up to the next power of two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

WARM_UPS = 3
"""Runs before a recording, in which cuDNN chooses its algorithms."""


def bucket(count: int) -> int:
    """The least power of two that is no less than count."""
    return 1 << (count - 1).bit_length()


@dataclass(frozen=True, slots=True)
class _Recording:
    """A graph with the memory that it reads and writes; host: pinned memory for both ways."""

    graph: torch.cuda.CUDAGraph
    input: Tensor
    output: Tensor
    host: Tensor


class Graphs:
    """A network (N, 3, S, S) in [-1, 1] to the same on a CUDA device, as a function of uint8 arrays.

    It runs on a stream of its own: what waits for the default one, as FFmpeg's decoder does, never waits for it.
    """

    def __init__(self, network: nn.Module, size: int, device: torch.device) -> None:
        self.network = network
        self.size = size
        self.device = device
        self.recordings: dict[int, _Recording] = {}
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def forget(self) -> None:
        """Give the memory of all recordings back."""
        self.recordings.clear()
        torch.cuda.empty_cache()

    def restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(N, S, S, 3) to the same. Waits for the device once, for the result."""
        count = len(crops)
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            recording = self.recordings.get(bucket(count)) or self._record(bucket(count))
            recording.host[:count].numpy()[:] = crops
            recording.input[:count].copy_(recording.host[:count], non_blocking=True)
            recording.graph.replay()
            recording.host[:count].copy_(recording.output[:count], non_blocking=True)
            self._stream.synchronize()
        result: NDArray[np.uint8] = recording.host[:count].numpy().copy()
        return result

    def _record(self, count: int) -> _Recording:
        shape = (count, self.size, self.size, 3)
        self._stream.wait_stream(torch.cuda.default_stream())  # on which the weights were made
        pixels = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            for _ in range(WARM_UPS):
                picture(self.network, pixels)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=True),
            torch.cuda.graph(
                graph,
                capture_error_mode="thread_local",  # meanwhile other threads use this device, and others
            ),
        ):
            output = picture(self.network, pixels)
        host = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.recordings[count] = _Recording(graph, pixels, output, host)
        return self.recordings[count]


def picture(network: nn.Module, pixels: Tensor) -> Tensor:
    """uint8 (N, S, S, 3) to the same on the same device: scaled to [-1, 1], restored, rounded and clipped."""
    restored: Tensor = network(pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1))
    return restored.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
