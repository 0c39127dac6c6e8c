"""What compiled loops of convolution are made of: the tile of products, strips, vectors and transforms, each by itself.

Callbacks are called as passes call them: by address.  What they add up to is what the operators' tests say.
"""

import ctypes

import numpy as np
import pytest
from compare import assert_close

import gpuconv
from gpuconv.cpu import compiled

if compiled._obstacle():
    pytest.skip("the extra `fast` is not installed", allow_module_level=True)

from numba import njit

from gpuconv.cpu.loops import vectors

LANES = vectors.LANES
WIDTH = 2 * LANES  # of a panel
U = 2.0**-24


@pytest.fixture(scope="module", autouse=True)
def _loops():
    """Compile what is tested when the first test runs: to collect them must take no time, in any of the processes."""
    global depthwise, strips, tile, winograd, winograd_filters  # noqa: PLW0603 - bound as by an import at the top
    from gpuconv.cpu.loops import depthwise, strips, tile, winograd, winograd_filters

    assert tile.WIDTH == WIDTH


def _call(address, *arguments):
    """Call a callback; arrays are passed by where they lie."""
    numbers = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(numbers))(address)(*numbers)


def _untouched(shape):
    return np.full(shape, np.nan, np.float32)


# The tile -----------------------------------------------------------------------------------------------------------


def _drawn(rng, shape, kind):
    return rng.integers(-3, 4, shape).astype(np.float32) if kind == "whole" else rng.standard_normal(shape, np.float32)


