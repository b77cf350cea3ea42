"""Where each followed face is: its filters, and the judgement of what a detection says about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpenvid.faces.association import outlook
from gpenvid.faces.geometry import (
    CHANNELS,
    Complex,
    Flags,
    Index,
    Real,
    Sightings,
    decode,
    drawn,
    encode,
    longer,
    robust,
)
from gpenvid.faces.kalman import UNSEEN, Bank
from gpenvid.faces.life import Past, course
from gpenvid.faces.memory import NOISE, Faces, learn, measured, strangers, usual_noise
from gpenvid.faces.motion import Motion
from gpenvid.faces.shake import Shake
from gpenvid.native import compiled

UNKNOWN = np.array([[10] * 7, [2, 0.5, 0.3, 0.3, 0.3, 0.1, 0.1], [20, 5, 3, 3, 3, 1, 1]]) ** 2.0
"""Variance of the position, velocity and acceleration of a face of which nothing is known, in units."""

OSCILLATION = 1.0
"""Spectral density of the noise that drives the model of a shake, in units; see `Motion`."""

_JUMP = np.array([1, 1, 0, 0, 0, 0, 0])
"""The channels that a jump moves."""

_STRANGE = np.array([6, 6, 4, 4, 4, np.inf, np.inf]) ** 2
"""So many variances off in a channel make a detection worth a second look."""

DEFORMED, MOVED, GROWN = 0.12, 0.12, 0.18
"""How far from what is expected shape, place and log size must be, in |b|, for an outlier or a jump; less is motion."""

DOUBTS = 3
"""So many detections in a row that contradict the past, and the past is let go."""

REGAIN = 0.3
"""Seconds unseen, after which a face must be seen twice to be believed to be back."""


_STRANGER = strangers(1)[0]


@dataclass(slots=True)
class _Leap:
    """A jump that may yet turn out to have been a detector's slip."""

    taken: int  # pictures taken before it
    clock: float
    before: Complex  # (3,) position, velocity and acceleration of the centre then
    last: tuple[float, Complex, complex]  # when it was seen last, what it was like, its course
    confirmed: bool = False  # by a detection that followed it


