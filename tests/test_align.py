"""Geometry of an aligned face: fit, bounds, crop, mask, paste. Expectations are closed forms or stated figures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gpenvid.faces.align import (
    BORDER,
    TEMPLATE,
    TEMPLATE_GPEN,
    crop,
    crop_bounds,
    detail_kept,
    difference,
    feather,
    fit_similarity,
    localize,
    sample,
    spread,
)


def similarity(scale: float, degrees: float, x: float, y: float) -> NDArray[np.float64]:
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[c, -s, x], [s, c, y]])


def apply(matrix: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]


def about_centre(size: int, face: float, degrees: float, width: int, height: int) -> NDArray[np.float64]:
    """Region px -> crop px for a face of `face` region pixels a side in the middle of a region."""
    matrix = similarity(size / face, degrees, 0, 0)
    matrix[:, 2] = (size - 1) / 2 - matrix[:, :2] @ ((width - 1) / 2, (height - 1) / 2)
    return matrix


def paste(
    region: NDArray[np.uint8],
    cut: NDArray[np.uint8],
    restored: NDArray[np.uint8],
    mask: NDArray[np.float32],
    matrix: NDArray[np.float64],
) -> NDArray[np.float32]:
    """What is to be added to a region for it to show the restored face."""
    return spread(*difference(cut, restored, mask, matrix), region, matrix)


def texture(height: int, width: int, seed: int = 0, sigma: float = 1.0) -> NDArray[np.uint8]:
    """A smooth random picture with about the spectrum of a photograph: detail at every scale down to sigma px."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(5):
        s = sigma * 2**octave
        layer = cv2.GaussianBlur(rng.normal(size=(height, width, 3)).astype(np.float32), (0, 0), s)
        total += layer / layer.std() * 2**octave
    return np.clip(total / total.std() * 40 + 128, 0, 255).astype(np.uint8)


def gradient_energy(image: NDArray[np.floating]) -> float:
    return float((np.diff(image, axis=0) ** 2).mean() + (np.diff(image, axis=1) ** 2).mean())


