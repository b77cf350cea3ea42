"""Following faces over time: who is who, where exactly, and how much of each is shown."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from gpenvid.faces import association, geometry
from gpenvid.faces.geometry import MOTION_GAIN, NOISE_GAIN, Complex, Real
from gpenvid.faces.kalman import UNSEEN, Bank
from gpenvid.options import TrackerOptions
from gpenvid.types import Face, Track

Time = float | Fraction
Final = list[tuple[Time, list[Track]]]

SPREAD = np.array([1e2, 1.0, 1e2])
"""Variance of the position, velocity and acceleration of a face of which nothing is known; unit: MOTION_GAIN's."""


@dataclass(slots=True)
class _Life:
    """A face from its first detection to its last."""

    id: int
    slot: int
    confirmed: bool
    shown: float  # strength in the last picture handed out
    times: list[float] = field(default_factory=list)  # of the detections
    scores: list[float] = field(default_factory=list)
    runs: int = 1  # of the detector, since birth
    ended: bool = False
    doubts: int = 0  # detections in a row that were not believed
    jumped: tuple[int, float, Complex] | None = None  # step before, its clock, position, velocity and acceleration


@dataclass(slots=True)
class _Picture:
    time: Time
    clock: float


class Clock:
    """Turns presentation times, which may stand still or go backwards, into a clock that never does."""

    def __init__(self) -> None:
        """Start at 0."""
        self.now, self.step, self.irregular = 0.0, 0.04, 0
        self._last: float | None = None

    def tick(self, time: Time) -> float:
        """Return the seconds since the picture before; time is that of the new picture."""
        value = float(time)
        last, self._last = self._last, value
        if last is None:
            return 0.0
        dt = value - last
        if dt > 0:
            self.step = dt
        else:
            self.irregular += 1
            dt = 1e-3 if dt == 0 else self.step
        self.now += dt
        return dt


