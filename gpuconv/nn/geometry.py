"""What layers of images do with sizes: ask what a call would have, and write pairs as a user would."""

from __future__ import annotations

import numpy as np


def stand_in(*shape: int) -> np.ndarray:
    """Return an array of a shape, with room for one number: enough to ask what sizes a call would have."""
    return np.broadcast_to(np.float32(0), shape)


def plain(vertical: int, horizontal: int) -> int | list[int]:
    """Return a pair as the user would write it."""
    return vertical if vertical == horizontal else [vertical, horizontal]
