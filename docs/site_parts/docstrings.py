"""Docstrings as the house writes them, for Sphinx: prose, lines of shapes, and examples.

A paragraph of shapes keeps its columns, an example stays an example, and all else is prose, in which public names become
links and no sign has a meaning of its own.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

from sphinx.application import Sphinx

import gpuconv
from gpuconv import errors

_SHAPES = re.compile(r"\w+(, \w+)*: +\(|.* ->  ")
_COLUMNS = re.compile(r"\S {3,}\S")
_SENTENCE = re.compile(r"([A-Z(].*?[.;])\s{3,}(?=\w+(?:, \w+)*: )")
_PARTS = re.compile(r"\s{3,}(?=\w+(?:, \w+)*: )")
_SIGNS = re.compile(r"([\\*`|_])")
_CODE = re.compile(r"`+([^`]+)`+")
_NAME = re.compile(r"\b(?:[a-z]+(?:_[a-z]+)+|[A-Z]\w+Error)\b")
_SECTION = re.compile(r"^(\w[\w ]*)\n[-=]{3,}$")


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Return the paragraphs of a text."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def prose(text: str, itself: str = "") -> str:
    """Return text as reStructuredText that shows it as it is, with links from public names but the text's own."""
    parts = []
    for number, part in enumerate(_CODE.split(text)):
        if number % 2:
            parts.append(f"``{part}``")
            continue
        end = 0
        for found in _NAME.finditer(part):
            parts.append(_SIGNS.sub(r"\\\1", part[end : found.start()]))
            role = None if found[0] == itself else _role(found[0])
            parts.append(role or _SIGNS.sub(r"\\\1", found[0]))
            end = found.end()
        parts.append(_SIGNS.sub(r"\\\1", part[end:]))
    # Where markup touches a letter, reStructuredText needs to be told that it ends.
    return "".join(
        f"{before}\\ " if _touch(before, after) else before
        for before, after in zip(parts, [*parts[1:], ""], strict=True)
    )


def _role(name: str) -> str | None:
    """Return the link to an operator or an error."""
    if name in gpuconv.ops.__all__:
        return f":func:`~gpuconv.{name}`"
    if hasattr(errors, name):
        return f":class:`~gpuconv.errors.{name}`"
    return None


def _touch(before: str, after: str) -> bool:
    marks = ("``", ":func:`", ":class:`")
    ends, begins = before.endswith("`") and before.startswith(marks), after.startswith(marks)
    return bool((ends and re.match(r"[\w(]", after)) or (begins and re.search(r"[\w=/-]$", before)))


def restructured(lines: list[str], itself: str = "") -> list[str]:
    """Return the lines of a docstring as reStructuredText."""
    return [line for paragraph in paragraphs(lines) for line in _paragraph(paragraph, itself)]


def _paragraph(lines: list[str], itself: str) -> list[str]:
    text = "\n".join(lines)
    if text.lstrip().startswith(">>>"):
        return [*textwrap.dedent(text).split("\n"), ""]
    if section := _SECTION.match(text):
        return [f".. rubric:: {section[1]}", ""]
    if sentence := _SENTENCE.match(lines[0]):
        return [*_paragraph([sentence[1]], itself), *_paragraph([lines[0][sentence.end() :], *lines[1:]], itself)]
    if text.startswith((" ", "\t")) or _SHAPES.match(lines[0]):
        return _literal(lines)
    if _COLUMNS.search(text):
        parts = _PARTS.split(text)
        if any(_COLUMNS.search(part) for part in parts):
            return _literal(lines)
        return [line for part in parts for line in (*prose(part, itself).split("\n"), "")]
    return [*prose(text, itself).split("\n"), ""]


def _literal(lines: list[str]) -> list[str]:
    return [".. code-block:: text", "", *(f"   {line}" for line in lines), ""]


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = restructured(lines, name.rpartition(".")[2])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
