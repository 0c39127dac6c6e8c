"""Batch normalisation of gpuconv.cudnn, with cuDNN's conventions, against their formulas in float64.

The running statistics are array expressions, so that where they move the places are those whose arrays have arithmetic.
"""

import numpy as np
import pytest
from compare import assert_close, assert_same, normal
from pairs import DEVICES, DTYPES, pairs
from places import CPU, GPU, place

from gpuconv import cudnn

pytestmark = pytest.mark.core

EPS = 1e-5
ON = pytest.mark.parametrize("where", [CPU, GPU])
LAYOUTS = {  # shape, is_for_conv2d, mode, d_layout, channel axis
    "images": ((3, 4, 5, 2), True, cudnn.CUDNN_BATCHNORM_SPATIAL, 0, 1),
    "images_channels_last": ((3, 5, 2, 4), True, cudnn.CUDNN_BATCHNORM_SPATIAL_PERSISTENT, 1, 3),
    "signals": ((3, 4, 5), True, cudnn.CUDNN_BATCHNORM_SPATIAL, 1, 1),
    "volumes": ((2, 4, 3, 5, 2), True, cudnn.CUDNN_BATCHNORM_SPATIAL, 0, 1),
    "rows": ((6, 4), False, cudnn.CUDNN_BATCHNORM_PER_ACTIVATION, 0, 1),
    "one_axis": ((4,), False, cudnn.CUDNN_BATCHNORM_PER_ACTIVATION, 0, 0),
    "last_axis": ((3, 2, 4), False, cudnn.CUDNN_BATCHNORM_PER_ACTIVATION, 1, 2),
    "one_value": ((1, 4), False, cudnn.CUDNN_BATCHNORM_PER_ACTIVATION, 0, 1),
}


def along(vector, shape, axis):
    """Return a vector with its entries along an axis."""
    return vector.astype(np.float64).reshape([-1 if a == axis else 1 for a in range(len(shape))])


def vectors(rng, dtype):
    gamma, beta, mean = (normal(rng, (4,), dtype) for _ in range(3))
    return gamma, beta, mean, np.abs(normal(rng, (4,), dtype)) + 1


def formula(x, gamma, beta, axis):
    """Return y, its scale, mean, biased variance and 1 / sqrt(variance + eps), in float64."""
    x64 = x.astype(np.float64)
    axes = tuple(a for a in range(x.ndim) if a != axis)
    mean, var = x64.mean(axes), x64.var(axes)
    inv_std = 1 / np.sqrt(var + EPS)
    of = [along(v, x.shape, axis) for v in (gamma, beta, mean, inv_std)]
    size = np.abs(of[0]) * (np.abs(x64) + np.abs(of[2])) * of[3] + np.abs(of[1])
    return of[0] * (x64 - of[2]) * of[3] + of[1], size, mean, var, inv_std


@ON
@pairs(case=LAYOUTS, dtype=DTYPES, parameters=["own", "wide"])
def test_training_normalises_by_the_biased_variance_and_keeps_the_unbiased(rng, where, case, dtype, parameters):
    device = place(where)
    shape, conv, mode, layout, axis = case
    wide = "float64" if dtype == "float64" else "float32"
    x = normal(rng, shape, dtype)
    arrays = vectors(rng, dtype if parameters == "own" else wide)
    gamma, beta, running_mean, running_var = (device.array(a.copy()) for a in arrays)
    result = cudnn.batch_normalization_forward_training(
        device.array(x), gamma, beta, running_mean, running_var, None, None, EPS, 0.75, conv, mode, False, layout
    )
    y, mean, inv_std = map(device.numpy, result)
    ref, size, *moments = formula(x, *arrays[:2], axis)
    count = x.size // 4
    assert_close(y, ref, scale=size, dtype=dtype, terms=count, zero_mean=False)
    ref_mean, ref_var, ref_inv_std = moments
    assert_close(mean, ref_mean, scale=np.abs(x).max() * np.ones(4), dtype=wide, terms=count, zero_mean=False)
    assert_close(inv_std, ref_inv_std, scale=ref_inv_std, dtype=wide, terms=count, zero_mean=False)
    for got, before, batch in (
        (running_mean, arrays[2], ref_mean),
        (running_var, arrays[3], ref_var * count / max(count - 1, 1)),
    ):
        expected = 0.75 * before.astype(np.float64) + 0.25 * batch
        bound = np.abs(before.astype(np.float64)) + np.abs(x.astype(np.float64)).max() ** 2 + 1
        assert_close(device.numpy(got), expected, scale=bound, dtype=before.dtype, terms=count, zero_mean=False)


