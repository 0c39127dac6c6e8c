"""Every layer by itself: gradients, names, caches, arguments."""

import numpy as np
import pytest
from compare import assert_same, normal, whole
from nn_checks import spread

import gpuconv
from gpuconv import nn, testing
from gpuconv.errors import ArgTypeError, CacheError, DTypeError, GpuconvError, ParamError, ShapeError
from gpuconv.random import Stream, generator
from gpuconv.train import precision

# name -> (layer, shape of x)
LAYERS = {
    "conv": (lambda: nn.Conv(2, 3, pad=1), (2, 2, 4, 5)),
    "conv_without_bias": (lambda: nn.Conv(2, 3, 2, bias=False), (2, 2, 3, 4)),
    "conv_every_argument": (
        lambda: nn.Conv(4, 6, (2, 3), stride=(1, 2), pad=(0, 2), dilation=(2, 1), groups=2, init="xavier"),
        (2, 4, 5, 4),
    ),
    "conv_padded_behind": (lambda: nn.Conv(2, 3, stride=2, pad=((0, 1), 1)), (2, 2, 4, 5)),
    "conv_same": (lambda: nn.Conv(2, 3, (2, 3), pad="same", dilation=(1, 2)), (2, 2, 3, 4)),
    "conv_transpose_cut_behind": (lambda: nn.ConvTranspose(2, 3, stride=2, pad=((0, 1), (1, 0))), (2, 2, 3, 2)),
    "conv_transpose": (lambda: nn.ConvTranspose(2, 3, 2, stride=2), (2, 2, 3, 4)),
    "conv_transpose_without_bias": (lambda: nn.ConvTranspose(2, 3, pad=1, bias=False), (2, 2, 3, 4)),
    "conv_transpose_every_argument": (
        lambda: nn.ConvTranspose(
            4, 6, (2, 3), stride=(2, 3), pad=(0, 1), output_pad=(1, 2), dilation=(2, 1), groups=2, init="xavier"
        ),
        (2, 4, 3, 2),
    ),
    "conv_frozen": (lambda: nn.Conv(2, 3, 2, frozen=True), (2, 2, 3, 4)),
    "conv_frozen_without_bias": (lambda: nn.Conv(2, 3, 2, bias=False, frozen=True), (2, 2, 3, 4)),
    "conv_of_identities": (lambda: nn.Conv(2, 3, pad=1, init="dirac"), (2, 2, 3, 4)),
    "affine": (lambda: nn.Affine(4, 3), (5, 4)),
    "affine_of_images": (lambda: nn.Affine(12, 3, bias=False, init=0.5), (3, 2, 2, 3)),
    "batchnorm_of_rows": (lambda: nn.BatchNorm(3), (6, 3)),
    "batchnorm_of_images": (lambda: nn.BatchNorm(3, momentum=0.5, eps=1e-2), (2, 3, 3, 2)),
    "batchnorm_without_scale": (lambda: nn.BatchNorm(3, momentum=0.6, eps=1e-12, scale=False), (2, 3, 3, 2)),
    "batchnorm_of_rows_without_scale": (lambda: nn.BatchNorm(3, scale=False), (6, 3)),
    "groupnorm": (lambda: nn.GroupNorm(4, 2, eps=1e-2), (2, 4, 3, 2)),
    "groupnorm_of_images": (lambda: nn.GroupNorm(3, 1), (2, 3, 2, 3)),
    "groupnorm_of_channels": (lambda: nn.GroupNorm(2, 2), (3, 2, 2, 3)),
    "layernorm": (lambda: nn.LayerNorm(5), (4, 5)),
    "layernorm_eps": (lambda: nn.LayerNorm(3, eps=0.1), (2, 3)),
    "max_pool": (nn.MaxPool, (2, 2, 4, 4)),
    "max_pool_overlapping": (lambda: nn.MaxPool(3, stride=2, pad=1), (2, 2, 5, 6)),
    "max_pool_of_odd_windows": (
        lambda: nn.MaxPool((2, 3), stride=2, pad=((0, 1), 1), dilation=(2, 1), ceil=True),
        (2, 2, 5, 6),
    ),
    "max_pool_same": (lambda: nn.MaxPool(2, stride=1, pad="same"), (2, 2, 3, 4)),
    "average_pool_of_odd_windows": (lambda: nn.AveragePool(3, stride=2, pad=((1, 0), 0), ceil=True), (2, 2, 4, 6)),
    "average_pool_dilated": (lambda: nn.AveragePool(2, stride=1, dilation=(1, 2), count_pad=False), (2, 2, 4, 5)),
    "average_pool": (lambda: nn.AveragePool((2, 3), stride=1, pad=1, count_pad=False), (2, 2, 4, 4)),
    "adaptive_average_pool": (lambda: nn.AdaptiveAveragePool((3, 2)), (2, 2, 4, 5)),
    "adaptive_average_pool_of_columns": (lambda: nn.AdaptiveAveragePool((None, 3)), (2, 2, 3, 5)),
    "adaptive_average_pool_to_one": (lambda: nn.AdaptiveAveragePool(1), (2, 2, 3, 5)),
    "global_average_pool": (nn.GlobalAveragePool, (2, 3, 2, 4)),
    "upsample": (nn.Upsample, (2, 3, 2, 3)),
    "upsample_linear": (lambda: nn.Upsample((2, 3), mode="linear"), (2, 2, 3, 2)),
    "upsample_corners": (lambda: nn.Upsample(2, mode="linear", align_corners=True), (2, 2, 3, 2)),
    "relu": (nn.Relu, (3, 4)),
    "silu": (nn.Silu, (3, 4)),
    "leaky_relu": (nn.LeakyRelu, (3, 4)),
    "leaky_relu_steep": (lambda: nn.LeakyRelu(2.5), (2, 3, 2, 2)),
    "gelu": (nn.Gelu, (3, 4)),
    "gelu_tanh": (lambda: nn.Gelu(approximate="tanh"), (2, 3, 2, 2)),
    "scale": (lambda: nn.Scale(-0.25), (2, 3, 2, 2)),
    "dropout": (lambda: nn.Dropout(0.3), (6, 5)),
    "flatten": (nn.Flatten, (2, 3, 2, 4)),
    "sequential": (lambda: nn.Sequential(nn.Conv(2, 3), nn.Gelu(), nn.Flatten(), nn.Affine(12, 2)), (2, 2, 4, 4)),
    "residual": (lambda: nn.Residual(nn.Sequential(nn.Conv(2, 2, pad=1), nn.Gelu())), (2, 2, 3, 3)),
    "residual_with_shortcut": (lambda: nn.Residual(nn.Conv(2, 3, stride=2, pad=1), nn.Conv(2, 3, 1, stride=2)), (2, 2, 4, 4)),
}  # fmt: skip
each_layer = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS.keys())


