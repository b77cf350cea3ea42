"""Degradations: reproducible, of the right shape, and each does what its name says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gpenvid.train import degradations as d
from gpenvid.train.codecs import CODECS, encode_decode
from gpenvid.types import Image


@pytest.fixture(scope="module")
def picture() -> Image:
    """Smooth colours with edges, 96 x 80."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.uniform(0, 255, (8, 7, 3)).astype(np.float32), (80, 96), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(coarse, 0, 255).astype(np.uint8)
    picture[30:60, 20:50] = (200, 60, 30)
    return picture


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def energy(image: Image) -> float:
    values = image.astype(np.float64)
    return float((np.diff(values, axis=0) ** 2).mean() + (np.diff(values, axis=1) ** 2).mean())


def distance(a: Image, b: Image) -> float:
    return float(np.abs(a.astype(np.float64) - b).mean())


@pytest.mark.parametrize("name", [*d.OPS, *d.CHAINS])
def test_one_seed_one_picture(name: str, picture: Image) -> None:
    op = {**d.OPS, **d.CHAINS}[name]
    original = picture.copy()
    one, two = op(rng(), picture, 0.5), op(rng(), picture, 0.5)
    assert one.dtype == np.uint8 and np.array_equal(one, two)
    assert np.array_equal(picture, original), "the input was written to"
    if name != "downsample":
        assert one.shape == picture.shape
    assert name == "gray" or not np.array_equal(op(np.random.default_rng(8), picture, 0.5), one)


@pytest.mark.parametrize("name", [*d.CHAINS])
def test_a_stronger_chain_is_further_from_the_truth(name: str, picture: Image) -> None:
    def mean(strength: float) -> float:
        return float(
            np.mean([distance(d.degrade(np.random.default_rng(i), picture, strength, name), picture) for i in range(8)])
        )

    mild, middle, strong = (mean(strength) for strength in d.STRENGTHS.values())
    assert 0 < mild < middle < strong


def test_no_strength_no_change(picture: Image) -> None:
    result = d.degrade(rng(), picture, 0.0)
    assert np.array_equal(result, picture) and result is not picture


def test_an_unknown_chain_is_an_error(picture: Image) -> None:
    with pytest.raises(KeyError):
        d.degrade(rng(), picture, 0.5, "unheard of")


@pytest.mark.parametrize("name", ["blur", "motion_blur"])
def test_blurs_keep_the_mean_and_lose_energy(name: str, picture: Image) -> None:
    result = d.OPS[name](rng(), picture, 1.0)
    assert energy(result) < 0.9 * energy(picture)
    assert abs(result.mean() - picture.mean()) < 1


def test_motion_blur_is_a_line() -> None:
    dot = np.zeros((257, 257, 3), np.uint8)
    dot[128, 128] = 255
    smear = d.motion_blur(np.random.default_rng(1), dot, 1.0)[..., 0].astype(float)
    y, x = np.nonzero(smear)
    spread = np.linalg.svd(np.cov(np.stack([x, y]), aweights=smear[y, x]))[1]
    assert spread[0] > 4 * spread[1]


def test_downsampling_divides_both_sides(picture: Image) -> None:
    height, width = d.downsample(rng(), picture, 1.0).shape[:2]
    assert 1.5 <= 96 / height <= 4.2
    assert 96 / height == pytest.approx(80 / width, rel=0.05)
    assert d.restore_size(rng(), picture[::2, ::2], (96, 80)).shape == picture.shape


def test_gaussian_noise_has_the_stated_deviation() -> None:
    flat = np.full((128, 128, 3), 128, np.uint8)
    deviations = [d.gaussian_noise(np.random.default_rng(i), flat, 0.5).std() for i in range(20)]
    assert min(deviations) > 4 and max(deviations) < 20.5


def test_photon_noise_grows_with_the_light() -> None:
    dark, bright = np.full((64, 64, 3), 20, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    for i in range(5):
        assert (
            d.sensor_noise(np.random.default_rng(i), dark, 1.0).std()
            < d.sensor_noise(np.random.default_rng(i), bright, 1.0).std()
        )


def test_jpeg_leaves_its_blocks() -> None:
    ramp = np.repeat(np.linspace(40, 120, 128)[None, :, None], 64, axis=0).repeat(3, axis=2).astype(np.uint8)
    steps = np.abs(np.diff(d.jpeg(np.random.default_rng(1), ramp, 1.0).astype(float), axis=1)).mean(axis=(0, 2))
    at_borders = np.zeros(len(steps), bool)
    at_borders[7::8] = True
    assert steps[at_borders].mean() > 1.5 * steps[~at_borders].mean()


@pytest.mark.parametrize("codec", CODECS)
def test_codecs_give_every_picture_back_and_worse_at_a_higher_quantiser(codec: str, picture: Image) -> None:
    low, high = CODECS[codec].quality
    shifted = [np.roll(picture, shift, axis=1) for shift in range(3)]
    good, bad = encode_decode(shifted, codec, low), encode_decode(shifted, codec, high)
    assert [p.shape for p in good] == [picture.shape] * 3
    for number in range(3):
        assert distance(good[number], shifted[number]) < distance(bad[number], shifted[number]) < 40


def test_interlacing_leaves_every_other_row(picture: Image) -> None:
    woven = d.interlacing(rng(), picture, 1.0)
    same = (woven == picture).all(axis=(1, 2))
    assert same[::2].all() != same[1::2].all()


def test_grain_is_gray_and_strongest_in_the_midtones() -> None:
    levels = np.repeat(np.array([4, 128, 251], np.uint8), 64)[:, None, None] * np.ones((1, 64, 3), np.uint8)
    grain = d.film_grain(rng(), levels, 1.0).astype(float) - levels
    assert np.array_equal(grain[64:128, :, 0], grain[64:128, :, 1])
    assert grain[64:128].std() > 1.5 * max(grain[:64].std(), grain[128:].std())


def test_scratches_are_few(picture: Image) -> None:
    changed = [
        (d.scratches_and_dirt(np.random.default_rng(i), picture, 1.0) != picture).any(axis=2).mean() for i in range(9)
    ]
    assert 0 < np.mean(changed) < 0.2


def test_chroma_subsampling_keeps_the_luma(picture: Image) -> None:
    result = d.chroma_subsampling(rng(), picture, 0.5)
    luma = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[4:-4, 4:-4].astype(float) for p in (picture, result)]
    assert np.abs(luma[0] - luma[1]).mean() < 1.5 < distance(picture, result)


def test_gray_is_gray(picture: Image) -> None:
    result = d.gray(rng(), picture, 1.0)
    assert (result == cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]).all()


def test_fading_takes_contrast(picture: Image) -> None:
    assert d.faded_colour(rng(), picture, 1.0).std() < picture.std()


def test_sharpening_overshoots(picture: Image) -> None:
    assert energy(d.over_sharpening(rng(), picture, 1.0)) > 1.1 * energy(picture)
    flat = np.full((32, 32, 3), 77, np.uint8)
    assert np.array_equal(d.over_sharpening(rng(), flat, 1.0), flat)


def test_the_preview_shows_every_operation_at_every_strength(picture: Image) -> None:
    sheet = d.preview([picture], seed=0, side=48)
    rows = len(d.OPS) + len(d.CHAINS)
    assert sheet.shape == (rows * 48, (1 + len(d.STRENGTHS)) * 48 + d.LABEL, 3)
    assert np.array_equal(sheet, d.preview([picture], seed=0, side=48))
