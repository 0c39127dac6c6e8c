"""What follows a convolution in the same pass on tensor cores: maxima of 2 x 2 windows, and a batch norm's moments."""

import numpy as np
import pytest
from compare import assert_same, assert_same_bits, normal, whole
from pairs import GPUS, pairs
from places import LAYOUTS

from gpuconv import conv_forward, max_pool_backward, max_pool_forward
from gpuconv.cuda import conv, conv_tensor
from gpuconv.errors import ShapeError
from gpuconv.ops.batchnorm_fused import fused_forward
from gpuconv.ops.conv_fused import conv_forward_fused

U = 2.0**-24
CASES = {
    "odd_rows_and_columns": ((2, 16, 7, 9), (40, 16, 3, 3), {"pad": 1}),
    "several_tiles": ((3, 16, 12, 11), (136, 16, 1, 1), {}),
    "stride_two": ((2, 24, 11, 10), (24, 24, 3, 3), {"stride": 2, "pad": 1}),
    "groups": ((2, 32, 6, 6), (64, 16, 3, 3), {"groups": 2, "pad": 1}),
    "one_window": ((1, 16, 2, 3), (16, 16, 1, 1), {}),
    "channels_that_are_no_chunks": ((2, 3, 6, 7), (16, 3, 2, 2), {}),
}
TILES = {name: getattr(conv_tensor, name.upper()) for name in ("large", "tall", "slim", "small")}
EXTRA = {"precision": None, "training": True}


def _tile(monkeypatch, tile, dtype):
    """Let tensor cores serve every forward by this tile, or where three products have none so large a smaller one."""
    if dtype == "float32":
        tile = (tile if tile in conv_tensor._OF_THREE_PRODUCTS else conv_tensor.SMALL)._replace(depth=16)
    monkeypatch.setattr(conv_tensor, "tile_of", lambda *_: tile)
    monkeypatch.setattr(conv, "forward_method", lambda *_: "tensor")


def _given(gpu, rng, case, dtype, make=normal, *, offset=0.0, filled=None):
    shape, filters, _ = case
    x = gpu.array(LAYOUTS["channels_last"](make(rng, shape, dtype)))
    w = make(rng, filters, dtype) if filled is None else np.full(filters, filled, dtype)
    return x, gpu.array(w), gpu.array((make(rng, filters[:1], dtype) + offset).astype(dtype))


@pairs(case=CASES, tile=TILES, gpu=GPUS, dtype=("float16", "float32"), make={"normal": normal, "ties": whole})
def test_maxima_and_their_places_are_those_of_two_passes(case, tile, gpu, dtype, make, rng, monkeypatch):
    _tile(monkeypatch, tile, dtype)
    given = _given(gpu, rng, case, dtype, make)
    y, _, cache, _ = conv_forward_fused(*given, **case[2], **EXTRA, pool=True, moments=False)
    wanted, of_layers = max_pool_forward(conv_forward(*given, **case[2])[0])
    assert_same_bits(gpu.numpy(y), gpu.numpy(wanted))
    assert_same(gpu.numpy(cache.argmax), gpu.numpy(of_layers.argmax))
    dy = gpu.array(normal(rng, tuple(y.shape), dtype))
    assert_same_bits(gpu.numpy(max_pool_backward(dy, cache)), gpu.numpy(max_pool_backward(dy, of_layers)))


@pairs(gpu=GPUS, dtype=("float16", "float32"))
def test_a_nan_wins_where_it_does_in_a_pass_of_its_own(gpu, dtype, rng):
    case = CASES["odd_rows_and_columns"]
    _, w, b = _given(gpu, rng, case, dtype)
    x = normal(rng, case[0], dtype)
    x[0, 0, 2, 3], x[1, 1, 4, 4] = np.nan, -np.inf
    x = gpu.array(LAYOUTS["channels_last"](x))
    y, _, cache, _ = conv_forward_fused(x, w, b, pad=1, **EXTRA, pool=True, moments=False)
    wanted, of_layers = max_pool_forward(conv_forward(x, w, b, pad=1)[0])
    assert np.isnan(gpu.numpy(y)).any()
    np.testing.assert_array_equal(gpu.numpy(y), gpu.numpy(wanted))
    assert_same(gpu.numpy(cache.argmax), gpu.numpy(of_layers.argmax))


