"""A face cut out of its picture and put back, in the samples of the picture: what changes, by how much, what never.

By OpenCV and by PyTorch alike.
"""

from __future__ import annotations

import av
import numpy as np
import pytest
from test_align import about_centre, texture
from test_media_pixels import NAMED, cases, exact_picture, scene, weights

from gpenvid import patch
from gpenvid.faces.align import crop, feather
from gpenvid.media.layouts import LAYOUTS, samples
from gpenvid.media.planes import layers
from gpenvid.patch import Patch
from gpenvid.patch_torch import TorchPatch

SIZE = 32
ODD = (123, 87)


@pytest.fixture(params=["opencv", "torch"])
def way(request: pytest.FixtureRequest) -> Patch:
    return patch if request.param == "opencv" else TorchPatch("cpu")


def everything(frame: av.VideoFrame) -> list[bytes]:
    """Every byte of every plane, padding and alpha too."""
    return [bytes(plane) for plane in frame.planes]


def noisy(name: str, size: tuple[int, int] = ODD) -> av.VideoFrame:
    """A picture of random bytes: illegal values, unused bits and alpha too."""
    rng = np.random.default_rng(1)
    frame = av.VideoFrame(*size, name)
    frame.colorspace, frame.color_range = 1, 1
    for plane in frame.planes:
        np.frombuffer(memoryview(plane), np.uint8)[:] = rng.integers(0, 256, plane.buffer_size, np.uint8)
    return frame


def numbers(frame: av.VideoFrame) -> list[np.ndarray]:
    layout = LAYOUTS[frame.format.name]
    return [samples(frame, component, layout).astype(np.int64) >> layout.shift for component in layout.components]


@pytest.mark.parametrize("face", [20, 70])
@pytest.mark.parametrize(("name", "space", "full"), cases())
def test_a_face_is_cut_out_in_its_colours(way: Patch, name: str, space: int, full: bool, face: int) -> None:
    rgb = scene(ODD, slow=True)
    if LAYOUTS[name].model == "gray":
        rgb = np.repeat((rgb @ weights(space, ODD[1]))[..., None], 3, axis=2)
    matrix = about_centre(SIZE, face, 10, *ODD)
    got = way.cut_out(exact_picture(name, rgb, space, full), matrix, SIZE)
    assert got is not None and got.dtype == np.uint8
    expected = crop(np.rint(rgb).astype(np.uint8), matrix, SIZE).astype(int)
    assert np.abs(got - expected).max() <= 3
    assert np.abs(got - expected).mean() < 1


@pytest.mark.parametrize("name", NAMED)
def test_what_lies_outside_the_mask_keeps_every_bit(way: Patch, name: str) -> None:
    frame = noisy(name)
    matrix = about_centre(SIZE, 50, 10, *ODD)
    before, bits = numbers(frame), everything(frame)
    cut = way.cut_out(frame, matrix, SIZE)
    assert cut is not None and everything(frame) == bits
    way.put_back(frame, matrix, cut, np.random.default_rng(2).integers(0, 256, cut.shape, np.uint8), feather(SIZE))
    for layer_grain, old, new in zip(grains(name), before, numbers(frame), strict=True):
        y, x = np.mgrid[0 : old.shape[0], 0 : old.shape[1]]
        u, v = np.moveaxis(np.dstack([x * layer_grain[0], y * layer_grain[1]]) @ matrix[:, :2].T + matrix[:, 2], 2, 0)
        far = np.maximum(np.abs(u - (SIZE - 1) / 2), np.abs(v - (SIZE - 1) / 2)) > SIZE / 2 + 4
        assert far.any() and (old != new).any()
        np.testing.assert_array_equal(new[far], old[far])


def grains(name: str) -> list[tuple[float, float]]:
    layout = LAYOUTS[name]
    coarse = (2.0**layout.log2_x, 2.0**layout.log2_y)
    return [(1.0, 1.0), coarse, coarse] if layout.model == "yuv" else [(1.0, 1.0)] * len(layout.components)


@pytest.mark.parametrize("name", NAMED)
def test_an_unchanged_large_face_changes_no_bit(way: Patch, name: str) -> None:
    frame = noisy(name)
    matrix = about_centre(SIZE, 60, -20, *ODD)
    before, cut = everything(frame), way.cut_out(frame, matrix, SIZE)
    assert cut is not None
    way.put_back(frame, matrix, cut, cut.copy(), feather(SIZE))
    assert everything(frame) == before


