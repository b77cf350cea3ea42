"""Two public-domain portraits as heads that can turn, nod, blink and speak.

Each portrait is cut out once, and then warped backwards: a pose is turned into a smooth displacement over the
portrait (a dome with a nose, turned by a few degrees), lids and lips are laid over it, and a picture is sampled from
the portrait in one interpolation. All coordinates are pixels of the original portrait, x to the right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

PAD = 60  # the cut-out's canvas is larger than the portrait by this much on the left and on the right


@dataclass(frozen=True)
class Pose:
    """Angles in degrees, shift in portrait pixels, blink and mouth from 0 (at rest) to 1, breath in pixels."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    blink: float = 0.0
    mouth: float = 0.0
    breath: float = 0.0


@dataclass(frozen=True)
class Arc:
    """A parabola from one corner to another which rises by `sag` pixels (down is positive) at its middle."""

    start: tuple[float, float]
    end: tuple[float, float]
    sag: float

    def at(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return y and the parabola's own profile (1 in the middle, 0 at and beyond the corners) at x."""
        along = (x - self.start[0]) / (self.end[0] - self.start[0])
        profile = np.clip(4 * along * (1 - along), 0, 1)
        along = np.clip(along, 0, 1)
        return self.start[1] + along * (self.end[1] - self.start[1]) + self.sag * profile, profile


@dataclass(frozen=True)
class Portrait:
    """A traced portrait.

    rgb: (H, W, 3) float32 0 to 255; alpha: (H, W) float32 0 to 1, both on the padded canvas; landmarks: (5, 2), found
    once with facexlib's RetinaFace mobile0.25; head: centre and radii of the ellipse that moves with the head;
    eyes: per eye the upper and the lower lid; lips: where the mouth opens; opening: pixels at mouth = 1.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    landmarks: np.ndarray
    head: tuple[float, float, float, float]
    eyes: tuple[tuple[Arc, Arc], ...]
    lips: Arc
    chin: float
    opening: float
    interior: tuple[float, float, float]


def smoothstep(x: Any, low: float, high: float) -> Any:
    """Cubic step from 0 at `low` to 1 at `high` (which may be the smaller)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def cut_out(rgb: np.ndarray, outline: list[tuple[int, int]]) -> np.ndarray:
    """Refine a hand-drawn outline to a soft matte (H, W) in 0 to 1 with GrabCut in a band around it."""
    shape = np.zeros(rgb.shape[:2], np.uint8)
    cv2.fillPoly(shape, [np.array(outline, np.int32)], 1)
    inside, outside = (operation(shape, np.ones((11, 11))) for operation in (cv2.erode, cv2.dilate))
    mask = np.where(shape > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    mask[inside > 0] = cv2.GC_FGD
    mask[outside == 0] = cv2.GC_BGD
    cv2.setRNGSeed(1)
    cv2.grabCut(rgb[..., ::-1].copy(), mask, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    found = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    soft = cv2.GaussianBlur(found.astype(np.float32), (0, 0), 1.6)
    return smoothstep(soft, 0.4, 0.9).astype(np.float32)  # a little inside, where no background shines through


def _portrait(rgb: np.ndarray, outline: list[tuple[int, int]], **traced: Any) -> Portrait:
    canvas = cv2.copyMakeBorder(rgb, 0, 0, PAD, PAD, cv2.BORDER_REPLICATE)
    alpha = cut_out(canvas, [(x + PAD, y) for x, y in outline])
    return Portrait(canvas.astype(np.float32), alpha, **traced)


@lru_cache(maxsize=1)
def hopper() -> Portrait:
    """Grace Hopper, from matplotlib's sample data."""
    import matplotlib.cbook

    path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    # fmt: off
    outline = [(148, 150), (150, 105), (160, 90), (172, 82), (176, 68), (190, 50), (212, 40), (220, 30), (240, 23),
               (280, 23), (300, 33), (305, 40), (330, 52), (350, 75), (353, 86), (366, 86), (370, 110), (371, 140),
               (369, 165), (365, 178), (374, 185), (376, 200), (368, 225), (362, 250), (354, 268), (360, 285),
               (352, 298), (338, 308), (331, 312), (345, 328), (380, 348), (420, 365), (460, 375), (490, 390),
               (500, 410), (508, 432), (512, 456), (516, 490), (545, 600), (10, 600), (15, 520), (25, 470),
               (32, 430), (42, 400), (60, 385), (110, 365), (170, 340), (196, 318), (202, 304), (186, 288),
               (168, 275), (161, 262), (164, 245), (158, 225), (153, 205), (153, 188), (158, 180), (150, 170)]
    # fmt: on
    return _portrait(
        cv2.imread(str(path))[..., ::-1],
        outline,
        landmarks=np.array([(225.8, 188.2), (306.4, 187.4), (267.5, 246.0), (233.4, 271.5), (301.3, 270.5)]),
        head=(265, 190, 118, 172),
        eyes=(
            (Arc((207, 193), (240, 193), -10), Arc((207, 193), (240, 193), 4)),
            (Arc((289, 191), (321, 190), -11), Arc((289, 191), (321, 190), 4)),
        ),
        lips=Arc((229, 281), (308, 279), -0.5),
        chin=328,
        opening=9,
        interior=(60, 22, 20),
    )


@lru_cache(maxsize=1)
def astronaut() -> Portrait:
    """Eileen Collins, from scikit-image's sample data."""
    import skimage.data

    # fmt: off
    outline = [(153, 75), (157, 55), (170, 42), (190, 25), (215, 17), (240, 17), (265, 25), (285, 40), (296, 60),
               (301, 85), (297, 105), (285, 125), (275, 136), (268, 134), (264, 150), (258, 165), (256, 172),
               (270, 182), (285, 195), (298, 215), (304, 235), (325, 248), (340, 262), (350, 285), (355, 310),
               (362, 340), (380, 346), (405, 344), (430, 350), (455, 365), (475, 390), (488, 420), (494, 450),
               (500, 458), (508, 480), (512, 512), (40, 512), (32, 500), (25, 470), (22, 440), (24, 410), (22, 380),
               (25, 345), (35, 310), (45, 280), (60, 255), (80, 235), (100, 218), (115, 207), (113, 188), (120, 182),
               (128, 165), (145, 152), (165, 148), (184, 152), (184, 140), (182, 131), (174, 125), (170, 115),
               (160, 105), (153, 90)]
    # fmt: on
    return _portrait(
        skimage.data.astronaut(),
        outline,
        landmarks=np.array([(203.6, 101.1), (247.5, 104.5), (223.3, 129.3), (200.9, 138.4), (245.6, 141.2)]),
        head=(226, 98, 82, 92),
        eyes=(
            (Arc((192, 101), (214, 103.5), -6), Arc((192, 101), (214, 103.5), 3)),
            (Arc((236, 105.5), (259, 105), -6), Arc((236, 105.5), (259, 105), 3)),
        ),
        lips=Arc((203, 139.5), (245.5, 141.5), 9),
        chin=178,
        opening=6,
        interior=(70, 25, 22),
    )


def face_texture(portrait: Portrait, blink: float, mouth: float) -> np.ndarray:
    """Return the portrait's pixels (H, W, 3) with lids and mouth as told, everything else untouched."""
    rgb = portrait.rgb.copy()
    height, width = rgb.shape[:2]
    grid_x, grid_y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    if mouth > 0:
        _open_mouth(rgb, portrait, mouth, grid_x, grid_y)
    if blink > 0:
        for upper, lower in portrait.eyes:
            _close_eye(rgb, upper, lower, blink, grid_x, grid_y)
    return rgb


def _open_mouth(rgb: np.ndarray, portrait: Portrait, mouth: float, grid_x: np.ndarray, grid_y: np.ndarray) -> None:
    """Draw the lower lip, the jaw and the chin down, and show the dark between."""
    lips, depth = portrait.lips, mouth * portrait.opening
    line, profile = lips.at(grid_x - PAD)
    middle, half = (lips.start[0] + lips.end[0]) / 2 + PAD, (lips.end[0] - lips.start[0]) / 2
    jaw = np.exp(-(((grid_x - middle) / (1.1 * half)) ** 2)) * smoothstep(grid_y, portrait.chin + 25, portrait.chin - 8)
    drop = depth * jaw * np.sqrt(profile)
    drop = np.maximum(drop, 0.8 * depth * jaw * smoothstep(grid_y, line + 4, portrait.chin - 10))
    edge = line + depth * jaw * np.sqrt(profile)
    below = smoothstep(grid_y, edge - 0.8, edge + 0.8)[..., None]
    moved = cv2.remap(rgb, grid_x, np.maximum(grid_y - drop, line).astype(np.float32), cv2.INTER_CUBIC)
    gap = (smoothstep(grid_y, line - 0.8, line + 0.8) * smoothstep(edge - line, 0.3, 2.0))[..., None]
    dark = np.array(portrait.interior, np.float32)
    rgb[:] = np.where(grid_y[..., None] > line[..., None] - 1, (1 - gap) * rgb + gap * dark, rgb)
    rgb[:] = np.where(grid_y[..., None] > line[..., None], below * moved + (1 - below) * rgb, rgb)


def _close_eye(rgb: np.ndarray, upper: Arc, lower: Arc, blink: float, grid_x: np.ndarray, grid_y: np.ndarray) -> None:
    """Lay a lid of the skin below the eye over it, down to `blink` of the way, with a line of lashes."""
    top, profile = upper.at(grid_x - PAD)
    bottom, _ = lower.at(grid_x - PAD)
    edge = top + blink * (bottom - top)
    tall = abs(upper.sag) + lower.sag
    below_eye = bottom + 0.12 * tall + 0.55 * np.clip(edge - grid_y, 0, None)
    skin = cv2.remap(rgb, grid_x, below_eye.astype(np.float32), cv2.INTER_LINEAR)
    shade = np.clip((edge - grid_y) / tall, 0, 1) ** 2
    skin *= 1 - shade[..., None] * np.array((0.08, 0.14, 0.16), np.float32)
    soft = smoothstep(profile, 0.0, 0.35)
    lid = soft * smoothstep(grid_y, edge + 0.7, edge - 0.7) * smoothstep(grid_y, top - 0.4 * tall, top - 0.12 * tall)
    lashes = 0.45 * soft * np.exp(-(((grid_y - edge) / (0.09 * tall)) ** 2))
    rgb[:] = rgb * (1 - lid[..., None]) + skin * lid[..., None]
    rgb *= (1 - lashes)[..., None]


def _displacement(portrait: Portrait, pose: Pose) -> np.ndarray:
    """Return where each point of the portrait moves, (H, W, 2) pixels: the head as a dome that turns on its neck."""
    height, width = portrait.alpha.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) - PAD, np.arange(height, dtype=np.float32))
    centre_x, centre_y, radius_x, radius_y = portrait.head
    u, v = (x - centre_x) / radius_x, (y - centre_y) / radius_y
    radius = np.hypot(u, v)
    nose = portrait.landmarks[2]
    bump = np.exp(-(((x - nose[0]) / (0.17 * radius_x)) ** 2) - ((y - nose[1]) / (0.2 * radius_x)) ** 2)
    depth = 0.85 * radius_x * np.clip(1 - radius**2, 0, None) + 0.16 * radius_x * bump
    depth = cv2.GaussianBlur(depth, (0, 0), 0.06 * radius_x)
    yaw, pitch, roll = np.deg2rad((pose.yaw, pose.pitch, pose.roll))
    head = smoothstep(radius, 1.35, 0.95)
    neck_y = centre_y + radius_y
    sway_x = (x - centre_x) * (np.cos(roll) - 1) - (y - neck_y) * np.sin(roll) + pose.shift[0]
    sway_y = (x - centre_x) * np.sin(roll) + (y - neck_y) * (np.cos(roll) - 1) + pose.shift[1]
    move_x = depth * np.sin(yaw) + head * (sway_x + (x - centre_x) * (np.cos(yaw) - 1))
    move_y = depth * np.sin(pitch) + head * (sway_y + (y - centre_y) * (np.cos(pitch) - 1))
    move_y -= pose.breath * smoothstep(y, neck_y - 20, neck_y + 60)
    return np.dstack((move_x, move_y)).astype(np.float32)


def render(portrait: Portrait, pose: Pose, place: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the portrait into a picture of `size` (width, height).

    place: (2, 3), from portrait coordinates to picture coordinates. Returns rgb (H, W, 3) float32 and alpha (H, W, 1).
    """
    rgb = face_texture(portrait, pose.blink, pose.mouth)
    height, width = portrait.alpha.shape
    grid = np.dstack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)))
    move = _displacement(portrait, pose)
    source = grid.copy()
    for _ in range(5):  # invert the displacement: a fixed point, as it is smooth and small
        source = grid - cv2.remap(move, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inverse = cv2.invertAffineTransform(np.float64(place))
    inverse[0, 2] += PAD
    offset = cv2.warpAffine(source - grid, inverse, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    lookup = np.dstack([row[0] * x + row[1] * y + row[2] for row in inverse]).astype(np.float32) + offset
    picture = cv2.remap(rgb, lookup, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.remap(portrait.alpha, lookup, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.clip(picture, 0, 255), alpha[..., None]
