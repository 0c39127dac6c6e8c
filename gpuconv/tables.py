"""Rows of cells as aligned text and, for notebooks, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def columns(rows: Sequence[Sequence[str]], *, numbers: int) -> list[str]:
    """Return rows as lines of aligned columns, the last `numbers` of them to the right; empty columns are left out."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first = len(widths) - numbers
    return [
        "  ".join(
            cell.ljust(width) if place < first else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            if width
        ).rstrip()
        for row in rows
    ]


def html(name: str, state: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table below a line that says what it is of."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f"<div><b>{escape(name)}</b>: {escape(state)}"
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
