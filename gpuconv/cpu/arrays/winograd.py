"""Winograd's minimal filtering F(2x2, 3x3): 16 products where a 3x3 filter needs 36 for each 2x2 outputs.

    y = A' [ (G w G') * (B' x B) ] A        for each tile of 2x2 outputs, which reads 4x4 pixels; ' is the transpose
    dw = G' [ sum over tiles of (A dy A') * (B' x B) ] G

Summed over channels (or tiles), the product in brackets is 16 matrix products, one for each place of a 4x4 tile.

Why 2x2 and not larger: its transforms only add, subtract and halve.  Whole numbers stay exact, and rounding errors of
zero-mean data are about those of a plain sum.  Each output is made of the pixels of its own window alone, so a large
pixel spoils no neighbour.  But inside a window taps are mixed: a pixel's rounding counts with all taps of a filter,
also those that do not meet it, and infinities of both signs may become NaN.  So windows and filters in which a few
numbers are far larger than all others are left to the caller, who computes them tap by tap: see ../evenness.py.

Source: Lavin, Gray, Fast algorithms for convolutional neural networks (arXiv 1509.09308), section 4.1.
"""

from __future__ import annotations

import numpy as np

from ..evenness import least_of_windows, uneven_gradients, uneven_rows, windows_are_even
from ..memory import zero_array
from ..parallel import for_each, ranges, scratch
from ..product import product
from ..windows import Block, Windows, shares
from .unfold import strip

_TILE = 2  # outputs along each axis
# Bytes of one block's transformed pixels and products.
_BLOCK_BYTES = 4 * 1024 * 1024
_LEAST_TILES = 64
_SIZES_ELEMENTS = 64 * 1024


