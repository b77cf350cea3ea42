"""Several outputs behind one door: pictures are encoded once, and no output waits for another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import av
from av.stream import Stream

from gpenvid.errors import GpenvidError, MediaError, OptionsError
from gpenvid.media.sinks import TIME_BASE, LiveStreams
from gpenvid.media.sinks.encoder import VIDEO, LiveEncoder
from gpenvid.media.sinks.lane import OutputState, PacketLane, PacketOutput, PictureLane, PictureOutput
from gpenvid.media.sinks.packets import EncodedPacket
from gpenvid.media.sinks.screen import Originals
from gpenvid.media.sinks.sound import Sound
from gpenvid.options import EncoderOptions

MAX_SOUND_AHEAD = round(2 / TIME_BASE)
"""Sound that waits for the pictures of its time at most; then it goes on without them."""

MAX_WAITING = 4096
"""Packets of sound that wait for the first picture at most; no output could use them before it."""


class Fanout:
    """A `Sink` that hands everything on to its outputs, each served by a thread of its own.

    Every output gets pictures and sound in the order of their times, sound a packet ahead. It fails for good when all
    outputs have.
    """

    def __init__(
        self,
        packets: Sequence[PacketOutput],
        pictures: Sequence[PictureOutput] = (),
        encoder: EncoderOptions = EncoderOptions(),  # noqa: B008 (frozen)
        keyframes: float = 2.0,
    ) -> None:
        """keyframes: seconds between key pictures at most."""
        self.notes: list[str] = []
        self.name = ", ".join([*(each.name for each in packets), *(each.name for each in pictures)])
        self._packet_outputs, self._picture_outputs = packets, pictures
        self._options = (encoder, keyframes)
        self._encoder: LiveEncoder | None = None
        self._sound: Sound | None = None
        self._packet_lanes: list[PacketLane] = []
        self._picture_lanes: list[PictureLane] = []
        self._waiting: deque[EncodedPacket] = deque()
        self._begun = False
        self._sound_until: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def states(self) -> list[OutputState]:
        """How each output is doing, in the order in which they were given; empty before `open`."""
        return [lane.state for lane in self._lanes]

    def open(self, streams: LiveStreams) -> None:
        """Open the encoder and begin to open the outputs.

        Raises OptionsError for an encoder that can't do it or whose codec an output can't carry, MediaError for sound
        that can't be encoded.
        """
        if self._packet_outputs:
            self._encoder = LiveEncoder(streams, *self._options)
            self._sound = Sound(streams.audio) if streams.audio is not None else None
            self._open_packet_lanes(self._encoder, self._sound)
        self._picture_lanes = [PictureLane(output, streams) for output in self._picture_outputs]

    def original(self, frame: av.VideoFrame) -> None:
        """A picture before it is changed, for outputs that show both; others cost nothing."""
        for output in self._picture_outputs:
            originals = getattr(output, "originals", None)
            if isinstance(originals, Originals):
                originals.keep(frame)

    def video(self, frame: av.VideoFrame) -> None:
        """Take a picture; it isn't changed. Raises MediaError if the encoder fails or every output has."""
        assert frame.pts is not None and frame.time_base is not None
        time = round(frame.pts * frame.time_base / TIME_BASE)
        for lane in self._picture_lanes:
            lane.offer(frame, time)
        if self._encoder is not None:
            encoded = self._encoder.encode(frame)
            with self._lock:
                self._begun = True
                for packet in encoded:
                    self._release(packet.dts)
                    self._offer(packet)
                    self._release_one_ahead(packet.dts)
        self._check()

    def packet(self, packet: av.Packet[Stream]) -> None:
        """Take a packet of sound; it waits for the pictures of its time."""
        if self._sound is None:
            return
        given = self._sound.packets(packet)
        with self._lock:
            self._waiting.extend(given)
            if self._begun and self._waiting:
                self._release(self._waiting[-1].dts - MAX_SOUND_AHEAD)
            while len(self._waiting) > MAX_WAITING:
                self._waiting.popleft()

    def close(self) -> None:
        """Finish every output, all at the same time. Raises MediaError if every output failed."""
        error: GpenvidError | None = None
        try:
            rest = self._sound.flush() if self._sound is not None else []
            late = self._encoder.flush() if self._encoder is not None else []
        except MediaError as raised:
            rest, late, error = [], [], raised
        with self._lock:
            for packet in late:
                self._offer(packet)
            self._waiting.extend(rest)
            self._release(None)
        for lane in self._lanes:
            lane.end()
        for lane in self._lanes:
            lane.close()
        if self._sound is not None and self._sound.lost:
            self.notes.append(f"{self._sound.lost} packets of sound could not be decoded")
        for state in self.states:
            if state.dropped:
                self.notes.append(f"{state.name}: {state.dropped} pictures dropped")
        self._encoder = self._sound = None
        if error is not None:
            raise error
        self._check()

    def _open_packet_lanes(self, encoder: LiveEncoder, sound: Sound | None) -> None:
        plans = []
        for output in self._packet_outputs:
            if not output.format.takes(encoder.track.codec):
                raise OptionsError(
                    f"{output.name}: {output.format.name} can't carry {encoder.track.codec}; choose another --codec"
                )
            audio = sound.track(output.format) if sound is not None else None
            plans.append((output, [encoder.track, *([audio] if audio is not None else [])]))
        self.notes += encoder.notes + (sound.notes if sound is not None else [])
        self._packet_lanes = [PacketLane(output, tracks, encoder.ask_for_key) for output, tracks in plans]

    @property
    def _lanes(self) -> list[PacketLane | PictureLane]:
        return [*self._packet_lanes, *self._picture_lanes]

    def _offer(self, packet: EncodedPacket) -> None:
        if packet.track != VIDEO:
            self._sound_until[packet.track] = packet.dts
        for lane in self._packet_lanes:
            lane.offer(packet)

    def _release(self, until: int | None) -> None:
        """Hand on the sound up to this time, all of it for None."""
        while self._waiting and (until is None or self._waiting[0].dts <= until):
            self._offer(self._waiting.popleft())

    def _release_one_ahead(self, time: int) -> None:
        """Hand on the first packet of each sound after this time, if it is there and hasn't gone already.

        A muxer keeps a picture back until it has a later packet of every other stream.
        """
        ahead: dict[str, EncodedPacket] = {}
        for packet in self._waiting:
            ahead.setdefault(packet.track, packet)
        for track, packet in ahead.items():
            if self._sound_until.get(track, time) <= time:
                self._waiting.remove(packet)
                self._offer(packet)

    def _check(self) -> None:
        states = self.states
        if states and all(state.state == "failed" for state in states):
            raise MediaError("; ".join(state.error for state in states))
        if states and all(state.state in ("failed", "closed") for state in states) and self._encoder is not None:
            raise MediaError("every output has ended")
