"""A network translated by torch.compile, or left as it is where that doesn't work."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gpenvid.gpen.memory import is_out_of_memory

log = logging.getLogger(__name__)


class Compiled(nn.Module):
    """Calls a network through torch.compile: one translation for each size of batch, kept on disk by PyTorch.

    A compiler that is missing or fails is a warning of one line; from then on the network runs as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.translated: Callable[[Tensor], Tensor] | None = torch.compile(network.forward, dynamic=False)

    def forward(self, x: Tensor) -> Tensor:
        """What the network gives for x."""
        if self.translated is not None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the compiler's remarks on its own settings
                    return self.translated(x)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                log.warning("--compile: %s; going on without", _reason(error))
                self.translated = None
        result: Tensor = self.network(x)
        return result


def _reason(error: RuntimeError) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
