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

Shapes: M models, K channels. A state is twelve rows (12, M, K): real and imaginary part of acceleration, velocity and
position, then the covariance of one part, its elements 00 01 02 11 12 22 with position first. So a time step is one
matrix per model, and what the smoother needs, the position and its covariances, are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

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

_ROWS = 12
_POSITION, _COLUMN = slice(4, 6), slice(6, 9)  # the covariances with the position are a column of the matrix
_VARIANCES = np.array([6, 9, 11])
_I, _J = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 1, 2, 2])


@dataclass(frozen=True, slots=True)
class _Transition:
    """What a time step does, for all models."""

    matrix: Real  # (M, 12, 12), takes a state one step further
    noise: Real  # (6, M, 1), adds to its covariance, per unit^2
    back: Real  # (3, 2, M), the last columns of F; the first is always that of a constant
    stay: float  # log probability of no change of model
    leave: float  # log probability of a change to a certain other one


@lru_cache(maxsize=256)
def _transition(models: tuple[Motion, ...], dt: float) -> _Transition:
    F, Q = (np.stack(m) for m in zip(*(model.discrete(dt) for model in models), strict=True))
    M, unit = len(models), np.zeros((6, 3, 3))
    unit[range(6), _I, _J] = unit[range(6), _J, _I] = 1
    matrix = np.zeros((M, _ROWS, _ROWS))
    matrix[:, 0:6:2, 0:6:2] = matrix[:, 1:6:2, 1:6:2] = F[:, ::-1, ::-1]
    matrix[:, 6:, 6:] = (F[:, None] @ unit @ F[:, None].swapaxes(-1, -2))[..., _I, _J].swapaxes(-1, -2)
    leave = -np.expm1(-dt / DWELL)
    stay, leave = float(np.log1p(-leave)), float(np.log(leave / max(M - 1, 1)))
    return _Transition(
        matrix, Q[:, _I, _J].T[..., None], np.ascontiguousarray(F[:, :, 1:].transpose(1, 2, 0)), stay, leave
    )


@dataclass(slots=True)
class Step:
    """One step of a bank, as the smoother needs it."""

    dt: float
    scale: Real  # (K,), unit^2
    models: tuple[Motion, ...]
    parent: Index  # (M, K), the model before, given the model of the step
    state: Real  # (12, M, K), before the measurement, or after it
    evidence: Real  # (M, K), log likelihood of the model's history; after the measurement, that of the best is 0
    gain: Real  # (3, M, K)
    pull: Real  # (2, M, K), innovation over its variance
    born: list[slice]  # channels whose history begins with this step


_BY_CHANNEL = ("scale", "parent", "state", "evidence", "gain", "pull")


def _predict(state: Real, evidence: Real, scale: Real, dt: float, models: tuple[Motion, ...]) -> Step:
    """Advance states by dt: a step that nothing was measured in yet.

    Of the models the first are those of the states; there may be less of them, or more.
    """
    to = _transition(models, round(dt, 6))
    M, K, known = len(models), evidence.shape[1], len(evidence)
    other, own = evidence.max(0) + to.leave, evidence[:M] + to.stay
    if known < M:
        own = np.concatenate([own, np.full((M - known, K), -np.inf)])
    parent = np.where(own < other, evidence.argmax(0), np.arange(M)[:, None])
    state = state.reshape(_ROWS, known * K).take(parent * K + np.arange(K), 1)
    after = np.empty_like(state)
    np.matmul(to.matrix, state.swapaxes(0, 1), out=after.swapaxes(0, 1))
    after[6:] += to.noise * scale
    return Step(dt, scale, models, parent, after, np.maximum(own, other), np.zeros((3, M, K)), np.zeros((2, M, K)), [])


def _correct(step: Step, y: Real, S: Real, off: Real) -> None:
    """Take in innovations (2, M, K) of variance S (M, K); off: |y|^2 / S."""
    state = step.state
    column = state[_COLUMN].copy()
    step.gain = gain = column / S
    step.pull = y / S
    for row, g in ((4, gain[0]), (2, gain[1]), (0, gain[2])):
        state[row : row + 2] += g * y
    state[6:9] -= gain[0] * column
    state[9:11] -= gain[1] * column[1:]
    state[11] -= gain[2] * column[2]
    evidence = step.evidence - 0.5 * off - np.log(S)
    step.evidence = evidence - evidence.max(0)


