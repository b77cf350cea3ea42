"""Tracks to look at: as data, and drawn over a picture."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from gpenvid.faces.plot import COLOURS
from gpenvid.types import Face, Image, Track

LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")


def picture_json(time: float | Fraction, tracks: Sequence[Track], strays: Sequence[Face] = ()) -> dict[str, Any]:
    """Return what is seen in one picture as plain data for JSON: its time in seconds, tracks, detections of none.

    Boxes are x0 y0 x1 y1, landmarks five pairs, in pixels to a hundredth; strengths and scores to a thousandth. `raw`
    is the detection before smoothing, null where there was none.
    """
    return {
        "time": float(time),
        "tracks": [
            {
                "id": track.id,
                **_face_json(track.face),
                "strength": round(track.strength, 3),
                "raw": None if track.raw is None else _face_json(track.raw),
            }
            for track in tracks
        ],
        "strays": [_face_json(face) for face in strays],
    }


def _face_json(face: Face) -> dict[str, Any]:
    box, landmarks = face.box.astype(float).round(2).tolist(), face.landmarks.astype(float).round(2).tolist()
    return {"box": box, "landmarks": landmarks, "score": round(float(face.score), 3)}


def label_height(unit: float) -> int:
    """The room in pixels that a track's number takes above or below its box."""
    return round(20 * unit)


def draw(image: Image, tracks: Sequence[Track], strays: Sequence[Face] = (), unit: float | None = None) -> Image:
    """Return a copy of an RGB picture with tracks drawn over it, and raw landmarks as small white dots.

    A box is as opaque as its track is strong, thin where no detection supports it, with its number above; smoothed
    landmarks are dots of the track's colour. strays: detections that support no track, of which only the landmarks are
    shown. unit: the width of a thin line in pixels, by default by the picture's size.
    """
    out: Image = image.copy()
    unit = max(image.shape[:2]) / 640 if unit is None else unit
    for track in tracks:
        layer, colour = out.copy(), tuple(bytes.fromhex(COLOURS[track.id % len(COLOURS)][1:]))
        x0, y0, x1, y1 = (round(float(v)) for v in track.face.box)
        thick = max(round(2 * unit), 1) if track.detected else 1
        cv2.rectangle(layer, (x0, y0), (x1, y1), colour, thick, cv2.LINE_AA)
        for x, y in track.face.landmarks:
            cv2.circle(layer, (round(float(x)), round(float(y))), max(round(2 * unit), 1), colour, -1, cv2.LINE_AA)
        below = y1 + round(16 * unit)
        place = (x0, y0 - round(4 * unit) if y0 > label_height(unit) else below)
        cv2.putText(layer, str(track.id), place, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * unit, colour, thick, cv2.LINE_AA)
        share = 0.25 + 0.75 * track.strength
        out = np.asarray(cv2.addWeighted(layer, share, out, 1 - share, 0), np.uint8)
    for face in [*(track.raw for track in tracks if track.raw), *strays]:
        for x, y in face.landmarks:
            cv2.circle(out, (round(float(x)), round(float(y))), max(round(unit), 1), (255, 255, 255), -1, cv2.LINE_AA)
    return out
