"""`gpenvid live`."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from gpenvid.cli.flags import add_command, add_options, chosen
from gpenvid.errors import OptionsError
from gpenvid.media.words import INPUTS, OUTPUTS
from gpenvid.options import LIVE_STAGES, STAGES

EXAMPLES = """\
examples:
  gpenvid live rtsp://user:password@camera/stream -o rtsp://server/better
  gpenvid live webcam:0 --size 1280x720 -o preview:
  gpenvid live rtsp://camera/stream -o recordings/ -o folder/live.m3u8 --status-port 9090
  ffmpeg -i film.mkv -f matroska - | gpenvid live - -o - | ffplay -
  gpenvid live --config cameras.toml
"""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    examples = "\n".join([EXAMPLES, INPUTS, OUTPUTS])
    command = add_command(commands, "live", "make the faces of a live source better", examples)
    command.add_argument("source", nargs="?", help="where pictures come from; see below")
    command.add_argument(
        "-o", "--output", action="append", default=[], metavar="OUTPUT", help="where they go; may be repeated"
    )
    command.add_argument("--config", metavar="FILE", help="several cameras, from a TOML file")
    command.add_argument("--report", metavar="FILE", help="write what was done as JSON at the end")
    command.add_argument("--status-port", type=int, metavar="PORT", help="answer /metrics and /healthz on this port")
    command.add_argument(
        "--status-host", metavar="HOST", help="of this name or address; 127.0.0.1: only this machine can ask"
    )
    command.add_argument("--log-json", action="store_true", help="log one JSON object a line")
    loudness = command.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    loudness.add_argument("-v", "--verbose", action="store_true", help="also say where the time went")
    for stage, options in (STAGES | LIVE_STAGES).items():
        if stage != "reader":
            add_options(command.add_argument_group(stage), options)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until the source ends, the time is over or a signal comes; 1 if a camera failed."""
    from gpenvid.streaming.config import read_cameras
    from gpenvid.streaming.session import CameraSpec

    settings = chosen(arguments, (options for stage, options in (STAGES | LIVE_STAGES).items() if stage != "reader"))
    if (arguments.source is None) == (arguments.config is None):
        raise OptionsError("live: name a source, or --config FILE with several")
    if arguments.config is None:
        cameras = [CameraSpec(name="", source=arguments.source, outputs=tuple(arguments.output))]
    else:
        if arguments.output:
            raise OptionsError("--config: outputs stand in the file, not behind -o")
        cameras, common = read_cameras(arguments.config)
        settings = common | settings
    for option in ("status_port", "status_host"):
        if getattr(arguments, option) is not None:
            settings[option] = getattr(arguments, option)
    return _go(arguments, cameras, settings, as_json=arguments.log_json)


def run_enhance(arguments: argparse.Namespace, source: str) -> int:
    """Do for `gpenvid enhance SOURCE -o OUTPUT` what `gpenvid live` does."""
    from gpenvid.streaming.session import CameraSpec

    if chosen(arguments, [STAGES["reader"]]):
        raise OptionsError("--start, --end: a live source has neither; see gpenvid live --duration")
    if arguments.save_faces is not None or arguments.faces_only or arguments.profile is not None:
        raise OptionsError("--save-faces, --faces-only, --profile: not for a live source")
    outputs = (arguments.output,) if arguments.output is not None else ()
    settings = chosen(arguments, (options for stage, options in STAGES.items() if stage != "reader"))
    return _go(arguments, [CameraSpec(name="", source=source, outputs=outputs)], settings)


def _go(
    arguments: argparse.Namespace,
    cameras: list[Any],
    settings: dict[str, Any],
    *,
    as_json: bool = False,
) -> int:
    from gpenvid import logs
    from gpenvid.cli.progress import stoppable
    from gpenvid.streaming.session import live_cameras

    logs.configure(as_json=as_json, level=logging.ERROR if arguments.quiet else logging.INFO)
    with stoppable("finishing the outputs; once more to abort") as stop:
        report = live_cameras(cameras, report=arguments.report, stop=stop, **settings)
    if not arguments.quiet:
        _tell(report, verbose=arguments.verbose)
    return 1 if any(camera.error is not None for camera in report.cameras) else 0


def _tell(report: Any, *, verbose: bool) -> None:
    for camera in report.cameras:
        for note in camera.notes:
            print(f"{camera.name}: note: {note}", file=sys.stderr)
        counts, age = camera.pictures, camera.latency["p50"]
        print(
            f"{camera.name}: {counts.restored} pictures restored, {counts.passed} passed through, "
            f"{counts.dropped} dropped, {counts.held} held"
            + ("" if age is None else f"; {age * 1000:.0f} ms from arrival to encoded"),
            file=sys.stderr,
        )
    if verbose:
        for stage, spent in sorted(report.stages.items(), key=lambda item: -item[1]):
            print(f"  {stage:10s} {spent:8.2f} s", file=sys.stderr)
