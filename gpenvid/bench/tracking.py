"""How still, how true and who is who: the tracker against raw detections and other trackers and smoothers."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from facexlib.tracking.sort import SORT
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from gpenvid import metrics
from gpenvid.bench import Table
from gpenvid.bench.motions import MOTIONS, Crowd, Motion, Seen, crowd, detect, motion
from gpenvid.faces.track import Tracker
from gpenvid.options import TrackerOptions
from gpenvid.types import Face, Track

Real = NDArray[np.float64]
Points = NDArray[np.float64]


def follow(moving: Motion, seen: Seen, options: TrackerOptions) -> Points:
    """Run the tracker; return its landmarks (T, 5, 2), NaN where it shows nothing."""
    out = np.full((len(moving.times), 5, 2), np.nan)
    for k, tracks in enumerate(_tracks(lambda k: seen.faces(k), moving.times, moving.cuts, options)):
        for track in tracks[:1]:
            out[k] = track.face.landmarks
    return out


def _tracks(
    detections: Callable[[int], list[Face]], times: Real, cuts: list[int], options: TrackerOptions
) -> list[list[Track]]:
    tracker = Tracker(options)
    done = []
    for k, now in enumerate(times):
        done += tracker.update(detections(k), float(now), cut=k in cuts)
    return [tracks for _, tracks in done + tracker.flush()]


def _raw(moving: Motion, seen: Seen) -> Points:
    points = np.stack([seen.landmarks.real, seen.landmarks.imag], -1)
    return np.where(seen.found[:, None, None], points, np.nan)


def _filled(points: Points) -> Points:
    """Interpolate where nothing was seen."""
    known = ~np.isnan(points[:, 0, 0])
    flat = points.reshape(len(points), -1)
    index = np.arange(len(points))
    return np.stack([np.interp(index, index[known], column[known]) for column in flat.T], 1).reshape(points.shape)


def _gaussian(moving: Motion, seen: Seen) -> Points:
    """What KEEP does: a Gaussian of five pictures over the clip."""
    return np.asarray(gaussian_filter1d(_filled(_raw(moving, seen)), 5, axis=0))


def _one_euro(moving: Motion, seen: Seen, least: float = 1.0, beta: float = 0.007) -> Points:
    """The One Euro filter (Casiez et al. 2012) of every coordinate, with its authors' parameters."""
    points = _raw(moving, seen)
    out = np.full_like(points, np.nan)
    value, speed, last = points[0], np.zeros((5, 2)), moving.times[0]
    for k, now in enumerate(moving.times):
        if k and not np.isnan(points[k, 0, 0]):
            dt, last = now - last, now
            speed = speed + _share(np.full((5, 2), 1.0), dt) * ((points[k] - value) / dt - speed)
            value = value + _share(least + beta * np.abs(speed), dt) * (points[k] - value)
        out[k] = value
    return out


def _share(cutoff: Real, dt: float) -> Real:
    """The weight of the new value in a first-order low-pass of a cutoff in Hz."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * dt))


class _Detections(np.ndarray):
    """An array that SORT may ask whether it is the empty list, which numpy 2 refuses to answer."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return len(self) == 0

    def __ne__(self, other: object) -> bool:
        return len(self) > 0


def _run_sort(detections: Iterable[Real]) -> Iterator[Real]:
    """Run facexlib's SORT, silenced, over detections (N, 5) per picture; gives (K, 5) boxes and ids."""
    tracker = SORT()
    for found in detections:
        dets: Real | list[Real] = found.view(_Detections) if len(found) else []
        with contextlib.redirect_stdout(io.StringIO()):
            tracked = tracker.update(dets, (10000, 10000), [None] * len(found), 1)
        yield np.asarray(tracked)


def _sort(moving: Motion, seen: Seen) -> Points:
    """facexlib's SORT, which tracks boxes: the landmarks are moved with the box."""
    raw, out = _raw(moving, seen), np.full((len(moving.times), 5, 2), np.nan)
    dets: Iterator[Real] = (
        np.array([[*box, 0.95]])[: int(found)] for box, found in zip(seen.boxes, seen.found, strict=True)
    )
    for k, tracked in enumerate(_run_sort(dets)):
        if len(tracked) and seen.found[k]:
            box = seen.boxes[k]
            out[k] = tracked[0, :2] + (raw[k] - box[:2]) * (tracked[0, 2:4] - tracked[0, :2]) / (box[2:] - box[:2])
    return out


METHODS: dict[str, Callable[[Motion, Seen], Points]] = {
    "raw": _raw,
    "SORT (facexlib)": _sort,
    "Gaussian, sigma 5": _gaussian,
    "One Euro": _one_euro,
    "gpenvid, causal": lambda moving, seen: follow(moving, seen, TrackerOptions(lag=0)),
    "gpenvid, look-ahead": lambda moving, seen: follow(moving, seen, TrackerOptions()),
}


def smoothing(title: str, seeds: int = 3, **faults: float) -> Table:
    """Position, acceleration and peak errors of all methods on all motions: medians over seeds.

    faults: of `detect`. Ratios are to the noise of a detection that is no outlier: 1 px, and 6^0.5 px per frame^2.
    """
    rows: list[tuple[str | float, ...]] = []
    for name in MOTIONS:
        for label, method in METHODS.items():
            figures = []
            for seed in range(seeds):
                moving = motion(name, seed=seed)
                truth = moving.truth()[1]
                truth = np.stack([truth.real, truth.imag], -1)
                points = method(moving, detect(moving, seed=seed + 100, **faults))
                error = metrics.acceleration_error(points, truth)
                figures.append(
                    (metrics.position_error(points, truth), 6**0.5 / error, metrics.peak_error(points, truth))
                )
            rows.append((name, label, *(float(x) for x in np.median(figures, 0))))
    return Table(title, ("motion", "method", "position x raw", "acceleration raw / x", "peak px"), rows)


