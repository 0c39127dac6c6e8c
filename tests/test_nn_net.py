"""Containers and Net: names, flat vectors, loading, configs, tables."""

import json

import numpy as np
import pytest
from compare import assert_same, normal
from test_nn_layers import LAYERS

import gpuconv
from gpuconv import backend, nn
from gpuconv.errors import (
    ArgTypeError,
    CacheError,
    CheckpointMismatchError,
    ConfigError,
    DTypeError,
    GpuconvError,
    GpuUnavailableError,
    ParamError,
    ShapeError,
)


def small_net(**settings):
    body = nn.Sequential(
        nn.Conv(2, 4, pad=1, bias=False),
        nn.BatchNorm(4),
        nn.Residual(nn.Sequential(nn.Conv(4, 4, pad=1), nn.Relu())),
        nn.Dropout(0.2),
        nn.Residual(nn.Conv(4, 6, stride=2, pad=1), nn.Conv(4, 6, 1, stride=2)),
        nn.GlobalAveragePool(),
        nn.Affine(6, 3),
    )
    return nn.Net(body, (2, 4, 4), **settings)


def trained(net, x, labels, steps=3):
    optimiser = nn.SGD(net)
    for step in range(steps):
        _, dscores = gpuconv.softmax_cross_entropy(net.forward(x, training=True, step=step), labels)
        net.backward(dscores)
        optimiser.step(0.1)
    return net


# Names and containers -----------------------------------------------------------------------------------------------


def test_parameters_are_named_by_place():
    net = small_net()
    assert list(net.params) == [
        "conv1.w", "bn1.gamma", "bn1.beta", "residual1.body.conv1.w", "residual1.body.conv1.b",
        "residual2.body.w", "residual2.body.b", "residual2.shortcut.w", "residual2.shortcut.b", "affine1.w", "affine1.b",
    ]  # fmt: skip
    assert list(net.grads) == list(net.params)
    assert list(net.state) == ["bn1.running_mean", "bn1.running_var"]


def test_sequential_takes_names():
    net = nn.Net(nn.Sequential(first=nn.Affine(4, 3), act=nn.Relu(), last=nn.Affine(3, 2, bias=False)), (4,))
    assert list(net.params) == ["first.w", "first.b", "last.w"]


def test_a_net_of_one_layer_has_plain_names():
    assert list(nn.Net(nn.Affine(4, 3), (4,)).params) == ["w", "b"]