def correlate(
    x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, y: np.ndarray, windows: Windows
) -> list[Block] | None:
    """Fill y (N, K, P, Q) as conv.correlate does; return the blocks of it that are left to do, None for all."""
    kind = np.dtype(np.float32)
    N, K, P, Q = y.shape
    C = x.shape[1]
    filters, totals, squares = _transformed_filters(w)
    least = least_of_windows(totals, squares, C)
    if least is None:
        return None
    pieces = _blocks(N, P, Q, C, K)
    largest = max(pieces, key=lambda block: (block.n1 - block.n0) * (block.p1 - block.p0), default=Block(0, 0, 0, 0))
    even = np.ones((len(pieces), largest.n1 - largest.n0, -(-(largest.p1 - largest.p0) // _TILE)), bool)

    def work(number: int) -> None:
        block = pieces[number]
        strip = _strip(x, block, windows, Q)
        if 2 * _mark_uneven(strip, block, Q, least, even[number]) > even[number].size:
            even[number] = False
            return
        pixels = _transformed_pixels(strip)  # (4, 4, n, down, across, C)
        n, down, across = pixels.shape[2:5]
        products = scratch("products", (4, 4, n, down, across, K), kind)
        product(pixels.reshape(16, -1, C), filters, products.reshape(16, -1, K))
        if bias is not None:
            products[1, 1] += bias  # A' puts this place into all four outputs, with a plus
        target = y[block.n0 : block.n1, :, block.p0 : block.p1].transpose(0, 2, 3, 1)  # (n, p, Q, K)
        whole = target.shape[1:3] == (down * _TILE, across * _TILE)
        direct = whole and y.dtype == kind and target.flags.c_contiguous
        out = target if direct else scratch("out", (n, down * _TILE, across * _TILE, K), kind)
        _gather(products, out.reshape(n, down, _TILE, across, _TILE, K).transpose(2, 4, 0, 1, 3, 5))
        kept = out[:, : target.shape[1], : target.shape[2]]
        if not direct:
            np.copyto(target, kept, casting="same_kind")

    for_each(work, range(len(pieces)))
    return uneven_rows(pieces, even)


def weight_gradient(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dw (K, C, 3, 3) of filters w, float32, and which filters and channels of it are left to do."""
    kind = np.dtype(np.float32)
    N, _, P, Q = dy.shape
    K, C = w.shape[:2]
    parts = shares(_blocks(N, P, Q, C, K), 16 * C * K * kind.itemsize)
    sums = zero_array((len(parts), 16, C, K), kind)
    x_sizes, dy_sizes = np.zeros((len(parts), 2, C)), np.zeros((len(parts), 2, K))
    counts = np.zeros(len(parts), np.int64)

    def share(index: int) -> None:
        block_sums = scratch("product", (C, K), kind)
        for block in parts[index]:
            strip = _strip(x, block, windows, Q)
            counts[index] += strip[..., 0].size
            x_sizes[index] += _sizes(strip, of_pixels=False)
            pixels = _transformed_pixels(strip).reshape(16, -1, C)
            tiles = _gradient_tiles(dy, block)
            dy_sizes[index] += _sizes(tiles.reshape(-1, *tiles.shape[3:]), of_pixels=False)
            for place, gradient in enumerate(_spread_gradients(tiles)):
                product(pixels[place].T, gradient.reshape(-1, K), block_sums)
                sums[index, place] += block_sums

    for_each(share, range(len(parts)))
    # G' . G, where places 3 of _spread_gradients lack their minus.
    v = sums.sum(axis=0).reshape(4, 4, C, K)
    for axis in (0, 1):
        v0, v1, v2, v3 = np.moveaxis(v, axis, 0)
        half = (v1 + v2) * np.float32(0.5)
        v = np.stack([v0 + half, (v1 - v2) * np.float32(0.5), half - v3], axis)
    left = uneven_gradients(x_sizes.sum(axis=0), dy_sizes.sum(axis=0), int(counts.sum()), N * P * Q)
    return v.transpose(3, 2, 0, 1), *left


def _blocks(N: int, P: int, Q: int, C: int, K: int) -> list[Block]:
    """Cut N images of P x Q outputs into blocks of whole tiles."""
    down, across = -(-P // _TILE), -(-Q // _TILE)
    tiles = max(_LEAST_TILES, _BLOCK_BYTES // (16 * 4 * (C + K)))
    rows = max(1, tiles // across)
    if rows < down:
        step = -(-down // -(-down // rows)) * _TILE  # blocks of about equal height
        return [Block(n, n + 1, p0, p1) for n in range(N) for p0, p1 in ranges(P, step)]
    return [Block(n0, n1, 0, P) for n0, n1 in ranges(N, max(1, tiles // (down * across)))]


def _transformed_filters(w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return G w G' as (16, C, K), the sizes of taps (9, K) and their squares (K,)."""
    K, C = w.shape[:2]
    out = np.empty((4, 4, C, K), np.float32)
    parts = ranges(C, max(1, 64 * 1024 // K))
    totals, squares = np.empty((len(parts), 3, 3, K)), np.empty((len(parts), K))

    def work(number: int) -> None:
        part = slice(*parts[number])
        taps = np.ascontiguousarray(w[:, part].transpose(2, 3, 1, 0), np.float32)  # (3, 3, c, K)
        np.abs(taps).sum(axis=2, out=totals[number])
        np.einsum("rsck,rsck->k", taps, taps, out=squares[number])
        half = np.float32(0.5)

        def transform(taps: np.ndarray, to: np.ndarray) -> None:
            """Apply G to the first axis."""
            to[0], to[3] = taps[0], taps[2]
            sides = (taps[0] + taps[2]) * half
            middle = taps[1] * half
            np.add(sides, middle, out=to[1])
            np.subtract(sides, middle, out=to[2])

        rows = np.empty((4, *taps.shape[1:]), np.float32)
        transform(taps, rows)
        transform(rows.swapaxes(0, 1), out[:, :, part].swapaxes(0, 1))

    for_each(work, range(len(parts)))
    return out.reshape(16, C, K), totals.sum(axis=0).reshape(9, K), squares.sum(axis=0)


def _strip(x: np.ndarray, block: Block, windows: Windows, Q: int) -> np.ndarray:
    """Return the pixels under a block's tiles: (n, 2 down + 2, 2 across + 2, C)."""
    down, across = -(-(block.p1 - block.p0) // _TILE), -(-Q // _TILE)
    whole = Block(block.n0, block.n1, block.p0, block.p0 + down * _TILE)
    return strip(x, whole, windows, across * _TILE)


def _mark_uneven(pixels: np.ndarray, block: Block, Q: int, least: float, even: np.ndarray) -> int:
    """Mark the rows of tiles in a strip with windows that are not even; return how many those are."""
    totals, squares = _sizes(pixels, of_pixels=True).reshape(2, *pixels.shape[:3])
    windows = np.all(windows_are_even(totals, squares, least)[:, : block.p1 - block.p0, :Q], axis=2)
    for row in range(_TILE):
        rows = windows[:, row::_TILE]
        even[: len(rows), : rows.shape[1]] &= rows
    return even.size - int(np.count_nonzero(even))


def _sizes(images: np.ndarray, *, of_pixels: bool) -> np.ndarray:
    """Return the sums of absolute values and of squares of each channel of (n, height, width, channels), or of each pixel.

    A few images at a time, which stay in the L2 cache, and as products with ones: NumPy adds short rows slowly.
    """
    n, height, width, channels = images.shape
    sums = np.zeros((2, n * height * width) if of_pixels else (2, channels), np.float32)
    for first, last in ranges(n, max(1, _SIZES_ELEMENTS // (height * width * channels))):
        part = images[first:last]
        sizes = np.abs(part, out=scratch("sizes", part.shape, np.dtype(np.float32))).reshape(-1, channels)
        here = slice(first * height * width, last * height * width) if of_pixels else slice(None)
        matrix = sizes if of_pixels else sizes.T
        ones = np.ones(matrix.shape[1], np.float32)
        sums[0, here] += matrix @ ones
        np.multiply(sizes, sizes, out=sizes)
        sums[1, here] += matrix @ ones
    return sums


def _transformed_pixels(pixels: np.ndarray) -> np.ndarray:
    """Return B' x B of a strip's tiles: (4, 4, n, tiles down, tiles across, C).

    Even and odd columns are parted first, so that the transform along a row works on runs of many pixels.
    """
    kind = np.dtype(np.float32)
    n, height, width, C = pixels.shape
    down, across = height // _TILE - 1, width // _TILE - 1
    parted = scratch("parted", (n, height, 2, across + 1, C), kind)
    np.copyto(parted[:, :, 0], pixels[:, :, 0::2])
    np.copyto(parted[:, :, 1], pixels[:, :, 1::2])

    rows = scratch("rows", (4, n, down, 2, across + 1, C), kind)
    _apply_input_transform([parted[:, i : i + 2 * down : 2] for i in range(4)], rows)
    out = scratch("pixels", (4, 4, n, down, across, C), kind)
    even, odd = rows[:, :, :, 0], rows[:, :, :, 1]
    _apply_input_transform([even[..., :-1, :], odd[..., :-1, :], even[..., 1:, :], odd[..., 1:, :]], out.swapaxes(0, 1))
    return out


def _apply_input_transform(d: list[np.ndarray], out: np.ndarray) -> None:
    """Write B' d: d0 - d2, d1 + d2, d2 - d1, d1 - d3."""
    np.subtract(d[0], d[2], out=out[0])
    np.add(d[1], d[2], out=out[1])
    np.subtract(d[2], d[1], out=out[2])
    np.subtract(d[1], d[3], out=out[3])


def _gather(m: np.ndarray, out: np.ndarray) -> None:
    """Write A' m A: m (4, 4, tiles..., K) to out (2, 2, tiles..., K)."""
    rows = scratch("gathered", (2, *m.shape[1:]), m.dtype)
    _apply_output_transform(m, rows, scratch("terms", m.shape[1:], m.dtype))
    rows = rows.swapaxes(0, 1)
    _apply_output_transform(rows, out.swapaxes(0, 1), scratch("terms", rows.shape[1:], m.dtype))


def _apply_output_transform(m: np.ndarray, out: np.ndarray, terms: np.ndarray) -> None:
    """Write A' m: m0 + m1 + m2, m1 - m2 - m3."""
    np.add(m[1], m[2], out=terms)
    np.add(m[0], terms, out=out[0])
    np.subtract(m[1], m[2], out=terms)
    np.subtract(terms, m[3], out=out[1])


def _gradient_tiles(dy: np.ndarray, block: Block) -> np.ndarray:
    """Return a block of dy as tiles: (2, 2, n, down, across, K)."""
    kind = np.dtype(np.float32)
    part = dy[block.n0 : block.n1, :, block.p0 : block.p1].transpose(0, 2, 3, 1)  # (n, p, Q, K)
    n, height, width, K = part.shape
    down, across = -(-height // _TILE), -(-width // _TILE)
    tiles = scratch("gradient", (2, 2, n, down, across, K), kind)
    for i in range(2):
        for j in range(2):
            here = part[:, i::2, j::2]
            if here.shape[1:3] != (down, across):  # the last tiles stick out
                tiles[i, j] = 0
            np.copyto(tiles[i, j, :, : here.shape[1], : here.shape[2]], here)
    return tiles


def _spread_gradients(tiles: np.ndarray) -> list[np.ndarray]:
    """Return A dy A' of tiles but for the minus of row 3 and of column 3: 16 arrays (n, down, across, K)."""
    kind = np.dtype(np.float32)
    n, down, across, K = tiles.shape[2:]
    rows = scratch("gradient rows", (2, 2, n, down, across, K), kind)  # of A: y0, y0 + y1, y0 - y1, y1
    np.add(tiles[0], tiles[1], out=rows[0])
    np.subtract(tiles[0], tiles[1], out=rows[1])
    sums = scratch("gradient sums", (4, 2, n, down, across, K), kind)
    spread = []
    for i, (left, right) in enumerate((tiles[0], rows[0], rows[1], tiles[1])):
        np.add(left, right, out=sums[i, 0])
        np.subtract(left, right, out=sums[i, 1])
        spread += [left, sums[i, 0], sums[i, 1], right]
    return spread
