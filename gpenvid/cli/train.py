"""`gpenvid train`: prepare faces, preview degradations, train a restorer, its prior, or a detector, and judge that."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpenvid.cli.flags import add_command, add_options, chosen

EXAMPLES = """\
examples:
  gpenvid train prepare photos/ -o faces.npy --size 256      # faces.zip is ten times smaller
  gpenvid train preview --data faces.npy -o sheet.png
  gpenvid train restorer --data faces.npy -o run --minutes 120
  torchrun --nproc-per-node 4 -m gpenvid train restorer --data faces.npy -o run
  gpenvid train detector --data sheets/ --out detector
  gpenvid train judge detector/detector.pth --data sheets/
"""


def add_to(commands: Any) -> None:
    """Add the subcommand and its own subcommands. Their options are read only when one of them was named."""
    command = add_command(commands, "train", "train a restorer, its prior or a detector", EXAMPLES)
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_restorer(actions)
    _add_detector(actions)
    _add_judge(actions)
    _add_prepare(actions)
    _add_preview(actions)


def _add_restorer(actions: Any) -> None:
    from gpenvid.train.options import TrainOptions

    command = add_command(
        actions, "restorer", "train a restorer or its prior; goes on where a run was stopped", EXAMPLES
    )
    add_options(command, TrainOptions)
    command.set_defaults(run=train_restorer)


def train_restorer(arguments: argparse.Namespace) -> int:
    """Train and print the log."""
    from gpenvid.train.loop import train
    from gpenvid.train.options import TrainOptions

    def report(step: int, figures: Any) -> None:
        print(f"{step:8d}  " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)

    result = train(TrainOptions(**chosen(arguments, (TrainOptions,))), report=report)
    print(f"{result.model}: after {result.steps} steps" + ("" if result.finished else "; run again to go on"))
    return 0


def _add_detector(actions: Any) -> None:
    from gpenvid.train.options import DetectorTraining

    command = add_command(actions, "detector", "train a face detector; goes on where a run was stopped", EXAMPLES)
    add_options(command, DetectorTraining)
    command.set_defaults(run=train_detector)


def train_detector(arguments: argparse.Namespace) -> int:
    """Train and name the weights."""
    from gpenvid.train import detector
    from gpenvid.train.options import DetectorTraining

    print(detector.train_detector(DetectorTraining(**chosen(arguments, (DetectorTraining,)))))
    return 0


def _add_judge(actions: Any) -> None:
    command = add_command(actions, "judge", "measure a face detector on sheets that training never sees", EXAMPLES)
    command.add_argument("detector", nargs="?", default="auto", help="auto, a registered name or a file")
    command.add_argument("--closeup", default="", metavar="FILE", help="weights that take the second look")
    command.add_argument("--no-second-look", action="store_true", help="look at each picture once only")
    command.add_argument("--data", required=True, metavar="DIR", help="folder of sheets with an index.json")
    command.add_argument("--teacher", default="", metavar="FILE", help="RetinaFace mobile0.25 whose answers are right")
    command.add_argument(
        "--photographs", default="", metavar="DIR", help="pictures and clips, right as the teacher sees them"
    )
    command.add_argument("--threshold", type=float, default=0.6, help="least score that counts (default 0.6)")
    command.add_argument("--scenes", type=int, default=30, help="composed scenes of each kind (default 30)")
    command.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    command.set_defaults(run=judge)


def judge(arguments: argparse.Namespace) -> int:
    """Print recall, precision, landmark errors and false faces."""
    import json

    from gpenvid.bench import Table
    from gpenvid.faces.detect import DOUBTFUL, SPECK, SecondLook, load_detector
    from gpenvid.train.data import photographs_and_clips_in
    from gpenvid.train.detector_eval import evaluate_detector

    real = arguments.photographs
    photographs, clips = photographs_and_clips_in(real) if real else ([], [])
    twice = not (arguments.no_second_look or arguments.closeup)
    least = min(arguments.threshold, DOUBTFUL) if arguments.closeup else arguments.threshold
    detector = load_detector(arguments.detector, threshold=least, second_look=twice)
    if arguments.closeup:
        closer = load_detector(arguments.closeup, threshold=SPECK, second_look=False)
        detector = SecondLook(detector, arguments.threshold, closer)
    teacher = arguments.teacher or None
    figures = evaluate_detector(
        detector, arguments.data, teacher=teacher, photographs=photographs, clips=clips, scenes=arguments.scenes
    )
    names = ("recall", "precision", "landmark_error", "landmark_error_median", "faces", "false")
    rows = [(group, *(each.get(name, "") for name in names)) for group, each in figures.items()]
    print(Table(f"score above {arguments.threshold}", ("", *names), rows).text())
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def _add_prepare(actions: Any) -> None:
    from gpenvid.options import DetectorOptions
    from gpenvid.train.options import PrepareOptions

    command = add_command(actions, "prepare", "cut aligned faces out of a folder of photographs", EXAMPLES)
    command.add_argument("folder", help="photographs, also in folders below; or sheets with an index.json")
    command.add_argument("-o", "--output", required=True, metavar="FILE", help="the pack of faces, .npy or .zip")
    add_options(command, PrepareOptions)
    add_options(command, DetectorOptions)
    command.set_defaults(run=prepare)


def prepare(arguments: argparse.Namespace) -> int:
    """Write the pack and say what was left out."""
    from collections import Counter

    from gpenvid.faces.detect import load_detector
    from gpenvid.options import DetectorOptions
    from gpenvid.train.data import pack_photographs, pack_sheets
    from gpenvid.train.options import PrepareOptions
    from gpenvid.train.packs import check_pack, write_pack

    check_pack(arguments.output)
    options = PrepareOptions(**chosen(arguments, (PrepareOptions,)))
    if (Path(arguments.folder) / "index.json").exists():
        faces = pack_sheets(arguments.folder, options.size, held=False, least_side=options.least_side * options.size)
        counts = Counter(kept=len(faces))
    else:
        found = replace(DetectorOptions(threshold=0.6), **chosen(arguments, (DetectorOptions,)))
        detector = load_detector(found.detector_model, threshold=found.threshold, second_look=found.second_look)
        faces, counts = pack_photographs(arguments.folder, detector, options)
    write_pack(arguments.output, faces)
    print(f"{arguments.output}: {len(faces)} faces; " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    return 0


def _add_preview(actions: Any) -> None:
    command = add_command(actions, "preview", "show what the degradations do, as a contact sheet", EXAMPLES)
    command.add_argument("--data", required=True, metavar="PATH", help="a pack of faces, or a folder of sheets")
    command.add_argument("--size", type=int, default=128, help="side of the faces in pixels (default 128)")
    command.add_argument("--seed", type=int, default=0, help="another seed, other damage (default 0)")
    command.add_argument("-o", "--output", required=True, metavar="FILE", help="the sheet, .png")
    command.set_defaults(run=preview)


def preview(arguments: argparse.Namespace) -> int:
    """Write the contact sheet."""
    from gpenvid.evaluate import write_picture
    from gpenvid.train import degradations
    from gpenvid.train.data import load_faces

    faces = load_faces(arguments.data, arguments.size)
    write_picture(Path(arguments.output), degradations.preview(list(faces[:24]), seed=arguments.seed))
    print(arguments.output)
    return 0
