"""`gpuconv train`: train a net, or go on with a run.  The flags are the fields of Config."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.sources import is_path
from ..errors import ConfigError
from ..nn import choice
from ..runs.config import Config
from ..runs.settings import PRESETS, from_values
from ..show.terminal import PROGRESS
from .parser import EXIT_CODES, named_path
from .settings import GROUPS, add_setting, base, given

_EXAMPLES = """\
examples:
  gpuconv train                              preset convnet, in runs/convnet-1
  gpuconv train --dry-run --batch-size 512   how long, how much memory? no run
  gpuconv train --overfit 100                can it learn 100 images? (~100 %)
  gpuconv train --epochs 20 --ema 0.99 --tta flip --seeds 5
  gpuconv train --sweep lr=0.03,0.1,0.3 --seeds 3   which rate? nine runs
  gpuconv train --resume runs/convnet-1      go on where Ctrl-C stopped it
  gpuconv train --weights runs/convnet-1 --data pets/   fine-tune its net
"""


def add(commands: Any) -> None:
    """Add the command."""
    others = [
        textwrap.fill(_short_difference(name), 78, initial_indent="  ", subsequent_indent="    ")
        for name in PRESETS
        if name != Config.preset
    ]
    parser = commands.add_parser(
        "train",
        help="train a net, or go on with an interrupted run",
        usage="gpuconv train [--preset NAME | --config FILE] [SETTING ...]\n       gpuconv train --resume RUN [--epochs N | --max-minutes X | ...]",
        description=(
            "Train a net on CIFAR-10 or, where that cannot be had, on built-in shapes; with\n"
            "--data on CIFAR-100 or a folder of pictures.  Keep weights, metrics and result\n"
            "in a run folder.  Ctrl-C saves and stops, and --resume goes on from there."
        ),
        epilog="\n".join(["in brackets: the value in preset convnet; in others:", *others, "", _EXAMPLES, EXIT_CODES]),
    )
    run = parser.add_argument_group("run")
    run.add_argument("--preset", metavar="NAME", help=f"recipe to start from: {', '.join(PRESETS)} [convnet]")
    run.add_argument("--config", metavar="FILE", type=named_path, help="settings of an earlier run: its config.toml")
    run.add_argument(
        "--resume",
        metavar="RUN",
        type=named_path,
        help="go on with the run in this folder, bit for bit; with a later end (--max-minutes 0): in a new run",
    )
    run.add_argument("--name", help="keep the run in runs/NAME-<number> [the net]")
    run.add_argument("--run-dir", metavar="DIR", type=named_path, help="keep the run in this new or empty folder")
    run.add_argument("--progress", metavar="NAME", default="auto", help=f"what to show: {', '.join(PROGRESS)} [auto]")
    run.add_argument("--seeds", metavar="N", type=int, help="N runs with seeds from --seed on: mean, deviation")
    run.add_argument(
        "--sweep",
        metavar="NAME=X,Y",
        action="append",
        type=_swept,
        help="a run for each value of a setting, or combination: --sweep lr=0.01,0.03 --sweep net=convnet,vgg",
    )
    run.add_argument("--dry-run", action="store_true", help="net, memory, estimated time; writes and fetches nothing")
    add_setting(run, "weights")
    add_setting(run, "overfit")
    add_setting(run, "tensorboard")
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            add_setting(group, name)
    parser.set_defaults(run=_train)


def _swept(text: str) -> tuple[str, list[Any]]:
    """Return the name and the values in a flag such as lr=0.01,0.03; a value of several numbers is 32:64:128."""
    name, sign, values = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    if not sign or not name or not values:
        msg = f"expected a setting and values with commas between them, as in lr=0.01,0.03, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    spec = Config.__dataclass_fields__.get(name)
    if spec is None:
        raise argparse.ArgumentTypeError(choice.unknown("setting", name, Config.__dataclass_fields__))
    try:
        return name, [_value(spec.default, word.strip()) for word in values.split(",")]
    except ValueError as error:
        msg = f"{name} takes no such values: {error}"
        raise argparse.ArgumentTypeError(msg) from None


def _value(default: Any, text: str) -> Any:
    """Return a word as a value of a setting of the kind of its default."""
    if isinstance(default, bool):
        if text not in ("yes", "no"):
            msg = f"expected yes or no, got {text!r}"
            raise ValueError(msg)
        return text == "yes"
    if isinstance(default, tuple):
        return tuple(int(part) for part in text.split(":"))
    return type(default)(text)


def _sweep(given: Sequence[tuple[str, list[Any]]], settings: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values of each setting that is swept; raise ConfigError where one is given twice."""
    sweep: dict[str, list[Any]] = {}
    for name, values in given:
        if name in sweep or name in settings:
            flag = f"--{name.replace('_', '-')}" if name in settings else f"another --sweep {name}="
            msg = f"--sweep {name}=... says which values to try: leave out {flag}"
            raise ConfigError(msg)
        sweep[name] = values
    return sweep


