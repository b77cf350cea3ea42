"""Pictures that stay in a graphics card's memory from decoding on: what is done to them there, and what crosses.

The card's memory is the host's here; marked tests do the same on a real one.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from card_frame import CardFrame
from fakes import PaintRestorer, SquareDetector, mean_inside
from media_factory import Clip, make_clip
from test_align import about_centre
from test_media_pixels import exact_picture, scene
from test_patch import everything, noisy, numbers

from gpenvid.faces.align import crop_bounds, feather
from gpenvid.media import pixels, probe
from gpenvid.media.card import can_be_edited, fetched
from gpenvid.media.layouts import LAYOUTS, duplicate, samples
from gpenvid.media.pixels import PictureTags, get_tags, set_tags, thumbnail
from gpenvid.media.planes import layers
from gpenvid.media.planes_torch import current, device_layers
from gpenvid.media.reader import Reader
from gpenvid.options import ReaderOptions
from gpenvid.patch_torch import TorchPatch
from gpenvid.run import enhance

SIZE = 32
EVEN = (124, 88)
STORED = ["nv12", "p010le", "p016le"]


def pair(name: str) -> tuple[av.VideoFrame, Any]:
    """The same random picture on the host and on the card."""
    return noisy(name, EVEN), CardFrame(noisy(name, EVEN))


def assert_same_but_for_ties(card: Any, host: av.VideoFrame) -> None:
    """Every sample to the unused bits; OpenCV rounds some halves the other way."""
    layout = LAYOUTS[host.format.name]
    for component in layout.components:
        ours, theirs = (samples(frame, component, layout).astype(int) for frame in (host, card.stored))
        assert set(np.unique(theirs - ours)) <= {-1 << layout.shift, 0, 1 << layout.shift}
        assert (theirs != ours).mean() < 0.01


@pytest.mark.parametrize("name", STORED)
def test_samples_are_read_and_changed_as_on_the_host(name: str) -> None:
    host, card = pair(name)
    rng = np.random.default_rng(0)
    for ours, theirs in zip(layers(host).layers, device_layers(card).layers, strict=True):
        assert (theirs.size, theirs.grain, theirs.phase, theirs.zero) == (ours.size, ours.grain, ours.phase, ours.zero)
        read = theirs.read(3, 2, 40, 30)
        np.testing.assert_array_equal(read.numpy(), ours.read(3, 2, 40, 30))
        for scale in (0.7, 300, 1e5):  # rounding, clipping at both ends, beyond the depth
            change = (rng.standard_normal(read.shape) * scale).astype(np.float32)
            change.flat[:4] = 0.49, -0.49, 0.51, -0.51
            ours.add(3, 2, change)
            theirs.add(3, 2, torch.from_numpy(change))
    assert_same_but_for_ties(card, host)


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("face", [14, 60, 300])
def test_a_face_is_cut_out_and_pasted_as_from_the_host(name: str, face: int) -> None:
    host, card = pair(name)
    way, matrix, mask = TorchPatch("cpu"), about_centre(SIZE, face, 10, *EVEN), feather(SIZE)
    before = numbers(host)
    cut = way.cut_out(host, matrix, SIZE)
    assert cut is not None and np.array_equal(way.cut_out(card, matrix, SIZE), cut)
    restored = np.random.default_rng(2).integers(0, 256, cut.shape, np.uint8)
    for frame in (host, card):
        way.put_back(frame, matrix, cut, restored, mask)
    assert all((now != old).any() for now, old in zip(numbers(host), before, strict=True))
    assert_same_but_for_ties(card, host)
    x0, y0, x1, y1 = crop_bounds(matrix, SIZE, *EVEN) or (0, 0, 0, 0)
    for step, now, old in zip((1, 2, 2), numbers(card.stored), before, strict=True):
        outside = np.ones(now.shape, bool)
        outside[y0 // step : -(-y1 // step), x0 // step : -(-x1 // step)] = False
        np.testing.assert_array_equal(now[outside], old[outside])


def test_only_the_face_crosses(monkeypatch: pytest.MonkeyPatch) -> None:
    crossings: list[tuple[str, list[int]]] = []
    way = TorchPatch("cpu")
    upload, download = way._upload, way._download

    def up(*values: Any) -> list[torch.Tensor]:
        crossings.append(("up", [value.size for value in values if isinstance(value, np.ndarray)]))
        return upload(*values)

    def down(there: torch.Tensor) -> Any:
        crossings.append(("down", [there.numel()]))
        return download(there)

    monkeypatch.setattr(way, "_upload", up)
    monkeypatch.setattr(way, "_download", down)
    _, card = pair("nv12")
    matrix, face = about_centre(SIZE, 60, 0, *EVEN), 3 * SIZE * SIZE
    cut = way.cut_out(card, matrix, SIZE)
    assert cut is not None
    way.put_back(card, matrix, cut, 255 - cut, feather(SIZE))
    way.reduced(card, (31, 22))
    assert crossings == [
        *[("up", [12]), ("down", [face])],
        ("up", [face, face, SIZE * SIZE, 9]),
        *[("up", [12]), ("down", [31 * 22 * 3])],
    ]
    assert card.fetches == 0


def test_a_face_outside_the_picture_is_none_and_changes_nothing() -> None:
    host, card = pair("nv12")
    away = about_centre(SIZE, 30, 0, *EVEN) - np.array([[0, 0, 5000], [0, 0, 0]])
    assert TorchPatch("cpu").cut_out(card, away, SIZE) is None
    face = np.zeros((SIZE, SIZE, 3), np.uint8)
    TorchPatch("cpu").put_back(card, away, face, face + 9, feather(SIZE))
    assert everything(card.stored) == everything(host)


@pytest.mark.parametrize("name", ["nv12", "p010le"])
@pytest.mark.parametrize("shrink", [1, 2, 3, 10])
def test_the_small_copy_has_the_mean_colours(name: str, shrink: int) -> None:
    rgb = scene((960, 720), slow=True)
    host, card = exact_picture(name, rgb, 1, False), CardFrame(exact_picture(name, rgb, 1, False))
    got, to_stored = thumbnail(card, 960 // shrink, TorchPatch("cpu").reduced)  # type: ignore[arg-type]
    mean = rgb.reshape(720 // shrink, shrink, 960 // shrink, shrink, 3).astype(float).mean(axis=(1, 3))
    assert got.shape == mean.shape and got.dtype == np.uint8
    assert np.abs(got - mean)[4:-4, 4:-4].mean() < 1
    np.testing.assert_array_equal(to_stored, thumbnail(host, 960 // shrink)[1])
    np.testing.assert_array_equal(TorchPatch("cpu").reduced(host, (96, 72)), pixels.reduced(host, (96, 72)))


def test_what_can_be_edited_on_the_card() -> None:
    assert [can_be_edited(CardFrame(av.VideoFrame(64, 48, name))) for name in STORED] == [True] * 3  # type: ignore[arg-type]
    for width, height, name in ((64, 48, "yuv444p"), (63, 48, "nv12"), (64, 47, "nv12")):
        assert not can_be_edited(CardFrame(av.VideoFrame(width, height, name)))  # type: ignore[arg-type]
    assert not can_be_edited(av.VideoFrame(64, 48, "nv12"))


def test_a_fetched_picture_keeps_its_time_and_tags_and_one_on_the_host_is_itself() -> None:
    host, card = pair("nv12")
    card.pts, card.time_base = 7, Fraction(1, 50)
    set_tags(card, PictureTags(Fraction(4, 3), "topleft"))
    down = fetched(card)
    assert (down.format.name, down.pts, down.time_base) == ("nv12", 7, Fraction(1, 50))
    assert get_tags(down) == PictureTags(Fraction(4, 3), "topleft")
    assert all(np.array_equal(a, b) for a, b in zip(numbers(down), numbers(host), strict=True))
    assert fetched(host) is host


class OnCard:
    """Puts what the decoder gives on a card, in the format in which such a decoder stores it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
        self.frames: list[CardFrame] = []
        decode = Reader._decode

        def leave(reader: Reader, *packet: Any) -> list[Any]:
            given = [CardFrame(pixels.convert(frame, stored)) for frame in decode(reader, *packet)]
            self.frames += given
            return given

        monkeypatch.setattr(Reader, "_decode", leave)


