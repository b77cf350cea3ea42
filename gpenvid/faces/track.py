"""Following faces over time: who is who, where exactly, and how much of each is shown."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from gpenvid.faces.association import associate, duplicates
from gpenvid.faces.geometry import Index, Sightings, sight
from gpenvid.faces.life import ASIDE, PAUSE, REVIEWS, Life, displaced, kin
from gpenvid.faces.pose import Poses
from gpenvid.faces.recursion import look_back
from gpenvid.faces.scene import LONGEST_GAP
from gpenvid.faces.selection import Real, Selection
from gpenvid.native import warn_of_compiling
from gpenvid.options import TrackerOptions
from gpenvid.types import Face, Track

Time = float | Fraction
Final = list[tuple[Time, list[Track]]]

_CONTEXT = 8
"""So many steps are kept beyond what is pending, for a jump to be taken back."""


_NONE: Index = np.zeros(0, np.intp)


class _Picture(NamedTuple):
    time: Time
    clock: float


class Clock:
    """Turns presentation times, which may stand still or go backwards, into a clock that never does."""

    def __init__(self) -> None:
        """Start at 0."""
        self.now, self.irregular = 0.0, 0
        self._step = 0.04
        self._last: float | None = None

    def tick(self, time: Time) -> float:
        """Return the seconds since the picture before; time is that of the new picture."""
        value = float(time)
        last, self._last = self._last, value
        if last is None:
            return 0.0
        dt = value - last
        if dt > 0:
            self._step = dt
        else:
            self.irregular += 1
            dt = 1e-3 if dt == 0 else self._step
        self.now += dt
        return dt


class Tracker:
    """Follows faces through pictures, and says where each is when it knows.

    With a lag, a picture is handed out once the tracker has seen `lag` seconds more: positions then are those of a
    fixed-lag Rauch-Tung-Striebel smoother, and faces are shown from their first picture on. Without, at once.
    """

    def __init__(self, options: TrackerOptions | None = None) -> None:
        """Make a tracker that has seen nothing."""
        warn_of_compiling(look_back, "the tracker", "ten seconds")
        self.options = options or TrackerOptions()
        self._clock = Clock()
        self._selection = Selection(self.options)
        self._size: tuple[int, int] | None = None
        self._next_id = 1
        self._interval = 0.0  # seconds between runs of the detector
        self._reset()

    @property
    def irregular(self) -> int:
        """How many pictures did not come later than the one before."""
        return self._clock.irregular

    def update(
        self, faces: list[Face] | None, time: Time, cut: bool = False, size: tuple[int, int] | None = None
    ) -> Final:
        """Take in the next picture; return the pictures that became final, in order.

        faces: what was detected in it, or None if the detector was not run: positions are predicted, or interpolated.
        time: its presentation time in seconds. cut: it starts a new scene, as a picture does
        that comes later than LONGEST_GAP. size: its width and height, which the choice
        of the central face needs to know once.
        Over all calls and the last `flush`, every picture is returned exactly once.
        """
        dt = self._clock.tick(time)
        if dt > LONGEST_GAP:
            cut, dt = True, 0.0
        done = self.cut() if cut else []
        self._size = size or self._size
        self._pending.append(_Picture(time, self._clock.now))
        if not (self._lives or self._gone or any(face.score >= self.options.confident for face in faces or ())):
            return done + self._pass_by(faces is not None)
        self._poses.predict(dt)
        seen = sight(faces or [])
        lives, slots, which = self._associate(seen)
        self._poses.take(slots, seen, which)
        if faces is not None:
            self._account(list(zip(lives, which.tolist(), strict=True)), seen, faces)
        return done + self._emit()

    def cut(self) -> Final:
        """End the scene: return all pictures that are pending, and forget all faces."""
        done = self._hand_out(len(self._pending))
        self._reset()
        return done

    def flush(self) -> Final:
        """End the stream: return all pictures that are pending."""
        return self.cut()

    def _reset(self) -> None:
        self._poses = Poses()
        self._lives: list[Life] = []
        self._gone: list[Life] = []
        self._pending: deque[_Picture] = deque()
        self._shown: float | None = None  # the clock of the last picture handed out
        self._ran: float | None = None  # the clock of the last run of the detector, in this scene

    def _pass_by(self, looked: bool) -> Final:
        """Nobody is there: no later picture can change that, so all that is pending is final. Costs next to nothing."""
        if looked:
            self._note_run()
        if self._poses.bank.slots:
            self._poses = Poses()
        done: Final = [(picture.time, []) for picture in self._pending]
        self._pending.clear()
        self._shown = self._clock.now
        return done

    @property
    def _bridge(self) -> float:
        """The longest time without a detection that is bridged as if nothing had happened."""
        return max(0.25, 2.2 * self._interval)

    def _associate(self, seen: Sightings) -> tuple[list[Life], Index, Index]:
        """Return whose faces were seen, (n,), their slots and which detections they are."""
        lives, poses = self._lives, self._poses
        if not lives or not len(seen):
            return [], _NONE, _NONE
        slots, certain = np.array([life.slot for life in lives]), np.array([life.confirmed for life in lives])
        expected, odd = poses.outlook(slots, certain, seen, self._bridge)
        faces, which, off = associate(
            expected, seen, odd, seen["score"] >= self.options.confident, lambda: poses.alike(slots, seen)
        )
        met, pause = [lives[i] for i in faces.tolist()], max(PAUSE, 1.5 * self._interval)
        for life, aside, lost in zip(met, off.tolist(), expected["lost"][faces].tolist(), strict=True):
            if aside > ASIDE or lost > pause:
                life.doubts.append(len(life.times))
        return met, slots[faces], which

    def _account(self, pairs: list[tuple[Life, int]], seen: Sightings, faces: list[Face]) -> None:
        """Book a run of the detector: who was seen, who is gone, who is new."""
        now, first = self._clock.now, self._ran is None
        self._note_run()
        for life in self._lives:
            life.runs += 1
        for life, d in pairs:
            life.note(now, faces[d], seen[d])
            if not life.confirmed:
                life.confirmed = now - life.times[0] >= self.options.confirm and 2 * len(life.times) >= life.runs
        if len(pairs) < len(self._lives):
            doubtful = max(0.3, 2.2 * self._interval)
            for life in list(self._lives):
                if now - life.times[-1] > (self.options.memory if life.confirmed else doubtful):
                    self._lives.remove(life)
                    self._gone.append(life)
        if len(pairs) < len(seen):
            self._give_birth([d for _, d in pairs], seen, faces, first)
        self._think_again(pairs)

    def _think_again(self, pairs: list[tuple[Life, int]]) -> None:
        """See whether a face was taken for another one, and whether a new one is one that was lost or displaced."""
        split = False
        for life in [life for life, _ in pairs if life.doubts]:
            turn = life.takeover()
            if turn is not None:
                self._split(life, turn)
                split = True
        for life in [life for life in self._lives if life.fresh and life.confirmed]:
            if len(life.times) in REVIEWS or (split and len(life.times) > REVIEWS[0]):
                life.fresh = len(life.times) < REVIEWS[-1]
                others = [other for other in self._lives if other.confirmed and other is not life]
                before = kin([other for other in others if other.seen_last < life.times[0]], life)
                if before is None and (found := displaced(others, life)):
                    before = self._split(*found)
                if before:
                    life.id, life.fresh = before.id, False
                    before.until = life.times[0]
                    self._lives.remove(before)
                    self._gone.append(before)

    def _split(self, life: Life, turn: int) -> Life:
        """From detection number `turn` on a life is somebody else's, who gets a number of his own; return the first."""
        since = life.times[turn]
        before, after = life.past(max(turn - 16, 0), turn), life.past(turn, len(life.times))
        earlier = Life(
            life.id, 0, True, life.shown, life.times[:turn], life.faces[:turn], life.seen[:turn].copy(), life.runs
        )
        earlier.fresh = False
        earlier.slot = self._poses.split(life.slot, self._clock.now - since, before, after)
        if self._shown is not None and self._shown >= since:
            earlier.shown = 0.0
        life.forget(turn)
        life.doubts, life.sudden = [], []
        life.id, life.fresh = self._next_id, True
        self._next_id += 1
        self._lives.append(earlier)
        return earlier

    def _note_run(self) -> None:
        """Learn how often the detector runs."""
        if self._ran is not None:
            self._interval = self._clock.now - self._ran
            self._poses.patience = max(0.17, 3.2 * self._interval)
        self._ran = self._clock.now

    def _give_birth(self, taken: list[int], seen: Sightings, faces: list[Face], first: bool) -> None:
        new = [d for d in range(len(seen)) if d not in taken and seen["score"][d] >= self.options.confident]
        if new and taken:
            twice = duplicates(seen["box"][new], seen["box"][taken])
            new = [d for d, again in zip(new, twice, strict=True) if not again]
        for d in new:
            slot = self._poses.start(seen, d)
            shown = 1.0 if first else 0.0
            self._lives.append(
                Life(self._next_id, slot, first, shown, [self._clock.now], [faces[d]], seen[d : d + 1].copy())
            )
            self._next_id += 1

    def _emit(self) -> Final:
        lag, pending = self.options.lag, self._pending
        now = pending[-1].clock
        if lag and now - pending[0].clock < 1.5 * lag:
            return []
        return self._hand_out(sum(now - p.clock >= lag for p in pending))

    def _hand_out(self, count: int) -> Final:
        if not count:
            return []
        boxes, landmarks = self._poses.smooth(len(self._poses.bank.steps) - len(self._pending), count)
        pictures = [self._pending.popleft() for _ in range(count)]
        out: Final = [(picture.time, []) for picture in pictures]
        clocks = [picture.clock for picture in pictures]
        lives = [life for life in self._lives + self._gone if life.confirmed]
        present = [(life, life.last_seen(clocks)) for life in sorted(lives, key=lambda life: life.id)]
        gates = self._selection.gates(boxes, landmarks)
        if self.options.faces != "all":
            self._choose(present, boxes, gates)
        open_to, bridge = gates.T.tolist(), self._bridge
        for life, last in present:
            self._show(life, last, clocks, bridge, boxes, landmarks, open_to[life.slot], out)
        self._shown = clocks[-1]
        self._forget()
        return out

    def _choose(self, present: list[tuple[Life, list[int]]], boxes: Real, gates: Real) -> None:
        """Close the gates (count, slots) to whom the options don't choose."""
        for k, closed in enumerate(gates):
            here = [life for life, last in present if last[k] >= 0]
            slots = [life.slot for life in here]
            chosen = self._selection.chosen([life.id for life in here], boxes[k, slots], self._size)
            closed[[slot for slot, choice in zip(slots, chosen, strict=True) if not choice]] = 0

    def _show(
        self,
        life: Life,
        last: list[int],
        clocks: list[float],
        bridge: float,
        boxes: Real,
        landmarks: Real,
        gates: list[float],
        out: Final,
    ) -> None:
        """Add a face's tracks to the pictures of those times, as far as it is to be shown."""
        slot, fade, times = life.slot, self.options.fade, life.times
        before, end, stays, shown = self._shown, -1, False, life.shown
        for k, i in enumerate(last):
            clock = clocks[k]
            step = (clock - before) / fade if fade and before is not None else 1.0
            before = clock
            if i < 0:
                continue
            if i > end:
                end = i if i + 1 == len(times) else life.end(i, bridge)
                stays = life.stays(end, self._clock.now, bridge)
            wanted = gates[k] if stays else min(life.fading(end, clock, fade), gates[k])
            if wanted != shown:
                shown = max(min(wanted, shown + step), 0.0, shown - step)
            if shown > 0:
                raw, detected = life.faces[i], times[i] == clock
                face = Face(boxes[k, slot], landmarks[k, slot], raw.score)
                out[k][1].append(Track(life.id, face, shown, detected, raw if detected else None))
        life.shown = shown

    def _forget(self) -> None:
        """Let go of what no picture still pending needs."""
        del self._poses.bank.steps[: -(len(self._pending) + _CONTEXT)]
        oldest = self._pending[0].clock if self._pending else np.inf
        for life in list(self._gone):
            if life.times[-1] < oldest and not (life.confirmed and life.shown):
                self._poses.release(life.slot)
                self._gone.remove(life)
        for life in self._lives:
            if len(life.times) > 256:
                spare = max(bisect_right(life.times, oldest) - 32, 0)
                life.forget(spare)
