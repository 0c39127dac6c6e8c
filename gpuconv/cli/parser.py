"""What the parsers of all commands share: how help looks, what an error says, the exit codes."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import tables
from ..errors import ConfigError
from ..folders import path_of
from ..nn.choice import nearest
from ..runs.evaluation import TTA

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


_WIDTH = 80


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in 80 columns, or as many as a narrower terminal has, with room for the longer flags."""

    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size((_WIDTH, 0)).columns
        super().__init__(prog, max_help_position=27, width=min(_WIDTH, columns))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Keep lines as they are written, for 80 columns; in fewer, join those of a paragraph and break them anew."""
        if width >= _WIDTH:
            return super()._fill_text(text, width, indent)
        paragraphs = text.split("\n\n")
        return "\n\n".join(self._narrow(paragraph, width) for paragraph in paragraphs)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return tables.wrapped(
            " ".join(text.split()), width
        )  # names of flags and settings are not broken at their hyphens

    def _format_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None) -> str:
        text = super()._format_usage(usage, actions, groups, prefix)
        if usage is None or self._width >= _WIDTH:
            return text
        lines = [part for line in text.split("\n") for part in tables.wrapped(line, self._width, indent=" " * 9)]
        return "\n".join(lines)

    @staticmethod
    def _narrow(paragraph: str, width: int) -> str:
        lines = paragraph.split("\n")
        if not any(line.startswith(" ") for line in lines):
            lines = [" ".join(lines)]
        indent = "" if len(lines) == 1 else " " * 4
        return "\n".join(part for line in lines for part in tables.wrapped(line, width, indent=indent))


class Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags, says what a mistyped one may have meant, and points to the help in one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **settings)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Parse, and refuse what is left over here, where the flags of the command are known, not in the parser above."""
        arguments, rest = super().parse_known_args(args, namespace)
        if rest:
            flags = [text.partition("=")[0] for text in rest if text.startswith("-")]
            meant = [near for flag in flags if (near := nearest(flag, self._option_string_actions))]
            self.error(f"unrecognized arguments: {' '.join(rest)}{_meant(meant)}")
        return arguments, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is not among the choices of an argument, or no command."""
        if action.choices is not None and value not in action.choices:
            near = nearest(value, action.choices)
            hint = _meant([near]) if near else f"; choose from {', '.join(action.choices)}"
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{hint}")

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"gpuconv: error: {message}\n{self.prog} --help shows what there is\n")
        raise SystemExit(2)


def _meant(names: Sequence[str]) -> str:
    """Return the end of a message: the question whether these were meant, if there are any."""
    return f"; did you mean {' '.join(names)}?" if names else ""


def add_json(parser: Any) -> None:
    """Add the flag that asks for what `document` writes."""
    parser.add_argument("--json", action="store_true", help="write one JSON document")


def document(values: Any) -> str:
    """Return plain values as a JSON document."""
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)


def add_device(parser: Any) -> None:
    """Add the flag that says where to compute."""
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute: auto, cpu, cuda [auto]"
    )


def add_views(parser: Any) -> None:
    """Add the flag that names the views of a picture whose scores are averaged."""
    parser.add_argument(
        "--tta", metavar="NAME", default="none", help=f"average the scores of views: {', '.join(TTA)} [none]"
    )


def check_views(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for views that there are not."""
    if arguments.tta not in TTA:
        msg = f"tta must be one of {', '.join(TTA)}, got {arguments.tta!r}"
        raise ConfigError(msg)


def named_path(text: str) -> Path:
    """Return the path in an argument, with ~ as `path_of` takes it."""
    try:
        return path_of(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def words(text: str) -> tuple[str, ...]:
    """Return the words of a flag such as --ops conv,relu."""
    return tuple(word for word in text.split(",") if word)
