"""The command `gpuconv`: train, eval, data, doctor, bench.  The flags of train are the fields of Config."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .errors import ConfigError, GpuconvError, NonFiniteLossError
from .train.config import PRESETS, Config, from_values, read
from .train.report import PROGRESS

_EXIT_CODES = """\
exit codes:
  0         done
  1         an error that the message explains
  2         a flag, setting or folder that cannot be used
  5         the loss became NaN or infinite
  130, 143  stopped by Ctrl-C or SIGTERM, after saving
"""

# Which fields of Config stand under which heading of `gpuconv train --help`.
_GROUPS = {
    "net": ("net", "widths", "filters", "window", "hidden", "weight_scale", "dtype", "device", "seed"),
    "data": ("data", "data_dir", "download", "validation", "train_images", "test_images", "flip", "crop"),
    "length": ("epochs", "max_steps", "batch_size"),
    "update": (
        *("optimizer", "momentum", "nesterov", "beta1", "beta2", "smoothing", "eps"),
        *("weight_decay", "label_smoothing"),
    ),
    "learning rate": ("lr", "schedule", "warmup", "lr_start", "lr_end", "lr_curve", "lr_every", "lr_factor"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors of the package become one message on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by whoever started us
            setattr(sys, stream, Path(os.devnull).open("w"))  # noqa: SIM115 - open to the end
    try:
        arguments = _parser().parse_args(argv or ["--help"])
    except SystemExit as done:  # argparse has said what was wrong, or printed the help
        return done.code if isinstance(done.code, int) else 2
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except ConfigError as error:
        return _fail(error, 2)
    except NonFiniteLossError as error:
        return _fail(error, 5)
    except GpuconvError as error:
        return _fail(error, 1)
    except MemoryError as error:
        return _fail(f"out of memory ({error}): a smaller batch or net needs less", 1)
    except KeyboardInterrupt as interrupt:
        signum = getattr(interrupt, "signum", 2)
        sys.stderr.write(f"gpuconv: {interrupt if str(interrupt) else 'stopped at once'}\n")
        return 128 + signum
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        _give_up_stdout()
        return 1
    except OSError as error:
        _give_up_stdout()
        return _fail(error, 1)
    return code


def _give_up_stdout() -> None:
    """Send what is still to be written nowhere, lest the interpreter tries, and fails, when it ends."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: object, code: int) -> int:
    sys.stderr.write(f"gpuconv: error: {error}\n")
    return code


