"""`gpenvid enhance`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from gpenvid.cli import live
from gpenvid.cli.flags import add_command, add_options, chosen
from gpenvid.cli.progress import Bar, stoppable
from gpenvid.errors import GpenvidError
from gpenvid.media.words import is_live
from gpenvid.options import STAGES

EXAMPLES = """\
examples:
  gpenvid enhance                             the sample that comes with gpenvid
  gpenvid enhance film.mp4 -o better.mp4      same timing, same audio, better faces
  gpenvid enhance film.mkv --start 1:00 --end 1:20 --crf 14
  gpenvid enhance photo.jpg --blend 70
  gpenvid enhance holiday/ -o holiday_better/
"""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    command = add_command(commands, "enhance", "make the faces of a video, image or folder better", EXAMPLES)
    command.add_argument("input", nargs="?", help="video, image, folder or live source; without one, the sample")
    command.add_argument("-i", "--input", dest="input_flag", metavar="INPUT", help="the same as the first word")
    command.add_argument("-o", "--output", help="where to write; default output_<name> in the working directory")
    command.add_argument("--save-faces", metavar="DIR", help="also write aligned crops and restored faces as PNG")
    command.add_argument("--faces-only", action="store_true", help="write the faces of --save-faces and nothing else")
    command.add_argument("--report", metavar="FILE", help="write what was done as JSON")
    command.add_argument("--profile", metavar="FILE", help="write a timeline (Chrome trace) and sum it up")
    command.add_argument("--no-resume", action="store_true", help="start anew even where an earlier run was killed")
    loudness = command.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    loudness.add_argument("-v", "--verbose", action="store_true", help="also say where the time went")
    for stage, options in STAGES.items():
        add_options(command.add_argument_group(stage), options)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Enhance what was named, or the sample."""
    from gpenvid.run import enhance, enhance_folder
    from gpenvid.weights import shipped

    source = arguments.input or arguments.input_flag
    if source is not None and is_live(source):
        return live.run_enhance(arguments, source)

    def say(line: str) -> None:
        if not arguments.quiet:
            print(line, file=sys.stderr)

    logging.basicConfig(format="%(message)s", level=logging.ERROR if arguments.quiet else logging.WARNING)
    if source is None:
        source = shipped("samples") / "old_film.mp4"
        say(f"no input given: enhancing the sample {source}")
    with stoppable() as stop, Bar(quiet=arguments.quiet) as bar:
        settings = {
            "save_faces": arguments.save_faces,
            "faces_only": arguments.faces_only,
            "report": arguments.report,
            "resume": not arguments.no_resume,
            "profile": arguments.profile,
            "on_progress": bar,
            "stop": stop,
            **chosen(arguments, STAGES.values()),
        }
        if Path(source).is_dir():
            results = enhance_folder(
                source, arguments.output, on_file=lambda path, result: _tell_file(path, result, bar, say), **settings
            )
            return 1 if any(isinstance(result, GpenvidError) for result in results) else 0
        report = enhance(source, arguments.output, **settings)
        bar.close()
    _tell(report, say, verbose=arguments.verbose or arguments.profile is not None)
    return 130 if report.interrupted else 0


def _tell_file(path: Path, result: Any, bar: Bar, say: Any) -> None:
    bar.close()
    if isinstance(result, GpenvidError):
        print(f"gpenvid: {result}", file=sys.stderr)
    else:
        _tell(result, say, verbose=False)


def _tell(report: Any, say: Any, *, verbose: bool) -> None:
    counts = report.counts
    for note in report.notes:
        say(f"note: {note}")
    if report.interrupted:
        say("stopped early; the output holds the pictures read so far")
    say(
        f"{report.output or report.input}: {counts.pictures} pictures, {counts.restored} faces restored "
        f"({counts.tracks} {'track' if counts.tracks == 1 else 'tracks'}) in {report.seconds:.1f} s "
        f"with {report.model.get('name', 'restorer')}"
    )
    if verbose:
        for stage, spent in sorted(report.stages.items(), key=lambda item: -item[1]):
            say(f"  {stage:10s} {spent:8.2f} s{'  <- the others wait for this' if stage == report.bottleneck else ''}")
