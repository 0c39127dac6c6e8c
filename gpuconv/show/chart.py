"""Line charts as inline SVG, drawn without a library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from .curves import Line

_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 38


@dataclass(frozen=True, slots=True)
class Frame:
    """What a chart shows: its edges, and the values that have a label at the left."""

    left: float
    right: float
    low: float
    high: float
    rows: list[float]


def frame_of(lines: Sequence[Line], *, zero: bool = False) -> Frame | None:
    """Return the frame of lines; None if they have no points.   zero: it begins at 0."""
    every = [point for line in lines for point in line.points]
    if not every:
        return None
    right = max(point[0] for point in every)
    left = min(0.0, *(point[0] for point in every))
    right = right if right > left else left + 1
    low = 0.0 if zero else min(point[1] for point in every)
    high = max(_upper(line) for line in lines if line.points)
    rows = [row for row in ticks(low, high) if row >= 0 or low < 0]  # no accuracy below 0
    return Frame(left, right, min(low, rows[0]), max(high, rows[-1]), rows)


def chart(title: str, lines: Sequence[Line], *, x: str, y: Callable[[float], str], zero: bool = False) -> str:
    """Return an SVG chart; its colours come from the page's CSS, so that they follow a dark page.

    y: how to write a value of the axis.   zero: the axis begins at 0.
    """
    lines = [line for line in lines if line.points]
    frame = frame_of(lines, zero=zero)
    if frame is None:
        return ""
    left, right, low, high, rows = frame.left, frame.right, frame.low, frame.high, frame.rows

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = _LEFT + (point[0] - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        down = _TOP + (high - point[1]) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return across, down

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]
    for row in rows:
        down = place((left, row))[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{escape(y(row))}</text>')
    for column in ticks(left, right, whole=True):
        if left <= column <= right:
            across = place((column, low))[0]
            parts.append(f'<text x="{across:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{column:g}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x)}</text>')
    # An SVG in the SVG cuts off what runs out of the frame, and lets a dot at its edge be whole.
    inside = (_LEFT - 4, _TOP - 4, _WIDTH - _LEFT - _RIGHT + 8, _HEIGHT - _TOP - _BOTTOM + 8)
    parts.append('<svg x="{0}" y="{1}" width="{2}" height="{3}" viewBox="{0} {1} {2} {3}">'.format(*inside))
    for line in lines:
        places = [place(point) for point in line.points]
        path = "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in places)
        parts.append(f'<path class="line {line.style}" d="{path}"/>')
        if line.style != "faint" and len(places) <= 40:
            for (across, down), point in zip(places, line.points, strict=True):
                words = f"{line.name}, {x} {point[0]:g}: {y(point[1])}"
                parts.append(
                    f'<circle class="dot {line.style}" cx="{across:.1f}" cy="{down:.1f}" r="3">'
                    f"<title>{escape(words)}</title></circle>"
                )
    return "".join([*parts, "</svg></svg>"])


def _upper(line: Line) -> float:
    """Return up to where a line must be seen: of a faint one a tenth may run out of the picture, as first steps do."""
    values = sorted(value for _, value in line.points)
    return values[int(0.9 * (len(values) - 1))] if line.style == "faint" else values[-1]


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return four to eight round numbers that span low to high, outermost ones beyond them; whole: no fractions."""
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
