"""How many faces at once, and in which arithmetic: tried out once for each device and model, and remembered."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gpenvid.weights import cache_dir

MOST = 64
"""Faces at once that are tried at most."""

WORTH = 0.95
"""A larger batch must take less than this share of the time a face."""

log = logging.getLogger(__name__)

Timing = Callable[[int], "float | None"]
"""Seconds that a batch of so many faces takes, or None when memory runs out."""


@dataclass(frozen=True, slots=True)
class Choice:
    """precision: fp32, fp16 or bf16; batch: most faces at once."""

    precision: str
    batch: int


def fastest(precisions: Sequence[str], timing: Callable[[str], Timing]) -> Choice | None:
    """The precision and batch with the least time a face; None when not even one face fits.

    precisions: the preferred one first; timing: called for one of them after the other, gives what a batch takes.
    The batch is doubled for as long as it pays.
    """
    best: tuple[float, Choice] | None = None
    for precision in precisions:
        seconds = timing(precision)
        batch, per_face = 1, None
        while batch <= MOST and (took := seconds(batch)) is not None:
            if per_face is not None and took / batch > WORTH * per_face:
                break
            per_face = took / batch
            if best is None or per_face < WORTH * best[0] or (precision == best[1].precision and per_face < best[0]):
                best = per_face, Choice(precision, batch)
            batch *= 2
    return best[1] if best else None


def remembered(device: torch.device, sha256: str, open_precision: str, probe: Callable[[], Choice | None]) -> Choice:
    """The choice for a device and model from the user's cache, or from the probe, which is then kept there.

    open_precision: `auto`, or the only one that is allowed. Where nothing fits, or the file can't be written, the
    work goes on: one face at once is what is left, and the next time is a probe again.
    """
    path = cache_dir().parent / "probe.json"
    key = "|".join((_name(device), torch.__version__, sha256, open_precision))
    known = _read(path)
    try:
        return Choice(str(known[key]["precision"]), int(known[key]["batch"]))
    except (KeyError, TypeError, ValueError):
        pass
    fallback = "fp32" if open_precision == "auto" else open_precision
    choice = probe() or Choice(fallback, 1)
    log.info("%s: %s, %d faces at once", _name(device), choice.precision, choice.batch)
    part = path.with_name(".part-probe.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known | {key: asdict(choice)}, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        log.info("%s: not written (%s)", path, error.strerror)
    return choice


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _name(device: torch.device) -> str:
    """What tells one model of device from another."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()}"
