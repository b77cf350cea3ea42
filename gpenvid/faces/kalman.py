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

Shapes: M models, K channels. States are (M, 3, K): position, velocity, acceleration. Covariances are (M, 6, K), the
distinct elements 00 01 02 11 12 22.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from filterpy.common import van_loan_discretization
from numpy.typing import NDArray

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

UNSEEN = 1e30
"""The variance of a measurement that was not made."""

DWELL = 5.0
"""Seconds for which a channel stays with one model of motion, on average."""

_ROW = np.array([0, 0, 0, 1, 1, 2])
_COLUMN = np.array([0, 1, 2, 1, 2, 2])
_DIAGONAL = np.array([0, 3, 5])


@dataclass(frozen=True, slots=True)
class Motion:
    """A model of motion in continuous time, driven by white noise.

    density: spectral density of the noise, in unit^2 s^-3 if it drives the velocity, unit^2 s^-5 if the acceleration.
    memory: seconds over which an acceleration dies away (Singer 1970); 0 for a model without acceleration.
    """

    density: float
    memory: float = 0.0

    def discrete(self, dt: float) -> tuple[Real, Real]:
        """Return the transition F (3, 3) and process noise Q (3, 3) of (position, velocity, acceleration) over dt.

        The first two columns of F are those of uniform motion.
        """
        order = 3 if self.memory else 2
        A, G = np.diag(np.ones(order - 1), 1), np.zeros((order, 1))
        G[-1] = self.density**0.5
        if self.memory:
            A[2, 2] = -1 / self.memory
        F, Q = np.zeros((3, 3)), np.zeros((3, 3))
        F[:order, :order], Q[:order, :order] = van_loan_discretization(A, G, dt)
        return F, Q


MODELS = (Motion(1e-4), Motion(6e-3), Motion(300.0, memory=0.5))
"""Units: the spread of the landmarks (about 0.6 of a face's box)."""


@dataclass(frozen=True, slots=True)
class _Transition:
    """What a time step does, for all models."""

    F: Real  # (M, 3, 3)
    spread: Real  # (M, 6, 6): F P F^T as a map of the six elements of P
    Q: Real  # (M, 6, 1)
    stay: float  # log probability of no change of model
    leave: float  # log probability of a change to a certain other one


@lru_cache(maxsize=256)
def _transition(models: tuple[Motion, ...], dt: float) -> _Transition:
    F, Q = (np.stack(m) for m in zip(*(model.discrete(dt) for model in models), strict=True))
    unit = np.zeros((6, 3, 3))
    unit[range(6), _ROW, _COLUMN] = unit[range(6), _COLUMN, _ROW] = 1
    spread = (F[:, None] @ unit @ F[:, None].swapaxes(-1, -2))[..., _ROW, _COLUMN].swapaxes(-1, -2)
    M = len(models)
    leave = -np.expm1(-dt / DWELL)
    stay, leave = float(np.log1p(-leave)), float(np.log(leave / max(M - 1, 1)))
    return _Transition(F, np.ascontiguousarray(spread), Q[:, _ROW, _COLUMN][..., None], stay, leave)


@dataclass(slots=True)
class Step:
    """One step of a bank, as the smoother needs it."""

    dt: float
    scale: Real  # (K,), unit^2
    parent: Index  # (M, K), the model before, given the model of the step
    prior: Complex  # (M, 3, K)
    prior_cov: Real  # (M, 6, K)
    evidence: Real  # (M, K), log likelihood of the model's history; after the measurement, that of the best is 0
    posterior: Complex
    posterior_cov: Real
    gain: Real  # (M, 3, K)
    pull: Complex  # (M, K), innovation over its variance
    born: list[slice]  # channels whose history begins with this step


_BY_CHANNEL = ("scale", "parent", "prior", "prior_cov", "evidence", "posterior", "posterior_cov", "gain", "pull")


