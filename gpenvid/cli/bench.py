"""`gpenvid bench`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from gpenvid.cli.flags import add_command
from gpenvid.errors import OptionsError

EXAMPLES = """\
examples:
  gpenvid bench media                         throughput and memory against a bare PyAV transcode
  gpenvid bench pipeline                      a film with two faces, against facexlib picture by picture
  gpenvid bench tracking --json tracking.json
  gpenvid bench flicker --input film.mp4      how much restored faces flicker, beside the input
  gpenvid bench restorer                      time a face of every engine on this CPU
  gpenvid bench restorer --against HEAD~5     this tree's figures over those of an earlier revision
  gpenvid bench restorer --device cuda        faces a second, and how exact half precision is, on this GPU
"""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    command = add_command(commands, "bench", "measure as ratios against a baseline in the same run", EXAMPLES)
    command.add_argument("what", choices=("flicker", "latency", "media", "memory", "pipeline", "restorer", "tracking"))
    command.add_argument("--input", metavar="CLIP", help="flicker: the video to measure (default the samples)")
    command.add_argument("--device", help="restorer: cpu, cuda or cuda:N (default cpu)")
    command.add_argument("--against", metavar="REV", help="run this tree and a git revision in turns, print ratios")
    command.add_argument("--json", metavar="FILE", help="also write the tables as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables of one benchmark."""
    from gpenvid import bench

    if arguments.device and arguments.what != "restorer":
        raise OptionsError(f"--device {arguments.device}: is for `gpenvid bench restorer`")
    if arguments.input and arguments.what != "flicker":
        raise OptionsError(f"--input {arguments.input}: is for `gpenvid bench flicker`")
    given = {name: value for name in ("device", "input") if (value := getattr(arguments, name))}
    if arguments.against:
        from gpenvid.bench import against

        words = [arguments.what, *(word for name, value in given.items() for word in (f"--{name}", value))]
        tables = against.run(words, arguments.against)
    else:
        tables = bench.run(arguments.what, **given)
    for table in tables:
        print(table.text() + "\n")
    if arguments.json:
        content = {table.title: table.dicts() for table in tables}
        Path(arguments.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0
