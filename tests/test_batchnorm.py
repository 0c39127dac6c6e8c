"""Batch normalisation of rows, signals, images and volumes, forward and backward, within norm_scales.py of the oracle."""

import numpy as np
import pytest
from compare import U_SUM, assert_close, assert_same, assert_same_bits, normal, whole
from hypothesis import given
from hypothesis import strategies as st
from norm_scales import batchnorm_scales
from pairs import DEVICES, DTYPES, STORED, pairs
from places import LAYOUTS

import gpuconv
from gpuconv import naive
from gpuconv.errors import ShapeError
from gpuconv.shapes import is_channels_last

CASES = {
    "smallest": (2, 1, 1, 1),
    "one_image": (1, 3, 4, 5),
    "one_pixel_images": (8, 3, 1, 1),
    "one_channel": (3, 1, 5, 4),
    "one_row": (3, 2, 1, 9),
    "one_column": (3, 2, 9, 1),
    "empty_batch": (0, 3, 4, 4),
    "primes": (3, 5, 7, 11),
    "channels_above_a_power_of_two": (2, 129, 2, 3),
    "wide_image": (1, 2, 8, 64),
    "end_of_a_net": (4, 64, 4, 4),
    "rows": (9, 4),
    "two_rows": (2, 5),
    "rows_of_one_value": (7, 1),
    "many_rows": (1000, 3),
    "wide_rows": (5, 300),
    "empty_batch_of_rows": (0, 6),
    "signals": (3, 5, 7),
    "one_signal": (1, 3, 9),
    "signals_of_one_value": (4, 3, 1),
    "empty_batch_of_signals": (0, 3, 4),
    "volumes": (2, 3, 3, 4, 5),
    "one_volume": (1, 4, 2, 1, 3),
    "volumes_of_one_pixel": (8, 3, 1, 1, 1),
    "volumes_of_one_channel": (2, 1, 3, 3, 4),
    "volumes_in_packs": (1, 16, 2, 4, 4),
    "empty_batch_of_volumes": (0, 3, 2, 2, 2),
}


TRAINING = {"training": True, "evaluation": False}


@pytest.fixture(params=TRAINING.values(), ids=TRAINING.keys())
def training(request):
    return request.param


def _channels_last(a):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def _vectors(rng, C, dtype):
    """Return gamma, beta, running_mean, running_var."""
    return [
        normal(rng, C, dtype),
        normal(rng, C, dtype),
        normal(rng, C, dtype),
        rng.uniform(0.5, 2, C).astype(dtype),
    ]


def _computed(device, x, vectors, dy, **options):
    """Return y, running_mean, running_var, dx, dgamma, dbeta; all but the running statistics must not change."""
    before = [a.copy() for a in (x, *vectors, dy)]
    dev = [device.array(a.copy() if i in (3, 4) else a) for i, a in enumerate((x, *vectors, dy))]
    forward, backward = (
        (gpuconv.spatial_batchnorm_forward, gpuconv.spatial_batchnorm_backward)
        if x.ndim > 2
        else (gpuconv.batchnorm_forward, gpuconv.batchnorm_backward)
    )
    y, cache = forward(*dev[:5], **options)
    grads = backward(dev[5], cache)
    for i in (0, 1, 2, 5):
        np.testing.assert_array_equal(device.numpy(dev[i]), before[i], "an input was changed")
    return tuple(device.numpy(a) for a in (y, dev[3], dev[4], *grads))


def _by_channel(vector, ndim):
    return np.reshape(vector, (1, -1) + (1,) * (ndim - 2))


