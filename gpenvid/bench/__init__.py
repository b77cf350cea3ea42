"""The measurements behind `gpenvid bench`: each gives tables whose figures are ratios against a baseline."""

from __future__ import annotations

from importlib import import_module
from typing import Any

Rows = list[dict[str, Any]]
Tables = dict[str, Rows]


def run(what: str) -> Tables:
    """Run one benchmark by the name of its module: its tables by title, rows of one table alike in their keys."""
    tables: Tables = import_module(f"gpenvid.bench.{what}").run()
    return tables


def text(rows: Rows) -> str:
    """A table as aligned text: a header, then a line per row; floats with four significant digits."""
    if not rows:
        return ""
    cells = [list(rows[0])] + [
        [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