def _predict(x: Complex, P: Real, evidence: Real, scale: Real, dt: float, models: tuple[Motion, ...]) -> Step:
    """Advance states by dt: a step that nothing was measured in yet."""
    to = _transition(models, round(dt, 6))
    M, K = evidence.shape
    best = evidence.argmax(0)
    own, other = evidence + to.stay, evidence.max(0) + to.leave
    parent = np.where(own < other, best, np.arange(M)[:, None])
    evidence = np.maximum(own, other)
    six = parent[:, None] * (6 * K) + _grid(K)
    x, P = x.take(six[:, :3] - parent[:, None] * (3 * K)), P.take(six)
    prior = to.F @ x
    prior_cov = to.spread @ P
    prior_cov += to.Q * scale
    gain, pull = np.zeros((M, 3, K)), np.zeros((M, K), np.complex128)
    return Step(dt, scale, parent, prior, prior_cov, evidence, prior, prior_cov, gain, pull, [])


@lru_cache(maxsize=64)
def _grid(K: int) -> Index:
    return np.arange(6 * K).reshape(6, K)


def _correct(step: Step, y: Complex, S: Real) -> None:
    """Take in the innovations (M, K) of variance S (M, K)."""
    column = step.prior_cov[:, :3]
    step.gain = column / S[:, None]
    step.pull = y / S
    step.posterior = step.prior + step.gain * y[:, None]
    step.posterior_cov = step.prior_cov - step.gain[:, _ROW] * column[:, _COLUMN]
    evidence = step.evidence - 0.5 * (y * step.pull.conj()).real - np.log(S)
    step.evidence = evidence - evidence.max(0)