@each_layer
def test_gradients_are_central_differences(rng, make, shape):
    layer, x = make().create(seed=1, dtype="float64"), spread(rng, shape)
    for array in layer.params.values():
        array[...] += 0.3 * normal(rng, array.shape)  # biases, gamma and beta off their special values
    dy = normal(rng, (shape[0], *layer.output_shape(shape[1:])))
    layer.forward(x, training=True, step=3)
    gradients = {"x": layer.backward(dy), **layer.grads}
    assert set(layer.grads) == set(layer.params)
    assert [name for name, gradient in gradients.items() if np.abs(gradient).max() < 1e-3] == []  # which shows nothing
    assert testing.gradcheck_layer(layer, x, step=3, dy=dy)


@each_layer
def test_output_has_the_promised_shape_and_dtype(rng, make, shape):
    layer, x = make().create(dtype="float32"), normal(rng, shape, "float32")
    for training in (True, False):
        y = layer.forward(x, training=training)
        assert y.shape == (shape[0], *layer.output_shape(shape[1:]))
        assert y.dtype == np.float32


@each_layer
def test_without_input_grad_the_parameters_get_the_same_gradients(rng, make, shape):
    layer, x = make().create(), normal(rng, shape, "float32")
    dy = normal(rng, layer.forward(x, training=True).shape, "float32")
    assert layer.backward(dy).shape == shape
    expected = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.forward(x, training=True)
    assert layer.backward(dy, input_grad=False) is None
    for name, grad in layer.grads.items():
        assert_same(grad, expected[name])


