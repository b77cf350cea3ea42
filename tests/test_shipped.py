"""What is in the box works out of the box: no network, no options."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

import gpenvid
from gpenvid import weights
from gpenvid.metrics import gmsd, psnr, ssim
from gpenvid.types import Image

SAMPLES = Path(__file__).parents[1] / "samples"


def frames(path: Path, count: int) -> list[Image]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), count)]


@pytest.mark.parametrize("name", ["gpen-lite", "retinaface-lite", "closeup-lite"])
def test_the_weights_are_in_the_package_and_verified(name: str) -> None:
    found = weights.status(name)
    assert found.state == "verified"
    assert found.path is not None
    assert found.path.parent == weights.shipped("weights")


def test_the_old_film_gets_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(SAMPLES))
    monkeypatch.setenv("GPENVID_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("GPENVID_WEIGHTS", raising=False)
    from scenes import Film

    source, target = SAMPLES / "old_film.mp4", tmp_path / "out.mkv"
    report = gpenvid.enhance(source, target, device="cpu", codec="ffv1", end=0.5)
    assert (report.model["name"], report.detector["name"]) == ("gpen-lite", "retinaface-lite")
    assert report.counts.restored >= 8
    track = max(report.tracks, key=lambda track: track.mean_score)
    assert track.pictures == 8
    assert 140 < track.mean_size < 220
    face = np.s_[100:270, 160:310]
    film = Film()
    for k, (before, after) in enumerate(zip(frames(source, 8), frames(target, 8), strict=True)):
        if k in (2, 6):
            clean = film.picture(k)
            assert psnr(after[face], clean[face]) > psnr(before[face], clean[face])
            assert ssim(after[face], clean[face]) > ssim(before[face], clean[face])
            assert gmsd(after[face], clean[face]) < gmsd(before[face], clean[face])
    sys.modules.pop("scenes")
