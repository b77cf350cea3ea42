"""The source's sound in the codecs that the outputs ask for: as it came, and encoded once for each other."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, cast

import av
from av.audio.stream import AudioStream
from av.stream import Stream

from gpenvid.errors import MediaError
from gpenvid.media.sinks import TIME_BASE
from gpenvid.media.sinks.formats import Format
from gpenvid.media.sinks.packets import EncodedPacket, Track

AS_IT_CAME = "sound"
"""The name of the track that is copied; an encoded one is called by its codec."""

_ENCODERS = {"aac": "aac", "opus": "libopus", "mp3": "libmp3lame"}
_RATES = {"aac": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000), "mp3": (32000, 44100, 48000)}
_USUAL_RATE = 48000
_BIT_RATE = 96_000
_SAME_MOMENT = Fraction(1, 25)
"""Seconds. A decoded chunk that starts no farther from the end of the last follows on it: rounding, not a gap."""


class Sound:
    """One source's sound. `track` is asked while outputs are set up, `packets` from one thread, later."""

    def __init__(self, source: AudioStream) -> None:
        """source: a template with its decoder's parameters."""
        self.notes: list[str] = []
        self.lost = 0
        """Packets that could not be decoded, and so are missing in what is encoded."""
        self._codec = source.codec_context.codec.canonical_name
        self._headless = self._codec == "aac" and not source.codec_context.extradata
        self._source = source
        self._copied = Track(AS_IT_CAME, self._codec, cast(Stream, source))
        self._wanted: set[str] = set()
        self._transcoders: dict[str, Transcoder] = {}

    def track(self, format: Format) -> Track | None:
        """The track for outputs of this format; None for a silent one. Says when it has to be encoded anew."""
        if not format.sound:
            return None
        if format.takes(self._codec) and not (self._headless and format.headers):
            self._wanted.add(AS_IT_CAME)
            return self._copied
        codec = format.sound[0]
        if codec not in self._transcoders:
            self._transcoders[codec] = Transcoder(self._source, codec)
        why = "has no header of its own" if codec == self._codec else f"can't be sent as {format.name}"
        note = f"sound {self._codec} {why}: encoded as {codec}"
        if note not in self.notes:
            self.notes.append(note)
        return self._transcoders[codec].track

    def packets(self, packet: av.Packet[Any]) -> list[EncodedPacket]:
        """One packet of the source in every variant that was asked for. Its times are in its own time base."""
        copied = EncodedPacket.of(packet, AS_IT_CAME)
        if copied is None:
            return []
        given = [copied] if AS_IT_CAME in self._wanted else []
        for transcoder in self._transcoders.values():
            given += transcoder.packets(copied)
        self.lost = max((each.lost for each in self._transcoders.values()), default=0)
        return given

    def flush(self) -> list[EncodedPacket]:
        """What the encoders still hold."""
        return [packet for transcoder in self._transcoders.values() for packet in transcoder.flush()]


class Transcoder:
    """Decodes one codec and encodes another, at the source's sample rate where the codec has it, mono or stereo."""

    def __init__(self, source: AudioStream, codec: str) -> None:
        """codec: a key of `_ENCODERS`. Raises MediaError if this FFmpeg has no decoder or encoder for it."""
        self.lost = 0
        given = source.codec_context
        try:
            self._decoder = cast(Any, av.CodecContext.create(given.name, "r"))
            self._decoder.extradata = given.extradata
            self._decoder.sample_rate, self._decoder.layout = given.sample_rate, given.layout
            rates = _RATES.get(codec, (_USUAL_RATE,))
            self._rate = given.sample_rate if given.sample_rate in rates else _USUAL_RATE
            # WebRTC knows Opus in stereo only.
            layout = "mono" if given.layout.nb_channels == 1 and codec != "opus" else "stereo"
            # A stream of a container that nobody reads, as for the pictures.
            self._container = av.open(cast(Any, io.BytesIO()), "w", format="nut")
            stream = cast(AudioStream, self._container.add_stream(_ENCODERS[codec], rate=self._rate))
            self._encoder = cast(Any, stream.codec_context)
            self._encoder.layout = layout
            self._encoder.time_base = Fraction(1, self._rate)
            self._encoder.bit_rate = _BIT_RATE * (1 if layout == "mono" else 2) // 2
            self._encoder.flags |= av.codec.context.Flags.global_header
            self._encoder.open()
            self._container.start_encoding()
        except (ValueError, av.error.FFmpegError) as error:
            raise MediaError(f"sound {given.name} can't be turned into {codec} by this FFmpeg") from error
        self._resampler = av.AudioResampler(self._encoder.format, layout, self._rate)
        self._fifo = av.AudioFifo()
        self._next: int | None = None
        self.track = Track(codec, codec, cast(Stream, stream))

    def packets(self, packet: EncodedPacket) -> list[EncodedPacket]:
        """What one packet becomes; none while the encoder waits for a full frame. What can't be decoded is counted."""
        again: av.Packet[Any] = av.Packet(packet.data)
        again.pts = again.dts = packet.pts
        again.time_base = TIME_BASE
        try:
            frames = self._decoder.decode(again)
        except av.error.FFmpegError:
            self.lost += 1
            return []
        encoded: list[EncodedPacket] = []
        for frame in frames:
            start = round(
                (frame.pts if frame.pts is not None else packet.pts) * (frame.time_base or TIME_BASE) * self._rate
            )
            frame.pts = None
            for chunk in self._resampler.resample(frame):
                encoded += self._encode(chunk, start)
                start += chunk.samples
        return encoded

    def flush(self) -> list[EncodedPacket]:
        """What is left, the last frame shorter."""
        rest = self._fifo.read(0, partial=True)
        return (self._frame(rest) if rest is not None else []) + self._copies(self._encoder.encode(None))

    def _encode(self, chunk: av.AudioFrame, start: int) -> list[EncodedPacket]:
        """Queue samples that start at this time, in samples; encode what makes full frames.

        After a gap the times jump, and the samples before it make a frame with those behind it.
        """
        if self._next is None:
            self._next = start
        behind = start - (self._next + self._fifo.samples)
        if abs(behind) > _SAME_MOMENT * self._rate and behind > 0:
            self._next += behind
        chunk.pts = None
        self._fifo.write(chunk)
        encoded: list[EncodedPacket] = []
        size = self._encoder.frame_size or self._rate // 50
        while self._fifo.samples >= size:
            frame = self._fifo.read(size)
            assert frame is not None
            encoded += self._frame(frame)
        return encoded

    def _frame(self, frame: av.AudioFrame) -> list[EncodedPacket]:
        assert self._next is not None
        frame.pts, frame.time_base, frame.sample_rate = self._next, Fraction(1, self._rate), self._rate
        self._next += frame.samples
        return self._copies(self._encoder.encode(frame))

    def _copies(self, packets: list[Any]) -> list[EncodedPacket]:
        return [copy for each in packets if (copy := EncodedPacket.of(each, self.track.name)) is not None]
