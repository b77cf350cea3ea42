"""Sheets: pictures that hold a grid of portrait tiles, described by an `index.json` beside them.

The index is `{"schema": 1, "tiles": [{"file", "tile": [x, y, w, h], "faces": [{"box": [x0, y0, x1, y1],
"landmarks": [[x, y] * 5], "crop_side"}]}]}`; boxes and landmarks are in the tile's own pixel coordinates.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpenvid.errors import MediaError
from gpenvid.types import Float, Image

SCHEMA = 1


@dataclass(frozen=True, slots=True, eq=False)
class SheetFace:
    """A face of a tile.

    box: (4,) float32, x0 y0 x1 y1, may reach beyond the tile; landmarks: (5, 2) float32, left eye, right eye, nose,
    left mouth corner, right mouth corner (the picture's left); both in tile pixels. crop_side: the side in pixels of
    the face's FFHQ-aligned crop at its native resolution.
    """

    box: Float
    landmarks: Float
    crop_side: float


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One portrait of a sheet: the sheet's file, the rectangle x, y, width, height in it, and the faces inside."""

    path: Path
    rect: tuple[int, int, int, int]
    faces: tuple[SheetFace, ...]

    @property
    def sheet(self) -> str:
        """The file name of the sheet, by which `held_out` decides."""
        return self.path.name

    def cut(self, sheet: Image) -> Image:
        """Return the tile's pixels, a view of the decoded sheet (H, W, 3)."""
        x, y, width, height = self.rect
        return sheet[y : y + height, x : x + width]


def held_out(sheet_name: str) -> bool:
    """Tell whether a sheet is kept away from training: the first byte of the SHA-256 of its file name is below 0x20.

    One sheet in eight on average, chosen by name alone, so that every model agrees on the choice.
    """
    return hashlib.sha256(sheet_name.encode()).digest()[0] < 0x20


def load_tiles(root: str | Path) -> list[Tile]:
    """Read `root/index.json` and return its tiles in the index's order, trained and held-out ones alike.

    Raises MediaError if the index is missing or malformed.
    """
    root = Path(root)
    index = root / "index.json"
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise MediaError(f"{index}: schema {content['schema']}, expected {SCHEMA}")
        return [_tile(root, entry) for entry in content["tiles"]]
    except OSError as error:
        raise MediaError(f"{index}: {error.strerror or error}; a folder of sheets needs an index.json") from error
    except (KeyError, TypeError, ValueError) as error:
        raise MediaError(f"{index}: not an index of sheets ({error})") from error


def _tile(root: Path, entry: dict[str, Any]) -> Tile:
    x, y, width, height = (int(value) for value in entry["tile"])
    faces = tuple(
        SheetFace(
            np.asarray(face["box"], dtype=np.float32).reshape(4),
            np.asarray(face["landmarks"], dtype=np.float32).reshape(5, 2),
            float(face["crop_side"]),
        )
        for face in entry["faces"]
    )
    return Tile(root / str(entry["file"]), (x, y, width, height), faces)
