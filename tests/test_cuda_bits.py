"""What the GPU must give bit for bit as the CPU does: random draws, look-ups, selections; and what only a GPU does."""

import functools

import numpy as np
import pytest
from compare import assert_same, assert_same_bits, normal
from hypothesis import given
from hypothesis import strategies as st
from operators import OPERATORS
from pairs import DEVICES, DTYPES, STORED, pairs
from places import LAYOUTS, Emulated

import gpuconv
from gpuconv import checks
from gpuconv.cuda import augmentation, kernel, layout
from gpuconv.errors import AliasError, ParamError
from gpuconv.random import Stream, words
from gpuconv.shapes import is_channels_last
from tests.ladder.kernel_calls import FORMATS, rough

_WORDS = [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]


def _both(device, operator, *arrays, **options):
    """Return an operator's first result on the device, and on the CPU."""
    on_device = operator(*(None if a is None else device.array(a) for a in arrays), **options)
    return on_device, operator(*arrays, **options)


# Dropout ------------------------------------------------------------------------------------------------------------


@pairs(
    rate=[0.1, 0.5, 1 / 3],
    shape={
        f"planes_of_{H * W}": (N, C, H, W)
        for N, C, H, W in ((3, 5, 3, 3), (2, 4, 7, 1), (1, 33, 2, 9), (2, 3, 1, 1), (1, 1, 4, 8))
    },
    stored=STORED,
    device=DEVICES,
    dtype=DTYPES,
)
def test_dropout_of_images(rate, shape, stored, device, dtype, rng):
    """Planes of every length modulo the eight elements of a block of random words, in both memory formats."""
    x, dy = (LAYOUTS[stored](normal(rng, shape, dtype)) for _ in range(2))
    (y, cache), (y_cpu, cache_cpu) = _both(device, gpuconv.dropout_forward, x, rate=rate, seed=5, step=9)
    assert_same(device.numpy(cache.kept), cache_cpu.kept)
    assert_same_bits(device.numpy(y), y_cpu)
    dx = gpuconv.dropout_backward(device.array(dy), cache)
    assert_same_bits(device.numpy(dx), gpuconv.dropout_backward(dy, cache_cpu))
    if stored == "channels_last" and np.prod(shape[2:]) > 1 and shape[1] > 1:
        assert is_channels_last(device.numpy(y))


@pairs(seed=_WORDS, step=_WORDS, device=DEVICES, place=False)
def test_dropout_of_every_kind_of_seed_and_step(seed, step, device):
    x = np.ones(100, np.float32)
    (_, cache), (_, cache_cpu) = _both(device, gpuconv.dropout_forward, x, rate=0.5, seed=seed, step=step)
    assert_same(device.numpy(cache.kept), cache_cpu.kept)


@given(
    st.lists(st.integers(0, 6), max_size=5),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.floats(1e-9, 0.999),
)
def test_dropout_of_any_shape(device, shape, seed, step, rate):
    x = np.ones(shape, np.float32)
    options = {"rate": rate, "seed": seed, "step": step}
    (y, _), (y_cpu, _) = _both(device, gpuconv.dropout_forward, x, **options)
    assert_same_bits(device.numpy(y), y_cpu)


# Augmentation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 4, 40])
def test_augmentation(pad, channels_last, device, dtype, rng):
    images, draws = rng.integers(0, 256, (9, 3, 7, 5), np.uint8), words(9, seed=3, stream=Stream.AUGMENT)
    options = {"mean": [0.49, 0.48, 0.45], "std": [0.247, 0.243, 0.262], "dtype": dtype}
    options |= {"pad": pad, "flip": True, "channels_last": channels_last}
    for moves in ({}, {"pad_mode": "reflect", "pad": min(pad, 4)}, {"cutout": 4}):
        got, expected = _both(device, gpuconv.augment, images, draws, **options | moves)
        assert_same_bits(device.numpy(got), expected)
        assert is_channels_last(device.numpy(got)) == channels_last


def test_every_pixel_value_of_every_channel(device, dtype):
    images = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (2, 5, 16, 16))
    levels = {"mean": [0.1, 0.3, 0.5, 0.7, 0.9], "std": [0.01, 0.1, 0.3, 1.0, 7.0]}
    got, expected = _both(device, gpuconv.augment, images, None, **levels, dtype=dtype)
    assert_same_bits(device.numpy(got), expected)


