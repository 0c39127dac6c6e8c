"""Pictures with what a net takes them for, as one picture, by matplotlib (extra `plots`)."""

from __future__ import annotations

import warnings
from pathlib import Path

from .. import tables
from ..png import image
from ..runs.prediction import Pictures, Predictions
from . import plots

MOST = 100  # pictures in a grid

_COLUMNS = 6
_SIDE, _GAP, _LINE = 1.6, 0.2, 0.15  # inches: of a picture, around it, of a line of text
_CLASSES = 3
_LETTERS = 24  # columns of text that fit below a picture


def save(pictures: Pictures, predictions: Predictions, path: Path) -> None:
    """Write the first MOST pictures as the net sees them, each with its name and its most probable classes.

    path: .png, .svg or .pdf, as `plots.check` allows.
    """
    from matplotlib.figure import Figure

    shown = list(zip(pictures.images, predictions, strict=True))[:MOST]
    across = min(len(shown), _COLUMNS)
    down = -(-len(shown) // _COLUMNS)
    _, height, width = pictures.images.shape[1:]
    high = _SIDE * height / width
    below = (1 + min(_CLASSES, len(predictions[0].classes))) * _LINE
    cell = _SIDE + _GAP, high + below + _GAP
    size = across * cell[0] + _GAP, down * cell[1] + _GAP
    figure = Figure(figsize=size)
    for number, (pixels, prediction) in enumerate(shown):
        row, column = divmod(number, _COLUMNS)
        left, top = _GAP + column * cell[0], size[1] - _GAP - row * cell[1]
        axes = figure.add_axes((left / size[0], (top - high) / size[1], _SIDE / size[0], high / size[1]))
        axes.set_axis_off()
        axes.imshow(image(pixels), cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
        lines = [tables.shortened(tables.printable(prediction.name), _LETTERS, end=False)]
        for name, share in zip(prediction.classes[:_CLASSES], prediction.probabilities, strict=False):
            lines.append(f"{tables.shortened(name, _LETTERS - 7)} {share:.1%}")
        for place, text in enumerate(lines):
            figure.text(
                (left + _SIDE / 2) / size[0],
                (top - high - place * _LINE - 0.03) / size[1],
                text,
                ha="center",
                va="top",
                fontsize=8 if place == 1 else 7,
                fontweight="bold" if place == 1 else "normal",
                color="black" if place == 1 else "dimgray",
                parse_math=False,
            )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # shown as boxes; no reason to fail
        plots.save(figure, path)
