"""Words of the command line to outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import av

from gpenvid.errors import OptionsError
from gpenvid.media.sinks.fanout import Fanout
from gpenvid.media.sinks.files import FileOutput, HlsOutput, PipeOutput
from gpenvid.media.sinks.lane import PacketOutput, PictureOutput
from gpenvid.media.sinks.network import NetworkOutput
from gpenvid.media.sinks.recordings import DEFAULT_PATTERN, Recordings
from gpenvid.media.sinks.screen import CameraOutput, PreviewOutput, RawOutput
from gpenvid.options import EncoderOptions, SinkOptions
from gpenvid.redact import redacted

_SCHEMES = {
    **{"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv", "rtp": "rtp_mpegts"},
    **{"udp": "mpegts", "tcp": "mpegts", "srt": "mpegts", "whip+http": "whip", "whip+https": "whip"},
}
_TS_IN_A_DATAGRAM = "1316"


def choose_sink(
    words: Sequence[str],
    encoder: EncoderOptions = EncoderOptions(),  # noqa: B008 (frozen)
    options: SinkOptions = SinkOptions(),  # noqa: B008 (frozen)
) -> Fanout:
    """One door to all outputs that were named; see `media.words.OUTPUTS`.

    Raises OptionsError for a word that can't be understood or an output that this installation doesn't have,
    MediaError for a place where nothing can be written.
    """
    packets: list[PacketOutput] = []
    pictures: list[PictureOutput] = []
    if not words:
        raise OptionsError("-o: name at least one output")
    for word in words:
        if words.count(word) > 1:
            raise OptionsError(f"-o {redacted(word)}: is named twice")
        kind = word.partition(":")[0].lower()
        if kind in ("preview", "camera") and "://" not in word:
            device = word.partition(":")[2]
            pictures.append(PreviewOutput() if kind == "preview" else CameraOutput(device))
        elif word == "-" and options.format == "y4m":
            pictures.append(RawOutput())
        else:
            packets.append(_packet_output(word, options))
    return Fanout(packets, pictures, encoder, options.keyframes)


def _packet_output(word: str, options: SinkOptions) -> PacketOutput:
    if word == "-":
        return PipeOutput(options.format)
    if "://" in word:
        return _network_output(word, options)
    path = Path(word)
    if path.suffix.lower() == ".m3u8":
        return HlsOutput(path, options)
    if "%" in word:
        return Recordings(path, options)
    if word.endswith("/") or path.is_dir():
        return Recordings(path / DEFAULT_PATTERN, options)
    return FileOutput(path)


def _network_output(word: str, options: SinkOptions) -> NetworkOutput:
    scheme = word.partition("://")[0].lower()
    format = _SCHEMES.get(scheme)
    if format is None:
        known = ", ".join(f"{each}://" for each in _SCHEMES)
        raise OptionsError(f"-o {redacted(word)}: don't know how to send there; use {known}")
    if format not in av.formats_available:
        raise OptionsError(f"-o {redacted(word)}: this FFmpeg can't write {format}")
    if format == "whip":
        return _whip_output(word)
    if format == "rtsp":
        return NetworkOutput(word, format, {"rtsp_transport": options.publish_transport})
    if scheme == "udp" and "pkt_size=" not in word:
        return NetworkOutput(f"{word}{'&' if '?' in word else '?'}pkt_size={_TS_IN_A_DATAGRAM}", format, name=word)
    return NetworkOutput(word, format)


def _whip_output(word: str) -> NetworkOutput:
    """WHIP goes over HTTP; its bearer token is an option of the muxer, not a part of the URL."""
    parts = urlsplit(word.partition("+")[2])
    token, _, host = parts.netloc.rpartition("@")
    return NetworkOutput(
        urlunsplit(parts._replace(netloc=host)), "whip", {"authorization": token} if token else {}, name=word
    )