# The parser ---------------------------------------------------------------------------------------------------------


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in 80 columns, with room for the longer flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=27, width=80)


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags, and points to the help in one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"gpuconv: error: {message}\n{self.prog} --help shows what there is\n")
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gpuconv",
        description="Train and use small convolutional nets on plain NumPy arrays.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_train(commands)
    _add_eval(commands)
    _add_data(commands)
    _add_doctor(commands)
    _add_bench(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from .train.machine import gpuconv_version

        sys.stdout.write(f"gpuconv {gpuconv_version()}\n")
        parser.exit()


def _add_train(commands: Any) -> None:
    others = [textwrap.fill(_short_difference(name), 78) for name in PRESETS if name != Config.preset]
    parser = commands.add_parser(
        "train",
        help="train a net, or go on with an interrupted run",
        usage="gpuconv train [--preset NAME | --config FILE] [SETTING ...]\n       gpuconv train --resume RUN",
        description=(
            "Train a net on CIFAR-10 or, where that cannot be had, on built-in shapes; keep\n"
            "weights, metrics and result in a run folder.  Ctrl-C saves and stops, and\n"
            "--resume goes on from there."
        ),
        epilog="\n".join(["in brackets: the value in preset convnet", *others, "", _EXIT_CODES]),
    )
    run = parser.add_argument_group("run")
    run.add_argument("--preset", metavar="NAME", help=f"recipe to start from: {', '.join(PRESETS)} [convnet]")
    run.add_argument("--config", metavar="FILE", type=Path, help="settings of an earlier run: its config.toml")
    run.add_argument("--resume", metavar="RUN", type=Path, help="go on with the run in this folder, bit for bit")
    run.add_argument("--name", help="keep the run in runs/NAME-<number> [the preset]")
    run.add_argument("--run-dir", metavar="DIR", type=Path, help="keep the run in this new or empty folder")
    run.add_argument("--progress", metavar="NAME", default="auto", help=f"what to show: {', '.join(PROGRESS)} [auto]")
    _add_setting(run, "checkpoint_every")
    for title, names in _GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            _add_setting(group, name)
    parser.set_defaults(run=_train)


def _add_setting(group: Any, name: str) -> None:
    """Add the flag of one field of Config; a flag that is not given is absent from the parsed arguments."""
    spec = Config.__dataclass_fields__[name]
    shown = spec.default
    if isinstance(shown, tuple):
        shown = ",".join(map(str, shown))
    settings: dict[str, Any] = {"default": argparse.SUPPRESS, "dest": name, "help": spec.metadata["help"]}
    if isinstance(spec.default, bool):
        settings["action"] = argparse.BooleanOptionalAction
        shown = "yes" if shown else "no"
    else:
        settings["type"] = _integers if isinstance(spec.default, tuple) else type(spec.default)
        settings["metavar"] = {str: "DIR", float: "X", int: "N", tuple: "N,N,..."}[type(spec.default)]
        if spec.metadata["choices"]:
            settings["metavar"] = "NAME"
            settings["help"] += f": {', '.join(spec.metadata['choices'])}"
    if shown != "":
        settings["help"] += f" [{shown}]"
    group.add_argument(f"--{name.replace('_', '-')}", **settings)


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        msg = f"expected ints with commas between them, as in 32,64,128, got {text!r}"
        raise argparse.ArgumentTypeError(msg) from None


def _short_difference(name: str) -> str:
    base, other = Config(), PRESETS[name]
    changed = {key: value for key, value in vars(other).items() if value != getattr(base, key)}
    del changed["preset"]
    settings = ", ".join(f"{key.replace('_', '-')} {value}" for key, value in changed.items())
    return f"preset {name} differs: {settings}"


def _add_eval(commands: Any) -> None:
    parser = commands.add_parser(
        "eval",
        help="accuracy of a trained net, overall and by class",
        description="Test the net of a run on the test images of its data set.",
    )
    parser.add_argument("run_path", metavar="RUN", type=Path, help="run folder, or a checkpoint file")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which of the run's [best]")
    parser.add_argument("--data", metavar="NAME", help="another data set than the run's: cifar10, shapes")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the data set")
    parser.add_argument("--test-images", metavar="N", type=int, default=0, help="only the first N [0: all]")
    parser.set_defaults(run=_eval)


def _add_data(commands: Any) -> None:
    parser = commands.add_parser("data", help="fetch or check CIFAR-10", description="Fetch or check CIFAR-10.")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, run, text in (
        ("get", _data_get, "fetch CIFAR-10, resume where a try broke off, check its SHA-256"),
        ("verify", _data_verify, "check every file of the CIFAR-10 that training would use"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument("--data-dir", metavar="DIR", help="folder of the data set [the usual place]")
        action.set_defaults(run=run)


def _add_doctor(commands: Any) -> None:
    text = "what gpuconv finds on this machine"
    parser = commands.add_parser("doctor", help=text, description=f"Show {text}: for questions and bug reports.")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_doctor)


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="compare speed with PyTorch and others, case by case",
        description=(
            "Time every case in gpuconv and its peers, in one run, by turns; nothing wrong is\n"
            "timed, and a peer that is not installed is named.  Needs a checkout of the source."
        ),
    )
    parser.add_argument("--set", dest="set_name", metavar="NAME", default="readme", help="set of cases [readme]")
    parser.add_argument("--ops", metavar="A,B", type=_words, default=(), help="only these operators")
    parser.add_argument("--only", metavar="TEXT", default="", help="only cases with this text in their name")
    parser.add_argument("--peers", dest="peer_names", metavar="A,B", type=_words, default=(), help="peers [all]")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to run [cpu]")
    parser.add_argument(
        "--regimes", metavar="A,B", type=_words, default=(), help="float32, tf32, float16 [cpu: float32, cuda: all]"
    )
    parser.add_argument("--threads", metavar="N", type=int, help="threads of every side [the usable cores]")
    parser.add_argument("--rounds", metavar="N", type=int, default=12, help="rounds of a row [12]")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="peak memory [yes]")
    parser.add_argument("--save", metavar="FILE", type=Path, help="keep every round as JSON")
    parser.add_argument("--list", dest="listing", action="store_true", help="show sets, operators and peers, and end")
    parser.set_defaults(run=_bench)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


