"""What goes through the reader and the writer comes out as it went in."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import media_factory as factory
import numpy as np
import pytest
from media_factory import Clip, make_clip, packets_of, picture_times

from gpenvid.media.probe import probe
from gpenvid.media.reader import Reader
from gpenvid.media.writer import Writer
from gpenvid.options import EncoderOptions, ReaderOptions

PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde"
    b"\x00\x00\x00\x0cIDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00\x00\x00IEND\xaeB`\x82"
)
RICH = Clip(
    audio=2,
    subtitles=[(0.1, 0.3, "hello"), (0.5, 0.2, "again")],
    chapters=[(0.0, 0.4, "one"), (0.4, 0.8, "two")],
    metadata={"title": "A title", "comment": "A comment"},
    video_metadata={"language": "swe"},
    sar=Fraction(4, 3),
    color=(1, 1, 1, 1),
)


def run(
    source: Path, target: Path, options: EncoderOptions | None = None, reading: ReaderOptions | None = None
) -> tuple[Reader, Writer]:
    """Copy a file through both, as the command does."""
    with (
        Reader(source, reading or ReaderOptions()) as reader,
        Writer(target, reader, options or EncoderOptions()) as writer,
    ):
        for frame in reader.pictures(writer.copy):
            writer.write(frame)
    return reader, writer


def chapters_of(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    with av.open(str(path)) as container:
        return [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])  # type: ignore[operator]
            for c in container.chapters()
        ]


def assert_same_packets(source: Path, target: Path, *, within: Fraction = Fraction(0)) -> None:
    """Copied streams: payloads identical, times identical (or within the tick of a coarser container)."""
    before, after = packets_of(source), packets_of(target)
    assert [stream.type for stream in after] == [stream.type for stream in before]
    for old, new in list(zip(before, after, strict=True))[1:]:
        assert new.hashes == old.hashes
        assert all(abs(a - b) <= within for a, b in zip(new.times, old.times, strict=True))


def test_mp4_to_mp4_keeps_everything(tmp_path: Path) -> None:
    clip = replace(RICH, subtitle_codec="mov_text", rotation=90)
    source = make_clip(tmp_path / "in.mp4", clip)
    target = tmp_path / "out.mp4"
    _, writer = run(source, target)
    assert writer.notes == []
    assert_same_packets(source, target)
    assert picture_times(target) == picture_times(source) == [Fraction(i, 25) for i in range(20)]
    assert sorted(packets_of(target)[0].durations) == [Fraction(1, 25)] * 20
    assert (
        chapters_of(target)
        == chapters_of(source)
        == [(0, Fraction(2, 5), "one"), (Fraction(2, 5), Fraction(4, 5), "two")]
    )
    before, after = probe(source), probe(target)
    assert replace(after, path=before.path) == before
    assert (after.rotation, after.sample_aspect_ratio) == (90, Fraction(4, 3))
    with av.open(str(target)) as container:
        assert container.metadata["title"] == "A title"
        assert container.metadata["comment"] == "A comment"
        assert [stream.metadata["language"] for stream in container.streams][:4] == ["swe", "eng", "fra", "eng"]
        assert [int(stream.disposition) for stream in container.streams][:3] == [1, 1, 8]


def test_mkv_to_mkv_keeps_variable_rate_subtitles_and_attachments(tmp_path: Path) -> None:
    pts = [0, 33, 40, 90, 200, 201, 230, 400, 410, 800]
    clip = replace(RICH, time_base=Fraction(1, 1000), pts=pts, attachment=b"a font's bytes")
    source = make_clip(tmp_path / "in.mkv", clip)
    target = tmp_path / "out.mkv"
    _, writer = run(source, target)
    assert writer.notes == []
    assert_same_packets(source, target)
    assert picture_times(target) == [Fraction(p, 1000) for p in pts]
    assert chapters_of(target) == chapters_of(source)
    with av.open(str(target)) as container:
        (attachment,) = container.streams.attachments
        assert attachment.data == b"a font's bytes"
        assert attachment.metadata == {"filename": "font.ttf", "mimetype": "font/ttf"}


def test_mkv_to_mp4_says_what_it_cannot_hold(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", replace(RICH, attachment=b"font"))
    target = tmp_path / "out.mp4"
    _, writer = run(source, target)
    assert writer.notes == [
        "stream 3 (subtitle subrip) is not copied: mp4 can't hold it; write .mkv to keep it",
        "stream 4 (attachment unknown) is not copied: mp4 can't hold it; write .mkv to keep it",
    ]
    assert picture_times(target) == picture_times(source)
    assert packets_of(target)[1].hashes == packets_of(source)[1].hashes
    assert packets_of(target)[2].hashes == packets_of(source)[2].hashes


def test_mp4_to_mkv_rounds_to_milliseconds_and_says_so_only_when_it_does(tmp_path: Path) -> None:
    exact = make_clip(tmp_path / "25.mp4", Clip(rate=25))
    _, writer = run(exact, tmp_path / "25.mkv")
    assert writer.notes == []
    assert picture_times(tmp_path / "25.mkv") == picture_times(exact)
    odd = make_clip(tmp_path / "30.mp4", Clip(rate=30))
    _, writer = run(odd, tmp_path / "30.mkv")
    assert writer.notes == ["matroska holds times in steps of 1/1000 s: times are rounded to them"]
    assert_same_packets(odd, tmp_path / "30.mkv", within=Fraction(1, 2000))
    difference = [abs(a - b) for a, b in zip(picture_times(tmp_path / "30.mkv"), picture_times(odd), strict=True)]
    assert 0 < max(difference) <= Fraction(1, 2000)


@pytest.mark.parametrize(
    ("suffix", "clip"),
    [
        ("mov", Clip(codec="prores_ks", pix_fmt="yuv422p10le", count=5)),
        ("webm", Clip(codec="libvpx-vp9", audio_codec="libopus", count=8)),
        ("mkv", Clip(codec="ffv1", pix_fmt="yuv444p", audio_codec="flac", count=5)),
        ("mp4", Clip(codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": "log-level=none"}, count=6)),
        ("mkv", Clip(codec="mjpeg", pix_fmt="yuvj422p", audio_codec="pcm_s16le", color=(2, 2, 5, 2))),
        (
            "mp4",
            Clip(
                codec="libx264", pix_fmt="yuv422p10le", size=(70, 50), time_base=Fraction(1, 90000), pts=[9, 777, 4000]
            ),
        ),
        ("mp4", Clip(codec="libsvtav1", count=5, options={"preset": "12", "svtav1-params": "lp=1"})),
    ],
    ids=["prores", "vp9", "ffv1", "hevc10", "mjpeg", "h264-422-10", "av1"],
)
def test_codec_and_pixel_format_are_kept(tmp_path: Path, suffix: str, clip: Clip) -> None:
    source = make_clip(tmp_path / f"in.{suffix}", clip)
    target = tmp_path / f"out.{suffix}"
    options = EncoderOptions(preset="12") if clip.codec == "libsvtav1" else EncoderOptions()
    _, writer = run(source, target, options)
    assert writer.notes == []
    before, after = probe(source), probe(target)
    assert (after.codec, after.pix_fmt, after.width, after.height) == (before.codec, clip.pix_fmt, *clip.size)
    assert after.color == before.color
    assert picture_times(target) == picture_times(source)
    assert_same_packets(source, target)


def test_lossless_output_has_the_very_pixels_of_the_input(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(size=(66, 50), count=12))
    run(source, tmp_path / "out.mkv", EncoderOptions(codec="ffv1"))
    with av.open(str(source)) as a, av.open(str(tmp_path / "out.mkv")) as b:
        for old, new in zip(a.decode(video=0), b.decode(video=0), strict=True):
            for p, q in zip(factory.planes_of(old), factory.planes_of(new), strict=True):
                np.testing.assert_array_equal(p, q)


def test_avi_to_mp4(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.avi", Clip(codec="mpeg4", audio_codec="pcm_s16le"))
    _, writer = run(source, tmp_path / "out.mp4")
    assert writer.notes == []
    assert probe(tmp_path / "out.mp4").codec == "mpeg4"
    assert picture_times(tmp_path / "out.mp4") == [Fraction(i, 25) for i in range(20)]
    assert b"".join(h.encode() for h in packets_of(source)[1].hashes) == b"".join(
        h.encode() for h in packets_of(tmp_path / "out.mp4")[1].hashes
    )


def test_avi_with_b_frames_has_rising_times(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.avi", Clip(codec="mpeg4", audio=0, options={"bf": "2"}))
    reader, _ = run(source, tmp_path / "out.mp4")
    times = picture_times(tmp_path / "out.mp4")
    assert reader.counts.decoded == len(times) == 20
    assert [b - a for a, b in itertools.pairwise(times)] == [Fraction(1, 25)] * 19


def test_mpegts_to_mp4_and_mkv(tmp_path: Path) -> None:
    pts = [3600 * i + 126000 for i in range(20)]
    source = make_clip(tmp_path / "in.ts", Clip(time_base=Fraction(1, 90000), pts=pts))
    expected = picture_times(source)
    for name in ("out.mp4", "out.mkv"):
        run(source, tmp_path / name)
        times = picture_times(tmp_path / name)
        assert [a - times[0] for a in times] == [Fraction(i, 25) for i in range(20)]
        before, after = packets_of(source)[1], packets_of(tmp_path / name)[1]
        # ADTS headers go, so payloads differ; the times (rounded to the output's ticks) and the decoded sound don't.
        assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(after.times, before.times, strict=True))
        np.testing.assert_array_equal(sound_of(tmp_path / name), sound_of(source))
        assert abs(times[0] - expected[0]) <= Fraction(1, 1000)


def sound_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


@pytest.mark.parametrize(("suffix", "kept"), [("mp4", True), ("mkv", True), ("mov", False)])
def test_cover_picture(tmp_path: Path, suffix: str, kept: bool) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(cover=PNG))
    assert probe(source).codec == "h264"
    target = tmp_path / f"out.{suffix}"
    _, writer = run(source, target)
    covers = [s for s in packets_of(target)[1:] if s.type == "video"]
    if kept:
        assert writer.notes == []
        assert [cover.hashes for cover in covers] == [packets_of(source)[-1].hashes]
    else:
        assert writer.notes == [
            "stream 2 (cover picture) is not copied: mov holds no covers; write .mkv or .mp4 to keep it"
        ]


@pytest.mark.parametrize(("degrees", "flipped"), [(90, False), (-90, False), (180, False), (0, True), (90, True)])
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_rotation_and_mirroring(tmp_path: Path, suffix: str, degrees: int, flipped: bool) -> None:
    source = make_clip(tmp_path / f"in.{suffix}", Clip(rotation=degrees, flipped=flipped, audio=0, count=3))
    run(source, tmp_path / f"out.{suffix}")
    before, after = probe(source), probe(tmp_path / f"out.{suffix}")
    assert before.display_matrix is not None
    assert after.display_matrix == before.display_matrix
    assert (after.width, after.height) == (64, 48)


@pytest.mark.parametrize("location", ["left", "center", "topleft"])
def test_chroma_location(tmp_path: Path, location: str) -> None:
    clip = Clip(audio=0, count=3, options={"chroma_sample_location": location})
    source = make_clip(tmp_path / "in.mp4", clip)
    run(source, tmp_path / "out.mp4")
    assert probe(source).color.chroma_location == location
    assert probe(tmp_path / "out.mp4").color.chroma_location == location


@pytest.mark.parametrize("color", [(1, 1, 1, 1), (9, 16, 9, 1), (5, 6, 5, 2), (6, 6, 6, 1)])
def test_color_tags(tmp_path: Path, color: tuple[int, int, int, int]) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(audio=0, count=3, color=color))
    run(source, tmp_path / "out.mkv")
    tags = probe(tmp_path / "out.mkv").color
    assert (tags.primaries, tags.trc, tags.space, tags.range) == color


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_hdr10_metadata(tmp_path: Path, codec: str) -> None:
    mastering, light = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)", "1000,400"
    parameters = f"log-level=none:master-display={mastering}:max-cll={light}"
    clip = Clip(codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": parameters}, color=(9, 16, 9, 1))
    source = make_clip(tmp_path / "in.mp4", replace(clip, audio=0, count=3))
    _, writer = run(source, tmp_path / "out.mp4", EncoderOptions(codec=codec))
    assert writer.notes == []
    tags = probe(tmp_path / "out.mp4").hdr
    assert tags is not None
    assert (tags.mastering, tags.light) == (mastering, light)
    _, writer = run(source, tmp_path / "out.mkv", EncoderOptions(codec="ffv1"))
    assert writer.notes == ["HDR10 mastering metadata can't be kept by ffv1"]


def test_interlaced_pictures_stay_interlaced(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(audio=0, count=5, interlaced=True))
    run(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    _, writer = run(source, tmp_path / "out.mkv", EncoderOptions(codec="libvpx-vp9"))
    assert writer.notes == ["libvpx-vp9 doesn't know interlaced pictures: they are encoded as progressive ones"]


def test_odd_sizes(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(size=(65, 47), codec="ffv1", pix_fmt="yuv420p", audio=0, count=3))
    run(source, tmp_path / "out.mkv")
    assert (probe(tmp_path / "out.mkv").width, probe(tmp_path / "out.mkv").height) == (65, 47)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_second_video_stream_is_copied(tmp_path: Path, suffix: str) -> None:
    """It has B pictures, whose first decode times Matroska doesn't know."""
    one = make_clip(tmp_path / "one.mkv", Clip(audio=0, count=10, options={"bf": "2"}))
    both = tmp_path / f"both.{suffix}"
    with av.open(str(one)) as a, av.open(str(one)) as b, av.open(str(both), "w") as out:
        pair = [out.add_stream_from_template(source.streams.video[0], opaque=True) for source in (a, b)]
        for old, new in zip(a.demux(video=0), b.demux(video=0), strict=True):
            if old.size:
                old.stream, new.stream = pair
                out.mux([old, new])
    for target in (tmp_path / "out.mkv", tmp_path / "out.mp4"):
        _, writer = run(both, target)
        assert writer.notes == []
        assert_same_packets(both, target)
        assert picture_times(target) == picture_times(both)