def psnr(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(10 * np.log10(255**2 / ((a - b) ** 2).mean()))


class TestFit:
    @pytest.mark.parametrize("size", [64, 128, 512, 1024])
    @pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0.0), (0.31, 25.0), (3.7, -80.0), (2.0, 180.0)])
    def test_a_known_similarity_is_found_again(self, size: int, scale: float, degrees: float) -> None:
        known = similarity(scale, degrees, 40.25, -7.5)
        target = (TEMPLATE.astype(np.float64) + 0.5) * size / 512 - 0.5
        found = fit_similarity(apply(inverse(known), target), size)
        np.testing.assert_allclose(found, known, atol=1e-9 * max(1, size))

    def test_at_512_the_template_maps_to_itself(self) -> None:
        np.testing.assert_allclose(fit_similarity(TEMPLATE, 512), [[1, 0, 0], [0, 1, 0]], atol=1e-9)

    def test_halving_the_size_keeps_pixel_centres(self) -> None:
        # Two pixels 0 and 1 become pixel 0, whose centre lies at 0.5: x -> (x + 0.5) / 2 - 0.5.
        np.testing.assert_allclose(fit_similarity(TEMPLATE, 256), [[0.5, 0, -0.25], [0, 0.5, -0.25]], atol=1e-9)

    def test_another_template(self) -> None:
        np.testing.assert_allclose(
            fit_similarity(TEMPLATE_GPEN, 512, template=TEMPLATE_GPEN), [[1, 0, 0], [0, 1, 0]], atol=1e-9
        )

    def test_it_is_the_least_squares_solution(self) -> None:
        points = TEMPLATE + np.random.default_rng(1).normal(size=(5, 2)) * 9
        rows = np.concatenate([[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in points])
        (a, b, x, y), *_ = np.linalg.lstsq(rows, TEMPLATE.astype(np.float64).ravel(), rcond=None)
        np.testing.assert_allclose(fit_similarity(points, 512), [[a, -b, x], [b, a, y]], atol=1e-8)

    def test_a_mirrored_face_is_never_mirrored_back(self) -> None:
        mirrored = TEMPLATE * (-1, 1) + (512, 0)
        matrix = fit_similarity(mirrored, 512)
        assert np.linalg.det(matrix[:, :2]) > 0
        np.testing.assert_allclose([matrix[0, 0], matrix[1, 0]], [matrix[1, 1], -matrix[0, 1]])

    def test_wide_pixels_give_a_round_face(self) -> None:
        aspect = 64 / 45
        stored = TEMPLATE / (aspect, 1)
        matrix = fit_similarity(stored, 512, pixel_aspect=aspect)
        np.testing.assert_allclose(apply(matrix, stored), TEMPLATE, atol=1e-3)
        np.testing.assert_allclose(matrix, [[aspect, 0, 0], [0, 1, 0]], atol=1e-4)

    @pytest.mark.parametrize(
        "landmarks", [np.ones((5, 2)), np.full((5, 2), np.nan), np.array([[np.inf, 0]] * 5), np.zeros((4, 2))]
    )
    def test_points_that_fix_nothing_are_refused(self, landmarks: NDArray[np.float64]) -> None:
        with pytest.raises(ValueError, match="landmarks"):
            fit_similarity(landmarks, 512)


class TestBounds:
    def test_the_crop_lies_inside_with_room_for_the_filter(self) -> None:
        matrix = about_centre(64, 100, 30, 640, 480)
        x0, y0, x1, y1 = crop_bounds(matrix, 64, 640, 480)
        corners = apply(inverse(matrix), np.array([[-0.5, -0.5], [63.5, -0.5], [-0.5, 63.5], [63.5, 63.5]]))
        margin = 3 * 100 / 64
        assert (x0 <= corners[:, 0].min() - margin) and (x1 - 1 >= corners[:, 0].max() + margin)
        assert (y0 <= corners[:, 1].min() - margin) and (y1 - 1 >= corners[:, 1].max() + margin)
        assert max(x1 - x0, y1 - y0) < 100 * np.sqrt(2) + 2 * margin + 4

    def test_it_is_clipped_to_the_picture(self) -> None:
        assert crop_bounds(similarity(1, 0, 0, 0), 64, 50, 40) == (0, 0, 50, 40)
        assert crop_bounds(similarity(1, 0, 20, 20), 64, 500, 400)[:2] == (0, 0)

    @pytest.mark.parametrize(("x", "y"), [(70, 0), (0, 70), (-600, 0), (0, -500)])
    def test_a_crop_outside_has_none(self, x: float, y: float) -> None:
        assert crop_bounds(similarity(1, 0, x, y), 64, 500, 400) is None

    def test_a_region_gives_the_crop_of_the_whole_picture(self) -> None:
        picture = texture(240, 320)
        for face, degrees in [(30, 10), (90, -35), (170, 3)]:
            matrix = about_centre(64, face, degrees, 320, 240)
            x0, y0, x1, y1 = crop_bounds(matrix, 64, 320, 240)
            region = crop(picture[y0:y1, x0:x1], localize(matrix, x0, y0), 64)
            assert np.abs(region.astype(int) - crop(picture, matrix, 64)).max() <= 1


class TestCrop:
    def test_the_identity_changes_nothing(self) -> None:
        picture = texture(96, 96, sigma=1.5)
        np.testing.assert_array_equal(crop(picture, similarity(1, 0, 0, 0), 96), picture)

    def test_a_plane_is_cut_as_a_channel_is(self) -> None:
        picture, matrix = texture(90, 120), about_centre(64, 50, 7, 120, 90)
        for depth in (np.uint8, np.uint16):
            whole = sample(picture.astype(depth), matrix, 64)
            assert whole.dtype == np.float32
            np.testing.assert_allclose(sample(picture[..., 1].astype(depth), matrix, 64), whole[..., 1], atol=1e-3)

    @pytest.mark.parametrize("degrees", [0.0, 17.0, 90.0, -140.0])
    @pytest.mark.parametrize("face", [20, 64, 150, 300, 1000])
    def test_a_ramp_is_sampled_where_the_matrix_says(self, face: int, degrees: float) -> None:
        # A linear ramp passes any symmetric filter unchanged, so each crop pixel holds its own source coordinate.
        side = int(face * 1.5) + 8
        y, x = np.mgrid[0:side, 0:side].astype(np.float64)
        slope = 200 / side
        picture = np.stack([20 + slope * x, 20 + slope * y, np.full_like(x, 90)], axis=2)
        matrix = about_centre(64, face, degrees, side, side)
        got = crop(np.round(picture).astype(np.uint8), matrix, 64)[8:-8, 8:-8]
        v, u = np.mgrid[8:56, 8:56]
        source = apply(inverse(matrix), np.stack([u, v], axis=2).reshape(-1, 2)).reshape(48, 48, 2)
        np.testing.assert_allclose(got[..., :2], 20 + slope * source, atol=1.6)
        assert (got[..., 2] == 90).all()

    @pytest.mark.parametrize("degrees", [0.0, 33.0])
    @pytest.mark.parametrize("reduction", [1.5, 2.0, 3.9, 4.1, 9.0])
    def test_what_a_reduced_crop_cannot_carry_vanishes(self, reduction: float, degrees: float) -> None:
        # A sine at 1.6 times the crop's Nyquist frequency would come back as a false one; it must turn gray, to 8 %.
        side = int(64 * reduction * 1.5)
        y, x = np.mgrid[0:side, 0:side]
        wave = 127.5 + 100 * np.sin(2 * np.pi * 0.8 / reduction * (x if degrees == 0 else (x + y) / np.sqrt(2)))
        picture = np.repeat(np.round(wave).astype(np.uint8)[..., None], 3, axis=2)
        got = crop(picture, about_centre(64, 64 * reduction, degrees, side, side), 64)[8:-8, 8:-8]
        assert got.astype(float).std() * np.sqrt(2) < 0.08 * 100

    @pytest.mark.parametrize("reduction", [1.0, 1.5, 2.0, 3.9, 4.1, 9.0])
    def test_what_it_can_carry_stays(self, reduction: float) -> None:
        # A sine at half the crop's Nyquist frequency keeps 80 to 110 % of its amplitude.
        side = int(64 * reduction * 1.5)
        wave = 127.5 + 100 * np.sin(2 * np.pi * 0.25 / reduction * np.arange(side))
        picture = np.broadcast_to(np.round(wave).astype(np.uint8)[None, :, None], (side, side, 3)).copy()
        got = crop(picture, about_centre(64, 64 * reduction, 0, side, side), 64)[8:-8, 8:-8]
        assert 0.8 < got.astype(float).std() * np.sqrt(2) / 100 < 1.1

    @pytest.mark.parametrize(("below", "above"), [(0.99, 1.01), (1.49, 1.51), (3.99, 4.01), (7.99, 8.01)])
    def test_sharpness_has_no_step_as_a_face_grows(self, below: float, above: float) -> None:
        # Either side of each change of method, a sine at 0.6 of the Nyquist frequency keeps its amplitude within 6 %.
        amplitudes = []
        for reduction in (below, above):
            side = int(64 * reduction * 1.5)
            wave = 127.5 + 100 * np.sin(2 * np.pi * 0.3 / reduction * np.arange(side))
            picture = np.broadcast_to(np.round(wave).astype(np.uint8)[None, :, None], (side, side, 3)).copy()
            got = crop(picture, about_centre(64, 64 * reduction, 10, side, side), 64)[8:-8, 8:-8]
            amplitudes.append(got.astype(float).std())
        assert abs(amplitudes[1] / amplitudes[0] - 1) < 0.06

    def test_anamorphic_pixels_are_filtered_per_axis(self) -> None:
        # 4:1 in x and 1:1 in y: a sine in x above the crop's Nyquist frequency vanishes, the same one in y stays.
        n, matrix = np.arange(512), np.array([[0.25, 0, 0.0], [0, 1, 0]])
        wave = np.round(127.5 + 100 * np.sin(2 * np.pi * 0.2 * n)).astype(np.uint8)
        across = np.repeat(np.broadcast_to(wave[None, :], (128, 512))[..., None], 3, axis=2)
        down = np.repeat(np.broadcast_to(wave[:128, None], (128, 512))[..., None], 3, axis=2)
        assert crop(across, matrix, 128)[8:-8, 8:-8].astype(float).std() < 5
        assert crop(down, matrix, 128)[8:-8, 8:-8].astype(float).std() * np.sqrt(2) > 80

    def test_beyond_the_picture_it_is_mirrored(self) -> None:
        picture = texture(64, 64, sigma=2)
        got = crop(picture, similarity(1, 0, 16, 0), 64)
        np.testing.assert_allclose(got[8:-8, 16 - 12 : 16].astype(int), got[8:-8, 17:29][:, ::-1].astype(int), atol=2)

    @pytest.mark.parametrize("shape", [(1, 1, 3), (2, 300, 3), (300, 1, 3)])
    def test_a_sliver_of_picture_fills_a_crop(self, shape: tuple[int, int, int]) -> None:
        for face in (3, 64, 900):
            got = crop(np.full(shape, 77, np.uint8), about_centre(64, face, 20, shape[1], shape[0]), 64)
            assert got.shape == (64, 64, 3) and got.dtype == np.uint8 and (np.abs(got.astype(int) - 77) <= 1).all()


class TestFeather:
    @pytest.mark.parametrize("size", [64, 128, 256, 512])
    def test_it_is_zero_on_the_border_one_on_the_face_and_smooth_between(self, size: int) -> None:
        mask = feather(size)
        edge = int(BORDER * size)
        assert mask.shape == (size, size) and mask.dtype == np.float32 and mask.min() == 0 and mask.max() == 1
        assert (
            not mask[:edge].any() and not mask[-edge:].any() and not mask[:, :edge].any() and not mask[:, -edge:].any()
        )
        for x, y in (TEMPLATE + 0.5) * size / 512 - 0.5:
            assert mask[round(y), round(x)] == 1
        chin = 460 / 512 * size  # of an average face, 90 / 131 of the way from the eyes to the mouth below the mouth
        assert mask[int(chin), size // 2] > 0.75
        assert np.abs(np.diff(mask, axis=0)).max() < 30 / size
        np.testing.assert_array_equal(mask, mask[::-1])
        np.testing.assert_array_equal(mask, mask.T)

    def test_it_cannot_be_changed_by_accident(self) -> None:
        with pytest.raises(ValueError):
            feather(64)[0, 0] = 1


def enhanced(region: NDArray[np.uint8], matrix: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """What an identity restorer makes of a region, with the whole crop pasted."""
    cut = crop(region, matrix, size)
    return region + paste(region, cut, cut, feather(size), matrix)


class TestPaste:
    @pytest.mark.parametrize("degrees", [0.0, 11.0])
    @pytest.mark.parametrize("times", [1.0, 1.3, 2.0, 4.0])
    def test_a_face_larger_than_the_model_is_untouched_by_the_identity(self, times: float, degrees: float) -> None:
        # The stated figure: gradient energy out / in, at 1 to 4 times the model's size, is exactly 1.
        side = int(64 * times * 1.5)
        region = texture(side, side, sigma=0.5)
        out = enhanced(region, about_centre(64, 64 * times, degrees, side, side), 64)
        assert gradient_energy(out) / gradient_energy(region.astype(np.float32)) == 1
        np.testing.assert_array_equal(out, region)

    @pytest.mark.parametrize("times", [2.0, 4.0])
    def test_detail_above_the_model_survives_a_smoothing_restorer(self, times: float) -> None:
        # A restorer that flattens the face to gray takes what the crop carries; the band above it is the region's own.
        side = int(64 * times * 1.5)
        n = np.arange(side)
        fine = np.round(127.5 + 60 * np.sin(2 * np.pi * 0.45 * n)).astype(np.uint8)
        region = np.repeat(np.broadcast_to(fine[None, :], (side, side))[..., None], 3, axis=2)
        matrix = about_centre(64, 64 * times, 0, side, side)
        cut = crop(region, matrix, 64)
        out = region + paste(region, cut, np.full_like(cut, 128), feather(64), matrix)
        middle = np.s_[side // 3 : -side // 3, side // 3 : -side // 3]
        assert gradient_energy(out[middle]) / gradient_energy(region[middle].astype(np.float32)) > 0.99

    @pytest.mark.parametrize("times", [1.5, 3.0])
    @pytest.mark.parametrize("sigma", [2.0, 12.0])
    def test_noise_above_the_model_goes_where_the_network_took_it_out(self, times: float, sigma: float) -> None:
        # Gray noise over a flat face, and a restorer that finds the flat face. Noise of 2 codes a pixel is left in the
        # region as texture (it is hardly seen in the crop); of 12 codes, less than half stays.
        side = int(64 * times * 1.5)
        noise = np.random.default_rng(3).normal(0, sigma, (side, side, 1))
        region = np.round(np.clip(120 + noise.repeat(3, 2), 0, 255)).astype(np.uint8)
        matrix = about_centre(64, 64 * times, 0, side, side)
        cut = crop(region, matrix, 64)
        out = region + paste(region, cut, np.full_like(cut, 120), feather(64), matrix)
        middle = np.s_[side // 3 : -side // 3, side // 3 : -side // 3]
        left = out[middle].std() / region[middle].std()
        assert left < 0.5 if sigma == 12 else left > 0.7
        same = region + paste(region, cut, cut, feather(64), matrix)
        np.testing.assert_array_equal(same, region)

    @pytest.mark.parametrize("times", [0.9, 0.7, 0.5, 0.25, 0.15])
    @pytest.mark.parametrize(("sigma", "ratio", "least"), [(1.0, 0.99, 64), (0.5, 0.965, 55)])
    def test_a_small_face_is_not_softened_worth_seeing(
        self, times: float, sigma: float, ratio: float, least: float
    ) -> None:
        # The stated figure, up to the crop and back: gradient energy out / in at least 0.99 and 64 dB at the sharpness
        # of a photograph, 0.965 and 55 dB for detail of one pixel.
        side = int(128 * times * 1.5)
        region = texture(side, side, sigma=sigma)
        out = enhanced(region, about_centre(128, 128 * times, 4, side, side), 128)
        assert ratio < gradient_energy(out) / gradient_energy(region.astype(np.float32)) < 1.01
        assert psnr(out, region.astype(np.float32)) > least

    def test_a_small_face_is_replaced_altogether(self) -> None:
        # Noise in the region doesn't shine through: inside the mask the output is the restored colour.
        region = np.random.default_rng(3).integers(0, 256, (60, 60, 3), np.uint8)
        matrix = about_centre(128, 40, 5, 60, 60)
        restored = np.full((128, 128, 3), (200, 100, 50), np.uint8)
        out = region + paste(region, crop(region, matrix, 128), restored, feather(128), matrix)
        np.testing.assert_allclose(out[22:38, 22:38], np.broadcast_to((200, 100, 50), (16, 16, 3)), atol=1e-2)

    def test_a_restored_face_is_reduced_without_aliasing(self) -> None:
        region = np.full((60, 60, 3), 128, np.uint8)
        matrix = about_centre(128, 40, 0, 60, 60)
        wave = np.round(127.5 + 100 * np.sin(2 * np.pi * 0.25 * np.arange(128))).astype(np.uint8)
        restored = np.repeat(np.broadcast_to(wave[None, :], (128, 128))[..., None], 3, axis=2)
        delta = paste(region, np.full_like(restored, 128), restored, feather(128), matrix)
        assert np.abs(delta[24:36, 24:36]).max() < 5

    @pytest.mark.parametrize("times", [0.3, 0.8, 1.0, 2.5])
    def test_a_brighter_face_adds_the_mask(self, times: float) -> None:
        side = int(128 * times * 1.4)
        region = np.full((side, side, 3), 100, np.uint8)
        matrix = about_centre(128, 128 * times, -8, side, side)
        cut = crop(region, matrix, 128)
        delta = paste(region, cut, cut + 40, feather(128), matrix)
        weight = cv2.warpAffine(feather(128), matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        np.testing.assert_allclose(delta, 40 * np.repeat(weight[..., None], 3, axis=2), atol=1.0)

    @pytest.mark.parametrize("times", [0.2, 0.8, 1.0, 3.0])
    def test_it_is_exactly_zero_outside_the_mask(self, times: float) -> None:
        rng = np.random.default_rng(5)
        side = int(128 * times * 2)
        region = rng.integers(0, 256, (side, side, 3), np.uint8)
        matrix = about_centre(128, 128 * times, 15, side, side)
        mask = feather(128) * (np.arange(128) < 60)
        restored = rng.integers(0, 256, (128, 128, 3), np.uint8)
        delta = paste(region, crop(region, matrix, 128), restored, mask.astype(np.float32), matrix)
        y, x = np.mgrid[0:side, 0:side]
        u, v = np.moveaxis(apply(matrix, np.stack([x, y], axis=2).reshape(-1, 2)).reshape(side, side, 2), 2, 0)
        reach = 4 * max(1, 1 / times)
        near = (u > -reach) & (u < 60 + reach) & (v > -reach) & (v < 127 + reach)
        assert np.abs(delta[near]).max() > 10
        assert not delta[~near].any()
        assert delta.shape == region.shape and delta.dtype == np.float32

    def test_no_mask_no_change(self) -> None:
        region, cut = texture(50, 50), np.zeros((64, 64, 3), np.uint8)
        matrix = about_centre(64, 40, 0, 50, 50)
        assert not paste(region, cut, cut + 9, np.zeros((64, 64), np.float32), matrix).any()
        assert not paste(region, cut, cut + 9, feather(64), similarity(1, 0, 900, 0)).any()

    def test_a_zooming_face_does_not_pop(self) -> None:
        # The share of detail kept goes from none to all without a step, and so does the picture.
        times = np.linspace(0.6, 1.1, 51)
        kept = np.array([detail_kept(similarity(1 / t, 20, 0, 0)) for t in times])
        assert kept[0] == 0 and kept[-1] == 1 and (np.diff(kept) >= 0).all() and np.diff(kept).max() < 0.06

        region, crops = texture(200, 200, sigma=0.7), np.full((128, 128, 3), 90, np.uint8)
        centre = []
        for t in times:
            matrix = about_centre(128, 128 * t, 0, 200, 200)
            delta = paste(region, crop(region, matrix, 128), crops, feather(128), matrix)
            centre.append((region + delta)[90:110, 90:110].std())
        assert np.abs(np.diff(centre)).max() < 1.0

    def test_wide_pixels(self) -> None:
        matrix = np.array([[1.4, 0.2, 3.0], [-0.28, 1.0, 30.0]])
        region = texture(120, 90, sigma=1.5)
        cut = crop(region, matrix, 128)
        delta = paste(region, cut, cut, feather(128), matrix)
        assert psnr(region + delta, region.astype(np.float32)) > 45
