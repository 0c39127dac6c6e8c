"""Read files and text that someone else wrote, within bounds of size and depth, so that reading always ends.

Errors are those that callers wrap and name the file in: OSError for a file, ValueError for a text; `toml_file` does so.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any, NoReturn

from . import contents
from .errors import ConfigError

TEXT = 1 << 20  # bytes of a settings file or a net's: thousands of times what they have
LOG = 1 << 28  # bytes of what a run notes line by line
WEIGHTS = 1 << 36  # bytes of a file of weights
_DEEPEST = 100  # tables in tables; what is read is walked through by functions that call themselves

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


def read(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the bytes of a plain file; raise OSError for a pipe or device, which may never end, or one beyond `most`."""
    descriptor = os.open(path, _FLAGS)  # a pipe that nobody writes to would let any other way of opening it wait
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        content = b"" if status.st_size > most else file.read(status.st_size + 1)  # one more shows that it grew
        if max(status.st_size, len(content)) > most:
            raise OSError(errno.EFBIG, f"it is longer than {most:,} bytes")
        if len(content) > status.st_size:
            raise OSError(errno.EIO, "it grows while it is read")
    return content


def text(path: Path, most: int = TEXT) -> str:
    """Return the text of a plain file in UTF-8."""
    return read(path, most).decode("utf-8")


class _OtherTextError(ValueError):
    """Bytes that are no text in UTF-8; what it says ends a sentence that begins with the file's name."""


# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def typed_text(content: bytes) -> str:
    """Return a text that somebody typed: in UTF-8, or as its byte-order mark says; raise ValueError for any other.

    Windows' Notepad begins UTF-8 with such a mark, and its PowerShell writes UTF-16 with one.
    """
    encoding = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")
    try:
        decoded = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        words = f"is not text in UTF-8, see line {line} (it may be Latin-1 or Windows-1252): save it as UTF-8"
        if encoding not in ("utf-8", "utf-8-sig"):
            words = f"has the byte-order mark of {encoding.upper()} and is not text in it: save it as UTF-8"
        raise _OtherTextError(words) from None
    if "\0" in decoded:
        words = (
            "holds zero bytes, as UTF-16 without a byte-order mark does, or a file that is no text: save it as UTF-8"
        )
        raise _OtherTextError(words)
    return decoded


def toml(content: str) -> dict[str, Any]:
    """Return what a TOML text holds; raise ValueError (TOMLDecodeError is one) for any that cannot be had."""
    try:
        values = tomllib.loads(content)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(values)
    return values


def toml_file(path: Path, what: str) -> tuple[str, dict[str, Any]]:
    """Return the text of a TOML file and what it holds; raise ConfigError, in which the file is called `what`."""
    raw = b""
    try:
        raw = read(path, TEXT)
        content = typed_text(raw)
        return content, toml(content)
    except OSError as error:
        msg = f"{what} could not be read ({error.strerror or error})"
        raise ConfigError(msg) from None
    except ValueError as error:
        words = (raw and contents.in_words(raw[: contents.HEAD])) or (
            str(error) if isinstance(error, _OtherTextError) else f"is not TOML: {error}"
        )
        msg = f"{what} {words}"
        raise ConfigError(msg) from None


def from_json(content: str | bytes) -> Any:
    """Return what a JSON text holds; raise ValueError for any that cannot be had."""
    try:
        values = json.loads(content, parse_constant=_no_number)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(values)
    return values


def _no_number(word: str) -> NoReturn:
    msg = f"{word} is no number of JSON"
    raise ValueError(msg)


def json_object(path: Path, most: int = TEXT) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if the file is not there or holds something else."""
    try:
        values = from_json(text(path, most))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _check_depth(values: Any) -> None:
    level = [values]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {_DEEPEST} levels deep")
