"""What the program says while it runs: plain lines, or one JSON object a line; never a secret."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any, TextIO

from gpenvid.redact import redacted

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class PlainFormatter(logging.Formatter):
    """The message alone, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text; a traceback, if it carries one, follows on lines of its own."""
        return redacted(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, and whatever `extra` gave.

    An exception becomes `error`, its type and message, and `traceback`, its lines. Values that JSON doesn't know
    become text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line without its end."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {key: value for key, value in vars(record).items() if key not in _OWN and not key.startswith("_")}
        if record.exc_info and record.exc_info[1] is not None:
            told["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            told["traceback"] = self.formatException(record.exc_info).splitlines()
        return json.dumps(_clean(told), ensure_ascii=False)


def configure(*, as_json: bool = False, level: int = logging.WARNING, stream: TextIO | None = None) -> None:
    """Send every record of this level and above to `stream` (standard error), as plain lines or as JSON.

    Replaces what an earlier call set up, so that nothing is said twice.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter("%(message)s"))
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each.formatter, PlainFormatter | JsonFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def _clean(value: Any) -> Any:
    """The value as JSON can hold it, every text in it without secrets."""
    if isinstance(value, dict):
        return {redacted(key): _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value if value == value and value not in (float("inf"), float("-inf")) else str(value)
    return redacted(value)
