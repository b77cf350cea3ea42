"""A pool of composed scenes on disk: made once, drawn many times, each draw mirrored, shifted and tinted anew."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from gpenvid.faces.closeup import MIRROR
from gpenvid.train.scenes import Composer, Scene

CROWD = 40
"""Most faces whose labels a scene may hold."""
SHIFT = 12
"""Most pixels by which a draw moves the picture, so that faces fall on other places of the anchor grid."""


class ScenePool:
    """Scenes 0 to count - 1 of one size, composed at the first demand and kept in memory-mapped files.

    What `draw` returns depends on the composer's seed and the arguments alone, never on what was cached before;
    several processes may fill the same folder.
    """

    def __init__(self, folder: Path, composer: Composer, size: int, count: int) -> None:
        self.composer, self.size, self.count = composer, size, count
        folder.mkdir(parents=True, exist_ok=True)
        key = {"seed": composer.seed, "portraits": len(composer.portraits), "size": size, "count": count}
        note = folder / f"pool{size}.json"
        fresh = not note.exists() or json.loads(note.read_text()) != key
        shapes = {"pictures": (size, size, 3), "labels": (CROWD, 15), "filled": ()}
        types = {"pictures": np.uint8, "labels": np.float32, "filled": np.uint8}
        self._maps = {
            name: np.lib.format.open_memmap(
                folder / f"{name}{size}.npy", mode="w+" if fresh else "r+", dtype=types[name], shape=(count, *shape)
            )
            if fresh
            else np.lib.format.open_memmap(folder / f"{name}{size}.npy", mode="r+")
            for name, shape in shapes.items()
        }
        note.write_text(json.dumps(key))

    def scene(self, number: int) -> Scene:
        """Return scene `number`, composing it if nobody has yet."""
        if not self._maps["filled"][number]:
            self._store(number, self.composer.scene(number, self.size))
        labels = self._maps["labels"][number]
        used = labels[labels[:, 14] != 0]
        return Scene(self._maps["pictures"][number], used[:, :4], used[:, 4:14].reshape(-1, 5, 2), used[:, 14] > 0)

    def fill(self, numbers: Iterable[int]) -> None:
        """Compose those of the scenes that are missing."""
        for number in numbers:
            if not self._maps["filled"][number]:
                self._store(number, self.composer.scene(number, self.size))

    def draw(self, rng: np.random.Generator, limit: int) -> Scene:
        """Draw one of the first `limit` scenes, varied: mirrored half the time, shifted, tinted."""
        scene = self.scene(int(rng.integers(min(limit, self.count))))
        dx, dy = (int(value) for value in rng.integers(-SHIFT, SHIFT + 1, 2))
        picture = cv2.copyMakeBorder(scene.picture, SHIFT, SHIFT, SHIFT, SHIFT, cv2.BORDER_REPLICATE)
        picture = picture[SHIFT - dy : SHIFT - dy + self.size, SHIFT - dx : SHIFT - dx + self.size]
        move = np.array([dx, dy], np.float32)
        boxes, landmarks = scene.boxes + np.tile(move, 2), scene.landmarks + move
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
            boxes = np.stack([self.size - 1 - boxes[:, 2], boxes[:, 1], self.size - 1 - boxes[:, 0], boxes[:, 3]], 1)
            landmarks = np.stack([self.size - 1 - landmarks[..., 0], landmarks[..., 1]], -1)[:, MIRROR]
        gain, lift = rng.uniform(0.85, 1.15, 3) * rng.uniform(0.8, 1.2), rng.uniform(-20, 20)
        table = np.clip(np.arange(256)[:, None] * gain + lift, 0, 255).astype(np.uint8)
        tinted = cv2.LUT(np.ascontiguousarray(picture), table[None])
        return Scene(np.asarray(tinted, np.uint8), boxes, landmarks, scene.counts)

    def _store(self, number: int, scene: Scene) -> None:
        count = min(len(scene.boxes), CROWD)
        rows = np.zeros((CROWD, 15), np.float32)
        rows[:count, :4], rows[:count, 4:14] = scene.boxes[:count], scene.landmarks[:count].reshape(-1, 10)
        rows[:count, 14] = np.where(scene.counts[:count], 1, -1)
        self._maps["pictures"][number] = scene.picture
        self._maps["labels"][number] = rows
        self._maps["filled"][number] = 1
