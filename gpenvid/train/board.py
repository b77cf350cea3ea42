"""The log of a training as TensorBoard shows it, beside the CSV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gpenvid.errors import OptionsError
from gpenvid.types import Image


class Board:
    """Curves and grids of samples in a folder of TensorBoard's; without a folder it does nothing.

    A resumed run's curve goes on at `step`; what an earlier process wrote beyond it is discarded. Raises OptionsError
    if the package tensorboard isn't there.
    """

    def __init__(self, folder: str | Path, step: int = 0) -> None:
        self._writer: Any = None
        if not folder:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise OptionsError("--tensorboard: needs tensorboard; pip install 'gpenvid[log]'") from None
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """One point on the curve of each figure."""
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)

    def samples(self, step: int, rows: list[Image]) -> None:
        """A grid, one row per array (N, S, S, 3) of pictures."""
        if self._writer is not None:
            grid = np.vstack([np.hstack(list(row)) for row in rows])
            self._writer.add_image("bad, restored, good", grid, step, dataformats="HWC")

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write out what is left and end the writer's thread."""
        if self._writer is not None:
            self._writer.close()
