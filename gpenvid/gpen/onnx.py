"""ONNX Runtime in PyTorch's place: the same restorer on what the runtime has a provider for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpenvid.device import resolve_device
from gpenvid.errors import DeviceError, OptionsError, WeightsError
from gpenvid.gpen.checkpoint import load_generator
from gpenvid.gpen.export import export, needs
from gpenvid.gpen.restorer import PRECISIONS, BatchRestorer
from gpenvid.weights import Weights, cache_dir

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""ONNX Runtime's names. `auto` takes the first that is there, but TensorRT, which builds for minutes, never."""

log = logging.getLogger(__name__)


def load_onnx(
    found: Weights, *, device: str = "auto", precision: str = "auto", batch: int = 4, provider: str = "auto"
) -> OnnxRestorer:
    """A restorer from an .onnx file, or from weights, of which the graph is made once and kept in the user's cache.

    device: as for `load_restorer`; provider: auto or one of PROVIDERS. Raises OptionsError, DeviceError, WeightsError.
    """
    needs("onnx", "onnxruntime")
    chosen = choose_provider(device, provider)
    if found.path.suffix == ".onnx":
        if precision != "auto":
            raise OptionsError(f"--precision {precision}: {found.path.name} has its own")
        path = found.path
    else:
        precision = "fp32" if precision == "auto" else precision
        path = cache_dir().parent / "onnx" / f"{found.sha256[:24]}-{precision}.onnx"
        if not path.exists():
            log.warning("%s: making its ONNX graph, once: %s", found.name, path)
            path.parent.mkdir(parents=True, exist_ok=True)
            export(load_generator(found.path), path, "onnx", dtype=PRECISIONS[precision])
    return OnnxRestorer(path, device=device, provider=chosen, batch=batch, name=found.name, sha256=found.sha256)


def choose_provider(device: str, provider: str = "auto") -> str:
    """One of PROVIDERS that is installed and fits the device. Raises OptionsError or DeviceError."""
    import onnxruntime

    there = [word for word, name in PROVIDERS.items() if name in onnxruntime.get_available_providers()]
    if provider == "auto":
        kind = device.split(":")[0]
        fitting = {"cuda": ["cuda"], "mps": ["coreml"], "cpu": ["openvino", "cpu"]}.get(kind, list(PROVIDERS))
        provider = next((word for word in fitting if word in there and word != "tensorrt"), fitting[0])
    if provider not in PROVIDERS:
        raise OptionsError(f"--provider {provider}: must be auto, {', '.join(PROVIDERS)}")
    if provider not in there:
        raise DeviceError(f"--provider {provider}: this ONNX Runtime has {', '.join(there)}")
    return provider


class OnnxRestorer(BatchRestorer):
    """A GPEN as an ONNX graph: input (N, 3, S, S) float32 in [-1, 1], output the same."""

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        provider: str = "cpu",
        batch: int = 4,
        name: str = "",
        sha256: str = "",
    ) -> None:
        """Raises WeightsError if the file isn't such a graph, DeviceError if the provider doesn't start."""
        import onnxruntime

        options: dict[str, Any] = {}
        if provider in ("cuda", "tensorrt"):
            options["device_id"] = resolve_device(device).index or 0
        try:
            self.session = onnxruntime.InferenceSession(
                path, providers=[(PROVIDERS[provider], options), *([] if provider == "cpu" else [PROVIDERS["cpu"]])]
            )
        except Exception as error:  # the runtime's own errors have no common base
            raise WeightsError(f"{path}: ONNX Runtime can't load it ({str(error).splitlines()[0]})") from error
        if self.session.get_providers()[0] != PROVIDERS[provider]:
            raise DeviceError(f"--provider {provider}: ONNX Runtime can't start it on this machine")
        inputs = self.session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or shape[1] != 3 or not isinstance(shape[2], int) or shape[2] != shape[3]:
            raise WeightsError(f"{path}: takes {shape}, not pictures (N, 3, S, S)")
        self.input = inputs[0].name
        place = "cuda" if provider in ("cuda", "tensorrt") else "cpu"
        super().__init__(shape[2], device=place, precision="graph", batch=batch, name=name, sha256=sha256)
        self.provider = provider
        self.fixed = shape[0] if isinstance(shape[0], int) else None
        self.batch = self.fixed or self.batch

    def _restore(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        count = len(crops)
        if self.fixed and count < self.fixed:
            crops = np.concatenate([crops, np.zeros((self.fixed - count, *crops.shape[1:]), np.uint8)])
        x = np.ascontiguousarray(crops.transpose(0, 3, 1, 2), np.float32) / np.float32(127.5) - np.float32(1)
        try:
            restored = self.session.run(None, {self.input: x})[0][:count]
        except Exception as error:  # the runtime's own errors have no common base
            raise RuntimeError(f"ONNX Runtime: {str(error).splitlines()[0]}") from error
        pixels = np.rint((restored.astype(np.float32) + 1) * np.float32(127.5)).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
