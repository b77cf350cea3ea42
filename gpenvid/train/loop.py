"""The training of a restorer, or of its prior.

A step is a pure function of the state and the step's number: pictures, degradations and random styles are all derived
from (seed, number), so a run that was killed goes on from its checkpoint exactly as if nothing had happened.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gpenvid.device import resolve_device
from gpenvid.errors import OptionsError
from gpenvid.train.board import Board
from gpenvid.train.data import Numbers, Pairs, load_faces, to_image
from gpenvid.train.folder import RunFolder
from gpenvid.train.losses import (
    ContentWeights,
    content_loss,
    discriminator_gan_loss,
    feature_matching_loss,
    generator_gan_loss,
    r1_penalty,
)
from gpenvid.train.networks import average_into, build_networks, generator_groups, random_picture
from gpenvid.train.options import TrainOptions
from gpenvid.train.processes import Processes, join_processes

BETAS = (0.9, 0.99)
LARGEST_GRADIENT = 1.0
SAMPLES = 8
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Batch = tuple[Tensor, Tensor]
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """steps: steps done in all; finished: whether the training came to its planned end; model: the exported file."""

    steps: int
    finished: bool
    model: Path


class Trainer:
    """The networks, their optimizers, and what one step does to them."""

    def __init__(self, options: TrainOptions, device: torch.device, processes: Processes) -> None:
        self.options, self.device, self.processes = options, device, processes
        self.networks = build_networks(options)
        for module in self._modules().values():
            module.to(device)
            processes.broadcast(module.state_dict().values())
        self.networks.generator.compute_dtype = DTYPES[options.precision]
        # float16 loses small gradients; the loss is enlarged for them, as far as none overflows.
        self.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**12, enabled=options.precision == "fp16")
        self.optimizer = torch.optim.Adam(generator_groups(self.networks.generator, options), betas=BETAS)
        self.critic_optimizer: torch.optim.Adam | None = None
        if self.networks.discriminator is not None:
            # As in StyleGAN2, the optimizer knows that R1 comes only every so many steps.
            ratio = options.r1_every / (options.r1_every + 1)
            lr = options.lr_discriminator * ratio
            group = {"params": list(self.networks.discriminator.parameters()), "lr": lr, "initial_lr": lr}
            self.critic_optimizer = torch.optim.Adam([group], betas=(0.0, 0.99**ratio))
        self.weights = ContentWeights(
            l1=options.content,
            gradient=options.gradient,
            energy=options.energy,
            similarity=options.similarity,
            knee=options.knee,
        )
        self.step_number = 0
        self.elapsed = 0.0

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"g": self.networks.generator, "g_ema": self.networks.average}
        if self.networks.discriminator is not None:
            modules["d"] = self.networks.discriminator
        return modules

    def state(self) -> dict[str, object]:
        """All that the next step depends on."""
        state: dict[str, object] = {name: module.state_dict() for name, module in self._modules().items()}
        state |= {"step": self.step_number, "elapsed": self.elapsed, "optimizer": self.optimizer.state_dict()}
        state["scaler"] = self.scaler.state_dict()
        if self.critic_optimizer is not None:
            state["critic_optimizer"] = self.critic_optimizer.state_dict()
        return state

    def load(self, state: dict[str, object]) -> None:
        """Continue from what `state` returned. Raises OptionsError if it belongs to another training."""
        try:
            for name, module in self._modules().items():
                module.load_state_dict(state[name])  # type: ignore[arg-type]
            self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
            if self.critic_optimizer is not None:
                self.critic_optimizer.load_state_dict(state["critic_optimizer"])  # type: ignore[arg-type]
            self.scaler.load_state_dict(state["scaler"])  # type: ignore[arg-type]
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise OptionsError(f"--output {self.options.output}: holds a run of another kind ({reason})") from None
        self.step_number = int(state["step"])  # type: ignore[call-overload]
        self.elapsed = float(state["elapsed"])  # type: ignore[arg-type]

    def progress(self) -> float:
        """How much of the training is done, 0 to 1: by steps, or by time if that is further."""
        share = self.step_number / self.options.steps
        return max(share, self.elapsed / (60 * self.options.minutes)) if self.options.minutes else share

    def _set_rates(self) -> None:
        """A short warm-up, then flat, then half a cosine down to nothing."""
        flat = self.options.flat
        decay = max(0.0, (self.progress() - flat) / (1 - flat)) if flat < 1 else 0.0
        factor = min(1.0, (self.step_number + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, decay)))
        for optimizer in (self.optimizer, self.critic_optimizer):
            for group in optimizer.param_groups if optimizer is not None else ():
                group["lr"] = group["initial_lr"] * factor

    def step(self, batches: list[Batch]) -> Figures:
        """One step of the discriminator, if there is one, and one of the generator, on `accumulate` batches."""
        self._set_rates()
        batches = [tuple(part.to(self.device, non_blocking=True) for part in batch) for batch in batches]  # type: ignore[misc]
        figures: Figures = {}
        if self.networks.discriminator is not None:
            figures |= self._train_discriminator(self.networks.discriminator, batches)
        figures |= self._train_generator(batches)
        pictures = self.options.batch * self.options.accumulate * self.processes.world
        decay = min(0.5 ** (pictures / self.options.ema_half_life), (1 + self.step_number) / (10 + self.step_number))
        average_into(self.networks.average, self.networks.generator, decay)
        self.step_number += 1
        return figures

    def _fake(self, bad: Tensor, number: int) -> Tensor:
        """The generator's picture: of the bad one, or in the prior stage of noise that belongs to this step."""
        if self.options.stage == "restorer":
            restored: Tensor = self.networks.generator(bad)
            return restored
        key = (self.options.seed, self.step_number, number, self.processes.rank)
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        return random_picture(self.networks.generator, len(bad), torch.Generator().manual_seed(seed))

    def _train_discriminator(self, discriminator: nn.Module, batches: list[Batch]) -> Figures:
        assert self.critic_optimizer is not None
        self.critic_optimizer.zero_grad()
        regularize = self.options.r1 > 0 and self.step_number % self.options.r1_every == 0
        total, penalty = 0.0, 0.0
        for number, (bad, good) in enumerate(batches):
            with torch.no_grad():
                fake = self._fake(bad, 2 * number)
            loss = discriminator_gan_loss(discriminator(good), discriminator(fake)) / len(batches)
            if regularize:
                real = good.detach().requires_grad_()
                r1 = r1_penalty(discriminator(real), real) / len(batches)
                penalty += r1.item()
                # A lazy penalty stands for those of all the steps without one.
                loss = loss + self.options.r1 / 2 * self.options.r1_every * r1
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        self.processes.average_gradients(discriminator.parameters())
        self.critic_optimizer.step()
        return {"discriminator": total, "r1": penalty}

    def _train_generator(self, batches: list[Batch]) -> Figures:
        options, discriminator = self.options, self.networks.discriminator
        self.optimizer.zero_grad()
        if discriminator is not None:
            discriminator.requires_grad_(False)
        figures = dict.fromkeys(("loss", "content", "adversarial", "matching"), 0.0)
        for number, (bad, good) in enumerate(batches):
            fake = self._fake(bad, 2 * number + 1)
            loss = fake.new_zeros(())
            if options.stage == "restorer":
                loss = content_loss(fake, good, self.weights)
                figures["content"] += loss.item() / len(batches)
            if discriminator is not None:
                features = discriminator.features(fake)
                gan = generator_gan_loss(discriminator.head(features[-1]))
                loss = loss + (options.adversarial or 1.0) * gan
                figures["adversarial"] += gan.item() / len(batches)
                if options.stage == "restorer" and options.feature_matching:
                    with torch.no_grad():
                        real = discriminator.features(good)
                    matching = feature_matching_loss(features, real)
                    loss = loss + options.adversarial * options.feature_matching * matching
                    figures["matching"] += matching.item() / len(batches)
            self.scaler.scale(loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            figures["loss"] += loss.item() / len(batches)
        if discriminator is not None:
            discriminator.requires_grad_(True)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.processes.average_gradients(parameters)
        self.scaler.unscale_(self.optimizer)
        figures["gradient_norm"] = float(nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return figures

    @torch.no_grad()
    def samples(self, bad: Tensor) -> Tensor:
        """What the averaged model makes of `bad`, or, in the prior stage, of noise that is always the same."""
        if self.options.stage == "prior":
            return random_picture(self.networks.average, len(bad), torch.Generator().manual_seed(0))
        restored: Tensor = self.networks.average(bad.to(self.device))
        return restored


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """While inside, SIGINT and SIGTERM only ask to stop: yields a function that tells whether one came."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave_signals_to_the_parent(worker: int) -> None:
    """A terminal and systemd send them to every process; the loader ends its workers itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def train(options: TrainOptions, *, report: Callable[[int, Figures], None] | None = None) -> TrainResult:
    """Train until the planned end, the time budget or a signal; go on from the folder's checkpoint if it has one.

    `report(step, figures)` is called after every logged step, in the first process only. Must run in the main thread.
    Raises OptionsError, MediaError or WeightsError for what can't be read or doesn't fit, DeviceError without a device.
    """
    device = resolve_device(options.device)
    processes = join_processes(device.type)
    try:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", processes.local)
        return _run(options, device, processes, report)
    finally:
        processes.leave()


def _run(
    options: TrainOptions, device: torch.device, processes: Processes, report: Callable[[int, Figures], None] | None
) -> TrainResult:
    folder = RunFolder(options.output)
    trainer = Trainer(options, device, processes)
    state = folder.load()
    if state is not None:
        trainer.load(state)
    faces = load_faces(options.data, trainer.networks.generator.size)
    if processes.first:
        folder.cut_log(trainer.step_number)
    shares = {"clean": options.clean, "gray_share": options.gray, "near": options.near}
    pairs = Pairs(faces, options.seed, **shares)
    shown = _first(Pairs(faces, options.seed + 1, **shares), SAMPLES)
    start = trainer.step_number * options.accumulate * options.batch * processes.world
    numbers = Numbers(start, options.batch, rank=processes.rank, world=processes.world)
    loader = DataLoader(
        pairs,
        batch_sampler=numbers,
        num_workers=options.workers,
        worker_init_fn=_leave_signals_to_the_parent,
        prefetch_factor=4 if options.workers else None,
        pin_memory=device.type == "cuda",
    )
    batches = iter(loader)
    began = time.monotonic() - trainer.elapsed
    board = Board(options.tensorboard if processes.first else "", trainer.step_number)
    with board, _stop_signals() as asked:
        while trainer.progress() < 1:
            figures = trainer.step([next(batches) for _ in range(options.accumulate)])
            trainer.elapsed = processes.agree(time.monotonic() - began, device)
            stop = processes.any(asked() or trainer.progress() >= 1, device)
            if processes.first:
                _record(trainer, folder, board, figures, shown, report, last=stop)
            if stop:
                break
    return TrainResult(trainer.step_number, trainer.progress() >= 1, folder.model)


def _first(pairs: Pairs, count: int) -> Batch:
    bad, good = zip(*(pairs[number] for number in range(count)), strict=True)
    return torch.stack(bad), torch.stack(good)


def _record(
    trainer: Trainer,
    folder: RunFolder,
    board: Board,
    figures: Figures,
    shown: tuple[Tensor, Tensor],
    report: Callable[[int, Figures], None] | None,
    *,
    last: bool,
) -> None:
    """Log, samples and checkpoint, when their time has come or this step is the last."""
    step, options = trainer.step_number, trainer.options
    if last or step % options.log_every == 0:
        rate = {"lr": trainer.optimizer.param_groups[0]["lr"]}
        folder.write_log({"step": step, **rate, **figures})
        board.figures(step, {**rate, **figures})
        if report is not None:
            report(step, figures)
    if last or step % options.sample_every == 0:
        rows = [to_image(part) for part in (shown[0], trainer.samples(shown[0]), shown[1])]
        folder.write_samples(step, rows)
        board.samples(step, rows)
    if last or step % options.checkpoint_every == 0:
        folder.save(trainer.state())
        folder.export(trainer.networks.average.state_dict())
