"""The errors that gpenvid raises on purpose: one line each, that says what, where and the remedy."""

from __future__ import annotations


class GpenvidError(Exception):
    """Base of every error raised on purpose. The command prints its one line and exits with a non-zero status."""


class OptionsError(GpenvidError, ValueError):
    """An option has a value that makes no sense; the message carries the value."""


class MediaError(GpenvidError, OSError):
    """A file or stream can't be read or written; the message names it."""


class WeightsError(GpenvidError, OSError):
    """A weights file is missing, damaged, unverified or of an unknown architecture; the message says what to do."""


class DeviceError(GpenvidError, RuntimeError):
    """The compute device that was asked for isn't there or has no memory left."""


class ExportError(GpenvidError, RuntimeError):
    """A network can't be written for another engine, or that engine's result differs; nothing was written."""
