"""Tracks to look at: as data, drawn over a picture, and as a plot of their motion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpenvid.types import Face, Image, Track

Time = float | Fraction
Shown = tuple[Time, Sequence[Track], Sequence[Face]]
"""A picture's time, its tracks, and the raw detections in it."""

_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#9c755f")


def tracks_json(pictures: Iterable[Shown]) -> dict[str, Any]:
    """Return tracks as plain data for JSON: per picture its time in seconds, the tracks and the raw detections.

    Boxes are x0 y0 x1 y1, landmarks five pairs, in pixels to a hundredth; strengths and scores to a thousandth.
    """

    def face_json(face: Face) -> dict[str, Any]:
        box, landmarks = face.box.astype(float).round(2).tolist(), face.landmarks.astype(float).round(2).tolist()
        return {"box": box, "landmarks": landmarks, "score": round(float(face.score), 3)}

    return {
        "landmarks": ["left eye", "right eye", "nose", "left mouth corner", "right mouth corner"],
        "pictures": [
            {
                "time": float(time),
                "tracks": [
                    {"id": t.id, **face_json(t.face), "strength": round(t.strength, 3), "detected": t.detected}
                    for t in tracks
                ],
                "detections": [face_json(face) for face in faces],
            }
            for time, tracks, faces in pictures
        ],
    }


def draw(image: Image, tracks: Sequence[Track], faces: Sequence[Face] = ()) -> Image:
    """Return a copy of an RGB picture with tracks drawn over it, and raw landmarks as small white dots.

    A box is as opaque as its track is strong, thin where no detection supports it, with its number above; smoothed
    landmarks are dots of the track's colour.
    """
    out: Image = image.copy()
    unit = max(image.shape[:2]) / 640
    for track in tracks:
        layer, colour = out.copy(), tuple(bytes.fromhex(_COLOURS[track.id % len(_COLOURS)][1:]))
        x0, y0, x1, y1 = (round(float(v)) for v in track.face.box)
        thick = max(round(2 * unit), 1) if track.detected else 1
        cv2.rectangle(layer, (x0, y0), (x1, y1), colour, thick, cv2.LINE_AA)
        for x, y in track.face.landmarks:
            cv2.circle(layer, (round(float(x)), round(float(y))), max(round(2 * unit), 1), colour, -1, cv2.LINE_AA)
        place = (x0, y0 - round(4 * unit) if y0 > 20 * unit else y1 + round(16 * unit))
        cv2.putText(layer, str(track.id), place, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * unit, colour, thick, cv2.LINE_AA)
        share = 0.25 + 0.75 * track.strength
        out = np.asarray(cv2.addWeighted(layer, share, out, 1 - share, 0), np.uint8)
    for face in faces:
        for x, y in face.landmarks:
            cv2.circle(out, (round(float(x)), round(float(y))), max(round(unit), 1), (255, 255, 255), -1, cv2.LINE_AA)
    return out


def plot_svg(
    times: ArrayLike, lines: dict[str, ArrayLike], title: str = "", unit: str = "px", size: tuple[int, int] = (900, 320)
) -> str:
    """Return an SVG plot of values over time in seconds: the first line thin (the raw one), the others bold.

    lines: values (T,) by name; NaN leaves a gap. Raises ValueError if there is nothing finite to plot.
    """
    t = np.asarray(times, np.float64)
    values = {name: np.asarray(line, np.float64) for name, line in lines.items()}
    finite = np.concatenate([v[np.isfinite(v)] for v in values.values()])
    if not len(finite) or not len(t):
        raise ValueError("nothing to plot")
    (width, height), left, right, top, bottom = size, 60, 15, 30, 40
    low, high = float(finite.min()), float(finite.max())
    margin = max((high - low) * 0.05, 0.5)
    low, high = low - margin, high + margin
    span = max(float(t[-1] - t[0]), 1e-9)

    def at(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        across = left + (x - t[0]) / span * (width - left - right)
        return np.stack([across, top + (high - y) / (high - low) * (height - top - bottom)], -1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif"',
        f' font-size="12"><rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18" font-size="14">{escape(title)}</text>',
    ]
    for y in _ticks(low, high):
        (_, v) = at(t[:1], np.array([y]))[0]
        parts.append(f'<path d="M{left} {v:.1f}H{width - right}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{v + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in _ticks(float(t[0]), float(t[0]) + span):
        (u, _) = at(np.array([x]), np.array([low]))[0]
        parts.append(f'<text x="{u:.1f}" y="{height - bottom + 18}" text-anchor="middle">{x:g}</text>')
    parts.append(
        f'<text x="{width - right}" y="{height - 6}" text-anchor="end">seconds; vertical: {escape(unit)}</text>'
    )
    for k, (name, line) in enumerate(values.items()):
        stroke, thick = ("#999", 1) if k == 0 else (_COLOURS[k - 1], 2)
        parts.append(f'<path d="{_path(at(t, line))}" fill="none" stroke="{stroke}" stroke-width="{thick}"/>')
        parts.append(
            f'<text x="{width - right - 130 * k}" y="18" text-anchor="end" fill="{stroke}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _path(points: NDArray[np.float64]) -> str:
    """The drawing commands of a line with gaps."""
    words, pen = [], "M"
    for u, v in points:
        if np.isfinite(v):
            words.append(f"{pen}{u:.1f} {v:.1f}")
        pen = "L" if np.isfinite(v) else "M"
    return "".join(words)


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers between low and high."""
    rough = (high - low) / 6
    power = 10 ** np.floor(np.log10(rough))
    step = float(power * next(m for m in (1, 2, 5, 10) if m * power >= rough))
    return [round(k * step, 10) for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
