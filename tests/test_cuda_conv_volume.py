"""What is special about the kernels that convolve volumes: width of indices, slices of dw, memory formats."""

from math import prod

import numpy as np
import pytest
from compare import assert_same, whole
from pairs import DTYPES, GPUS, STORED, pairs
from places import LAYOUTS

import gpuconv
from gpuconv import naive
from gpuconv.cuda import conv
from gpuconv.cuda.kernel import Kernel
from gpuconv.cuda.layout import INT32, INT64
from gpuconv.shapes import conv_sizes, is_channels_last

CASES = {
    "everything_differs": (
        (2, 4, 4, 5, 3),
        (6, 2, 3, 2, 2),
        {"stride": (1, 2, 3), "pad": (1, 0, 2), "dilation": (1, 2, 3), "groups": 2},
    ),
    "strides_in_all": ((2, 3, 6, 5, 7), (2, 3, 2, 3, 1), {"stride": (3, 2, 2), "pad": 1}),
    "depthwise": ((2, 3, 3, 4, 3), (6, 1, 2, 3, 1), {"groups": 3}),
    "many_voxels": ((3, 2, 5, 7, 4), (3, 2, 3, 2, 1), {}),
    "no_volumes": ((0, 3, 4, 4, 4), (4, 3, 3, 3, 3), {"pad": 1}),
}


def arrays(rng, case, dtype="float32"):
    x, w, options = case
    z = conv_sizes(np.empty(x), np.empty(w), None, **options)
    return [whole(rng, shape, dtype) for shape in (x, w, (z.K,), z.out)], z


def computed(gpu, given, options, stored):
    """Return y, dx, dw, db as they come from the device."""
    x, w, b, dy = given
    y, cache = gpuconv.conv_forward(*map(gpu.array, (LAYOUTS[stored](x), w, b)), **options)
    return [y, *gpuconv.conv_backward(gpu.array(LAYOUTS[stored](dy)), cache)]


def expected(x, w, b, dy, z):
    return naive.conv_forward(x, w, b, z), *naive.conv_backward(dy, x, w, z, input_grad=True, bias_grad=True)


@pairs(
    case=CASES, index={"32_bits": INT32, "64_bits": INT64}, slices={"one": 0, "many": 2**18}, stored=STORED, gpu=GPUS
)
def test_every_index_and_number_of_slices(case, index, slices, stored, gpu, rng, monkeypatch):
    monkeypatch.setattr(conv, "_index", lambda _: index)
    monkeypatch.setattr(conv, "_PARTIAL_SUMS", slices)
    monkeypatch.setattr(conv, "_LEAST_PIXELS", 5)
    given, z = arrays(rng, case)
    got = computed(gpu, given, case[2], stored)
    for actual, want in zip(got, expected(*given, z), strict=True):
        assert_same(gpu.numpy(actual), want, dtype="float32")
    if stored == "channels_last" and z.N:
        assert is_channels_last(got[0])
        assert is_channels_last(got[1])


@pairs(case=CASES, stored=STORED, dtype=DTYPES, gpu=GPUS)
def test_every_dtype(case, stored, dtype, gpu, rng):
    given, z = arrays(rng, case, dtype)
    for actual, want in zip(computed(gpu, given, case[2], stored), expected(*given, z), strict=True):
        assert_same(gpu.numpy(actual), want, dtype=dtype)


@pytest.mark.parametrize("stored", STORED)
def test_kernels_launched(stored, gpu, rng, monkeypatch):
    """Gradients that nobody asked for launch nothing."""
    launches = []
    launch = Kernel.__call__

    def noted(kernel, *args, **options):
        launches.append(kernel.name)
        return launch(kernel, *args, **options)

    (x, w, b, dy), _ = arrays(rng, CASES["everything_differs"])
    options = CASES["everything_differs"][2]
    x, w, b, dy = map(gpu.array, (LAYOUTS[stored](x), w, b, LAYOUTS[stored](dy)))
    monkeypatch.setattr(Kernel, "__call__", noted)
    bias = "conv_backward_bias_last" if stored == "channels_last" else "conv_backward_bias_planar"
    _, cache = gpuconv.conv_forward(x, w, b, **options)
    assert launches == ["conv_volume_forward_direct"]
    for wanted, names in {
        "input": ["conv_volume_backward_data_direct"],
        "weight": ["conv_volume_backward_weight_direct", "conv_backward_sum"],
        "bias": [],
    }.items():
        launches.clear()
        gpuconv.conv_backward(dy, cache, input_grad=wanted == "input", weight_grad=wanted == "weight")
        assert sorted(launches) == sorted([*names, bias, "conv_backward_sum"])


@pytest.mark.parametrize(
    ("x", "w", "options", "index"),
    [
        ((1, 1, 2**10, 2**10, 2**10), (1, 1, 1, 1, 1), {}, INT32),
        ((2, 1, 2**10, 2**10, 2**10), (1, 1, 1, 1, 1), {}, INT64),  # x and y
        ((1, 1, 2**10, 2**10, 2**9), (4, 1, 1, 1, 1), {}, INT64),  # y alone
        ((1, 4, 2**10, 2**10, 2**9), (1, 4, 1, 1, 1), {"stride": 2}, INT64),  # x alone
        ((1, 2**8, 2**3, 2**3, 2**3), (2**14, 2**8, 8, 8, 8), {}, INT64),  # w alone
        ((1, 1, 1, 1, 1), (1, 1, 1, 1, 1), {"pad": (2**30, 0, 0), "stride": (2**31 - 1, 1, 1)}, INT64),
        ((1, 1, 1, 1, 1), (1, 1, 2, 1, 1), {"pad": (2**30 - 1, 0, 0), "dilation": (2**30, 1, 1)}, INT64),
        ((1, 1, 1, 1, 1), (1, 1, 1, 1, 2), {"pad": (0, 0, 2**30 - 1), "dilation": (1, 1, 2**30)}, INT64),
    ],
)
def test_index_counts_everything(x, w, options, index):
    z = conv_sizes(np.broadcast_to(0.0, x), np.broadcast_to(0.0, w), None, **options)
    assert conv._index(z) == index
    if index is INT32:
        assert max(prod(x), prod(z.out), prod(w)) < 2**31
