"""When streams end: durations that encoders and parsers don't pass on, so that a copy is as long as its source."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av

MAX_DELAY = 256
"""Pictures that an encoder holds back at most, and then some."""


class Ends:
    """Remembers how long pictures last while an encoder holds them back."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._durations: dict[Fraction, Fraction] = {}
        self._first_dts: Fraction | None = None
        self._first = self._end = Fraction(0)
        self._seen = False

    def saw(self, frame: av.VideoFrame) -> None:
        """Note a picture that goes to the encoder; pictures come in the order of their times."""
        if frame.pts is None or frame.time_base is None or not frame.duration:
            return
        time, duration = frame.pts * frame.time_base, frame.duration * frame.time_base
        self._durations[time] = duration
        if len(self._durations) > MAX_DELAY:  # an encoder that rounds times to its own clock takes none away
            del self._durations[next(iter(self._durations))]
        if not self._seen:
            self._first, self._seen = time, True
        self._end = time + duration

    def replayed(self, packet: av.Packet[Any]) -> None:
        """Note a packet that an earlier encoder of the same pictures made."""
        if self._first_dts is None and packet.dts is not None:
            self._first_dts = packet.dts * packet.time_base
        if not self._seen and packet.pts is not None:  # an encoder's first packet is its first picture
            self._first, self._seen = packet.pts * packet.time_base, True

    def timed(self, packets: list[av.Packet[Any]], *, last: bool = False) -> list[av.Packet[Any]]:
        """Give the encoder's packets the durations of their pictures. `last`: no more packets come after these.

        Decode times are made to span what the pictures span, by moving the last: so MP4 counts a track's length, and
        with pictures at irregular times the encoder's delay at the end isn't that at the start.
        """
        for packet in packets:
            if self._first_dts is None and packet.dts is not None:
                self._first_dts = packet.dts * packet.time_base
            if packet.pts is not None:
                duration = self._durations.pop(packet.pts * packet.time_base, None)
                if duration is not None:
                    packet.duration = round(duration / packet.time_base)
        if last and packets and self._seen and self._first_dts is not None:
            packet = packets[-1]
            dts = round((self._first_dts + self._end - self._first) / packet.time_base) - (packet.duration or 0)
            before = packets[-2].dts if len(packets) > 1 else packet.dts
            if before is not None and packet.pts is not None and before < dts <= packet.pts:
                packet.dts = dts
        return packets


def end_with_stream(packet: av.Packet[Any]) -> None:
    """Shorten a copied packet within which its stream ends, by what the container says, to end there, too."""
    stream = packet.stream
    if stream.duration is None or packet.pts is None or not packet.duration:
        return
    end = (stream.start_time or 0) + stream.duration
    if packet.pts < end < packet.pts + packet.duration:
        packet.duration = end - packet.pts