def test_the_start_time_code_is_kept(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mov", Clip(count=6, video_metadata={"timecode": "01:02:03:04"}))
    _, writer = run(source, tmp_path / "out.mov")
    assert writer.notes == []
    assert [stream.type for stream in packets_of(tmp_path / "out.mov")] == ["video", "audio", "data"]
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.streams[2].metadata["timecode"] == "01:02:03:04"


def test_odd_sizes_that_an_encoder_cannot_subsample_keep_every_pixel(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(size=(65, 47), codec="ffv1", audio=0, count=3))
    _, writer = run(source, tmp_path / "out.mp4", EncoderOptions(codec="libx264", crf=0))
    assert writer.notes == ["libx264 can't encode yuv420p of 65x47: pictures are converted to yuv444p"]
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height, info.pix_fmt) == (65, 47, "yuv444p")
    with av.open(str(source)) as a, av.open(str(tmp_path / "out.mp4")) as b:
        for old, new in zip(a.decode(video=0), b.decode(video=0), strict=True):
            np.testing.assert_array_equal(factory.planes_of(old)[0], factory.planes_of(new)[0])


def test_copy_and_write_from_two_threads(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", replace(RICH, count=60))
    target = tmp_path / "out.mkv"
    with Reader(source) as reader, Writer(target, reader) as writer:
        pictures: list[av.VideoFrame] = []
        thread = threading.Thread(target=lambda: pictures.extend(reader.pictures(writer.copy)))
        thread.start()
        done = 0
        while thread.is_alive() or done < len(pictures):
            if done < len(pictures):
                writer.write(pictures[done])
                done += 1
        thread.join()
    assert_same_packets(source, target)
    assert picture_times(target) == picture_times(source)


def test_a_chapter_or_text_beyond_the_pictures_is_harmless(tmp_path: Path) -> None:
    clip = replace(RICH, count=5, subtitles=[(3.0, 1.0, "late")], chapters=[(0.0, 9.0, "long")])
    source = make_clip(tmp_path / "in.mkv", clip)
    run(source, tmp_path / "out.mkv")
    assert_same_packets(source, tmp_path / "out.mkv")
    assert chapters_of(tmp_path / "out.mkv") == [(0, 9, "long")]
