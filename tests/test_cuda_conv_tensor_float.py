"""Convolution of float32 on tensor cores: by three products, which keep float32, and by one, rounded to TF32 by leave."""

import numpy as np
import pytest
from compare import U_OUT, U_SUM, absolute, assert_close, assert_same, normal, whole
from conv_checks import channels_last, exact_backward, exact_forward
from pairs import GPUS, STORED, pairs
from test_conv import SPECIAL
from test_cuda_conv import expected, off_by_one
from test_cuda_conv_tensor import CASES_OF_TILES

import gpuconv
from gpuconv.cuda import conv, conv_tensor, conv_weight_tensor_float
from gpuconv.shapes import conv_sizes

FLOAT32 = np.dtype("float32")
PRODUCTS = [1, 3]
TILES = {name: getattr(conv_tensor, name.upper())._replace(depth=16) for name in ("large", "tall", "slim", "small")}
WEIGHT_TILES = {name: getattr(conv_weight_tensor_float, name.upper()) for name in ("large", "slim", "flat", "small")}
TILE_OF = {
    **{f"{name}_of_one": (1, TILES[name]) for name in TILES},
    **{f"{name}_of_three": (3, TILES[name]) for name in ("slim", "small")},
}
WEIGHT_TILE_OF = {
    **{f"{name}_of_one": (1, WEIGHT_TILES[name]) for name in WEIGHT_TILES},
    **{f"{name}_of_three": (3, WEIGHT_TILES[name]) for name in ("slim", "flat", "small")},
}

each_format = pytest.mark.parametrize("stored", STORED)
each_products = pytest.mark.parametrize("products", PRODUCTS)


def force(monkeypatch, products, *, tile=None, weight_tile=None):
    """Let tensor cores serve every size, by so many products and these tiles."""
    monkeypatch.setattr(conv, "products_of", lambda *_: products)
    monkeypatch.setattr(conv, "forward_method", lambda *_: "tensor")
    monkeypatch.setattr(conv, "data_method", lambda *_: "tensor")
    monkeypatch.setattr(conv, "weight_method", lambda *_: "tensor_float")
    if tile is not None:
        monkeypatch.setattr(conv_tensor, "tile_of", lambda *_: tile)
    if weight_tile is not None:
        monkeypatch.setattr(conv_weight_tensor_float, "tile_of", lambda *_: weight_tile)


def arrays(rng, case, make=whole):
    z = conv_sizes(np.empty(case[0]), np.empty(case[1]), None, **case[2])
    return [make(rng, shape, "float32") for shape in (*case[:2], (z.K,), z.out)], z


def computed(gpu, x, w, b, dy, options, *, stored="c_order"):
    """Return y, dx and dw as NumPy arrays."""
    arrange = channels_last if stored == "channels_last" else np.asarray
    y, cache = gpuconv.conv_forward(*(gpu.array(a) for a in (arrange(x), w, b)), **options)
    return [gpu.numpy(a) for a in (y, *gpuconv.conv_backward(gpu.array(arrange(dy)), cache)[:2])]


def wanted(x, w, b, dy, z):
    return exact_forward(x, w, b, z), *exact_backward(dy, x, w, z)


@pairs(case=CASES_OF_TILES, tile=TILE_OF, stored=STORED, gpu=GPUS)
def test_every_tile_serves_every_case(case, tile, stored, gpu, rng, monkeypatch):
    force(monkeypatch, tile[0], tile=tile[1])
    given, z = arrays(rng, case)
    for actual, want in zip(computed(gpu, *given, case[2], stored=stored), wanted(*given, z), strict=True):
        assert_same(actual, want, dtype="float32")


@pairs(case=CASES_OF_TILES, tile=WEIGHT_TILE_OF, stored=STORED, gpu=GPUS)
def test_every_tile_of_the_weight_gradient_serves_every_case(case, tile, stored, gpu, rng, monkeypatch):
    force(monkeypatch, tile[0], weight_tile=tile[1])
    (x, w, b, dy), z = arrays(rng, case)
    assert_same(computed(gpu, x, w, b, dy, case[2], stored=stored)[2], exact_backward(dy, x, w, z)[1], dtype="float32")
