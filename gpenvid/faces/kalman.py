"""Kalman filters over real time, for all faces at once.

A *channel* is one complex number that moves: a point in the plane, or any other pair of coordinates with equal noise.
Each channel is followed by a few models of motion in parallel, from "hardly moves" to "is shaken". At every step each
model starts from whichever model's state explains the past best, its own unless a change of motion pays for itself
(the Viterbi variant of the interacting multiple model filter: Averbuch, Itzikowitz & Kapon 1991). So no setting has to
choose between steadiness and speed, and every surviving history is an ordinary Kalman filter, along which the
Rauch-Tung-Striebel smoother is exact; it is written in the form of Bryson & Frazier, which inverts nothing.

filterpy discretises the models for the time step at hand. The recursions are those of its KalmanFilter and
rts_smoother, which the tests hold them to, written out in `faces.recursion`: ten faces have 70 channels of three models
each, and a filterpy object per channel and model would take 10 ms a picture.

Shapes: K channels, M models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpenvid.faces.geometry import longer
from gpenvid.faces.motion import MODELS, Motion
from gpenvid.faces.recursion import CHANNEL, MOST, Channels, advance, blend, correct, look_back, surprise

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

UNSEEN = 1e30
"""The variance of a measurement that was not made."""

DWELL = 5.0
"""Seconds for which a channel stays with one model of motion, on average."""

_LIKELY = 0.01
"""A model less likely than this is left out of what is smoothed."""


@dataclass(frozen=True, slots=True)
class _Transition:
    """What a time step does, for all models."""

    dt: float
    F: Real  # (M, 3, 3)
    Q: Real  # (M, 3, 3), for a unit of 1
    stay: float  # log probability of no change of model
    leave: float  # log probability of a change to a certain other one


@lru_cache(maxsize=256)
def _transition(models: tuple[Motion, ...], dt: float) -> _Transition:
    if len(models) > MOST:
        raise ValueError(f"{len(models)} models, at most {MOST}")
    F, Q = (np.stack(m) for m in zip(*(model.discrete(dt) for model in models), strict=True))
    leave = -np.expm1(-dt / DWELL)
    return _Transition(dt, F, Q, float(np.log1p(-leave)), float(np.log(leave / max(len(models) - 1, 1))))


@dataclass(slots=True)
class Step:
    """One step of a bank, as the smoother needs it."""

    to: _Transition  # from the step before
    channels: Channels  # (K,)
    born: list[slice]  # channels whose history begins with this step


def _predict(before: Step, to: _Transition, scale: Real, own: slice = slice(None)) -> tuple[Step, Complex]:
    """Advance (those channels of) a step, with noise in units of scale (K,): nothing was measured in it yet.

    Of the models the first are those of the step before; there may be less of them, or more. Returns also what is to be
    expected, (3, K).
    """
    channels = np.empty(len(scale), CHANNEL)
    mean = advance(before.channels[own], len(before.to.F), channels, scale, to.F, to.Q, to.stay, to.leave)
    return Step(to, channels, []), mean


class Bank:
    """Filters for a number of slots (faces) of C channels each; K = slots * C.

    A slot is claimed and started; every picture then takes one `predict` and one `correct`, which appends a `Step` to
    `steps`. The owner drops from the left the steps it no longer needs.
    """

    def __init__(self, channels: int, models: tuple[Motion, ...] = MODELS) -> None:
        """Make an empty bank; slots are added as they are claimed."""
        self.models, self.channels = models, channels
        self.slots = 0
        self.steps: list[Step] = []
        self._free: list[int] = []
        self._last = _rest(models)  # the last of the steps, once there is one
        self._next: Step | None = None
        self._step: tuple[float, tuple[Motion, ...]] = 0.0, ()  # what the transition is of
        self._to = self._last.to

    def claim(self, measured: Complex, spread: Real) -> int:
        """Start a free slot at its first measurement (C,), and return it.

        spread: (3, C), the variance of the position measured and of the velocity and acceleration that weren't.
        """
        slot = self._take_free()
        own, last = self._own(slot), self._last
        still = [i for i, model in enumerate(self.models) if not (model.memory or model.frequency)]
        state, channels = np.zeros((self.channels, 3, 5)), last.channels[own]
        state[:, 0, 0], state[:, 0, 1] = measured.real, measured.imag
        for a in range(3):
            state[:, a, 2 + a] = spread[a]
        channels["state"] = state[:, None]
        channels["state"][:, still, 2, 4] = 0
        channels["evidence"] = np.where(np.arange(MOST) < len(last.to.F), 0, -np.inf)
        last.born.append(own)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back once none of its steps is needed any more."""
        self._last.channels["state"][self._own(slot)] = 0
        self._lay(self._own(slot))
        self._free.append(slot)

    def predict(self, dt: float, scale: Real, also: tuple[Motion, ...] = ()) -> Complex:
        """Advance all slots by dt > 0 seconds. Returns what should be measured then, (slots, C).

        scale: (slots, C), the unit of each channel squared: process noise is in proportion to it. also: models that
        are there for now.
        """
        step = round(dt, 6), also
        if step != self._step:
            self._step, self._to = step, _transition(self.models + also, step[0])
        self._next, mean = _predict(self._last, self._to, scale.ravel())
        expected: Complex = mean[0].reshape(-1, self.channels)
        return expected

    def surprise(self, measured: Complex, variance: Real, slot: int | None = None) -> Real:
        """Compare measurements (slots, C) of variance (slots, C), UNSEEN where there is none, with the prediction.

        slot: the only one that those (C,) are of. Returns how far off they are, in variances of the model that is
        least surprised, in the shape of the measurements. Called between `predict` and `correct`.
        """
        assert self._next is not None, "predict first"
        channels = self._next.channels if slot is None else self._next.channels[self._own(slot)]
        off = surprise(channels, len(self._next.to.F), measured.ravel(), variance.ravel())
        return off.reshape(measured.shape)

    def correct(self, measured: Complex, variance: Real) -> Complex:
        """Take in measurements (slots, C) of variance (slots, C), UNSEEN where there is none.

        Returns the estimate (3, slots, C): position, velocity and acceleration.
        """
        assert self._next is not None, "predict first"
        self._last, self._next = self._next, None
        self.steps.append(self._last)
        mean = correct(self._last.channels, len(self._last.to.F), measured.ravel(), variance.ravel())
        return mean.reshape(3, -1, self.channels)

    def loosen(self, slot: int, spread: Real) -> None:
        """Add variance (3, C) to the prediction of a slot: its past doesn't tell where it is now.

        Called between `predict` and `correct`.
        """
        assert self._next is not None, "predict first"
        state = self._next.channels["state"][self._own(slot), : len(self._next.to.F)]
        for a in range(3):
            state[:, :, a, 2 + a] += spread[a][:, None]

    def retract(self, slot: int, count: int) -> None:
        """Take back what a slot measured in its last `count` steps, as if it had not been seen in them.

        A prediction that was made already is made anew. Does nothing if the step before them is no longer on record.
        """
        if not 0 < count < len(self.steps):
            return
        own = self._own(slot)
        before, cut = self.steps[-count - 1], own
        for step in [*self.steps[-count:], *([self._next] if self._next else [])]:
            again, _ = _predict(before, step.to, step.channels["scale"][own].copy(), cut)
            again.channels["pull"] = 0
            if step is not self._next:
                again.channels["evidence"] -= again.channels["evidence"].max(1, keepdims=True)
            step.channels[own] = again.channels
            before, cut = again, slice(None)

    def copy(self, slot: int) -> int:
        """Return a new slot with the history of another. Called after `correct`."""
        new = self._take_free()
        here, there = self._own(slot), self._own(new)
        for step in self.steps:
            step.channels[there] = step.channels[here]
            if here in step.born:
                step.born.append(there)
        return new

    def since(self, ago: float) -> int:
        """The number of recorded steps not earlier than `ago` seconds before the last one."""
        left, count = ago + 1e-6, 0
        for step in reversed(self.steps):
            if left < 0:
                break
            left, count = left - step.to.dt, count + 1
        return count

    def state(self) -> Complex:
        """The present estimate (3, slots, C): position, velocity and acceleration."""
        return blend(self._last.channels, len(self._last.to.F)).reshape(3, -1, self.channels)

    def smooth(self, first: int, count: int) -> Complex:
        """Return the positions (count, slots, C) at `count` recorded steps from index `first`, given all of them."""
        steps = self.steps
        weight = np.exp(steps[-1].channels["evidence"])
        weight[weight < _LIKELY * np.add.reduce(weight, 1, keepdims=True)] = 0
        weight /= np.add.reduce(weight, 1, keepdims=True)
        channel, model = (each.copy() for each in np.nonzero(weight))  # N paths into the past: those that are worth it
        share, adjoint = weight[channel, model], np.zeros((len(model), 3, 2))
        out = np.zeros((len(steps) - first, len(weight), 2))
        for k in range(len(steps) - 1, first - 1, -1):
            step = steps[k]
            look_back(step.channels, step.to.F, adjoint, channel, model, share, out[k - first])
            for own in step.born:
                adjoint[(channel >= own.start) & (channel < own.stop)] = 0
        return out[:count].view(np.complex128).reshape(count, -1, self.channels)

    def _own(self, slot: int) -> slice:
        return slice(slot * self.channels, (slot + 1) * self.channels)

    def _take_free(self) -> int:
        """Return a free slot; add some, in the recorded steps also, if there is none."""
        if not self._free:
            more = 1 + self.slots // 8
            self._free = list(range(self.slots + more - 1, self.slots - 1, -1))
            self.slots += more
            for step in self.steps or [self._last]:
                step.channels = longer(step.channels, more * self.channels)
            self._lay(slice(-more * self.channels, None))
        return self._free.pop()

    def _lay(self, own: slice) -> None:
        """Put channels to rest under one model, so that no time is lost with them."""
        self._last.channels["evidence"][own] = -np.inf
        self._last.channels["evidence"][own, 0] = 0


def _rest(models: tuple[Motion, ...]) -> Step:
    """A step of no channels."""
    return Step(
        _Transition(0.0, np.zeros((len(models), 3, 3)), np.zeros((len(models), 3, 3)), 0.0, 0.0),
        np.zeros(0, CHANNEL),
        [],
    )
