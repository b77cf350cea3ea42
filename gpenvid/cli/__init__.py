"""Words to options to run: the `gpenvid` command. No logic of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gpenvid import __version__
from gpenvid.cli import bench, enhance, evaluate, export, live, tracks, train, weights
from gpenvid.errors import GpenvidError
from gpenvid.gpen.memory import spend_memory_for_time


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="gpenvid", description="Makes the faces in video better.")
    top.add_argument("--version", action="version", version=f"gpenvid {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for each in (enhance, live, tracks, weights, evaluate, train, export, bench):
        each.add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0 when all went well, 1 after an error, 2 for wrong usage."""
    arguments = parser().parse_args(argv)
    spend_memory_for_time()
    try:
        return int(arguments.run(arguments))
    except GpenvidError as error:
        print(f"gpenvid: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("gpenvid: interrupted; nothing half-written was left", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