@pytest.mark.compilers
def test_the_table_of_levels_is_copied_once(rng):
    images = Emulated.array(rng.integers(0, 256, (2, 1, 3, 3), np.uint8))
    levels = augmentation._levels
    before = levels.cache_info().misses
    for _ in range(3):
        gpuconv.augment(images, mean=[0.123456], std=[0.5])
    assert levels.cache_info().misses == before + 1


# Selections ---------------------------------------------------------------------------------------------------------


def test_relu_of_every_float16(device):
    """All 65,536 of them, subnormals and NaN included; float32 and float64 take the same way through their bits."""
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    dy = np.ones_like(x)
    (y, cache), (y_cpu, cache_cpu) = _both(device, gpuconv.relu_forward, x)
    assert_same(device.numpy(y), y_cpu)
    dx = device.numpy(gpuconv.relu_backward(device.array(dy), cache))
    assert_same_bits(dx, gpuconv.relu_backward(dy, cache_cpu))


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_relu_of_the_smallest_numbers(kind, device):
    """A GPU that flushes them to 0 elsewhere must not do it here."""
    tiny = np.finfo(kind).smallest_subnormal * np.array([1, 2, 1000, -1, -1000], kind)
    y, cache = gpuconv.relu_forward(device.array(tiny))
    assert_same(device.numpy(y), np.maximum(tiny, 0))
    dx = gpuconv.relu_backward(device.array(tiny), cache)
    assert_same(device.numpy(dx), np.where(tiny > 0, tiny, 0))


# Losses and labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("loss", [gpuconv.softmax_cross_entropy, gpuconv.svm_loss])
def test_labels_of_any_integer_type(loss, kind, device, rng):
    scores, labels = normal(rng, (7, 5)), np.arange(7).astype(kind) % 5
    (value, gradient), (value_cpu, gradient_cpu) = _both(device, loss, scores, labels)
    np.testing.assert_allclose(device.numpy(value), value_cpu, rtol=1e-14)
    np.testing.assert_allclose(device.numpy(gradient), gradient_cpu, rtol=1e-13, atol=1e-16)
    assert device.numpy(value).shape == ()


