"""Several live sequences, each followed by itself, and their faces restored in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import av

from gpenvid.enhancer import Enhancer
from gpenvid.faces.scene import SceneDetector
from gpenvid.faces.steady import FlickerFilter
from gpenvid.faces.track import Tracker
from gpenvid.follow import Follower
from gpenvid.options import TrackerOptions
from gpenvid.streaming.pace import Effort
from gpenvid.types import Track


class Following:
    """What is known of one sequence: who is where, when the detector last looked, how faces flickered."""

    def __init__(self, options: TrackerOptions) -> None:
        """options: with lag 0, because a live picture can't wait for later ones."""
        if options.lag:
            raise ValueError(f"lag {options.lag}: a live sequence has no look-ahead")
        self.tracker, self.scene = Tracker(options), SceneDetector()
        self.steady = FlickerFilter(options.stability)
        self.every, self.rest = options.detect_every, 0


@dataclass(frozen=True, slots=True)
class Task:
    """A picture to be enhanced in place. Those of the same sequence come in the order of their times."""

    following: Following
    frame: av.VideoFrame
    effort: Effort


class Together:
    """Enhances pictures of any number of sequences at once. One call at a time."""

    def __init__(self, enhancer: Enhancer) -> None:
        self.enhancer = enhancer
        self._follower = Follower(enhancer.options, enhancer.detector, enhancer.counts, enhancer.clock)

    def enhance(self, tasks: Sequence[Task]) -> None:
        """Find, follow and restore the faces of all these pictures: one batch for each network."""
        clock = self.enhancer.clock
        pictures = [self._follower.picture(task.frame) for task in tasks]
        cuts, look = [], []
        for task, picture in zip(tasks, pictures, strict=True):
            following = task.following
            with clock("track"):
                cuts.append(following.scene.update(picture.small, picture.seconds))
            if cuts[-1]:
                following.rest = 0
            look.append(following.rest == 0)
            following.rest = (following.rest + 1) % max(following.every, task.effort.detect_every)
        found = iter(self._follower.detect([picture for picture, wanted in zip(pictures, look, strict=True) if wanted]))
        followed = []
        for task, picture, wanted, cut in zip(tasks, pictures, look, cuts, strict=True):
            self.enhancer.counts.cuts += cut
            faces = next(found) if wanted else None
            with clock("track"):
                final = task.following.tracker.update(faces, picture.seconds, cut=cut, size=picture.size)
            ((_, tracks),) = final
            followed.append((picture, _largest(tracks, task.effort.faces), task.following.steady))
        self.enhancer.together(followed)


def _largest(tracks: list[Track], most: int | None) -> list[Track]:
    if most is None or len(tracks) <= most:
        return tracks
    return sorted(tracks, key=lambda track: -track.face.size)[:most]