@pytest.mark.parametrize("face", [16, 60])
@pytest.mark.parametrize(("name", "space", "full"), cases())
def test_a_colour_moves_every_sample_by_its_formula(way: Patch, name: str, space: int, full: bool, face: int) -> None:
    # In the middle of a flat face, whether it is larger or smaller than the model.
    old, new = np.array([90.0, 110.0, 130.0]), np.array([150.0, 100.0, 120.0])
    if LAYOUTS[name].model == "gray":
        old, new = np.full(3, 110.0), np.full(3, 150.0)
    frame = exact_picture(name, np.broadcast_to(old, (*ODD[::-1], 3)).copy(), space, full)
    target = exact_picture(name, np.broadcast_to(new, (*ODD[::-1], 3)).copy(), space, full)
    matrix = about_centre(SIZE, face, 5, *ODD)
    cut = way.cut_out(frame, matrix, SIZE)
    assert cut is not None
    way.put_back(frame, matrix, cut, np.broadcast_to(np.rint(new), cut.shape).astype(np.uint8), feather(SIZE))
    unit = 1 << (LAYOUTS[name].depth - 8)
    for got, wanted in zip(numbers(frame), numbers(target), strict=True):
        height, width = got.shape
        assert abs(got[height // 2, width // 2] - wanted[height // 2, width // 2]) <= 2 * unit


def test_a_face_outside_the_picture_is_none(way: Patch) -> None:
    frame = noisy("yuv420p")
    matrix = about_centre(SIZE, 50, 0, *ODD)
    matrix[:, 2] += 300
    assert way.cut_out(frame, matrix, SIZE) is None
    before = everything(frame)
    way.put_back(
        frame, matrix, np.zeros((SIZE, SIZE, 3), np.uint8), np.full((SIZE, SIZE, 3), 9, np.uint8), feather(SIZE)
    )
    assert everything(frame) == before


def test_what_cannot_be_edited_is_refused() -> None:
    with pytest.raises(ValueError, match="pal8 can't be edited"):
        layers(av.VideoFrame(64, 48, "pal8"))


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "p010le", "yuv422p10le", "gbrp10le", "rgb24", "gray", "gray16be"])
@pytest.mark.parametrize("face", [14, 40, 90, 300])
def test_both_ways_agree_but_for_rounding(name: str, face: int) -> None:
    rgb = texture(*ODD[::-1]).astype(float)
    if LAYOUTS[name].model == "gray":
        rgb = np.repeat((rgb @ weights(1, ODD[1]))[..., None], 3, axis=2)
    one, other = exact_picture(name, rgb, 1, False), exact_picture(name, rgb, 1, False)
    matrix, mask = about_centre(SIZE, face, 10, *ODD), feather(SIZE) * np.float32(0.9)
    cut, also = patch.cut_out(one, matrix, SIZE), TorchPatch("cpu").cut_out(other, matrix, SIZE)
    assert cut is not None and also is not None and also.dtype == np.uint8
    assert np.abs(cut.astype(int) - also).max() <= 2
    assert np.abs(cut.astype(int) - also).mean() < 0.25
    noise = 10 * np.random.default_rng(1).standard_normal(cut.shape)
    restored = np.clip(cut + noise + [40, -20, 10], 0, 255).astype(np.uint8)
    before = numbers(one)
    patch.put_back(one, matrix, cut, restored, mask)
    TorchPatch("cpu").put_back(other, matrix, cut, restored, mask)
    unit = 1 << (LAYOUTS[name].depth - 8)
    for a, b, old in zip(numbers(one), numbers(other), before, strict=True):
        assert np.abs(a - b).max() <= unit
        assert np.abs(a - b).mean() < 0.1 * unit
        assert np.abs(a - old).max() > 3 * unit


def test_a_face_crosses_to_the_device_once_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    crossings: list[str] = []
    way = TorchPatch("cpu")
    for name in ("_upload", "_download"):
        across = getattr(way, name)
        monkeypatch.setattr(way, name, lambda *args, name=name, across=across: crossings.append(name) or across(*args))
    frame, matrix = noisy("yuv420p"), about_centre(SIZE, 40, 0, *ODD)
    cut = way.cut_out(frame, matrix, SIZE)
    assert crossings == ["_upload", "_download"]
    assert cut is not None
    way.put_back(frame, matrix, cut, 255 - cut, feather(SIZE))
    assert crossings == ["_upload", "_download"] * 2


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["yuv420p", "p010le", "rgb24"])
def test_a_graphics_card_agrees_but_for_rounding(name: str) -> None:
    rgb, matrix = texture(*ODD[::-1]).astype(float), about_centre(SIZE, 60, 10, *ODD)
    frames = [exact_picture(name, rgb, 1, False) for _ in range(2)]
    ways: list[Patch] = [patch, TorchPatch("cuda")]
    cuts = [way.cut_out(frame, matrix, SIZE) for way, frame in zip(ways, frames, strict=True)]
    assert cuts[0] is not None and cuts[1] is not None
    assert np.abs(cuts[0].astype(int) - cuts[1]).max() <= 2
    for way, frame in zip(ways, frames, strict=True):
        way.put_back(frame, matrix, cuts[0], 255 - cuts[0], feather(SIZE))
    unit = 1 << (LAYOUTS[name].depth - 8)
    for a, b in zip(numbers(frames[0]), numbers(frames[1]), strict=True):
        assert np.abs(a - b).max() <= unit
