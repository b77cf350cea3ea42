"""Logs: one JSON object a line when asked for, and no secret in any of them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from gpenvid import logs

SECRET = "rtsp://admin:hunter2@camera/1"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def said(*, as_json: bool, level: int = logging.INFO) -> tuple[io.StringIO, logging.Logger]:
    stream = io.StringIO()
    logs.configure(as_json=as_json, level=level, stream=stream)
    return stream, logging.getLogger("gpenvid.test")


def test_a_json_line_for_every_record() -> None:
    stream, log = said(as_json=True)
    log.info("%s lost", SECRET, extra={"camera": "door", "seconds": 3, "urls": [SECRET], "rate": float("nan")})
    log.warning("second\nline")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert datetime.now(timezone.utc) - datetime.fromisoformat(first.pop("time")) < timedelta(minutes=1)
    assert first == {
        "level": "info",
        "logger": "gpenvid.test",
        "message": "rtsp://***@camera/1 lost",
        "camera": "door",
        "seconds": 3,
        "urls": ["rtsp://***@camera/1"],
        "rate": "nan",
    }
    assert second["message"] == "second\nline"


def test_an_exception_is_told_with_its_traceback_and_without_secrets() -> None:
    stream, log = said(as_json=True)
    try:
        raise OSError(f"{SECRET}: refused")
    except OSError:
        log.exception("gone")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told["error"] == "OSError: rtsp://***@camera/1: refused"
    assert told["traceback"][0] == "Traceback (most recent call last):"
    assert "hunter2" not in line


def test_plain_lines_hold_the_message_alone() -> None:
    stream, log = said(as_json=False)
    log.info("open %s", SECRET)
    try:
        raise OSError(f"{SECRET}: refused")
    except OSError:
        log.exception("gone")
    assert stream.getvalue().splitlines()[0] == "open rtsp://***@camera/1"
    assert "hunter2" not in stream.getvalue()


def test_what_is_below_the_level_is_not_said_and_nothing_is_said_twice() -> None:
    said(as_json=True)
    stream, log = said(as_json=False, level=logging.WARNING)
    log.info("quiet")
    log.warning("loud")
    assert stream.getvalue() == "loud\n"
