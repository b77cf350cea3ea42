"""What the Enhancer promises, with faces and restorers whose effect is known exactly."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from fakes import BlindDetector, BrighterRestorer, IdentityRestorer, PaintRestorer, SquareDetector, mean_inside, picture

from gpenvid.enhancer import Enhancer, chosen_patch
from gpenvid.options import Options
from gpenvid.patch_torch import TorchPatch
from gpenvid.stages import prefetch
from gpenvid.types import Face, Image, Track

WIDTH, HEIGHT = 320, 240


def frame(rgb: Image, index: int = 0, format: str = "yuv444p") -> av.VideoFrame:
    made = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=format)
    made.pts, made.time_base = index * 1001, Fraction(1, 25_000)
    return made


def planes(picture: av.VideoFrame) -> list[bytes]:
    return [bytes(plane) for plane in picture.planes]


def moving(count: int, format: str = "yuv444p") -> list[av.VideoFrame]:
    return [frame(picture(WIDTH, HEIGHT, (100 + 2 * i, 120, 40)), i, format) for i in range(count)]


def enhancer(restorer: IdentityRestorer, detector: object = None, **choices: object) -> Enhancer:
    return Enhancer(Options.of(**choices), restorer=restorer, detector=detector or SquareDetector())  # type: ignore[arg-type]


@pytest.mark.parametrize("lag", [0.0, 0.4])
def test_every_picture_comes_out_once_in_order_with_its_time(lag: float) -> None:
    frames = moving(23)
    times = [(each.pts, each.time_base) for each in frames]
    out = list(enhancer(PaintRestorer(), lag=lag).process(frames))
    assert [(each.pts, each.time_base) for each in out] == times
    assert [each.format.name for each in out] == ["yuv444p"] * 23


def test_without_faces_every_bit_stays() -> None:
    frames = moving(5)
    before = [planes(each) for each in frames]
    assert [planes(each) for each in enhancer(PaintRestorer(), BlindDetector()).process(frames)] == before


@pytest.mark.parametrize("format", ["yuv444p", "yuv420p"])
def test_a_restorer_that_changes_nothing_changes_nothing_where_the_face_is_larger_than_the_model(format: str) -> None:
    frames = moving(6, format)
    before = [planes(each) for each in frames]
    restorer = IdentityRestorer(size=32)
    assert [planes(each) for each in enhancer(restorer, min_face=0).process(frames)] == before
    assert sum(restorer.batches) == 6


@pytest.mark.parametrize("format", ["yuv420p", "yuv444p", "nv12", "rgb24", "yuv420p10le"])
@pytest.mark.parametrize("where", ["cpu", "device"])
def test_the_face_is_painted_and_the_rest_is_bit_identical(format: str, where: str) -> None:
    source = frame(picture(WIDTH, HEIGHT, (100, 120, 48)), format=format)
    before = source.to_ndarray(format="rgb24").astype(int)
    untouched = frame(picture(WIDTH, HEIGHT, (100, 120, 48)), format=format)
    painter = PaintRestorer(colour=(200, 60, 60))
    (out,) = enhancer(painter, paste_on=where).process([source])
    after = out.to_ndarray(format="rgb24").astype(int)
    assert mean_inside(after, 100, 120, 20) == pytest.approx([200, 60, 60], abs=3)
    # The crop is the square of side 96 around the face; nothing beyond it may move.
    for plane, original in zip(out.planes, untouched.planes, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        kept = np.frombuffer(original, np.uint8).reshape(-1, original.line_size)
        scale = plane.height / HEIGHT
        top, bottom = int((120 - 50) * scale), int((120 + 50) * scale) + 1
        assert (rows[:top] == kept[:top]).all()
        assert (rows[bottom:] == kept[bottom:]).all()
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[120 - 51 : 120 + 52, 100 - 51 : 100 + 52] = False
    assert (after[outside] == before[outside]).all()


@pytest.mark.parametrize("lag", [0.0, 0.4])
def test_the_detector_may_rest_and_starts_anew_with_a_scene(lag: float) -> None:
    """Searched: 0, 4, 8; the scene that starts with picture 10, and every fourth after it."""
    blots = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16), np.uint8), (WIDTH, HEIGHT))
    other = [frame(np.dstack([blots] * 3), 10 + i) for i in range(11)]
    detector = SquareDetector()
    seen: list[float] = []
    by = enhancer(PaintRestorer(), detector, lag=lag, detect_every=4)
    by.on_face = lambda track, seconds, crop, restored: seen.append(float(track.face.landmarks[:, 0].mean()))
    out = list(by.process([*moving(10), *other]))
    assert len(out) == 21 and by.counts.cuts == 1
    assert sum(detector.calls) == 3 + 3
    assert len(seen) == 10
    known = 0 if lag else 4  # what moves is known once it was seen twice
    assert seen[known:] == pytest.approx([seen[0] + 2 * i for i in range(known, 10)], abs=0.5 if lag else 2)


def test_crops_of_several_pictures_share_a_batch() -> None:
    restorer = PaintRestorer()
    list(enhancer(restorer, batch=8).process(moving(24)))
    assert sum(restorer.batches) == 24
    assert max(restorer.batches) == 8


def test_two_overlapping_faces_are_not_added_twice() -> None:
    rgb = picture(WIDTH, HEIGHT, (100, 120, 40), (150, 120, 40))
    (out,) = enhancer(PaintRestorer(colour=(200, 60, 60))).process([frame(rgb)])
    after = out.to_ndarray(format="rgb24").astype(int)
    assert mean_inside(after, 125, 120, 6) == pytest.approx([200, 60, 60], abs=12)
    assert mean_inside(after, 150, 120, 16) == pytest.approx([200, 60, 60], abs=4)


@pytest.mark.parametrize(("blend", "share"), [(100, 1.0), (50, 0.5), (0, 0.0)])
def test_blend_is_the_share_of_the_restored_face(blend: float, share: float) -> None:
    source = frame(picture(WIDTH, HEIGHT, (100, 120, 48)), format="rgb24")
    before = mean_inside(source.to_ndarray(), 100, 120, 16)
    (out,) = enhancer(BrighterRestorer(), blend=blend).process([source])
    after = mean_inside(out.to_ndarray(), 100, 120, 16)
    assert after - before == pytest.approx([20 * share] * 3, abs=1)


def test_small_faces_fade_out_towards_the_least_size() -> None:
    # The box of a square of side s is 1.6 s high.
    def painted(least: float) -> float:
        source = frame(picture(WIDTH, HEIGHT, (100, 120, 40)), format="rgb24")
        (out,) = enhancer(BrighterRestorer(), min_face=least, blend=100).process([source])
        return float(mean_inside(out.to_ndarray(), 100, 120, 16)[2]) - 40

    size = 40 * 2 * 0.8
    assert painted(size * 1.01) == 0
    assert painted(size / 1.125) == pytest.approx(10, abs=1.5)
    assert painted(size / 1.3) == pytest.approx(20, abs=1)


def test_only_the_largest_faces_when_limited() -> None:
    rgb = picture(WIDTH, HEIGHT, (70, 120, 24), (220, 120, 40))
    source = frame(rgb, format="rgb24")
    (out,) = enhancer(PaintRestorer(), max_faces=1).process([source])
    assert mean_inside(out.to_ndarray(), 220, 120, 16) == pytest.approx([200, 60, 60], abs=2)
    assert mean_inside(out.to_ndarray(), 70, 120, 10) == pytest.approx([20, 200, 40], abs=2)


def test_an_image_is_restored_without_changing_the_one_given() -> None:
    rgb = picture(WIDTH, HEIGHT, (100, 120, 48))
    kept = rgb.copy()
    out = enhancer(PaintRestorer()).image(rgb)
    assert out.shape == rgb.shape
    assert (rgb == kept).all()
    assert mean_inside(out, 100, 120, 16) == pytest.approx([200, 60, 60], abs=2)
    assert (out[:60] == rgb[:60]).all()


def test_an_image_without_faces_comes_back_as_it_was() -> None:
    rgb = picture(WIDTH, HEIGHT)
    assert (enhancer(PaintRestorer()).image(rgb) == rgb).all()


def test_faces_are_told_in_order_with_their_track() -> None:
    told: list[tuple[int, float]] = []

    def on_face(track: Track, seconds: float, crop: Image, restored: Image) -> None:
        assert crop.shape == restored.shape == (64, 64, 3)
        told.append((track.id, round(seconds, 5)))

    worker = enhancer(PaintRestorer())
    worker.on_face = on_face
    list(worker.process(moving(12)))
    assert told == [(told[0][0], round(i * 1001 / 25_000, 5)) for i in range(12)]


def test_holds_no_more_than_look_ahead_and_a_batch() -> None:
    taken = 0

    def source() -> Iterator[av.VideoFrame]:
        nonlocal taken
        for i in range(200):
            taken += 1
            yield frame(picture(WIDTH, HEIGHT, (100, 120, 40)), i)

    bound = 0.4 * 25 + 2 * 8 + 4 + 2
    for given, _ in enumerate(enhancer(PaintRestorer(), lag=0.4, batch=8).process(source()), start=1):
        assert taken - given <= bound
    assert taken == 200


def test_starts_no_thread() -> None:
    before = set(threading.enumerate())
    list(enhancer(PaintRestorer()).process(moving(4)))
    assert set(threading.enumerate()) == before


def test_steps_beside_each_other_give_the_same_bits() -> None:
    def beside(steps: Any, name: str) -> Any:
        names.append(name)
        return prefetch(steps, 2, name)

    names: list[str] = []
    in_turn = [planes(each) for each in enhancer(PaintRestorer()).process(moving(23))]
    assert [planes(each) for each in enhancer(PaintRestorer()).process(moving(23), beside)] == in_turn
    assert names == ["find", "restore"]


def test_who_stops_early_leaves_no_step_running() -> None:
    closed = False

    def source() -> Iterator[av.VideoFrame]:
        nonlocal closed
        try:
            yield from moving(60)
        finally:
            closed = True

    before = set(threading.enumerate())
    pictures = enhancer(PaintRestorer(), lag=0.0).process(source(), lambda steps, name: prefetch(steps, 2, name))
    next(iter(pictures))
    pictures.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before
    gc.collect()
    assert closed


def test_a_parsed_mask_limits_what_is_pasted() -> None:
    class LeftHalf:
        def mask(self, crops: Image) -> np.ndarray:
            masks = np.zeros(crops.shape[:3], np.float32)
            masks[:, 8:-8, 8:32] = 1
            return masks

    source = frame(picture(WIDTH, HEIGHT, (100, 120, 48)), format="rgb24")
    worker = Enhancer(restorer=PaintRestorer(), detector=SquareDetector(), parser=LeftHalf())  # type: ignore[arg-type]
    (out,) = worker.process([source])
    assert mean_inside(out.to_ndarray(), 88, 120, 12) == pytest.approx([200, 60, 60], abs=3)
    assert mean_inside(out.to_ndarray(), 112, 120, 12) == pytest.approx([20, 200, 40], abs=3)


@pytest.mark.parametrize(
    ("device", "where", "torch_does"),
    [
        (None, "auto", False),
        ("cpu", "auto", False),
        ("cuda:1", "auto", True),
        ("cuda", "cpu", False),
        ("cpu", "device", True),
        (None, "device", True),
    ],
)
def test_where_faces_are_cut_out_and_pasted(device: str | None, where: str, torch_does: bool) -> None:
    restorer = IdentityRestorer()
    if device is not None:
        restorer.device = torch.device(device)  # type: ignore[attr-defined]
    chosen = chosen_patch(where, restorer)
    assert isinstance(chosen, TorchPatch) == torch_does
    if isinstance(chosen, TorchPatch):
        assert chosen.device == torch.device(device or "cpu")


def test_what_is_no_face_is_counted_and_left_alone() -> None:
    class Collapsed(SquareDetector):
        def detect(self, images: list[Image]) -> list[list[Face]]:  # type: ignore[override]
            point = np.full((5, 2), 50, np.float32)
            return [[Face(np.array([30, 30, 70, 70], np.float32), point, 0.9)] for _ in images]

    rgb = picture(WIDTH, HEIGHT)
    worker = enhancer(PaintRestorer(), Collapsed())
    assert (worker.image(rgb) == rgb).all()
    assert (worker.counts.faces, worker.counts.skipped, worker.counts.restored) == (1, 1, 0)


@pytest.mark.parametrize("still", [True, False])
@pytest.mark.parametrize(("faces", "painted"), [("all", "ab"), ("largest", "b"), ("center", "a"), ("2", "a")])
def test_faces_are_chosen_in_videos_and_stills(faces: str, painted: str, still: bool) -> None:
    # a is small and in the middle, b is large and aside. The larger is number 1.
    rgb = picture(WIDTH, HEIGHT, (160, 120, 24), (260, 120, 40))
    worker = enhancer(PaintRestorer(), faces=faces, min_face=0)
    if still:
        out = worker.image(rgb)
    else:
        *_, last = worker.process(frame(rgb, i, "rgb24") for i in range(12))
        out = last.to_ndarray()
    found = {name: mean_inside(out, x, 120, 8)[0] > 150 for name, x in (("a", 160), ("b", 260))}
    assert found == {"a": "a" in painted, "b": "b" in painted}