@pairs(case=CASES, tile=TILES, gpu=GPUS, dtype=("float16", "float32"), pool=(False, True), offset=(0.0, 64.0))
def test_moments_are_those_of_what_was_made(case, tile, gpu, dtype, pool, offset, rng, monkeypatch):
    """Of a tile at most 256 values of a channel are added up, 4 to 16 sums of 16 to 32 terms and these, in float32.

    So a sum of deviations, or of squares, of which each is off by 3 u at most, is off by 40 u of the sum of its absolute
    values.  What tiles have is merged in float64; a centre is as it is.
    """
    _tile(monkeypatch, tile, dtype)
    x, w, b = _given(gpu, rng, case, dtype, offset=offset)
    y, _, _, moments = conv_forward_fused(x, w, b, **case[2], **EXTRA, pool=pool, moments=True)
    channels = np.moveaxis(gpu.numpy(y).astype(np.float64), 1, 0).reshape(y.shape[1], -1)
    if channels.shape[1] == 1:  # which batch norm refuses
        assert_same(gpu.numpy(moments.partial)[0, 0], channels[:, 0].astype(np.float32))
        return
    vectors = [gpu.array(array.astype(dtype)) for array in (np.ones(len(b)), np.zeros(len(b)))]
    running = [gpu.array(np.zeros(len(b), dtype)) for _ in range(2)]
    settings = {"training": True, "momentum": 0.0, "eps": 1e-30}
    _, cache = fused_forward(y, *vectors, *running, **settings, activation="relu", given=moments)
    mean, inv_std = (gpu.numpy(array).astype(np.float64) for array in (cache.norm.mean, cache.norm.inv_std))
    exact, spread = channels.mean(axis=1), channels.std(axis=1)
    assert (np.abs(mean - exact) <= 40 * U * spread + U * np.abs(exact)).all()
    assert (np.abs(inv_std * spread - 1) <= 22 * U).all()


@pairs(gpu=GPUS)
def test_a_constant_channel_has_no_variance(gpu, rng):
    x, w, b = _given(gpu, rng, CASES["several_tiles"], "float16", filled=0.0)
    _, _, _, moments = conv_forward_fused(x, w, b, **EXTRA, pool=False, moments=True)
    centre, mean, square = gpu.numpy(moments.partial)
    assert_same(centre, np.broadcast_to(gpu.numpy(b).astype(np.float32), centre.shape))
    assert not mean.any()
    assert not square.any()


def _never(*_, **__):
    pytest.fail("no kernel makes this in one pass")


@pytest.mark.parametrize("why", ["c_order", "float64", "too_few_filters", "no_whole_chunks"])
@pairs(gpu=GPUS)
def test_where_no_kernel_makes_it_in_one_pass_there_are_two(gpu, why, rng, monkeypatch):
    monkeypatch.setattr(conv_tensor, "_FORWARD", conv_tensor._FORWARD if why == "c_order" else _never)
    filters = {"too_few_filters": 8, "no_whole_chunks": 20}.get(why, 16)
    if why == "no_whole_chunks":
        monkeypatch.undo()
    dtype = "float64" if why == "float64" else "float16"
    memory = "c_order" if why == "c_order" else "channels_last"
    x = gpu.array(LAYOUTS[memory](normal(rng, (2, 16, 6, 5), dtype)))
    w = gpu.array(normal(rng, (filters, 16, 3, 3), dtype))
    y, _, _, moments = conv_forward_fused(x, w, None, pad=1, **EXTRA, pool=True, moments=True)
    assert moments is None
    assert_same_bits(gpu.numpy(y), gpu.numpy(max_pool_forward(conv_forward(x, w, pad=1)[0])[0]))


@pairs(gpu=GPUS)
def test_outputs_smaller_than_a_window_are_refused_as_in_a_pass_of_their_own(gpu, rng):
    x = gpu.array(LAYOUTS["channels_last"](normal(rng, (2, 16, 1, 5), "float16")))
    w = gpu.array(normal(rng, (16, 16, 1, 1), "float16"))
    with pytest.raises(ShapeError, match="does not fit the padded input"):
        conv_forward_fused(x, w, None, **EXTRA, pool=True, moments=False)