@each_layer
def test_backward_needs_a_training_forward_each_time(rng, make, shape):
    layer, x = make().create(), normal(rng, shape, "float32")
    dy = np.ones_like(layer.forward(x))
    for input_grad in (True, False):
        with pytest.raises(CacheError, match="needs a forward"):
            layer.backward(dy, input_grad=input_grad)
    layer.forward(x, training=True)
    layer.backward(dy)
    with pytest.raises(CacheError):
        layer.backward(dy)
    layer.forward(x, training=True)
    layer.forward(x)
    with pytest.raises(CacheError):
        layer.backward(dy)


@each_layer
def test_inference_keeps_no_cache_and_backward_gives_it_back(rng, make, shape):
    layer, x = make().create(), normal(rng, shape, "float32")

    def remembered():
        return [name for name, leaf in layer.leaves() if leaf._cache is not None]

    dy = np.ones_like(layer.forward(x))
    assert not remembered()
    layer.forward(x, training=True)
    assert len(remembered()) == len(list(layer.leaves()))
    layer.backward(dy, input_grad=False)
    assert not remembered()


def test_what_a_pool_does_without_is_not_written():
    """Configs of nets without later settings are those of older checkpoints."""
    assert nn.MaxPool(2, dilation=1, ceil=False).config == {"layer": "MaxPool", "window": 2, "stride": None, "pad": 0}
    assert set(nn.AveragePool(2).settings) == {"window", "stride", "pad", "count_pad"}
    assert nn.MaxPool(2, stride=1, pad=((0, 1), 1), dilation=(1, 2), ceil=True).settings == {
        "window": 2, "stride": 1, "pad": [[0, 1], 1], "dilation": [1, 2], "ceil": True,
    }  # fmt: skip


@each_layer
def test_repr_of_a_layer_makes_it_again(make, shape):
    layer = make()
    if layer.children():
        assert all(repr(leaf) in repr(layer) for _, leaf in layer.leaves())
    else:
        again = eval(repr(layer), vars(nn))
        assert again.config == layer.config


def test_parameters_have_the_documented_names_and_shapes():
    conv = nn.Conv(4, 6, (2, 3), groups=2).create()
    assert {name: array.shape for name, array in conv.params.items()} == {"w": (6, 2, 2, 3), "b": (6,)}
    assert {name: array.shape for name, array in nn.Affine(4, 3).create().params.items()} == {"w": (4, 3), "b": (3,)}
    bn = nn.BatchNorm(5).create()
    assert {name: array.shape for name, array in bn.params.items()} == {"gamma": (5,), "beta": (5,)}
    assert {name: array.tolist() for name, array in bn.state.items()} == {
        "running_mean": [0.0] * 5,
        "running_var": [1.0] * 5,
    }
    assert list(nn.Conv(4, 6, bias=False).create().params) == ["w"]
    for norm in (nn.GroupNorm(6, 2), nn.LayerNorm(6)):
        assert {name: array.shape for name, array in norm.create().params.items()} == {"gamma": (6,), "beta": (6,)}
        assert not norm.state


def test_layers_of_a_kind_are_numbered_by_its_last_word():
    norms = nn.Sequential(nn.GroupNorm(4, 2), nn.MaxPool(), nn.GlobalAveragePool(), nn.LayerNorm(4))
    assert list(norms.layers) == ["norm1", "pool1", "pool2", "norm2"]


# Initial weights ----------------------------------------------------------------------------------------------------


def test_initial_weights_are_the_documented_draws():
    draws = generator(7, Stream.INIT, 0).standard_normal((64, 8, 3, 3))
    assert_same(nn.Conv(8, 64).create(seed=7).params["w"], np.sqrt(2 / 72) * draws, dtype="float32")
    assert_same(nn.Conv(8, 64, init=0.25).create(seed=7, dtype="float64").params["w"], 0.25 * draws)
    limit = np.sqrt(6 / (30 + 20))
    draws = generator(7, Stream.INIT, 0).uniform(-limit, limit, (30, 20))
    assert_same(nn.Affine(30, 20, init="xavier").create(seed=7, dtype="float64").params["w"], draws)


