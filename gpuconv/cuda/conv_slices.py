"""How many slices the sums of a gradient are cut into: by sizes alone, so that the order of adding never changes."""

from __future__ import annotations

from math import isqrt

# Slices of the pixels, each summed by itself: enough threads to fill any GPU, a number that depends on sizes alone, so
# that the order of adding never changes.
_LEAST_PIXELS = 64  # of a slice
_PARTIAL_SUMS = 2**18  # of all slices together, unless dw itself has more elements
_ENOUGH_BLOCKS = 512  # of conv_backward_weight_tiled
# The longest run, in square roots of the number of terms, within a slice and over the slices: a run of n equal terms is
# off by up to n / 4 units, and the tolerance rule allows 2 sqrt(n).
_LONGEST_RUN = 6


def slices_of(pixels: int, sums: int, threads: int = 1) -> tuple[int, int]:
    """Return (number of slices, pixels in each) for `pixels` terms of each of `sums` sums, `threads` to a slice."""
    run = max(_LEAST_PIXELS, _LONGEST_RUN * isqrt(pixels))
    wanted = min(-(-pixels // _LEAST_PIXELS), _PARTIAL_SUMS // sums, run)
    wanted = max(1, wanted, -(-pixels // (run * threads)))
    length = max(1, -(-pixels // wanted))
    return max(1, -(-pixels // length)), length


def weight_slices(pixels: int, tiles: int, depth: int) -> tuple[int, int]:
    """Return (number of slices, pixels in each), whole steps of conv_backward_weight_tiled, for so many tiles of dw."""
    wanted = max(1, min(_ENOUGH_BLOCKS // tiles, -(-pixels // (4 * _LEAST_PIXELS))))
    length = max(1, -(-pixels // (wanted * depth))) * depth
    return max(1, -(-pixels // length)), length