def test_a_video_is_enhanced_on_the_card_and_fetched_once_to_be_encoded(
    film: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, plain = film(), tmp_path / "card.mp4", tmp_path / "plain.mp4"
    settings: dict[str, Any] = {"paste_on": "device", "crf": 10}
    enhance(source, plain, restorer=PaintRestorer(), detector=SquareDetector(), **settings)
    card = OnCard(monkeypatch, "nv12")
    report = enhance(source, target, restorer=PaintRestorer(), detector=SquareDetector(), **settings)
    assert (report.counts.pictures, report.counts.restored) == (20, 20)
    assert [frame.fetches for frame in card.frames] == [1] * 20
    with av.open(plain) as one, av.open(target) as other:
        for i, (a, b) in enumerate(zip(one.decode(video=0), other.decode(video=0), strict=True)):
            assert (a.pts, a.time_base, a.format.name) == (b.pts, b.time_base, b.format.name)
            images = [each.to_ndarray(format="rgb24") for each in (a, b)]
            assert mean_inside(images[1], 100 + 2 * i, 120, 16) == pytest.approx([200, 60, 60], abs=6)
            assert np.abs(images[0].astype(int) - images[1]).mean() < 0.5


def test_pictures_that_cannot_be_edited_there_are_fetched_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(tmp_path / "a.mp4", Clip(count=3, pix_fmt="yuv444p"))
    card = OnCard(monkeypatch, "yuv444p")
    with Reader(path) as reader:
        assert [frame.format.name for frame in reader.pictures()] == ["yuv444p"] * 3
    assert [frame.fetches for frame in card.frames] == [1] * 3


@pytest.mark.parametrize(
    ("hwaccel", "card", "works", "tried"),
    [
        ("none", 0, None, [None]),
        ("cuda", 1, True, [("cuda", 1, True)]),
        ("cuda", 1, False, [("cuda", 1, True), ("cuda", 0, False)]),
        ("cuda", None, False, [("cuda", 0, False)]),
        ("vaapi", 1, False, [("vaapi", 0, False)]),
        ("auto", 1, None, [("cuda", 1, True), ("cuda", 0, False), ("qsv", 0, False), None]),
    ],
)
def test_pictures_stay_on_the_card_where_that_works(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hwaccel: str,
    card: int | None,
    works: bool | None,
    tried: list[Any],
) -> None:
    """works: the first way of opening that succeeds leaves pictures on the card, or not; None: neither does."""
    (tmp_path / "a.mp4").write_bytes(b"any")
    seen: list[Any] = []

    class Accelerator:
        def __init__(self, kind: str, device: str = "0", *, is_hw_owned: bool = False, **options: Any) -> None:
            self.told = (kind, int(device), is_hw_owned)
            assert options.pop("allow_software_fallback")
            # Without that, FFmpeg's context is another than PyTorch's, and the picture's memory not PyTorch's to see.
            joined = {"options": {"primary_ctx": "0", "current_ctx": "1"}}
            assert options == (joined if is_hw_owned else {})

    def opened(url: str, mode: str, *, hwaccel: Accelerator | None = None, **rest: Any) -> str:
        seen.append(hwaccel and hwaccel.told)
        if hwaccel is not None and hwaccel.told[2] is not works:
            raise ValueError("no such card")
        return "open"

    monkeypatch.setattr("gpenvid.media.card.HWAccel", Accelerator)
    monkeypatch.setattr(
        probe, "hwdevices_available", lambda: ["cuda", "vaapi"] if hwaccel != "auto" else ["cuda", "qsv"]
    )
    monkeypatch.setattr(probe.av, "open", opened)
    assert probe.open_input(tmp_path / "a.mp4", hwaccel, card) == "open"
    assert seen == tried


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["nv12", "p010le"])
def test_a_real_card_agrees_but_for_rounding(name: str) -> None:
    rgb, matrix = scene(EVEN, slow=True), about_centre(SIZE, 60, 10, *EVEN)
    host, way = exact_picture(name, rgb, 1, False), TorchPatch("cuda")
    planes = [torch.from_dlpack(plane).to("cuda") for plane in duplicate(host).planes]
    with current(0):
        card = av.VideoFrame.from_dlpack(tuple(planes), format=name, current_ctx=True)
    card.colorspace, card.color_range = host.colorspace, host.color_range
    cuts = [way.cut_out(frame, matrix, SIZE) for frame in (host, card)]
    assert cuts[0] is not None and cuts[1] is not None
    assert np.abs(cuts[0].astype(int) - cuts[1]).max() <= 1
    for frame in (host, card):
        way.put_back(frame, matrix, cuts[0], 255 - cuts[0], feather(SIZE))
    down = fetched(card)
    for ours, theirs in zip(layers(host).layers, layers(down).layers, strict=True):
        whole = (0, 0, *ours.size)
        assert np.abs(ours.read(*whole).astype(int) - theirs.read(*whole)).max() <= (1 if name == "nv12" else 4)
    assert np.abs(way.reduced(card, (62, 44)).astype(int) - pixels.reduced(down, (62, 44))).mean() < 1


@pytest.mark.cuda
def test_what_a_card_decodes_stays_there_and_is_what_the_processor_decodes(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", Clip(size=(320, 240), count=12))
    with Reader(path) as plain, current(0), Reader(path, ReaderOptions(hwaccel="cuda"), card=0) as card:
        pairs = list(zip(plain.pictures(), card.pictures(), strict=True))
    for expected, got in pairs:
        assert got.format.name == "cuda"
        assert (got.pts, got.time_base) == (expected.pts, expected.time_base)
        down = fetched(got).reformat(format="yuv420p")
        assert [bytes(plane) for plane in down.planes] == [bytes(plane) for plane in expected.planes]