def test_filters_of_identities_pass_channels_on():
    limit = 1 / np.sqrt(3 * 6)
    draws = generator(7, Stream.INIT, 0).uniform(-limit, limit, (5, 3, 2, 3))
    assert_same(nn.Conv(3, 5, (2, 3), init="uniform").create(seed=7, dtype="float64").params["w"], draws)
    w = nn.Conv(3, 5, (2, 3), init="dirac").create(seed=7, dtype="float64").params["w"]
    assert_same(w[3:], draws[3:])
    for i in range(3):
        assert w[i].sum() == w[i, i, 1, 1] == 1
        assert np.count_nonzero(w[i]) == 1
    narrow = nn.Conv(4, 2, 3, pad=1, init="dirac").create(dtype="float64")
    x = normal(np.random.default_rng(1), (2, 4, 3, 3))
    assert_same(narrow.forward(x), x[:, :2])


def test_frozen_weights_are_state():
    conv = nn.Conv(2, 3, frozen=True).create(seed=7, dtype="float64")
    assert list(conv.params) == list(conv.grads) == ["b"]
    assert_same(conv.state["w"], nn.Conv(2, 3).create(seed=7, dtype="float64").params["w"])
    assert nn.Conv(2, 3, bias=False, frozen=True).trainable is False
    bn = nn.BatchNorm(3, scale=False).create()
    assert list(bn.params) == ["beta"]
    assert list(bn.state) == ["gamma", "running_mean", "running_var"]
    assert (bn.state["gamma"] == 1).all()
    net = nn.Net(nn.Sequential(nn.Conv(2, 3, frozen=True), nn.Conv(3, 4), nn.BatchNorm(4, scale=False)), (2, 8, 8))
    assert (net.flat_params.size, net.decayed) == (3 + 108 + 4 + 4, 108)
    assert_same(net.params["conv2.w"], nn.Net(nn.Sequential(nn.Conv(2, 3), nn.Conv(3, 4)), (2, 8, 8)).params["conv2.w"])


@pytest.mark.parametrize(
    ("init", "variance"),
    {"uniform": 1 / (3 * 16 * 9), "he": 2 / (16 * 9), "xavier": 2 / (16 * 9 + 64 * 9), 0.01: 1e-4}.items(),
    ids=str,
)
def test_initial_weights_have_the_variance_of_their_rule(init, variance):
    w = nn.Conv(16, 64, init=init).create().params["w"]
    # The variance of 9216 draws is off by a share of sqrt(2 / 9216) = 1.5 %, one standard deviation.
    assert abs(w.var() / variance - 1) < 0.06
    assert abs(w.mean()) < 4 * np.sqrt(variance / w.size)


def test_biases_and_beta_start_at_zero_gamma_at_one():
    assert not nn.Conv(1, 2).create().params["b"].any()
    assert not nn.Affine(1, 2).create().params["b"].any()
    for norm in (nn.BatchNorm(2), nn.GroupNorm(2, 1), nn.LayerNorm(2)):
        norm.create()
        assert not norm.params["beta"].any()
        assert (norm.params["gamma"] == 1).all()


# Batch norm, dropout, flatten ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 2, 5)], ids=["rows", "images"])
def test_batchnorm_running_statistics_follow_the_batches(rng, shape):
    bn = nn.BatchNorm(3, momentum=0.75).create(dtype="float64")
    mean, var = np.zeros(3), np.ones(3)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    for _ in range(4):
        x = 3 + 2 * normal(rng, shape)
        bn.forward(x, training=True)
        mean, var = 0.75 * mean + 0.25 * x.mean(axes), 0.75 * var + 0.25 * x.var(axes)
    np.testing.assert_allclose(bn.state["running_mean"], mean, rtol=1e-14)
    np.testing.assert_allclose(bn.state["running_var"], var, rtol=1e-14)
    before = {name: array.copy() for name, array in bn.state.items()}
    y = bn.forward(x)
    wide = (1, 3) + (1,) * (len(shape) - 2)
    np.testing.assert_allclose(y, (x - mean.reshape(wide)) / np.sqrt(var.reshape(wide) + 1e-5), rtol=1e-12, atol=1e-14)
    for name, array in bn.state.items():
        assert_same(array, before[name])