def test_sequential_is_its_layers_in_turn(rng):
    x, dy = normal(rng, (3, 4)), normal(rng, (3, 2))
    first, last = nn.Affine(4, 5), nn.Affine(5, 2)
    both = nn.Sequential(first, nn.Relu(), last).create(dtype="float64")
    hidden = x @ first.params["w"]
    np.testing.assert_allclose(both.forward(x, training=True), np.maximum(hidden, 0) @ last.params["w"], rtol=1e-13)
    dhidden = (dy @ last.params["w"].T) * (hidden > 0)
    np.testing.assert_allclose(both.backward(dy), dhidden @ first.params["w"].T, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(both.grads["affine1.w"], x.T @ dhidden, rtol=1e-12, atol=1e-14)


def test_residual_adds_its_branches(rng):
    x, dy = normal(rng, (3, 4)), normal(rng, (3, 4))
    body, shortcut = nn.Affine(4, 4), nn.Affine(4, 4)
    plain = nn.Residual(body).create(dtype="float64")
    np.testing.assert_allclose(plain.forward(x, training=True), x @ body.params["w"] + x, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(plain.backward(dy), dy @ body.params["w"].T + dy, rtol=1e-13, atol=1e-15)
    body = nn.Affine(4, 4)
    both = nn.Residual(body, shortcut).create(dtype="float64")
    weights = body.params["w"] + shortcut.params["w"]
    np.testing.assert_allclose(both.forward(x, training=True), x @ weights, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(both.backward(dy), dy @ weights.T, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(both.grads["shortcut.w"], x.T @ dy, rtol=1e-12, atol=1e-14)


def test_residual_leaves_what_its_body_remembers_alone(rng):
    relu = nn.Relu()
    block = nn.Residual(relu)
    x = normal(rng, (3, 4))
    kept = x.copy()
    block.forward(x, training=True)
    assert_same(x, kept)
    assert_same(relu._cache.y, np.maximum(x, 0))


def test_backward_computes_no_input_gradient_in_front_of_the_first_parameters(rng, monkeypatch):
    asked = []
    real_backward = gpuconv.nn.layers.ops.affine.affine_backward_into

    def affine_backward(dy, cache, dw, db, *, input_grad):
        asked.append(input_grad)
        return real_backward(dy, cache, dw, db, input_grad=input_grad)

    monkeypatch.setattr(gpuconv.nn.layers.ops.affine, "affine_backward_into", affine_backward)
    monkeypatch.setattr(gpuconv.nn.layers.ops, "relu_backward", lambda dy, cache: pytest.fail("not needed"))
    block = nn.Sequential(nn.Sequential(nn.Relu(), nn.Flatten()), nn.Residual(nn.Affine(6, 6)), nn.Affine(6, 2))
    net = nn.Net(block, (2, 3))
    net.forward(normal(rng, (4, 2, 3), "float32"), training=True)
    assert net.backward(normal(rng, (4, 2), "float32")) is None
    assert asked == [True, False]
    assert all(leaf._cache is None for _, leaf in block.leaves())


BAD_CONTAINERS = {
    "empty": (nn.Sequential, ParamError, "needs layers"),
    "both_ways": (lambda: nn.Sequential(nn.Relu(), act=nn.Relu()), ParamError, "either"),
    "a_class": (lambda: nn.Sequential(nn.Relu), ArgTypeError, "layer 0"),
    "a_function": (lambda: nn.Sequential(act=max), ArgTypeError, "act"),
    "name_with_a_dot": (lambda: nn.Sequential(**{"a.b": nn.Relu()}), ParamError, "dot"),
    "body_missing": (lambda: nn.Residual(None), ArgTypeError, "body"),
    "net_of_a_list": (lambda: nn.Net([nn.Relu()], (3,)), ArgTypeError, "body"),
    "input_shape_a_number": (lambda: nn.Net(nn.Relu(), 3), ArgTypeError, "input_shape"),
    "input_shape_with_zero": (lambda: nn.Net(nn.Relu(), (3, 0)), ParamError, "input_shape"),
    "input_shape_misfits": (lambda: nn.Net(nn.Sequential(nn.Relu(), nn.Affine(4, 2)), (5,)), ShapeError, "affine1"),
    "seed_fraction": (lambda: nn.Net(nn.Affine(4, 2), (4,), seed=0.5), ArgTypeError, "seed"),
    "dtype_complex": (lambda: nn.Net(nn.Affine(4, 2), (4,), dtype="complex64"), DTypeError, "complex64"),
}


@pytest.mark.parametrize(("make", "error", "word"), BAD_CONTAINERS.values(), ids=BAD_CONTAINERS.keys())
def test_bad_arguments_are_refused_at_construction(make, error, word):
    with pytest.raises(error, match=word) as caught:
        make()
    assert isinstance(caught.value, GpuconvError)


def test_one_layer_object_in_two_places_is_refused():
    relu = nn.Relu()
    with pytest.raises(ParamError, match="relu1 and relu2 are one object"):
        nn.Net(nn.Sequential(relu, nn.Affine(3, 3), relu), (3,))
    affine = nn.Affine(3, 3)
    net = nn.Net(affine, (3,))
    with pytest.raises(ParamError, match="already belongs to a net"):
        nn.Net(nn.Sequential(affine), (3,))
    assert np.shares_memory(affine.params["w"], net.flat_params)


# Flat vectors -------------------------------------------------------------------------------------------------------


def assert_views(net):
    """Check that parameters and gradients tile the flat vectors, decayed ones first, and that layers hold the same."""
    for flat, views in ((net.flat_params, net.params), (net.flat_grads, net.grads)):
        assert flat.ndim == 1
        assert flat.flags.c_contiguous
        assert sum(view.size for view in views.values()) == flat.size
        order = [name for name in views if name.endswith("w")] + [name for name in views if not name.endswith("w")]
        start = flat.__array_interface__["data"][0]
        for name in order:
            assert views[name].__array_interface__["data"][0] == start, name
            assert views[name].flags.c_contiguous
            start += views[name].nbytes
    assert net.decayed == sum(view.size for name, view in net.params.items() if name.endswith("w"))
    for name, leaf in net.body.leaves():
        for key, view in leaf.params.items():
            assert view is net.params[f"{name}.{key}"]
            assert leaf.grads[key] is net.grads[f"{name}.{key}"]


def test_parameters_and_gradients_are_views_into_flat_vectors(rng):
    net = small_net()
    assert_views(net)
    net.flat_params[...] = 0
    assert not net.forward(normal(rng, (2, 2, 4, 4), "float32")).any()


def test_views_stay_views_after_training_and_load(rng):
    x, labels = normal(rng, (6, 2, 4, 4), "float32"), np.arange(6) % 3
    other = trained(small_net(seed=1), x, labels)
    net = trained(small_net(seed=2), x, labels)
    net.load(other.params, other.state)
    assert_views(net)
    assert_same(net.flat_params, other.flat_params)
    assert_same(net.forward(x), other.forward(x))
    assert not np.shares_memory(net.flat_params, other.flat_params)
    net.load({name: array.copy() for name, array in net.params.items()}, net.state)
    trained(net, x, labels, steps=1)
    assert_views(net)
    assert (net.flat_params != other.flat_params).any()


def test_backward_overwrites_the_gradients(rng):
    x, dscores = normal(rng, (6, 2, 4, 4), "float32"), normal(rng, (6, 3), "float32")
    net = small_net()
    net.forward(x, training=True)
    net.backward(dscores)
    first = net.flat_grads.copy()
    assert all(grad.any() for grad in net.grads.values())
    net.flat_grads[...] = np.nan
    net.forward(x, training=True)
    net.backward(dscores)
    assert_same(net.flat_grads, first)


# Forward and backward -----------------------------------------------------------------------------------------------


def test_same_seed_same_net_other_seed_another(rng):
    assert_same(small_net(seed=5).flat_params, small_net(seed=5).flat_params)
    assert (small_net(seed=5).params["conv1.w"] != small_net(seed=6).params["conv1.w"]).all()


def test_a_relu_more_changes_no_weight():
    short = nn.Net(nn.Sequential(nn.Affine(4, 3), nn.Affine(3, 2)), (4,))
    long = nn.Net(nn.Sequential(nn.Dropout(), nn.Affine(4, 3), nn.Relu(), nn.BatchNorm(3), nn.Affine(3, 2)), (4,))
    for name in short.params:
        assert_same(short.params[name], long.params[name])


def test_weights_are_the_same_draws_in_every_dtype():
    exact = small_net(dtype="float64").params
    for dtype in ("float32", "float16"):
        for name, array in small_net(dtype=dtype).params.items():
            assert_same(array, exact[name], dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_scores_have_the_dtype_of_the_net(rng, dtype):
    net = small_net(dtype=dtype)
    assert net.dtype == dtype
    scores = net.forward(normal(rng, (2, 2, 4, 4), dtype), training=True)
    assert scores.dtype == dtype
    assert scores.shape == (2, *net.output_shape) == (2, 3)
    net.backward(np.ones_like(scores))
    assert np.isfinite(net.flat_grads).all()
    with pytest.raises(DTypeError):
        net.forward(normal(rng, (2, 2, 4, 4), "float64" if dtype != "float64" else "float32"))


def test_dropout_in_a_net_is_a_function_of_seed_and_step(rng):
    x = normal(rng, (4, 2, 4, 4), "float32")

    def scores(seed, step):
        return small_net(seed=seed).forward(x, training=True, step=step)

    assert_same(scores(1, 7), scores(1, 7))
    assert (scores(1, 7) != scores(1, 8)).any()
    net = small_net(seed=1)
    assert_same(net.forward(x), net.forward(x, step=9))


def test_an_empty_batch_is_legal():
    net = small_net()
    assert net.forward(np.zeros((0, 2, 4, 4), np.float32)).shape == (0, 3)


def test_wrong_inputs_are_refused_by_name(rng):
    net = small_net()
    with pytest.raises(ShapeError, match=r"x must be \(N, 2, 4, 4\) for this net, got \(3, 2, 5, 4\)"):
        net.forward(np.zeros((3, 2, 5, 4), np.float32))
    with pytest.raises(ArgTypeError, match="x must be"):
        net.forward([[0.0]])
    x = np.zeros((3, 2, 4, 4), np.float32)
    with pytest.raises(ParamError, match="step"):
        net.forward(x, training=True, step=-1)
    with pytest.raises(ArgTypeError, match="training"):
        net.forward(x, training=1)
    net.forward(x)
    with pytest.raises(CacheError, match="needs a forward"):
        net.backward(np.zeros((3, 3), np.float32))
    net.forward(x, training=True)
    with pytest.raises(ShapeError, match="dy"):
        net.backward(np.zeros((3, 4), np.float32))


def test_the_device_is_the_chosen_one(monkeypatch):
    monkeypatch.setattr(backend, "_chosen", None)
    monkeypatch.setenv("GPUCONV_DEVICE", "cpu")
    assert small_net().device == "cpu"
    monkeypatch.setenv("GPUCONV_DEVICE", "abacus")
    with pytest.raises(ConfigError, match="abacus"):
        small_net()


def test_a_missing_gpu_is_an_error(monkeypatch):
    def no_gpu(device):
        raise GpuUnavailableError(device)

    monkeypatch.setattr(backend, "_chosen", None)
    monkeypatch.setenv("GPUCONV_DEVICE", "cuda")
    monkeypatch.setattr(backend, "resolve_device", no_gpu)
    with pytest.raises(GpuUnavailableError):
        small_net()


# Load ---------------------------------------------------------------------------------------------------------------


def test_load_lists_everything_that_does_not_fit():
    net, other = small_net(seed=1), small_net(seed=2)
    before, params, state = net.flat_params.copy(), dict(other.params), dict(other.state)
    del params["conv1.w"]
    params["conv9.w"] = np.zeros(3, np.float32)
    params["bn1.beta"] = np.zeros(5, np.float32)
    params["affine1.b"] = np.zeros(3, np.float64)
    with pytest.raises(CheckpointMismatchError) as caught:
        net.load(params, state)
    for part in ("missing: conv1.w", "unexpected: conv9.w", "bn1.beta must be (4,) float32, got (5,)", "affine1.b"):
        assert part in str(caught.value)
    with pytest.raises(CheckpointMismatchError, match=r"state.*missing: bn1\.running_var"):
        net.load(other.params, {"bn1.running_mean": state["bn1.running_mean"]})
    with pytest.raises(ArgTypeError, match=r"params affine1\.b"):
        net.load({**other.params, "affine1.b": [0.0, 0.0, 0.0]}, state)
    assert_same(net.flat_params, before)


# Configs ------------------------------------------------------------------------------------------------------------

NETS = {
    "own_layers": lambda: small_net(seed=2**63, dtype="float64"),
    "every_layer": lambda: nn.Net(
        nn.Sequential(
            a=nn.Conv(2, 4, (2, 3), stride=(1, 2), pad=(0, 1), dilation=(2, 1), groups=2, bias=False, init="xavier"),
            b=nn.Gelu(approximate="tanh"),
            c=nn.AveragePool((2, 1), stride=1, count_pad=False),
            d=nn.MaxPool(3, stride=(2, 1), pad=1),
            e=nn.BatchNorm(4, momentum=0.5, eps=1e-3),
            f=nn.Sequential(nn.GroupNorm(4, 2, eps=0.01), nn.Flatten(), nn.Relu(), nn.Scale(0.5)),
            g=nn.Affine(48, 5, bias=False, init=0.125),
            h=nn.Residual(nn.Affine(5, 5), nn.Dropout(0.25)),
            i=nn.LayerNorm(5, eps=1e-4),
        ),
        (2, 8, 8),
    ),
    "one_layer": lambda: nn.Net(nn.GlobalAveragePool(), [3, 4, 4]),
    "three_layer": lambda: nn.ThreeLayerConvNet((1, 6, 6), 4, 3, 5, 3, 0.5, seed=3, dtype=np.float64),
    "three_layer_he": lambda: nn.ThreeLayerConvNet((1, 6, 6), 4, 3, 5, 3, None),
    "conv_net": lambda: nn.ConvNet(4, 6, input_shape=(1, 8, 8), classes=3, seed=3, dtype="float64"),
    **{name: lambda make=make, shape=shape: nn.Net(make(), shape[1:]) for name, (make, shape) in LAYERS.items()},
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS.keys())
def test_a_config_makes_the_same_net_again(rng, make):
    net = make()
    config = json.loads(json.dumps(net.config, sort_keys=True, allow_nan=False))
    again = nn.build(config)
    assert type(again) is type(net)
    assert again.config == net.config == config
    assert repr(again) == repr(net)
    assert list(again.params) == list(net.params)
    assert_same(again.flat_params, net.flat_params)
    x = normal(rng, (2, *net.input_shape), net.dtype)
    assert_same(again.forward(x, training=True, step=1), net.forward(x, training=True, step=1))


BAD_CONFIGS = {
    "no_dict": ("ConvNet", ArgTypeError, "dict"),
    "no_name": ({"widths": [4]}, ConfigError, '"net"'),
    "name_a_number": ({"net": 3}, ArgTypeError, "name"),
    "unknown_net": ({"net": "ConvNets"}, ConfigError, 'did you mean "ConvNet"'),
    "unknown_setting": ({"net": "ConvNet", "widths": [4], "depth": 3}, ConfigError, "depth"),
    "unknown_setting_of_a_fixed_net": ({"net": "ThreeLayerConvNet", "width": 3}, ConfigError, "width"),
    "widths_missing": ({"net": "ConvNet"}, ConfigError, "widths"),
    "widths_a_number": ({"net": "ConvNet", "widths": 4}, ConfigError, "widths"),
    "width_negative": ({"net": "ConvNet", "widths": [-4]}, ParamError, "widths"),
    "input_shape_missing": ({"net": "Net", "body": {"layer": "Relu"}}, ConfigError, "input_shape"),
    "body_missing": ({"net": "Net", "input_shape": [3]}, ConfigError, "body"),
    "unknown_layer": ({"net": "Net", "body": {"layer": "Pool"}, "input_shape": [3]}, ConfigError, "did you mean"),
    "layers_a_dict": (
        {"net": "Net", "body": {"layer": "Sequential", "layers": {"a": {}}}, "input_shape": [3]}, ConfigError, "list"
    ),
    "layers_without_names": (
        {"net": "Net", "body": {"layer": "Sequential", "layers": [{"layer": "Relu"}]}, "input_shape": [3]},
        ConfigError, "entry",
    ),
    "layer_setting_named_self": (
        {"net": "Net", "body": {"layer": "Relu", "self": 1}, "input_shape": [3]}, ConfigError, "self"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "error", "word"), BAD_CONFIGS.values(), ids=BAD_CONFIGS.keys())
def test_bad_configs_are_refused_by_name(config, error, word):
    with pytest.raises(error, match=word) as caught:
        nn.build(config)
    assert isinstance(caught.value, GpuconvError)


# Tables -------------------------------------------------------------------------------------------------------------


def test_the_table_of_a_net_shows_layers_shapes_and_counts():
    net = small_net()
    assert repr(net) == net.summary()
    assert net.summary().splitlines() == [
        "Net on 2 x 4 x 4, float32, cpu",
        "layer                                                 output     parameters",
        "conv1                 Conv(2, 4, pad=1, bias=False)   4 x 4 x 4          72",
        "bn1                   BatchNorm(4)                    4 x 4 x 4           8",
        "residual1.body.conv1  Conv(4, 4, pad=1)               4 x 4 x 4         148",
        "residual1.body.relu1  Relu()                          4 x 4 x 4",
        "residual1             Residual                        4 x 4 x 4",
        "dropout1              Dropout(rate=0.2)               4 x 4 x 4",
        "residual2.body        Conv(4, 6, stride=2, pad=1)     6 x 2 x 2         222",
        "residual2.shortcut    Conv(4, 6, window=1, stride=2)  6 x 2 x 2          30",
        "residual2             Residual                        6 x 2 x 2",
        "pool1                 GlobalAveragePool()             6",
        "affine1               Affine(6, 3)                    3                  21",
        "total                                                                   501",
    ]
    assert net.flat_params.size == 501


def test_the_table_of_a_sequential_needs_no_shape():
    body = nn.Sequential(nn.Conv(3, 8), nn.Relu())
    assert repr(body).splitlines() == [
        "layer              parameters",
        "conv1  Conv(3, 8)         224",
        "relu1  Relu()",
        "total                     224",
    ]
    assert "8 x 4 x 5" in body.summary((3, 6, 7))


def test_public_names_are_all_there():
    assert len(set(nn.__all__)) == len(nn.__all__)
    assert all(hasattr(nn, name) for name in nn.__all__)
    written = {name for name, value in vars(nn).items() if isinstance(value, type) and not name.startswith("_")}
    assert written <= set(nn.__all__)
