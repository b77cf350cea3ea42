"""The recursions of a bank of Kalman filters, channel by channel; see `faces.kalman` for what they are part of.

One record a channel. What is measured is the position; so the first row of a state, (real part, imaginary part, three
covariances), less the measurement and divided by the variance of that, is the innovation's pull and the gain: all that
the smoother needs of a measurement.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpenvid.native import compiled

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.intp]

MOST = 4
"""Models that a channel may be followed by at once."""

CHANNEL = np.dtype(
    [
        ("scale", np.float64),  # unit^2 of the process noise
        ("parent", np.intp, MOST),  # the model before, given the model of the step
        # position, velocity and acceleration: the real and the imaginary part, then a row of their covariance, which
        # both parts share; before the measurement, or after it
        ("state", np.float64, (MOST, 3, 5)),
        ("evidence", np.float64, MOST),  # log likelihood of a model's history; once measured, that of the best is 0
        ("pull", np.float64, (MOST, 5)),  # the innovation and its covariances over its variance
    ]
)
"""A channel at one step."""

Channels = NDArray[np.void]
"""(K,) of dtype CHANNEL."""


@compiled
def blend(channels: Any, models: int) -> Complex:
    """The mean over the models, weighted by their evidence, of position, velocity and acceleration, (3, K)."""
    mean, weight = np.empty((3, len(channels)), np.complex128), np.empty(MOST)
    for k in range(len(channels)):
        now, total = channels[k], 0.0
        for m in range(models):
            weight[m] = np.exp(now.evidence[m])
            total += weight[m]
        for a in range(3):
            x = y = 0.0
            for m in range(models):
                x += weight[m] * now.state[m, a, 0]
                y += weight[m] * now.state[m, a, 1]
            mean[a, k] = complex(x / total, y / total)
    return mean


@compiled
def advance(before: Any, models: int, after: Any, scale: Real, F: Real, Q: Real, stay: float, leave: float) -> Complex:
    """Take channels, under so many models, one time step further; returns what is to be expected, see `blend`.

    scale: (K,), unit^2 of the process noise. F, Q: (M, 3, 3), the transitions, of which the first are those of the
    models before, and the process noise for a unit of 1; stay, leave: log probability of no change of model, and of a
    change to a certain other one.
    """
    for k in range(len(before)):
        old, new, best = before[k], after[k], 0
        new.scale = scale[k]
        for m in range(1, models):
            if old.evidence[m] > old.evidence[best]:
                best = m
        for m in range(MOST):
            kept = old.evidence[m] + stay if m < models else -np.inf
            new.evidence[m] = max(kept, leave) if m < len(F) else -np.inf
            new.parent[m] = best if kept < leave else m
        for m in range(len(F)):
            f, s, t = F[m], old.state[new.parent[m]], new.state[m]
            for a in range(3):
                for c in range(2):
                    t[a, c] = f[a, 0] * s[0, c] + f[a, 1] * s[1, c] + f[a, 2] * s[2, c]
                x = f[a, 0] * s[0, 2] + f[a, 1] * s[1, 2] + f[a, 2] * s[2, 2]
                y = f[a, 0] * s[0, 3] + f[a, 1] * s[1, 3] + f[a, 2] * s[2, 3]
                z = f[a, 0] * s[0, 4] + f[a, 1] * s[1, 4] + f[a, 2] * s[2, 4]
                for b in range(a + 1):
                    t[a, 2 + b] = x * f[b, 0] + y * f[b, 1] + z * f[b, 2] + Q[m, a, b] * scale[k]
                    t[b, 2 + a] = t[a, 2 + b]
    return blend(after, len(F))


@compiled
def surprise(channels: Any, models: int, measured: Complex, variance: Real) -> Real:
    """How far off measurements (K,) of variance (K,) are, (K,), in variances of the model least surprised."""
    least = np.full(len(channels), np.inf)
    for k in range(len(channels)):
        for m in range(models):
            row = channels[k].state[m, 0]
            x, y = row[0] - measured[k].real, row[1] - measured[k].imag
            least[k] = min(least[k], (x * x + y * y) / (row[2] + variance[k]))
    return least


@compiled
def correct(channels: Any, models: int, measured: Complex, variance: Real) -> Complex:
    """Take measurements (K,) of variance (K,) into channels; return what they make of them, see `blend`."""
    for k in range(len(channels)):
        now, best = channels[k], -np.inf
        for m in range(models):
            state, pull = now.state[m], now.pull[m]
            S = state[0, 2] + variance[k]
            x, y = state[0, 0] - measured[k].real, state[0, 1] - measured[k].imag
            row = x, y, state[0, 2], state[0, 3], state[0, 4]
            for i in range(5):
                pull[i] = row[i] / S
            now.evidence[m] -= 0.5 * (x * x + y * y) / S + np.log(S)
            best = max(best, now.evidence[m])
            for a in range(3):
                for i in range(5):
                    state[a, i] -= pull[2 + a] * row[i]
        for m in range(models):
            now.evidence[m] -= best
    return blend(channels, models)


@compiled
def look_back(channels: Any, F: Real, adjoint: Real, channel: Index, model: Index, share: Real, place: Real) -> None:
    """Add up where the channels were, (K, 2), at a step, known from all that came later, and go to the step before.

    N paths lead through its channels and models (N,), each of a share (N,) in its channel; adjoint (N, 3, 2) is what
    the later measurements say, for the real and the imaginary part. Model and adjoint become those of the step before.
    """
    for n in range(len(channel)):
        now, f = channels[channel[n]], F[model[n]]
        row, pull = now.state[model[n], 0], now.pull[model[n]]
        for c in range(2):
            first, second, third = adjoint[n, 0, c], adjoint[n, 1, c], adjoint[n, 2, c]
            here = row[c] - (row[2] * first + row[3] * second + row[4] * third)
            place[channel[n], c] += share[n] * here
            turned = first + pull[c] - (pull[2] * first + pull[3] * second + pull[4] * third)
            for a in range(3):
                adjoint[n, a, c] = f[0, a] * turned + f[1, a] * second + f[2, a] * third
        model[n] = now.parent[model[n]]