def test_float16_steps_keep_the_parameters_of_norms_in_float32(rng):
    norms = nn.Sequential(nn.BatchNorm(4), nn.GroupNorm(4, 2), nn.Flatten(), nn.LayerNorm(16), nn.Affine(16, 3))
    net = nn.Net(norms, (4, 2, 2), seed=1)
    steps = precision.arithmetic(net, "float16", 1)
    steps.begin()
    _, dy = steps.loss(steps.forward(normal(rng, (8, 4, 2, 2), "float16"), step=0), np.arange(8) % 3, label_smoothing=0)
    steps.backward(dy)
    assert dy.dtype == np.float32
    for name, leaf in net.body.leaves():
        for key in leaf.params:
            used = leaf.weight(key, np.zeros(1, np.float16))
            assert used.dtype == (np.float32 if name in ("bn1", "norm1", "norm2") else np.float16)
            assert leaf.grads[key].dtype == np.float32
            assert leaf.grads[key].any()


def test_dropout_draws_by_seed_step_and_place_in_the_net():
    x = np.ones((4, 50), np.float32)

    def net(seed):
        return nn.Net(nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5), nn.Dropout(0.5)), (50,), seed=seed)

    def masks(seed, step):
        return [layer.forward(x, training=True, step=step) for layer in net(seed).body.layers.values()]

    for again, first in zip(masks(3, 5), masks(3, 5), strict=True):
        assert_same(again, first)
    different = [mask.tobytes() for seed in (3, 4) for step in range(4) for mask in masks(seed, step)]
    assert len(set(different)) == 2 * 4 * 3, "two draws of one run are equal"
    for step in range(2):
        for index, mask in enumerate(masks(3, step)):
            expected, _ = gpuconv.dropout_forward(x, rate=0.5, seed=3, step=3 * step + index)
            assert_same(mask, expected)


def test_dropout_does_nothing_at_inference(rng):
    x = normal(rng, (4, 5), "float32")
    assert_same(nn.Dropout(0.9).forward(x), x)


def test_flatten_goes_by_channel_row_column_in_either_memory_format(rng):
    x = whole(rng, (2, 3, 4, 5), "float32")
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    dy = whole(rng, (2, 60), "float32")
    for images in (x, last):
        flatten = nn.Flatten()
        assert_same(flatten.forward(images, training=True), x.reshape(2, 60))
        dx = flatten.backward(dy)
        assert_same(dx, dy.reshape(x.shape))
        assert dx.transpose(0, 2, 3, 1).flags.c_contiguous == (images is last), "the gradient left the memory format"


# Arguments ----------------------------------------------------------------------------------------------------------

