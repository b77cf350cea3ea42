"""The measurements behind `gpenvid bench`: each gives tables whose figures are ratios against a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """A table to print: a title, the names of the columns, the rows."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str | float, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        """The rows by the names of the columns."""
        return [dict(zip(self.header, row, strict=True)) for row in self.rows]

    def text(self) -> str:
        """Aligned lines: the title, the header, a line per row; floats with four significant digits."""
        cells = [list(self.header)] + [
            [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row] for row in self.rows
        ]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.header))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([self.title, *lines])


def run(what: str, **choices: Any) -> list[Table]:
    """Run one benchmark by the name of its module; choices: keywords of its `run`."""
    tables: list[Table] = import_module(f"gpenvid.bench.{what}").run(**choices)
    return tables
