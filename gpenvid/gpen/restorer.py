"""Aligned faces in, better faces out: the network behind a door of uint8 arrays, in batches that fit the device."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpenvid import weights
from gpenvid.device import resolve_device
from gpenvid.errors import DeviceError, OptionsError
from gpenvid.gpen.arch import FullGenerator
from gpenvid.gpen.checkpoint import load_generator
from gpenvid.gpen.compiled import Compiled
from gpenvid.gpen.graphs import Graphs
from gpenvid.gpen.memory import is_out_of_memory
from gpenvid.gpen.probe import MOST, Choice, fastest, remembered

BACKENDS = ("torch", "onnx")

CPU_BATCH = 4
"""Faces at once on a CPU, where a larger batch takes more memory for little."""

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

log = logging.getLogger(__name__)


@runtime_checkable
class Restorer(Protocol):
    """What restores faces: a network, or anything that keeps this contract."""

    @property
    def size(self) -> int:
        """Side S of the square crops in pixels."""

    def restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Restore aligned RGB crops.

        crops: (N, S, S, 3) uint8, N may be 0; left as it is. Returns a new array of the same shape, face by face.
        Raises ValueError for another shape or type.
        """


def check_crops(crops: NDArray[np.uint8], size: int) -> None:
    """Raise ValueError unless crops are (N, size, size, 3) uint8."""
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise ValueError(f"crops must be (N, {size}, {size}, 3) uint8, got {crops.shape} {crops.dtype}")


