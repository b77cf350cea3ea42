"""Plots of values over time, as SVG and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpenvid.types import Image

Real = NDArray[np.float64]

COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#9c755f")

WIDTH, HEIGHT = 960, 220
"""Of a panel; a picture has twice as many pixels."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 15, 28, 26


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of axes: lines over time in seconds (T,); of the lines (T,), the first is thin, NaN leaves a gap."""

    title: str
    unit: str
    times: ArrayLike
    lines: Mapping[str, ArrayLike]


class _Sheet(Protocol):
    """What a panel is drawn on: points are (N, 2) x, y; an anchor is start, middle or end."""

    def line(self, points: Real, colour: str, width: float) -> None: ...

    def text(self, x: float, y: float, words: str, anchor: str, colour: str) -> None: ...


def plot_svg(panels: Sequence[Panel]) -> str:
    """Return an SVG document with the panels below each other; without any, it says so."""
    sheet = _Svg(HEIGHT * max(len(panels), 1))
    _fill(sheet, panels)
    return "\n".join([*sheet.parts, "</svg>"]) + "\n"


def plot_rgb(panels: Sequence[Panel]) -> Image:
    """Return the same as RGB."""
    sheet = _Raster(HEIGHT * max(len(panels), 1))
    _fill(sheet, panels)
    return sheet.image


def _fill(sheet: _Sheet, panels: Sequence[Panel]) -> None:
    if not panels:
        sheet.text(WIDTH / 2, HEIGHT / 2, "nothing to plot", "middle", "#666666")
    for number, panel in enumerate(panels):
        _draw(sheet, panel, number * HEIGHT)


def _draw(sheet: _Sheet, panel: Panel, above: float) -> None:
    t = np.asarray(panel.times, np.float64)
    lines = {name: np.asarray(line, np.float64) for name, line in panel.lines.items()}
    finite = np.concatenate([line[np.isfinite(line)] for line in lines.values()])
    sheet.text(_LEFT, above + 18, panel.title, "start", "#000000")
    if not len(finite):
        sheet.text(WIDTH / 2, above + HEIGHT / 2, "nothing to plot", "middle", "#666666")
        return
    low, high = float(finite.min()), float(finite.max())
    margin = max((high - low) * 0.05, 0.05)
    low, high = low - margin, high + margin
    begin, span = float(t[0]), max(float(t[-1] - t[0]), 1e-9)

    def at(x: Real, y: Real) -> Real:
        across = _LEFT + (x - begin) / span * (WIDTH - _LEFT - _RIGHT)
        down = above + _TOP + (high - y) / (high - low) * (HEIGHT - _TOP - _BOTTOM)
        return np.stack([across, down], -1)

    for y in _ticks(low, high):
        ends = at(np.array([begin, begin + span]), np.array([y, y]))
        sheet.line(ends, "#dddddd", 1)
        sheet.text(_LEFT - 6, float(ends[0, 1]) + 4, f"{y:g}", "end", "#666666")
    for x in _ticks(begin, begin + span):
        sheet.text(float(at(np.array([x]), np.array([low]))[0, 0]), above + HEIGHT - 8, f"{x:g}", "middle", "#666666")
    sheet.text(WIDTH - _RIGHT, above + HEIGHT - 8, "s", "end", "#666666")
    sheet.text(_LEFT - 6, above + 18, panel.unit, "end", "#666666")
    for k, (name, line) in enumerate(lines.items()):
        colour, width = ("#999999", 1) if k == 0 else (COLOURS[k - 1], 2)
        for run in _runs(np.isfinite(line)):
            sheet.line(at(t[run], line[run]), colour, width)
        sheet.text(WIDTH - _RIGHT - 110 * k, above + 18, name, "end", colour)


class _Svg:
    def __init__(self, height: int) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif"',
            f' font-size="12"><rect width="{WIDTH}" height="{height}" fill="white"/>',
        ]

    def line(self, points: Real, colour: str, width: float) -> None:
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.parts.append(f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="{width}"/>')

    def text(self, x: float, y: float, words: str, anchor: str, colour: str) -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
        )


class _Raster:
    _SCALE = 2

    def __init__(self, height: int) -> None:
        self.image: Image = np.full((height * self._SCALE, WIDTH * self._SCALE, 3), 255, np.uint8)

    def line(self, points: Real, colour: str, width: float) -> None:
        corners = np.rint(points * self._SCALE * 16).astype(np.int32)  # in sixteenths of a pixel
        cv2.polylines(self.image, [corners], False, _rgb(colour), round(width * self._SCALE * 0.75), cv2.LINE_AA, 4)

    def text(self, x: float, y: float, words: str, anchor: str, colour: str) -> None:
        font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.42 * self._SCALE
        (width, _), _ = cv2.getTextSize(words, font, size, 1)
        left = x * self._SCALE - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        cv2.putText(self.image, words, (round(left), round(y * self._SCALE)), font, size, _rgb(colour), 1, cv2.LINE_AA)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _runs(flags: NDArray[np.bool_]) -> list[slice]:
    """The stretches where flags are set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between low and high."""
    rough = (high - low) / 5
    power = 10 ** np.floor(np.log10(rough))
    step = float(power * next(m for m in (1, 2, 5, 10) if m * power >= rough))
    return [round(k * step, 10) for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
