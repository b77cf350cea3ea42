"""Stills: pixels, depth, alpha, orientation and metadata; OpenCV is the independent reader."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from gpenvid.errors import MediaError
from gpenvid.media.image import StillImage, read_image, write_image
from gpenvid.media.image_metadata import ImageMetadata, add_metadata, read_metadata
from gpenvid.media.pixels import EDITABLE, add_region, thumbnail

ICC = struct.pack(">I", 140) + bytes(32) + b"acsp" + bytes(100)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def exif(orientation: int, order: str = "<") -> bytes:
    """The smallest EXIF there is: an orientation and a maker."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    return (
        head
        + struct.pack(order + "IH", 8, 2)
        + struct.pack(order + "HHI4s", 271, 2, 4, b"abc\0")
        + struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
        + bytes(4)
    )


def colours(size: tuple[int, int] = (61, 43), channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    """A smooth picture as OpenCV has it: blue, green, red (, alpha)."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 3 + 20, y * 4 + 30, 200 - x * 2, 255 - x - y][:channels]
    image = np.dstack(planes).clip(0, 255)
    return (image * 257 + x[..., None] if dtype == np.uint16 else image).astype(dtype)


def put(path: Path, image: np.ndarray, metadata: ImageMetadata | None = None) -> Path:
    """Write with OpenCV, and put metadata in."""
    ok, data = cv2.imencode(path.suffix, image, [cv2.IMWRITE_WEBP_QUALITY, 101, cv2.IMWRITE_JPEG_QUALITY, 97])
    assert ok
    if metadata is not None:
        data = add_metadata(data.tobytes(), metadata, (image.shape[1], image.shape[0]), alpha=image.shape[2] == 4)
    path.write_bytes(bytes(data))
    return path


def back(path: Path) -> np.ndarray:
    """Read with OpenCV: the stored pixels, any depth, with alpha. 8-bit TIFF, which it premultiplies, with PyAV."""
    if path.suffix == ".tiff":
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        if frame.format.name in ("rgb24", "rgba"):
            return frame.to_ndarray(format={"rgb24": "bgr24", "rgba": "bgra"}[frame.format.name])
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    assert image is not None
    return image


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".webp"])
@pytest.mark.parametrize("channels", [3, 4])
def test_lossless_formats_come_out_bit_for_bit(tmp_path: Path, suffix: str, channels: int) -> None:
    image = colours(channels=channels)
    source = put(tmp_path / f"in{suffix}", image)
    still = read_image(source)
    assert still.frame.format.name in EDITABLE
    assert write_image(tmp_path / f"out{suffix}", still) == []
    result = back(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(result[..., :3], image[..., :3])
    if channels == 4:
        np.testing.assert_array_equal(result[..., 3], back(source)[..., 3])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_comes_out_bit_for_bit(tmp_path: Path, suffix: str, channels: int) -> None:
    image = colours(channels=channels, dtype=np.uint16).squeeze()
    source = put(tmp_path / f"in{suffix}", image)
    assert write_image(tmp_path / f"out{suffix}", read_image(source)) == []
    result = back(tmp_path / f"out{suffix}")
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, image)


def test_gray_stays_gray(tmp_path: Path) -> None:
    image = colours()[..., 0]
    for suffix in (".png", ".tiff"):
        still = read_image(put(tmp_path / f"in{suffix}", image))
        assert still.frame.format.name == "gray"
        write_image(tmp_path / f"out{suffix}", still)
        np.testing.assert_array_equal(back(tmp_path / f"out{suffix}"), image)
    still = read_image(put(tmp_path / "in.jpg", image))
    write_image(tmp_path / "out.jpg", still, quality=100)
    assert back(tmp_path / "out.jpg").ndim == 2
    assert np.abs(back(tmp_path / "out.jpg").astype(int) - image).max() <= 3


def test_jpeg_stays_in_its_own_format_and_close(tmp_path: Path) -> None:
    source = put(tmp_path / "in.jpg", colours((160, 120)))
    still = read_image(source)
    assert still.frame.format.name == "yuvj420p"
    assert not still.lossless
    write_image(tmp_path / "out.jpg", still)
    assert read_image(tmp_path / "out.jpg").frame.format.name == "yuvj420p"
    difference = np.abs(back(tmp_path / "out.jpg").astype(int) - back(source))
    assert difference.max() <= 6
    assert difference.mean() <= 0.8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_seen_as_opencv_sees_it_and_kept(tmp_path: Path, orientation: int, order: str) -> None:
    source = put(tmp_path / "in.jpg", colours(), ImageMetadata(exif(orientation, order)))
    still = read_image(source)
    assert still.metadata.orientation == orientation
    upright = cv2.cvtColor(cv2.imread(str(source)), cv2.COLOR_BGR2RGB)
    image, _ = thumbnail(still.frame, 0)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 1.5
    for suffix in (".jpg", ".png", ".webp", ".tiff"):
        write_image(tmp_path / f"out{suffix}", still)
        again = read_image(tmp_path / f"out{suffix}")
        assert again.metadata.orientation == orientation
        assert thumbnail(again.frame, 0)[0].shape == upright.shape
        assert np.abs(thumbnail(again.frame, 0)[0].astype(int) - upright).mean() < 2
    notes = write_image(tmp_path / "out.bmp", still)
    assert ("BMP has no orientation: the picture is stored upright" in notes) == (orientation != 1)
    assert np.abs(back(tmp_path / "out.bmp")[..., ::-1].astype(int) - upright).mean() < 1.5


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_metadata_comes_out_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    whole = ImageMetadata(exif(6), ICC, XMP, 6)
    still = read_image(put(tmp_path / "in.png", colours(), whole))
    assert still.metadata == whole
    assert write_image(tmp_path / f"out{suffix}", still) == []
    found = read_metadata((tmp_path / f"out{suffix}").read_bytes())
    assert found == (ImageMetadata(b"", ICC, XMP, 6) if suffix == ".tiff" else whole)
    assert back(tmp_path / f"out{suffix}").shape == (43, 61, 3)


def test_a_large_profile_is_split_over_jpeg_segments() -> None:
    large = ImageMetadata(icc=ICC + np.random.default_rng(1).bytes(150_000))
    data = add_metadata(b"\xff\xd8\xff\xda", large, (1, 1), alpha=False)
    assert read_metadata(data) == large


def test_malformed_metadata_is_passed_over() -> None:
    assert read_metadata(b"") == ImageMetadata()
    assert read_metadata(b"II*\0\xff\xff\xff\xff") == ImageMetadata()
    assert read_metadata(b"\xff\xd8\xff\xe2\x00\x0eICC_PROFILE\0") == ImageMetadata()
    assert read_metadata(b"\x89PNG\r\n\x1a\n\0\0\0\x04iCCPab") == ImageMetadata()


def test_palettes_are_converted_and_noted(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0))
    palette = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    path = tmp_path / "in.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", zlib.compress(b"\0\0\1")) + chunk(b"IEND", b"")
    )
    still = read_image(path)
    assert still.notes[0].startswith("pixels are pal8: converted to ")
    assert thumbnail(still.frame, 0)[0].tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_edits_are_written(tmp_path: Path) -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    still = read_image(put(tmp_path / "in.png", image))
    add_region(still.frame, 10, 5, np.full((4, 8, 3), [20, 0, -30], np.float32))
    write_image(tmp_path / "out.png", still)
    result = back(tmp_path / "out.png")
    assert (result[5:9, 10:18] == [70, 100, 120]).all()
    result[5:9, 10:18] = 100
    assert (result == 100).all()


def test_alpha_is_dropped_only_where_it_must_and_said(tmp_path: Path) -> None:
    still = read_image(put(tmp_path / "in.png", colours(channels=4)))
    assert write_image(tmp_path / "out.jpg", still) == ["JPEG has no alpha: it is dropped"]
    assert back(tmp_path / "out.jpg").shape == (43, 61, 3)


def test_refusals(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(MediaError) as caught:
            read_image(path)
        return str(caught.value).removeprefix(f"{path}: ")

    assert refused(tmp_path / "absent.png") == "no such file"
    assert refused(tmp_path) == "is a directory, not an image"
    text = tmp_path / "text.png"
    text.write_text("no image")
    assert refused(text) == "is no PNG, JPEG, WebP, BMP or TIFF image"
    whole = put(tmp_path / "in.png", colours())
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:40])
    assert refused(cut) == "can't be decoded as PNG"
    still = read_image(whole)
    for target, message in (
        (whole, "is the input itself"),
        (tmp_path / "out.gif", "don't know how to write .gif as an image"),
        (tmp_path / "absent" / "out.png", "no such folder"),
    ):
        with pytest.raises(MediaError, match=message):
            write_image(target, still)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.png", "in.png", "text.png"]


def test_the_picture_can_be_written_twice(tmp_path: Path) -> None:
    still: StillImage = read_image(put(tmp_path / "in.jpg", colours(), ImageMetadata(exif(6))))
    write_image(tmp_path / "a.jpg", still)
    write_image(tmp_path / "b.jpg", still)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    assert thumbnail(still.frame, 0)[0].shape == (61, 43, 3)
    assert isinstance(still.frame, av.VideoFrame)
