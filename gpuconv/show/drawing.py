"""How our notebooks draw, by matplotlib: one style, colours that stay apart for every eye, and grids of numbers."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

# Okabe and Ito's colours, which the common kinds of colour blindness do not confuse.
BLACK, GREY = "#000000", "#767676"
ORANGE, SKY, GREEN, BLUE, RED, PINK = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
CYCLE = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK)

SIGNED = "RdBu_r"  # blue below 0, white, red above: gradients and weights
AMOUNT = "Blues"  # white to blue: counts and shares


def style() -> None:
    """Set fonts, colours and sizes for every figure of a notebook."""
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.labelsize": 10,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=CYCLE),
            "grid.color": "#DDDDDD",
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "image.interpolation": "nearest",
        }
    )


def bare(ax: Any, title: str = "") -> None:
    """Take ticks, grid and frame away: for pictures and grids, whose title says what they are."""
    ax.set_title(title)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)


def numbers(ax: Any, values: Any, title: str = "", *, limit: float | None = None, cmap: str = SIGNED) -> None:
    """Draw a matrix as a grid of coloured cells with the numbers in them.

    values: (H, W), NaN for an empty white cell   limit: the magnitude of the strongest colour (None: the largest here)
    """
    values = np.asarray(values, dtype=float)
    limit = float(np.nanmax(np.abs(values)) if limit is None else limit) or 1.0
    # Half the range of a colour map is enough to see, and leaves black digits readable.
    low = -2 * limit if cmap == SIGNED else 0.0
    colours = plt.get_cmap(cmap).with_extremes(bad="white")
    ax.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=low, vmax=2 * limit)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = GREY if value == 0 else BLACK
            ax.text(column, row, f"{value:g}", ha="center", va="center", color=color, fontsize=9)
    height, width = values.shape
    for row in range(height + 1):
        ax.plot([-0.5, width - 0.5], [row - 0.5] * 2, color="#BBBBBB", linewidth=0.7)
    for column in range(width + 1):
        ax.plot([column - 0.5] * 2, [-0.5, height - 0.5], color="#BBBBBB", linewidth=0.7)
    ax.set(xlim=(-0.6, width - 0.4), ylim=(height - 0.4, -0.6))
    bare(ax, title)


def outline(ax: Any, row: float, column: float, height: int = 1, width: int = 1, color: str = BLACK) -> None:
    """Draw a frame around cells of a grid, from the cell at (row, column)."""
    ax.add_patch(
        Rectangle((column - 0.5, row - 0.5), width, height, fill=False, edgecolor=color, linewidth=2.5, zorder=3)
    )
