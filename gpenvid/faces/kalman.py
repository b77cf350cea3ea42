"""Kalman filters over real time, for all faces at once.

A *channel* is one complex number that moves: a point in the plane, or any other pair of coordinates with equal noise.
Each channel is followed by a few models of motion in parallel, from "hardly moves" to "is shaken". At every step each
model starts from whichever model's state explains the past best, its own unless a change of motion pays for itself
(the Viterbi variant of the interacting multiple model filter: Averbuch, Itzikowitz & Kapon 1991). So no setting has to
choose between steadiness and speed, and every surviving history is an ordinary Kalman filter, along which the
Rauch-Tung-Striebel smoother is exact; it is written in the form of Bryson & Frazier, which inverts nothing.

filterpy discretises the models for the time step at hand. The recursions are those of its KalmanFilter and
rts_smoother, which the tests hold them to, written over arrays: ten faces have 70 channels of three models each, and a
filterpy object per channel and model would take 10 ms a picture.

Shapes: M models, K channels. A state is (3, 5, M, K): for position, velocity and acceleration the real and the
imaginary part, then a row of the covariance, which both parts share. So what is measured, the position, and its
covariances are one row of five; less the measurement and divided by the variance of that, it is the innovation's pull
and the gain, all that the smoother needs of a measurement; and a time step is one matrix per model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpenvid.faces.motion import MODELS, Motion

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

UNSEEN = 1e30
"""The variance of a measurement that was not made."""

DWELL = 5.0
"""Seconds for which a channel stays with one model of motion, on average."""

_ROWS = 15
_VARIANCES = np.array([2, 8, 14])  # of position, velocity and acceleration, in a state of 15 rows

_COUNT = np.arange(16)[:, None]  # models, if there were as many

_LIKELY = 0.01
"""A model less likely than this is left out of what is smoothed."""


@dataclass(frozen=True, slots=True)
class _Transition:
    """What a time step does, for all models."""

    matrix: Real  # (M, 15, 16), takes a state and the square of its unit one step further
    back: Real  # (3, 2, 1, M), the last columns of F; the first is always that of a constant
    stay: float  # log probability of no change of model
    leave: float  # log probability of a change to a certain other one


@lru_cache(maxsize=256)
def _transition(models: tuple[Motion, ...], dt: float) -> _Transition:
    F, Q = (np.stack(m) for m in zip(*(model.discrete(dt) for model in models), strict=True))
    M = len(models)
    of_state, of_noise = np.zeros((M, 3, 5, 3, 5)), np.zeros((M, 3, 5))
    of_state[:, :, 0, :, 0] = of_state[:, :, 1, :, 1] = F
    of_state[:, :, 2:, :, 2:] = np.einsum("mia,mjb->mijab", F, F)
    of_noise[:, :, 2:] = Q
    matrix = np.concatenate([of_state.reshape(M, _ROWS, _ROWS), of_noise.reshape(M, _ROWS, 1)], 2)
    leave = -np.expm1(-dt / DWELL)
    stay, leave = float(np.log1p(-leave)), float(np.log(leave / max(M - 1, 1)))
    back = np.ascontiguousarray(F[:, :, 1:].transpose(1, 2, 0))[:, :, None]
    return _Transition(matrix, back, stay, leave)


@dataclass(slots=True)
class Step:
    """One step of a bank, as the smoother needs it."""

    dt: float
    scale: Real  # (K,), unit^2
    models: tuple[Motion, ...]
    back: Real  # (3, 2, 1, M), see `_Transition`
    parent: Index  # (M, K), the model before, given the model of the step
    state: Real  # (3, 5, M, K), before the measurement, or after it
    evidence: Real  # (M, K), log likelihood of the model's history; after the measurement, that of the best is 0
    pull: Real  # (5, M, K), the measured less the measurement, and the gain: the innovation and its covariances over S
    born: list[slice]  # channels whose history begins with this step


_BY_CHANNEL = ("scale", "parent", "state", "evidence", "pull")


def _predict(before: Step, scale: Real, dt: float, models: tuple[Motion, ...], own: slice = slice(None)) -> Step:
    """Advance (those channels of) a step by dt: one that nothing was measured in yet.

    Of the models the first are those of the step before; there may be less of them, or more.
    """
    to = _transition(models, round(dt, 6))
    evidence = before.evidence[:, own]
    M, known, K = len(models), *evidence.shape
    stay = evidence[:M] + to.stay
    if known < M:
        stay = np.concatenate([stay, np.full((M - known, K), -np.inf)])
    parent = np.where(stay < to.leave, evidence.argmax(0), _COUNT[:M])
    state, after = np.empty((_ROWS + 1, M, K)), np.empty((3, 5, M, K))
    path = parent * K + np.arange(K)
    before.state[..., own].reshape(_ROWS, known * K).take(path, 1, out=state[:_ROWS], mode="clip")
    state[_ROWS] = scale
    np.matmul(to.matrix, state.swapaxes(0, 1), out=after.reshape(_ROWS, M, K).swapaxes(0, 1))
    return Step(dt, scale, models, to.back, parent, after, np.maximum(stay, to.leave), np.zeros((5, M, K)), [])


def _weighted(evidence: Real, rows: Real) -> Complex:
    """The mean over models of rows (N, 2, M, K), real and imaginary, weighted by evidence (M, K); (N, K)."""
    weight = np.exp(evidence)
    sums = np.add.reduce(weight * rows, 2)
    sums /= np.add.reduce(weight)
    mean = np.empty((len(rows), sums.shape[2]), np.complex128)
    mean.real, mean.imag = sums[:, 0], sums[:, 1]
    return mean


@dataclass(slots=True)
class _Innovation:
    """Measurements beside what was to be expected."""

    row: Real  # (5, M, K), the first of the state, its first two less what was measured
    variance: Real  # (M, K)
    pull: Real  # (5, M, K), row over variance
    off: Real  # (M, K), the squared distance over variance

    @classmethod
    def of(cls, state: Real, z: Complex, variance: Real) -> _Innovation:
        """Compare a state (3, 5, M, K) with measurements (K,) of variance (K,)."""
        row = state[0].copy()
        row[0] -= z.real
        row[1] -= z.imag
        S = row[2] + variance
        pull = row / S
        off = pull[0] * row[0]
        off += pull[1] * row[1]
        return cls(row, S, pull, off)


class Bank:
    """Filters for a number of slots (faces) of C channels each; K = slots * C.

    A slot is claimed and started; every picture then takes one `predict`, a `compare` and a `correct`, which appends a
    `Step` to `steps`. The owner drops from the left the steps it no longer needs.
    """

    def __init__(self, channels: int, models: tuple[Motion, ...] = MODELS) -> None:
        """Make an empty bank; slots are added as they are claimed."""
        self.models, self.channels = models, channels
        self.slots = 0
        self.steps: list[Step] = []
        self._free: list[int] = []
        self._last = _rest(models)  # the last of the steps, once there is one
        self._next: Step | None = None
        self._innovation: _Innovation | None = None

    def claim(self, measured: Complex, spread: Real) -> int:
        """Start a free slot at its first measurement (C,), and return it.

        spread: (3, C), the variance of the position measured and of the velocity and acceleration that weren't.
        """
        slot = self._take_free()
        own, last = self._own(slot), self._last
        still = [i for i, model in enumerate(self.models) if not (model.memory or model.frequency)]
        state = np.zeros((_ROWS, len(last.models), self.channels))
        state[0], state[1] = measured.real, measured.imag
        state[_VARIANCES] = spread[:, None]
        state[_VARIANCES[-1], still] = 0
        last.state[..., own], last.evidence[:, own] = state.reshape(3, 5, -1, self.channels), 0
        last.born.append(own)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back once none of its steps is needed any more."""
        own = self._own(slot)
        self._last.state[..., own] = 0
        self._lay(own)
        self._free.append(slot)

    def predict(self, dt: float, scale: Real, also: tuple[Motion, ...] = ()) -> Complex:
        """Advance all slots by dt > 0 seconds. Returns what should be measured then, (slots, C).

        scale: (slots, C), the unit of each channel squared: process noise is in proportion to it. also: models that
        are there for now.
        """
        self._next = step = _predict(self._last, scale.ravel(), dt, self.models + also)
        return _weighted(step.evidence, step.state[:1, :2]).reshape(-1, self.channels)

    def compare(self, measured: Complex, variance: Real) -> Real:
        """Compare the measurements (slots, C) of variance (slots, C), UNSEEN where there is none, with the prediction.

        Called between `predict` and `correct`. Returns how far off they are, (slots, C), in variances of the model
        that is least surprised.
        """
        assert self._next is not None, "predict first"
        self._innovation = _Innovation.of(self._next.state, measured.ravel(), variance.ravel())
        surprise: Real = np.minimum.reduce(self._innovation.off)
        return surprise.reshape(measured.shape)

    def correct(self) -> None:
        """Take in the measurements that were compared last."""
        assert self._next is not None and self._innovation is not None, "predict and compare first"
        step, made = self._next, self._innovation
        self._next = self._innovation = None
        step.pull = made.pull
        step.state -= made.pull[2:, None] * made.row
        step.evidence -= 0.5 * made.off + np.log(made.variance)
        step.evidence -= np.maximum.reduce(step.evidence)
        self.steps.append(step)
        self._last = step

    def surprise(self, slot: int, measured: Complex, variance: Real) -> Real:
        """As `compare`, for one slot's measurements (C,) of variance (C,), which are not kept."""
        assert self._next is not None, "predict first"
        state = self._next.state[..., self._own(slot)]
        surprise: Real = _Innovation.of(state, measured, variance).off.min(0)
        return surprise

    def loosen(self, slot: int, spread: Real) -> None:
        """Add variance (3, C) to the prediction of a slot: its past doesn't tell where it is now.

        Called between `predict` and `correct`.
        """
        assert self._next is not None, "predict first"
        state = self._next.state
        state.reshape(_ROWS, *state.shape[2:])[_VARIANCES, :, self._own(slot)] += spread[:, None]

    def retract(self, slot: int, count: int) -> None:
        """Take back what a slot measured in its last `count` steps, as if it had not been seen in them.

        A prediction that was made already is made anew. Does nothing if the step before them is no longer on record.
        """
        if not 0 < count < len(self.steps):
            return
        own = self._own(slot)
        before, cut = self.steps[-count - 1], own
        for step in [*self.steps[-count:], *([self._next] if self._next else [])]:
            again = _predict(before, step.scale[own], step.dt, step.models, cut)
            if step is not self._next:
                again.evidence -= again.evidence.max(0)
            for name in _BY_CHANNEL:
                getattr(step, name)[..., own] = getattr(again, name)
            before, cut = again, slice(None)

    def copy(self, slot: int) -> int:
        """Return a new slot with the history of another. Called after `correct`."""
        new = self._take_free()
        here, there = self._own(slot), self._own(new)
        for step in self.steps:
            for name in _BY_CHANNEL:
                kept = getattr(step, name)
                kept[..., there] = kept[..., here]
            if here in step.born:
                step.born.append(there)
        return new

    def since(self, ago: float) -> int:
        """The number of recorded steps not earlier than `ago` seconds before the last one."""
        left, count = ago + 1e-6, 0
        for step in reversed(self.steps):
            if left < 0:
                break
            left, count = left - step.dt, count + 1
        return count

    def state(self) -> Complex:
        """The present estimate (3, slots, C): position, velocity and acceleration."""
        return _weighted(self._last.evidence, self._last.state[:, :2]).reshape(3, -1, self.channels)

    def smooth(self, first: int, count: int) -> Complex:
        """Return the positions (count, slots, C) at `count` recorded steps from index `first`, given all of them."""
        steps = self.steps
        weight = np.exp(steps[-1].evidence)
        weight[weight < _LIKELY * np.add.reduce(weight)] = 0
        weight /= np.add.reduce(weight)
        K = weight.shape[1]
        channel, model = np.nonzero(weight.T)  # N paths into the past: of each channel those that are worth it
        starts, share = np.flatnonzero(np.diff(channel, prepend=-1)), weight[model, channel]
        adjoint = np.zeros((3, 2, len(model)))
        out = np.empty((count, K), np.complex128)
        parts = out.view(np.float64).reshape(count, K, 2).swapaxes(1, 2)
        for k in range(len(steps) - 1, first - 1, -1):
            step = steps[k]
            path = model * K + channel
            if k < first + count:
                row = step.state[0].reshape(5, -1).take(path, 1)
                row[:2] -= np.add.reduce(row[2:, None] * adjoint)
                parts[k - first] = np.add.reduceat(share * row[:2], starts, 1)
            if k > first:
                pull = step.pull.reshape(5, -1).take(path, 1)
                adjoint[0] += pull[:2] - np.add.reduce(pull[2:, None] * adjoint)
                adjoint[1:] = np.add.reduce(step.back.take(model, 3) * adjoint[:, None])
                for own in step.born:
                    adjoint[..., (channel >= own.start) & (channel < own.stop)] = 0
                model = step.parent.take(path)
        return out.reshape(count, -1, self.channels)

    def _own(self, slot: int) -> slice:
        return slice(slot * self.channels, (slot + 1) * self.channels)

    def _take_free(self) -> int:
        """Return a free slot; add some, in the recorded steps also, if there is none."""
        if not self._free:
            more = 1 + self.slots // 4
            self._free = list(range(self.slots + more - 1, self.slots - 1, -1))
            self.slots += more
            for step in self.steps if self.steps else [self._last]:
                for name in _BY_CHANNEL:
                    kept = getattr(step, name)
                    none = np.zeros((*kept.shape[:-1], more * self.channels), kept.dtype)
                    setattr(step, name, np.concatenate([kept, none], -1))
            self._lay(slice(-more * self.channels, None))
        return self._free.pop()

    def _lay(self, own: slice) -> None:
        """Put channels to rest under one model, so that no time is lost with them."""
        self._last.evidence[0, own], self._last.evidence[1:, own] = 0, -np.inf


def _rest(models: tuple[Motion, ...]) -> Step:
    """A step of no channels."""
    M = len(models)
    parent, evidence = np.zeros((M, 0), np.intp), np.zeros((M, 0))
    back, state, pull = np.zeros((3, 2, 1, M)), np.zeros((3, 5, M, 0)), np.zeros((5, M, 0))
    return Step(0.0, np.zeros(0), models, back, parent, state, evidence, pull, [])
