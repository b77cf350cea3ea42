"""Tracks as data, drawn, and plotted."""

from __future__ import annotations

import json
from fractions import Fraction
from xml.etree import ElementTree

import numpy as np
import pytest

from gpenvid.faces.show import draw, plot_svg, tracks_json
from gpenvid.types import Face, Track

FACE = Face(
    np.array([20, 30, 80, 100], np.float32),
    np.array([[35, 55], [65, 55], [50, 70], [40, 85], [60, 85]], np.float32),
    0.91234,
)


def test_json_holds_time_tracks_and_detections() -> None:
    data = json.loads(
        json.dumps(tracks_json([(Fraction(1, 25), [Track(3, FACE, 0.5, False)], [FACE]), (0.08, [], [])]))
    )
    first, second = data["pictures"]
    assert first["time"] == 0.04
    (track,) = first["tracks"]
    assert track == {"id": 3, "strength": 0.5, "detected": False, **first["detections"][0]}
    assert track["box"] == [20, 30, 80, 100] and track["landmarks"][2] == [50, 70] and track["score"] == 0.912
    assert second == {"time": 0.08, "tracks": [], "detections": []}


def test_drawing_leaves_the_picture_alone_and_marks_box_and_landmarks() -> None:
    picture = np.full((120, 160, 3), 10, np.uint8)
    drawn = draw(picture, [Track(1, FACE)], [Face(FACE.box, FACE.landmarks + 4, 0.9)])
    assert (picture == 10).all() and drawn.shape == picture.shape and drawn.dtype == np.uint8
    assert drawn[30, 50].max() > 100 and drawn[100, 50].max() > 100 and drawn[55, 35].max() > 100
    assert drawn[74, 54].tolist() == [255, 255, 255]
    assert (drawn[5, 150] == 10).all()
    faint = draw(picture, [Track(1, FACE, 0.0)])
    assert 10 < faint[30, 50].max() < drawn[30, 50].max()


def test_the_plot_is_svg_with_a_line_each_that_breaks_at_gaps() -> None:
    t = np.arange(50) / 25
    raw = np.sin(t) * 10
    raw[20:22] = np.nan
    svg = plot_svg(t, {"raw": raw, "smoothed": np.sin(t) * 10}, title="Track 1 <x>")
    root = ElementTree.fromstring(svg)
    paths = [p.get("d") or "" for p in root.iter("{http://www.w3.org/2000/svg}path") if p.get("fill") == "none"]
    assert [p.count("M") for p in paths] == [2, 1]
    assert [p.count("M") + p.count("L") for p in paths] == [48, 50]
    assert "Track 1 <x>" in "".join(root.itertext())


def test_a_flat_line_and_one_picture_can_be_plotted_and_nothing_can_not() -> None:
    ElementTree.fromstring(plot_svg([0.0], {"raw": [5.0]}))
    with pytest.raises(ValueError, match="nothing"):
        plot_svg([0.0], {"raw": [np.nan]})