def _check(got, x, vectors, dy, *, training=True, momentum=0.9, eps=1e-5, zero_mean=True):
    """Hold results to the oracle; zero_mean says what dy is like."""
    gamma, beta, running_mean, running_var = (v.astype(np.float64) for v in vectors)
    options = {"training": training, "momentum": momentum, "eps": eps}
    scales = batchnorm_scales(x, *vectors, dy, unit=U_SUM[x.dtype.name], **options)
    wide = x.astype(np.float64)
    ref, mean, inv = naive.batchnorm_forward(wide, gamma, beta, running_mean, running_var, **options)
    refs = naive.batchnorm_backward(dy, wide, gamma, mean, inv, training=training)

    y, new_mean, new_var, *grads = got
    assert_close(y, ref, scale=scales.y, dtype=x.dtype)
    vector_dtype = vectors[0].dtype
    if training and x.shape[0]:
        assert_close(new_mean, running_mean, scale=scales.mean, dtype=vector_dtype)
        assert_close(new_var, running_var, scale=scales.var, dtype=vector_dtype)
    else:
        assert_same(new_mean, vectors[2])
        assert_same(new_var, vectors[3])
    terms, kinds = x.size // x.shape[1], (x.dtype, vector_dtype, vector_dtype)
    for actual, want, scale, kind in zip(grads, refs, (scales.dx, scales.dgamma, scales.dbeta), kinds, strict=True):
        assert_close(actual, want, scale=scale, dtype=kind, terms=terms, zero_mean=zero_mean)


