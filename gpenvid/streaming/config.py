"""Several cameras, written down in a TOML file."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from gpenvid.errors import MediaError, OptionsError
from gpenvid.options import LIVE_STAGES, STAGES
from gpenvid.streaming.session import CameraSpec


def read_cameras(path: str | Path) -> tuple[list[CameraSpec], dict[str, Any]]:
    """The cameras of a file, and the options for all.

    A table `[[camera]]` for each, with `source`, `output` (a string or a list of them), `name` (by default camera1,
    camera2 ...) and the options that are its own; what stands above the first table holds for all. Options are written
    as on the command line, without the leading dashes.
    Raises MediaError if the file can't be read, OptionsError if it makes no sense.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise MediaError(f"{path}: can't be read ({(error.strerror or str(error)).lower()})") from error
    toml = _toml()
    try:
        told = toml.loads(text)
    except ValueError as error:
        raise OptionsError(f"{path}: is no TOML ({error})") from error
    tables = told.pop("camera", None)
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise OptionsError(f"{path}: has no table [[camera]]")
    return [_camera(path, number, table) for number, table in enumerate(tables, start=1)], _options(path, told)


def _toml() -> Any:
    for name in ("tomllib", "tomli"):
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    raise OptionsError("--config: needs Python 3.11 or later, or the package tomli")


def _camera(path: Path, number: int, table: dict[str, Any]) -> CameraSpec:
    name = table.pop("name", f"camera{number}")
    source, outputs = table.pop("source", None), table.pop("output", None)
    if not isinstance(source, str):
        raise OptionsError(f"{path}: {name}: has no source")
    outputs = [outputs] if isinstance(outputs, str) else outputs
    if not isinstance(outputs, list) or not outputs or not all(isinstance(word, str) for word in outputs):
        raise OptionsError(f"{path}: {name}: has no output")
    return CameraSpec(name=str(name), source=source, outputs=tuple(outputs), options=_options(path, table, f" {name}:"))


def _options(path: Path, table: dict[str, Any], whose: str = "") -> dict[str, Any]:
    """Keys as on the command line to names of fields. Raises OptionsError for one that isn't known."""
    known: dict[str, str] = {}
    for stage in (STAGES | LIVE_STAGES).values():
        for each in fields(stage):
            flags = each.metadata["flags"] or (f"--{each.name.replace('_', '-')}",)
            known |= {flag.lstrip("-").replace("-", "_"): each.name for flag in flags if flag.startswith("--")}
            known[each.name] = each.name
    chosen: dict[str, Any] = {}
    for key, value in table.items():
        name = known.get(key.replace("-", "_"))
        if name is None:
            raise OptionsError(f"{path}:{whose} {key}: no such option")
        chosen[name] = tuple(value) if isinstance(value, list) else value
    return chosen
