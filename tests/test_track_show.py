"""Tracks as data, drawn, and plotted."""

from __future__ import annotations

import json
from fractions import Fraction
from xml.etree import ElementTree

import numpy as np

from gpenvid.faces.plot import HEIGHT, WIDTH, Panel, plot_rgb, plot_svg
from gpenvid.faces.show import draw, picture_json
from gpenvid.types import Face, Track

FACE = Face(
    np.array([20, 30, 80, 100], np.float32),
    np.array([[35, 55], [65, 55], [50, 70], [40, 85], [60, 85]], np.float32),
    0.91234,
)


def test_json_holds_time_tracks_and_detections() -> None:
    raw = Face(FACE.box + 1, FACE.landmarks + 1, 0.5)
    first = json.loads(json.dumps(picture_json(Fraction(1, 25), [Track(3, FACE, 0.5, True, raw)], [raw])))
    assert first["time"] == 0.04
    (track,), (stray,) = first["tracks"], first["strays"]
    assert (track["id"], track["strength"], track["score"]) == (3, 0.5, 0.912)
    assert track["box"] == [20, 30, 80, 100] and track["landmarks"][2] == [50, 70]
    assert track["raw"] == stray == {"box": [21, 31, 81, 101], "landmarks": stray["landmarks"], "score": 0.5}
    assert stray["landmarks"][2] == [51, 71]
    assert picture_json(0.08, [Track(3, FACE, 1.0, False)])["tracks"][0]["raw"] is None
    assert picture_json(0.08, []) == {"time": 0.08, "tracks": [], "strays": []}


def test_drawing_leaves_the_picture_alone_and_marks_box_and_landmarks() -> None:
    picture = np.full((120, 160, 3), 10, np.uint8)
    drawn = draw(picture, [Track(1, FACE)], [Face(FACE.box, FACE.landmarks + 4, 0.9)])
    assert (picture == 10).all() and drawn.shape == picture.shape and drawn.dtype == np.uint8
    assert drawn[30, 50].max() > 100 and drawn[100, 50].max() > 100 and drawn[55, 35].max() > 100
    assert drawn[74, 54].tolist() == [255, 255, 255]
    assert (drawn[5, 150] == 10).all()
    faint = draw(picture, [Track(1, FACE, 0.0)])
    assert 10 < faint[30, 50].max() < drawn[30, 50].max()


def _lines(svg: str) -> list[str]:
    """The drawing commands of the lines that are no grid."""
    paths = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    return [p.get("d") or "" for p in paths if p.get("stroke") != "#dddddd"]


def test_the_plot_is_svg_with_a_line_each_that_breaks_at_gaps() -> None:
    t = np.arange(50) / 25
    raw = np.sin(t) * 10
    raw[20:22] = np.nan
    svg = plot_svg([Panel("Track 1 <x>", "px", t, {"raw": raw, "smoothed": np.sin(t) * 10})])
    assert [line.count("L") + 1 for line in _lines(svg)] == [20, 28, 50]
    assert "Track 1 <x>" in "".join(ElementTree.fromstring(svg).itertext())


def test_panels_lie_below_each_other_as_svg_and_as_a_picture() -> None:
    panels = [Panel("a", "px", [0, 1, 2], {"raw": [5, 5, 5]}), Panel("b", "px", [0, 1, 2], {"raw": [1, 2, 3]})]
    heights = [float(line.split("L")[0].split()[1]) for line in _lines(plot_svg(panels))]
    assert 0 < heights[0] < HEIGHT < heights[1] < 2 * HEIGHT
    image = plot_rgb(panels)
    assert image.shape == (4 * HEIGHT, 2 * WIDTH, 3) and image.dtype == np.uint8
    assert (image[round(2 * heights[0]), WIDTH] < 200).all()


def test_a_flat_line_one_picture_and_nothing_can_be_plotted() -> None:
    assert len(_lines(plot_svg([Panel("", "px", [0.0], {"raw": [5.0]})]))) == 1
    for nothing in ([], [Panel("", "px", [0.0], {"raw": [np.nan]})]):
        assert "nothing to plot" in plot_svg(nothing)
        assert (plot_rgb(nothing) < 200).any()
