"""The reader: what it refuses, what it repairs, what it trims."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import media_factory as factory
import pytest
from media_factory import Clip, make_clip, packets_of, picture_times
from test_media_copy import chapters_of, run

from gpenvid.errors import MediaError
from gpenvid.media import reader as reader_module
from gpenvid.media.layouts import LAYOUTS
from gpenvid.media.pixels import get_tags
from gpenvid.media.probe import probe
from gpenvid.media.reader import Reader
from gpenvid.options import ReaderOptions


def times_of(path: Path, options: ReaderOptions | None = None) -> list[Fraction]:
    with Reader(path, options or ReaderOptions()) as reader:
        return [frame.pts * frame.time_base for frame in reader.pictures()]  # type: ignore[operator]


def test_probe_tells_what_is_in_a_file(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", Clip(size=(80, 60), rate=30, count=15, audio=2, sar=Fraction(8, 9)))
    info = probe(path)
    assert (info.kind, info.codec, info.width, info.height, info.pix_fmt) == ("video", "h264", 80, 60, "yuv420p")
    assert (info.average_rate, info.frames, info.duration, info.start) == (30, 15, Fraction(1, 2), 0)
    assert (info.sample_aspect_ratio, info.rotation, info.display_matrix) == (Fraction(8, 9), 0, None)
    assert [(s.index, s.type, s.codec) for s in info.streams] == [
        (0, "video", "h264"),
        (1, "audio", "aac"),
        (2, "audio", "aac"),
    ]


def refused(path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        Reader(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message.removeprefix(f"{path}: ")


def test_refusals_are_one_line_that_names_the_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.mp4") == "no such file"
    assert refused(tmp_path) == "is a directory, not a media file"
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert refused(empty) == "is empty"
    text = tmp_path / "text.mp4"
    text.write_text("This is no video at all.\n" * 50)
    assert refused(text).startswith("not a media file that can be read")
    make_clip(tmp_path / "whole.mp4")
    headless = tmp_path / "headless.mp4"
    headless.write_bytes((tmp_path / "whole.mp4").read_bytes()[:2000])
    assert refused(headless).startswith("not a media file that can be read")


def test_audio_only_and_covers_are_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=48000)
        cover = container.add_mux_stream("png", width=1, height=1, time_base=Fraction(1, 1000))
        cover.disposition = av.stream.Disposition.attached_pic
        from test_media_copy import PNG

        packet = av.Packet(PNG)
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 1000)
        container.mux(packet)
        container.mux(factory._sound(sound, 0, 0.2))
    assert refused(path) == "has no video stream"


def test_names_that_look_like_protocols_or_patterns_open(tmp_path: Path) -> None:
    for name in ("a:b.mp4", "100%d.mp4", "ünï©ode.mp4", "-start.mp4"):
        made = make_clip(tmp_path / "plain.mp4", Clip(count=2, audio=0)).rename(tmp_path / name)
        assert times_of(made) == [0, Fraction(1, 25)]


def test_pictures_carry_the_tags_of_their_stream(tmp_path: Path) -> None:
    clip = Clip(sar=Fraction(4, 3), rotation=90, options={"chroma_sample_location": "topleft"}, count=3)
    with Reader(make_clip(tmp_path / "a.mp4", clip)) as reader:
        for frame in reader.pictures():
            tags = get_tags(frame)
            assert (tags.sample_aspect_ratio, tags.chroma_location) == (Fraction(4, 3), "topleft")
            assert tags.display_matrix == reader.info.display_matrix
            frame.make_writable()
            assert get_tags(frame) == tags


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(("start", "end"), [(0.5, 1.2), (None, 0.7), (1.0, None), (0.48, 0.53), (0.333, 1.111)])
def test_trimming_is_exact_to_the_picture(tmp_path: Path, suffix: str, start: float | None, end: float | None) -> None:
    """Key pictures lie 10 pictures apart, with B pictures between."""
    base = Fraction(1, 90000) if suffix == "ts" else None
    pts = [i * 3600 for i in range(50)] if base else None
    clip = Clip(count=50, time_base=base, pts=pts, options={"g": "10", "bf": "2"})
    path = make_clip(tmp_path / f"in.{suffix}", clip)
    whole = times_of(path)
    begin = probe(path).start
    low = begin + Fraction(str(start or 0))
    high = begin + Fraction(str(end)) if end is not None else whole[-1] + 1
    kept = [time for time in whole if (start is None or time >= low) and time < high]
    origin = kept[0] if start is not None else 0
    assert times_of(path, ReaderOptions(start=start, end=end)) == [time - origin for time in kept]


def test_trimmed_pictures_are_the_very_pictures(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mp4", Clip(count=40, audio=0, options={"g": "15", "bf": "3"}))
    with Reader(path) as reader:
        whole = [factory.planes_of(frame) for frame in reader.pictures()]
    with Reader(path, ReaderOptions(start=0.8, end=1.2)) as reader:
        part = [factory.planes_of(frame) for frame in reader.pictures()]
    assert len(part) == 10
    for a, b in zip(whole[20:30], part, strict=True):
        assert all((p == q).all() for p, q in zip(a, b, strict=True))


def test_trimmed_audio_subtitles_and_chapters_move_along(tmp_path: Path) -> None:
    clip = Clip(
        count=50,
        audio=1,
        options={"g": "10"},
        subtitles=[(0.1, 0.2, "gone"), (0.4, 0.4, "on already"), (1.0, 0.2, "in"), (1.6, 0.2, "after")],
        chapters=[(0, 0.5, "gone"), (0.5, 1.0, "one"), (1.0, 2.0, "two")],
    )
    source = make_clip(tmp_path / "in.mkv", clip)
    run(source, tmp_path / "out.mkv", reading=ReaderOptions(start=0.6, end=1.4))
    before, after = packets_of(source), packets_of(tmp_path / "out.mkv")
    origin = Fraction(3, 5)
    kept = [
        (t - origin, h) for t, h in zip(before[1].times, before[1].hashes, strict=True) if origin <= t < Fraction(7, 5)
    ]
    assert list(zip(after[1].times, after[1].hashes, strict=True)) == kept
    assert len(kept) == 37
    assert after[2].times == [0, Fraction(2, 5)]
    assert after[2].durations == [Fraction(1, 5), Fraction(1, 5)]
    assert after[2].hashes == before[2].hashes[1:3]
    assert picture_times(tmp_path / "out.mkv") == [Fraction(i, 25) for i in range(20)]
    assert chapters_of(tmp_path / "out.mkv") == [(0, Fraction(2, 5), "one"), (Fraction(2, 5), Fraction(4, 5), "two")]


def test_start_behind_the_end_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mp4", Clip(count=5))
    with pytest.raises(MediaError, match="has no picture at or after --start 7"), Reader(path, ReaderOptions(start=7)):
        pass


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_file_cut_in_the_middle_gives_what_is_there(tmp_path: Path, suffix: str) -> None:
    """The index of the MP4 lies at its front, as in a download that broke off."""
    rich = Clip(count=50, size=(160, 120), options={"g": "10"})
    whole = make_clip(tmp_path / f"whole.{suffix}", rich)
    if suffix == "mp4":
        run(whole, tmp_path / "fast.mp4")
        whole = tmp_path / "fast.mp4"
    cut = tmp_path / f"cut.{suffix}"
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    reader, _ = run(cut, tmp_path / "out.mp4")
    assert 10 < reader.counts.decoded < 50
    expected = times_of(whole)[: reader.counts.decoded]
    assert picture_times(tmp_path / "out.mp4") == expected
    if suffix == "mp4":
        assert f"the input promises 50 pictures, only {reader.counts.decoded} could be decoded" in reader.notes


def damage(path: Path, packets: range, byte: bytes, keep: float = 0.1) -> None:
    """Overwrite some packets behind the given share of them."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        found = [packet for packet in container.demux() if packet.size]
    for packet in found[packets.start : packets.stop]:
        assert packet.pos is not None
        skip = int(packet.size * keep)
        data[packet.pos + skip : packet.pos + packet.size] = byte * (packet.size - skip)
    path.write_bytes(data)


