"""Training: the identity start, exact continuation, every mode of the loop at the smallest size."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpenvid.errors import MediaError, OptionsError, WeightsError
from gpenvid.gpen.arch import Architecture, FullGenerator
from gpenvid.gpen.checkpoint import load_generator
from gpenvid.train.folder import RunFolder
from gpenvid.train.identity import start_as_identity
from gpenvid.train.loop import Trainer, train
from gpenvid.train.networks import build_networks
from gpenvid.train.options import TrainOptions
from gpenvid.train.processes import Processes

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = TrainOptions(
    size=64, narrow=0.0625, n_mlp=2, style_dim=16, batch=2, workers=0, log_every=1, checkpoint_every=2, sample_every=100
)
SCRIPT = """
import ast, os, signal, sys
from gpenvid.train.loop import train
from gpenvid.train.options import TrainOptions
def report(step, figures):
    if step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
train(TrainOptions(**ast.literal_eval(sys.argv[1])), report=report)
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pack of 6 smooth random pictures."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (6, 3, 9, 9)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, 64, mode="bicubic").clamp(0, 255)
    path = tmp_path_factory.mktemp("faces") / "faces.npy"
    np.save(path, np.moveaxis(smooth.numpy(), 1, -1).astype(np.uint8))
    return str(path)


def figures(output: Path, name: str = "loss") -> list[float]:
    return [row[name] for row in RunFolder(output).read_log()]


