"""The sample clips are what their README says, and their clean originals match them picture by picture."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

SAMPLES = Path(__file__).parents[1] / "samples"
CLIPS = ("old_film.mp4", "surveillance.mp4")


def _pictures(path: Path, count: int | None = None) -> tuple[list[Fraction], list[np.ndarray]]:
    times, pictures = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.pts is not None and frame.time_base is not None
            times.append(frame.pts * frame.time_base)
            pictures.append(frame.to_ndarray()[: frame.height, : frame.width])  # luma
            if len(times) == count:
                break
    return times, pictures


@pytest.mark.parametrize(
    ("name", "size", "audio"), [("old_film.mp4", (480, 360), "mp3float"), ("surveillance.mp4", (640, 360), "aac")]
)
def test_the_clip_is_h264_with_sound_under_a_megabyte(name: str, size: tuple[int, int], audio: str) -> None:
    assert (SAMPLES / name).stat().st_size < 1_000_000
    with av.open(str(SAMPLES / name)) as container:
        (video,), (sound,) = container.streams.video, container.streams.audio
        assert (video.codec_context.name, video.profile, video.pix_fmt) == ("h264", "High", "yuv420p")
        assert (video.width, video.height) == size
        assert sound.codec_context.name == audio
        samples = [frame.to_ndarray() for frame in container.decode(audio=0)]
    seconds = sum(block.shape[1] for block in samples) / sound.rate
    assert 4 <= seconds <= 6
    assert 0.02 < np.concatenate(samples, axis=1).std() < 0.3  # heard, not clipped


def test_the_film_runs_at_exactly_16_pictures_a_second_and_is_gray() -> None:
    times, _ = _pictures(SAMPLES / "old_film.mp4")
    assert times == [Fraction(k, 16) for k in range(72)]
    with av.open(str(SAMPLES / "old_film.mp4")) as container:
        for frame in container.decode(video=0):
            chroma = frame.to_ndarray()[frame.height :]
            assert np.abs(chroma.astype(int) - 128).max() <= 2


def test_the_surveillance_clip_has_irregular_times_around_12_a_second() -> None:
    times, _ = _pictures(SAMPLES / "surveillance.mp4")
    gaps = np.diff([float(time) for time in times])
    assert len(times) == 66 and 5 < times[-1] < 6
    assert 1 / 14 < np.median(gaps) < 1 / 11
    assert np.unique(np.rint(gaps * 1000)).size > 10
    assert gaps.max() > 0.15  # pictures that the recorder missed


def test_the_still_and_the_whole_folder_are_small() -> None:
    still = cv2.imread(str(SAMPLES / "portrait.jpg"))
    assert still is not None and still.shape == (512, 512, 3)
    assert (SAMPLES / "portrait.jpg").stat().st_size < 100_000
    assert sum(path.stat().st_size for path in SAMPLES.iterdir() if path.is_file()) < 2_500_000


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first pictures of the clean originals, made anew."""
    for package in ("skimage", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; it carries a portrait")
    folder = tmp_path_factory.mktemp("clean")
    command = [sys.executable, str(SAMPLES / "make.py"), "--clean", str(folder), "--pictures", "6"]
    subprocess.run(command, check=True, timeout=240)
    return folder


@pytest.mark.parametrize("name", CLIPS)
def test_clean_pictures_have_the_times_and_the_geometry_of_the_degraded(name: str, clean: Path) -> None:
    times, originals = _pictures(clean / name)
    spoilt_times, spoilt = _pictures(SAMPLES / name, 6)
    assert times == spoilt_times and len(times) == 6
    window = cv2.createHanningWindow(originals[0].shape[::-1], cv2.CV_32F)
    for original, picture in zip(originals, spoilt, strict=True):
        (dx, dy), _ = cv2.phaseCorrelate(original.astype(np.float32), picture.astype(np.float32), window)
        assert np.hypot(dx, dy) < 0.3
        error = original.astype(float) - picture.astype(float)
        assert abs(error.mean()) < 8  # the same tone, but for flicker
        assert 3 < error.std() < 25  # and visibly worse


def test_the_films_weave_is_in_the_original_too(clean: Path) -> None:
    """Pictures of the film move against each other, more than picture and original do."""
    _, originals = _pictures(clean / "old_film.mp4")
    window = cv2.createHanningWindow(originals[0].shape[::-1], cv2.CV_32F)
    moves = [
        np.hypot(*cv2.phaseCorrelate(before.astype(np.float32), after.astype(np.float32), window)[0])
        for before, after in itertools.pairwise(originals)
    ]
    assert max(moves) > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do"),
        (["--clean", "x", "--out", "x"], "must be another folder"),
        (["--clean", "x", "--pictures", "1"], "--pictures 1: must be 2 or more"),
    ],
)
def test_the_script_refuses_nonsense(arguments: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SAMPLES / "make.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2 and message in done.stderr
    assert list(tmp_path.iterdir()) == []
