"""The windows of a convolution: where they lie, how their work is cut into blocks, and those of a strided gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from ..shapes import ConvSizes
from .parallel import ranges
from .taps import Index

# A matrix product of fewer rows than this runs well below the speed of BLAS.
_LEAST_PIXELS = 192
# Partial sums of a weight gradient.
_PARTIAL_SUMS = 16
_PARTIAL_BYTES = 32 * 1024 * 1024
_ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Windows:
    """Where windows lie: tap (r, s) of window (p, q) reads pixel (top + p sh + r dh, left + q sw + s dw)."""

    R: int
    S: int
    top: int
    left: int
    stride: tuple[int, int]
    dilation: tuple[int, int]

    def span(self, p: int, q: int) -> tuple[int, int]:
        """Return the height and width of the pixels under p rows and q columns of windows."""
        return (
            (p - 1) * self.stride[0] + (self.R - 1) * self.dilation[0] + 1,
            (q - 1) * self.stride[1] + (self.S - 1) * self.dilation[1] + 1,
        )

    def one_pixel(self) -> bool:
        """True for 1x1 windows that touch each other: unfolding changes nothing."""
        return self.R == self.S == 1 and self.stride == (1, 1)


@dataclass(frozen=True, slots=True)
class Block:
    """Images n0 to n1, rows p0 to p1 of the output."""

    n0: int
    n1: int
    p0: int
    p1: int


@dataclass(frozen=True, slots=True)
class Phase:
    """Pixels of x a stride apart: their gradient is the correlation of dy with some taps of w, if any ever reads them."""

    pixels: Index
    taps: Index | None  # backwards
    windows: Windows | None  # over dy


def forward_windows(z: ConvSizes) -> Windows:
    """Return the windows over x."""
    return Windows(z.R, z.S, -z.pad[0], -z.pad[1], z.stride, z.dilation)


def phases(z: ConvSizes) -> Iterator[Phase]:
    """Yield the phases of the gradient of the input: one for each pixel of a stride."""
    sh, sw = z.stride
    for i in range(min(sh, z.H)):
        rows = _axis_phase(i, z.R, sh, z.pad[0], z.dilation[0])
        for j in range(min(sw, z.W)):
            columns = _axis_phase(j, z.S, sw, z.pad[1], z.dilation[1])
            pixels = (_ALL, _ALL, slice(i, None, sh), slice(j, None, sw))
            if rows is None or columns is None:
                yield Phase(pixels, None, None)
                continue
            (r, top, down), (s, left, across) = rows, columns
            R, S = len(range(z.R)[r]), len(range(z.S)[s])
            yield Phase(pixels, (_ALL, _ALL, r, s), Windows(R, S, top, left, (1, 1), (down, across)))


def _axis_phase(i: int, taps: int, stride: int, pad: int, dilation: int) -> tuple[slice, int, int] | None:
    """Return the taps that read pixels i, i + stride, ... of one axis, the first place in dy, and the step there.

    Tap r of output p reads pixel p stride - pad + r dilation.  For pixel h that is p = (h + pad - r dilation) / stride,
    where it is whole: for every `step`-th tap.  Taken backwards, those taps correlate dy with a dilation of its own.
    """
    step = stride // gcd(stride, dilation)
    first = next((r for r in range(min(step, taps)) if (i + pad - r * dilation) % stride == 0), None)
    if first is None:
        return None
    last = first + (taps - 1 - first) // step * step
    backwards = slice(last, first - 1 if first else None, -step)
    return backwards, (i + pad - last * dilation) // stride, step * dilation // stride


def blocks(N: int, P: int, Q: int, pixel_bytes: int, budget: int, most_rows: int | None = None) -> list[Block]:
    """Cut N images of P x Q windows into blocks of about equal work: whole images, or rows of one.

    most_rows: that a block has, of all its images together.
    """
    rows = max(1, max(_LEAST_PIXELS, budget // pixel_bytes) // Q)
    if most_rows is not None:
        rows = min(rows, most_rows)
    if rows < P:
        return [Block(n, n + 1, p0, p1) for n in range(N) for p0, p1 in ranges(P, rows)]
    return [Block(n0, n1, 0, P) for n0, n1 in ranges(N, max(1, rows // P))]


def shares(pieces: list[Block], sum_bytes: int) -> list[list[Block]]:
    """Deal blocks out to partial sums of so many bytes each.

    Their number depends on sizes alone, so the order of adding never changes.
    """
    parts = min(_PARTIAL_SUMS, max(1, _PARTIAL_BYTES // sum_bytes))
    return [pieces[first:last] for first, last in ranges(len(pieces), -(-max(1, len(pieces)) // parts))]
