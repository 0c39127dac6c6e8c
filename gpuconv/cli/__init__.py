"""The command `gpuconv`: one file per command, each with `add(commands)`; here they are put together and run."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import backend
from ..errors import (
    CheckpointWriteError,
    ConfigError,
    GpuconvError,
    NonFiniteLossError,
    ProcessError,
    SaidElsewhereError,
)
from ..interrupts import end_at_once, raise_exceptions
from .parser import EXIT_CODES, Parser

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors of the package become one message on stderr."""
    try:
        try:
            raise_exceptions()
            return _main(sys.argv[1:] if argv is None else argv)
        finally:
            end_at_once()
    except KeyboardInterrupt:  # before a command runs, or after it
        end_at_once()  # it came just before this could be said above
        _say("gpuconv: stopped at once")
        return 128 + signal.SIGINT


def _main(argv: Sequence[str]) -> int:
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by whoever started us
            setattr(sys, stream, Path(os.devnull).open("w"))  # noqa: SIM115 - open to the end
    try:
        arguments = _parser().parse_args(argv or ["--help"])
    except SystemExit as done:  # argparse has said what was wrong, or printed the help
        return done.code if isinstance(done.code, int) else 2
    code = _run(arguments)
    if code and "gpuconv.train.processes" in sys.modules:
        from ..train.processes import leave

        leave(code)
    try:
        sys.stdout.flush()
    except OSError as error:  # its reader has left, or its disk is full: some of what was to be shown is lost
        from ..show.terminal import give_up

        give_up(sys.stdout)
        if code == 0 and not isinstance(error, BrokenPipeError):
            _say(f"gpuconv: error: {error}")
        return code or 1
    return code


def _run(arguments: argparse.Namespace) -> int:
    """Run a command and return its exit code."""
    from ..show.terminal import give_up
    from ..show.words import as_flags

    try:
        with as_flags():
            code: int = arguments.run(arguments)
    except SaidElsewhereError as error:
        return error.code
    except ProcessError as error:
        return _fail(error, error.code)
    except ConfigError as error:
        return _fail(error, 2)
    except CheckpointWriteError as error:
        return _fail(error, 4)
    except NonFiniteLossError as error:
        return _fail(error, 5)
    except GpuconvError as error:
        return _fail(error, 1)
    except MemoryError as error:
        return _fail(f"out of memory ({error}): a smaller batch or net needs less", 1)
    except KeyboardInterrupt as interrupt:
        signum = getattr(interrupt, "signum", 2)
        _say(f"gpuconv: {interrupt if str(interrupt) else 'stopped at once'}")
        return 128 + signum
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        give_up(sys.stdout)
        return 1
    except OSError as error:
        give_up(sys.stdout)
        return _fail(error, 4 if error.errno in _FULL else 1)
    except Exception as error:
        said = backend.gpu_error(error)
        if said is None:
            raise
        return _fail(said, 1)
    return code


def _fail(error: object, code: int) -> int:
    _say(f"gpuconv: error: {error}")
    return code


def _say(text: str) -> None:
    """Write to stderr, if anybody is left to read it: an exit code says enough."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="gpuconv",
        description="Train and use small convolutional nets on plain NumPy arrays.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    # Imported here, where Ctrl-C meets no traceback.
    from . import bench, compare, data, doctor, eval, export, find_lr, import_, plot, predict, runs, train

    for command in (train, find_lr, runs, eval, predict, plot, compare, export, import_, data, doctor, bench):
        command.add(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from ..version import gpuconv_version

        sys.stdout.write(f"gpuconv {gpuconv_version()}\n")
        parser.exit()
