"""`gpenvid bench`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpenvid.cli.flags import add_command
from gpenvid.errors import OptionsError

if TYPE_CHECKING:
    from gpenvid.bench import Table

EXAMPLES = """\
examples:
  gpenvid bench media                         throughput and memory against a bare PyAV transcode
  gpenvid bench pipeline                      a film with two faces, against facexlib picture by picture
  gpenvid bench tracking --json tracking.json
  gpenvid bench flicker --input film.mp4      how much restored faces flicker, beside the input
  gpenvid bench restorer                      time a face of every engine on this CPU
  gpenvid bench restorer --against HEAD~5     this tree's figures over those of an earlier revision
  gpenvid bench restorer pipeline latency memory --device cuda --json cuda.json     all that this GPU can show:
      faces a second and a face's time, how exact half precision is; the whole program and its slowest stage; memory
"""


ON_DEVICE = ("restorer", "pipeline", "latency", "memory")
"""The benchmarks that can be run on a graphics card."""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    command = add_command(commands, "bench", "measure as ratios against a baseline in the same run", EXAMPLES)
    command.add_argument("what", nargs="+", choices=sorted((*ON_DEVICE, "flicker", "media", "tracking")))
    command.add_argument("--input", metavar="CLIP", help="flicker: the video to measure (default the samples)")
    command.add_argument("--device", help=f"{', '.join(ON_DEVICE)}: cpu, cuda or cuda:N")
    command.add_argument("--against", metavar="REV", help="run this tree and a git revision in turns, print ratios")
    command.add_argument("--json", metavar="FILE", help="also write the tables as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables of one benchmark."""
    from gpenvid import bench

    what = arguments.what
    if arguments.device and not set(what) <= set(ON_DEVICE):
        raise OptionsError(f"--device {arguments.device}: is for `gpenvid bench {'|'.join(ON_DEVICE)}`")
    if arguments.input and what != ["flicker"]:
        raise OptionsError(f"--input {arguments.input}: is for `gpenvid bench flicker`")
    given = {name: value for name in ("device", "input") if (value := getattr(arguments, name))}
    tables: list[Table] = []
    if arguments.against:
        from gpenvid.bench import against

        words = [*what, *(word for name, value in given.items() for word in (f"--{name}", value))]
        tables = _told(against.run(words, arguments.against))
    else:
        for each in what:
            tables += _told(bench.run(each, **given))
    if arguments.json:
        content = {table.title: table.dicts() for table in tables}
        Path(arguments.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def _told(tables: list[Table]) -> list[Table]:
    """The tables, once they are printed."""
    for table in tables:
        print(table.text() + "\n", flush=True)
    return tables
