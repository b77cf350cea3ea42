"""`gpenvid weights`."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from gpenvid.cli.flags import add_command, add_options
from gpenvid.errors import OptionsError
from gpenvid.options import WeightsOptions

EXAMPLES = """\
examples:
  gpenvid weights list
  gpenvid weights fetch GPEN-BFR-512          the official 512-pixel model, for non-commercial use
  gpenvid weights verify
  gpenvid weights path gpen-lite
"""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    command = add_command(commands, "weights", "list, fetch or verify the networks' weights", EXAMPLES)
    command.add_argument("action", choices=("list", "fetch", "verify", "path"))
    command.add_argument("names", nargs="*", metavar="NAME", help="which; without names verify looks at all present")
    add_options(command.add_argument_group("weights"), WeightsOptions)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked with the weights that were named."""
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
