"""Counts in words."""

from __future__ import annotations


def counted(count: int, one: str, more: str = "") -> str:
    """Return a count with its noun: "1 epoch", "5,000 images", "2 classes" where more is "classes"."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"
