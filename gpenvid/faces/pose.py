"""Where each followed face is: its filters, and the judgement of what a detection says about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpenvid.faces.geometry import CHANNELS, Complex, Real, Sighting, box_size, decode, encode, looks, robust
from gpenvid.faces.kalman import UNSEEN, Bank, Index
from gpenvid.faces.life import Sightings, course
from gpenvid.faces.motion import Motion
from gpenvid.faces.shake import Shake

NOISE = np.array([0.2, 1, 1, 1, 1, 4, 4])
"""Variance of each channel's noise, in that of a landmark's coordinate (channel 0) or that over |b|^2 (others)."""

MOTION = np.array([1, 0.25, 0.1, 0.1, 0.1, 0.05, 0.05])
"""How much each channel moves, as a variance, beside the centre."""

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

TYPICAL = 1.35
"""The median over channels of the squared surprise, where noise is as assumed."""

DOUBTS = 3
"""So many detections in a row that contradict the past, and the past is let go."""


_LEARN = np.array([0.5, 0.4, 1.5])
"""Seconds over which are learnt a face's noise, its course, and what it looks like and how much that varies."""

DRIFT = 0.1
"""How much a face's look may change in a second unseen, beside its usual variation."""

REGAIN = 0.3
"""Seconds unseen, after which a face must be seen twice to be believed to be back."""