def identity(counts: tuple[int, ...] = (2, 4, 6, 10), seeds: int = 2) -> Table:
    """IDF1, HOTA and identity switches (TrackEval) on crowds, of SORT and of the tracker, causal and not."""
    header = ("faces", "method", "IDF1", "HOTA", "switches")
    rows: list[tuple[str | float, ...]] = []
    if importlib.util.find_spec("trackeval") is None:
        return Table("Identity (needs trackeval)", header, rows)
    for count in counts:
        scenes = [crowd(count, seed=seed) for seed in range(seeds)]
        for label, method in (
            ("SORT (facexlib)", _sort_crowd),
            ("gpenvid, causal", lambda scene: _follow_crowd(scene, TrackerOptions(lag=0))),
            ("gpenvid, look-ahead", lambda scene: _follow_crowd(scene, TrackerOptions())),
        ):
            figures = np.array([scores(scene, method(scene)) for scene in scenes])
            rows.append((f"{count}", label, *figures[:, :2].mean(0).tolist(), float(figures[:, 2].sum())))
    return Table("Identity: crossings, entries, exits, 30 % misses, 1 s occlusions", header, rows)


Boxes = list[dict[int, Real]]
"""Per picture, boxes (4,) by identity."""


def _follow_crowd(scene: Crowd, options: TrackerOptions) -> Boxes:
    tracks = _tracks(scene.detections, scene.faces[0].times, [], options)
    return [{track.id: track.face.box.astype(np.float64) for track in picture} for picture in tracks]


def _sort_crowd(scene: Crowd) -> Boxes:
    pictures = (scene.detections(k) for k in range(len(scene.faces[0].times)))
    dets = (np.array([[*face.box, face.score] for face in faces]).reshape(-1, 5) for faces in pictures)
    return [{int(row[4]): row[:4] for row in tracked} for tracked in _run_sort(dets)]


def scores(scene: Crowd, found: Boxes) -> tuple[float, float, int]:
    """Return IDF1, HOTA and the number of identity switches, by TrackEval, over the faces that can be seen."""
    from trackeval.metrics import CLEAR, HOTA, Identity

    boxes = [face.truth()[0] for face in scene.faces]
    ids = {identity: n for n, identity in enumerate(sorted({i for picture in found for i in picture}))}
    data: dict[str, Any] = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for k, picture in enumerate(found):
        here = [i for i, can in enumerate(scene.visible) if can[k]]
        data["gt_ids"].append(np.array(here, int))
        data["tracker_ids"].append(np.array([ids[i] for i in picture], int))
        truth = np.array([boxes[i][k] for i in here]).reshape(-1, 4)
        data["similarity_scores"].append(_iou(truth, np.array(list(picture.values())).reshape(-1, 4)))
    data |= {"num_timesteps": len(found), "num_gt_ids": len(boxes), "num_tracker_ids": len(ids)}
    data["num_gt_dets"] = sum(map(len, data["gt_ids"]))
    data["num_tracker_dets"] = sum(map(len, data["tracker_ids"]))
    with contextlib.redirect_stdout(io.StringIO()):
        clear, hota, ident = (metric().eval_sequence(data) for metric in (CLEAR, HOTA, Identity))
    return float(ident["IDF1"]), float(hota["HOTA"].mean()), int(clear["IDSW"])


def _iou(a: Real, b: Real) -> Real:
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    common = np.prod(np.maximum(sides, 0), -1)
    area_a, area_b = np.prod(a[:, 2:] - a[:, :2], 1), np.prod(b[:, 2:] - b[:, :2], 1)
    iou: Real = common / (area_a[:, None] + area_b - common)
    return iou


def cost(counts: tuple[int, ...] = (0, 1, 10), pictures: int = 500) -> Table:
    """Processor milliseconds a picture of the tracker, the best of five runs."""
    rows: list[tuple[str | float, ...]] = []
    times = np.arange(pictures) / 25
    for faces in counts:
        scene = crowd(faces, seconds=pictures / 25, misses=0.05)
        detections = [scene.detections(k) if faces else [] for k in range(pictures)]
        for label, options in (("causal", TrackerOptions(lag=0)), ("look-ahead", TrackerOptions())):
            best = np.inf
            for _ in range(5):
                start = time.process_time()
                _tracks(detections.__getitem__, times, [], options)
                best = min(best, time.process_time() - start)
            rows.append((str(faces), label, best / pictures * 1e3))
    return Table("Cost of tracking", ("faces", "method", "ms a picture"), rows)


def run(seeds: int = 3) -> list[Table]:
    """Measure everything."""
    return [
        smoothing("Noise of 1 px, nothing else", seeds, gaps=0, outliers=0),
        smoothing("Noise of 1 px, 5 % missed, 3 % gross outliers", seeds),
        smoothing("The same, and 1 % of the detections elsewhere as a whole", seeds, slips=0.01),
        identity(),
        cost(),
    ]
