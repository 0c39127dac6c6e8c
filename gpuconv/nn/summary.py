"""The table that a net or container prints: its layers, what comes out of each, how many parameters it has."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import prod
from typing import TYPE_CHECKING

from .. import tables

if TYPE_CHECKING:
    from .layer import Layer

Shape = tuple[int, ...]


def summary(layer: Layer, input_shape: Shape | None = None) -> str:
    """Return the table, one line per innermost layer; without an input shape it has no column of output shapes."""
    rows = _rows(layer, input_shape)
    if input_shape is None:
        rows = [(name, text, "", count) for name, text, _, count in rows]
    return "\n".join(tables.columns(rows, numbers=1))


def summary_html(layer: Layer, input_shape: Shape | None, title: str) -> str:
    """Return the table as HTML, for notebooks."""
    head, *body = _rows(layer, input_shape)
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body]
    return f"<div>{escape(title)}<table><thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody></table></div>"


def _rows(layer: Layer, input_shape: Shape | None) -> list[tuple[str, str, str, str]]:
    """Return the cells of the table: heading, layers, total."""
    rows = [("layer", "", "output", "parameters")]
    total = 0
    for name, leaf, shape in _walk(layer, "", input_shape):
        count = sum(prod(array.shape) for array in leaf.declared.values())
        total += count
        text = repr(leaf) if not leaf.children() else type(leaf).__name__
        rows.append((name, text, "" if shape is None else " x ".join(map(str, shape)), f"{count:,}" if count else ""))
    return [*rows, ("total", "", "", f"{total:,}")]


def _walk(layer: Layer, name: str, shape: Shape | None) -> Iterator[tuple[str, Layer, Shape | None]]:
    """Yield (name, layer, output shape) of the innermost layers and, after its branches, of each sum of branches."""
    after = None if shape is None else layer.output_shape(shape)
    children = layer.children()
    inside = shape
    for child_name, child in children.items():
        yield from _walk(child, f"{name}.{child_name}" if name else child_name, inside)
        if layer.chained and inside is not None:
            inside = child.output_shape(inside)
    if not layer.chained:
        yield name or layer.kind, layer, after
