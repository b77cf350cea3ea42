"""A network as a file for other engines: ONNX, TorchScript, TensorRT. Nothing is written that doesn't agree."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from gpenvid.errors import DeviceError, ExportError, OptionsError
from gpenvid.gpen.arch import FullGenerator

FORMATS = {"onnx": ".onnx", "torchscript": ".ts", "tensorrt": ".engine"}
"""What can be written, and the suffix of its files."""

TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.1}
"""Largest difference from PyTorch's result, on a scale on which pixels are -1 to 1."""

TRACED = 2
"""Batch with which a network is recorded; the file takes any."""

MOST = 64
"""Largest batch of a TensorRT engine."""

Engine = Callable[[Tensor], Tensor]


def export(network: FullGenerator, path: Path, to: str, *, dtype: torch.dtype = torch.float32) -> float:
    """Write a network to a file: input `input` and output `output`, float32 (N, 3, S, S), any N.

    dtype: of the arithmetic inside, float32 or float16. The network is prepared for it and changed in no other way.
    The file is run with batches of 1 and 3 and compared with PyTorch; returns the largest difference. Raises
    ExportError when they differ, and leaves nothing; OptionsError for an unknown format, type or missing package.
    """
    if to not in FORMATS:
        raise OptionsError(f"--to {to}: must be {', '.join(FORMATS)}")
    if dtype not in TOLERANCE:
        raise OptionsError("--precision: an export is fp32 or fp16")
    write, load = {
        "onnx": (_write_onnx, _load_onnx),
        "torchscript": (_write_torchscript, _load_torchscript),
        "tensorrt": (_write_tensorrt, _load_tensorrt),
    }[to]
    network.prepare(dtype).requires_grad_(False)
    part = path.with_name(f".part-{path.name}")
    try:
        write(network, part)
        difference = compare(network, load(part))
        if not difference <= TOLERANCE[dtype]:
            raise ExportError(f"{path}: not written, it differs from PyTorch by {difference:.2g} on a scale of -1 to 1")
        part.replace(path)
    except OSError as error:
        raise ExportError(f"{path}: can't be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)
    return difference


@torch.no_grad()
def compare(network: FullGenerator, engine: Engine) -> float:
    """The largest difference between a network's results and an engine's, over batches of 1 and 3; infinite for NaN."""
    worst = 0.0
    random = torch.Generator().manual_seed(0)
    place = next(network.parameters()).device
    for count in (1, 3):
        x = (torch.rand(count, 3, network.size, network.size, generator=random) * 2 - 1).to(place)
        difference = (engine(x) - network(x)).abs().max().item()
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def needs(extra: str, *packages: str) -> None:
    """Raise OptionsError, one line that names the extra, unless these packages are there."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise OptionsError(f"{package} is not installed; run `pip install 'gpenvid[{extra}]'`")


@contextmanager
def quietly() -> Iterator[None]:
    """Exporters print and warn about themselves."""
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        loud.setLevel(level)


def _example(network: FullGenerator) -> Tensor:
    return torch.zeros(TRACED, 3, network.size, network.size, device=next(network.parameters()).device)


@torch.no_grad()
def _write_onnx(network: FullGenerator, path: Path) -> None:
    needs("onnx", "onnx", "onnxscript", "onnxruntime")
    with quietly():
        torch.onnx.export(
            network,
            (_example(network),),
            str(path),
            dynamo=True,
            external_data=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            verbose=False,
        )


def _load_onnx(path: Path) -> Engine:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["output"], {"input": x.cpu().numpy()})[0]).to(x.device)


@torch.no_grad()
def _write_torchscript(network: FullGenerator, path: Path) -> None:
    archive = io.BytesIO()  # given a path, it names the archive after the file and refuses names with a dot in front
    with quietly():
        traced = torch.jit.trace(network, _example(network), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, archive)
    path.write_bytes(archive.getvalue())


def _load_torchscript(path: Path) -> Engine:
    with quietly():
        module: Engine = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return module


def _write_tensorrt(network: FullGenerator, path: Path) -> None:
    needs("tensorrt", "tensorrt")
    if not torch.cuda.is_available():
        raise DeviceError("--to tensorrt: an engine is built for the GPU of this machine, and there is none")
    import tensorrt

    graph = path.with_suffix(".onnx")
    try:
        _write_onnx(network, graph)
        log = tensorrt.Logger(tensorrt.Logger.ERROR)
        builder = tensorrt.Builder(log)
        definition = builder.create_network(0)
        parser = tensorrt.OnnxParser(definition, log)
        if not parser.parse_from_file(str(graph)):
            raise ExportError(f"{path}: TensorRT can't read the graph ({parser.get_error(0)})")
        settings, profile = builder.create_builder_config(), builder.create_optimization_profile()
        side = network.size
        profile.set_shape("input", (1, 3, side, side), (8, 3, side, side), (MOST, 3, side, side))
        settings.add_optimization_profile(profile)
        engine = builder.build_serialized_network(definition, settings)
        if engine is None:
            raise ExportError(f"{path}: TensorRT can't build an engine from the graph")
        path.write_bytes(engine)
    finally:
        graph.unlink(missing_ok=True)


def _load_tensorrt(path: Path) -> Engine:
    import tensorrt

    engine = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
    context = engine.create_execution_context()

    def run(x: Tensor) -> Tensor:
        source = x.cuda().contiguous()
        result = torch.empty_like(source)
        context.set_input_shape("input", tuple(source.shape))
        context.set_tensor_address("input", source.data_ptr())
        context.set_tensor_address("output", result.data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        torch.cuda.synchronize()
        return result.to(x.device)

    return run
