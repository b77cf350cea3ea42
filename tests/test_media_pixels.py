"""Regions of a picture in its own pixel format."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import Clip, make_clip, planes_of

from gpenvid.media.color import convert
from gpenvid.media.layouts import LAYOUTS, samples
from gpenvid.media.pixels import EDITABLE, PictureTags, add_region, get_tags, read_region, set_tags, thumbnail
from gpenvid.media.reader import Reader

ODD = (71, 53)
RANGES = {"limited": 1, "full": 2}
_NAMES = (
    "yuv420p yuv422p yuv444p yuv440p yuv411p yuv410p yuvj420p yuvj422p yuvj444p yuva420p yuva444p "
    "nv12 nv21 nv16 yuyv422 uyvy422 yuv420p10le yuv422p10le yuv444p10le p010le yuv420p12le yuv422p12le yuv444p12le "
    "gray gray10le gray12le gray16le ya8 rgb24 bgr24 rgba bgra argb abgr rgb0 bgr0 rgb48le rgb48be rgba64le "
    "gbrp gbrp10le gbrp12le gbrp16le gbrap"
)
NAMED = _NAMES.split()


def scene(size: tuple[int, int], *, slow: bool = False) -> np.ndarray:
    """A smooth picture, float RGB in [0, 255], nowhere near clipping."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    period = 60 if slow else 25
    red = 125 + 60 * np.sin(x / period) * np.cos(y / (period + 7))
    green = 120 + 55 * np.cos(x / (period + 9) + y / period)
    blue = 130 + 60 * np.sin(y / (period + 3) + 1)
    return np.dstack([red, green, blue])


def weights(space: int, height: int) -> tuple[float, float, float]:
    """Red, green and blue in luma; ITU-R BT.601, BT.709, BT.2020; without a tag, by the number of lines."""
    known = {1: (0.2126, 0.7152, 0.0722), 5: (0.299, 0.587, 0.114), 9: (0.2627, 0.678, 0.0593)}
    return known.get(space) or known[1 if height >= 720 else 5]


def exact_planes(rgb: np.ndarray, space: int, full: bool, depth: int) -> list[np.ndarray]:
    """Float Y, Cb, Cr of the whole picture at full resolution, in samples of that depth: the textbook's formulas."""
    kr, kg, kb = weights(space, len(rgb))
    red, green, blue = np.moveaxis(rgb / 255, 2, 0)
    y = kr * red + kg * green + kb * blue
    cb, cr = (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)
    if full:
        top = 2**depth - 1
        return [y * top, cb * top + 2 ** (depth - 1), cr * top + 2 ** (depth - 1)]
    unit = 2 ** (depth - 8)
    return [(16 + 219 * y) * unit, (128 + 224 * cb) * unit, (128 + 224 * cr) * unit]


def exact_picture(name: str, rgb: np.ndarray, space: int, full: bool, location: str = "left") -> av.VideoFrame:
    """A picture in any editable format, sampled from the textbook's planes at the very places where chroma sits."""
    layout = LAYOUTS[name]
    height, width = rgb.shape[:2]
    frame = av.VideoFrame(width, height, name)
    frame.colorspace, frame.color_range = space, 2 if full else 1
    if layout.model == "rgb":
        planes = list(np.moveaxis(rgb * (layout.top / 255), 2, 0))
    elif layout.model == "gray":
        planes = [exact_planes(rgb, space, full, layout.depth)[0]]
    else:
        planes = exact_planes(rgb, space, full, layout.depth)
    shifts = {"left": (0, 0.5), "center": (0.5, 0.5), "topleft": (0, 0), "top": (0.5, 0)}[location]
    for index, (plane, component) in enumerate(zip(planes, layout.components, strict=True)):
        target = samples(frame, component, layout)
        if index and layout.model == "yuv":
            across = shifts[0] if layout.log2_x == 1 else 0
            down = shifts[1] if layout.log2_y == 1 else (2**layout.log2_y - 1) / 2
            plane = sample(
                sample(plane, target.shape[0], 2**layout.log2_y, down).T, target.shape[1], 2**layout.log2_x, across
            ).T
        target[:] = (np.rint(plane).astype(np.int64) << layout.shift).astype(target.dtype)
    set_tags(frame, PictureTags(chroma_location=location))
    return frame