def _weight(evidence: Real) -> Real:
    weight = np.exp(evidence)
    weight /= weight.sum(0)
    return weight


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
        self._x, self._P, self._evidence = _rest(len(models), 0)
        self._next: Step | None = None
        self._innovation: tuple[Complex, Real] | None = None

    def claim(self, measured: Complex, spread: Real) -> int:
        """Start a free slot at its first measurement (C,), and return it.

        spread: (3, C), the variance of the position measured and of the velocity and acceleration that weren't.
        """
        if not self._free:
            self._widen(4)
        slot = self._free.pop()
        own = self._own(slot)
        x, P, evidence = _rest(len(self.models), self.channels)
        x[:, 0] = measured
        P[:, _DIAGONAL] = spread
        still = [i for i, model in enumerate(self.models) if not model.memory]
        P[still, 5] = 0
        self._x[..., own], self._P[..., own], self._evidence[:, own] = x, P, evidence
        if self.steps:
            last = self.steps[-1]
            last.posterior[..., own], last.posterior_cov[..., own], last.evidence[:, own] = x, P, evidence
            last.born.append(own)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back once none of its steps is needed any more."""
        own = self._own(slot)
        self._x[..., own], self._P[..., own], self._evidence[:, own] = _rest(len(self.models), self.channels)
        self._free.append(slot)

    def predict(self, dt: float, scale: Real) -> Complex:
        """Advance all slots by dt > 0 seconds. Returns what should be measured then, (slots, C).

        scale: (slots, C), the unit of each channel squared: process noise is in proportion to it.
        """
        self._next = step = _predict(self._x, self._P, self._evidence, scale.ravel(), dt, self.models)
        mean: Complex = (_weight(step.evidence) * step.prior[:, 0]).sum(0)
        return mean.reshape(-1, self.channels)

    def compare(self, measured: Complex, variance: Real) -> Real:
        """Compare the measurements (slots, C) of variance (slots, C), UNSEEN where there is none, with the prediction.

        Called between `predict` and `correct`. Returns how far off they are, (slots, C), in standard deviations of the
        model that is least surprised.
        """
        assert self._next is not None, "predict first"
        y = measured.ravel() - self._next.prior[:, 0]
        S = self._next.prior_cov[:, 0] + variance.ravel()
        self._innovation = y, S
        surprise: Real = np.sqrt(((y.real**2 + y.imag**2) / S).min(0))
        return surprise.reshape(measured.shape)

    def correct(self) -> None:
        """Take in the measurements that were compared last."""
        assert self._next is not None and self._innovation is not None, "predict and compare first"
        step, self._next = self._next, None
        _correct(step, *self._innovation)
        self._innovation = None
        self._x, self._P, self._evidence = step.posterior.copy(), step.posterior_cov.copy(), step.evidence.copy()
        self.steps.append(step)

    def surprise(self, slot: int, measured: Complex, variance: Real) -> Real:
        """As `compare`, for one slot's measurements (C,) of variance (C,), which are not kept."""
        assert self._next is not None, "predict first"
        own = self._own(slot)
        y = measured - self._next.prior[:, 0, own]
        surprise: Real = np.sqrt(((y.real**2 + y.imag**2) / (self._next.prior_cov[:, 0, own] + variance)).min(0))
        return surprise

    def loosen(self, slot: int, spread: Real) -> None:
        """Add variance (3, C) to the prediction of a slot: its past doesn't tell where it is now.

        Called between `predict` and `correct`.
        """
        assert self._next is not None, "predict first"
        self._next.prior_cov[:, _DIAGONAL, self._own(slot)] += spread

    def retract(self, slot: int, count: int) -> None:
        """Take back what a slot measured in its last `count` steps, as if it had not been seen in them.

        A prediction that was made already is made anew. Does nothing if the step before them is no longer on record.
        """
        if not 0 < count < len(self.steps):
            return
        own = self._own(slot)
        before = self.steps[-count - 1]
        x, P, evidence = before.posterior[..., own], before.posterior_cov[..., own], before.evidence[:, own]
        for step in [*self.steps[-count:], *([self._next] if self._next else [])]:
            again = _predict(x, P, evidence, step.scale[own], step.dt, self.models)
            for name in _BY_CHANNEL:
                getattr(step, name)[..., own] = getattr(again, name)
            x, P, evidence = again.posterior, again.posterior_cov, again.evidence
        self._x[..., own], self._P[..., own], self._evidence[:, own] = x, P, evidence

    def copy(self, slot: int) -> int:
        """Return a new slot with the history of another. Called after `correct`."""
        if not self._free:
            self._widen(4)
        new = self._free.pop()
        here, there = self._own(slot), self._own(new)
        for kept in (self._x, self._P, self._evidence):
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
        x: Complex = (_weight(self._evidence)[:, None] * self._x).sum(0)
        return x.reshape(3, -1, self.channels)

    def smooth(self, first: int, count: int) -> Complex:
        """Return the positions (count, slots, C) at `count` recorded steps from index `first`, given all of them."""
        steps = self.steps
        weight = _weight(steps[-1].evidence)
        M, K = weight.shape
        column, rows = np.arange(K), np.arange(3 * K).reshape(3, K)
        model: Index = np.repeat(np.arange(M)[:, None], K, 1)
        adjoint = np.zeros((M, 3, K), np.complex128)
        out = np.empty((count, K), np.complex128)
        for k in range(len(steps) - 1, first - 1, -1):
            step = steps[k]
            one, three = model * K + column, model[:, None] * (3 * K) + rows
            if k < first + count:
                x = step.posterior[:, 0].take(one)
                x -= (step.posterior_cov[:, :3].take(three) * adjoint).sum(1)
                out[k - first] = (weight * x).sum(0)
            if k > first:
                adjoint[:, 0] -= (step.gain.take(three) * adjoint).sum(1) + step.pull.take(one)
                F = _transition(self.models, round(step.dt, 6)).F
                back = F[:, :, 2].take(model, 0).swapaxes(1, 2)
                adjoint[:, 2] = (back * adjoint).sum(1)
                adjoint[:, 1] += step.dt * adjoint[:, 0]
                for own in step.born:
                    adjoint[..., own] = 0
                model = step.parent.take(one)
        return out.reshape(count, -1, self.channels)

    def _own(self, slot: int) -> slice:
        return slice(slot * self.channels, (slot + 1) * self.channels)

    def _widen(self, more: int) -> None:
        """Add free slots, in the recorded steps also."""
        M, K = len(self.models), more * self.channels
        self._free = list(range(self.slots + more - 1, self.slots - 1, -1))
        self.slots += more
        x, P, evidence = _rest(M, K)
        for name, room in (("_x", x), ("_P", P), ("_evidence", evidence)):
            setattr(self, name, np.concatenate([getattr(self, name), room], -1))
        for step in self.steps:
            unseen = _predict(x, P, evidence, np.zeros(K), step.dt, self.models)
            for name in _BY_CHANNEL:
                setattr(step, name, np.concatenate([getattr(step, name), getattr(unseen, name)], -1))


def _rest(M: int, K: int) -> tuple[Complex, Real, Real]:
    """A state (M, 3, K) at 0, its covariance (M, 6, K) and evidence (M, K)."""
    return np.zeros((M, 3, K), np.complex128), np.zeros((M, 6, K)), np.zeros((M, K))
