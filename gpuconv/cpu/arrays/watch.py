"""Waiting for another thread without loops: nobody looks out, all sleep at once."""

from __future__ import annotations

import numpy as np

LOOKS = 0


def changes(word: np.ndarray, seen: int, looks: int) -> bool:
    return False


def report(ended: np.ndarray, call: np.ndarray, counters: np.ndarray, seen: int, looks: int) -> None:
    """Nobody looks at the word."""
