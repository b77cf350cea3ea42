"""`gpenvid eval`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from gpenvid.cli.flags import add_command, add_options, chosen

EXAMPLES = """\
examples:
  gpenvid eval --restored out/ --truth clean/ --before damaged/ --sheet sheet.png --json figures.json
  gpenvid eval --restored better.mp4 --truth original.mp4 --before film.mp4 --faces
  gpenvid weights fetch alexnet inception arcface    # once, for --perceptual; needs pip install 'gpenvid[eval]'
"""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    from gpenvid.evaluate import EvalOptions

    command = add_command(commands, "eval", "judge restored pictures against the truth", EXAMPLES)
    add_options(command, EvalOptions)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    from gpenvid.bench import Table
    from gpenvid.errors import WeightsError
    from gpenvid.evaluate import EvalOptions, run_evaluation
    from gpenvid.faces.detect import load_detector
    from gpenvid.perceptual import load_perceptual

    options = EvalOptions(**chosen(arguments, (EvalOptions,)))
    try:
        detector = load_detector()
    except WeightsError as error:
        if options.faces:
            raise
        print(f"without landmark distance: {error}", file=sys.stderr)
        detector = None
    perceptual = load_perceptual(detector) if options.perceptual else None
    for name, reason in (perceptual.missing if perceptual else {}).items():
        print(f"without {name}: {reason}", file=sys.stderr)
    head, *rows = run_evaluation(options, detector, perceptual).table()
    print(Table("", head, list(rows)).text().lstrip())
    return 0
