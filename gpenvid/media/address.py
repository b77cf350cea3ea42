"""What a live source's name means: what FFmpeg is asked to open, and how its absence can be noticed."""

from __future__ import annotations

import re
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from gpenvid.errors import MediaError
from gpenvid.options import SourceOptions
from gpenvid.redact import redacted

_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443, "srt": 0, "tcp": 0}
_LISTENING = ("udp", "rtp", "srtp")
_LISTEN_RTSP = {"rtsp_flags": "listen", "listen_timeout": "50"}  # seconds; FFmpeg refuses its own default
_KNOCK_TIMEOUT = 0.25


@dataclass(frozen=True, slots=True)
class Address:
    """A source as FFmpeg is asked for it.

    name: for logs and reports, without secrets. target, format, options: for `av.open`. kind: what stands behind it: a
    `peer` that is called, a `device` of this machine, a port on which one listens (`listen`), a `pipe`, or a `file`.
    paced: whether packets come in bursts, or as fast as they are read, and must be slowed down to their own clock.
    """

    name: str
    target: str
    kind: Literal["peer", "device", "listen", "pipe", "file"]
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    paced: bool = False

    @property
    def ends(self) -> bool:
        """Whether the end of the stream is the end, and not a fault."""
        return self.kind in ("pipe", "file")

    def there(self) -> bool | None:
        """Whether somebody answers at the address, found out at little cost; None where that can't be known."""
        if self.kind == "device":
            return Path(self.target).exists() if self.target.startswith("/") else None
        parts = urlsplit(self.target)
        try:
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            return None
        if self.kind != "peer" or not parts.hostname or not port:
            return None
        try:
            with socket.create_connection((parts.hostname, port), _KNOCK_TIMEOUT):
                return True
        except OSError:
            return False


def parse_address(source: str, options: SourceOptions) -> Address:
    """Understand what the user wrote. Raises MediaError for what can't be a live source."""
    extra = dict(item.split("=", 1) for item in options.source_options)
    if source == "-":
        return Address("standard input", "pipe:0", "pipe", None, extra)
    scheme = source.partition(":")[0].lower()
    if scheme == "webcam" or source.startswith("/dev/video"):
        return _webcam(source, options, extra)
    if scheme == "x11grab":
        grabbed = {"framerate": f"{options.rate or 15:g}"} | _sized(options)
        return Address(source, source.partition(":")[2] or ":0", "device", "x11grab", grabbed | extra)
    if "://" not in source:
        return _file(source, extra)
    return _network(source, scheme, options, extra)


def _network(source: str, scheme: str, options: SourceOptions, extra: dict[str, str]) -> Address:
    name = redacted(source)
    silence = str(round(options.stall * 1_000_000))
    if scheme in ("rtsp", "rtsps"):
        settings = {"fpsprobesize": "0", "analyzeduration": "0", "probesize": "32"}
        if options.listen:
            return Address(name, source, "listen", "rtsp", settings | _LISTEN_RTSP | extra)
        settings |= {"rtsp_transport": options.rtsp_transport, "timeout": silence}
        return Address(name, source, "peer", None, settings | extra)
    if scheme in _LISTENING:
        settings = {"fpsprobesize": "0", "overrun_nonfatal": "1"}
        return Address(name, source, "listen", None, settings | extra)
    if scheme not in _PORTS:
        raise MediaError(f"{name}: don't know {scheme}: as a live source; see gpenvid live --help")
    settings = {"fpsprobesize": "0"}
    if options.listen:
        return Address(name, source, "listen", None, settings | {"listen": "1"} | extra)
    playlist = urlsplit(source).path.lower().endswith((".m3u8", ".mpd"))
    if not playlist:
        settings["rw_timeout"] = silence
    return Address(name, source, "peer", None, settings | extra, paced=playlist)


def _webcam(source: str, options: SourceOptions, extra: dict[str, str]) -> Address:
    number = source.partition(":")[2] if source.startswith("webcam") else ""
    if source.startswith("webcam") and not re.fullmatch(r"\d*", number):
        raise MediaError(f"{source}: name a webcam by its number, for example webcam:0")
    settings = _sized(options)
    if options.rate:
        settings["framerate"] = f"{options.rate:g}"
    if options.camera_format:
        key = "input_format" if sys.platform == "linux" else "pixel_format"
        settings[key] = options.camera_format
    if source.startswith("/dev/"):
        return Address(source, source, "device", "v4l2", settings | extra)
    if sys.platform == "darwin":
        return Address(source, number or "0", "device", "avfoundation", settings | extra)
    return Address(source, f"/dev/video{number or 0}", "device", "v4l2", settings | extra)


def _sized(options: SourceOptions) -> dict[str, str]:
    return {"video_size": options.size} if options.size else {}


def _file(source: str, extra: dict[str, str]) -> Address:
    path = Path(source)
    if path.is_dir():
        raise MediaError(f"{source}: is a directory, not a live source")
    if not path.exists():
        raise MediaError(f"{source}: no such file or device, and no URL")
    if path.suffix.lower() == ".sdp":
        settings = {"protocol_whitelist": "file,udp,rtp", "fpsprobesize": "0"}
        return Address(source, source, "listen", "sdp", settings | extra)
    return Address(source, f"file:{source}", "file", None, extra, paced=True)
