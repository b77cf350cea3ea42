"""Several processes training one model, started by torchrun: the same weights everywhere, gradients averaged.

Gradients are averaged explicitly after the last backward pass of a step, instead of by DistributedDataParallel's hooks:
it works for every loss (feature matching calls parts of the discriminator, R1 differentiates twice), for accumulated
batches, and adds up in one fixed order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's place among the `world` processes of a run; `local` is its number on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self.world > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace the gradients, where there are any, by their mean over the processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world == 1 or not gradients:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process: all must stop at the same step."""
        if self.world == 1:
            return flag
        value = torch.tensor(float(flag), device=device)
        distributed.all_reduce(value)
        return bool(value.item() > 0)

    def agree(self, value: float, device: torch.device) -> float:
        """The first process's value, in all of them: clocks differ, schedules must not."""
        if self.world == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.broadcast(shared, 0)
        return float(shared)

    def leave(self) -> None:
        """End the group, if there is one."""
        if self.world > 1:
            distributed.destroy_process_group()


def join_processes(device_type: str) -> Processes:
    """Join the group that torchrun announces in the environment: NCCL for CUDA, else gloo. Alone without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes()
    distributed.init_process_group("nccl" if device_type == "cuda" else "gloo")
    return Processes(distributed.get_rank(), world, int(os.environ.get("LOCAL_RANK", "0")))
