"""Packs of aligned faces, one file each: `.npy`, exact and memory-mapped, or `.zip` of JPEGs, a tenth as large."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np

from gpenvid.errors import MediaError, OptionsError
from gpenvid.types import Image

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


def check_pack(path: str | Path) -> None:
    """Raises OptionsError if a pack can't have that name."""
    if Path(path).suffix not in (".npy", ".zip"):
        raise OptionsError(f"{path}: a pack is a .npy or a .zip file")


def write_pack(path: str | Path, faces: Image) -> None:
    """Write (N, S, S, 3) RGB uint8; complete or not at all. Raises OptionsError for the name, MediaError."""
    check_pack(path)
    path = Path(path)
    part = path.with_name(f"part-{path.name}")
    try:
        if path.suffix == ".npy":
            with part.open("wb") as file:
                np.save(file, faces)
        else:
            with zipfile.ZipFile(part, "w") as archive:
                for number, face in enumerate(faces):
                    _, data = cv2.imencode(".jpg", face[..., ::-1], JPEG)
                    archive.writestr(f"{number:06d}.jpg", data.tobytes())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise MediaError(f"{path}: {error.strerror or error}") from None


def read_pack(path: str | Path) -> Image:
    """(N, S, S, 3) RGB uint8, as far as the file holds such; the caller checks the shape. Raises MediaError."""
    try:
        if Path(path).suffix != ".zip":
            loaded: Image = np.load(path, mmap_mode="r", allow_pickle=False)
            return loaded
        with zipfile.ZipFile(path) as archive:
            faces = [_decode(archive.read(name)) for name in sorted(archive.namelist())]
        return np.stack(faces) if faces else np.empty((0, 0, 0, 3), np.uint8)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise MediaError(f"{path}: not a pack of faces ({error}); make one with `gpenvid train prepare`") from error


def _decode(data: bytes) -> Image:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError("holds what is no picture")
    return np.ascontiguousarray(bgr[..., ::-1], dtype=np.uint8)
