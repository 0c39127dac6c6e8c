"""Line charts as inline SVG, pictures as PNG data URIs, curves as text: what the reports draw without a library."""

from __future__ import annotations

import base64
import itertools
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 38


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; style is a CSS class: "a", "b", or "faint" for what lies behind them."""

    name: str
    points: Points
    style: str = "a"


def chart(title: str, lines: Sequence[Line], *, x: str, y: Callable[[float], str], zero: bool = False) -> str:
    """Return an SVG chart; its colours come from the page's CSS, so that they follow a dark page.

    y: how to write a value of the axis.   zero: the axis begins at 0.
    """
    lines = [line for line in lines if line.points]
    every = [point for line in lines for point in line.points]
    if not every:
        return ""
    right = max(point[0] for point in every)
    left = min(0.0, *(point[0] for point in every))
    right = right if right > left else left + 1
    low = 0.0 if zero else min(point[1] for point in every)
    high = max(_upper(line) for line in lines)
    rows = [row for row in ticks(low, high) if row >= 0 or low < 0]  # no accuracy below 0
    low, high = min(low, rows[0]), max(high, rows[-1])

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
                says = f"{line.name}, {x} {point[0]:g}: {y(point[1])}"
                parts.append(
                    f'<circle class="dot {line.style}" cx="{across:.1f}" cy="{down:.1f}" r="3">'
                    f"<title>{escape(says)}</title></circle>"
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


def png(picture: np.ndarray) -> bytes:
    """Return a picture as a PNG file.   picture: (H, W) grey or (H, W, 3) RGB, uint8.

    Source: W3C, Portable Network Graphics Specification (Second Edition), sections 5, 9 and 11.
    """
    height, width = picture.shape[:2]
    kind = 2 if picture.ndim == 3 else 0
    rows = np.zeros((height, 1 + picture[0].size), np.uint8)  # each row starts with the number of its filter: none
    rows[:, 1:] = picture.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def data_uri(picture: np.ndarray) -> str:
    """Return a picture as the address of an <img>."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")


def image(pixels: np.ndarray) -> np.ndarray:
    """Return a stored picture as one to draw.   pixels: (C, H, W) uint8; C other than 3: the first channel in grey."""
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)) if len(pixels) == 3 else np.ascontiguousarray(pixels[0])


def text_curve(
    points: Points, *, width: int = 60, height: int = 10, write: Callable[[float], str] = "{:.3g}".format
) -> str:
    """Return a curve as lines of text, its highest and lowest value at the left; points are evenly spaced."""
    values = [value for _, value in points]
    if not values:
        return ""
    columns = min(width, max(len(values), 1))
    edges = np.linspace(0, len(values), columns + 1).round().astype(int)
    means = [float(np.mean(values[start:stop])) for start, stop in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    rows = [round((value - low) / span * (height - 1)) if high > low else height // 2 for value in means]
    stretch = max(1, width // columns)
    labels = {height - 1: write(high), 0: write(low)} if high > low else {height // 2: write(low)}
    margin = max(map(len, labels.values()))
    lines = []
    for level in range(height - 1, -1, -1):
        marks = "".join(("*" if row == level else " ") + " " * (stretch - 1) for row in rows)
        lines.append(f"{labels.get(level, ''):>{margin}} |{marks}".rstrip())
    return "\n".join(lines)
