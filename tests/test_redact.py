from __future__ import annotations

import pytest

from gpenvid.redact import redacted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://admin:hunter2@10.0.0.7:554/stream1", "rtsp://***@10.0.0.7:554/stream1"),
        ("rtsp://admin@10.0.0.7/stream1", "rtsp://***@10.0.0.7/stream1"),
        ("rtsp://admin:p@ss:w0rd@camera/1", "rtsp://***@camera/1"),
        ("rtsp://admin:pa/ss@camera/1", "rtsp://***@camera/1"),
        ("rtsp://admin:pa#ss@camera/1?x=1", "rtsp://***@camera/1?x=1"),
        ("rtsp://admin:12/34@camera/1", "rtsp://***@camera/1"),
        ("RTSPS://u:p@[fe80::1]:322/a", "RTSPS://***@[fe80::1]:322/a"),
        ("rtsp://10.0.0.7:554/stream1", "rtsp://10.0.0.7:554/stream1"),
        ("http://[::1]:8080/video@home", "http://[::1]:8080/video@home"),
        ("https://example.org/@channel/live", "https://example.org/@channel/live"),
        ("http://camera:8080/live@home.mjpg", "http://camera:8080/live@home.mjpg"),
        ("https://cam/x.m3u8?user=bob&Token=s3cret&n=2", "https://cam/x.m3u8?user=bob&Token=***&n=2"),
        ("srt://h:9000?passphrase=longenough1&mode=caller", "srt://h:9000?passphrase=***&mode=caller"),
        ("rtmp://live.example.org/app/live_123_abc", "rtmp://live.example.org/app/***"),
        ("rtmps://u:p@live.example.org/app/key?x=1", "rtmps://***@live.example.org/app/***?x=1"),
        ("rtmp://live.example.org/app", "rtmp://live.example.org/app"),
        ("can't open rtsp://a:b@c/d, retrying in 2 s", "can't open rtsp://***@c/d, retrying in 2 s"),
        ("'rtsp://a:b@c/d' and \"http://e:f@g\"", "'rtsp://***@c/d' and \"http://***@g\""),
        ("no url: user:password@host", "no url: user:password@host"),
        ("", ""),
    ],
)
def test_secrets_of_a_url_are_hidden(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


def test_takes_anything_that_can_be_said() -> None:
    assert redacted(OSError("rtsp://a:b@c: refused")) == "rtsp://***@c: refused"