def test_corrupt_bytes_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mov", Clip(count=40, audio=0, codec="png", pix_fmt="rgb24"))
    damage(path, range(10, 13), b"\xa5")
    reader, _ = run(path, tmp_path / "out.mov")
    assert (reader.counts.damaged, reader.counts.decoded) == (3, 37)
    assert reader.notes[0] == "3 damaged packets skipped"
    assert picture_times(tmp_path / "out.mov") == [Fraction(i, 25) for i in range(40) if i not in (10, 11, 12)]


def test_pictures_with_missing_parts_are_counted(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mp4", Clip(count=40, audio=0, size=(320, 240), options={"g": "8", "crf": "10"}))
    damage(path, range(18, 20), b"\xff", keep=0.7)
    reader, _ = run(path, tmp_path / "out.mp4")
    assert 1 <= reader.counts.concealed <= 8
    assert reader.counts.decoded == 40
    assert f"{reader.counts.concealed} pictures are damaged in the input" in reader.notes


def test_a_long_run_of_damage_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MAX_DAMAGED_RUN", 5)
    path = make_clip(tmp_path / "in.mov", Clip(count=40, audio=0, codec="png", pix_fmt="rgb24"))
    damage(path, range(10, 30), b"\xa5")
    with Reader(path) as reader, pytest.raises(MediaError, match="more than 5 damaged packets in a row"):
        list(reader.pictures())


def test_joined_recordings_go_on_without_a_gap(tmp_path: Path) -> None:
    """Two MPEG-TS recordings behind each other: the clock falls back in the middle."""
    pts = [i * 3600 for i in range(100)]
    a = make_clip(tmp_path / "a.ts", Clip(count=100, time_base=Fraction(1, 90000), pts=pts, options={"g": "25"}))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(a.read_bytes() * 2)
    reader, writer = run(joined, tmp_path / "out.mp4")
    times = picture_times(tmp_path / "out.mp4")
    assert reader.counts.breaks == 1
    assert reader.counts.repaired <= 1
    assert len(times) == 200
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert steps[:99] == [Fraction(1, 25)] * 99
    assert steps[100:] == [Fraction(1, 25)] * 99
    assert Fraction(1, 90000) <= steps[99] <= Fraction(1, 5)
    sound = packets_of(tmp_path / "out.mp4")[1]
    assert sound.times == sorted(set(sound.times))
    assert abs(sound.times[-1] - times[-1]) < Fraction(1, 2)
    assert writer.written == 200


class Stamps:
    """Stands in for pictures with any pts."""

    def __init__(self, pts: int | None) -> None:
        self.pts = pts


@pytest.mark.parametrize(
    ("given", "expected", "repaired"),
    [
        ([0, 40, 80], [0, 40, 80], 0),
        ([None, None, None], [0, 40, 80], 3),
        ([0, 40, 40, 80], [0, 40, 41, 80], 1),
        ([0, 80, 40, 120], [0, 80, 81, 120], 1),
        ([-80, None, 0], [-80, -40, 0], 1),
    ],
)
def test_missing_double_and_backward_times(
    tmp_path: Path, given: list[int | None], expected: list[int], repaired: int
) -> None:
    path = make_clip(tmp_path / "a.mkv", Clip(count=2, audio=0))
    with Reader(path) as reader:
        clock = reader_module._Clock(reader.container.streams.video[0], reader.info, reader.counts)
        stamps = [Stamps(pts) for pts in given]
        for stamp in stamps:
            clock.repair(stamp)  # type: ignore[arg-type]
    assert [stamp.pts for stamp in stamps] == expected
    assert reader.counts.repaired == repaired


def test_raw_streams_without_any_times(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.h264", Clip(audio=0, count=30, options={"bf": "2"}))
    reader, _ = run(path, tmp_path / "out.mp4")
    times = picture_times(tmp_path / "out.mp4")
    assert len(times) == reader.counts.decoded == 30
    assert [b - a for a, b in itertools.pairwise(times)] == [Fraction(1, 25)] * 29


@pytest.mark.parametrize(("codec", "pix_fmt", "becomes"), [("png", "pal8", "rgb24"), ("png", "monob", "gray")])
def test_formats_that_cannot_be_edited_are_converted_and_noted(
    tmp_path: Path, codec: str, pix_fmt: str, becomes: str
) -> None:
    assert pix_fmt not in LAYOUTS
    path = tmp_path / "in.mov"
    if pix_fmt == "pal8":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("png", rate=25)
            stream.codec_context.width, stream.codec_context.height, stream.codec_context.pix_fmt = 64, 48, "pal8"
            frame = av.VideoFrame(64, 48, "pal8")
            frame.planes[0].update(bytes(range(64)) * 48)
            frame.planes[1].update(b"".join(bytes([i, 255 - i, i // 2, 255]) for i in range(256)))
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    else:
        make_clip(path, Clip(audio=0, count=2, codec=codec, pix_fmt=pix_fmt))
    with Reader(path) as reader:
        (first, *_) = reader.pictures()
    assert first.format.name in LAYOUTS
    assert reader.notes == [f"pictures are {pix_fmt}, which can't be edited in place: converted to {first.format.name}"]
    if pix_fmt == "pal8":
        from gpenvid.media.pixels import read_region

        assert read_region(first, 10, 5, 12, 6).tolist() == [[[5, 245, 10], [5, 244, 11]]]


def test_the_limits_of_reader_options() -> None:
    with pytest.raises(ValueError, match="--start -1"):
        ReaderOptions(start=-1)
    with pytest.raises(ValueError, match="--end 1"):
        ReaderOptions(start=2, end=1)


def test_a_graphics_card_that_isnt_there(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", Clip(count=3))
    with Reader(path) as plain, Reader(path, ReaderOptions(hwaccel="auto")) as auto:
        # Where there is a card it decodes to the same samples, if in another order.
        assert [bytes(f.reformat(format="yuv420p").planes[0]) for f in auto.pictures()] == [
            bytes(f.planes[0]) for f in plain.pictures()
        ]
    with (
        pytest.raises(MediaError, match="--hwaccel d3d11va: can't be used here"),
        Reader(path, ReaderOptions(hwaccel="d3d11va")),
    ):
        pass
    (tmp_path / "b.mp4").write_text("nothing")
    with pytest.raises(MediaError, match="not a media file"):
        Reader(tmp_path / "b.mp4", ReaderOptions(hwaccel="auto"))