def start(options: TrainOptions, last: int = 0) -> subprocess.Popen[bytes]:
    """A training in a process group of its own. last: the step after which it is killed."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, repr(asdict(options)), str(last)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
        start_new_session=True,
    )


def wait_for_lines(output: Path, count: int) -> None:
    log = output / "log.csv"
    deadline = time.monotonic() + 240
    while not log.exists() or log.read_text().count("\n") <= count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("narrow", [0.0625, 0.125])
def test_a_new_restorer_returns_its_input(narrow: float) -> None:
    network = FullGenerator(Architecture(size=128, channel_multiplier=1, narrow=narrow, n_mlp=2, style_dim=32))
    start_as_identity(network)
    x = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        assert (network(x) - x).abs().max() < 1e-5


def test_the_identity_needs_six_channels() -> None:
    with pytest.raises(ValueError, match="6 channels"):
        start_as_identity(FullGenerator(Architecture(size=128, channel_multiplier=1, narrow=0.03125)))


def test_a_run_leaves_a_model_that_loads(faces: str, tmp_path: Path) -> None:
    options = replace(SMALL, data=faces, output=str(tmp_path), steps=12, log_every=12, checkpoint_every=12)
    result = train(options)
    assert (result.steps, result.finished) == (12, True)
    network = load_generator(result.model)
    assert network.architecture == Architecture(size=64, channel_multiplier=1, narrow=0.0625, n_mlp=2, style_dim=16)
    assert all(t.dtype == torch.float16 for t in torch.load(result.model, weights_only=True).values())
    assert (tmp_path / "samples" / "0000012.png").exists()


def test_one_seed_one_training(faces: str, tmp_path: Path) -> None:
    options = replace(SMALL, data=faces, steps=3)
    for name in ("a", "b"):
        train(replace(options, output=str(tmp_path / name)))
    train(replace(options, output=str(tmp_path / "c"), seed=1))
    assert figures(tmp_path / "a") == figures(tmp_path / "b") != figures(tmp_path / "c")
    one, two = (torch.load(tmp_path / name / "model.pth", weights_only=True) for name in "ab")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_killed_run_continues_with_identical_losses(faces: str, tmp_path: Path) -> None:
    whole = replace(SMALL, data=faces, output=str(tmp_path / "whole"), steps=8, adversarial=0.1, r1_every=3)
    killed = replace(whole, output=str(tmp_path / "killed"))
    train(whole)
    assert start(killed, last=5).wait() == -signal.SIGKILL
    assert len(figures(tmp_path / "killed")) == 5
    train(killed)
    assert RunFolder(killed.output).read_log() == RunFolder(whole.output).read_log()
    one, two = (torch.load(tmp_path / n / "checkpoint.pth", weights_only=True) for n in ("whole", "killed"))
    for module in ("g", "g_ema", "d"):
        assert all(torch.equal(one[module][key], two[module][key]) for key in one[module])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_ends_the_run_with_a_checkpoint(faces: str, tmp_path: Path, workers: int) -> None:
    """A signal to the whole group, as a terminal and systemd send it: the workers too."""
    options = replace(SMALL, data=faces, output=str(tmp_path), steps=100_000, checkpoint_every=100_000, workers=workers)
    process = start(options)
    wait_for_lines(tmp_path, 3)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 0
    state = RunFolder(tmp_path).load()
    assert state is not None
    assert state["step"] == len(figures(tmp_path)) < 100_000


def test_a_time_budget_ends_the_run_and_its_decay(faces: str, tmp_path: Path) -> None:
    result = train(replace(SMALL, data=faces, output=str(tmp_path), steps=100_000, minutes=0.02))
    assert result.finished
    assert result.steps < 100_000
    again = train(replace(SMALL, data=faces, output=str(tmp_path), steps=100_000, minutes=0.02))
    assert again.steps == result.steps


def test_accumulated_batches_are_one_large_batch(faces: str, tmp_path: Path) -> None:
    options = replace(SMALL, data=faces, steps=2, energy=0.0)
    train(replace(options, output=str(tmp_path / "a"), batch=4))
    train(replace(options, output=str(tmp_path / "b"), batch=2, accumulate=2))
    assert figures(tmp_path / "a", "content") == pytest.approx(figures(tmp_path / "b", "content"), rel=1e-4)


def test_two_processes_are_one_large_batch(faces: str, tmp_path: Path) -> None:
    options = replace(SMALL, data=faces, steps=3, checkpoint_every=3)
    train(replace(options, output=str(tmp_path / "one"), batch=4))
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    both = replace(options, output=str(tmp_path / "two"), batch=2)
    subprocess.run([*command, repr(asdict(both)), "0"], check=True, env=environment, timeout=250)
    one, two = (torch.load(tmp_path / name / "checkpoint.pth", weights_only=True)["g"] for name in ("one", "two"))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-3)


def test_the_gan_trains_both_sides_and_r1_comes_every_so_often(faces: str, tmp_path: Path) -> None:
    train(replace(SMALL, data=faces, output=str(tmp_path), steps=4, adversarial=0.1, r1_every=2))
    assert [value > 0 for value in figures(tmp_path, "r1")] == [True, False, True, False]
    for name in ("discriminator", "adversarial", "matching", "content"):
        values = figures(tmp_path, name)
        assert all(np.isfinite(values)) and len(set(values)) == 4, name


def test_a_prior_is_trained_embedded_and_frozen(faces: str, tmp_path: Path) -> None:
    prior = train(replace(SMALL, data=faces, output=str(tmp_path / "prior"), stage="prior", steps=2)).model
    learned = load_generator(prior).generator.state_dict()
    options = replace(SMALL, data=faces, output=str(tmp_path / "restorer"), init_prior=str(prior), steps=2)
    before, after = learned, load_generator(train(replace(options, freeze_prior=True)).model).state_dict()
    for key, tensor in before.items():
        if not key.endswith("noise.weight"):
            assert torch.equal(after[f"generator.{key}"], tensor), key
    encoder = torch.load(tmp_path / "restorer" / "checkpoint.pth", weights_only=True)["g"]["ecd0.0.0.weight"]
    assert not torch.equal(encoder, learned["input.input"][:, :1, :1, :1].expand_as(encoder))


def test_learning_rates_are_separate(faces: str, tmp_path: Path) -> None:
    train(replace(SMALL, data=faces, output=str(tmp_path), steps=2, lr=1e-9, lr_encoder=1e-2))
    trained = torch.load(tmp_path / "checkpoint.pth", weights_only=True)["g"]
    fresh = build_networks(SMALL).generator.state_dict()
    assert (trained["generator.convs.0.conv.weight"] - fresh["generator.convs.0.conv.weight"]).abs().max() < 1e-6
    assert (trained["ecd0.0.0.weight"] - fresh["ecd0.0.0.weight"]).abs().max() > 1e-4


def test_mixed_precision_is_near_full_precision(faces: str, tmp_path: Path) -> None:
    options = replace(SMALL, data=faces, steps=2)
    for precision in ("fp32", "bf16", "fp16"):
        train(replace(options, output=str(tmp_path / precision), precision=precision))
    assert figures(tmp_path / "bf16") == pytest.approx(figures(tmp_path / "fp32"), rel=0.05)
    assert figures(tmp_path / "fp16") == pytest.approx(figures(tmp_path / "fp32"), rel=0.02)
    norms = [figures(tmp_path / precision, "gradient_norm") for precision in ("fp32", "fp16")]
    assert norms[1] == pytest.approx(norms[0], rel=0.5)  # not enlarged like the loss


def test_a_gradient_that_overflows_is_skipped_and_the_scale_halved(faces: str, tmp_path: Path) -> None:
    options = replace(SMALL, data=faces, output=str(tmp_path), precision="fp16", content=3e7)
    trainer = Trainer(options, torch.device("cpu"), Processes())
    before = [p.clone() for p in trainer.networks.generator.parameters()]
    batch = (torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64))
    assert not np.isfinite(trainer.step([batch])["gradient_norm"])
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.networks.generator.parameters(), strict=True))
    assert trainer.state()["scaler"]["scale"] == 2.0**11  # type: ignore[index]


def test_the_log_goes_to_tensorboard_too(faces: str, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = replace(SMALL, data=faces, output=str(tmp_path / "run"), steps=2, sample_every=2)
    train(replace(options, tensorboard=str(tmp_path / "board")))
    events = reader.EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(figures(tmp_path / "run"))
    assert events.Images("bad, restored, good")[0].width == 8 * 64
    assert not [thread for thread in threading.enumerate() if "Event" in thread.name]


def test_tensorboard_is_an_extra(faces: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(OptionsError, match=re.escape("pip install 'gpenvid[log]'")):
        train(replace(SMALL, data=faces, output=str(tmp_path / "run"), steps=1, tensorboard=str(tmp_path / "board")))


def test_fine_tuning_starts_from_a_model(faces: str, tmp_path: Path) -> None:
    model = train(replace(SMALL, data=faces, output=str(tmp_path / "a"), steps=2)).model
    tuned = train(replace(SMALL, data=faces, output=str(tmp_path / "b"), init=str(model), size=256, steps=1)).model
    assert load_generator(tuned).architecture == load_generator(model).architecture


def test_what_does_not_fit_is_refused(faces: str, tmp_path: Path) -> None:
    options = replace(SMALL, data=faces, output=str(tmp_path), steps=1)
    train(options)
    with pytest.raises(OptionsError, match="another kind"):
        train(replace(options, narrow=0.125))
    with pytest.raises(OptionsError, match="needs uint8"):
        train(replace(options, size=128, output=str(tmp_path / "b")))
    with pytest.raises(MediaError, match="not a pack"):
        train(replace(options, data=str(tmp_path / "missing.npy"), output=str(tmp_path / "c")))
    (tmp_path / "checkpoint.pth").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="damaged"):
        train(options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "both"}, "--stage both"),
        ({"lr": 0.0}, "--lr 0.0"),
        ({"clean": 1.5}, "--clean 1.5"),
        ({"batch": 6, "adversarial": 0.1}, "--batch 6"),
        ({"checkpoint_every": 0}, "--checkpoint-every 0"),
    ],
)
def test_options_refuse_nonsense(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        TrainOptions(**change)  # type: ignore[arg-type]