@pytest.mark.parametrize("kind", ["whole", "normal"])
@pytest.mark.parametrize("step", ["row", "rows", "sums"])
@pytest.mark.parametrize("n", [1, 2, 23, 24, 25, 300])
@pytest.mark.parametrize(("size", "panels"), [(1, 1), (1, 3), (2, 1), (2, 2)])
def test_products_of_any_height(size, panels, n, step, kind, rng):
    """d: one row for all, a row for each, or the sums that are there.

    In a run of r terms each product and sum is rounded once at most, and then the sums of runs are: off by at most
    gamma = k u / (1 - k u) of all absolute values, k = r + runs + 1.
    """
    width, run = size * LANES, 24
    pitch = panels * width + 5
    a, b = _drawn(rng, 2000, kind), _drawn(rng, (panels, n * (width + 3)), kind)
    terms = rng.integers(0, 900, n)
    matrix = np.lib.stride_tricks.as_strided(b, (panels, n, width), (b.strides[0], 4 * (width + 3), 4))
    k = min(run, n) + -(-n // run) + 1
    for m in range(1, 21):
        rows = rng.permutation(20)[:m] * 50
        c, initial = _untouched((m, pitch)), _drawn(rng, (1 if step == "row" else m, pitch), kind)
        if step == "sums":
            c[...] = initial
        d = c if step == "sums" else initial
        _call(
            tile.multiply, a, rows, terms, b, b.shape[1], width + 3, c, pitch, m, n, panels, size, run,
            d, 0 if step == "row" else pitch,
        )  # fmt: skip
        factors = a[rows[:, None] + terms].astype(np.float64), matrix.astype(np.float64), initial[:, : panels * width]
        expected, size_of_terms = (
            np.einsum("mi,piw->mpw", left, right).reshape(m, -1) + before
            for left, right, before in (factors, map(np.abs, factors))
        )
        bound = 0 if kind == "whole" else k * U / (1 - k * U) * size_of_terms
        assert (np.abs(c[:, : panels * width] - expected) <= bound).all(), m
        beyond = c[:, panels * width :]
        assert np.isnan(beyond).all() if step != "sums" else (beyond == initial[:, panels * width :]).all()


@pytest.mark.parametrize("size", [1, 2])
def test_a_row_has_the_same_bits_in_products_of_any_height(size, rng):
    n, run, width = 70, 32, size * LANES
    a, b, d = (rng.standard_normal(count, np.float32) for count in (20 * n, n * width, width))
    rows, terms = np.arange(20) * n, rng.permutation(n)
    results = []
    for m in range(1, 21):
        for first in {0, 20 - m}:
            c = _untouched((20, width))
            _call(tile.multiply, a, rows[first:], terms, b, 0, width, c[first:], width, m, n, 1, size, run, d, 0)
            results.append(c)
    for row in range(20):
        bits = {c[row].tobytes() for c in results if not np.isnan(c[row, 0])}
        assert len(bits) == 1, row


@pytest.mark.parametrize("m", range(1, 6))
@pytest.mark.parametrize("n", [1, 31, 32, 33, 100])
def test_products_with_scattered_vectors(m, n, rng):
    a, b = (rng.integers(-3, 4, 2000).astype(np.float32) for _ in range(2))
    rows, terms, steps = rng.integers(0, 900, m), rng.integers(0, 900, n), rng.integers(0, 1900, n)
    c = np.ones((m, 4 * LANES + 1), np.float32)
    _call(tile.multiply_scattered, a, rows, terms, b, steps, c, 4 * LANES + 1, m, n, 32)
    expected = 1 + a[rows[:, None] + terms] @ b[steps[:, None] + np.arange(4 * LANES)]
    np.testing.assert_array_equal(c[:, :-1], expected)
    assert (c[:, -1] == 1).all()


_EQUAL = [(0.1, 0.3), (1.1, 1.1), (1.3, 1.7), (1.0000001, 1.0), (1.9999999, 1.0000001), (1.414655849, 1.734483572)]


@pytest.mark.parametrize(("x", "y"), _EQUAL)
def test_a_sum_of_equal_terms_is_off_by_less_than_the_rule_allows(x, y):
    """What run_length promises."""
    a, b, zeros = np.full(1, x, np.float32), np.full(LANES, y, np.float32), np.zeros(10_000, np.int64)
    nothing, c = np.zeros(LANES, np.float32), _untouched(LANES)
    for n in [*range(1, 700), *range(700, 10_001, 101)]:
        _call(tile.multiply, a, zeros, zeros, b, 0, 0, c, 0, 1, n, 1, 1, tile.run_length(n), nothing, 0)
        exact = n * float(a[0]) * float(b[0])
        assert (np.abs(c / exact - 1) <= (4 + 2 * n**0.5) * U).all(), n


def test_runs_are_of_about_equal_length():
    for n in range(10_000):
        run = tile.run_length(n)
        assert run <= min(256, max(16, 8 * n**0.5))
        assert n == 0 or -(-n // run) * run - n < -(-n // run), n  # the last is shorter by less than the number of runs


# Strips -------------------------------------------------------------------------------------------------------------


def _last(images):
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("C", [1, 3, LANES, 2 * LANES + 1])
@pytest.mark.parametrize("beyond", [0, 5])
@pytest.mark.parametrize(
    ("top", "left", "height", "width"),
    [
        (0, 0, 5, 6), (-2, -3, 9, 12), (-2, 1, 4, 5), (1, -4, 4, 5), (2, 2, 3, 9), (-9, 0, 4, 6), (5, 0, 2, 6), (0, 6, 5, 2),
        (0, -7, 5, 7), (1, 2, 2, 3),
    ],
    ids=[
        "all", "around", "above_and_right", "left_of_it", "below_and_right", "far_above", "far_below", "far_right", "far_left",
        "inside",
    ],
)  # fmt: skip
def test_pixels_are_brought_in_with_their_padding(top, left, height, width, beyond, C, last, rng):
    x = rng.standard_normal((2, C, 5, 6), np.float32)
    out = _untouched((2, height, width, C + beyond))
    stored, turned = _last(x) if last else x, _untouched(C * 5 * 6)
    _call(strips.fill, stored, int(last), C, 5, 6, 2, out, height, width, C + beyond, top, left, turned)
    expected = np.zeros_like(out)
    wide = np.pad(_last(x), [(0, 0), (10, 10), (10, 15), (0, beyond)])
    expected[...] = wide[:, 10 + top : 10 + top + height, 10 + left : 10 + left + width]
    np.testing.assert_array_equal(out, expected)


_TARGETS = {
    "planes": lambda y: y,
    "pixels": lambda y: _last(y).transpose(0, 3, 1, 2),
    "every_second": lambda y: np.repeat(np.repeat(y, 2, 2), 2, 3)[:, :, ::2, ::2],
    "every_second_pixel": lambda y: _last(np.repeat(np.repeat(y, 2, 2), 2, 3)).transpose(0, 3, 1, 2)[:, :, ::2, ::2],
    "backwards": lambda y: y[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
}


@pytest.mark.parametrize("stored", _TARGETS.values(), ids=_TARGETS.keys())
@pytest.mark.parametrize("channels", [1, LANES, 2 * LANES + 3])
@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (3, 5), (4, 5), (3, 6)])
def test_results_are_brought_out(rows, columns, channels, stored, rng):
    out = rng.standard_normal((2, 4, 6, channels + 2), np.float32)
    y = stored(_untouched((2, channels, rows, columns)))
    _call(
        strips.empty, out, 2, channels + 2, 4, 6, channels, int(y.flags.c_contiguous), y.ctypes.data, *y.strides, rows, columns
    )  # fmt: skip
    np.testing.assert_array_equal(y, out[:, :rows, :columns, :channels].transpose(0, 3, 1, 2))


def test_what_lies_between_results_is_left_alone(rng):
    room = np.full((1, 3, 4, 6), 7, np.float32)
    out, y = rng.standard_normal((1, 2, 3, 3), np.float32), room[:, :, ::2, ::2]
    _call(strips.empty, out, 1, 3, 2, 3, 3, 0, y, *y.strides, 2, 3)
    np.testing.assert_array_equal(y, out.transpose(0, 3, 1, 2))
    assert (room[:, :, 1::2] == 7).all()
    assert (room[:, :, :, 1::2] == 7).all()


@pytest.mark.parametrize("rows", range(1, 21))
def test_transposing(rows, rng):
    for columns in range(1, 21):
        source, target = rng.standard_normal((rows, columns + 3), np.float32), _untouched((columns, rows + 2))
        _call(strips.transpose_rows, source, columns + 3, target, rows + 2, rows, columns)
        np.testing.assert_array_equal(target[:, :rows], source[:, :columns].T)
        assert np.isnan(target[:, rows:]).all()


# Vectors ------------------------------------------------------------------------------------------------------------


@njit
def _add_channels(source, count, channels, totals, squares):
    places = vectors.address_of(totals, 0), vectors.address_of(squares, 0)
    vectors.add_channels(vectors.address_of(source, 0), count, channels, *places)


@pytest.mark.parametrize("channels", [LANES, LANES + 1, 2 * LANES - 1, 2 * LANES, 3 * LANES + 5])
def test_sizes_of_pixels(channels, rng):
    most = 2 * LANES
    pixels = rng.integers(-9, 10, (most + LANES, channels)).astype(np.float32)
    for count in range(most + 1):
        totals, squares = _untouched((2, most + LANES))
        _add_channels(pixels, count, channels, totals, squares)
        np.testing.assert_array_equal(totals[:count], np.abs(pixels[:count]).sum(axis=1))
        np.testing.assert_array_equal(squares[:count], (pixels[:count] ** 2).sum(axis=1))
        assert np.isnan([totals[count + LANES // 2 :], squares[count + LANES // 2 :]]).all()


@njit
def _add_pixels(source, count, pitch, count_vectors, totals, squares):
    places = vectors.address_of(totals, 0), vectors.address_of(squares, 0)
    vectors.add_pixels(vectors.address_of(source, 0), count, pitch, count_vectors, *places)


@pytest.mark.parametrize("count", [0, 4, 12])
@pytest.mark.parametrize("channels", [LANES, 2 * LANES + 3])
def test_sizes_of_channels(channels, count, rng):
    pixels = rng.integers(-9, 10, (16, channels)).astype(np.float32)
    across = -(-channels // LANES) * LANES
    totals, squares = before = rng.integers(-9, 10, (2, across + LANES)).astype(np.float32)
    totals, squares = totals.copy(), squares.copy()
    _add_pixels(pixels, count, channels, across // LANES, totals, squares)
    expected = before[:, :channels] + [np.abs(pixels[:count]).sum(axis=0), (pixels[:count] ** 2).sum(axis=0)]
    np.testing.assert_array_equal([totals[:channels], squares[:channels]], expected)
    np.testing.assert_array_equal([totals[across:], squares[across:]], before[:, across:])


@njit
def _are_even(totals, squares, width, count, least, smallest, largest):
    places = vectors.address_of(totals, 0), vectors.address_of(squares, 0)
    return vectors.are_even(*places, width, count, least, smallest, largest)


@pytest.mark.parametrize("count", [1, LANES - 1, LANES, LANES + 1, 2 * LANES + 3])
def test_one_uneven_window_is_seen_in_any_lane(count):
    """Nine pixels of total 4 and squares 2 have 36^2 >= 72 * 18: just enough for 72."""
    width, bounds = count + 2, (np.float32(2.0**-110), np.float32(2.0**112))
    totals, squares = np.full((2, 3 * width + LANES), 4, np.float32) / np.array([[1], [2]], np.float32)
    totals[3 * width :] = np.nan
    least, more = np.float32(71.99), np.float32(72.01)
    assert _are_even(totals, squares, width, count, least, *bounds)
    assert _are_even(totals, squares, width, count, more, *bounds) == False
    zeros = np.zeros_like(totals)
    assert _are_even(zeros, zeros, width, count, more, *bounds)
    for place in range(3 * width):
        for values, value in ((totals, 3.9), (squares, 2.1), (totals, np.nan), (squares, np.nan), (squares, np.inf)):
            spoiled = values.copy()
            spoiled[place] = value
            arrays = (spoiled, squares) if values is totals else (totals, spoiled)
            assert _are_even(*arrays, width, count, least, *bounds) == False
    few = np.float32(1e-20)
    assert _are_even(totals * few, squares * few * few, width, count, least, *bounds) == False
    many = np.float32(1e18)
    assert _are_even(totals * many, squares * many * many, width, count, least, *bounds) == False


_both = vectors.along(2, 2, lambda builder, a, b: (builder.fadd(a, b), builder.fsub(a, b)))


@njit
def _sum_and_difference(a, b, c, d, count):
    addresses = (vectors.address_of(a, 0), vectors.address_of(b, 0), vectors.address_of(c, 0), vectors.address_of(d, 0))
    _both(addresses, count)


@pytest.mark.parametrize("count", range(3 * LANES + 2))
def test_rows_of_any_length(count, rng):
    a, b = rng.standard_normal((2, 4 * LANES), np.float32)
    c, d = _untouched((2, 4 * LANES))
    _sum_and_difference(a, b, c, d, count)
    np.testing.assert_array_equal(c[:count], (a + b)[:count])
    np.testing.assert_array_equal(d[:count], (a - b)[:count])
    assert np.isnan([c[count:], d[count:]]).all()


# Winograd's transforms ------------------------------------------------------------------------------------------------

_B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
_A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_ROWS = 8 * 6 * 64  # memory between the two passes of a transform


def test_the_formulas_are_of_a_convolution(rng):
    """A' (G w G' * B' x B) A has the outputs of a 3 x 3 filter over 4 x 4 pixels."""
    x, w = rng.integers(-4, 5, (4, 4)), rng.integers(-4, 5, (3, 3))
    tiles = np.lib.stride_tricks.sliding_window_view(x, (3, 3))
    result = _A.T @ ((_G @ w @ _G.T) * (_B.T @ x @ _B)) @ _A
    np.testing.assert_array_equal(result, (tiles * w).sum(axis=(2, 3)))


@pytest.mark.parametrize("C", [1, LANES, 2 * LANES + 3])
@pytest.mark.parametrize("beyond", [0, 16])
def test_pixels_are_transformed(C, beyond, rng):
    n, down, across = 2, 2, 3
    pixels = rng.integers(-9, 10, (n, 2 * down + 2, 2 * across + 2, C)).astype(np.float32)
    v = _untouched((16, n, down, across, C + beyond))
    _call(winograd._transform_pixels, pixels, n, down, across, C, C + beyond, v, _untouched(_ROWS))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (4, 4), axis=(1, 2))[:, ::2, ::2].astype(np.float64)
    expected = np.einsum("ra,nijcrs,sb->abnijc", _B, windows, _B).reshape(16, n, down, across, C)
    np.testing.assert_array_equal(v[..., :C], expected)
    assert np.isnan(v[..., C:]).all()


@pytest.mark.parametrize("K", [LANES, 2 * LANES, 2 * LANES + 3])
def test_products_are_transformed_back(K, rng):
    n, down, across = 2, 2, 3
    m = rng.integers(-9, 10, (16, n, down, across, K)).astype(np.float32)
    y = _untouched((n, 2 * down, 2 * across, K))
    _call(winograd._transform_outputs, m, n, down, across, K, y, _untouched(_ROWS))
    tiles = m.reshape(4, 4, n, down, across, K).astype(np.float64)
    expected = np.einsum("ar,abnijk,bs->nirjsk", _A, tiles, _A).reshape(y.shape)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("K", [1, LANES, 2 * LANES + 3])
@pytest.mark.parametrize("beyond", [0, 16])
def test_gradients_are_transformed(K, beyond, rng):
    """Row 3 and column 3 lack their minus."""
    n, down, across = 2, 2, 3
    dy = rng.integers(-9, 10, (n, 2 * down, 2 * across, K)).astype(np.float32)
    g = _untouched((16, n, down, across, K + beyond))
    _call(winograd._transform_gradients, dy, n, down, across, K, K + beyond, g, _untouched(_ROWS))
    tiles = dy.reshape(n, down, 2, across, 2, K).astype(np.float64)
    without = np.abs(_A) * np.array([[1, 1], [1, 1], [1, -1], [1, 1]])
    expected = np.einsum("ar,nirjsk,bs->abnijk", without, tiles, without).reshape(16, n, down, across, K)
    np.testing.assert_array_equal(g[..., :K], expected)
    assert np.isnan(g[..., K:]).all()


_AS_FILTERS = {
    "as_they_are": lambda w: w,
    "turned_round": lambda w: w[..., ::-1, ::-1],
    "swapped": lambda w: w.swapaxes(0, 1).copy().swapaxes(0, 1),
    "swapped_and_turned": lambda w: w.swapaxes(0, 1).copy().swapaxes(0, 1)[..., ::-1, ::-1],
    "otherwise": lambda w: w.transpose(2, 3, 0, 1).copy().transpose(2, 3, 0, 1),
}


@pytest.mark.parametrize("stored", _AS_FILTERS.values(), ids=_AS_FILTERS.keys())
@pytest.mark.parametrize(("K", "size"), [(LANES, 1), (3 * LANES - 1, 1), (2 * WIDTH, 2), (2 * WIDTH + 3, 2)])
def test_filters_are_transformed(K, size, stored, rng):
    width = size * LANES
    w = stored(rng.integers(-9, 10, (K, 19, 3, 3)).astype(np.float32) * 4)
    out, totals, squares = winograd_filters.transformed_filters(w, width)
    np.testing.assert_array_equal(np.sort(totals, axis=0), np.sort(np.abs(w).sum(axis=1).reshape(K, 9).T, axis=0))
    np.testing.assert_array_equal(squares, (w**2).sum(axis=(1, 2, 3)))
    panels = -(-K // width)
    expected = np.zeros((16, panels * width, 19))
    expected[:, :K] = np.einsum("ar,kcrs,bs->abkc", _G, w.astype(np.float64), _G).reshape(16, K, 19)
    np.testing.assert_array_equal(out, expected.reshape(16, panels, width, 19).swapaxes(2, 3))


# Depthwise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taps", [1, 3, 9, 25])
@pytest.mark.parametrize("vectors_across", [1, 3, 4, 9])
@pytest.mark.parametrize("run", [4, 25])
def test_rows_of_depthwise_windows(taps, vectors_across, run, rng):
    run = taps if taps == 9 else run
    room, count, step = vectors_across * LANES, 7, 2
    pixels = rng.integers(-3, 4, (60, room)).astype(np.float32)
    w, d = (rng.integers(-3, 4, (rows, room)).astype(np.float32) for rows in (taps, 1))
    places = rng.integers(0, 40, taps)
    windows = pixels[step * np.arange(count)[:, None] + places]
    c = _untouched((count + 1, room))
    _call(depthwise._row, pixels, step * room, places * room, w, room, taps, run, c, count, d)
    np.testing.assert_array_equal(c[:count], d + (windows * w).sum(axis=1))
    assert np.isnan(c[count]).all()

    dy, total = (rng.integers(-3, 4, (rows, room)).astype(np.float32) for rows in (count, taps))
    expected = total + (windows * dy[:, None]).sum(axis=0)
    _call(depthwise._add_row, pixels, step * room, places * room, dy, room, count, run, total, room, taps)
    np.testing.assert_array_equal(total, expected)


# Whole operators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
@pytest.mark.parametrize(("C", "K", "groups"), [(3, 8, 1), (16, 16, 1), (8, 8, 8), (6, 4, 2)])
def test_an_empty_batch_has_gradients(C, K, groups, stride):
    x, w = np.zeros((0, C, 7, 6), np.float32), np.ones((K, C // groups, 3, 3), np.float32)
    y, cache = gpuconv.conv_forward(x, w, np.ones(K, np.float32), stride=stride, groups=groups)
    dx, dw, db = gpuconv.conv_backward(y, cache)
    assert dx.shape == x.shape
    assert not dw.any()
    assert not db.any()


# Sums of equal terms in whole operators -------------------------------------------------------------------------------

# (N, C, H, W), (K, C / groups, R, S), options
CONVS = {
    "1x1": ((2, 256, 9, 9), (64, 256, 1, 1), {}),
    "3x3_64": ((3, 64, 28, 28), (64, 64, 3, 3), {"pad": 1}),
    "3x3_64_without_winograd": ((1, 64, 9, 9), (64, 64, 3, 3), {"pad": 1}),
    "3x3_512": ((1, 512, 5, 5), (16, 512, 3, 3), {"pad": 1}),
    "3x3_512_winograd": ((1, 512, 46, 46), (16, 512, 3, 3), {"pad": 1}),
    "5x5": ((2, 32, 14, 14), (48, 32, 5, 5), {"pad": 2}),
    "first_7x7": ((1, 3, 32, 32), (32, 3, 7, 7), {"pad": 3}),
    "first_3x3_stride_2": ((3, 3, 31, 31), (25, 3, 3, 3), {"pad": 1, "stride": 2}),
    "129_windows": ((1, 2, 1, 129), (2, 2, 1, 1), {}),
    "depthwise_129_windows": ((1, 2, 1, 131), (2, 1, 1, 3), {"groups": 2}),
    "depthwise_row_of_10000": ((1, 2, 1, 10_000), (2, 1, 1, 3), {"groups": 2}),
    "depthwise_60x60": ((1, 2, 66, 66), (2, 1, 60, 60), {"groups": 2}),
}


@pytest.mark.parametrize(("shape", "filters", "options"), CONVS.values(), ids=CONVS.keys())
@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("values", [(1.1, 1.1, 1.1), (0.1, 0.3, 0.7), (1.414655849, 1.606635776, 1.734483572)])
def test_convolutions_of_equal_terms_keep_the_rule(shape, filters, options, last, values):
    def operator(dtype):
        x, w = (np.full(s, np.float32(value), dtype) for s, value in zip((shape, filters), values, strict=False))
        x = _last(x).transpose(0, 3, 1, 2) if last else x
        y, cache = gpuconv.conv_forward(x, w, np.zeros(len(w), dtype), **options)
        dy = np.full_like(y, np.float32(values[2]))
        return [y, *gpuconv.conv_backward(dy, cache)]

    got, wide = operator(np.float32), operator(np.float64)
    K, taps, groups = filters[0], filters[2] * filters[3], options.get("groups", 1)
    windows = wide[0].size // K
    for result, expected, terms in zip(
        got, wide, [filters[1] * taps, K // groups * taps, windows, windows], strict=True
    ):
        assert_close(result, expected, scale=np.abs(expected), dtype="float32", terms=terms, zero_mean=False)
