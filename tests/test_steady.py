"""The flicker filter: less flicker, nothing lost, no ghosts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gpenvid import metrics
from gpenvid.faces.steady import FlickerFilter
from gpenvid.types import Image

S = 128


def _texture(seed: int, sigma: float, contrast: float) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((S, S, 3))
    soft = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.asarray(contrast * soft / soft.std())


FACE = np.clip(128 + _texture(0, 8, 40), 0, 255)
DETAIL = _texture(1, 1, 10)


def _uint8(picture: np.ndarray) -> Image:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _clip(count: int = 40, input_noise: float = 0.0) -> tuple[list[Image], list[Image]]:
    """Crops of a still face, and what a network that flickers adds: the true detail and another one each time."""
    crops = [_uint8(FACE + np.random.default_rng(900 + k).normal(0, input_noise, FACE.shape)) for k in range(count)]
    return crops, [_uint8(crops[k] + DETAIL + _texture(100 + k, 1, 12)) for k in range(count)]


def _filter(crops: list[Image], restored: list[Image], stability: float = 50.0, rate: float = 25.0) -> np.ndarray:
    steady = FlickerFilter(stability)
    return np.stack([steady.update(1, k / rate, c, r) for k, (c, r) in enumerate(zip(crops, restored, strict=True))])


def test_flicker_is_more_than_halved_and_the_picture_is_truer() -> None:
    crops, restored = _clip()
    steady, truth = _filter(crops, restored)[5:], _uint8(FACE + DETAIL)
    still = np.zeros((len(steady) - 1, S, S, 2))
    assert metrics.e_warp(steady, still) < 0.2 * metrics.e_warp(np.stack(restored[5:]), still)
    assert metrics.temporal_std(steady) < 0.5 * metrics.temporal_std(np.stack(restored[5:]))
    for a, b in zip(steady, restored[5:], strict=True):
        assert metrics.psnr(a, truth) > metrics.psnr(b, truth) + 4


def test_detail_is_carried_along_with_the_face() -> None:
    """The face moves through the crop by 1.5 pixels a picture, and the network adds another texture each time."""
    wide = cv2.copyMakeBorder(np.float32(FACE), 0, 0, 0, 60, cv2.BORDER_REFLECT)
    crops = [
        _uint8(cv2.warpAffine(wide, np.array([[1, 0, -1.5 * k], [0, 1, 0]]), (S, S), flags=cv2.INTER_CUBIC))
        for k in range(30)
    ]
    restored = [_uint8(crop + _texture(100 + k, 1, 12)) for k, crop in enumerate(crops)]
    flows = np.zeros((24, S, S, 2))
    flows[..., 0] = 1.5
    steady = _filter(crops, restored, 25)
    assert metrics.e_warp(steady[5:], flows) < 0.5 * metrics.e_warp(np.stack(restored[5:]), flows)
    assert metrics.psnr(steady[20], crops[20]) > metrics.psnr(restored[20], crops[20]) + 3


def test_light_passes_as_it_is() -> None:
    """A lamp that flickers lights the face and what is around it alike: a filtered face would stand out."""
    crops = [_uint8(FACE * (1.0 if k % 2 else 0.8)) for k in range(20)]
    steady = _filter(crops, [_uint8(crop + DETAIL) for crop in crops], 100)
    for k in range(20):
        assert abs(float(steady[k].mean()) - float((crops[k] + DETAIL).mean())) < 0.5


def test_noise_in_the_input_does_not_switch_it_off() -> None:
    crops, restored = _clip(input_noise=6)
    added = np.stack(restored[10:]).astype(float) - np.stack(crops[10:])
    left = _filter(crops, restored)[10:].astype(float) - np.stack(crops[10:])
    assert left.std(0).mean() < 0.6 * added.std(0).mean()


def test_more_stability_is_steadier_and_none_is_none() -> None:
    crops, restored = _clip()
    flicker = [metrics.temporal_std(_filter(crops, restored, s)[10:]) for s in (0, 25, 50, 100)]
    assert flicker == sorted(flicker, reverse=True) and len(set(flicker)) == 4
    np.testing.assert_array_equal(_filter(crops, restored, 0), np.stack(restored))


def test_a_network_that_changes_nothing_changes_nothing_however_noisy_and_quick_the_face() -> None:
    rng = np.random.default_rng(0)
    crops = [_uint8(np.roll(FACE, k // 2, 1) + rng.normal(0, 8, FACE.shape)) for k in range(20)]
    np.testing.assert_array_equal(_filter(crops, crops, 100), np.stack(crops))


def test_the_more_a_network_changes_the_more_is_averaged() -> None:
    """Up to one code, that is: there is no step between a network that does nothing and one that does a little."""
    crops = _clip(20, input_noise=6)[0]
    signs = [np.random.default_rng(50 + k).choice([-1, 1], FACE.shape) for k in range(20)]
    left = []
    for share in (0.0, 0.2, 0.5, 1.0):  # of the samples are changed by one code: an RMS of its square root
        few = np.random.default_rng(1).random(FACE.shape) < share
        restored = [_uint8(crop + few * sign) for crop, sign in zip(crops, signs, strict=True)]
        steady = _filter(crops, restored, 100)[10:].astype(float)
        left.append(metrics.temporal_std(steady) / metrics.temporal_std(np.stack(restored[10:])))
    assert left[0] == 1 and left == sorted(left, reverse=True) and left[-1] < 0.7


def test_time_counts_not_pictures() -> None:
    crops, restored = _clip()
    fast, slow = (metrics.temporal_std(_filter(crops, restored, rate=rate)[20:]) for rate in (60, 10))
    assert fast < 0.6 * slow


def test_the_first_picture_of_a_track_passes_as_it_is() -> None:
    crops, restored = _clip(2)
    steady = FlickerFilter()
    np.testing.assert_array_equal(steady.update(7, 0, crops[0], restored[0]), restored[0])
    np.testing.assert_array_equal(steady.update(8, 0, crops[1], restored[1]), restored[1])


@pytest.mark.parametrize("size", [8, 20])
def test_a_blink_leaves_no_ghost(size: int) -> None:
    """An eye of a few pixels closes for three pictures; the network draws it well both ways."""
    eye = (slice(40, 40 + size // 2), slice(30, 30 + size))
    crops, restored = [], []
    for k in range(30):
        look = FACE.copy()
        look[eye] = 40 if not 15 <= k < 18 else 170
        drawn = look + DETAIL
        drawn[eye] = 10 if not 15 <= k < 18 else 190
        crops.append(_uint8(look))
        restored.append(_uint8(drawn))
    steady = _filter(crops, restored, 100)
    for k in range(30):
        assert np.abs(steady[k][eye].astype(float) - restored[k][eye]).mean() < 4, k


def test_a_cut_to_another_face_on_the_same_track_leaves_no_ghost() -> None:
    other = np.clip(128 + _texture(50, 8, 40), 0, 255)
    crops = [_uint8(FACE)] * 10 + [_uint8(other)] * 3
    restored = [_uint8(FACE + DETAIL)] * 10 + [_uint8(other + _texture(51, 1, 10))] * 3
    steady = _filter(crops, restored, 100)
    assert np.abs(steady[10].astype(float) - restored[10]).mean() < 1.5


def test_a_slow_turn_leaves_no_trail() -> None:
    """The face moves through the crop by a fifth of a pixel a picture: each step is small, the sum is not."""
    wide = cv2.GaussianBlur(np.random.default_rng(3).standard_normal((S, S + 40, 3)), (0, 0), 3)
    wide = 128 + 45 * wide / wide.std()
    crops, restored = [], []
    for k in range(60):
        matrix = np.array([[1, 0, -0.2 * k], [0, 1, 0]])
        look = cv2.warpAffine(wide, matrix, (S, S), borderMode=cv2.BORDER_REFLECT)
        crops.append(_uint8(look))
        restored.append(_uint8(128 + 1.3 * (look - 128)))
    steady = _filter(crops, restored, 100)
    for k in range(20, 60):
        assert metrics.psnr(steady[k], restored[k]) > 38


def test_tracks_are_kept_apart_forgotten_and_dropped_when_old() -> None:
    crops, restored = _clip(3)
    steady = FlickerFilter()
    for track in range(50):
        steady.update(track, 0, crops[0], restored[0])
    steady.forget(3)
    steady.forget(3)
    np.testing.assert_array_equal(steady.update(3, 0.04, crops[1], restored[1]), restored[1])
    assert not np.array_equal(steady.update(4, 0.04, crops[1], restored[1]), restored[1])
    steady.update(99, 5, crops[2], restored[2])
    assert list(steady._memories) == [99]
    steady.reset()
    np.testing.assert_array_equal(steady.update(99, 5.04, crops[0], restored[0]), restored[0])


def test_going_back_in_time_or_to_another_size_starts_anew() -> None:
    crops, restored = _clip(3)
    steady = FlickerFilter()
    steady.update(1, 1.0, crops[0], restored[0])
    np.testing.assert_array_equal(steady.update(1, 0.9, crops[1], restored[1]), restored[1])
    half = [cv2.resize(picture, (64, 64)) for picture in (crops[2], restored[2])]
    np.testing.assert_array_equal(steady.update(1, 0.95, *half), half[1])


@pytest.mark.parametrize("side", [16, 64, 256, 512])
def test_any_size(side: int) -> None:
    crop = np.full((side, side, 3), 100, np.uint8)
    steady = FlickerFilter(100)
    for k in range(20):
        out = steady.update(1, k / 25, crop, crop + np.uint8(20 * (k % 2)))
    assert out.shape == crop.shape and out.dtype == np.uint8
    assert abs(float(out.mean()) - 110) < 4


def test_stability_is_refused_out_of_range() -> None:
    with pytest.raises(ValueError, match="-1"):
        FlickerFilter(-1)