def sample(plane: np.ndarray, count: int, factor: int, phase: float) -> np.ndarray:
    """Rows at phase, phase + factor, ...; between two rows, their mean by distance."""
    at = np.clip(np.arange(count) * factor + phase, 0, len(plane) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(plane) - 1)
    share = (at - low)[:, None]
    return plane[low] * (1 - share) + plane[high] * share


def full_or_not(name: str, wanted: bool) -> bool:
    return wanted or LAYOUTS[name].full or LAYOUTS[name].model == "rgb"


def cases() -> list[tuple[str, int, bool]]:
    found = []
    for name in NAMED:
        layout = LAYOUTS[name]
        for space in (1, 5, 9) if layout.model == "yuv" else (1,):
            for full in (False, True) if not layout.full and layout.model != "rgb" else (True,):
                found.append((name, space, full))
    return found


def test_the_formats_of_the_brief_are_editable() -> None:
    assert set(NAMED) <= EDITABLE == frozenset(LAYOUTS)


@pytest.mark.parametrize(("name", "space", "full"), cases())
def test_reading_agrees_with_the_textbook(name: str, space: int, full: bool) -> None:
    rgb = scene(ODD)
    frame = exact_picture(name, rgb, space, full)
    expected = (
        np.repeat(rgb @ np.array(weights(space, ODD[1]))[:, None], 3, axis=2) if LAYOUTS[name].model == "gray" else rgb
    )
    region = read_region(frame, 0, 0, *ODD)
    assert region.shape == (ODD[1], ODD[0], 3)
    assert region.dtype == np.uint8
    inner = np.abs(region - expected)[4:-4, 4:-4]
    # Rounding of luma and chroma to 8 bits costs up to 2 codes in blue; interpolation over 4 pixels some more.
    assert inner.max() <= (4.5 if name in ("yuv410p", "yuv411p") else 2.5)
    for x0, y0, x1, y1 in ((3, 5, 4, 6), (11, 8, 40, 33), (0, 1, 71, 2), (70, 52, 71, 53), (2, 0, 3, 53)):
        np.testing.assert_array_equal(read_region(frame, x0, y0, x1, y1), region[y0:y1, x0:x1])