@pytest.mark.compilers
@pytest.mark.parametrize("label", [-1, 3, 255, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("loss", [gpuconv.softmax_cross_entropy, gpuconv.svm_loss])
def test_a_label_out_of_range_gives_nan_and_an_error_in_debug_mode(loss, label, monkeypatch):
    scores, labels = Emulated.array(np.zeros((3, 3))), Emulated.array(np.array([0, label, 2]))
    value, gradient = (Emulated.numpy(a) for a in loss(scores, labels))
    assert np.isnan(value)
    assert np.isnan(gradient).all(axis=1).tolist() == [False, True, False]
    assert np.isfinite(gradient[[0, 2]]).all()
    monkeypatch.setenv("GPUCONV_DEBUG", "1")
    with pytest.raises(ParamError, match=rf"labels must lie in \[0, 3\) for scores with 3 classes, got {label}$"):
        loss(scores, labels)


# Vectors that share memory ------------------------------------------------------------------------------------------


class _OnGpu:
    """As much of an array on a GPU as checks of overlap look at."""

    def __init__(self, host):
        self.__cuda_array_interface__ = {**host.__array_interface__, "version": 3}


@pytest.mark.parametrize(
    "wrap", [_OnGpu, pytest.param(Emulated.array, marks=pytest.mark.compilers)], ids=["gpu", "emulated"]
)
def test_overlap_is_seen_by_address(wrap):
    room = np.zeros(20)
    if wrap is _OnGpu:
        parts = {"whole": _OnGpu(room), "even": _OnGpu(room[::2]), "odd": _OnGpu(room[1::2]), "end": _OnGpu(room[15:])}
    else:
        there = wrap(room)
        parts = {"whole": there, "even": there[::2], "odd": there[1::2], "end": there[15:]}
    checks.apart("even", even=parts["even"], odd=parts["odd"])
    for other in ("whole", "end"):
        with pytest.raises(AliasError, match=r"odd is updated in place, but .* share memory"):
            checks.apart("odd", **{other: parts[other], "odd": parts["odd"]})


@pytest.mark.compilers
def test_an_update_refuses_its_own_gradient():
    w = Emulated.array(np.ones(8))
    with pytest.raises(AliasError, match="w is updated in place, but w and dw share memory"):
        gpuconv.sgd_update(w, w[:], lr=0.1)


# However it is launched ---------------------------------------------------------------------------------------------


def _everything(shape, dtype, memory):
    """Return the results on the emulated device of every operator whose row in operators.py says `rounds`."""
    calls = [
        rough(row.name, row.name, **{**row.rounds(shape), **options})
        for row in OPERATORS.values()
        if row.rounds
        for options in row.all_ways.values()
    ]
    return [None if a is None else a.tobytes() for call in calls for a in call.on(Emulated, dtype, memory)]


_as_usual = functools.cache(_everything)

# why the case exists: (N, C, H, W)
ROUNDS = {
    "whole_packs": (3, 8, 16, 12),
    "odd_planes": (5, 3, 11, 13),
    "odd_rows_whole_planes": (7, 5, 8, 8),
    "rows_only": (601, 6, 1, 1),
    "more_channels_than_threads": (2, 300, 3, 1),
}


@pytest.mark.compilers
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("shape", ROUNDS.values(), ids=ROUNDS.keys())
@pytest.mark.parametrize(
    "kind", ["float32", *(pytest.param(k, marks=pytest.mark.ladder) for k in ("float16", "float64"))]
)
@pytest.mark.parametrize("how", ["one_block", "64_bit_indices"])
def test_same_bits_however_it_is_launched(how, kind, shape, memory, monkeypatch):
    """On a small GPU, whose threads go round, and with the index type of arrays beyond 2^31 elements."""
    expected = _as_usual(shape, kind, memory)
    if how == "one_block":
        monkeypatch.setattr(kernel, "_BLOCKS_PER_SM", 1)
        monkeypatch.setattr(Emulated.device, "sm_count", 1)
    else:
        monkeypatch.setattr(layout, "_LARGEST_INT32", 0)
    assert _everything(shape, kind, memory) == expected


@pytest.mark.compilers
@pytest.mark.parametrize("start", [1, 2, 3, 8])
def test_views_that_start_anywhere(start, dtype, rng):
    """Packs of 16 bytes must not be read from an address between two of them."""
    room = normal(rng, (4, 200), dtype)
    there = Emulated.array(room)
    x, dy, m, v = (row[start : start + 150] for row in room)
    on_device = [there[i, start : start + 150] for i in range(4)]
    for forward, backward in (
        (gpuconv.relu_forward, gpuconv.relu_backward),
        (gpuconv.dropout_forward, gpuconv.dropout_backward),
    ):
        (y, cache), (y_cpu, cache_cpu) = forward(on_device[0]), forward(x)
        assert_same(Emulated.numpy(y), y_cpu)
        assert_same(Emulated.numpy(backward(on_device[1], cache)), backward(dy, cache_cpu))
    gpuconv.sgd_update(*on_device[:3], lr=0.5, momentum=0.5)
    gpuconv.sgd_update(x, dy, m, lr=0.5, momentum=0.5)
    np.testing.assert_allclose(Emulated.numpy(there), room, rtol=4e-3 if dtype == "float16" else 1e-6, atol=4e-3)
    untouched = np.ones(200, bool)
    untouched[start : start + 150] = False
    assert_same(Emulated.numpy(there)[:, untouched], room[:, untouched])
    images, images_cpu = on_device[3][:144].reshape(2, 3, 4, 6), v[:144].reshape(2, 3, 4, 6)
    vectors = [np.ones(3, dtype) for _ in range(4)]
    y, _ = gpuconv.spatial_batchnorm_forward(images, *map(Emulated.array, vectors))
    y_cpu, _ = gpuconv.spatial_batchnorm_forward(images_cpu, *vectors)
    np.testing.assert_allclose(Emulated.numpy(y), y_cpu, rtol=4e-3 if dtype == "float16" else 1e-5, atol=4e-3)
