"""Words to options to run: the `gpenvid` command. No logic of its own."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpenvid import __version__
from gpenvid.errors import GpenvidError, OptionsError
from gpenvid.options import STAGES, WeightsOptions

EXAMPLES = """\
examples:
  gpenvid enhance                             the sample that comes with gpenvid
  gpenvid enhance film.mp4 -o better.mp4      same timing, same audio, better faces
  gpenvid enhance film.mkv --start 1:00 --end 1:20 --crf 14
  gpenvid enhance photo.jpg --blend 70
  gpenvid enhance holiday/ -o holiday_better/
"""

WEIGHTS_EXAMPLES = """\
examples:
  gpenvid weights list
  gpenvid weights fetch GPEN-BFR-512          the official 512-pixel model, for non-commercial use
  gpenvid weights verify
  gpenvid weights path gpen-lite
"""
BENCH_EXAMPLES = """\
examples:
  gpenvid bench media                         throughput and memory against a bare PyAV transcode
  gpenvid bench tracking --json tracking.json
"""


def seconds(text: str) -> float:
    """Seconds from `12.5`, `1:02.5` or `1:00:02.5`. Raises ValueError."""
    value = 0.0
    for part in text.split(":"):
        value = value * 60 + float(part)
    return value


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="gpenvid", description="Makes the faces in video better.")
    top.add_argument("--version", action="version", version=f"gpenvid {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_enhance(commands)
    _add_weights(commands)
    _add_bench(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0 when all went well, 1 after an error, 2 for wrong usage."""
    arguments = parser().parse_args(argv)
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


def _add_enhance(commands: Any) -> None:
    command = commands.add_parser(
        "enhance",
        help="make the faces of a video, image or folder better",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    command.add_argument("input", nargs="?", help="video, image or folder; without one, the sample")
    command.add_argument("-i", "--input", dest="input_flag", metavar="INPUT", help="the same as the first word")
    command.add_argument("-o", "--output", help="where to write; default output_<name> in the working directory")
    command.add_argument("--save-faces", metavar="DIR", help="also write aligned crops and restored faces as PNG")
    command.add_argument("--faces-only", action="store_true", help="write the faces of --save-faces and nothing else")
    command.add_argument("--report", metavar="FILE", help="write what was done as JSON")
    loudness = command.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    loudness.add_argument("-v", "--verbose", action="store_true", help="also say where the time went")
    for stage, options in STAGES.items():
        _add_options(command.add_argument_group(stage), options)
    command.set_defaults(run=_enhance)


def _add_options(group: Any, options: type) -> None:
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


def _chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given on the command line."""
    names = [each.name for options in STAGES.values() for each in fields(options)]
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _enhance(arguments: argparse.Namespace) -> int:
    from gpenvid.gpen.memory import keep_freed_memory
    from gpenvid.run import enhance, enhance_folder
    from gpenvid.weights import shipped

    source = arguments.input or arguments.input_flag

    def say(line: str) -> None:
        if not arguments.quiet:
            print(line, file=sys.stderr)

    logging.basicConfig(format="%(message)s", level=logging.ERROR if arguments.quiet else logging.WARNING)
    if source is None:
        source = shipped("samples") / "old_film.mp4"
        say(f"no input given: enhancing the sample {source}")
    keep_freed_memory()
    with _stoppable() as stop, _Bar(quiet=arguments.quiet) as bar:
        settings = {
            "save_faces": arguments.save_faces,
            "faces_only": arguments.faces_only,
            "on_progress": bar,
            "stop": stop,
            **_chosen(arguments),
        }
        if Path(source).is_dir():
            results = enhance_folder(
                source, arguments.output, on_file=lambda path, result: _tell_file(path, result, bar, say), **settings
            )
            return 1 if any(isinstance(result, GpenvidError) for result in results) else 0
        report = enhance(source, arguments.output, report=arguments.report, **settings)
        bar.close()
    _tell(report, say, verbose=arguments.verbose)
    return 130 if report.interrupted else 0


def _tell_file(path: Path, result: Any, bar: _Bar, say: Any) -> None:
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
        f"({counts.tracks} tracks) in {report.seconds:.1f} s with {report.model.get('name', 'restorer')}"
    )
    if verbose:
        for stage, spent in sorted(report.stages.items(), key=lambda item: -item[1]):
            say(f"  {stage:10s} {spent:8.2f} s")


class _Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self.disable = True if quiet else None
        self.bar: tqdm[Any] | None = None

    def __call__(self, done: int, total: int | None, faces: int) -> None:
        if self.bar is None:
            self.bar = tqdm(total=total, unit=" frames", disable=self.disable, dynamic_ncols=True)
        self.bar.update(done - self.bar.n)
        self.bar.set_postfix_str(f"{faces} faces", refresh=False)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the bar; the next picture starts another."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the file is finished properly; a second Ctrl-C aborts."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("\nfinishing the file; once more to abort", file=sys.stderr)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _add_weights(commands: Any) -> None:
    command = commands.add_parser(
        "weights",
        help="list, fetch or verify the networks' weights",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=WEIGHTS_EXAMPLES,
    )
    command.add_argument("action", choices=("list", "fetch", "verify", "path"))
    command.add_argument("names", nargs="*", metavar="NAME", help="which; without names verify looks at all present")
    _add_options(command.add_argument_group("weights"), WeightsOptions)
    command.set_defaults(run=_weights)


def _weights(arguments: argparse.Namespace) -> int:
    from gpenvid import weights

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    place = {"weights_dir": getattr(arguments, "weights_dir", None)}
    known = [each.name for each in weights.entries()]
    present = [name for name in known if weights.find(name, **place) is not None]
    if arguments.action == "list":
        for name in arguments.names or known:
            found = weights.status(name, **place)
            size = f"{found.entry.bytes / 1e6:.0f} MB" if found.entry.bytes else ""
            print(f"{name:22s} {found.entry.kind:14s} {found.state:11s} {size:>7s}  {found.path or found.entry.note}")
    elif arguments.action == "verify":
        for name in arguments.names or present:
            print(f"{name}: {weights.verify(name, **place).state}")
    elif not arguments.names:
        raise OptionsError(f"gpenvid weights {arguments.action}: name the weights, see `gpenvid weights list`")
    else:
        for name in arguments.names:
            if arguments.action == "fetch":
                print(weights.fetch(name, offline=getattr(arguments, "offline", None), **place))
            else:
                print(weights.verify(name, **place).path)
    return 0


def _add_bench(commands: Any) -> None:
    command = commands.add_parser(
        "bench",
        help="measure as ratios against a baseline in the same run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=BENCH_EXAMPLES,
    )
    command.add_argument("what", choices=("media", "tracking"))
    command.add_argument("--json", metavar="FILE", help="also write the tables as JSON")
    command.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from gpenvid import bench

    tables = bench.run(arguments.what)
    for title, rows in tables.items():
        print(f"{title}\n{bench.text(rows)}\n")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")
    return 0
