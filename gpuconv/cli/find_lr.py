"""`gpuconv find-lr`: a learning rate to begin with, from the losses of some steps at rates that rise."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

from .. import tables
from ..errors import ConfigError
from ..runs.settings import PRESETS, from_values
from ..show.terminal import PROGRESS
from .parser import EXIT_CODES, add_json, document, named_path
from .settings import GROUPS, add_setting, base, given

# Those that a search has no use for: it has a course of rates, and a length, of its own.
_OTHERS = ("length", "learning rate", "saving and testing")
_KEPT = ("batch_size", "accumulate")

_EXAMPLES = """\
examples:
  gpuconv find-lr                            preset convnet
  gpuconv find-lr --net vgg --data pets/ --batch-size 32
  gpuconv find-lr --optimizer adam --save rates.png
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "find-lr",
        help="a learning rate to begin with, from a hundred steps",
        usage="gpuconv find-lr [--preset NAME | --config FILE] [SETTING ...]",
        description=(
            "Take a hundred steps at learning rates that rise from far too low to far too\n"
            "high, draw the losses, and suggest a rate: the highest one before the smoothed\n"
            "loss gives back more than a tenth of its fall.  It is meant as the highest rate\n"
            "of a schedule, and as a place to look around.  Nothing is kept but the picture\n"
            "that --save asks for."
        ),
        epilog=_EXAMPLES + "\n" + EXIT_CODES,
    )
    search = parser.add_argument_group("search")
    search.add_argument("--preset", metavar="NAME", help=f"recipe to start from: {', '.join(PRESETS)} [convnet]")
    search.add_argument("--config", metavar="FILE", type=named_path, help="settings of a run: its config.toml")
    search.add_argument("--steps", metavar="N", type=int, default=100, help="steps, if the loss lets them be [100]")
    search.add_argument("--lowest", metavar="X", type=float, default=1e-5, help="the first rate [1e-05]")
    search.add_argument("--highest", metavar="X", type=float, default=10.0, help="the last rate [10]")
    search.add_argument("--save", metavar="FILE", type=named_path, help="picture to write: .png, .svg or .pdf")
    search.add_argument(
        "--progress", metavar="NAME", default="auto", help=f"what to show: {', '.join(PROGRESS)} [auto]"
    )
    add_json(search)
    add_setting(search, "weights")
    for title, names in GROUPS.items():
        if title not in _OTHERS:
            group = parser.add_argument_group(title)
            for name in names:
                add_setting(group, name)
            for name in _KEPT if title == "data" else ():
                add_setting(group, name)
    parser.set_defaults(run=_find_lr)


def _find_lr(arguments: argparse.Namespace) -> int:
    from ..show import plots
    from ..train.rate_search import find_rate

    settings = given(arguments)
    preset = settings.pop("preset")
    if arguments.config is not None and preset is not None:
        msg = "--config and --preset exclude each other: the file names its preset"
        raise ConfigError(msg)
    config = from_values(settings, base(arguments, preset, settings))
    if arguments.save is not None:
        plots.check(arguments.save)
    found = find_rate(
        config,
        steps=arguments.steps,
        lowest=arguments.lowest,
        highest=arguments.highest,
        progress="none" if arguments.json else arguments.progress,
    )
    if arguments.json:
        sys.stdout.write(document(_values(found)) + "\n")
    else:
        _show(found)
    if arguments.save is not None:
        plots.save(found.plot(), arguments.save)
        if not arguments.json:
            sys.stdout.write(f"{arguments.save} is written\n")
    return 0


def _values(found: Any) -> dict[str, Any]:
    return {
        "suggestion": found.suggestion,
        "rule": found.rule,
        "ended": found.ended,
        "rates": found.rates,
        "losses": found.losses,
        "smoothed": found.smoothed,
    }


def _show(found: Any) -> None:
    """Write the chart and what follows from it."""
    from ..show import plots, screen
    from ..show.canvas import Chart, draw
    from ..show.curves import Line

    console, (columns, lines) = screen.console(), screen.size()
    said = ["", *(part for text in _paragraphs(found) for part in tables.wrapped(text, min(80, columns)))]
    if found.smoothed:
        count = plots.until_it_blows_up(found.smoothed)
        points = [
            [(math.log10(rate), loss) for rate, loss in zip(found.rates[:count], of, strict=False)]
            for of in (found.losses, found.smoothed)
        ]
        shown = [Line("each step", points[0], "faint"), Line("smoothed", points[1])]
        if found.suggestion is not None:
            at, height = math.log10(found.suggestion), (min(found.losses), max(found.smoothed[:count]))
            shown.append(Line("suggestion", [(at, loss) for loss in height], end=f"try {found.suggestion:g}"))
        chart = Chart("loss", shown, "{:.3g}".format, x="learning rate", columns=_powers)
        for line in draw(chart, min(columns - 1, 140), min(lines - len(said) - 1, 24), screen.style_of(console)):
            console.print(line)
    sys.stdout.write("\n".join(said) + "\n")


def _paragraphs(found: Any) -> list[str]:
    """Return what a search has found, and what to do with it."""
    ended = {"blown up": "the loss blew up at", "not finite": "the loss was no number any more after"}
    end = f" ({ended[found.ended]} {found.rates[-1]:.2g})" if found.ended in ended and found.rates else ""
    if found.suggestion is None:
        return [found.rule + end]
    around = ",".join(f"{found.suggestion * factor:.2g}" for factor in (0.5, 1, 2))
    return [
        f"try --lr {found.suggestion:g}, as the highest rate of a schedule: {found.rule}{end}",
        f"to compare it with its neighbours: gpuconv train --sweep lr={around}, with the same settings",
    ]


def _powers(left: float, right: float) -> list[tuple[float, str]]:
    """Return the powers of ten between two logarithms."""
    return [(float(power), f"{10.0**power:g}") for power in range(math.ceil(left), math.floor(right) + 1)]
