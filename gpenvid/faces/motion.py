"""Models of how a face moves, in continuous time; what a time step makes of them is left to filterpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from filterpy.common import van_loan_discretization
from numpy.typing import NDArray

Real = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Motion:
    """A model of motion in continuous time, driven by white noise.

    density: spectral density of the noise, in unit^2 s^-3 if it drives the velocity, unit^2 s^-5 if the acceleration.
    memory: seconds over which an acceleration dies away (Singer 1970); 0 for a model without acceleration.
    frequency: in Hz, of the oscillation of a model that oscillates about a place, which the noise moves.
    """

    density: float
    memory: float = 0.0
    frequency: float = 0.0

    def discrete(self, dt: float) -> tuple[Real, Real]:
        """Return the transition F (3, 3) and process noise Q (3, 3) of (position, velocity, acceleration) over dt.

        The first column of F is that of what stands still.
        """
        order = 3 if self.memory or self.frequency else 2
        A, G = np.diag(np.ones(order - 1), 1), np.zeros((order, 1))
        G[-1] = self.density**0.5
        if self.memory:
            A[2, 2] = -1 / self.memory
        if self.frequency:
            A[2, 1] = -((2 * np.pi * self.frequency) ** 2)
        F, Q = np.zeros((3, 3)), np.zeros((3, 3))
        F[:order, :order], Q[:order, :order] = van_loan_discretization(A, G, dt)
        return F, Q


MODELS = (Motion(1e-4), Motion(6e-3), Motion(300.0, memory=0.5))
"""Units: the spread of the landmarks (about 0.6 of a face's box)."""
