"""A face cut out of its picture and put back, in the samples of the picture: what changes, by how much, what never."""

from __future__ import annotations

import av
import numpy as np
import pytest
from test_align import about_centre
from test_media_pixels import NAMED, cases, exact_picture, scene, weights

from gpenvid.faces.align import crop, feather
from gpenvid.media.layouts import LAYOUTS, samples
from gpenvid.media.planes import layers
from gpenvid.patch import cut_out, put_back

SIZE = 32
ODD = (123, 87)


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
def test_a_face_is_cut_out_in_its_colours(name: str, space: int, full: bool, face: int) -> None:
    rgb = scene(ODD, slow=True)
    if LAYOUTS[name].model == "gray":
        rgb = np.repeat((rgb @ weights(space, ODD[1]))[..., None], 3, axis=2)
    matrix = about_centre(SIZE, face, 10, *ODD)
    got = cut_out(exact_picture(name, rgb, space, full), matrix, SIZE)
    assert got is not None and got.dtype == np.uint8
    expected = crop(np.rint(rgb).astype(np.uint8), matrix, SIZE).astype(int)
    assert np.abs(got - expected).max() <= 3
    assert np.abs(got - expected).mean() < 1


@pytest.mark.parametrize("name", NAMED)
def test_what_lies_outside_the_mask_keeps_every_bit(name: str) -> None:
    frame = noisy(name)
    matrix = about_centre(SIZE, 50, 10, *ODD)
    before, bits = numbers(frame), everything(frame)
    cut = cut_out(frame, matrix, SIZE)
    assert cut is not None and everything(frame) == bits
    put_back(frame, matrix, cut, np.random.default_rng(2).integers(0, 256, cut.shape, np.uint8), feather(SIZE))
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
def test_an_unchanged_large_face_changes_no_bit(name: str) -> None:
    frame = noisy(name)
    matrix = about_centre(SIZE, 60, -20, *ODD)
    before, cut = everything(frame), cut_out(frame, matrix, SIZE)
    assert cut is not None
    put_back(frame, matrix, cut, cut.copy(), feather(SIZE))
    assert everything(frame) == before


@pytest.mark.parametrize("face", [16, 60])
@pytest.mark.parametrize(("name", "space", "full"), cases())
def test_a_colour_moves_every_sample_by_its_formula(name: str, space: int, full: bool, face: int) -> None:
    # In the middle of a flat face, whether it is larger or smaller than the model.
    old, new = np.array([90.0, 110.0, 130.0]), np.array([150.0, 100.0, 120.0])
    if LAYOUTS[name].model == "gray":
        old, new = np.full(3, 110.0), np.full(3, 150.0)
    frame = exact_picture(name, np.broadcast_to(old, (*ODD[::-1], 3)).copy(), space, full)
    target = exact_picture(name, np.broadcast_to(new, (*ODD[::-1], 3)).copy(), space, full)
    matrix = about_centre(SIZE, face, 5, *ODD)
    cut = cut_out(frame, matrix, SIZE)
    assert cut is not None
    put_back(frame, matrix, cut, np.broadcast_to(np.rint(new), cut.shape).astype(np.uint8), feather(SIZE))
    unit = 1 << (LAYOUTS[name].depth - 8)
    for got, wanted in zip(numbers(frame), numbers(target), strict=True):
        height, width = got.shape
        assert abs(got[height // 2, width // 2] - wanted[height // 2, width // 2]) <= 2 * unit


def test_a_face_outside_the_picture_is_none() -> None:
    frame = noisy("yuv420p")
    matrix = about_centre(SIZE, 50, 0, *ODD)
    matrix[:, 2] += 300
    assert cut_out(frame, matrix, SIZE) is None
    before = everything(frame)
    put_back(frame, matrix, np.zeros((SIZE, SIZE, 3), np.uint8), np.full((SIZE, SIZE, 3), 9, np.uint8), feather(SIZE))
    assert everything(frame) == before


def test_what_cannot_be_edited_is_refused() -> None:
    with pytest.raises(ValueError, match="pal8 can't be edited"):
        layers(av.VideoFrame(64, 48, "pal8"))