@dataclass(slots=True)
class _Leap:
    """A jump that may yet turn out to have been a detector's slip."""

    taken: int  # pictures taken before it
    clock: float
    before: Complex  # (3,) position, velocity and acceleration of the centre then
    last: tuple[float, Complex, complex]  # seconds since it was seen, what it was like, its course
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
        self._unit = np.ones(0)  # |b| of each slot, in pixels
        self._scale = np.ones((0, CHANNELS))  # how much each slot's channels move
        self._sizes = np.ones(0)  # of each slot's box when it was seen last, see `Sighting`
        self._noise = np.ones(0)  # variance of each slot's detections, beside what detections usually have
        self._lost, self._age = np.zeros(0), np.zeros(0)  # seconds since each was seen, and since it was first
        self._shake = Shake()
        self._last = np.zeros((0, CHANNELS), np.complex128)  # what each was like then
        self._course = np.zeros(0, np.complex128)  # its velocity then, over half a second
        self._doubts = np.zeros(0, np.intp)
        self._look = np.zeros((2, 0, 7))  # mean and variance of what each looks like, see `looks`
        self._leaps: dict[int, list[_Leap]] = {}
        self._now = np.zeros((3, 0, CHANNELS), np.complex128)
        self.patience = 0.17
        self.predict(0.0)

    def predict(self, dt: float) -> None:
        """Advance by dt seconds. `centres` (slots,) then says where faces should be."""
        self.clock += dt
        self._lost += dt
        self._age += dt
        also = (Motion(OSCILLATION, frequency=self._shake.frequency),) if self._shake.frequency else ()
        self._mean = self.bank.predict(max(dt, 1e-4), self._scale.copy(), also)
        for slot, leaps in list(self._leaps.items()):
            if self.clock - leaps[-1].clock > self.patience:
                if not leaps[-1].confirmed:
                    self._take_back(slot, leaps[-1])
                del self._leaps[slot]

    @property
    def centres(self) -> Complex:
        """Where each slot's face should be now, (slots,), in pixels."""
        return np.where(self._lost > 0.12, self._last[:, 0] + self._course * self._lost, self._mean[:, 0])

    @property
    def sizes(self) -> Real:
        """How large each slot's face was, the geometric mean of its box's sides, (slots,), in pixels."""
        return self._sizes

    def alike(self, slots: Index, seen: Sighting) -> NDArray[np.bool_]:
        """Return (slots, detections): whether size, shape and box of a detection are those of the face in a slot."""
        here, found = self._last[slots, None], seen.channels[None]
        shape = np.abs(here[..., 2:5] - found[..., 2:5]).max(-1) * self._unit[slots, None]
        frame = np.abs(here[..., 5:] - found[..., 5:]).max(-1)
        size = np.abs((here[..., 1] - found[..., 1]).real)
        alike: NDArray[np.bool_] = (shape < 4 + 0.05 * self._unit[slots, None]) & (frame < 0.2) & (size < 0.12)
        return alike

    def strangeness(self, slots: Index, look: Real) -> Real:
        """How little looks (..., 7) are like the faces in slots (...), broadcast: about 1 if they are the same.

        The mean over size and shape of the squared difference from the face's usual look, over its usual variance.
        """
        mean, variance = self._look[:, slots]
        drift = DRIFT * self._lost[slots, None]
        off = (look - mean) ** 2 / (variance + (0.01**2 + drift**2))
        strange: Real = np.add.reduce(np.minimum(off, 16), -1) / off.shape[-1]
        return strange

    def take(self, slots: Index, seen: Sighting, which: Index) -> None:
        """Take in what was seen of the faces in slots: the detections of those indices. Others weren't seen."""
        z, R = self._mean.copy(), np.full((self.bank.slots, CHANNELS), UNSEEN)
        if len(slots):
            self._expect(slots, seen, which, z, R)
        off = self.bank.compare(z, R)
        lost = self._lost[slots]
        shares = -np.expm1(lost[:, None] / -_LEARN)
        if self._leaps or (off > _STRANGE).any() or self._doubts[slots].any() or (lost > REGAIN).any():
            self._look_twice(off, z, R, slots, seen, which)
            self.bank.compare(z, R)
        self.bank.correct()
        self._taken += 1
        self._now = now = self.bank.state()
        self._unit = np.exp(np.minimum(np.maximum(now[0, :, 1].real, -5), 10))
        self._scale[:, 0] = self._unit * self._unit
        if len(slots):
            self._learn(slots, shares, off[slots], seen.looks[which])
        self._shake.note(self.clock, now[0, :, 0], self._unit, np.where(self._lost < REGAIN, self._age, 0))

    def _expect(self, slots: Index, seen: Sighting, which: Index, z: Complex, R: Real) -> None:
        """Put detections into rows of z and R, (slots, C), their roll where it is nearest to what it should be."""
        z[slots] = seen.channels[which]
        turned = self._mean.imag[:, 1] - z.imag[:, 1]
        if np.abs(turned).max() > np.pi:
            z.imag[:, 1] += 2 * np.pi * np.round(turned / (2 * np.pi))
        R[slots] = _usual_noise(self._scale[slots, 0], seen.scores[which], self._noise[slots])

    def _learn(self, slots: Index, shares: Real, off: Real, look: Real) -> None:
        """Learn of faces that were seen what they are like now, by shares (n, 3): see `_LEARN`.

        Their noise, 0.6 to 30 times as usual, from how far off (n, C) the detections were. Less is not believed: an
        alignment steadier than the face does no harm, a less steady one is seen. The median over the channels doesn't
        mind an outlier, or a motion that only some of them show. And their looks (n, 7), in which an outlier counts as
        far as it is likely.
        """
        off = off[:, :5]
        off.sort()
        noise = self._noise[slots]
        noise += shares[:, 0] * noise * (np.minimum(off[:, 2] / TYPICAL, 6) - 1)
        self._noise[slots] = np.minimum(np.maximum(noise, 0.6), 30)
        course = self._course[slots]
        self._course[slots] = course + shares[:, 1] * (self._now[1, slots, 0] - course)
        learnt, share = self._look[:, slots], shares[:, 2:]
        most = 3 * np.sqrt(learnt[1])
        gap = np.minimum(np.maximum(look - learnt[0], -most), most)
        learnt[0] += share * gap
        learnt[1] += share * (gap * gap - learnt[1])
        self._look[:, slots] = learnt
        last = self._now[0, slots]
        self._last[slots], self._sizes[slots], self._lost[slots] = last, box_size(last), 0

    def _look_twice(self, off: Real, z: Complex, R: Real, slots: Index, seen: Sighting, which: Index) -> None:
        """Judge those detections that surprise; z and R, (slots, C), are amended in place."""
        strange = (off > _STRANGE).any(1) | (self._doubts > 0)
        for slot in slots[self._lost[slots] > REGAIN]:
            self._note_leap(slot)
        strange[list(self._leaps)] = True
        for slot, d in zip(slots, which, strict=True):
            if strange[slot] and not self._judge(slot, z[slot], R[slot], seen.boxes[d], seen.landmarks[d]):
                z[slot], R[slot] = self._mean[slot], UNSEEN

    def start(self, seen: Sighting, which: int) -> int:
        """Begin to follow a detection, after `take`; returns its slot."""
        z = seen.channels[which]
        unit = np.exp(z[1:2].real)
        spread = UNKNOWN.copy()
        spread[:, 0] *= unit**2
        spread[0] = _usual_noise(unit**2, seen.scores[which : which + 1], np.ones(1))[0]
        slot = self.bank.claim(z, spread)
        self._fit()
        self._unit[slot], self._doubts[slot], self._lost[slot], self._age[slot] = unit[0], 0, 0, 0
        self._scale[slot, 0], self._sizes[slot] = unit[0] ** 2, seen.sizes[which]
        self._look[0, slot], self._look[1, slot] = seen.looks[which], 2 * spread[0, 1] + 0.02**2
        self._last[slot], self._course[slot], self._noise[slot] = z, 0, 1
        self._now[:, slot] = 0
        self._now[0, slot] = z
        return slot

    def split(self, slot: int, ago: float, before: Sightings, after: Sightings) -> int:
        """Return a new slot for the face that was in a slot until `ago` seconds ago; what was seen since is another's.

        before, after: when and as what the two were seen. Called after `take`.
        """
        old = self.bank.copy(slot)
        self._fit()
        for kept in (self._unit, self._noise, self._scale):
            kept[old] = kept[slot]
        self._now[:, old] = self._now[:, slot]
        self.bank.retract(old, self.bank.since(ago))
        lost = float(after[0][-1] - before[0][-1]) + self._lost[slot]
        for which, (times, channels) in ((old, before), (slot, after)):
            look = looks(channels)
            self._look[:, which] = look.mean(0), np.maximum(look.var(0), 0.02**2)
            self._last[which], self._course[which] = channels[-1], course(times, channels)
            self._sizes[which] = box_size(channels[-1])
            self._doubts[which], self._lost[which] = 0, lost if which == old else self._lost[slot]
            self._leaps.pop(which, None)
        self._age[[old, slot]] = 0
        return old

    def _fit(self) -> None:
        """Make room for the slots that the bank has."""
        more = self.bank.slots - len(self._unit)
        if more:
            one, many = (0, more), ((0, more), (0, 0))
            self._unit, self._noise = (np.pad(each, one, constant_values=1) for each in (self._unit, self._noise))
            self._lost, self._age, self._sizes = (np.pad(each, one) for each in (self._lost, self._age, self._sizes))
            self._scale = np.concatenate([self._scale, MOTION[None].repeat(more, 0)])
            self._doubts = np.pad(self._doubts, one)
            self._course, self._last = np.pad(self._course, one), np.pad(self._last, many)
            self._now, self._look = np.pad(self._now, ((0, 0), *many)), np.pad(self._look, ((0, 0), *many))

    def release(self, slot: int) -> None:
        """Stop following."""
        self.bank.release(slot)
        self._leaps.pop(slot, None)

    def smooth(self, first: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return boxes (count, slots, 4) and landmarks (count, slots, 5, 2) of recorded steps, given all of them."""
        if first + count == len(self.bank.steps) and count == 1:
            boxes, landmarks = decode(self._now[:1])
        else:
            boxes, landmarks = decode(self.bank.smooth(first, count))
        return boxes.astype(np.float32), np.stack([landmarks.real, landmarks.imag], -1).astype(np.float32)

    def _judge(self, slot: int, z: Complex, R: Real, box: Real, landmarks: Complex) -> bool:
        """Decide whether to believe a detection that surprises; z and R, (C,), are amended in place."""
        expected, unit = self._mean[slot].copy(), float(self._unit[slot])
        tired = self._doubts[slot] >= DOUBTS
        believed = whole = True
        off = self.bank.surprise(slot, z, R)
        if off[2:5].max() > 16 and np.linalg.norm(z[2:5] - expected[2:5]) > DEFORMED and not tired:
            _, predicted = decode(expected)
            points, share = robust(predicted, landmarks, float(np.sqrt(R[0] / NOISE[0])))
            z[:] = encode(box[None], points[None])[0]
            z[1] += 2j * np.pi * np.round((expected[1] - z[1]).imag / (2 * np.pi))
            R /= max(share, 0.2)
            off = self.bank.surprise(slot, z, R)
            believed, whole = share > 0.5, share == 1
        if self._came_back(slot, z):
            off[:2] = 0
        far = max(abs(z[0] - expected[0]) / unit / MOVED, abs(z[1] - expected[1]) / GROWN)
        jumps = off[:2].max() > 36 and far > 1
        if jumps and believed:
            believed = tired or abs(z[5] - expected[5]) < 0.15
        self._doubts[slot] = 0 if believed and whole else self._doubts[slot] + 1
        if not believed:
            return self._fall_back(slot, z, R, box)
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
        believed: bool = self.bank.surprise(slot, z, R)[0] < 16
        return believed

    def _note_leap(self, slot: int) -> None:
        last = float(self._lost[slot]), self._last[slot].copy(), complex(self._course[slot])
        leap = _Leap(self._taken, self.clock, self._now[:, slot, 0].copy(), last)
        self._leaps.setdefault(slot, []).append(leap)

    def _take_back(self, slot: int, leap: _Leap) -> None:
        """Undo what was taken in since before a leap."""
        self.bank.retract(slot, self._taken - leap.taken)
        lost, self._last[slot], self._course[slot] = leap.last
        self._lost[slot] = lost + self.clock - leap.clock

    def _came_back(self, slot: int, z: Complex) -> bool:
        """A face that jumped and is back where it came from never jumped: take those detections back."""
        leaps = self._leaps.pop(slot, [])
        for k, leap in reversed(list(enumerate(leaps))):
            passed = self.clock - leap.clock
            position, velocity, acceleration = leap.before
            off = abs(z[0] - position - velocity * passed - acceleration * passed**2 / 2)
            if off < 0.5 * abs(z[0] - self._now[0, slot, 0]) and off < (0.1 + 2 * passed) * self._unit[slot]:
                self._take_back(slot, leap)
                if k:
                    self._leaps[slot] = leaps[:k]
                return True
        if leaps:
            leaps[-1].confirmed |= leaps[-1].taken < self._taken
            self._leaps[slot] = leaps
        return False


def _usual_noise(square: Real, scores: Real, times: Real) -> Real:
    """The variance (N, C) of the channels of detections: landmarks are off by 0.6 pixels and 1.2 % of their spread.

    square: (N,), of the spread; times: (N,), so many times that much.
    """
    r = (0.6**2 + 0.012**2 * square) / np.maximum(scores, 0.3) * times
    R: Real = (r / square)[:, None] * NOISE
    R[:, 0] = r * NOISE[0]
    return R