def _short_difference(name: str) -> str:
    base, other = Config(), PRESETS[name]
    changed = {key: value for key, value in vars(other).items() if value != getattr(base, key)}
    del changed["preset"]
    settings = ", ".join(f"{key.replace('_', '-')} {value}" for key, value in changed.items())
    return f"{name}: {settings}"


def _train(arguments: argparse.Namespace) -> int:
    from ..train.processes import ending_together

    with ending_together():
        return _train_alike(arguments)


def _train_alike(arguments: argparse.Namespace) -> int:
    """Do what the arguments say, in each of the processes that were given them."""
    from .. import train

    settings = given(arguments)
    preset = settings.pop("preset")
    if arguments.resume is not None:
        _resume(arguments, preset, settings)
        return 0
    if arguments.config is not None and preset is not None:
        msg = "--config and --preset exclude each other: the file names its preset"
        raise ConfigError(msg)
    if arguments.run_dir is not None and arguments.name is not None:
        msg = "--run-dir and --name exclude each other: both say where the run is kept"
        raise ConfigError(msg)
    config = from_values(settings, base(arguments, preset, settings))
    if "data" in settings and "data_dir" in settings and is_path(config.data):
        msg = f"--data {config.data} is a folder itself: leave out --data-dir"
        raise ConfigError(msg)
    if config.overfit and "overfit" in settings:
        config = train.overfitting(config, given=settings)
    if arguments.dry_run:
        _refuse_beside("--dry-run", arguments, "seeds", "sweep", "run_dir", "name")
        train.rehearse(config, progress=arguments.progress)
        return 0
    place = {"folder": arguments.run_dir, "name": arguments.name, "progress": arguments.progress}
    if arguments.sweep:
        sweep = _sweep(arguments.sweep, settings)
        train.train_sweep(config, sweep, seeds=1 if arguments.seeds is None else arguments.seeds, **place)
    elif arguments.seeds is not None:
        train.train_seeds(config, arguments.seeds, **place)
    else:
        train.train(config, **place)
    return 0


def _refuse_beside(flag: str, arguments: argparse.Namespace, *names: str) -> None:
    """Raise ConfigError if one of the named arguments was given."""
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name) is not None]
    if given:
        msg = f"{flag} leaves no run behind: leave out {', '.join(given)}"
        raise ConfigError(msg)


def _resume(arguments: argparse.Namespace, preset: str | None, settings: dict[str, Any]) -> None:
    from .. import train
    from ..runs import folder

    # What may be another one now, and changes no bit.
    kept = {name: settings.pop(name, None) for name in ("data_dir", "graph")}
    end = {name: settings.pop(name) for name in train.ENDS if name in settings}
    given = {"preset": preset, "config": arguments.config, "seeds": arguments.seeds, "sweep": arguments.sweep}
    given |= {"dry-run": arguments.dry_run or None}
    if not end:
        given |= {"run-dir": arguments.run_dir, "name": arguments.name}
    refused = [name for name, value in given.items() if value is not None]
    refused += [name.replace("_", "-") for name in settings]
    if refused:
        ends = ", ".join(f"--{name.replace('_', '-')}" for name in train.ENDS)
        msg = (
            f"--resume goes on with the run's own settings: leave out --{', --'.join(refused)}; "
            f"what can be changed is its end, in a new run: {ends}"
        )
        raise ConfigError(msg)
    if end:
        place = {"folder": arguments.run_dir, "name": arguments.name, "progress": arguments.progress}
        train.prolong(arguments.resume, end, **kept, **place)
    elif folder.members(arguments.resume) is not None:
        train.resume_several(arguments.resume, progress=arguments.progress, **kept)
    else:
        train.resume(arguments.resume, progress=arguments.progress, **kept)
