"""`gpuconv data`: fetch or check CIFAR-10."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .parser import Parser


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("data", help="fetch or check CIFAR-10", description="Fetch or check CIFAR-10.")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for name, run, text in (
        ("get", _data_get, "fetch CIFAR-10, resume where a try broke off, check its SHA-256"),
        ("verify", _data_verify, "check every file of the CIFAR-10 that training would use"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument("--data-dir", metavar="DIR", help="folder of the data set [the usual place]")
        action.set_defaults(run=run)


def _data_get(arguments: argparse.Namespace) -> int:
    from ..data.sources import download_cifar10
    from ..train.report import report

    with report("auto") as says:
        path = download_cifar10(arguments.data_dir, progress=says.download)
    sys.stdout.write(f"{path} is complete and its SHA-256 is right\n")
    return 0


def _data_verify(arguments: argparse.Namespace) -> int:
    from .. import data

    rows = data.verify(arguments.data_dir)
    width = max(len(row.name) for row in rows)
    for row in rows:
        verdict = row.problem or ("original" if row.official else "sound, but not the original CIFAR-10")
        sys.stdout.write(f"{row.name:<{width}}  {row.size:>12,} bytes  {verdict}\n")
    return 0 if all(row.ok for row in rows) else 1
