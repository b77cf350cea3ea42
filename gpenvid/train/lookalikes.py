"""What real pictures hold that is taken for a face: hands, badges, and the parts of a face in a wrong order."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from gpenvid.train.scenes import Portrait
from gpenvid.train.textures import colour, skin
from gpenvid.types import Float, Image

_FINE = 4
"""Fractional bits of the coordinates that OpenCV draws at."""


def add_hands(rng: np.random.Generator, picture: Image) -> None:
    """Draw one to three hands into a picture (H, W, 3), open, bent or clenched, some with a sleeve; in place."""
    tone = skin(rng)
    length = min(picture.shape[:2]) * np.exp(rng.uniform(np.log(0.12), np.log(0.8)))
    centre, angle = rng.uniform(0.15, 0.85, 2) * picture.shape[1::-1], rng.uniform(0, 360)
    for _ in range(int(rng.integers(1, 4))):
        place = centre + rng.normal(0, 0.35, 2) * length
        _hand(rng, picture, place, length * rng.uniform(0.8, 1.2), np.deg2rad(angle), tone)
        angle += rng.choice([20.0, 90.0, 180.0]) * rng.normal(0, 1)


def _hand(rng: np.random.Generator, picture: Image, centre: Float, length: float, angle: float, tone: Float) -> None:
    """One hand, `length` pixels from the wrist to the longest finger's end, light from anywhere."""
    canvas = picture.astype(np.float32)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * length
    if rng.random() < 0.5:
        turn[:, 0] *= -1

    def stroke(points: Float, width: float, shade: float, tint: Float = tone) -> None:
        path = np.round((np.asarray(points) @ turn.T + centre) * 2**_FINE).astype(np.int32)
        ink = np.clip(tint * shade, 0, 255).tolist()
        cv2.polylines(canvas, [path], False, ink, max(round(width * length), 1), cv2.LINE_AA, _FINE)

    if rng.random() < 0.6:
        stroke(np.array([[0, 0.35], [rng.normal(0, 0.15), 1.2]]), rng.uniform(0.35, 0.6), 1, colour(rng))
    stroke(np.array([[0, 0.1], [rng.normal(0, 0.04), 0.6]]), 0.26, 0.9)
    stroke(np.array([[-0.08, 0.02], [0.08, 0.02], [0.06, 0.2], [-0.06, 0.2]]), 0.24, 1)
    bent = rng.choice([0.0, 0.35, 0.8]) * rng.uniform(0.7, 1.2)
    spread = rng.uniform(0.0, 0.25)
    lean = rng.normal(0, 0.15)
    for finger, reach in zip(rng.permutation(4), (0.38, 0.46, 0.43, 0.33), strict=True):
        x = -0.15 + 0.1 * finger
        away = np.array([x * (1 + 4 * spread) + lean, -1.0]) / np.hypot(x * (1 + 4 * spread) + lean, 1.0)
        root = np.array([x, -0.02 - 0.05 * np.sin(np.pi * (finger + 0.5) / 4)])
        joint = root + away * reach * 0.5
        tip = joint + away * reach * 0.5 * (1 - 2 * bent) + rng.normal(0, 0.02, 2)
        stroke(np.stack([root, joint, tip]), 0.105, rng.uniform(0.45, 0.75))
        stroke(np.stack([root, joint, tip]), 0.08, rng.uniform(0.92, 1.08))
        if rng.random() < 0.5:
            stroke(np.stack([tip, tip + away * 0.02]), 0.045, 1.0, np.clip(tone * 1.1 + [18, 4, 6], 0, 255))
        for knuckle in (root, joint):
            side = np.array([-away[1], away[0]]) * 0.03
            stroke(np.stack([knuckle - side, knuckle + side]), 0.012, rng.uniform(0.6, 0.85))
    thumb = np.array([[-0.14, 0.16], [-0.28, 0.02], [-0.3 + bent * 0.3, -0.12 + 0.1 * bent]])
    stroke(thumb, 0.12, 0.65)
    stroke(thumb, 0.095, 1.02)
    blur = max(0.004 * length * rng.uniform(0.5, 4), 0.4)
    drawn = cv2.GaussianBlur(canvas, (0, 0), blur)
    changed = cv2.GaussianBlur((np.abs(canvas - picture).max(-1) > 1).astype(np.float32), (0, 0), blur)[..., None]
    picture[:] = np.clip(drawn * _light(rng, picture) * changed + picture * (1 - changed), 0, 255)