@pytest.mark.parametrize("ex", [False, True])
def test_saved_statistics_are_filled_in_place_and_the_shape_of_parameters_is_kept(rng, device, ex):
    x = device.array(normal(rng, (2, 4, 3, 3), "float32"))
    arrays = [device.array(v.reshape(1, 4, 1, 1)) for v in vectors(rng, "float32")]
    mean, inv_std = (device.array(np.full((1, 4, 1, 1), np.nan, "float32")) for _ in range(2))
    rest = EPS, 1.0, True, cudnn.CUDNN_BATCHNORM_SPATIAL, True
    returned = cudnn.batch_normalization_forward_training(x, *arrays, None, None, *rest)
    if ex:
        reserve, y = cudnn.batch_normalization_forward_training_ex(x, *arrays, mean, inv_std, *rest)
        assert reserve is None
        assert len(cudnn.batch_normalization_forward_training_ex(x, *arrays, None, None, *rest)) == 4
    else:
        y = cudnn.batch_normalization_forward_training(x, *arrays, mean, inv_std, *rest)
    for got, expected in zip((y, mean, inv_std), returned, strict=True):
        assert_same(device.numpy(got), device.numpy(expected))
    with pytest.raises(ValueError, match="given together"):
        cudnn.batch_normalization_forward_training(x, *arrays, mean, None, *rest)


def test_decay_of_one_leaves_the_running_arrays_which_may_be_beta(rng, device):
    x, gamma, zero = normal(rng, (1, 4, 3, 3), "float32"), np.ones(4, "float32"), np.zeros(4, "float32")
    shared = device.array(zero)
    y, _, _ = cudnn.batch_normalization_forward_training(
        device.array(x), device.array(gamma), shared, shared, shared, None, None, EPS, 1.0, True, 1, False
    )
    ref, size, *_ = formula(x, gamma, zero, 1)
    assert_close(device.numpy(y), ref, scale=size, dtype="float32", terms=9, zero_mean=False)
    assert_same(device.numpy(shared), zero)


@pairs(case=LAYOUTS, device=DEVICES, dtype=DTYPES, parameters=["own", "wide"])
def test_inference_and_backward_follow_their_formulas(rng, case, device, dtype, parameters):
    shape, conv, mode, layout, axis = case
    wide = "float64" if dtype == "float64" else "float32"
    x, gy = normal(rng, shape, dtype), normal(rng, shape, dtype)
    gamma, beta, mean, var = vectors(rng, dtype if parameters == "own" else wide)
    y = cudnn.batch_normalization_forward_inference(
        *map(device.array, (x, gamma, beta, mean)), device.array(np.repeat(var, 2))[::2], EPS, conv, mode, layout
    )
    of_gamma, of_beta, of_mean, of_var = (along(v, shape, axis) for v in (gamma, beta, mean, var))
    root = np.sqrt(of_var + EPS)
    size = np.abs(of_gamma) * (np.abs(x) + np.abs(of_mean)) / root + np.abs(of_beta)
    assert_close(device.numpy(y), of_gamma * (x - of_mean) / root + of_beta, scale=size, dtype=dtype)

    _, _, batch_mean, _, inv_std = formula(x, gamma, beta, axis)
    saved = [v.astype(wide) for v in (batch_mean, inv_std)]
    got = cudnn.batch_normalization_backward(
        *map(device.array, (x, gamma, gy, *saved)), EPS, conv, mode, False, layout, reserve_space=None
    )
    gx, ggamma, gbeta = map(device.numpy, got)
    axes, count = tuple(a for a in range(x.ndim) if a != axis), x.size // 4
    of_mean, of_inv = (along(v, shape, axis) for v in saved)
    x64, gy64 = x.astype(np.float64), gy.astype(np.float64)
    unit, wide_unit = (x64 - of_mean) * of_inv, (np.abs(x64) + np.abs(of_mean)) * of_inv
    vector_dtype = wide if gamma.dtype == wide else dtype
    ref = {"gamma": (gy64 * unit).sum(axes), "beta": gy64.sum(axes)}
    sizes = {"gamma": (np.abs(gy64) * wide_unit).sum(axes), "beta": np.abs(gy64).sum(axes)}
    for name, vector in (("gamma", ggamma), ("beta", gbeta)):
        assert_close(vector, ref[name], scale=sizes[name], dtype=vector_dtype, terms=count, zero_mean=False)
    by = [along(v / count, shape, axis) for v in (*ref.values(), *sizes.values())]
    expected = of_gamma * of_inv * (gy64 - by[1] - unit * by[0])
    size = np.abs(of_gamma) * of_inv * (np.abs(gy64) + by[3] + wide_unit * by[2])
    assert_close(gx, expected, scale=size, dtype=dtype, terms=count, zero_mean=False)