class Poses:
    """The poses of all followed faces, each in a slot.

    Every picture takes one `predict` and one `take`. Landmarks that contradict the face's shape are taken for errors
    and replaced; a face that moved as a whole, box and all, in a way that no motion explains, is believed to have
    jumped, unless it is back a moment later.
    """

    def __init__(self) -> None:
        """Follow nothing yet."""
        self.bank = Bank(CHANNELS)
        self.clock = 0.0
        self._taken = 0
        self._faces = strangers(0)
        self._shake = Shake()
        self._leaps: dict[int, list[_Leap]] = {}
        self._now = np.zeros((3, 0, CHANNELS), np.complex128)
        self.patience = 0.17
        self.predict(0.0)

    def predict(self, dt: float) -> None:
        """Advance by dt seconds. `outlook` then says where faces should be."""
        self.clock += dt
        self._mean = self.bank.predict(max(dt, 1e-4), self._faces["scale"], _oscillating(self._shake.frequency))
        for slot, leaps in list(self._leaps.items()):
            if self.clock - leaps[-1].clock > self.patience:
                if not leaps[-1].confirmed:
                    self._take_back(slot, leaps[-1])
                del self._leaps[slot]

    def outlook(self, slots: Index, certain: Flags, seen: Sightings, bridge: float) -> tuple[Faces, Real]:
        """Return what is expected of the faces in slots, and how little the detections look like each of them.

        See `association.outlook`.
        """
        return outlook(self._faces, slots, certain, self._mean, seen, self.clock, bridge)

    def alike(self, slots: Index, seen: Sightings) -> Flags:
        """Return (slots, detections): whether size, shape and box of a detection are those of the face in a slot."""
        here, found, unit = self._faces["last"][slots, None], seen["channels"][None], self._faces["unit"][slots, None]
        shape = np.abs(here[..., 2:5] - found[..., 2:5]).max(-1) * unit
        frame = np.abs(here[..., 5:] - found[..., 5:]).max(-1)
        size = np.abs((here[..., 1] - found[..., 1]).real)
        alike: Flags = (shape < 4 + 0.05 * unit) & (frame < 0.2) & (size < 0.12)
        return alike

    def take(self, slots: Index, seen: Sightings, which: Index) -> None:
        """Take in what was seen of the faces in slots: the detections of those indices. Others weren't seen."""
        faces = self._faces
        z, R = measured(faces, slots, self._mean, seen, which)
        off, lost = self.bank.surprise(z, R), self.clock - faces["seen"][slots]
        strange = _strange(faces, slots, lost, off).tolist()
        if self._leaps or any(strange):
            self._look_twice(strange, slots[lost > REGAIN], z, R, slots, seen, which)
        self._now = now = self.bank.correct(z, R)
        self._taken += 1
        learn(faces, slots, self.clock, lost, off, now, seen, which)
        if self._shake.note(self.clock, now[0, :, 0]):
            here = self.clock - faces["seen"] < REGAIN
            self._shake.search(faces["unit"], np.where(here, self.clock - faces["first"], 0))

    def _look_twice(
        self, strange: list[bool], back: Index, z: Complex, R: Real, slots: Index, seen: Sightings, which: Index
    ) -> None:
        """Judge those detections that surprise; z and R, (slots, C), are amended in place.

        strange: of the slots that were seen; back: of those, the ones that weren't seen for long.
        """
        for slot in back.tolist():
            self._note_leap(slot)
        for n in [n for n, slot in enumerate(slots.tolist()) if strange[n] or slot in self._leaps]:
            slot = int(slots[n])
            if not self._judge(slot, z[slot], R[slot], seen[which[n]]):
                z[slot], R[slot] = self._mean[slot], UNSEEN

    def start(self, seen: Sightings, which: int) -> int:
        """Begin to follow a detection, after `take`; returns its slot."""
        one = seen[which]
        z = one["channels"]
        unit = float(np.exp(z[1].real))
        spread = UNKNOWN.copy()
        spread[:, 0] *= unit**2
        spread[0] = usual_noise(unit, float(one["score"]), 1.0)
        slot = self.bank.claim(z, spread)
        self._fit()
        self._faces[slot], face = _STRANGER, self._faces[slot]
        face["unit"], face["scale"][0], face["size"] = unit, unit**2, one["size"]
        face["first"] = face["seen"] = self.clock
        face["look"], face["varies"], face["last"] = one["looks"], 2 * spread[0, 1] + 0.02**2, z
        self._now[:, slot] = 0
        self._now[0, slot] = z
        return slot

    def split(self, slot: int, ago: float, before: Past, after: Past) -> int:
        """Return a new slot for the face that was in a slot until `ago` seconds ago; what was seen since is another's.

        before, after: when and as what the two were seen. Called after `take`.
        """
        old = self.bank.copy(slot)
        self._fit()
        self._faces[old] = self._faces[slot]
        self._now[:, old] = self._now[:, slot]
        self.bank.retract(old, self.bank.since(ago))
        gap = float(after[0][-1] - before[0][-1])
        for which, (times, seen) in ((old, before), (slot, after)):
            face, last = self._faces[which], seen[-1]
            face["look"], face["varies"] = seen["looks"].mean(0), np.maximum(seen["looks"].var(0), 0.02**2)
            face["last"], face["course"], face["size"] = last["channels"], course(times, seen), last["size"]
            face["doubts"], face["first"] = 0, self.clock
            self._leaps.pop(which, None)
        self._faces["seen"][old] -= gap
        return old

    def _fit(self) -> None:
        """Make room for the slots that the bank has."""
        more = self.bank.slots - len(self._faces)
        if more:
            self._faces = longer(self._faces, more)
            self._faces[-more:] = _STRANGER
            self._now = np.pad(self._now, ((0, 0), (0, more), (0, 0)))

    def release(self, slot: int) -> None:
        """Stop following."""
        self.bank.release(slot)
        self._leaps.pop(slot, None)

    def smooth(self, first: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return boxes (count, slots, 4) and landmarks (count, slots, 5, 2) of recorded steps, given all of them."""
        last = first + count == len(self.bank.steps) and count == 1
        channels = self._now[:1] if last else self.bank.smooth(first, count)
        boxes, landmarks = drawn(channels.reshape(-1, CHANNELS))
        return boxes.reshape(count, -1, 4), landmarks.reshape(count, -1, 5, 2)

    def _judge(self, slot: int, z: Complex, R: Real, one: np.void) -> bool:
        """Decide whether to believe a detection that surprises; z and R, (C,), are amended in place."""
        face, expected = self._faces[slot], self._mean[slot].copy()
        unit, tired = float(face["unit"]), face["doubts"] >= DOUBTS
        believed = whole = True
        off = self.bank.surprise(z, R, slot).tolist()
        if max(off[2:5]) > 16 and np.linalg.norm(z[2:5] - expected[2:5]) > DEFORMED and not tired:
            points, share = robust(decode(expected[None])[1][0], one["landmarks"], float(np.sqrt(R[0] / NOISE[0])))
            z[:] = encode(one["box"][None], points[None])[0]
            z[1] += 2j * np.pi * np.round((expected[1] - z[1]).imag / (2 * np.pi))
            R /= max(share, 0.2)
            off = self.bank.surprise(z, R, slot).tolist()
            believed, whole = share > 0.5, share == 1
        if slot in self._leaps and self._came_back(slot, z):
            off[:2] = 0, 0
        far = max(abs(z[0] - expected[0]) / unit / MOVED, abs(z[1] - expected[1]) / GROWN)
        jumps = max(off[:2]) > 36 and far > 1
        if jumps and believed:
            believed = tired or abs(z[5] - expected[5]) < 0.15
        face["doubts"] = 0 if believed and whole else face["doubts"] + 1
        if not believed:
            return self._fall_back(slot, z, R, one["box"])
        if jumps:
            self._note_leap(slot)
        if jumps or tired:
            spread = UNKNOWN if tired else UNKNOWN * _JUMP
            self.bank.loosen(slot, np.concatenate([spread[:, :1] * unit**2, spread[:, 1:]], 1))
        return True

    def _fall_back(self, slot: int, z: Complex, R: Real, box: Real) -> bool:
        """Let the box say where a face is whose landmarks can't be believed, if it lies where a box may."""
        expected = self._mean[slot]
        z[:], R[1:] = expected, UNSEEN
        z[0] = complex(box[0] + box[2], box[1] + box[3]) / 2 - np.exp(expected[1]) * expected[5]
        R[0] *= NOISE[5] / NOISE[0]
        believed: bool = self.bank.surprise(z, R, slot)[0] < 16
        return believed

    def _note_leap(self, slot: int) -> None:
        face = self._faces[slot]
        last = float(face["seen"]), face["last"].copy(), complex(face["course"])
        leap = _Leap(self._taken, self.clock, self._now[:, slot, 0].copy(), last)
        self._leaps.setdefault(slot, []).append(leap)

    def _take_back(self, slot: int, leap: _Leap) -> None:
        """Undo what was taken in since before a leap."""
        self.bank.retract(slot, self._taken - leap.taken)
        face = self._faces[slot]
        face["seen"], face["last"], face["course"] = leap.last

    def _came_back(self, slot: int, z: Complex) -> bool:
        """A face that jumped and is back where it came from never jumped: take those detections back."""
        leaps = self._leaps.pop(slot, [])
        for k, leap in reversed(list(enumerate(leaps))):
            passed = self.clock - leap.clock
            position, velocity, acceleration = leap.before
            off = abs(z[0] - position - velocity * passed - acceleration * passed**2 / 2)
            if off < 0.5 * abs(z[0] - self._now[0, slot, 0]) and off < (0.1 + 2 * passed) * self._faces["unit"][slot]:
                self._take_back(slot, leap)
                if k:
                    self._leaps[slot] = leaps[:k]
                return True
        if leaps:
            leaps[-1].confirmed |= leaps[-1].taken < self._taken
            self._leaps[slot] = leaps
        return False


@lru_cache(maxsize=16)
def _oscillating(frequency: float) -> tuple[Motion, ...]:
    """The model of a shake, if there is one."""
    return (Motion(OSCILLATION, frequency=frequency),) if frequency else ()


@compiled
def _strange(faces: Any, slots: Index, lost: Real, off: Real) -> Flags:
    """Which of the faces in slots (n,), unseen for `lost` seconds, are worth a second look; off: (slots, C)."""
    strange = np.zeros(len(slots), np.bool_)
    for n in range(len(slots)):
        strange[n] = faces[slots[n]].doubts > 0 or lost[n] > REGAIN
        for i in range(CHANNELS):
            strange[n] |= off[slots[n], i] > _STRANGE[i]
    return strange