BAD = {
    "channels_not_whole": (lambda: nn.Conv(3.0, 8), ArgTypeError, "in_channels"),
    "no_filters": (lambda: nn.Conv(3, 0), ParamError, "filters"),
    "window_of_three_numbers": (lambda: nn.Conv(3, 8, (3, 3, 3)), ParamError, "window"),
    "window_zero": (lambda: nn.Conv(3, 8, 0), ParamError, "window"),
    "transpose_of_no_channels": (lambda: nn.ConvTranspose(0, 8), ParamError, "in_channels"),
    "transpose_groups_do_not_divide_filters": (lambda: nn.ConvTranspose(4, 7, groups=2), ParamError, "groups=2"),
    "transpose_output_pad_of_a_whole_stride": (
        lambda: nn.ConvTranspose(4, 8, stride=2, output_pad=2),
        ParamError,
        "output_pad must be less than stride or dilation",
    ),
    "transpose_init_unknown": (lambda: nn.ConvTranspose(4, 8, init="dirac"), ParamError, "init"),
    "upsample_by_nothing": (lambda: nn.Upsample(0), ParamError, "factor"),
    "upsample_of_three_axes": (lambda: nn.Upsample((2, 2, 2)), ParamError, "factor"),
    "upsample_mode_unknown": (lambda: nn.Upsample(mode="bilinear"), ParamError, 'mode must be "nearest" or "linear"'),
    "upsample_corners_of_nearest": (lambda: nn.Upsample(align_corners=True), ParamError, 'needs mode="linear"'),
    "stride_zero": (lambda: nn.Conv(3, 8, stride=0), ParamError, "stride"),
    "pad_negative": (lambda: nn.Conv(3, 8, pad=-1), ParamError, "pad"),
    "pad_float": (lambda: nn.Conv(3, 8, pad=1.0), ArgTypeError, "pad"),
    "pad_of_four_sides": (lambda: nn.Conv(3, 8, pad=(1, 1, 1, 1)), ParamError, "pad must be an int or a pair"),
    "pad_valid": (lambda: nn.Conv(3, 8, pad="valid"), ParamError, 'pad must be numbers or "same"'),
    "pad_same_with_a_stride": (lambda: nn.Conv(3, 8, stride=2, pad="same"), ParamError, 'pad="same" needs stride=1'),
    "dilation_zero": (lambda: nn.Conv(3, 8, dilation=0), ParamError, "dilation"),
    "groups_do_not_divide_channels": (lambda: nn.Conv(3, 8, groups=2), ParamError, "groups=2"),
    "groups_do_not_divide_filters": (lambda: nn.Conv(4, 7, groups=2), ParamError, "groups=2"),
    "more_groups_than_channels": (lambda: nn.Conv(2, 8, groups=4), ParamError, "groups=4"),
    "bias_is_a_number": (lambda: nn.Conv(3, 8, bias=1), ArgTypeError, "bias"),
    "init_unknown": (lambda: nn.Conv(3, 8, init="random"), ParamError, "init"),
    "init_of_filters_only": (lambda: nn.Affine(3, 8, init="dirac"), ParamError, '"he", "xavier", "uniform" or'),
    "identities_in_groups": (lambda: nn.Conv(4, 8, groups=2, init="dirac"), ParamError, "groups=1, got groups=2"),
    "frozen_text": (lambda: nn.Conv(3, 8, frozen="yes"), ArgTypeError, "frozen"),
    "scale_a_number": (lambda: nn.BatchNorm(3, scale=1), ArgTypeError, "scale"),
    "factor_nan": (lambda: nn.Scale(float("nan")), ParamError, "factor"),
    "factor_text": (lambda: nn.Scale("2"), ArgTypeError, "factor"),
    "init_negative": (lambda: nn.Affine(3, 8, init=-1.0), ParamError, "init"),
    "init_none": (lambda: nn.Affine(3, 8, init=None), ArgTypeError, "init"),
    "init_word_of_a_constant": (lambda: nn.Affine(3, 8, init="ones"), ParamError, "init"),
    "features_zero": (lambda: nn.Affine(0, 8), ParamError, "in_features"),
    "outputs_text": (lambda: nn.Affine(3, "8"), ArgTypeError, "out_features"),
    "batchnorm_momentum_above_one": (lambda: nn.BatchNorm(3, momentum=1.5), ParamError, "momentum"),
    "batchnorm_eps_zero": (lambda: nn.BatchNorm(3, eps=0.0), ParamError, "eps"),
    "groupnorm_without_groups": (lambda: nn.GroupNorm(4, 0), ParamError, "groups must be"),
    "groupnorm_groups_do_not_divide_channels": (lambda: nn.GroupNorm(4, 3), ParamError, "groups=3, channels=4"),
    "groupnorm_eps_zero": (lambda: nn.GroupNorm(4, 2, eps=0.0), ParamError, "eps"),
    "layernorm_of_one_feature": (lambda: nn.LayerNorm(1), ParamError, "features"),
    "layernorm_eps_negative": (lambda: nn.LayerNorm(4, eps=-1e-5), ParamError, "eps"),
    "pool_pad_above_half_the_window": (lambda: nn.MaxPool(2, pad=2), ParamError, "pad"),
    "pool_window_zero": (lambda: nn.AveragePool(0), ParamError, "window"),
    "pool_stride_zero": (lambda: nn.MaxPool(2, stride=0), ParamError, "stride"),
    "pool_dilation_zero": (lambda: nn.MaxPool(2, dilation=0), ParamError, "dilation"),
    "pool_ceil_a_number": (lambda: nn.AveragePool(2, ceil=1), ArgTypeError, "ceil"),
    "pool_same_with_a_stride": (lambda: nn.MaxPool(2, pad="same"), ParamError, 'pad="same" needs stride=1'),
    "count_pad_text": (lambda: nn.AveragePool(2, count_pad="yes"), ArgTypeError, "count_pad"),
    "pool_to_nothing": (lambda: nn.AdaptiveAveragePool(0), ParamError, "size"),
    "pool_to_a_word": (lambda: nn.AdaptiveAveragePool(("same", 2)), ArgTypeError, "size"),
    "pool_to_three_axes": (lambda: nn.AdaptiveAveragePool((2, 2, 2)), ParamError, "size must be an int or a pair"),
    "leaky_relu_slope_negative": (lambda: nn.LeakyRelu(-0.1), ParamError, "slope"),
    "leaky_relu_slope_text": (lambda: nn.LeakyRelu("0.1"), ArgTypeError, "slope"),
    "gelu_unknown": (lambda: nn.Gelu(approximate="erf"), ParamError, "approximate"),
    "dropout_rate_one": (lambda: nn.Dropout(1.0), ParamError, "rate"),
    "dropout_rate_negative": (lambda: nn.Dropout(-0.1), ParamError, "rate"),
    "seed_negative": (lambda: nn.Conv(3, 8).create(seed=-1), ParamError, "seed"),
    "dtype_of_whole_numbers": (lambda: nn.Conv(3, 8).create(dtype="int32"), DTypeError, "int32"),
    "dtype_unknown": (lambda: nn.Conv(3, 8).create(dtype="float33"), ArgTypeError, "float33"),
    "dtype_none": (lambda: nn.Conv(3, 8).create(dtype=None), ArgTypeError, "dtype"),
}


