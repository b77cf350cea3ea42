"""The folder of a training run: checkpoint, finished model, log and samples. What is there is complete: files are
written beside their name and renamed.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from gpenvid.errors import MediaError, WeightsError
from gpenvid.types import Image

FORMAT = 1


class RunFolder:
    """Where one run keeps what it has: `checkpoint.pth`, `model.pth`, `log.csv`, `samples/`.

    Raises MediaError if the folder can't be made.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        try:
            (self.root / "samples").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{self.root}: {error.strerror or error}") from error

    @property
    def checkpoint(self) -> Path:
        """All that is needed to go on."""
        return self.root / "checkpoint.pth"

    @property
    def model(self) -> Path:
        """The averaged restorer in half precision, with the official keys."""
        return self.root / "model.pth"

    @property
    def log(self) -> Path:
        """One line of figures every so many steps."""
        return self.root / "log.csv"

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint."""
        _write(self.checkpoint, {"format": FORMAT, **state})

    def load(self) -> dict[str, Any] | None:
        """Read the checkpoint; None if there is none yet. Raises WeightsError if it is damaged or of another format."""
        if not self.checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes the unpickler raise
            raise WeightsError(
                f"{self.checkpoint}: damaged ({type(error).__name__}); delete it to begin anew"
            ) from None
        if state.get("format") != FORMAT:
            raise WeightsError(f"{self.checkpoint}: format {state.get('format')}, expected {FORMAT}")
        return state

    def export(self, state: Mapping[str, Tensor]) -> None:
        """Write the model: every tensor in float16, without ties to any storage."""
        _write(self.model, {key: tensor.detach().cpu().half().clone() for key, tensor in state.items()})

    def cut_log(self, step: int) -> None:
        """Drop the lines after `step`: a killed run had gone further than its checkpoint."""
        if not self.log.exists():
            return
        with self.log.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        kept = rows[:1] + [row for row in rows[1:] if row and int(row[0]) <= step]
        with self.log.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(kept)

    def write_log(self, figures: Mapping[str, float]) -> None:
        """Append one line; the first of a run writes the names above. Floats read back equal."""
        with self.log.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(figures)
            writer.writerow([repr(value) for value in figures.values()])

    def read_log(self) -> list[dict[str, float]]:
        """The lines of the log, as numbers by name."""
        with self.log.open(newline="", encoding="utf-8") as file:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]

    def write_samples(self, step: int, rows: list[Image]) -> None:
        """Write a grid, one row per array (N, S, S, 3) of pictures, all of one shape."""
        grid = np.vstack([np.hstack(list(row)) for row in rows])
        cv2.imwrite(str(self.root / "samples" / f"{step:07d}.png"), grid[..., ::-1])


def _write(path: Path, content: Mapping[str, Any]) -> None:
    part = path.with_name(f"part-{path.name}")
    torch.save(dict(content), part)
    part.replace(path)
