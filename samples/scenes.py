"""The two clean scenes, picture by picture: a studio with a film camera, a lobby with a fixed camera.

A scene knows its size, its pictures' times in seconds, and `picture(k)`, the clean RGB picture k. Every motion is part
of the clean scene, the film's weave in its gate included, so a degraded picture and its original agree in geometry.
"""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
from portraits import Pose, astronaut, hopper, render, smoothstep

SCALE = 2  # scenes are drawn this much larger and averaged down


def wander(t: float, seed: int, period: float) -> float:
    """Smooth aimless motion in about -1 to 1: four sines of unrelated periods around `period` seconds."""
    rng = np.random.default_rng((7, seed))
    rates = 2 * np.pi / (period * np.array((1.9, 1.0, 0.61, 0.37)) * rng.uniform(0.9, 1.1, 4))
    return float((np.array((0.55, 0.45, 0.2, 0.08)) * np.sin(rates * t + rng.uniform(0, 2 * np.pi, 4))).sum())


def blink(t: float, times: tuple[float, ...]) -> float:
    """How far the lids are closed at t, when blinks start at `times`: 90 ms down, 50 ms shut, 170 ms up."""
    return max(float(smoothstep(t, at, at + 0.09) * smoothstep(t, at + 0.31, at + 0.14)) for at in times)


def speech(t: float, start: float, end: float) -> float:
    """How far the mouth is open: about four uneven syllables a second between start and end."""
    syllables = np.sin(2 * np.pi * 2.1 * t + 1.2 * np.sin(2.7 * t)) ** 2 * (0.65 + 0.35 * np.sin(5.3 * t + 1))
    return float(syllables * smoothstep(t, start, start + 0.2) * smoothstep(t, end, end - 0.25))


def cloud(shape: tuple[int, int], cell: float, seed: int) -> np.ndarray:
    """Smooth noise (H, W) of unit deviation and features of about `cell` pixels."""
    rng = np.random.default_rng((11, seed))
    small = rng.normal(size=(int(shape[0] / cell) + 4, int(shape[1] / cell) + 4)).astype(np.float32)
    large = cv2.resize(small, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)[: shape[0], : shape[1]]
    return large / large.std()


