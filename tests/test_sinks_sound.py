"""Sound on its way to outputs that don't take its codec: the times stay what they are."""

from __future__ import annotations

import io
import itertools
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream

from gpenvid.media.sinks import TIME_BASE
from gpenvid.media.sinks.formats import FORMATS
from gpenvid.media.sinks.packets import EncodedPacket
from gpenvid.media.sinks.sound import AS_IT_CAME, Sound

RATE = 44100
CHUNK = 1000  # samples: a number of microseconds that isn't whole


@pytest.fixture
def stream() -> AudioStream:
    """A template of G.711 sound, mono."""
    container = av.open(cast(Any, io.BytesIO()), "w", format="mov")
    stream = container.add_stream("pcm_mulaw", rate=RATE, layout="mono")
    container.start_encoding()
    return stream


def coded(number: int, late: Fraction = Fraction(0)) -> Any:
    """The chunk of that number, its time rounded to microseconds: a click at its beginning, else silence."""
    packet: Any = av.Packet(b"\x80" * 20 + b"\xff" * (CHUNK - 20))
    packet.time_base = TIME_BASE
    packet.pts = packet.dts = round((Fraction(number * CHUNK, RATE) + late) / TIME_BASE)
    packet.duration = round(Fraction(CHUNK, RATE) / TIME_BASE)
    return packet


def decoded(packets: list[EncodedPacket], extradata: bytes) -> tuple[Any, int]:
    """All samples of AAC packets, and the time of the first in samples."""
    decoder: Any = av.CodecContext.create("aac", "r")
    decoder.extradata = extradata
    samples = []
    for packet in packets:
        again: Any = av.Packet(packet.data)
        samples += [frame.to_ndarray()[0] for frame in decoder.decode(again)]
    return np.concatenate(samples), round(packets[0].pts * TIME_BASE * RATE)


def encoded(sound: Sound, packets: list[Any]) -> list[EncodedPacket]:
    assert sound.track(FORMATS["mp4"]) is not None
    given = [out for packet in packets for out in sound.packets(packet)] + sound.flush()
    assert {packet.track for packet in given} == {"aac"}
    return given


def test_rounded_times_are_no_gaps_and_never_add_up(stream: AudioStream) -> None:
    sound = Sound(stream)
    given = encoded(sound, [coded(number) for number in range(1000)])
    steps = {round((b.pts - a.pts) * TIME_BASE * RATE) for a, b in itertools.pairwise(given)}
    assert steps <= {1024, 1000 * CHUNK % 1024}
    samples, first = decoded(given, bytes(sound.track(FORMATS["mp4"]).template.codec_context.extradata))  # type: ignore[union-attr]
    clicks = np.flatnonzero(np.abs(samples) > 0.3)
    starts = clicks[np.flatnonzero(np.diff(clicks, prepend=-CHUNK) > CHUNK // 2)] + first
    assert len(starts) == pytest.approx(1000, abs=2)
    numbers = np.round(starts / CHUNK)
    assert np.abs(starts - numbers * CHUNK).max() < 64  # AAC smears a click by a few samples
    assert numbers[-1] >= 998


def test_a_gap_stays_a_gap(stream: AudioStream) -> None:
    late = Fraction(1, 2)
    given = encoded(Sound(stream), [coded(n) for n in range(50)] + [coded(n, late) for n in range(50, 100)])
    steps = [round((b.pts - a.pts) * TIME_BASE * RATE) for a, b in itertools.pairwise(given)]
    (gap,) = [step for step in steps if step > 1100]
    assert gap == pytest.approx(1024 + RATE / 2, abs=2)
    end = given[-1].pts * TIME_BASE * RATE + 1024
    assert end == pytest.approx(100 * CHUNK + RATE / 2, abs=1024)
    assert all(a.dts < b.dts for a, b in itertools.pairwise(given))


def test_what_cannot_be_decoded_is_counted(stream: AudioStream) -> None:
    container = av.open(cast(Any, io.BytesIO()), "w", format="mp4")
    aac = container.add_stream("aac", rate=48000, layout="mono")
    container.start_encoding()
    sound = Sound(aac)
    assert sound.track(FORMATS["whip"]) is not None
    broken: Any = av.Packet(b"\xff" * 40)
    broken.pts = broken.dts = 0
    broken.time_base = TIME_BASE
    assert sound.packets(broken) == []
    assert sound.lost == 1


def test_a_copy_is_byte_for_byte(stream: AudioStream) -> None:
    sound, packet = Sound(stream), coded(3)
    track = sound.track(FORMATS["rtsp"])
    assert track is not None and track.name == AS_IT_CAME
    (copy,) = sound.packets(packet)
    assert (copy.data, copy.pts, copy.dts, copy.duration) == (bytes(packet), packet.pts, packet.dts, packet.duration)
    assert sound.notes == []
    assert sound.track(FORMATS["flv"]) is not None
    assert sound.notes == ["sound pcm_mulaw can't be sent as flv: encoded as aac"]
