"""The measures, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from gpenvid import metrics

RNG = np.random.default_rng(0)
PICTURE = RNG.uniform(0, 255, (32, 48, 3))


def test_psnr_of_a_constant_offset() -> None:
    assert metrics.psnr(PICTURE, PICTURE + 5) == pytest.approx(10 * np.log10(255**2 / 25))
    assert metrics.psnr(PICTURE, PICTURE) == float("inf")


def test_psnr_takes_uint8_without_wrapping_round() -> None:
    dark, bright = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert metrics.psnr(dark, bright) == pytest.approx(0)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.psnr(PICTURE, PICTURE[:-1])


def test_ssim_of_flat_pictures_is_its_luminance_term() -> None:
    a, b, c1 = 100.0, 150.0, (0.01 * 255) ** 2
    expected = (2 * a * b + c1) / (a**2 + b**2 + c1)
    assert metrics.ssim(np.full((20, 20, 3), a), np.full((20, 20, 3), b)) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_an_inverted_picture_is_negative_and_of_itself_one() -> None:
    assert metrics.ssim(PICTURE, PICTURE) == pytest.approx(1)
    assert metrics.ssim(PICTURE, 255 - PICTURE) < -0.5
    with pytest.raises(ValueError, match="11 x 11"):
        metrics.ssim(PICTURE[:8], PICTURE[:8])


def test_gmsd_is_zero_for_a_shift_of_brightness_and_grows_with_blur() -> None:
    assert metrics.gmsd(PICTURE, PICTURE) == 0
    assert metrics.gmsd(PICTURE, PICTURE + 7) == pytest.approx(0, abs=1e-9)
    soft = (PICTURE + np.roll(PICTURE, 1, 1)) / 2
    softer = (soft + np.roll(soft, 1, 1)) / 2
    assert 0 < metrics.gmsd(soft, PICTURE) < metrics.gmsd(softer, PICTURE)


def test_gradient_energy_goes_with_the_square_of_contrast() -> None:
    assert metrics.gradient_energy_ratio(0.5 * PICTURE + 9, PICTURE) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="flat"):
        metrics.gradient_energy_ratio(PICTURE, np.zeros_like(PICTURE))


def _panned(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    wide = RNG.uniform(0, 255, (24, 64 + 5 * pixels))
    clip = np.stack([wide[:, t * pixels : t * pixels + 64] for t in range(5)])
    return clip, np.broadcast_to(np.array([pixels, 0.0]), (4, 24, 64, 2))


def test_e_warp_of_a_pan_is_zero_with_its_own_flow_only() -> None:
    clip, flow = _panned(3)
    assert metrics.e_warp(clip, flow) == pytest.approx(0, abs=1e-6)
    assert metrics.e_warp(clip, 0 * flow) > 1000


def test_e_warp_of_noise_is_twice_its_variance() -> None:
    clip, flow = _panned(2)
    noisy = clip + RNG.normal(0, 4, clip.shape)
    assert metrics.e_warp(noisy, flow) == pytest.approx(2 * 16, rel=0.05)


def test_e_warp_leaves_out_what_the_mask_hides() -> None:
    clip, flow = _panned(1)
    clip = clip.copy()
    clip[2, :, 10] = 0
    mask = np.ones((4, 24, 64))
    mask[1, :, 10], mask[2, :, 9] = 0, 0
    assert metrics.e_warp(clip, flow) > 10
    assert metrics.e_warp(clip, flow, mask) == pytest.approx(0, abs=1e-6)


def test_flicker_of_a_still_clip() -> None:
    clip = np.stack([PICTURE + d for d in (-3, 3, -3, 3)])
    assert metrics.temporal_std(clip) == pytest.approx(3)
    assert metrics.frame_difference_mse(clip, np.stack([PICTURE] * 4)) == pytest.approx(36)
    assert metrics.frame_difference_mse(clip, clip + 50) == pytest.approx(0)


def test_errors_of_motion() -> None:
    truth = np.stack([np.linspace(0, 99, 100), np.zeros(100)], -1)[:, None]
    zigzag = truth + np.where(np.arange(100) % 2, 1, -1)[:, None, None]
    assert metrics.position_error(zigzag, truth) == pytest.approx(1)
    assert metrics.acceleration_error(zigzag, truth) == pytest.approx(4)
    assert metrics.peak_error(zigzag, truth) == pytest.approx(2**0.5)
    assert metrics.jitter(zigzag) == pytest.approx(4)
    assert metrics.jitter(truth) == pytest.approx(0, abs=1e-9)
    white = truth + np.random.default_rng(1).normal(0, 2, truth.shape)
    assert metrics.acceleration_error(white, truth) == pytest.approx(2 * 6**0.5, rel=0.2)


def test_what_was_not_seen_does_not_count() -> None:
    truth = np.zeros((6, 1, 2))
    points = truth + 1.0
    points[3] = np.nan
    assert metrics.position_error(points, truth) == pytest.approx(1)
    assert metrics.acceleration_error(points, truth) == pytest.approx(0)


def test_average_over_pictures() -> None:
    assert metrics.average(metrics.psnr, [PICTURE] * 2, [PICTURE + 1, PICTURE + 1]) == pytest.approx(
        10 * np.log10(255**2)
    )