def _down(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(np.clip(picture, 0, 255), size, interpolation=cv2.INTER_AREA)


class Film:
    """A woman in uniform before a studio backdrop, speaking; 16 pictures a second on gray film."""

    size = (480, 360)
    rate, tick = 16, Fraction(1, 16)
    times = tuple(Fraction(k, 16) for k in range(72))

    def __init__(self) -> None:
        width, height = (SCALE * (side + 40) for side in self.size)
        x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        light = 128 - 62 * np.hypot(x - 0.35, y + 0.15) ** 1.3
        paint = sum(
            cloud((height, width), cell, i) * gain for i, (cell, gain) in enumerate(((190, 9), (70, 5), (24, 2)))
        )
        self.backdrop = (light + paint).astype(np.float32)
        rng = np.random.default_rng(1895)
        jolt = rng.normal(size=(len(self.times) + 2, 2)) * (0.55, 0.8)
        self.weave = (jolt[:-2] * 0.3 + jolt[1:-1] * 0.7 + jolt[2:] * 0.25).astype(float)

    def pose(self, t: float) -> Pose:
        """Return what the head does at t seconds."""
        talk = speech(t, 0.7, 3.7)
        return Pose(
            yaw=7.5 * wander(t, 1, 2.3) + 1.0,
            pitch=3.5 * wander(t, 2, 1.5) + 1.3 * talk,
            roll=2.6 * wander(t, 3, 2.6),
            shift=(5 * wander(t, 4, 2.4), 2.5 * wander(t, 5, 1.8)),
            blink=blink(t, (0.45, 1.95, 3.6)),
            mouth=0.62 * talk,
            breath=2.0 * float(np.sin(2 * np.pi * t / 3.1)),
        )

    def picture(self, k: int) -> np.ndarray:
        """Return picture k, (360, 480, 3) uint8, gray."""
        t = float(self.times[k])
        drift = np.array((2.5 * wander(t, 6, 2.9), 1.5 * wander(t, 7, 2.2)))
        zoom = SCALE * (0.8 + 0.004 * wander(t, 8, 3))
        corner = np.array(self.size) * SCALE / 2 - zoom * np.array((264, 222)) + SCALE * (drift + self.weave[k])
        place = np.array(((zoom, 0, corner[0]), (0, zoom, corner[1])))
        full = (self.size[0] * SCALE, self.size[1] * SCALE)
        rgb, alpha = render(hopper(), self.pose(t), place, full)
        gray = rgb @ np.array((0.24, 0.55, 0.21), np.float32)  # the film sees blue a little better than an eye does
        far = SCALE * (20 - 0.5 * drift - self.weave[k])
        behind = cv2.warpAffine(
            self.backdrop,
            np.array(((1, 0, far[0]), (0, 1, far[1]))),
            full,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        picture = gray * alpha[..., 0] + behind * (1 - alpha[..., 0])
        x, y = np.meshgrid(np.linspace(-1, 1, full[0]), np.linspace(-1, 1, full[1]))
        picture = (24 + 0.84 * picture) * (1 - 0.33 * smoothstep(np.hypot(x, y), 0.6, 1.45))
        return np.repeat(np.rint(_down(picture, self.size)).astype(np.uint8)[..., None], 3, axis=2)

    def overlay(self, picture: np.ndarray, k: int) -> None:
        """Leave the picture alone: nothing is burnt into a film."""


class Lobby:
    """An astronaut who crosses a dim lobby and comes nearer; about 12 pictures a second, irregularly."""

    size = (640, 360)
    rate, tick = 12, Fraction(1, 1000)
    desk = 300  # the row where the desk in front begins

    def __init__(self) -> None:
        rng = np.random.default_rng(1963)
        steps = rng.integers(74, 94, size=69)
        steps[[17, 44]] = (167, 208)  # two moments when the recorder missed pictures
        self.times = tuple(Fraction(int(ms), 1000) for ms in np.concatenate(([0], np.cumsum(steps)))[:66])
        self.room, self.front = self._build()

    def _build(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw the room (H, W, 3) and the mask (H, W, 1) of the desk, which hides the walker's lower half."""
        width, height = self.size
        room = np.zeros((height * SCALE, width * SCALE, 3), np.float32)

        def shape(points: list[tuple[float, float]], colour: tuple[float, float, float]) -> None:
            corners = np.array(points) * SCALE * 16
            cv2.fillPoly(
                room, [np.rint(corners).astype(np.int32)], colour, cv2.LINE_AA if room.dtype == np.uint8 else 8, 4
            )

        back = ((230, 70), (450, 70), (450, 215), (230, 215))  # the far wall, clockwise from its top left
        shape([(0, 0), (width, 0), back[1], back[0]], (92, 94, 92))
        shape([(0, 0), back[0], back[3], (0, height)], (104, 106, 98))
        shape([(width, 0), (width, height), back[2], back[1]], (118, 116, 104))
        shape([(0, height), back[3], back[2], (width, height)], (84, 78, 72))
        shape(list(back), (128, 126, 112))
        for i in range(-14, 30):  # floor tiles
            far, near = 230 + 220 * (i + 0.5) / 12, -520 + 1680 * (i + 0.5) / 12
            cv2.line(room, (int(far * SCALE), 215 * SCALE), (int(near * SCALE), height * SCALE), (62, 58, 54), 2)
        for depth in 1.12 ** np.arange(0, 9):
            row = int((140 + 75 * depth) * SCALE)
            cv2.line(room, (0, row), (width * SCALE, row), (62, 58, 54), 2)
        shape([(0, 0), back[0], back[3], (0, height)], (104, 106, 98))
        shape([(width, 0), (width, height), back[2], back[1]], (118, 116, 104))
        shape([(0, 285), (230, 200), (230, 215), (0, 360)], (70, 62, 56))  # skirting boards
        shape([(640, 285), (450, 200), (450, 215), (640, 360)], (74, 66, 60))
        shape([(296, 106), (352, 106), (352, 215), (296, 215)], (78, 52, 38))  # far door
        shape([(301, 111), (347, 111), (347, 212), (301, 212)], (104, 70, 48))
        shape([(334, 116), (342, 116), (342, 158), (334, 158)], (150, 160, 156))
        shape([(40, 60), (118, 84), (118, 288), (40, 330)], (66, 74, 82))  # side door with a window
        shape([(48, 72), (110, 90), (110, 282), (48, 318)], (86, 98, 108))
        shape([(62, 96), (100, 105), (100, 176), (62, 180)], (46, 54, 60))
        shape([(520, 110), (596, 90), (596, 196), (520, 190)], (126, 92, 58))  # notice board
        for i, (x, y) in enumerate(((528, 116), (552, 112), (574, 108), (530, 154), (556, 150), (578, 156))):
            tint = (176 - 9 * i, 172 - 5 * (i % 3) * 4, 140 + 12 * (i % 4))
            shape([(x, y), (x + 16, y - 3), (x + 16, y + 26), (x, y + 26)], tint)
        for x0, x1, y0, y1, spread in ((250, 430, 8, 22, 34), (276, 404, 40, 48, 16)):  # ceiling lights
            shape([(x0 - spread / 2, y0), (x1 + spread / 2, y0), (x1, y1), (x0, y1)], (236, 240, 232))
        shape([(400, 98), (432, 98), (432, 112), (400, 112)], (40, 110, 66))  # exit sign
        for y in range(76, 215, 1):
            room[y * SCALE : (y + 1) * SCALE, 230 * SCALE : 450 * SCALE] *= 1.0 - 0.12 * (y - 76) / 139
        desk = np.zeros(room.shape[:2], np.float32)
        desk[self.desk * SCALE :] = 1
        shape([(0, self.desk), (width, self.desk), (width, self.desk + 9), (0, self.desk + 9)], (132, 104, 78))
        shape([(0, self.desk + 9), (width, self.desk + 9), (width, height), (0, height)], (72, 52, 40))
        for x in range(0, width + 1, 80):
            shape([(x, self.desk + 11), (x + 2, self.desk + 11), (x + 2, height), (x, height)], (46, 32, 26))
        grit = cloud(room.shape[:2], 3, 5) * 2.5 + cloud(room.shape[:2], 40, 6) * 3.0
        return room + grit[..., None], desk[..., None]

    def pose(self, t: float) -> Pose:
        """Return what the head does at t seconds; the eyes look about."""
        return Pose(
            yaw=9 * wander(t, 21, 2.2) - 2,
            pitch=3 * wander(t, 22, 1.7),
            roll=2.2 * wander(t, 23, 2.1),
            shift=(2.5 * wander(t, 24, 1.5), 1.5 * float(np.sin(2 * np.pi * 1.7 * t))),
            blink=blink(t, (0.8, 2.6, 4.5)),
            mouth=0.5 * speech(t, 2.9, 4.6),
        )

    def picture(self, k: int) -> np.ndarray:
        """Return picture k, (360, 640, 3) uint8, without the overlay."""
        t = float(self.times[k])
        way = t / 5.6
        zoom = SCALE * (0.4 + 0.13 * way**1.2)
        stride = np.array((2.2 * np.sin(2 * np.pi * 0.85 * t), 1.8 * np.cos(2 * np.pi * 1.7 * t)))
        eyes = SCALE * (np.array((470 - 250 * way, 138 + 22 * way)) + stride)
        lean = np.deg2rad(1.1 * np.sin(2 * np.pi * 0.85 * t + 0.6))
        turn = zoom * np.array(((np.cos(lean), -np.sin(lean)), (np.sin(lean), np.cos(lean))))
        place = np.column_stack((turn, eyes - turn @ np.array((226, 103))))
        rgb, alpha = render(astronaut(), self.pose(t), place, (self.size[0] * SCALE, self.size[1] * SCALE))
        light = 0.74 + 0.1 * np.cos((eyes[0] / SCALE - 340) / 110)  # brighter below the lamps
        shadow = cv2.GaussianBlur(alpha, (0, 0), 14 * SCALE)[..., None]
        behind = self.room * (1 - 0.3 * shadow * (1 - self.front))
        cover = alpha * (1 - self.front)
        picture = 0.85 * (behind * (1 - cover)) + cover * rgb * light * np.array((0.86, 0.9, 0.86), np.float32)
        return np.rint(_down(picture, self.size)).astype(np.uint8)

    def overlay(self, picture: np.ndarray, k: int) -> None:
        """Burn the recorder's clock into the picture, which has passed the sensor already."""
        seconds = 12 + int(self.times[k])
        cv2.rectangle(picture, (10, 9), (214, 31), (18, 18, 18), cv2.FILLED)
        text = f"CAM 03  23-07-1999  04:31:{seconds:02d}"
        cv2.putText(picture, text, (16, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (226, 228, 224), 1, cv2.LINE_AA)


def portrait_still() -> np.ndarray:
    """Return the clean still: the astronaut's portrait as it is, (512, 512, 3) uint8."""
    import skimage.data

    return skimage.data.astronaut()