class Tracker:
    """Follows faces through pictures, and says where each is when it knows.

    With a lag, a picture is handed out once the tracker has seen `lag` seconds more: positions then are those of a
    fixed-lag Rauch-Tung-Striebel smoother, and faces are shown from their first picture on. Without, at once.
    """

    def __init__(self, options: TrackerOptions | None = None) -> None:
        """Make a tracker that has seen nothing."""
        self.options = options or TrackerOptions()
        self._clock = Clock()
        self._next_id = 1
        self._interval = 0.0  # seconds between runs of the detector
        self._reset()

    @property
    def irregular(self) -> int:
        """How many pictures did not come later than the one before."""
        return self._clock.irregular

    def _reset(self) -> None:
        self._bank = Bank(geometry.CHANNELS)
        self._lives: list[_Life] = []
        self._taken = 0  # pictures of this scene
        self._pending: deque[_Picture] = deque()
        self._shown: float | None = None  # the clock of the last picture handed out
        self._ran: float | None = None  # the clock of the last run of the detector, in this scene
        self._unit = np.ones(0)

    def update(self, faces: list[Face] | None, time: Time, cut: bool = False) -> Final:
        """Take in the next picture; return the pictures that became final, in order.

        faces: what was detected in it, or None if the detector was not run: positions are predicted, or interpolated.
        time: its presentation time in seconds. cut: it starts a new scene.
        Over all calls and the last `flush`, every picture is returned exactly once.
        """
        done = self.cut() if cut else []
        dt = self._clock.tick(time)
        self._follow(faces, dt)
        self._pending.append(_Picture(time, self._clock.now))
        return done + self._emit()

    def cut(self) -> Final:
        """End the scene: return all pictures that are pending, and forget all faces."""
        done = self._hand_out(len(self._pending), over=True)
        self._reset()
        return done

    def flush(self) -> Final:
        """End the stream: return all pictures that are pending."""
        return self.cut()

    # What was seen

    def _follow(self, faces: list[Face] | None, dt: float) -> None:
        bank, now = self._bank, self._clock.now
        self._grow()
        scale = self._scale()
        mean, variance = bank.predict(max(dt, 1e-4), scale)
        n = bank.slots
        measured, noise, jump = mean.copy(), np.full((n, geometry.CHANNELS), UNSEEN), np.zeros(n, np.intp)
        spread = scale[..., None] * SPREAD
        boxes, landmarks, scores = geometry.arrays(faces or [])
        found = geometry.encode(boxes, landmarks)
        pairs = self._associate(mean, variance, boxes, found, scores) if len(found) else []
        for life, d in pairs:
            self._measure(life, mean, variance, found, landmarks, scores, d, measured, noise, jump)
        spread[:, 2:] *= (jump == 2)[:, None, None]
        bank.correct(measured, noise, jump > 0, spread)
        self._taken += 1
        if faces is not None:
            first = self._ran_detector(now)
            self._age({life.id for life, _ in pairs}, now)
            self._give_birth(pairs, boxes, found, scores, first)
        state = bank.mean()
        self._state, self._before = state, now
        if n:
            self._unit = np.exp(np.clip(state[:, 1, 0].real, -5, 10))

    def _scale(self) -> Real:
        """How much each channel of each slot moves, (n, C), as a variance."""
        scale = np.broadcast_to(MOTION_GAIN, (len(self._unit), geometry.CHANNELS)).copy()
        scale[:, 0] *= self._unit**2
        return scale

    def _grow(self) -> None:
        self._unit = np.concatenate([self._unit, np.ones(self._bank.slots - len(self._unit))])

    def _ran_detector(self, now: float) -> bool:
        """Note that the detector was run; return whether for the first time in this scene."""
        first = self._ran is None
        if self._ran is not None:
            self._interval = now - self._ran
        self._ran = now
        return first

    def _noise(self, unit: float, score: float) -> float:
        """The variance of a landmark's coordinate, in pixels^2."""
        return (0.6**2 + (0.012 * unit) ** 2) / max(score, 0.3)

    def _associate(
        self, mean: Complex, variance: Real, boxes: Real, found: Complex, scores: Real
    ) -> list[tuple[_Life, int]]:
        lives = [life for life in self._lives if not life.ended]
        if not lives:
            return []
        slots = [life.slot for life in lives]
        now = self._clock.now
        lost = np.array([now - life.times[-1] for life in lives])
        here = mean[slots]
        sizes = self._unit[slots] * np.exp((here[:, 6].real + here[:, 6].imag) / 2)
        found_sizes = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clip(1e-3)
        near, growth = association.distances(here[:, 0], sizes, found[:, 0], found_sizes)
        reach = 0.5 + np.minimum(3 * np.sqrt(variance[slots, 0]) / sizes + 0.5 * lost, 1.5)
        cost = near + 0.7 * growth + np.array([0 if life.confirmed else 0.3 for life in lives])[:, None]
        gated = np.where((near < reach[:, None]) & (growth < 0.5 + 0.3 * lost[:, None]), cost, association.FAR)
        confident = scores >= self.options.confident
        rows, columns = np.arange(len(lives)), np.flatnonzero(confident)
        pairs = association.assign(gated, rows, columns)
        if len(pairs) < len(lives):
            left = np.setdiff1d(rows, [i for i, _ in pairs])
            fresh = left[lost[left] <= self._bridge()]
            weak = np.flatnonzero(~confident)
            more = association.assign(gated, fresh, weak)
            # A face may jump: a knock against the camera, an edit within the shot.
            left = np.setdiff1d(fresh, [i for i, _ in more])
            leaps = np.where((near < 4) & (growth < 0.3), cost, association.FAR)
            pairs += more + association.assign(leaps, left, np.setdiff1d(columns, [j for _, j in pairs]))
        return [(lives[i], j) for i, j in pairs]

    def _measure(
        self,
        life: _Life,
        mean: Complex,
        variance: Real,
        found: Complex,
        landmarks: Complex,
        scores: Real,
        d: int,
        measured: Complex,
        noise: Real,
        jump: np.ndarray,
    ) -> None:
        """Decide what a detection says of a face: where it is, that it jumped, or nothing."""
        s, now = life.slot, self._clock.now
        life.times.append(now)
        life.scores.append(float(scores[d]))
        unit = float(self._unit[s])
        r = self._noise(unit, scores[d])
        z = found[d].copy()
        z[1] = _near(z[1], mean[s, 1])
        R = r * NOISE_GAIN / np.where(np.arange(geometry.CHANNELS) == 0, 1, unit**2)
        off = np.abs(z - mean[s]) / np.sqrt(variance[s] + R)
        trusted = True
        if off[2:5].max() > 4 and life.doubts < 3:
            box, predicted = geometry.decode(mean[s])
            points, share = geometry.robust(predicted, landmarks[d], float(np.sqrt(r)))
            trusted = share > 0.5
            z[:5] = geometry.encode(box, points)[:5]
            z[1] = _near(z[1], mean[s, 1])
            R = R / max(share, 0.2)
            off = np.abs(z - mean[s]) / np.sqrt(variance[s] + R)
        if life.jumped is not None and self._reconsider(life, z, R):
            off[:2] = 0
        leaps = max(off[0], off[1]) > 6 and abs(z[0] - mean[s, 0]) + unit * abs(z[1] - mean[s, 1]) > 0.1 * unit
        if leaps and trusted:
            trusted = life.doubts >= 3 or abs(z[5] - mean[s, 5]) < 0.4
            if trusted:
                if life.jumped is None:
                    life.jumped = (self._taken, self._before, self._state[s, 0].copy())
                jump[s] = 1
        if not trusted:
            life.doubts += 1
            return
        if life.doubts >= 3:
            jump[s] = 2
        life.doubts = 0
        measured[s], noise[s] = z, R

    def _reconsider(self, life: _Life, z: Complex, R: Real) -> bool:
        """A face that jumped and is back where it came from never jumped: take those detections back."""
        assert life.jumped is not None
        step, since, (place, velocity, acceleration) = life.jumped
        passed = self._clock.now - since
        if passed > max(0.17, 3.2 * self._interval):
            life.jumped = None
            return False
        unit = float(self._unit[life.slot])
        expected = place + velocity * passed + acceleration * passed**2 / 2
        back = abs(z[0] - expected)
        if back < 0.35 * abs(z[0] - self._state[life.slot, 0, 0]) and back < (0.1 + 2 * passed) * unit:
            self._bank.retract(life.slot, self._taken - step)
            life.jumped = None
            return True
        return False

    def _age(self, seen: set[int], now: float) -> None:
        for life in self._lives:
            if life.ended:
                continue
            life.runs += 1
            if life.id in seen:
                long_enough = now - life.times[0] >= self.options.confirm and 2 * len(life.times) >= life.runs
                life.confirmed = life.confirmed or long_enough
            else:
                limit = self.options.memory if life.confirmed else max(0.3, 2.2 * self._interval)
                life.ended = now - life.times[-1] > limit

    def _give_birth(
        self, pairs: list[tuple[_Life, int]], boxes: Real, found: Complex, scores: Real, first: bool
    ) -> None:
        taken = [d for _, d in pairs]
        new = [d for d in range(len(scores)) if d not in taken and scores[d] >= self.options.confident]
        if new and taken:
            twice = association.duplicates(boxes[new], boxes[taken])
            new = [d for d, again in zip(new, twice, strict=True) if not again]
        for d in new:
            slot = self._bank.claim()
            self._grow()
            unit = float(np.exp(found[d, 1].real))
            self._unit[slot] = unit
            spread = self._scale()[slot, :, None] * SPREAD
            R = self._noise(unit, scores[d]) * NOISE_GAIN
            R[1:] /= unit**2
            spread[:, 0] = R
            self._bank.start(slot, found[d], spread)
            life = _Life(self._next_id, slot, first, 1.0 if first else 0.0, [self._clock.now], [float(scores[d])])
            self._next_id += 1
            self._lives.append(life)

    # What is shown

    def _bridge(self) -> float:
        """The longest time without a detection that is bridged as if nothing had happened."""
        return max(0.25, 2.2 * self._interval)

    def _emit(self) -> Final:
        lag, pending = self.options.lag, self._pending
        now = pending[-1].clock
        if lag and now - pending[0].clock < 1.5 * lag:
            return []
        return self._hand_out(sum(now - p.clock >= lag for p in pending), over=False)

    def _hand_out(self, count: int, over: bool) -> Final:
        bank, out = self._bank, []
        if count and len(self._pending) > 1:
            values = bank.smooth(len(bank.steps) - len(self._pending), count)
        else:
            values = self._state[None, ..., 0] if count else np.empty((0, bank.slots, geometry.CHANNELS))
        boxes, landmarks = geometry.decode(values)
        points = np.stack([landmarks.real, landmarks.imag], -1).astype(np.float32)
        boxes = boxes.astype(np.float32)
        now = self._clock.now if self._pending else 0.0
        for k in range(count):
            picture = self._pending.popleft()
            tracks = []
            for life in self._lives:
                i = bisect_right(life.times, picture.clock) - 1
                if i < 0 or not life.confirmed:
                    continue
                life.shown = self._strength(life, i, picture.clock, now, over)
                if life.shown > 0:
                    face = Face(boxes[k, life.slot], points[k, life.slot], life.scores[i])
                    tracks.append(Track(life.id, face, life.shown, life.times[i] == picture.clock))
            self._shown = picture.clock
            out.append((picture.time, tracks))
        self._forget()
        return out

    def _strength(self, life: _Life, i: int, clock: float, now: float, over: bool) -> float:
        """Fade in from the first picture, out towards the last, across a gap too long to bridge; never faster."""
        bridge, fade = self._bridge(), self.options.fade
        times = life.times
        while i + 1 < len(times) and times[i + 1] - times[i] <= bridge:
            i += 1
        open_end = i + 1 == len(times) and (over or now - times[i] <= bridge)
        wanted = 1.0 if open_end else (times[i] - clock) / fade if fade else float(clock <= times[i])
        step = (clock - self._shown) / fade if fade and self._shown is not None else 1.0
        return min(max(min(max(wanted, 0.0), 1.0), life.shown - step), life.shown + step)

    def _forget(self) -> None:
        """Let go of what no picture still pending needs."""
        keep = len(self._pending) + 8
        del self._bank.steps[:-keep]
        oldest = self._pending[0].clock if self._pending else self._clock.now
        for life in [life for life in self._lives if life.ended]:
            if life.shown == 0 and life.times[-1] < oldest:
                self._bank.release(life.slot)
                self._lives.remove(life)
        for life in self._lives:
            first = max(bisect_right(life.times, oldest) - 2, 0)
            if first > 64:
                del life.times[:first], life.scores[:first]


def _near(angle: complex, reference: complex) -> complex:
    """Return log b with its roll within half a turn of the reference's."""
    turns = round((reference.imag - angle.imag) / (2 * np.pi))
    return complex(angle.real, angle.imag + 2 * np.pi * turns)