@pytest.mark.parametrize(
    "name", ["yuv420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "gray", "rgb24", "gbrp", "bgra"]
)
@pytest.mark.parametrize("space", ["ITU601", "ITU709"])
@pytest.mark.parametrize("full", [False, True])
def test_reading_agrees_with_swscale(name: str, space: str, full: bool) -> None:
    """An independent conversion, on content that changes slowly enough for chroma interpolation not to matter."""
    rgb = scene((128, 96), slow=True).round().astype(np.uint8)
    source = av.VideoFrame.from_ndarray(rgb, "rgb24")
    full = full_or_not(name, full or name == "gray")
    frame = source.reformat(
        format=name,
        src_colorspace=space,
        dst_colorspace=space,
        src_color_range="JPEG",
        dst_color_range="JPEG" if full else "MPEG",
        interpolation="BICUBIC",
    )
    frame.colorspace, frame.color_range = {"ITU601": 5, "ITU709": 1}[space], 2 if full else 1
    reference = frame.reformat(
        format="rgb24",
        src_colorspace=space,
        dst_colorspace=space,
        src_color_range="JPEG" if full else "MPEG",
        dst_color_range="JPEG",
        interpolation=0x2000 | 0x40000 | 4,  # full chroma interpolation, accurate rounding, bicubic
    ).to_ndarray()
    difference = np.abs(read_region(frame, 0, 0, 128, 96).astype(int) - reference)
    assert difference[3:-3, 3:-3].max() <= 2


@pytest.mark.parametrize("location", ["left", "center", "topleft", "top"])
def test_chroma_is_read_from_where_it_sits(location: str) -> None:
    rgb = scene(ODD)
    frame = exact_picture("yuv420p12le", rgb, 1, False, location)
    error = np.abs(read_region(frame, 0, 0, *ODD) - rgb)[4:-4, 4:-4]
    assert error.max() <= 1.5
    for other in {"left", "center", "topleft", "top"} - {location}:
        set_tags(frame, PictureTags(chroma_location=other))
        assert np.abs(read_region(frame, 0, 0, *ODD) - rgb)[4:-4, 4:-4].mean() > 1.2 * error.mean()


def test_without_a_matrix_tag_small_pictures_are_601_and_large_ones_709() -> None:
    for height, space in ((576, 5), (720, 1)):
        rgb = np.tile(np.array([[[200.0, 60.0, 30.0]]]), (height, 16, 1))
        frame = exact_picture("yuv444p", rgb, space, False)
        frame.colorspace = 2
        assert np.abs(read_region(frame, 0, 0, 16, 16).astype(int) - [200, 60, 30]).max() <= 1


def smooth_bump(h: int, w: int) -> np.ndarray:
    """A difference that rises and falls smoothly to zero at its edges, unlike in the three channels."""
    y = np.sin(np.linspace(0, np.pi, h))[:, None] ** 2
    x = np.sin(np.linspace(0, np.pi, w))[None, :] ** 2
    return np.dstack([30 * y * x, -25 * y * x, 40 * y * x]).astype(np.float32)


@pytest.mark.parametrize(("name", "space", "full"), cases())
def test_adding_moves_what_is_read_by_the_difference(name: str, space: int, full: bool) -> None:
    frame = exact_picture(name, scene(ODD), space, full)
    before = read_region(frame, 0, 0, *ODD).astype(int)
    x0, y0, w, h = 13, 9, 45, 37
    delta = smooth_bump(h, w)
    frame.make_writable()
    add_region(frame, x0, y0, delta)
    moved = read_region(frame, 0, 0, *ODD).astype(int) - before
    expected = np.zeros((ODD[1], ODD[0], 3))
    expected[y0 : y0 + h, x0 : x0 + w] = delta
    if LAYOUTS[name].model == "gray":
        expected = np.repeat(expected @ np.array(weights(space, ODD[1]))[:, None], 3, axis=2)
    # Two roundings of the region, one of the samples; chroma of the bump is smoothed where it is subsampled.
    assert np.abs(moved - expected).max() <= (5 if name in ("yuv410p", "yuv411p") else 3)
    assert np.abs(moved - expected).mean() <= 0.6


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(
    "box", [(13, 9, 20, 15), (0, 0, 9, 9), (54, 37, 17, 16), (0, 0, 71, 53), (70, 52, 1, 1), (33, 0, 1, 53)]
)
def test_what_lies_outside_stays_bit_identical(name: str, box: tuple[int, int, int, int]) -> None:
    """Luma, gray, RGB: outside the rectangle. Chroma: beyond one chroma sample around it. Alpha: everywhere."""
    rng = np.random.default_rng(7)
    layout = LAYOUTS[name]
    frame = av.VideoFrame(*ODD, name)
    for plane in frame.planes:
        np.frombuffer(memoryview(plane), np.uint8)[:] = rng.integers(0, 256, plane.buffer_size, np.uint8)
    if layout.dtype != "u1":
        for component in layout.components:
            samples(frame, component, layout)[:] &= np.uint16(layout.top << layout.shift)
    before = planes_of(frame)
    old = [samples(frame, component, layout).copy() for component in layout.components]
    x0, y0, w, h = box
    add_region(frame, x0, y0, np.full((h, w, 3), [60, -50, 70], np.float32))
    touched = 0
    for index, component in enumerate(layout.components):
        new = samples(frame, component, layout)
        fx, fy = (2**layout.log2_x, 2**layout.log2_y) if index and layout.model == "yuv" else (1, 1)
        mask = np.zeros(new.shape, bool)
        reach = 1 if index and layout.model == "yuv" else 0
        left, top = x0 // fx - reach * (fx > 1), y0 // fy - reach * (fy > 1)
        right, bottom = (x0 + w - 1) // fx + reach * (fx > 1) + 1, (y0 + h - 1) // fy + reach * (fy > 1) + 1
        mask[max(0, top) : bottom, max(0, left) : right] = True
        np.testing.assert_array_equal(new[~mask], old[index][~mask])
        touched += int((new != old[index]).sum())
    assert touched > 0
    add_region(frame, x0, y0, np.zeros((h, w, 3), np.float32))
    alpha = alpha_of(frame, before)
    for now, then in alpha:
        np.testing.assert_array_equal(now, then)


def alpha_of(frame: av.VideoFrame, before: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The bytes that no colour component owns, now and before."""
    layout = LAYOUTS[frame.format.name]
    size = np.dtype(layout.dtype).itemsize
    found = []
    for index, (now, then) in enumerate(zip(planes_of(frame), before, strict=True)):
        owned = np.zeros(now.shape[1] // size, bool)
        for component in layout.components:
            if component.plane == index:
                owned[component.offset :: component.step] = True
        bytewise = np.repeat(owned, size)
        found.append((now[:, ~bytewise], then[:, ~bytewise]))
    return found


@pytest.mark.parametrize("name", NAMED)
def test_a_difference_of_zero_changes_no_bit(name: str) -> None:
    rng = np.random.default_rng(3)
    frame = av.VideoFrame(*ODD, name)
    for plane in frame.planes:
        np.frombuffer(memoryview(plane), np.uint8)[:] = rng.integers(0, 256, plane.buffer_size, np.uint8)
    before = [bytes(plane) for plane in frame.planes]
    add_region(frame, 5, 6, np.zeros((30, 40, 3), np.float32))
    assert [bytes(plane) for plane in frame.planes] == before


@pytest.mark.parametrize("location", ["left", "center", "topleft"])
def test_a_flat_difference_gives_flat_chroma_up_to_the_edges_of_the_picture(location: str) -> None:
    for size in ((64, 48), ODD):
        frame = exact_picture("yuv420p", np.full((size[1], size[0], 3), 120.0), 1, False, location)
        add_region(frame, 0, 0, np.full((size[1], size[0], 3), [50, 0, -50], np.float32))
        for plane in planes_of(frame):
            assert np.ptp(plane) == 0
        assert np.abs(read_region(frame, 0, 0, *size) - np.array([170.0, 120.0, 70.0])).max() <= 2


def test_sums_are_clipped_to_the_depth() -> None:
    for name, top in (("gray", 255), ("gray10le", 1023), ("yuv420p12le", 4095)):
        frame = exact_picture(name, np.full((16, 16, 3), 128.0), 1, True)
        add_region(frame, 0, 0, np.full((16, 16, 3), 255, np.float32))
        luma = samples(frame, LAYOUTS[name].components[0], LAYOUTS[name])
        assert (luma == top).all()
        add_region(frame, 0, 0, np.full((16, 16, 3), -600, np.float32))
        assert (luma == 0).all()


def test_writing_a_writable_picture_does_not_reach_the_decoder(tmp_path: Path) -> None:
    """Decoded pictures are references of later ones: editing each must leave what is decoded next untouched."""
    path = make_clip(tmp_path / "in.mp4", Clip(count=12, audio=0, options={"bf": "2"}))
    with Reader(path) as reader:
        clean = [planes_of(frame) for frame in reader.pictures()]
    with Reader(path) as reader:
        for index, frame in enumerate(reader.pictures()):
            assert all((a == b).all() for a, b in zip(planes_of(frame), clean[index], strict=True))
            frame.make_writable()
            add_region(frame, 0, 0, np.full((48, 64, 3), 99, np.float32))


def test_rectangles_outside_and_unknown_formats_are_refused() -> None:
    frame = av.VideoFrame(64, 48, "yuv420p")
    for box in ((-1, 0, 5, 5), (0, 0, 65, 5), (5, 5, 5, 9), (0, 40, 8, 49)):
        with pytest.raises(ValueError, match="isn't inside the 64x48 picture"):
            read_region(frame, *box)
    with pytest.raises(ValueError, match="isn't inside"):
        add_region(frame, 60, 0, np.zeros((5, 5, 3), np.float32))
    with pytest.raises(ValueError, match="pal8 can't be edited"):
        read_region(av.VideoFrame(64, 48, "pal8"), 0, 0, 5, 5)


def marked(size: tuple[int, int], spot: tuple[int, int]) -> av.VideoFrame:
    """Gray but for a white patch around a spot of the stored picture."""
    image = np.full((size[1], size[0], 3), 60, np.uint8)
    x, y = spot
    image[y - 4 : y + 5, x - 4 : x + 5] = 255
    return av.VideoFrame.from_ndarray(image, "rgb24")


def matrix_for(a: int, b: int, c: int, d: int) -> tuple[int, ...]:
    return (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


ORIENTATIONS = {
    "upright": (1, 0, 0, 1),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (-1, 0, 0, -1),
    "flipped": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "left": (0, -1, 1, 0),
    "right": (0, 1, -1, 0),
    "transversed": (0, -1, -1, 0),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(2), Fraction(2, 3)])
@pytest.mark.parametrize("longest", [0, 100])
def test_thumbnail_is_upright_with_square_pixels_and_its_matrix_leads_back(
    orientation: str, aspect: Fraction, longest: int
) -> None:
    size, spot = (240, 160), (70, 40)
    a, b, c, d = ORIENTATIONS[orientation]
    frame = marked(size, spot)
    set_tags(frame, PictureTags(aspect, "", matrix_for(a, b, c, d)))
    image, matrix = thumbnail(frame, longest)
    width, height = (240 * aspect, 160) if aspect < 1 else (240, 160 / aspect)
    if longest:
        width, height = width * longest / max(width, height), height * longest / max(width, height)
    expected = (round(width), round(height)) if a else (round(height), round(width))
    assert image.shape == (expected[1], expected[0], 3)
    weight = image[..., 0].astype(float) - 60
    ys, xs = np.indices(weight.shape)
    seen = np.array([(xs * weight).sum() / weight.sum(), (ys * weight).sum() / weight.sum(), 1])
    np.testing.assert_allclose(matrix @ seen, spot, atol=1.0)
    # The spot lies left of and above the middle of the stored picture; the orientation says on which side it is seen.
    assert (seen[0] < expected[0] / 2) == (a + c > 0)
    assert (seen[1] < expected[1] / 2) == (b + d > 0)
    corners = np.array([[-0.5, -0.5, 1], [expected[0] - 0.5, expected[1] - 0.5, 1]]) @ matrix.T
    np.testing.assert_allclose(np.sort(corners, axis=0), [[-0.5, -0.5], [239.5, 159.5]], atol=1e-9)


def test_thumbnail_turns_as_the_player_does() -> None:
    """A rotation of 90 degrees counterclockwise: what is at the right edge comes to the top."""
    frame = marked((240, 160), (230, 80))
    set_tags(frame, PictureTags(display_matrix=matrix_for(*ORIENTATIONS["left"])))
    image, _ = thumbnail(frame, 0)
    ys, xs = np.nonzero(image[..., 0] > 160)
    assert image.shape == (240, 160, 3)
    assert ys.mean() < 20
    assert abs(xs.mean() - 80) < 2


def test_thumbnail_never_scales_up_and_has_the_colours_of_the_picture() -> None:
    rgb = scene((100, 60))
    for full in (False, True):
        frame = exact_picture("yuv420p", rgb, 1, full)
        image, matrix = thumbnail(frame, 640)
        assert image.shape == (60, 100, 3)
        np.testing.assert_array_equal(matrix, [[1, 0, 0], [0, 1, 0]])
        assert np.abs(image.astype(float) - rgb)[4:-4, 4:-4].mean() < 2


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuv420p10le", "gbrp"])
@pytest.mark.parametrize("space", [1, 2])
@pytest.mark.parametrize("shrink", [2, 3, 5])
def test_a_small_thumbnail_has_the_mean_colours(name: str, space: int, shrink: int) -> None:
    rgb = scene((960, 720))
    frame = exact_picture(name, rgb, 1, False)
    if space == 2:  # untagged: a picture of 720 lines is BT.709, and so is its small copy
        frame.colorspace = 2
    image, matrix = thumbnail(frame, 960 // shrink)
    mean = rgb.reshape(720 // shrink, shrink, 960 // shrink, shrink, 3).astype(float).mean(axis=(1, 3))
    assert image.shape == mean.shape
    assert np.abs(image - mean)[4:-4, 4:-4].mean() < 4  # chroma isn't interpolated
    np.testing.assert_allclose(matrix, [[shrink, 0, (shrink - 1) / 2], [0, shrink, (shrink - 1) / 2]])


def test_tags_follow_a_picture_through_a_conversion() -> None:
    frame = exact_picture("yuv420p", scene((64, 48)), 9, False)
    frame.pts, frame.time_base = 77, Fraction(1, 1000)
    tags = PictureTags(Fraction(4, 3), "topleft", matrix_for(0, 1, -1, 0))
    set_tags(frame, tags)
    copy = convert(frame, "yuv444p10le")
    assert get_tags(copy) == tags
    assert (copy.pts, copy.time_base, copy.colorspace, copy.color_range) == (77, Fraction(1, 1000), 9, 1)
    assert get_tags(av.VideoFrame(8, 8, "gray")) == PictureTags()