@pytest.mark.parametrize(("make", "error", "word"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused_at_construction(make, error, word):
    with pytest.raises(error, match=word) as caught:
        make()
    assert isinstance(caught.value, GpuconvError)


IMAGES_ALONE = {
    "max_pool": lambda: nn.MaxPool(1),
    "average_pool": lambda: nn.AveragePool(1),
    "adaptive_average_pool": lambda: nn.AdaptiveAveragePool(1),
    "global_average_pool": nn.GlobalAveragePool,
    "upsample": nn.Upsample,
    "batchnorm": lambda: nn.BatchNorm(3),
    "groupnorm": lambda: nn.GroupNorm(3, 1),
}


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 4, 4)], ids=["signals", "volumes"])
@pytest.mark.parametrize("make", IMAGES_ALONE.values(), ids=IMAGES_ALONE.keys())
def test_layers_take_images_alone(make, shape):
    """What their operators take beside is not for nets."""
    with pytest.raises(ShapeError, match=r"x must be \(N, C, H, W\), got shape"):
        make().create().forward(np.zeros(shape, np.float32))


MISFITS = {
    "conv_of_other_channels": (lambda: nn.Conv(3, 8), (4, 8, 8)),
    "conv_window_larger_than_image": (lambda: nn.Conv(3, 8, 5), (3, 4, 4)),
    "conv_of_rows": (lambda: nn.Conv(3, 8), (3,)),
    "pool_window_larger_than_image": (lambda: nn.MaxPool(3), (3, 2, 2)),
    "average_pool_of_rows": (lambda: nn.AveragePool(2), (3,)),
    "pool_of_volumes": (lambda: nn.MaxPool(2), (3, 4, 4, 4)),
    "average_pool_of_volumes": (lambda: nn.AveragePool(2), (3, 4, 4, 4)),
    "batchnorm_of_volumes": (lambda: nn.BatchNorm(3), (3, 2, 2, 2)),
    "groupnorm_of_signals": (lambda: nn.GroupNorm(4, 2), (4, 5)),
    "adaptive_pool_of_rows": (lambda: nn.AdaptiveAveragePool(2), (3,)),
    "global_pool_of_rows": (nn.GlobalAveragePool, (3,)),
    "upsample_of_rows": (nn.Upsample, (3,)),
    "upsample_of_volumes": (nn.Upsample, (3, 2, 2, 2)),
    "affine_of_other_features": (lambda: nn.Affine(10, 3), (2, 3)),
    "batchnorm_of_other_channels": (lambda: nn.BatchNorm(3), (4, 2, 2)),
    "batchnorm_of_sequences": (lambda: nn.BatchNorm(3), (3, 7)),
    "groupnorm_of_other_channels": (lambda: nn.GroupNorm(4, 2), (6, 2, 2)),
    "groupnorm_of_rows": (lambda: nn.GroupNorm(4, 2), (4,)),
    "groupnorm_of_single_values": (lambda: nn.GroupNorm(4, 4), (4, 1, 1)),
    "layernorm_of_other_features": (lambda: nn.LayerNorm(4), (5,)),
    "layernorm_of_images": (lambda: nn.LayerNorm(4), (4, 1, 1)),
    "inside_a_sequential": (lambda: nn.Sequential(nn.Relu(), nn.Conv(3, 8)), (4, 8, 8)),
    "branches_of_different_shapes": (lambda: nn.Residual(nn.Conv(3, 3)), (3, 8, 8)),
}


