"""Silence in the source's own codec, for as long as the source is away."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.stream import Stream

from gpenvid.media.sinks import TIME_BASE

_SAMPLES = 1024


class Silence:
    """Packets without a sound that a decoder of the template's stream understands.

    `possible` is False where there is no encoder for the codec, or none that writes the template's parameters.
    """

    def __init__(self, template: AudioStream) -> None:
        self.possible = False
        decoder = template.codec_context
        try:
            encoder: Any = av.CodecContext.create(decoder.codec.canonical_name, "w")
            formats = encoder.codec.audio_formats or []
            encoder.format = formats[0].name if formats else decoder.format.name
            encoder.layout, encoder.sample_rate = decoder.layout, decoder.sample_rate
            encoder.time_base = Fraction(1, decoder.sample_rate)
            if decoder.extradata:  # the parameters lie beside the packets, not in them
                encoder.flags |= av.codec.context.Flags.global_header
            encoder.open()
        except (av.error.FFmpegError, ValueError):
            return
        config, own = decoder.extradata or b"", encoder.extradata or b""
        self.possible = config[:2] == own[:2] if config else True
        self._encoder = encoder
        self._samples = encoder.frame_size or _SAMPLES
        self._packet = self._one() if self.possible else b""
        self.possible = bool(self._packet)

    @property
    def duration(self) -> Fraction:
        """Seconds that a packet lasts."""
        return Fraction(self._samples, self._encoder.sample_rate)

    def packets(self, start: int, end: int) -> list[av.Packet[Stream]]:
        """As many whole packets as fit from `start` to `end`, microseconds of the session."""
        length = self.duration / TIME_BASE
        made = []
        for number in range(max(0, int((end - start) / length))):
            packet = av.Packet(self._packet)
            packet.pts = packet.dts = start + round(number * length)
            packet.duration = round(length)
            packet.time_base, packet.is_keyframe = TIME_BASE, True
            made.append(packet)
        return made

    def _one(self) -> bytes:
        """A packet of silence from well inside a silent stream, so that no encoder's run-in is heard."""
        frame = av.AudioFrame(self._encoder.format.name, self._encoder.layout.name, self._samples)
        last = b""
        for number in range(8):
            for plane in frame.planes:
                plane.update(_zero(self._encoder.format.name, plane.buffer_size))
            frame.sample_rate, frame.pts = self._encoder.sample_rate, number * self._samples
            frame.time_base = self._encoder.time_base
            for packet in self._encoder.encode(frame):
                last = bytes(packet)
        return last


def _zero(sample_format: str, size: int) -> bytes:
    return np.full(size, 128 if sample_format.startswith("u8") else 0, np.uint8).tobytes()
