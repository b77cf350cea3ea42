"""Training of the face detector: facexlib's RetinaFace mobile0.25 from random numbers, on composed scenes."""

from __future__ import annotations

import csv
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from gpenvid.errors import WeightsError
from gpenvid.faces.closeup import SIDE
from gpenvid.train.closeups import CloseUps
from gpenvid.train.crowded import Crowded
from gpenvid.train.heads import refit_heads, refitting_scenes
from gpenvid.train.multibox import Targets, anchors, multibox_loss, normalise, targets_of
from gpenvid.train.negatives import HardNegatives
from gpenvid.train.options import DetectorTraining
from gpenvid.train.pool import ScenePool
from gpenvid.train.scenes import Portrait, load_portraits
from gpenvid.train.sheets import held_out, load_tiles
from gpenvid.train.teacher import load_retinaface, relabel

WARMING = 50
"""Steps over which the learning rate rises to its full value."""


class Trainer:
    """The state of a run: network, averaged network, optimizer, step. Saves and restores all of it."""

    def __init__(self, options: DetectorTraining, portraits: list[Portrait]) -> None:
        self.options = options
        self.step = 0
        torch.manual_seed(options.seed)
        self.network, self.average = fresh_network(), fresh_network()
        if options.init:
            self.network.load_state_dict(load_retinaface(options.init).state_dict())
        self.average.load_state_dict(self.network.state_dict())
        plain = [weight for weight in self.network.parameters() if weight.ndim == 1]
        decayed = [weight for weight in self.network.parameters() if weight.ndim > 1]
        groups = [{"params": decayed, "weight_decay": 1e-2}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.99), fused=True)
        size, large = (SIDE, 0) if options.closeups else (options.size, options.large)
        composer = (CloseUps if options.closeups else Crowded)(portraits, seed=options.seed)
        folder = Path(options.out) / "scenes"
        small = ScenePool(folder, composer, size, options.pool)
        double = ScenePool(folder, composer, 2 * size, max(options.pool // 4, 1)) if large else small
        self.pools = (small, double)
        self.hard = HardNegatives(portraits, size, seed=options.seed)
        self._priors = {pool.size: anchors(pool.size) for pool in self.pools}

    @property
    def checkpoint(self) -> Path:
        """Where the state is kept between runs."""
        return Path(self.options.out) / "checkpoint.pth"

    def save(self) -> None:
        """Write the whole state, beside the old one first, so that a kill leaves one of them intact."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "hard": self.hard.numbers,
            "looked_at": self.hard.seen,
            "options": asdict(self.options),
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one. The steps, minutes and decay may differ from then."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        if state["options"]["seed"] != self.options.seed:
            raise WeightsError(f"{self.checkpoint}: belongs to seed {state['options']['seed']}; choose another --out")
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.hard.numbers, self.hard.seen = state["hard"], state["looked_at"]
        return True

    def rate(self) -> float:
        """Return this step's learning rate: 50 steps of warming up, constant, then a half cosine down to zero."""
        options = self.options
        start = options.steps * (1 - options.decay)
        fallen = min(max((self.step - start) / max(options.steps - start, 1), 0.0), 1.0)
        return options.rate * min((self.step + 1) / WARMING, 1.0) * 0.5 * (1 + float(np.cos(np.pi * fallen)))

    def batch(self) -> tuple[Tensor, Targets]:
        """Draw this step's pictures, ready for the network, and their targets: a function of seed and step."""
        options = self.options
        several = self.pools[1] is not self.pools[0]
        large = several and self.step % options.large == options.large - 1
        pool, count = self.pools[large], max(options.batch // 4, 1) if large else options.batch
        share = 0.25 if large else 1.0
        limit = int((256 + self.step * options.fresh) * share) + 1
        scenes = [pool.draw(np.random.default_rng([options.seed, 7, self.step, i]), limit) for i in range(count)]
        if self.hard.numbers and not large:
            for i in range(options.hard):
                scenes[i] = self.hard.draw(np.random.default_rng([options.seed, 8, self.step, i]))
        labels = [(scene.boxes, scene.landmarks, scene.counts) for scene in scenes]
        pictures = normalise(np.stack([scene.picture for scene in scenes]))
        return pictures, targets_of(labels, pool.size, self._priors[pool.size])

    def train_step(self) -> dict[str, float]:
        """Take one step and return its figures, the log's columns."""
        if self.options.hard and self.step % self.options.mine_every == 0:
            self.hard.mine(self.average, self.options.mine)
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        pictures, targets = self.batch()
        close = self.options.closeups
        losses = multibox_loss(self.network(pictures), targets, by_eyes=close)
        total = losses[0] + losses[1] + (2 if close else 1) * losses[2]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()
        self.step += 1
        self._average()
        names = ("class", "box", "landmark")
        return {
            "step": self.step,
            "rate": rate,
            **{n: float(loss.detach()) for n, loss in zip(names, losses, strict=True)},
        }

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True)
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([average for average, _ in moving], [value for _, value in moving], 1 - decay)


def fresh_network() -> Any:
    """Return facexlib's RetinaFace mobile0.25 with random weights, giving logits, in training mode.

    Every anchor begins with a face probability of 1 %, so that the background doesn't drown the first steps.
    """
    from facexlib.detection.retinaface import RetinaFace

    network = RetinaFace(network_name="mobile0.25", phase="train", device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.1, mode="fan_out" if module.groups == 1 else "fan_in")
    for head in (*network.ClassHead, *network.BboxHead, *network.LandmarkHead):
        nn.init.normal_(head.conv1x1.weight, std=0.01)
        nn.init.zeros_(head.conv1x1.bias)
    for head in network.ClassHead:
        head.conv1x1.bias.data[1::2] = -float(np.log(99.0))
    return network.to(memory_format=torch.channels_last).train()


def save_weights(network: Any, path: str | Path, *, half: bool = False) -> None:
    """Write the state dict that facexlib's `RetinaFace(network_name='mobile0.25')` loads strictly.

    half: kernels in float16; what belongs to a channel alone, as the normalisation's variances, stays in float32.
    """
    state = {key: value.detach().clone().contiguous() for key, value in network.state_dict().items()}
    torch.save({key: value.half() if half and value.ndim > 1 else value for key, value in state.items()}, path)


def training_portraits(options: DetectorTraining) -> list[Portrait]:
    """Load the tiles of the sheets that aren't held out; with a teacher, under its labels (kept in the out folder)."""
    portraits = load_portraits([tile for tile in load_tiles(options.data) if not held_out(tile.sheet)])
    if not options.teacher:
        return portraits
    Path(options.out).mkdir(parents=True, exist_ok=True)
    return relabel(load_retinaface(options.teacher), portraits, Path(options.out) / "labels.npz")


def train_detector(options: DetectorTraining) -> Path:
    """Train, or continue, until the steps or the minutes are over; return the file of averaged weights.

    Writes `log.csv` (a row every 20 steps), `checkpoint.pth` and `detector.pth` to the out folder.
    """
    began = time.monotonic()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    portraits = training_portraits(options)
    trainer = Trainer(options, portraits)
    resumed = trainer.resume()
    composing = list(_start_workers(options))
    try:
        with (out / "log.csv").open("a" if resumed else "w", newline="") as file:
            log = csv.writer(file)
            if not resumed:
                log.writerow(["step", "rate", "class", "box", "landmark", "seconds"])
            while trainer.step < options.steps and not _over(options, began):
                figures = trainer.train_step()
                if trainer.step % 20 == 0:
                    log.writerow([f"{value:.6g}" for value in figures.values()] + [f"{time.monotonic() - began:.1f}"])
                    file.flush()
                if trainer.step % options.save_every == 0:
                    trainer.save()
                    save_weights(trainer.average, out / "detector.pth")
    finally:
        for process in composing:
            process.terminate()
            process.join()
    trainer.save()
    if trainer.step >= options.steps and options.refit and not options.closeups:
        trainer.average.eval()
        # Another seed than the pools': the last layers are fitted to scenes that training hasn't seen.
        seed = options.seed + 9000
        hard = HardNegatives(portraits, 320, seed=seed, kept=2 * options.refit)
        hard.mine(trainer.average, 16 * options.refit)
        scenes = chain(refitting_scenes(portraits, options.refit, 4 * options.refit, seed=seed), hard.scenes())
        refit_heads(trainer.average, scenes, seed=options.seed)
    save_weights(trainer.average, out / "detector.pth", half=True)
    return out / "detector.pth"


def _over(options: DetectorTraining, began: float) -> bool:
    return bool(options.minutes) and time.monotonic() - began >= 60 * options.minutes


def _start_workers(options: DetectorTraining) -> Iterator[multiprocessing.process.BaseProcess]:
    for turn in range(options.workers):
        process = multiprocessing.get_context("spawn").Process(target=_compose_ahead, args=(options, turn), daemon=True)
        process.start()
        yield process


def _compose_ahead(options: DetectorTraining, turn: int) -> None:
    """Fill the pools in the order in which training reaches them; this process's share, while the trainer lives."""
    cv2.setNumThreads(1)
    small, double = Trainer(options, training_portraits(options)).pools
    trainer = multiprocessing.parent_process()
    for number in range(turn, small.count, options.workers):
        if trainer is not None and not trainer.is_alive():
            return
        small.fill([number])
        if double is not small and number % 4 == 0:
            double.fill([min(number // 4, double.count - 1)])
