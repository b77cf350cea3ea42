"""Kalman filters over real time, for all faces at once.

A *channel* is one complex number that moves: a point in the plane, or any other pair of coordinates with equal noise.
Each channel is followed by a few models of motion in parallel, from "hardly moves" to "is shaken". At every step each
model starts from whichever model's state explains the past best, its own unless a change of motion pays for itself
(the Viterbi variant of the interacting multiple model filter: Averbuch, Itzikowitz & Kapon 1991). So no setting has to
choose between steadiness and speed, and every surviving history is an ordinary Kalman filter, along which the
Rauch-Tung-Striebel smoother is exact.

filterpy discretises the models for the time step at hand; the recursions are those of its KalmanFilter and
rts_smoother, written over arrays, because ten faces have 70 channels and one filterpy object takes 50 us a step.
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

UNSEEN = 1e30
"""The variance of a measurement that was not made."""


@dataclass(frozen=True, slots=True)
class Motion:
    """A model of motion in continuous time, driven by white noise.

    density: spectral density of the noise, in unit^2 s^-3 if it drives the velocity, unit^2 s^-5 if the acceleration.
    memory: seconds over which an acceleration dies away (Singer 1970); 0 for a model without acceleration.
    """

    density: float
    memory: float = 0.0

    def discrete(self, dt: float) -> tuple[Real, Real]:
        """Return the transition F (3, 3) and process noise Q (3, 3) of (position, velocity, acceleration) over dt."""
        if self.memory:
            A = np.array([[0.0, 1, 0], [0, 0, 1], [0, 0, -1 / self.memory]])
            G = np.array([[0.0], [0], [self.density**0.5]])
            F, Q = van_loan_discretization(A, G, dt)
            return F, Q
        F, Q = np.zeros((3, 3)), np.zeros((3, 3))
        A, G = np.array([[0.0, 1], [0, 0]]), np.array([[0.0], [self.density**0.5]])
        F[:2, :2], Q[:2, :2] = van_loan_discretization(A, G, dt)
        Q[2, 2] = 1e-6 * self.density
        return F, Q


MODELS = (Motion(1e-4), Motion(6e-3), Motion(300.0, memory=0.5))
"""Units: the spread of the landmarks (about 0.6 of a face's box)."""

DWELL = 5.0
"""Seconds for which a channel stays with one model of motion, on average."""


@lru_cache(maxsize=256)
def discretise(models: tuple[Motion, ...], dt: float) -> tuple[Real, Real, Real]:
    """Return F (M, 1, 1, 3, 3), Q (M, 1, 1, 3, 3) and the log probabilities (M, M, 1, 1) of a change of model in dt."""
    F, Q = zip(*(model.discrete(dt) for model in models), strict=True)
    M = len(models)
    stay = np.exp(-dt / DWELL) if M > 1 else 1.0
    switch = np.full((M, M), (1 - stay) / max(M - 1, 1))
    np.fill_diagonal(switch, stay)
    with np.errstate(divide="ignore"):
        return np.stack(F)[:, None, None], np.stack(Q)[:, None, None], np.log(switch)[:, :, None, None]


@dataclass(slots=True)
class Step:
    """One step of a bank: n slots, C channels, M models."""

    measured: Complex  # (n, C)
    variance: Real  # (n, C)
    scale: Real  # (n, C), unit^2 of each channel
    dt: float
    parent: NDArray[np.intp]  # (M, n, C), the model before, given the model of the step
    prior: Complex  # (M, n, C, 3)
    prior_cov: Real  # (M, n, C, 3, 3)
    cross: Real  # (M, n, C, 3, 3), covariance of the state before with the prior
    posterior: Complex  # (M, n, C, 3)
    posterior_cov: Real  # (M, n, C, 3, 3)
    evidence: Real  # (M, n, C), log likelihood of the model's history, the best one's being 0
    gain: Real | None = None  # (M, n, C, 3, 3) of the smoother, made on demand


State = tuple[Complex, Real, Real]
"""x (M, n, C, 3), P (M, n, C, 3, 3), evidence (M, n, C)."""


def _predict(state: State, scale: Real, dt: float, models: tuple[Motion, ...]) -> Step:
    x, P, evidence = state
    F, Q, switch = discretise(models, round(dt, 6))
    routes = evidence[:, None] + switch
    parent = routes.argmax(0)
    evidence = routes.max(0)
    _, n, C = parent.shape
    slots, channels = np.ogrid[:n, :C]
    cross = P[parent, slots, channels] @ F.swapaxes(-1, -2)
    prior_cov = F @ cross
    prior_cov += Q * scale[:, :, None, None]
    prior = (F @ x[parent, slots, channels, :, None])[..., 0]
    unseen = np.full((n, C), UNSEEN)
    return Step(prior[0, :, :, 0], unseen, scale, dt, parent, prior, prior_cov, cross, prior, prior_cov, evidence)


def _correct(step: Step) -> None:
    y = step.measured - step.prior[..., 0]
    S = step.prior_cov[..., 0, 0] + step.variance
    column = step.prior_cov[..., :, 0]
    gain = column / S[..., None]
    step.posterior = step.prior + gain * y[..., None]
    step.posterior_cov = step.prior_cov - gain[..., :, None] * column[..., None, :]
    evidence = step.evidence - 0.5 * (y.real**2 + y.imag**2) / S - np.log(S)
    step.evidence = evidence - evidence.max(0)


def _smoother_gain(step: Step) -> Real:
    gain: Real = np.linalg.solve(step.prior_cov, step.cross.swapaxes(-1, -2)).swapaxes(-1, -2)
    return gain


def _weight(evidence: Real) -> Real:
    weight = np.exp(evidence)
    weight /= weight.sum(0)
    return weight


class Bank:
    """Filters for a number of slots (faces) of C channels each.

    A slot is claimed and started; every picture then takes one `predict` and one `correct`, which appends a `Step`
    to `steps`. The owner drops from the left the steps it no longer needs.
    """

    def __init__(self, channels: int, models: tuple[Motion, ...] = MODELS) -> None:
        """Make an empty bank; slots are added as they are claimed."""
        self.models, self.channels = models, channels
        self.steps: list[Step] = []
        self._state = _rest(len(models), 0, channels)
        self._free: list[int] = []

    @property
    def slots(self) -> int:
        """The number of slots, claimed or free."""
        return self._state[0].shape[1]

    def claim(self) -> int:
        """Return a free slot, making more when there is none."""
        if not self._free:
            n = self.slots
            more = max(4, n)
            self._free = list(range(n + more - 1, n - 1, -1))
            room = _rest(len(self.models), more, self.channels)
            self._state = tuple(np.concatenate(pair, 1) for pair in zip(self._state, room, strict=True))  # type: ignore[assignment]
            for step in self.steps:
                _widen(step, more)
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Give a slot back once none of its steps is needed any more."""
        room = _rest(len(self.models), 1, self.channels)
        for array, rest in zip(self._state, room, strict=True):
            array[:, slot] = rest[:, 0]
        self._free.append(slot)

    def start(self, slot: int, measured: Complex, spread: Real) -> None:
        """Put a slot at its first measurement (C,), of variance spread[:, 0], at rest but for the rest of spread (C, 3)."""
        x, P, evidence = self._state
        x[:, slot], P[:, slot], evidence[:, slot] = 0, 0, 0
        x[:, slot, :, 0] = measured
        for k in range(3):
            P[:, slot, :, k, k] = spread[:, k]
        if self.steps:
            last = self.steps[-1]
            last.posterior[:, slot], last.posterior_cov[:, slot], last.evidence[:, slot] = (
                x[:, slot],
                P[:, slot],
                evidence[:, slot],
            )

    def predict(self, dt: float, scale: Real) -> tuple[Complex, Real]:
        """Advance all slots by dt seconds. Returns the mean (n, C) and the variance (n, C) of what will be measured.

        scale: (n, C), the unit of each channel squared: process noise is in proportion to it.
        """
        self._next = step = _predict(self._state, scale, dt, self.models)
        weight = _weight(step.evidence)
        mean = (weight * step.prior[..., 0]).sum(0)
        d = step.prior[..., 0] - mean
        variance = (weight * (step.prior_cov[..., 0, 0] + 0.5 * (d.real**2 + d.imag**2))).sum(0)
        return mean, variance

    def correct(self, measured: Complex, variance: Real, jump: Flags, spread: Real) -> None:
        """Take in measurements (n, C) of variance (n, C), UNSEEN where there is none.

        jump: (n,), slots whose past doesn't tell where they are now; spread (n, C, 3), the variance of their state.
        """
        step = self._next
        step.measured, step.variance = measured, variance
        if jump.any():
            step.prior_cov[:, jump] += spread[jump, :, :, None] * np.eye(3)
        _correct(step)
        self._state = step.posterior.copy(), step.posterior_cov.copy(), step.evidence.copy()
        self.steps.append(step)

    def mean(self) -> Complex:
        """The present estimate (n, C, 3) of all channels: position, velocity and acceleration."""
        x, _, evidence = self._state
        return (_weight(evidence)[..., None] * x).sum(0)

    def retract(self, slot: int, count: int) -> None:
        """Take back what a slot measured in its last `count` steps, as if it had not been seen in them.

        Called between `predict` and `correct`; the prediction is made anew.

        Raises ValueError if the step before them is not on record.
        """
        if not 0 < count < len(self.steps):
            raise ValueError(f"can't retract {count} of {len(self.steps)} steps")
        s = slice(slot, slot + 1)
        before = self.steps[-count - 1]
        state = before.posterior[:, s], before.posterior_cov[:, s], before.evidence[:, s]
        for step in self.steps[-count:]:
            again = _predict(state, step.scale[s], step.dt, self.models)
            for name in ("parent", "prior", "prior_cov", "cross", "posterior", "posterior_cov", "evidence"):
                getattr(step, name)[:, s] = getattr(again, name)
            step.variance[s] = UNSEEN
            step.gain = None
            state = again.posterior, again.posterior_cov, again.evidence
        for array, value in zip(self._state, state, strict=True):
            array[:, s] = value
        again = _predict(state, self._next.scale[s], self._next.dt, self.models)
        for name in ("parent", "prior", "prior_cov", "cross", "posterior", "posterior_cov", "evidence"):
            getattr(self._next, name)[:, s] = getattr(again, name)

    def smooth(self, first: int, count: int) -> Complex:
        """Return the estimates (count, n, C) of `count` recorded steps from index `first`, given all recorded steps."""
        steps = self.steps
        for step in steps[first + 1 :]:
            if step.gain is None:
                step.gain = _smoother_gain(step)
        last = steps[-1]
        weight, x = _weight(last.evidence), last.posterior
        M, n, C = weight.shape
        model, slots, channels = np.ogrid[:M, :n, :C]
        out = np.empty((count, n, C), np.complex128)
        for k in range(len(steps) - 1, first - 1, -1):
            if k < first + count:
                out[k - first] = (weight * x[..., 0]).sum(0)
            if k > first:
                step, before = steps[k], steps[k - 1]
                here = model, slots, channels
                assert step.gain is not None
                back = (step.gain[here] @ (x - step.prior[here])[..., None])[..., 0]
                model = step.parent[here]
                x = before.posterior[model, slots, channels] + back
        return out


def _rest(models: int, slots: int, channels: int) -> State:
    x = np.zeros((models, slots, channels, 3), np.complex128)
    P = np.broadcast_to(np.eye(3), (models, slots, channels, 3, 3)).copy()
    return x, P, np.zeros((models, slots, channels))


def _widen(step: Step, more: int) -> None:
    """Make room in a recorded step for slots that were not there yet."""
    M, _, C = step.evidence.shape
    x, P, evidence = _rest(M, more, C)
    unseen = _predict((x, P, evidence), np.ones((more, C)), step.dt, (Motion(1.0),) * M)
    for name in ("measured", "variance", "scale"):
        setattr(step, name, np.concatenate([getattr(step, name), getattr(unseen, name)], 0))
    for name in ("parent", "prior", "prior_cov", "cross", "posterior", "posterior_cov", "evidence"):
        setattr(step, name, np.concatenate([getattr(step, name), getattr(unseen, name)], 1))
    step.gain = None