def to_network(crops: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(N, S, S, 3) uint8 to (N, 3, S, S) float32 in [-1, 1] on the device."""
    pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(device)
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def from_network(pictures: Tensor) -> NDArray[np.uint8]:
    """(N, 3, S, S) about [-1, 1] to (N, S, S, 3) uint8: clipped, rounded to nearest."""
    pixels = pictures.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    array: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


class BatchRestorer(ABC):
    """A restorer that takes as many crops at once as fit the device.

    name and sha256: of the weights; device, precision and batch: what is used, for the report.
    """

    def __init__(
        self, size: int, *, device: torch.device | str, precision: str, batch: int, name: str = "", sha256: str = ""
    ) -> None:
        if batch < 1:
            raise OptionsError(f"--batch {batch}: must be 1 or more")
        self._size = size
        self.device = torch.device(device)
        self.precision = precision
        self.batch = batch
        self.name = name
        self.sha256 = sha256

    @property
    def size(self) -> int:
        """Side of the square crops in pixels."""
        return self._size

    @abstractmethod
    def _restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """At most `batch` crops restored. Raises RuntimeError when memory runs out."""

    @torch.inference_mode()
    def restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Restorer.restore`.

        At most `batch` crops are in the network at once. When memory runs out, `batch` is halved, for good; DeviceError
        when one crop is too many.
        """
        check_crops(crops, self.size)
        restored = np.empty_like(crops)
        done = 0
        while done < len(crops):
            part = crops[done : done + self.batch]
            try:
                restored[done : done + len(part)] = self._restore(part)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(len(part))
                continue
            done += len(part)
        return restored

    def _shrink(self, tried: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tried == 1:
            raise DeviceError(f"{self.device}: out of memory for a single face of {self.size} pixels")
        self.batch = tried // 2
        log.warning("%s: out of memory with %d faces at once, going on with %d", self.device, tried, self.batch)


class GpenRestorer(BatchRestorer):
    """A GPEN on a device. One call at a time; several restorers may share nothing and run in parallel.

    network: the torch module, RGB in [-1, 1], (N, 3, size, size) to the same. compile: translate it with torch.compile,
    which takes a minute at the first call; where that fails, a line says so and the network runs as it is.
    """

    def __init__(
        self,
        network: nn.Module,
        size: int,
        *,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        batch: int = 8,
        compile: bool = False,
        name: str = "",
        sha256: str = "",
    ) -> None:
        super().__init__(size, device=device, precision=precision, batch=batch, name=name, sha256=sha256)
        self.network = network.requires_grad_(False).to(self.device).eval()
        if isinstance(network, FullGenerator):
            network.prepare(PRECISIONS[precision])
        forward: nn.Module = Compiled(network) if compile else network
        self._graphs = Graphs(forward, size, self.device) if self.device.type == "cuda" else None
        self._forward = forward
        self._compiled = compile

    def _restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._graphs is not None:
            return self._graphs.restore(crops)
        if self._compiled and 1 < len(crops) < self.batch:
            # Each size of batch is a translation of its own: full batches and single faces are enough.
            return np.concatenate([self._restore(crops[i : i + 1]) for i in range(len(crops))])
        return from_network(self._forward(to_network(crops, self.device)))

    def _shrink(self, tried: int) -> None:
        if self._graphs is not None:
            self._graphs.forget()
        super()._shrink(tried)

    @torch.inference_mode()
    def seconds(self, count: int, repeats: int = 3) -> float | None:
        """Time for so many faces at once, after a warm-up; None when memory runs out."""
        crops = np.random.default_rng(0).integers(0, 256, (count, self.size, self.size, 3), dtype=np.uint8)
        try:
            times = []
            for _ in range(1 + repeats):
                start = time.perf_counter()
                self._restore(crops)  # ends with a copy to the host, so that nothing is left under way
                times.append(time.perf_counter() - start)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            if self._graphs is not None:
                self._graphs.forget()
        return min(times[1:])


def load_restorer(
    name_or_path: str | os.PathLike[str] = "auto",
    *,
    device: str = "auto",
    precision: str = "auto",
    batch: int = 0,
    backend: str = "torch",
    provider: str = "auto",
    compile: bool = False,
    weights_dir: str | Path | None = None,
    offline: bool | None = None,
) -> BatchRestorer:
    """A restorer from weights: `auto` (the best that is present and verified), a registered name, or a file.

    device: auto, cpu, cuda, cuda:N or mps, or several with commas between, which work at the same time; precision:
    fp32, fp16, bf16 or auto; batch: most faces at once on a device, 0 for auto.
    On a CPU auto is fp32 and 4 faces; elsewhere it is found out by a probe of some seconds, once per device and model.
    backend: torch, or onnx for ONNX Runtime, with `provider` of it (see `gpen.onnx`); an .onnx file is always run by
    the latter. A registered name that isn't present is downloaded, unless `offline` (default: $GPENVID_OFFLINE).
    Raises WeightsError, DeviceError or OptionsError.
    """
    if precision not in ("auto", *PRECISIONS):
        raise OptionsError(f"--precision {precision}: must be auto, {', '.join(PRECISIONS)}")
    if batch < 0:
        raise OptionsError(f"--batch {batch}: must be 0 or more")
    if backend not in BACKENDS:
        raise OptionsError(f"--backend {backend}: must be {' or '.join(BACKENDS)}")
    if "," in device:
        from gpenvid.gpen.several import SeveralRestorer

        settings: dict[str, Any] = {"precision": precision, "batch": batch, "backend": backend, "provider": provider}
        settings |= {"compile": compile, "weights_dir": weights_dir, "offline": offline}
        return SeveralRestorer([load_restorer(name_or_path, device=each, **settings) for each in device.split(",")])
    place = resolve_device(device)
    found = weights.resolve(name_or_path, "restorer", weights_dir=weights_dir, offline=offline)
    if backend == "onnx" or found.path.suffix == ".onnx":
        from gpenvid.gpen.onnx import load_onnx

        return load_onnx(found, device=device, precision=precision, batch=batch or CPU_BATCH, provider=provider)
    network = load_generator(found.path)

    def build(precision: str, batch: int) -> GpenRestorer:
        return GpenRestorer(
            network,
            network.size,
            device=place,
            precision=precision,
            batch=batch,
            compile=compile,
            name=found.name,
            sha256=found.sha256,
        )

    choice = Choice("fp32", CPU_BATCH)
    if place.type != "cpu" and (precision == "auto" or batch == 0):
        choice = remembered(place, found.sha256, precision, lambda: _probe(build, precision))
    return build(choice.precision if precision == "auto" else precision, batch or choice.batch)


def _probe(build: Callable[[str, int], GpenRestorer], precision: str) -> Choice | None:
    """The fastest precision, if that is open, and batch of an accelerator."""
    # Not bf16: the same size as fp16 with fewer digits (on the model in the box, 14 dB further from fp32).
    precisions = ("fp16", "fp32") if precision == "auto" else (precision,)
    return fastest(precisions, lambda each: build(each, MOST).seconds)
