"""`gpuconv bench`: compare speed with PyTorch and others, from a checkout of the source."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .parser import named_path, words

_EXAMPLES = """\
examples:
  gpuconv bench --only resnet --peers torch --picture ratios.png
  gpuconv bench --ops conv --processes 3 --save before.json      then change something
  gpuconv bench --ops conv --processes 3 --compare before.json --fail-above 1.1
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="compare speed with PyTorch and others, case by case",
        description=(
            "Time every case in gpuconv and its peers, in one run, by turns; nothing wrong is\n"
            "timed, and a peer that is not installed is named.  Needs a checkout of the source."
        ),
        epilog=_EXAMPLES,
    )
    parser.add_argument("--set", dest="set_name", metavar="NAME", default="readme", help="set of cases [readme]")
    parser.add_argument("--ops", metavar="A,B", type=words, default=(), help="only these operators")
    parser.add_argument("--only", metavar="TEXT", default="", help="only cases with this text in their name")
    parser.add_argument("--peers", dest="peer_names", metavar="A,B", type=words, default=(), help="peers [all]")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to run [cpu]")
    parser.add_argument(
        "--regimes", metavar="A,B", type=words, default=(), help="float32, tf32, float16 [cpu: float32, cuda: all]"
    )
    parser.add_argument("--threads", metavar="N", type=int, help="threads of every side [the usable cores]")
    parser.add_argument("--rounds", metavar="N", type=int, default=12, help="rounds of a row [12]")
    parser.add_argument("--processes", metavar="N", type=int, default=1, help="that share a side's rounds [1]")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="peak memory [yes]")
    parser.add_argument("--one-thread", action="store_true", help="processor time of one thread, too")
    parser.add_argument("--save", metavar="FILE", type=named_path, help="keep every round as JSON")
    parser.add_argument("--picture", metavar="FILE", type=named_path, help="draw the ratios: .png, .svg or .pdf")
    parser.add_argument(
        "--compare",
        metavar="FILE",
        type=named_path,
        nargs="+",
        default=(),
        help="show gpuconv's times beside those kept by --save: on this machine, with these versions",
    )
    parser.add_argument(
        "--fail-above",
        metavar="X",
        type=float,
        help="with --compare: exit with 1 if a row takes more than X times as long in every process, measured twice",
    )
    parser.add_argument(
        "--scaling",
        action="store_true",
        help="training by processes instead: images/s on this machine, and an estimate",
    )
    parser.add_argument("--list", dest="listing", action="store_true", help="show sets, operators and peers, and end")
    parser.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    root = Path(__file__).parents[2]  # of the checkout: benchmarks and their results are not installed
    if not (root / "bench" / "run.py").is_file():
        msg = "gpuconv bench needs a checkout of the source: the folder bench/ is not part of the installed package"
        raise ConfigError(msg)
    sys.path.insert(0, str(root))
    run = importlib.import_module("bench.run")
    if arguments.listing:
        sys.stdout.write(run.listing() + "\n")
        return 0
    if arguments.scaling:
        importlib.import_module("bench.scaling").scaling(rounds=arguments.rounds, save=arguments.save)
        return 0
    others = ("run", "listing", "version", "scaling")
    settings = {name: value for name, value in vars(arguments).items() if name not in others}
    return 0 if run.bench(**settings) else 1
