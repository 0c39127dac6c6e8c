"""Rows of cells as aligned text and, for notebooks, as HTML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from html import escape

_DOTS = "..."


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes: wide letters two each, marks upon other letters none."""
    return sum(_letter_width(letter) for letter in text)


def padded(text: str, columns: int) -> str:
    """Return a text with spaces behind it, up to so many columns."""
    return text + " " * (columns - width(text))


def wrapped(text: str, columns: int, *, indent: str = "") -> list[str]:
    """Return a text as lines of at most so many columns, broken at spaces, those after the first behind an indent."""
    text = text.rstrip()
    inner = text.lstrip()
    lines = [text[: len(text) - len(inner)]]
    for word in re.split(r"\s", inner):
        joined = f"{lines[-1]} {word}" if lines[-1].strip() else lines[-1] + word
        if width(joined) <= columns:
            lines[-1] = joined
            continue
        if lines[-1].strip():
            lines.append(indent)
        for letter in word:  # one longer than a line is cut
            if width(lines[-1] + letter) > columns:
                lines.append(indent)
            lines[-1] += letter
    return lines


def shortened(text: str, columns: int, *, end: bool = True) -> str:
    """Return a text in at most so many columns: dots stand for what is left out, at its end or at its beginning."""
    if width(text) <= columns:
        return text
    while text and width(text) > columns - len(_DOTS):
        text = text[:-1] if end else text[1:]
    return text + _DOTS if end else _DOTS + text


def printable(text: str) -> str:
    """Return a text, such as a file's name, that disturbs no terminal: a "?" for each letter that cannot be shown."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _letter_width(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def columns(rows: Sequence[Sequence[str]], *, numbers: int) -> list[str]:
    """Return rows as lines of aligned columns, the last `numbers` of them to the right; empty columns are left out."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    first = len(widths) - numbers
    return [
        "  ".join(
            padded(cell, wanted) if place < first else " " * (wanted - width(cell)) + cell
            for place, (cell, wanted) in enumerate(zip(row, widths, strict=True))
            if wanted
        ).rstrip()
        for row in rows
    ]


def ruled(rows: Sequence[Sequence[str]], columns_at_most: int | None = None) -> list[str]:
    """Return rows as lines of aligned columns, all but the first to the right, with a rule below the head.

    columns_at_most: how wide lines may be: columns that do not fit follow in further tables below, which begin with the
    first one again.
    """
    lines: list[str] = []
    for few in _fitting(rows, columns_at_most):
        block = columns(few, numbers=len(few[0]) - 1)
        block.insert(1, "-" * max(map(width, block)))
        lines += ["", *block] if lines else block
    return lines


def _fitting(rows: Sequence[Sequence[str]], most: int | None) -> list[list[list[str]]]:
    """Return rows cut into tables that are as wide as may be; each has at least one column beside the first."""
    first, *others = [list(column) for column in zip(*rows, strict=True)]
    blocks, room = [[first]], 0
    for column in others:
        wanted = max(map(width, column))
        wanted += 2 if wanted else 0
        if most is not None and wanted > room and len(blocks[-1]) > 1:
            blocks.append([first])
        if len(blocks[-1]) == 1:
            room = (most or 0) - max(map(width, first))
        blocks[-1].append(column)
        room -= wanted
    return [[list(row) for row in zip(*block, strict=True)] for block in blocks]


def shown(value: object) -> str:
    """Return the value of a setting or a fact as a cell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value) or "-"


def html(name: str, state: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, folded: str = "") -> str:
    """Return an HTML table below a line that says what it is of; of no rows the line alone.

    folded: what to click at to see the table.
    """
    table = html_table(head, rows) if rows else ""
    if table and folded:
        table = f"<details><summary>{escape(folded)}</summary>{table}</details>"
    return f"<div><b>{escape(name)}</b>: {escape(state)}{table}</div>"


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
