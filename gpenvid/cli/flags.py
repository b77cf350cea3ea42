"""Options dataclasses as command line flags, and back."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Iterable
from dataclasses import fields
from typing import Any


def seconds(text: str) -> float:
    """Seconds from `12.5`, `1:02.5` or `1:00:02.5`. Raises ValueError."""
    value = 0.0
    for part in text.split(":"):
        value = value * 60 + float(part)
    return value


def add_options(group: Any, options: type) -> None:
    """One command line option for each field of an options dataclass; absent ones don't appear in the namespace."""
    hints = typing.get_type_hints(options)
    for each in fields(options):
        flags = each.metadata["flags"] or (f"--{each.name.replace('_', '-')}",)
        kinds = [kind for kind in typing.get_args(hints[each.name]) if kind is not type(None)] or [hints[each.name]]
        default = "" if each.default in (None, ()) else f" (default {each.default})"
        keywords: dict[str, Any] = {"help": (each.metadata["help"] + default).replace("%", "%%")}
        keywords |= {"dest": each.name, "default": argparse.SUPPRESS}
        if hints[each.name] is bool:
            keywords["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(hints[each.name]) is tuple:
            keywords |= {"action": "append", "metavar": each.metadata["metavar"]}
        else:
            keywords["type"] = seconds if each.metadata["metavar"] == "TIME" else kinds[0]
            keywords |= (
                {"choices": each.metadata["choices"]}
                if each.metadata["choices"]
                else {"metavar": each.metadata["metavar"]}
            )
        group.add_argument(*flags, **keywords)


def chosen(arguments: argparse.Namespace, stages: Iterable[type]) -> dict[str, Any]:
    """The fields of these dataclasses that were given on the command line, as keywords."""
    names = [each.name for options in stages for each in fields(options)]
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def add_command(commands: Any, name: str, help: str, examples: str) -> argparse.ArgumentParser:
    """A subcommand whose help ends with examples."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=examples
    )
    return command
