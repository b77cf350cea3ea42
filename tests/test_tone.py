from __future__ import annotations

import numpy as np
import pytest

from gpenvid.faces.tone import COLOURED, GRAY, keep_gray
from gpenvid.types import Image


def gray() -> Image:
    ramp = np.linspace(20, 230, 64 * 64).astype(np.uint8).reshape(64, 64)
    return np.repeat(ramp[:, :, None], 3, axis=2)


def tinted(by: int) -> Image:
    return np.clip(gray().astype(int) + np.array([by, 0, -by]), 0, 255).astype(np.uint8)


def test_a_gray_crop_stays_gray_at_the_luma_of_the_restored_face() -> None:
    out = keep_gray(gray(), tinted(12))
    assert (out[:, :, 0] == out[:, :, 1]).all()
    assert (out[:, :, 1] == out[:, :, 2]).all()
    luma = tinted(12).astype(float) @ (0.299, 0.587, 0.114)
    assert np.abs(out[:, :, 0] - luma).max() <= 0.51


def test_a_coloured_crop_keeps_every_bit() -> None:
    restored = tinted(12)
    assert keep_gray(tinted(20), restored) is restored


def test_an_identical_gray_face_stays_as_it_is() -> None:
    assert (keep_gray(gray(), gray()) == gray()).all()


def test_between_gray_and_coloured_there_is_no_step() -> None:
    def saturation(by: int) -> float:
        out = keep_gray(tinted(by), tinted(40)).astype(int)
        return float((out[:, :, 0] - out[:, :, 2]).mean())

    kept = [saturation(by) for by in range(8)]
    assert kept[0] == 0
    assert kept[-1] == pytest.approx(saturation(60), abs=1)
    assert GRAY < COLOURED
    assert (np.diff(kept) >= 0).all()
    assert max(np.diff(kept)) < 60
