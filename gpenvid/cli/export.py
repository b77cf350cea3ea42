"""`gpenvid export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpenvid.cli.flags import add_command, add_options, chosen
from gpenvid.errors import OptionsError
from gpenvid.options import WeightsOptions

EXAMPLES = """\
examples:
  gpenvid export gpen-lite --to onnx -o gpen-lite.onnx
  gpenvid export run/model.pth --to torchscript
  gpenvid enhance film.mp4 --model gpen-lite.onnx
"""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    command = add_command(commands, "export", "write a restorer for another engine, if its results agree", EXAMPLES)
    command.add_argument("model", help="auto, a name from `gpenvid weights list`, or a file")
    command.add_argument("--to", required=True, choices=("onnx", "torchscript", "tensorrt"))
    command.add_argument("-o", "--output", metavar="FILE", help="default: the model's name in the working directory")
    command.add_argument("--precision", default="fp32", choices=("fp32", "fp16"), help="arithmetic (default fp32)")
    add_options(command.add_argument_group("weights"), WeightsOptions)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file and say how well it agrees."""
    from gpenvid import weights
    from gpenvid.gpen.checkpoint import load_generator
    from gpenvid.gpen.export import FORMATS, export
    from gpenvid.gpen.restorer import PRECISIONS

    place = chosen(arguments, (WeightsOptions,))
    found = weights.resolve(
        arguments.model,
        "restorer",
        weights_dir=place.get("weights_dir"),
        offline=place.get("offline"),
    )
    target = Path(arguments.output or found.name + FORMATS[arguments.to])
    if not target.parent.is_dir():
        raise OptionsError(f"{target.parent}: no such folder")
    difference = export(load_generator(found.path), target, arguments.to, dtype=PRECISIONS[arguments.precision])
    print(f"{target}: agrees with PyTorch within {difference:.1g} on a scale of -1 to 1")
    return 0