@pairs(shape=CASES, training=TRAINING, stored=STORED, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(shape, training, stored, device, dtype, rng):
    x, dy = (3 * normal(rng, shape) + 1).astype(dtype), normal(rng, shape, dtype)
    vectors = _vectors(rng, shape[1], dtype)
    last = stored == "channels_last" and x.ndim > 2
    got = _computed(
        device, *((_channels_last(x), vectors, _channels_last(dy)) if last else (x, vectors, dy)), training=training
    )
    _check(got, x, vectors, dy, training=training)


@pytest.mark.parametrize("shape", CASES.values(), ids=CASES.keys())
def test_float16_images_with_float32_vectors(shape, training, device, rng):
    """What a net in half precision keeps: parameters and statistics in float32."""
    x, dy = (3 * normal(rng, shape) + 1).astype(np.float16), normal(rng, shape, np.float16)
    vectors = _vectors(rng, shape[1], np.float32)
    _check(_computed(device, x, vectors, dy, training=training), x, vectors, dy, training=training)


@pairs(
    shape={"images": (2, 4, 3, 5), "rows": (6, 4), "signals": (3, 4, 6), "volumes": (2, 4, 3, 2, 5)},
    layout=LAYOUTS,
    training=TRAINING,
    device=DEVICES,
)
def test_any_memory_layout(shape, layout, training, device, rng):
    x, dy, vectors = normal(rng, shape), normal(rng, shape), _vectors(rng, 4, np.float64)
    for arrays in ((layout(x), dy), (x, layout(dy)), (layout(x), layout(dy))):
        got = _computed(device, arrays[0], vectors, arrays[1], training=training)
        _check(got, x, vectors, dy, training=training)
        if len(shape) > 3:
            assert is_channels_last(got[0]) == is_channels_last(arrays[0]) == is_channels_last(got[3])
    strided = [layout(v) if layout(v).flags.writeable else v for v in vectors]
    _check(_computed(device, x, strided, dy, training=training), x, vectors, dy, training=training)


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_broadcast_views(axis, device, rng):
    shape = [2, 3, 4, 5]
    x = np.broadcast_to(normal(rng, [1 if i == axis else n for i, n in enumerate(shape)]), shape)
    dy = np.broadcast_to(normal(rng, (1, 3, 1, 1)), shape)
    vectors = _vectors(rng, 3, np.float64)
    _check(_computed(device, x, vectors, dy), x, vectors, dy, zero_mean=False)


# Numbers that break careless code -----------------------------------------------------------------------------------


@pairs(offset=[1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6, -1e4], stored=STORED, kind=["float64", "float32"], device=DEVICES)
def test_variance_far_from_zero_does_not_cancel(offset, stored, kind, device, rng):
    """A one-pass variance is wrong from 1e3 on in float32 and negative at 1e6."""
    x, dy = (normal(rng, (4, 3, 8, 9)) + offset).astype(kind), normal(rng, (4, 3, 8, 9), kind)
    vectors = _vectors(rng, 3, kind)
    arrays = (_channels_last(x), vectors, _channels_last(dy)) if stored == "channels_last" else (x, vectors, dy)
    _check(_computed(device, *arrays, momentum=0.0), x, vectors, dy, momentum=0.0)


def test_channels_of_different_size(device, dtype, rng):
    """Statistics are each channel's own: no big neighbour spoils a small one."""
    scales = np.array([1e-2, 1, 1e3]).reshape(1, 3, 1, 1)
    x, dy = (scales * normal(rng, (4, 3, 5, 5))).astype(dtype), normal(rng, (4, 3, 5, 5), dtype)
    vectors = _vectors(rng, 3, dtype if dtype != "float16" else "float32")
    _check(_computed(device, x, vectors, dy), x, vectors, dy)


def test_one_image_far_from_the_others(device, rng):
    """Merging of blocks: the first image says nothing about the rest."""
    x, dy = normal(rng, (40, 2, 6, 6), "float32"), normal(rng, (40, 2, 6, 6), "float32")
    x[0] += 1000
    vectors = _vectors(rng, 2, np.float32)
    _check(_computed(device, x, vectors, dy, momentum=0.0), x, vectors, dy, momentum=0.0)


@pairs(
    constant=[0.0, 1e-3, 0.1, 1.0, 1 / 3, 1e3, 1e7, 1e10, -1e10],
    shape={"small": (3, 2, 7, 7), "rows": (49, 2), "wide": (2, 2, 64, 65), "many": (600, 2, 8, 8)},
    stored=STORED,
    device=DEVICES,
    dtype=DTYPES,
    together=[("constant", "stored", "dtype")],  # how the mean is rounded depends on all of them
)
@pytest.mark.usefixtures("poisoned_memory")
def test_constant_channel_gives_exactly_beta(constant, shape, stored, device, dtype, rng):
    if dtype == "float16":
        constant = float(np.float16(np.clip(constant, -60000, 60000)))
    x = np.full(shape, constant, dtype)
    if stored == "channels_last" and len(shape) > 2:
        x = _channels_last(x)
    beta = np.array([0.3, -7.1], dtype)
    vectors = [np.array([5.0, -2.0], dtype), beta, np.zeros(2, dtype), np.ones(2, dtype)]
    dy = rng.standard_normal(shape).astype(dtype)
    y, mean, var, dx, dgamma, _ = _computed(device, x, vectors, dy, momentum=0.0)
    assert_same(y, np.broadcast_to(_by_channel(beta, x.ndim), shape).copy())
    assert_same(mean, np.full(2, constant, dtype))
    assert_same(var, np.zeros(2, dtype))
    assert_same(dgamma, np.zeros(2, dtype))
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("deviation", [1e-7, 1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("stored", ["c_order", "channels_last"])
def test_a_variance_far_below_eps_keeps_its_digits(deviation, stored, device, rng):
    """The mean is near 0 by the measure of eps only: gradients must not be taken from x itself."""
    x = (5e-3 + deviation * rng.standard_normal((64, 4, 8, 8))).astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    if stored == "channels_last":
        x, dy = _channels_last(x), _channels_last(dy)
    vectors = [np.ones(4, np.float32), np.zeros(4, np.float32), np.zeros(4, np.float32), np.ones(4, np.float32)]
    *_, dgamma, _ = _computed(device, x, vectors, dy, momentum=0.0)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=(0, 2, 3), keepdims=True)
    terms = dy * centred / np.sqrt(centred.var(axis=(0, 2, 3), keepdims=True) + 1e-5)
    # The mean is a float32: what its rounding, 5e-3 u, adds to every term stands beside the rule's 8 u of each.
    slack = 8 * np.abs(terms).sum(axis=(0, 2, 3)) + 5e-3 * np.abs(dy.sum(axis=(0, 2, 3))) / np.sqrt(1e-5)
    assert (np.abs(dgamma - terms.sum(axis=(0, 2, 3))) <= 2.0**-24 * slack).all()


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 1e-2, 1.0])
def test_eps_stands_inside_the_root(eps, training, device, rng):
    """Small variances show where eps is added."""
    x, dy = 1e-3 * normal(rng, (4, 3, 5, 5)), normal(rng, (4, 3, 5, 5))
    vectors = _vectors(rng, 3, np.float64)
    vectors[3] *= 1e-6
    _check(_computed(device, x, vectors, dy, training=training, eps=eps), x, vectors, dy, training=training, eps=eps)


def test_eps_of_zero_in_evaluation(device, rng):
    x, dy, vectors = normal(rng, (4, 3)), normal(rng, (4, 3)), _vectors(rng, 3, np.float64)
    got = _computed(device, x, vectors, dy, training=False, eps=0.0)
    _check(got, x, vectors, dy, training=False, eps=0.0)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9, 1.0])