def test_an_empty_batch_is_empty_and_changes_nothing(rng):
    x, arrays = np.zeros((0, 4, 3, 3)), vectors(rng, "float64")
    before = [a.copy() for a in arrays]
    y, mean, inv_std = cudnn.batch_normalization_forward_training(x, *arrays, None, None, EPS, 0.5, True, 1, False)
    gx, ggamma, gbeta = cudnn.batch_normalization_backward(x, arrays[0], x, mean, inv_std, EPS, True, 1, False)
    assert y.shape == gx.shape == x.shape
    assert not ggamma.any()
    assert not gbeta.any()
    assert cudnn.batch_normalization_forward_inference(x, *arrays, EPS, True, 1).shape == x.shape
    for after, value in zip(arrays, before, strict=True):
        assert_same(after, value)


@pairs(case=LAYOUTS, device=DEVICES, dtype=DTYPES)
def test_without_running_statistics_the_results_are_the_same(rng, case, device, dtype):
    shape, conv, mode, layout, _ = case
    x, (gamma, beta, mean, var) = device.array(normal(rng, shape, dtype)), map(device.array, vectors(rng, dtype))
    rest = None, None, EPS, 1.0, conv, mode, False, layout
    with_them = cudnn.batch_normalization_forward_training(x, gamma, beta, mean, var, *rest)
    without = cudnn.batch_normalization_forward_training(x, gamma, beta, None, None, *rest)
    reserve, *extended = cudnn.batch_normalization_forward_training_ex(x, gamma, beta, None, None, *rest)
    assert reserve is None
    for results in (without, extended):
        for got, expected in zip(results, with_them, strict=True):
            assert_same(device.numpy(got), device.numpy(expected))


TRAINING = "gamma", "beta", "running_mean", "running_var", "mean", "inv_std"


@pytest.mark.parametrize("alone", TRAINING[2:])
def test_statistics_are_given_in_pairs(alone):
    given = dict.fromkeys(TRAINING[2:]) | {alone: np.ones(4)}
    with pytest.raises(ValueError, match=f"{alone}.* must be given together|and {alone} must be given together"):
        cudnn.batch_normalization_forward_training(
            np.ones((2, 4)), np.ones(4), np.ones(4), *given.values(), EPS, 0.5, False, 0, False
        )


@pytest.mark.parametrize("short", TRAINING)
def test_a_vector_of_another_size_is_refused_before_anything_is_written(rng, short):
    given = {name: np.ones(3 if name == short else 4) for name in TRAINING}
    with pytest.raises(cudnn.CuDNNError, match=f"BAD_PARAM\n{short} must have 4 entries"):
        cudnn.batch_normalization_forward_training(normal(rng, (3, 4)), *given.values(), EPS, 0.5, False, 0, False)
    assert all((vector == 1).all() for vector in given.values())


def test_a_gradient_unlike_x_is_refused(rng):
    x, vector = normal(rng, (2, 4, 3, 3)), np.ones(4)
    for gy in (x[:1], x.astype("float32"), x.transpose(0, 1, 3, 2)[..., :2]):
        with pytest.raises(cudnn.CuDNNError, match="gy must have the shape and dtype of x"):
            cudnn.batch_normalization_backward(x, vector, gy, vector, vector, EPS, True, 1, False)


def test_what_cudnn_refused_is_refused(rng):
    x, arrays = normal(rng, (2, 4, 3, 3)), vectors(rng, "float64")
    for wrong in ((x, *arrays[:3], np.ones(3)), (x[0], *arrays)):
        with pytest.raises(cudnn.CuDNNError, match="BAD_PARAM"):
            cudnn.batch_normalization_forward_inference(*wrong, EPS, True, 1)
    for shape, conv in (((3, 4), True), ((1, 4, 1, 1, 1, 1), True), ((), False)):
        with pytest.raises(cudnn.CuDNNError, match=r"x must have (3 to 5 axes|an axis)"):
            cudnn.batch_normalization_forward_inference(np.ones(shape), *arrays, EPS, conv, 1)
    for mode in (-1, 3):
        with pytest.raises(cudnn.CuDNNError, match="cudnn_mode must be 0, 1 or 2"):
            cudnn.batch_normalization_forward_inference(x, *arrays, EPS, True, mode)
    for no_floats in (x.astype(int), x.astype(">f8")):
        with pytest.raises(TypeError, match="x must be float16"):
            cudnn.batch_normalization_forward_inference(no_floats, *arrays, EPS, True, 1)
    with pytest.raises(TypeError, match="beta must be a NumPy or CuPy array"):
        cudnn.batch_normalization_forward_inference(x, arrays[0], [1, 2, 3, 4], *arrays[2:], EPS, True, 1)
    with pytest.raises(TypeError, match="gamma must be an array"):
        cudnn.batch_normalization_forward_inference(x, None, *arrays[1:], EPS, True, 1)
    with pytest.raises(ValueError, match="d_layout"):
        cudnn.batch_normalization_forward_inference(x, *arrays, EPS, True, 1, 2)
