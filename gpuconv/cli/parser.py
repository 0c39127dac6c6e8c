"""What the parsers of all commands share: how help looks, what an error says, the exit codes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ConfigError
from ..folders import path_of

EXIT_CODES = """\
exit codes:
  0         done
  1         an error that the message explains
  2         a flag, setting or folder that cannot be used
  4         a file that could not be written, as on a full disk
  5         the loss became NaN or infinite
  130, 143  stopped by Ctrl-C or SIGTERM, after saving
  129       stopped by SIGHUP, as the terminal was closed, after saving
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in 80 columns, with room for the longer flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=27, width=80)


class Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags, and points to the help in one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"gpuconv: error: {message}\n{self.prog} --help shows what there is\n")
        raise SystemExit(2)


def named_path(text: str) -> Path:
    """Return the path in an argument, with ~ as `path_of` takes it."""
    try:
        return path_of(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def words(text: str) -> tuple[str, ...]:
    """Return the words of a flag such as --ops conv,relu."""
    return tuple(word for word in text.split(",") if word)