def test_momentum_weighs_the_old_value_and_variance_is_biased(momentum, device):
    x = np.array([[1.0], [3.0], [5.0], [7.0]])  # mean 4, biased variance 5, unbiased 6.67
    vectors = [np.ones(1), np.zeros(1), np.array([2.0]), np.array([10.0])]
    _, mean, var, *_ = _computed(device, x, vectors, np.ones_like(x), momentum=momentum)
    np.testing.assert_allclose(mean, [momentum * 2 + (1 - momentum) * 4], rtol=1e-15)
    np.testing.assert_allclose(var, [momentum * 10 + (1 - momentum) * 5], rtol=1e-15)


def test_running_statistics_converge_to_those_of_the_data(device, rng):
    gamma, beta, mean, var = (device.array(a) for a in (np.ones(3), np.zeros(3), np.zeros(3), np.zeros(3)))
    x = device.array(2 * normal(rng, (20, 3, 4, 4)) + 5)
    for _ in range(60):
        gpuconv.spatial_batchnorm_forward(x, gamma, beta, mean, var, momentum=0.5)
    np.testing.assert_allclose(device.numpy(mean), device.numpy(x).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(device.numpy(var), device.numpy(x).var(axis=(0, 2, 3)), rtol=1e-12)


def test_empty_batch_changes_no_statistic(device, dtype):
    vectors = [np.ones(3, dtype), np.zeros(3, dtype), np.full(3, 7, dtype), np.full(3, 5, dtype)]
    x = np.empty((0, 3, 4, 4), dtype)
    y, mean, var, dx, dgamma, dbeta = _computed(device, x, vectors, x)
    assert y.shape == dx.shape == x.shape
    assert_same(mean, vectors[2])
    assert_same(var, vectors[3])
    assert_same(dgamma, np.zeros(3, dtype))
    assert_same(dbeta, np.zeros(3, dtype))


def test_one_value_per_channel_is_refused_and_changes_nothing(device):
    vectors = [device.array(np.full(3, v)) for v in (1.0, 0.0, 7.0, 5.0)]
    with pytest.raises(ShapeError, match=r"more than one value per channel, got x \(1, 3, 1, 1\)"):
        gpuconv.spatial_batchnorm_forward(device.array(np.ones((1, 3, 1, 1))), *vectors)
    with pytest.raises(ShapeError, match=r"more than one value per channel, got x \(1, 3\)"):
        gpuconv.batchnorm_forward(device.array(np.ones((1, 3))), *vectors)
    assert [device.numpy(v)[0] for v in vectors] == [1, 0, 7, 5]
    y, _ = gpuconv.batchnorm_forward(device.array(np.ones((1, 3))), *vectors, training=False)  # legal
    assert device.numpy(y).shape == (1, 3)


@pairs(value=[np.nan, np.inf, -np.inf], stored=STORED, device=DEVICES, dtype=DTYPES)
def test_nan_or_infinity_spoils_its_channel_only(value, stored, device, dtype, rng):
    x, dy = normal(rng, (3, 3, 4, 4), dtype), normal(rng, (3, 3, 4, 4), dtype)
    vectors = _vectors(rng, 3, dtype)
    if stored == "channels_last":
        x = _channels_last(x)
    clean = _computed(device, x, vectors, dy)
    x[1, 1, 2, 3] = value
    got = _computed(device, x, vectors, dy)
    for array in (got[0], got[3]):
        assert np.isnan(array[:, 1]).all()
    for array in (got[1], got[2], got[4]):
        assert not np.isfinite(array[1])
    for array, other in zip(got, clean, strict=True):
        others = (slice(None), [0, 2]) if array.ndim == 4 else ([0, 2],)
        assert_same(array[others], other[others])


def test_nan_in_evaluation_stays_in_its_place(device, dtype, rng):
    x, vectors = normal(rng, (3, 3, 4, 4), dtype), _vectors(rng, 3, dtype)
    x[1, 1, 2, 3] = np.nan
    y, _, _, dx, _, _ = _computed(device, x, vectors, np.ones_like(x), training=False)
    assert np.argwhere(np.isnan(y)).tolist() == [[1, 1, 2, 3]]
    assert np.isfinite(dx).all()


@pairs(stored=STORED, device=DEVICES, dtype=DTYPES)
def test_a_gradient_in_evaluation_keeps_zeros_signs_and_infinities(stored, device, dtype):
    """With statistics that are constants, dx is dy times a number, wherever x lies."""
    dy = np.array([0.0, -0.0, np.inf, -np.inf], dtype).reshape(1, 1, 2, 2).repeat(2, axis=1)
    x = np.array([np.inf, 1, 2, -3], dtype).reshape(1, 1, 2, 2).repeat(2, axis=1)
    if stored == "channels_last":
        x, dy = _channels_last(x), _channels_last(dy)
    vectors = [np.array(values, dtype) for values in ([1, -1], [1, 1], [1, 1], [1, 1])]
    dx = _computed(device, x, vectors, dy, training=False)[3]
    assert_same_bits(dx, np.array([1, -1], dtype).reshape(1, 2, 1, 1) * dy)


def test_float16_sums_do_not_overflow_on_the_way(device):
    x = np.full((1, 2, 256, 256), 256, np.float16)
    x[:, :, ::2] = -256
    vectors = [np.ones(2, np.float32), np.zeros(2, np.float32), np.zeros(2, np.float32), np.zeros(2, np.float32)]
    y, mean, var, dx, dgamma, dbeta = _computed(device, x, vectors, np.ones_like(x), momentum=0.0)
    assert_same(mean, np.zeros(2, np.float32))
    assert_same(var, np.full(2, 65536, np.float32))
    assert_same(y, np.sign(x))
    assert_same(dbeta, np.full(2, 65536, np.float32))
    assert_same(dx, np.zeros_like(x))
    assert np.abs(dgamma).max() == 0


@pytest.mark.parametrize("shape", [(131_073, 2), (131_073, 1, 1, 2), (2, 70_001, 1, 1)], ids=str)
def test_sizes_beyond_a_launch_grid(shape, device, rng):
    x, dy = whole(rng, shape, "float32", 100), normal(rng, shape, "float32")
    C, axes = shape[1], (0, *range(2, len(shape)))
    vectors = [np.ones(C, "float32"), np.zeros(C, "float32"), np.zeros(C, "float32"), np.zeros(C, "float32")]
    y, mean, var, *_ = _computed(device, x, vectors, dy, momentum=0.0)
    wide = x.astype(np.float64)
    assert_close(mean, wide.mean(axis=axes), scale=np.abs(wide).mean(axis=axes), dtype="float32")
    assert_close(
        var, wide.var(axis=axes), scale=wide.var(axis=axes) + 1e-9 * wide.mean(axis=axes) ** 2, dtype="float32"
    )
    m, i = (_by_channel(v, x.ndim) for v in (wide.mean(axis=axes), 1 / np.sqrt(wide.var(axis=axes) + 1e-5)))
    kappa = 1 + np.abs(m) * i
    assert_close(y, (wide - m) * i, scale=np.abs(wide - m) * i + kappa, dtype="float32")


# Second oracles, algebra, determinism -------------------------------------------------------------------------------


@pairs(
    shape={"images": (8, 16, 17, 19), "rows": (64, 128), "signals": (8, 16, 301), "volumes": (4, 8, 7, 9, 11)},
    stored=STORED,
    training=TRAINING,
    device=DEVICES,
    dtype=DTYPES,
)
def test_matches_pytorch(shape, training, stored, device, dtype, rng):
    """Sizes beyond the loops; PyTorch's float64 results, within what the two-pass formula allows at kappa near 1."""
    torch = pytest.importorskip("torch")
    x, dy = normal(rng, shape, dtype), normal(rng, shape, dtype)
    vectors = _vectors(rng, shape[1], dtype)
    wide = [torch.from_numpy(a.astype(np.float64)) for a in (x, *vectors)]
    for tensor in wide[:3]:
        tensor.requires_grad_()
    t, gamma, beta, running_mean, running_var = wide
    y_t = torch.nn.functional.batch_norm(t, running_mean, running_var, gamma, beta, training=training, momentum=0.1)
    grads = torch.autograd.grad(y_t, (t, gamma, beta), torch.from_numpy(dy.astype(np.float64)))
    arrays = (x, dy)
    if stored == "channels_last" and len(shape) == 4:
        arrays = _channels_last(x), _channels_last(dy)
    y, mean, _, dx, dgamma, dbeta = _computed(device, arrays[0], vectors, arrays[1], training=training)
    g = np.abs(_by_channel(vectors[0].astype(np.float64), x.ndim))
    size = np.abs(dy.astype(np.float64))
    count = x.size / shape[1]
    # |x_hat| < 8 here, kappa < 4, 1 / std < 2.
    assert_close(y, y_t.detach().numpy(), scale=np.broadcast_to(12 * g + 4, shape), dtype=dtype)
    assert_close(dx, grads[0].numpy(), scale=2 * g * (size + 8 * 12 * size.mean()), dtype=dtype)
    assert_close(dgamma, grads[1].numpy(), scale=np.full(shape[1], 12 * count), dtype=dtype)
    assert_close(dbeta, grads[2].numpy(), scale=np.full(shape[1], 4 * count), dtype=dtype)
    assert_close(mean, running_mean.numpy(), scale=np.full(shape[1], 8.0), dtype=dtype)


@given(
    st.tuples(st.integers(2, 6), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    st.integers(0, 2**32),
    st.sampled_from([1.0, 1e3]),
)
def test_output_has_mean_beta_and_deviation_gamma(device, shape, seed, offset):
    """To rounding: x_hat's variance is variance / (variance + eps), known exactly."""
    rng = np.random.default_rng(seed)
    x, vectors = normal(rng, shape) + offset, _vectors(rng, shape[1], np.float64)
    y, *_ = _computed(device, x, vectors, x)
    axes, (gamma, beta) = (0, 2, 3), vectors[:2]
    var = x.var(axis=axes)
    kappa = 1 + np.abs(x.mean(axis=axes)) / np.sqrt(var + 1e-5)
    bound = 64 * 2.0**-53 * (np.abs(gamma) * kappa + np.abs(beta)) * (1 + kappa)
    assert (np.abs(y.mean(axis=axes) - beta) <= bound).all()
    assert (np.abs(y.std(axis=axes) - np.abs(gamma) * np.sqrt(var / (var + 1e-5))) <= bound).all()


@given(
    st.one_of(
        st.tuples(st.integers(0, 6), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
        st.tuples(st.integers(0, 20), st.integers(1, 9)),
    ).filter(lambda shape: shape[0] != 1 or np.prod(shape[2:]) > 1),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_random_sizes_match_oracle(device, shape, seed, training):
    rng = np.random.default_rng(seed)
    x, dy, vectors = normal(rng, shape), normal(rng, shape), _vectors(rng, shape[1], np.float64)
    _check(_computed(device, x, vectors, dy, training=training), x, vectors, dy, training=training)


def test_input_gradient_is_blind_to_shift_and_scale(device, rng):
    """In training sum(dx) = 0 and sum(dx x_hat) = 0 in every channel (but for eps): moving a channel changes nothing."""
    x, dy, vectors = normal(rng, (4, 3, 6, 6)), normal(rng, (4, 3, 6, 6)), _vectors(rng, 3, np.float64)
    dx = _computed(device, x, vectors, dy, eps=1e-15)[3]
    size = np.abs(dx).sum(axis=(0, 2, 3))
    assert (np.abs(dx.sum(axis=(0, 2, 3))) <= 1e-13 * size).all()
    assert (np.abs((dx * x).sum(axis=(0, 2, 3))) <= 1e-13 * size * np.abs(x).max()).all()


@pytest.mark.parametrize("stored", ["c_order", "channels_last"])
def test_same_bits_every_time_and_for_any_number_of_threads(stored, training, device, rng, monkeypatch):
    x, dy = normal(rng, (50, 16, 20, 20), "float32"), normal(rng, (50, 16, 20, 20), "float32")
    vectors = _vectors(rng, 16, np.float32)
    if stored == "channels_last":
        x, dy = _channels_last(x), _channels_last(dy)
    runs = []
    for threads in ("1", "2", "3", "2"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        runs.append([a.tobytes() for a in _computed(device, x, vectors, dy, training=training)])
    assert all(run == runs[0] for run in runs)
