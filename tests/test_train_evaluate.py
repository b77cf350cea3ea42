"""Evaluation: figures in closed form, pairing, JSON, contact sheet, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from gpenvid.errors import MediaError, OptionsError
from gpenvid.evaluate import (
    EvalOptions,
    Evaluation,
    Sample,
    colour_shift,
    contact_sheet,
    evaluate,
    landmark_distance,
    ms_ssim,
    run_evaluation,
    samples,
)
from gpenvid.types import Face, Image


def noise(seed: int, height: int = 64, width: int = 64) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write(folder: Path, **pictures: Image) -> Path:
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / f"{name}.png"), picture[..., ::-1])
    return folder


def write_video(path: Path, pictures: list[Image]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], "bgr0"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    return path


def test_ms_ssim_is_one_for_equal_pictures_and_falls_with_damage() -> None:
    picture = cv2.GaussianBlur(noise(0, 200, 200), (0, 0), 2)
    blurred = cv2.GaussianBlur(picture, (0, 0), 1.5)
    assert ms_ssim(picture, picture) == pytest.approx(1)
    assert ms_ssim(cv2.GaussianBlur(picture, (0, 0), 4), picture) < ms_ssim(blurred, picture) < 0.99


def test_ms_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    a, b = np.full((176, 176, 3), 100, np.uint8), np.full((176, 176, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    term = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ms_ssim(a, b) == pytest.approx(term**0.1333, rel=1e-6)
    # One scale is left at 11 to 21 pixels, and it has all the weight.
    assert ms_ssim(a[:16, :16], b[:16, :16]) == pytest.approx(term, rel=1e-6)


def test_colour_shift_is_the_difference_of_means() -> None:
    a = np.full((8, 8, 3), 100, np.uint8)
    assert colour_shift(a + np.array([3, 0, 6], np.uint8), a) == pytest.approx(3)


def test_figures_before_and_after() -> None:
    truth = np.full((32, 32, 3), 100, np.uint8)
    truth[::2] = 140
    pair = Sample("a", truth + np.uint8(1), truth, truth + np.uint8(10))
    evaluation = evaluate([pair])
    assert evaluation.after["a"]["psnr"] == pytest.approx(20 * np.log10(255))
    assert evaluation.before["a"]["psnr"] == pytest.approx(20 * np.log10(25.5))
    assert evaluation.after["a"]["gradient_energy_ratio"] == pytest.approx(1)
    assert evaluation.after["a"]["gmsd"] == pytest.approx(0, abs=1e-9)
    assert evaluation.table()[:2] == [("figure", "before", "after", "change"), ("psnr", "28.13", "48.13", "+20")]


def test_means_leave_out_what_is_infinite() -> None:
    evaluation = Evaluation({"a": {"psnr": 30.0}, "b": {"psnr": float("inf")}, "c": {"psnr": 20.0}})
    assert evaluation.means(evaluation.after) == {"psnr": 25.0}
    assert json.loads(evaluation.to_json())["after"]["b"]["psnr"] is None
    assert evaluation.table() == [("figure", "after"), ("psnr", "25")]


class Finder:
    """Finds as many points as told in each picture, shifted by what the picture's first pixel says."""

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        points = np.array([[10, 10], [30, 10], [20, 20], [12, 30], [28, 30]], np.float32)
        box = np.array([0, 0, 40, 40], np.float32)
        return [[Face(box, points + image[0, 0, 0], 1.0)] if image[0, 0, 0] < 200 else [] for image in images]


def test_landmark_distance_is_a_share_of_the_eyes_distance() -> None:
    here, there, nowhere = (np.full((48, 48, 3), value, np.uint8) for value in (3, 0, 255))
    assert landmark_distance(here, there, Finder()) == pytest.approx(3 * np.sqrt(2) / 20)
    assert np.isnan(landmark_distance(nowhere, there, Finder()))


def test_folders_are_matched_by_name(tmp_path: Path) -> None:
    restored = write(tmp_path / "restored", b=noise(1), a=noise(0))
    truth = write(tmp_path / "truth", a=noise(2), b=noise(3), c=noise(4))
    found = list(samples(restored, truth))
    assert [sample.name for sample in found] == ["a", "b"]
    assert np.array_equal(found[1].restored, noise(1)) and np.array_equal(found[1].truth, noise(3))
    with pytest.raises(MediaError, match="no picture named c"):
        list(samples(truth, restored))


def test_videos_are_matched_in_order(tmp_path: Path) -> None:
    pictures = [noise(i) for i in range(3)]
    restored = write_video(tmp_path / "restored.mkv", pictures)
    found = list(samples(restored, write_video(tmp_path / "truth.mkv", pictures[::-1])))
    assert [np.array_equal(s.restored, s.truth) for s in found] == [False, True, False]
    assert np.array_equal(found[0].truth, pictures[2])
    with pytest.raises(MediaError, match="ends after 2 pictures"):
        list(samples(restored, write_video(tmp_path / "short.mkv", pictures[:2])))


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", x=noise(0))
    with pytest.raises(MediaError, match="different sizes"):
        list(samples(folder, write(tmp_path / "b", x=noise(0, 32))))
    with pytest.raises(MediaError, match="no such file"):
        list(samples(folder, tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="no pictures"):
        list(samples(tmp_path / "empty", folder))
    (tmp_path / "broken.mkv").write_bytes(b"no video")
    with pytest.raises(MediaError, match="not a readable video"):
        list(samples(tmp_path / "broken.mkv", tmp_path / "broken.mkv"))
    with pytest.raises(OptionsError, match="--truth"):
        EvalOptions(restored="a")
    with pytest.raises(OptionsError, match="--rows 0"):
        EvalOptions(restored="a", truth="b", rows=0)


def test_the_sheet_shows_before_after_truth() -> None:
    small, large = np.full((20, 10, 3), 50, np.uint8), np.full((80, 80, 3), 60, np.uint8)
    sheet = contact_sheet([Sample("a", small, small, small), Sample("b", large, large)], side=40)
    assert sheet.shape == (80, 120, 3)
    assert sheet[:40].reshape(-1, 3)[:, 0].tolist().count(50) == 3 * 40 * 20
    assert (sheet[40:, :40] == 128).all() and (sheet[40:, 40:] == 60).all()


def test_a_run_writes_what_was_asked_for(tmp_path: Path) -> None:
    folders = {
        name: str(write(tmp_path / name, a=noise(i), b=noise(i + 5))) for i, name in enumerate(("restored", "truth"))
    }
    options = EvalOptions(**folders, json=str(tmp_path / "f.json"), sheet=str(tmp_path / "s.png"), rows=1, side=64)
    evaluation = run_evaluation(options)
    written = json.loads((tmp_path / "f.json").read_text())
    assert written["pairs"] == 2
    assert written["mean"]["after"] == pytest.approx(evaluation.means(evaluation.after))
    assert cv2.imread(str(tmp_path / "s.png")).shape == (64, 128, 3)
    with pytest.raises(MediaError, match=r"can't be written|unknown picture"):
        run_evaluation(EvalOptions(**folders, sheet=str(tmp_path / "s.nothing")))
