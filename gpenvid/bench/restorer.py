"""Time a face: this program's network against the papers' way of writing it, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import importlib.util
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpenvid.bench import Table
from gpenvid.bench.straightforward import Straightforward
from gpenvid.device import resolve_device
from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.compiled import Compiled
from gpenvid.gpen.export import export, quietly
from gpenvid.gpen.memory import is_out_of_memory
from gpenvid.gpen.restorer import GpenRestorer, load_restorer

GPEN_256 = Architecture(size=256, channel_multiplier=1, narrow=0.5)
GPEN_512 = Architecture(size=512)

Way = Callable[[Tensor], Any]
Rows = list[tuple[str | float, ...]]

log = logging.getLogger(__name__)


def run(device: str = "cpu", **choices: Any) -> list[Table]:
    """Measure on a device; choices: keywords of `run_cpu` or `run_cuda`. Raises DeviceError."""
    place = resolve_device(device)
    return run_cuda(place, **choices) if place.type == "cuda" else run_cpu(**choices)


def random_network(architecture: Architecture, seed: int = 0) -> FullGenerator:
    """A network with random weights, features injected with random weights too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FullGenerator(architecture)
        for name, parameter in network.named_parameters():
            if name.endswith("noise.weight"):
                torch.nn.init.normal_(parameter)
    return network.requires_grad_(False).eval()


def random_pictures(count: int, size: int, seed: int = 1) -> Tensor:
    """(count, 3, size, size), uniform in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def present(device: str = "auto", batch: int = 0) -> GpenRestorer:
    """The best restorer that is present; on CUDA GPEN-512 in half precision with random weights.

    The latter takes as long as the official one. batch: most faces at once, 0 for auto. Raises DeviceError.
    """
    place = resolve_device(device)
    if place.type == "cuda":
        network = random_network(GPEN_512)
        return GpenRestorer(network, network.size, device=place, precision="fp16", batch=batch or 16, name="GPEN-512")
    restorer = load_restorer(device=device, batch=batch)
    assert isinstance(restorer, GpenRestorer)
    return restorer


def run_cpu(
    architecture: Architecture = GPEN_256,
    *,
    batches: tuple[int, ...] = (1, 4),
    threads: int = 2,
    rounds: int = 9,
    compiled: bool = True,
) -> list[Table]:
    """Seconds a face on the CPU with so many threads each: all ways in turns, medians after two rounds of warm-up.

    A ratio is the median over the rounds of this way's time to the baseline's in the same round. The error is the
    largest difference from the straightforward way, float32, in pictures of -1 to 1. The goals: ours eager at most
    0.45 of the straightforward way, the better of ours at most 0.5 of ONNX Runtime and below OpenVINO, errors below
    1e-4. ONNX Runtime runs the graph that `gpenvid export` writes, and the straightforward one for a single face.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory(prefix="gpenvid-bench-") as folder, torch.inference_mode():
            ways = _ways(architecture, Path(folder), threads, compiled=compiled)
            rows: Rows = []
            for batch in batches:
                rows += _compare(ways, random_pictures(batch, architecture.size), rounds)
    finally:
        torch.set_num_threads(before)
    header = ("batch", "way", "ms a face", "x straightforward", "x ONNX Runtime", "error")
    where = f"{processor()}, {threads} threads, PyTorch {torch.__version__}"
    return [Table(f"GPEN-{architecture.size}, float32; {where}", header, rows)]


STRAIGHT, OURS, COMPILED, ORT, ORT_STRAIGHT, OPENVINO = (
    "straightforward PyTorch",
    "gpenvid",
    "gpenvid, compiled",
    "ONNX Runtime",
    "ONNX Runtime, straightforward",
    "OpenVINO",
)


def _ways(architecture: Architecture, folder: Path, threads: int, *, compiled: bool) -> dict[str, Way]:
    network = random_network(architecture)
    straight = Straightforward(random_network(architecture)).eval()
    ways: dict[str, Way] = {STRAIGHT: straight}
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        graph = folder / "network.onnx"
        export(random_network(architecture), graph, "onnx")
        ways[ORT] = _onnxruntime(graph, threads)
        ways[ORT_STRAIGHT] = _straight_onnxruntime(straight, architecture.size, folder / "straight.onnx", threads)
        if importlib.util.find_spec("openvino"):
            ways[OPENVINO] = _openvino(graph, threads)
    ways[OURS] = network.prepare()
    if compiled:
        ways[COMPILED] = Compiled(network)
    return ways