def _weight(evidence: Real) -> Real:
    weight = np.exp(evidence)
    weight /= np.add.reduce(weight)
    return weight


def _mixed(evidence: Real, rows: Real) -> Complex:
    """The mean over models of rows (..., 2, M, K), real and imaginary, weighted by evidence (M, K); (..., K)."""
    mean = np.add.reduce(_weight(evidence) * rows, -2)
    out = np.empty((*mean.shape[:-2], mean.shape[-1]), np.complex128)
    out.real, out.imag = mean[..., 0, :], mean[..., 1, :]
    return out


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
        self._state, self._evidence = _rest(len(models), 0)
        self._next: Step | None = None
        self._innovation: tuple[Real, Real, Real] | None = None

    def claim(self, measured: Complex, spread: Real) -> int:
        """Start a free slot at its first measurement (C,), and return it.

        spread: (3, C), the variance of the position measured and of the velocity and acceleration that weren't.
        """
        slot = self._take_free()
        own = self._own(slot)
        state, evidence = _rest(len(self._evidence), self.channels)
        state[4], state[5] = measured.real, measured.imag
        state[_VARIANCES] = spread[:, None]
        still = [i for i, model in enumerate(self.models) if not (model.memory or model.frequency)]
        state[11, still] = 0
        self._state[..., own], self._evidence[:, own] = state, evidence
        if self.steps:
            last = self.steps[-1]
            last.state[..., own], last.evidence[:, own] = state, evidence
            last.born.append(own)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back once none of its steps is needed any more."""
        own = self._own(slot)
        self._state[..., own], self._evidence[:, own] = _rest(len(self._evidence), self.channels)
        self._free.append(slot)

    def predict(self, dt: float, scale: Real, also: tuple[Motion, ...] = ()) -> Complex:
        """Advance all slots by dt > 0 seconds. Returns what should be measured then, (slots, C).

        scale: (slots, C), the unit of each channel squared: process noise is in proportion to it. also: models that
        are there for now.
        """
        models = self.models + also
        self._next = step = _predict(self._state, self._evidence, scale.ravel(), dt, models)
        return _mixed(step.evidence, step.state[_POSITION]).reshape(-1, self.channels)

    def compare(self, measured: Complex, variance: Real) -> Real:
        """Compare the measurements (slots, C) of variance (slots, C), UNSEEN where there is none, with the prediction.

        Called between `predict` and `correct`. Returns how far off they are, (slots, C), in standard deviations of the
        model that is least surprised.
        """
        assert self._next is not None, "predict first"
        z = np.stack([measured.real.ravel(), measured.imag.ravel()])
        self._innovation = _, _, off = _innovation(self._next.state, z, variance.ravel())
        surprise: Real = np.sqrt(off.min(0))
        return surprise.reshape(measured.shape)

    def correct(self) -> None:
        """Take in the measurements that were compared last."""
        assert self._next is not None and self._innovation is not None, "predict and compare first"
        step, self._next = self._next, None
        _correct(step, *self._innovation)
        self._innovation = None
        self._state, self._evidence = step.state.copy(), step.evidence.copy()
        self.steps.append(step)

    def surprise(self, slot: int, measured: Complex, variance: Real) -> Real:
        """As `compare`, for one slot's measurements (C,) of variance (C,), which are not kept."""
        assert self._next is not None, "predict first"
        z = np.stack([measured.real, measured.imag])
        surprise: Real = np.sqrt(_innovation(self._next.state[..., self._own(slot)], z, variance)[2].min(0))
        return surprise

    def loosen(self, slot: int, spread: Real) -> None:
        """Add variance (3, C) to the prediction of a slot: its past doesn't tell where it is now.

        Called between `predict` and `correct`.
        """
        assert self._next is not None, "predict first"
        self._next.state[_VARIANCES, :, self._own(slot)] += spread[:, None]

    def retract(self, slot: int, count: int) -> None:
        """Take back what a slot measured in its last `count` steps, as if it had not been seen in them.

        A prediction that was made already is made anew. Does nothing if the step before them is no longer on record.
        """
        if not 0 < count < len(self.steps):
            return
        own = self._own(slot)
        before = self.steps[-count - 1]
        state, evidence = before.state[..., own], before.evidence[:, own]
        for step in [*self.steps[-count:], *([self._next] if self._next else [])]:
            again = _predict(state, evidence, step.scale[own], step.dt, step.models)
            for name in _BY_CHANNEL:
                getattr(step, name)[..., own] = getattr(again, name)
            state, evidence = again.state, again.evidence
        last = self.steps[-1]
        self._state[..., own], self._evidence[:, own] = last.state[..., own], last.evidence[:, own]

    def copy(self, slot: int) -> int:
        """Return a new slot with the history of another. Called after `correct`."""
        new = self._take_free()
        here, there = self._own(slot), self._own(new)
        for kept in (self._state, self._evidence):
            kept[..., there] = kept[..., here]
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
        return _mixed(self._evidence, self._state[:6].reshape(3, 2, *self._evidence.shape))[::-1].reshape(
            3, -1, self.channels
        )

    def smooth(self, first: int, count: int) -> Complex:
        """Return the positions (count, slots, C) at `count` recorded steps from index `first`, given all of them."""
        steps = self.steps
        weight = _weight(steps[-1].evidence)
        M, K = weight.shape
        model: Index = np.repeat(np.arange(M)[:, None], K, 1)
        adjoint = np.zeros((3, 2, M, K))
        out = np.empty((count, K), np.complex128)
        for k in range(len(steps) - 1, first - 1, -1):
            step = steps[k]
            path = model * K + np.arange(K)
            if k < first + count:
                x = step.state.reshape(_ROWS, -1)[4:9].take(path, 1)
                x[:2] -= np.add.reduce(x[2:, None] * adjoint)
                out[k - first].real, out[k - first].imag = np.add.reduce(weight * x[:2], 1)
            if k > first:
                gain, pull = (each.reshape(-1, each[0].size).take(path, 1) for each in (step.gain, step.pull))
                adjoint[0] -= np.add.reduce(gain[:, None] * adjoint) + pull
                back = _transition(step.models, round(step.dt, 6)).back.take(model, 2)
                adjoint[1:] = np.add.reduce(back[:, :, None] * adjoint[:, None])
                for own in step.born:
                    adjoint[..., own] = 0
                model = step.parent.take(path)
        return out.reshape(count, -1, self.channels)

    def _own(self, slot: int) -> slice:
        return slice(slot * self.channels, (slot + 1) * self.channels)

    def _take_free(self) -> int:
        """Return a free slot; add some, in the recorded steps also, if there is none."""
        if not self._free:
            more = 4
            K = more * self.channels
            self._free = list(range(self.slots + more - 1, self.slots - 1, -1))
            self.slots += more
            state, evidence = _rest(len(self._evidence), K)
            self._state = np.concatenate([self._state, state], -1)
            self._evidence = np.concatenate([self._evidence, evidence], -1)
            for before, step in pairwise([*self.steps[:1], *self.steps]):
                unseen = _predict(*_rest(len(before.models), K), np.zeros(K), step.dt, step.models)
                for name in _BY_CHANNEL:
                    setattr(step, name, np.concatenate([getattr(step, name), getattr(unseen, name)], -1))
        return self._free.pop()


def _innovation(state: Real, z: Real, variance: Real) -> tuple[Real, Real, Real]:
    """Return innovations y (2, M, K), their variance S (M, K) and |y|^2 / S."""
    y = z[:, None] - state[_POSITION]
    S = state[6] + variance
    square = y * y
    return y, S, (square[0] + square[1]) / S


def _rest(M: int, K: int) -> tuple[Real, Real]:
    """A state (12, M, K) and its evidence (M, K), all 0."""
    return np.zeros((_ROWS, M, K)), np.zeros((M, K))
