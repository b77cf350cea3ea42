"""What can be sent in which container, so that those who receive it can play it."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import av


@dataclass(frozen=True, slots=True)
class Format:
    """A container and what its usual receivers understand.

    name: FFmpeg's. video, sound: codecs by FFmpeg's names, the first of `sound` being the one that is encoded to where
    the source's isn't among them; empty `sound` for a silent format. any_codec: whatever FFmpeg can write into it.
    headers: the sound's codec parameters must be known beforehand, so AAC in ADTS frames doesn't do.
    options: of the muxer.
    """

    name: str
    video: tuple[str, ...]
    sound: tuple[str, ...]
    any_codec: bool = False
    headers: bool = True
    options: dict[str, str] = field(default_factory=dict)

    def takes(self, codec: str) -> bool:
        """Whether packets of this codec can be sent."""
        return codec in self.video or codec in self.sound or (self.any_codec and codec in _writable(self.name))


@lru_cache
def _writable(name: str) -> frozenset[str]:
    with av.open(cast(Any, io.BytesIO()), "w", format=name) as container:
        return frozenset(container.supported_codecs)


_H264 = ("h264",)
_BOTH = ("h264", "hevc")
_BROADCAST = ("aac", "mp3", "mp2", "ac3", "eac3")
# A muxer waits for a packet of every stream to put them in order of time; a stream that falls silent mustn't hold up
# the others for longer than a tenth of a second.
_LIVE = {"max_interleave_delta": "100000", "flush_packets": "1"}
# Each frame of sound in a PES packet of its own, where FFmpeg collects several otherwise; and the length of a picture's
# told, so that a receiver needn't wait for the next one to know where it ends.
_TS = {"pes_payload_size": "0", "omit_video_pes_length": "0"}

FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("mpegts", (*_BOTH, "mpeg2video"), (*_BROADCAST, "opus"), headers=False, options=_TS),
        Format("rtp_mpegts", (*_BOTH, "mpeg2video"), _BROADCAST, headers=False),
        Format("hls", _H264, ("aac", "mp3", "ac3", "eac3"), headers=False),
        Format("flv", _H264, ("aac", "mp3"), options={"flvflags": "no_duration_filesize"}),
        Format("rtsp", _BOTH, ("aac", "opus", "pcm_mulaw", "pcm_alaw", "mp3", "mp2", "ac3")),
        Format("whip", _H264, ("opus",)),
        Format("mp4", (*_BOTH, "av1", "vp9", "mpeg4"), ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")),
        Format("mov", (*_BOTH, "prores", "mjpeg", "mpeg4"), ("aac", "mp3", "ac3", "alac", "pcm_s16le", "pcm_mulaw")),
        Format("matroska", (), ("aac",), any_codec=True),
        Format("nut", (), ("aac",), any_codec=True),
    )
}
"""Formats that packets are muxed into, by name."""


def live_options(format: Format) -> dict[str, str]:
    """The muxer's options for an output that somebody watches while it is written."""
    return {**_LIVE, **format.options}
