"""Secrets in text: what a URL carries to prove who is asking never reaches a log, an error or a report."""

from __future__ import annotations

import re

HIDDEN = "***"
"""What stands where a secret stood."""

_URL = re.compile(r"\b(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://(?P<rest>[^\s\"'<>\\]*)")
_SECRET_PARAMETER = re.compile(
    r"(?P<name>[?&;][^=&;?#]*(?:pass|pwd|token|secret|key|auth|sig|credential|streamid)[^=&;?#]*=)[^&;#]+",
    re.IGNORECASE,
)
_TRAILING = ".,;:!?)]}"


def redacted(text: object) -> str:
    """The text with user names, passwords, secret query parameters and RTMP stream keys in any URL replaced by `***`.

    The user and password are what FFmpeg takes for them: all of the authority before its last @. Where there is none
    but a colon, a later @ is taken for the end of a password with a slash in it. The stream key of RTMP is the last
    part of its path. Rather too much is hidden than too little.
    """
    return _URL.sub(_without_secrets, str(text))


def _without_secrets(match: re.Match[str]) -> str:
    scheme, rest = match["scheme"], match["rest"]
    end = re.search(r"[/?#]", rest)
    authority = rest[: end.start()] if end else rest
    _, _, port = authority.rpartition(":")
    web = scheme.lower().startswith("http")  # where an @ is common in paths
    split_password = ":" in authority and not (web and port.rstrip(_TRAILING).isdigit())
    if "@" in authority:
        rest = f"{HIDDEN}@{authority.rpartition('@')[2]}{rest[len(authority) :]}"
    elif split_password and "@" in rest and not authority.startswith("["):
        rest = f"{HIDDEN}@{rest.rpartition('@')[2]}"
    rest = _SECRET_PARAMETER.sub(rf"\g<name>{HIDDEN}", rest)
    if scheme.lower().startswith("rtmp"):
        rest = _without_stream_key(rest)
    return f"{scheme}://{rest}"


def _without_stream_key(rest: str) -> str:
    """`host/application/key` with the key hidden; a URL without a key stays as it is."""
    path, query, tail = rest.partition("?")
    stripped = path.rstrip(_TRAILING)
    parts = stripped.split("/")
    if len(parts) >= 3 and parts[-1]:
        parts[-1] = HIDDEN
        path = "/".join(parts) + path[len(stripped) :]
    return path + query + tail