# The commands -------------------------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace) -> int:
    from . import train

    settings = {name: value for name, value in vars(arguments).items() if name in Config.__dataclass_fields__}
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
    base = read(arguments.config) if arguments.config is not None else None
    if base is None:
        base = from_values({"preset": preset} if preset is not None else {})
    train.train(
        from_values(settings, base),
        folder=arguments.run_dir,
        name=arguments.name,
        progress=arguments.progress,
    )
    return 0


def _resume(arguments: argparse.Namespace, preset: str | None, settings: dict[str, Any]) -> None:
    from . import train

    data_dir = settings.pop("data_dir", None)
    given = {"preset": preset, "config": arguments.config, "run-dir": arguments.run_dir, "name": arguments.name}
    refused = [name for name, value in given.items() if value is not None]
    refused += [name.replace("_", "-") for name in settings]
    if refused:
        msg = f"--resume goes on with the run's own settings: leave out --{', --'.join(refused)}"
        raise ConfigError(msg)
    train.resume(arguments.resume, progress=arguments.progress, data_dir=data_dir)


def _eval(arguments: argparse.Namespace) -> int:
    from . import data
    from .train import recipe, snapshot
    from .train.evaluation import evaluate

    path = arguments.run_path
    if path.is_dir():
        path = path / f"{arguments.checkpoint}.safetensors"
    then = snapshot.load(path)
    net = snapshot.net_of(then)
    config = then.config
    name = arguments.data or config.data
    folder = arguments.data_dir or (config.data_dir if name == config.data else "") or None
    dataset = data.load(name, folder=folder)
    config = from_values({"test_images": arguments.test_images, "validation": 0, "train_images": 0}, config)
    split = recipe.split(dataset, config)
    found = evaluate(net, split.x_test, split.y_test, mean=dataset.mean, std=dataset.std, classes=len(dataset.classes))
    lines = [f"{path}, after epoch {len(then.position.rows)}:", f"{found.count:,} test images of {dataset.name}"]
    if dataset.name != then.data_name:
        lines.append(f"(the net was trained on {then.data_name})")
    lines.append("")
    width = max(map(len, dataset.classes))
    for label, accuracy in zip(dataset.classes, found.class_accuracy, strict=True):
        lines.append(f"{label:<{width}}  " + ("      -" if accuracy is None else f"{accuracy:>7.2%}"))
    lines += ["-" * (width + 9), f"{'all':<{width}}  {found.accuracy:>7.2%}   loss {found.loss:.4f}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _data_get(arguments: argparse.Namespace) -> int:
    from .data.sources import download_cifar10
    from .train.report import report

    with report("auto") as says:
        path = download_cifar10(arguments.data_dir, progress=says.download)
    sys.stdout.write(f"{path} is complete and its SHA-256 is right\n")
    return 0


def _data_verify(arguments: argparse.Namespace) -> int:
    from . import data

    rows = data.verify(arguments.data_dir)
    width = max(len(row.name) for row in rows)
    for row in rows:
        verdict = row.problem or ("original" if row.official else "sound, but not the original CIFAR-10")
        sys.stdout.write(f"{row.name:<{width}}  {row.size:>12,} bytes  {verdict}\n")
    return 0 if all(row.ok for row in rows) else 1


def _doctor(arguments: argparse.Namespace) -> int:
    from . import doctor

    findings = doctor.examine()
    sys.stdout.write((doctor.as_json(findings) if arguments.json else doctor.as_text(findings)) + "\n")
    return 0 if all(finding.ok for finding in findings) else 1


def _bench(arguments: argparse.Namespace) -> int:
    root = Path(__file__).parents[1]  # of the checkout: benchmarks and their results are not installed
    if not (root / "bench" / "run.py").is_file():
        msg = "gpuconv bench needs a checkout of the source: the folder bench/ is not part of the installed package"
        raise ConfigError(msg)
    sys.path.insert(0, str(root))
    run = importlib.import_module("bench.run")
    if arguments.listing:
        sys.stdout.write(run.listing() + "\n")
        return 0
    others = ("run", "listing", "version")
    settings = {name: value for name, value in vars(arguments).items() if name not in others}
    run.bench(**settings)
    return 0
