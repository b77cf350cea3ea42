"""`gpenvid tracks`."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from gpenvid.cli.flags import add_command, add_options, chosen
from gpenvid.cli.progress import Bar, stoppable
from gpenvid.options import STAGES

EXAMPLES = """\
examples:
  gpenvid tracks film.mp4 -o tracks.json                  who is where in every picture, raw and smoothed
  gpenvid tracks film.mp4 -o overlay.mp4 -o motion.svg    drawn over the film, and plotted
  gpenvid tracks film.mp4 -o motion.png --lag 0 --detect-every 3 --end 10
"""

_UNUSED = ("restorer", "paste")


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    command = add_command(commands, "tracks", "follow the faces of a video and show what is seen", EXAMPLES)
    command.add_argument("input", help="a video")
    command.add_argument(
        "-o", "--output", action="append", metavar="FILE", default=[],
        help="where to write: .json, .svg or .png (a plot), or a video; may be repeated",
    )  # fmt: skip
    command.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    command.add_argument("--device", default=argparse.SUPPRESS, help="auto, cpu, cuda, cuda:1, mps (default auto)")
    for stage, options in STAGES.items():
        if stage not in _UNUSED:
            add_options(command.add_argument_group(stage), options)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Follow the faces of the video that was named."""
    from gpenvid.tracks import tracks

    logging.basicConfig(format="%(message)s", level=logging.ERROR if arguments.quiet else logging.WARNING)
    settings = chosen(arguments, (options for stage, options in STAGES.items() if stage not in _UNUSED))
    if "device" in arguments:
        settings["device"] = arguments.device
    with stoppable() as stop, Bar(quiet=arguments.quiet) as bar:
        done = tracks(arguments.input, arguments.output, on_progress=bar, stop=stop, **settings)
    if not arguments.quiet:
        notes = [*done.notes, *(["stopped early"] if done.interrupted else [])]
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        print(
            f"{', '.join(done.outputs)}: {done.pictures} pictures, {done.tracks} tracks, {done.cuts} cuts "
            f"in {done.seconds:.1f} s",
            file=sys.stderr,
        )
    return 130 if done.interrupted else 0
