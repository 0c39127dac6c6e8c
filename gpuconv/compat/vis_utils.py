"""Pictures side by side, as the course's notebooks show filters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def visualize_grid(Xs: np.ndarray, ubound: float = 255.0, padding: int = 1) -> np.ndarray:
    """Return one picture of all: a square grid with `padding` pixels in between, each stretched to 0 to ubound.

    Xs: (N, H, W, C)   ->   (side, side, C).  A picture of one value, which cannot be stretched, is 0.
    """
    N, H, W, C = Xs.shape
    side = int(np.ceil(np.sqrt(N)))
    grid = np.zeros((H * side + padding * (side - 1), W * side + padding * (side - 1), C))
    for n, picture in enumerate(Xs):
        top, left = n // side * (H + padding), n % side * (W + padding)
        grid[top : top + H, left : left + W] = ubound * _stretched(picture)
    return grid


def vis_grid(Xs: np.ndarray) -> np.ndarray:
    """Return one picture of all, stretched together to 0 to 1.   Xs: (N, H, W, C)."""
    side = int(np.ceil(np.sqrt(Xs.shape[0])))
    rows = [list(Xs[start : start + side]) for start in range(0, Xs.shape[0], side)]
    return _stretched(_tiled(rows, side, side, float(np.min(Xs))))


def vis_nn(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Return rows of pictures (H, W, C) as one, stretched together to 0 to 1."""
    return _stretched(_tiled(rows, len(rows), len(rows[0]), 1.0))


def _tiled(rows: Sequence[Sequence[np.ndarray]], down: int, across: int, empty: float) -> np.ndarray:
    H, W, C = rows[0][0].shape
    tiled = np.full((down * (H + 1), across * (W + 1), C), empty)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            tiled[i * (H + 1) : i * (H + 1) + H, j * (W + 1) : j * (W + 1) + W] = picture
    return tiled


def _stretched(picture: np.ndarray) -> np.ndarray:
    """Return a picture moved and scaled to 0 to 1."""
    low, high = np.min(picture), np.max(picture)
    return (picture - low) / (high - low if high > low else 1.0)