@pytest.mark.parametrize(("make", "shape"), MISFITS.values(), ids=MISFITS.keys())
def test_misfitting_shapes_are_refused_before_and_at_the_call(make, shape):
    with pytest.raises(ShapeError):
        make().output_shape(shape)
    with pytest.raises(ShapeError):
        make().create().forward(np.zeros((2, *shape), np.float32))


def test_a_layer_without_parameters_says_what_to_do():
    with pytest.raises(ParamError, match=r"Conv has no parameters yet.*create"):
        nn.Conv(3, 8).forward(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.parametrize("layer", [nn.BatchNorm(3), nn.Flatten(), nn.Relu()], ids=repr)
def test_lists_are_refused(layer):
    with pytest.raises(ArgTypeError, match="x must be a NumPy or CuPy array"):
        layer.forward([[1.0, 2.0, 3.0]])


def test_a_gradient_of_another_shape_is_refused(rng):
    flatten = nn.Flatten()
    flatten.forward(normal(rng, (2, 3, 2, 2)), training=True)
    with pytest.raises(ShapeError, match="dy"):
        flatten.backward(np.zeros((2, 3, 2, 2)))


def test_a_layer_of_ones_own(rng):
    class Scale(nn.Layer):
        kind = "scale"

        def __init__(self):
            super().__init__()
            self.declared["factor"] = nn.Declared((1,), "ones")

        def output_shape(self, shape):
            return shape

        def _forward(self, x, training, step):
            return x * self.params["factor"], x

        def _backward(self, dy, cache, input_grad):
            self.grads["factor"][...] = (dy * cache).sum()
            return dy * self.params["factor"]

    net = nn.Net(nn.Sequential(Scale(), nn.Affine(3, 2)), (3,), dtype="float64")
    assert list(net.params) == ["scale1.factor", "affine1.w", "affine1.b"]
    x, dy = normal(rng, (4, 3)), normal(rng, (4, 2))
    assert testing.gradcheck_layer(net.body, x, dy=dy)


@pytest.mark.parametrize("bias", [False, True])
def test_frozen_filters_have_no_gradient_to_compute(bias, rng, monkeypatch):
    real, asked = nn.layers.ops.conv._backward, []

    def watched(*arguments):
        asked.append(next(wanted["weight_grad"] for wanted in arguments if isinstance(wanted, dict)))
        return real(*arguments)

    monkeypatch.setattr(nn.layers.ops.conv, "_backward", watched)
    x, found = normal(rng, (2, 3, 5, 5)), []
    for frozen in (False, True):
        layer = nn.Conv(3, 4, bias=bias, frozen=frozen).create(seed=1, dtype="float64")
        dx = layer.backward(layer.forward(x, training=True))
        found.append([dx, *(layer.grads[name] for name in ("b",) if bias)])
    assert asked == [True, False]
    for one, other in zip(*found, strict=True):
        assert_same(one, other)