def _onnxruntime(graph: Path, threads: int) -> Way:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def _straight_onnxruntime(straight: Straightforward, size: int, graph: Path, threads: int) -> Way:
    """Face by face: the groups of a grouped convolution are a constant of its graph."""
    with quietly():
        torch.onnx.export(straight, (torch.zeros(1, 3, size, size),), str(graph), dynamo=True, verbose=False)
    single = _onnxruntime(graph, threads)
    return lambda x: torch.cat([single(one[None]) for one in x])


def _openvino(graph: Path, threads: int) -> Way:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = core.compile_model(core.read_model(graph), "CPU", settings)
    return lambda x: torch.from_numpy(model(x.numpy())[0])


def _compare(ways: Mapping[str, Way], x: Tensor, rounds: int) -> Rows:
    truth = ways[STRAIGHT](x)
    errors = {name: (way(x) - truth).abs().max().item() for name, way in ways.items()}
    took = timed(ways, x, rounds)
    rows: Rows = []
    for name in ways:
        ratios = [_ratio(took[name], took[base]) if base in took else float("nan") for base in (STRAIGHT, ORT)]
        rows.append((str(len(x)), name, statistics.median(took[name]) / len(x) * 1e3, *ratios, errors[name]))
    return rows


def timed(ways: Mapping[str, Way], x: Tensor, rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each way in each round; the ways take turns, so that a busy machine is fair to all."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(x)
            if turn >= warm_up:
                took[name].append(time.perf_counter() - start)
    return took


def _ratio(own: list[float], base: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(own, base, strict=True))


def processor() -> str:
    """The name of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def run_cuda(
    device: torch.device,
    architecture: Architecture = GPEN_512,
    *,
    batches: tuple[int, ...] = (1, 4, 8, 16, 32),
    rounds: int = 20,
    inputs: int = 10_000,
) -> list[Table]:
    """Faces a second through the restorer's door, arrays in and out, and half precision against float32.

    The goals on an H100: 1,000 faces a second in fp16 at the best batch, at most 4 ms for one face, and at least 45 dB
    with nothing infinite over 10,000 inputs.
    """
    rows: Rows = []
    for precision in ("fp32", "fp16"):
        for compiled in (False, True):
            way = precision + (", compiled" if compiled else "")
            for batch in batches:
                restorer = GpenRestorer(
                    random_network(architecture),
                    architecture.size,
                    device=device,
                    precision=precision,
                    batch=batch,
                    compile=compiled,
                )
                seconds = restorer.seconds(batch, rounds)
                if seconds is not None:
                    rows.append((way, str(batch), batch / seconds, seconds * 1e3))
    where = f"GPEN-{architecture.size}, {torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}"
    return [
        Table(where, ("way", "batch", "faces a second", "ms a batch"), rows),
        half_precision(architecture, device, inputs),
    ]


def half_precision(architecture: Architecture, device: torch.device, inputs: int, batch: int = 16) -> Table:
    """fp16 against fp32 on black, white, saturated, gray and noisy pictures: the worst PSNR, what isn't finite."""
    half = random_network(architecture).to(device).prepare(torch.float16)
    full = random_network(architecture).to(device).prepare()
    rows: Rows = []
    with torch.inference_mode():
        kinds = extremes(architecture.size, batch)
        for kind, pictures in kinds.items():
            worst, odd = float("inf"), 0
            for turn in range(-(-inputs // (batch * len(kinds)))):
                x = pictures(turn).to(device)
                try:
                    a, b = half(x), full(x)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    log.warning("%s: out of memory", device)
                    break
                odd += int((~a.isfinite()).sum())
                peak = (b.amax(dim=(1, 2, 3)) - b.amin(dim=(1, 2, 3))).clamp(min=2)
                mse = (a - b).square().mean(dim=(1, 2, 3)).clamp(min=1e-12)
                worst = min(worst, (20 * peak.log10() - 10 * mse.log10()).min().item())
            rows.append((kind, worst, float(odd)))
    return Table("fp16 against fp32", ("input", "least PSNR dB", "not finite"), rows)


def extremes(size: int, batch: int) -> dict[str, Callable[[int], Tensor]]:
    """Inputs by name: each gives (batch, 3, size, size) in [-1, 1] for a seed."""
    shape = (batch, 3, size, size)

    def random(seed: int) -> Tensor:
        return random_pictures(batch, size, seed)

    return {
        "black": lambda seed: torch.full(shape, -1.0),
        "white": lambda seed: torch.full(shape, 1.0),
        "gray": lambda seed: random(seed)[:, :, :1, :1].expand(shape).contiguous(),
        "saturated": lambda seed: random(seed).sign(),
        "one colour": lambda seed: random(seed)[:, :, :1, :1].sign().expand(shape).contiguous(),
        "noise": random,
    }
