"""The writer: complete or absent, never over the input, and what it refuses before any work."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from media_factory import Clip, make_clip, picture_times
from test_media_copy import run

from gpenvid.errors import GpenvidError, MediaError, OptionsError
from gpenvid.media.encoder import RECIPES
from gpenvid.media.probe import probe
from gpenvid.media.reader import Reader
from gpenvid.media.writer import FORMATS, Writer
from gpenvid.options import EncoderOptions


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return make_clip(folder / "in.mp4", Clip(count=6))


def refused(source: Path, target: Path, options: EncoderOptions | None = None) -> str:
    """The one line with which the writer refuses; nothing must be left behind."""
    before = sorted(target.parent.iterdir()) if target.parent.is_dir() else []
    with Reader(source) as reader, pytest.raises(GpenvidError) as caught:  # noqa: SIM117
        with Writer(target, reader, options or EncoderOptions()):
            pytest.fail("it was not refused")
    assert (sorted(target.parent.iterdir()) if target.parent.is_dir() else []) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_input_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    data = source.read_bytes()
    link, hard = tmp_path / "link.mp4", tmp_path / "hard.mp4"
    link.symlink_to(source)
    hard.hardlink_to(source)
    for target in (source, link, hard, source.parent / ".." / "source" / "in.mp4"):
        assert "is the input itself" in refused(source, target)
    assert source.read_bytes() == data


def test_refused_targets(source: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    assert "is a directory" in refused(source, tmp_path / "folder.mp4")
    assert "no such folder" in refused(source, tmp_path / "absent" / "out.mp4")
    assert "don't know how to write .xyz" in refused(source, tmp_path / "out.xyz")
    assert "don't know how to write no extension" in refused(source, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reader(source) as reader:
        with pytest.raises(MediaError, match="/proc: can't be written"), Writer(Path("/proc/out.mp4"), reader):
            pass
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(MediaError, match="not permitted to write here"):
            Writer(tmp_path / "out.mp4", reader)


@pytest.mark.parametrize(
    ("options", "suffix", "message"),
    [
        (EncoderOptions(codec="nonsense"), "mp4", "--codec nonsense: is no video encoder of this FFmpeg"),
        (EncoderOptions(codec="aac"), "mp4", "--codec aac: is no video encoder of this FFmpeg"),
        (EncoderOptions(codec="libx264"), "webm", "--codec libx264: can't be stored in webm; choose another extension"),
        (
            EncoderOptions(encoder_options=("nonsense=1",)),
            "mp4",
            "--encoder-option nonsense: libx264 has no such option",
        ),
        (EncoderOptions(preset="nonsense"), "mp4", "--codec libx264: the encoder refuses 64x48 yuv420p"),
        (EncoderOptions(codec="ffv1", preset="slow"), "mkv", "--preset: ffv1 has no such option"),
        (EncoderOptions(codec="ffv1", crf=10), "mkv", "--crf: ffv1 has no such option"),
    ],
)
def test_refused_encoders_and_options(
    source: Path, tmp_path: Path, options: EncoderOptions, suffix: str, message: str
) -> None:
    assert refused(source, tmp_path / f"out.{suffix}", options).startswith(message)


def test_option_values_that_make_no_sense_are_refused() -> None:
    with pytest.raises(OptionsError, match="--encoder-option tune: must be KEY=VALUE"):
        EncoderOptions(encoder_options=("tune",))
    with pytest.raises(OptionsError, match="--crf -3"):
        EncoderOptions(crf=-3)


def test_encoder_options_reach_the_encoder(source: Path, tmp_path: Path) -> None:
    options = EncoderOptions(crf=31, preset="ultrafast", encoder_options=("x264-params=keyint=2",))
    run(source, tmp_path / "out.mp4", options)
    text = (tmp_path / "out.mp4").read_bytes()
    assert b"crf=31.0" in text
    assert b"keyint=2 " in text
    assert b"subme=0" in text
    assert b"sliced_threads=0" in text
    run(source, tmp_path / "default.mp4")
    assert f"crf={RECIPES['libx264'].default:.1f}".encode() in (tmp_path / "default.mp4").read_bytes()


def test_a_codec_name_stands_for_its_encoder(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out.mp4", EncoderOptions(codec="mpeg4", crf=5))
    assert probe(tmp_path / "out.mp4").codec == "mpeg4"
    run(source, tmp_path / "out.mkv", EncoderOptions(codec="h264"))
    assert probe(tmp_path / "out.mkv").codec == "h264"


def test_fallbacks_are_noted(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mpg", Clip(codec="mpeg2video", audio_codec="mp2", count=6))
    _, writer = run(source, tmp_path / "out.mp4")
    assert writer.notes == ["video mpeg2video can't be kept in mp4: encoded with libx264"]
    rgb = make_clip(tmp_path / "rgb.mkv", Clip(codec="ffv1", pix_fmt="bgra", audio=0, count=3))
    _, writer = run(rgb, tmp_path / "rgb.mp4", EncoderOptions(codec="libx264"))
    assert probe(tmp_path / "rgb.mp4").pix_fmt == "yuv444p"
    assert "libx264 can't encode bgra: pictures are converted to yuv444p" in writer.notes
    assert probe(tmp_path / "rgb.mp4").color.space == 1
    assert probe(tmp_path / "rgb.mp4").color.range == 1


def test_full_range_is_kept_by_an_encoder_without_a_format_of_its_own_for_it(tmp_path: Path) -> None:
    """MJPEG gives yuvj420p; FFV1 only knows yuv420p: the same samples, tagged as full range."""
    source = make_clip(
        tmp_path / "in.mkv", Clip(codec="mjpeg", pix_fmt="yuvj420p", audio=0, count=2, color=(2, 2, 5, 2))
    )
    _, writer = run(source, tmp_path / "out.mkv", EncoderOptions(codec="ffv1"))
    assert writer.notes == []
    assert probe(tmp_path / "out.mkv").color.range == 2
    with av.open(str(source)) as a, av.open(str(tmp_path / "out.mkv")) as b:
        for old, new in zip(a.decode(video=0), b.decode(video=0), strict=True):
            assert [bytes(p)[: p.width] for p in old.planes] == [bytes(p)[: p.width] for p in new.planes]


def test_the_file_appears_only_when_it_is_complete(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("what was there before")
    with Reader(source) as reader, Writer(target, reader) as writer:
        (part,) = [path for path in tmp_path.iterdir() if path.name.startswith(".part-")]
        assert part.suffix == ".mp4"
        for frame in reader.pictures(writer.copy):
            writer.write(frame)
            assert target.read_text() == "what was there before"
    assert len(picture_times(target)) == 6
    assert not part.exists()


def test_the_file_mode_follows_the_umask(source: Path, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        run(source, tmp_path / "out.mp4")
    finally:
        os.umask(old)
    assert (tmp_path / "out.mp4").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("when", ["at once", "in the middle"])
def test_after_an_error_nothing_is_left(source: Path, tmp_path: Path, when: str) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("what was there before")
    with pytest.raises(RuntimeError), Reader(source) as reader, Writer(target, reader) as writer:
        if when == "in the middle":
            for frame in reader.pictures(writer.copy):
                writer.write(frame)
        raise RuntimeError
    assert target.read_text() == "what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "source"]


def test_abort_leaves_nothing_and_late_packets_are_harmless(source: Path, tmp_path: Path) -> None:
    with Reader(source) as reader, Writer(tmp_path / "out.mp4", reader) as writer:
        pictures = reader.pictures(writer.copy)
        writer.write(next(pictures))
        writer.abort()
        list(pictures)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_closing_early_gives_a_whole_file(source: Path, tmp_path: Path) -> None:
    """As after Ctrl-C: the caller stops feeding."""
    with Reader(source) as reader, Writer(tmp_path / "out.mp4", reader) as writer:
        for frame, _ in zip(reader.pictures(writer.copy), range(3), strict=False):
            writer.write(frame)
    assert picture_times(tmp_path / "out.mp4") == [0, Fraction(1, 25), Fraction(2, 25)]


def test_no_pictures_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no picture came"), Reader(source) as reader:  # noqa: SIM117
        with Writer(tmp_path / "out.mp4", reader):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.fixture
def small_disk() -> Iterator[int]:
    """No file may grow beyond 100 kB: writing fails as on a full disk."""
    limit = 100_000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, small_disk: int, suffix: str) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    source = make_clip(folder / "in.mp4", Clip(size=(320, 240), count=40, options={"crf": "40"}))
    with pytest.raises(MediaError, match=r"out\.\w+: can't be written") as caught:
        run(source, tmp_path / f"out.{suffix}", EncoderOptions(codec="mjpeg", crf=2))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_mp4_starts_with_its_index(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out.mp4")
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_every_written_extension_is_read_back(source: Path, tmp_path: Path) -> None:
    for suffix in FORMATS:
        _, _ = run(source, tmp_path / f"out{suffix}")
        assert picture_times(tmp_path / f"out{suffix}") == [Fraction(i, 25) for i in range(6)]


def test_pictures_that_change_size_are_scaled_and_noted(source: Path, tmp_path: Path) -> None:
    with Reader(source) as reader, Writer(tmp_path / "out.mp4", reader) as writer:
        for index, frame in enumerate(reader.pictures(writer.copy)):
            writer.write(frame if index < 3 else frame.reformat(32, 24))
    assert writer.notes == ["pictures change size to 32x24: scaled to 64x48"]
    assert len(picture_times(tmp_path / "out.mp4")) == 6


def test_mpeg4_says_when_it_cannot_hold_the_clock(tmp_path: Path) -> None:
    clip = Clip(time_base=Fraction(1, 90000), pts=[0, 3003, 6006], audio=0)
    source = make_clip(tmp_path / "in.mp4", clip)
    with Reader(source) as reader, pytest.raises(MediaError, match="can't hold times of 1/90000 s exactly"):  # noqa: SIM117
        with Writer(tmp_path / "out.mp4", reader, EncoderOptions(codec="mpeg4")):
            pass