def add_badges(rng: np.random.Generator, picture: Image, field: Callable[[int], Float]) -> None:
    """Set one to four badges, buttons or caps' emblems on a picture (H, W, 3), symmetric and embossed; in place.

    field: draws a pattern (S, S) or (S, S, 3) of a size S, any numbers.
    """
    for _ in range(int(rng.integers(1, 5))):
        side = int(min(picture.shape[:2]) * np.exp(rng.uniform(np.log(0.08), np.log(0.7)))) // 2 * 2
        height = np.asarray(field(side), np.float32).reshape(side, side, -1).mean(-1)
        height = (height - height.min()) / max(float(np.ptp(height)), 1e-6)
        if rng.random() < 0.8:
            height = (height + height[:, ::-1]) / 2
        mask = _outline(rng, side)
        relief = np.clip(rng.uniform(1, 6) * cv2.Sobel(height, cv2.CV_32F, 1, 1, ksize=3), -0.6, 0.6)[..., None]
        low, high = colour(rng), colour(rng)
        badge = (low + (high - low) * height[..., None]) * (1 + relief)
        rim = np.clip(mask - cv2.erode(mask, np.ones((3, 3)), iterations=max(side // 30, 1)), 0, 1)[..., None]
        badge = badge * (1 - rim) + colour(rng) * rim
        x, y = (int(rng.integers(max(n - side, 1))) for n in picture.shape[1::-1])
        region = picture[y : y + side, x : x + side]
        soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1.5))[..., None]
        region[:] = np.clip(badge * _light(rng, picture[:side, :side]) * soft + region * (1 - soft), 0, 255)


def _outline(rng: np.random.Generator, side: int) -> Float:
    """What a badge covers, (S, S) 0 or 1: an oval, a shield, a star, or one of them between wings."""
    mask = np.zeros((side, side), np.float32)
    middle, radius = side // 2, side // 2 - 1
    kind = rng.integers(4)
    if kind == 0:
        cv2.ellipse(mask, (middle, middle), (int(radius * rng.uniform(0.5, 1)), radius), 0, 0, 360, 1.0, -1)
        return mask
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    if kind == 1:
        reach = 1 - rng.uniform(0.1, 0.5) * np.abs(np.cos(angles * rng.integers(3, 9) / 2))
    elif kind == 2:
        reach = np.where(np.sin(angles) < 0, 0.8, 0.8 + 0.2 * np.sin(angles) ** 6)
    else:
        reach = 0.35 + 0.65 * np.abs(np.cos(angles)) ** rng.uniform(2, 8)
    points = middle + radius * reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1.0)
    return mask


def add_scrambled(rng: np.random.Generator, picture: Image, portrait: Portrait) -> None:
    """Set a portrait's face on a picture (H, W, 3), cut into 9 or 16 parts of which none is in its place; in place."""
    box = portrait.boxes[int(rng.integers(len(portrait.boxes)))]
    x0, y0 = np.clip(box[:2], 0, None).astype(int)
    face = portrait.picture[y0 : int(box[3]), x0 : int(box[2])]
    if not face.size:
        return
    cells = int(rng.integers(3, 5))
    part = max(int(min(picture.shape[:2]) * np.exp(rng.uniform(np.log(0.1), np.log(0.9)))) // cells, 4)
    face = np.asarray(cv2.resize(face, (cells * part, cells * part), interpolation=cv2.INTER_AREA))
    parts = face.reshape(cells, part, cells, part, 3).swapaxes(1, 2).reshape(-1, part, part, 3)
    order = rng.permutation(len(parts))
    parts = parts[np.roll(order, 1)[np.argsort(order)]]  # one cycle: none stays where it was
    parts = np.stack([each[::-1] if rng.random() < 0.5 else each for each in parts])
    face = parts.reshape(cells, cells, part, part, 3).swapaxes(1, 2).reshape(cells * part, cells * part, 3)
    face = cv2.GaussianBlur(face, (0, 0), rng.uniform(0.3, 0.04 * part + 0.4))
    x, y = (int(rng.integers(max(n - cells * part, 1))) for n in picture.shape[1::-1])
    mask = np.zeros(face.shape[:2], np.float32)
    cv2.ellipse(mask, (cells * part // 2,) * 2, (cells * part // 2 - 1,) * 2, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.5 + 0.03 * part)[..., None]
    region = picture[y : y + cells * part, x : x + cells * part]
    region[:] = np.clip(face * mask + region * (1 - mask), 0, 255)


def _light(rng: np.random.Generator, picture: Image) -> Float:
    """Light that falls off to one side, (H, W, 1) about 1."""
    y, x = np.mgrid[-1 : 1 : picture.shape[0] * 1j, -1 : 1 : picture.shape[1] * 1j]
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.4)
    light: Float = (1 + slope * (x * np.cos(angle) + y * np.sin(angle))).astype(np.float32)[..., None]
    return light
