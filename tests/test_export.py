"""Nets in ONNX and PyTorch files: every layer computes there what it does here, and every bit comes back."""

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from compare import TINY, U_OUT, assert_same_bits, normal, whole

from gpuconv import durable, export, nn, ops
from gpuconv.errors import (
    ArgTypeError,
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointWriteError,
    ConfigError,
    ParamError,
    ShapeError,
    UnsupportedError,
)
from gpuconv.export import check, onnx_file, torch_file, torch_source
from gpuconv.export.tolerance import error_bound
from gpuconv.nn import store

onnx = pytest.importorskip("onnx")

MEAN, STD = (0.45, 0.5, 0.3), (0.2, 0.25, 0.3)
DTYPES = ("float16", "float32", "float64")


def layers():
    """Return every kind of layer in its variants: name -> (how to make it, shape of a sample)."""
    image, row = (4, 7, 6), (5,)
    return {
        "conv": (lambda: nn.Conv(4, 3), image),
        "conv_no_bias": (lambda: nn.Conv(4, 3, bias=False), image),
        "conv_pairs": (lambda: nn.Conv(4, 3, (3, 2), stride=(2, 1), pad=(1, 2), dilation=(1, 2)), image),
        "conv_stride_drops_last_row": (lambda: nn.Conv(4, 3, 2, stride=2), image),
        "conv_depthwise": (lambda: nn.Conv(4, 8, pad=1, groups=4), image),
        "conv_groups": (lambda: nn.Conv(4, 6, 1, groups=2), image),
        "conv_padded_behind": (lambda: nn.Conv(4, 3, stride=2, pad=((0, 1), (2, 0))), image),
        "conv_same": (lambda: nn.Conv(4, 3, (2, 3), pad="same", dilation=(1, 2)), image),
        "conv_same_on_both_sides": (lambda: nn.Conv(4, 3, pad="same", bias=False), image),
        "conv_frozen_padded_before": (lambda: nn.Conv(4, 3, pad=((1, 0), 0), frozen=True), image),
        "conv_transpose": (lambda: nn.ConvTranspose(4, 3, 2, stride=2), image),
        "conv_transpose_cut_on_one_side": (lambda: nn.ConvTranspose(4, 3, stride=2, pad=((0, 1), (2, 1))), image),
        "conv_transpose_same": (lambda: nn.ConvTranspose(4, 3, 2, pad="same"), image),
        "conv_transpose_no_bias": (lambda: nn.ConvTranspose(4, 3, 4, stride=2, pad=1, bias=False), image),
        "conv_transpose_every_argument": (
            lambda: nn.ConvTranspose(
                4, 6, (3, 2), stride=(2, 3), pad=(1, 0), output_pad=(1, 2), dilation=(1, 2), groups=2
            ),
            image,
        ),
        "affine": (lambda: nn.Affine(5, 3), row),
        "affine_no_bias": (lambda: nn.Affine(5, 3, bias=False), row),
        "affine_of_images": (lambda: nn.Affine(4 * 7 * 6, 3), image),
        "bn_images": (lambda: nn.BatchNorm(4), image),
        "bn_rows": (lambda: nn.BatchNorm(5, momentum=0.99, eps=1e-3), row),
        "group_norm": (lambda: nn.GroupNorm(4, 2), image),
        "group_norm_of_images": (lambda: nn.GroupNorm(4, 1, eps=1e-3), image),
        "group_norm_of_channels": (lambda: nn.Sequential(nn.GroupNorm(4, 4), nn.GroupNorm(4, 2)), image),
        "layer_norm": (lambda: nn.LayerNorm(5), row),
        "layer_norm_eps": (lambda: nn.Sequential(nn.LayerNorm(5, eps=1e-2), nn.Relu()), row),
        "max_pool": (nn.MaxPool, image),
        "max_pool_pairs": (lambda: nn.MaxPool((3, 2), stride=(2, 1), pad=1), image),
        "max_pool_ceil": (lambda: nn.MaxPool((2, 4), stride=2, ceil=True), image),
        "max_pool_ceil_drops_a_window": (lambda: nn.MaxPool((2, 3), stride=(7, 2), pad=(1, 0), ceil=True), image),
        "max_pool_padded_behind": (lambda: nn.MaxPool(3, stride=2, pad=((0, 1), (1, 0))), image),
        "max_pool_padded_behind_ceil": (lambda: nn.MaxPool(3, stride=(3, 2), pad=((0, 1), (0, 1)), ceil=True), image),
        "max_pool_same": (lambda: nn.MaxPool(2, stride=1, pad="same"), image),
        "max_pool_dilated": (lambda: nn.MaxPool(2, stride=(1, 2), pad=1, dilation=(2, 3)), image),
        "max_pool_dilated_pad": (lambda: nn.MaxPool(2, stride=1, pad=2, dilation=3, ceil=True), image),
        "max_pool_padded_by_all_but_a_tap": (lambda: nn.MaxPool(3, stride=2, pad=2, ceil=True), image),
        "average_pool_padded_by_all_but_a_tap": (lambda: nn.AveragePool(3, stride=2, pad=2), image),
        "average_pool_ceil": (lambda: nn.AveragePool(4, stride=(7, 6), pad=1, ceil=True), image),
        "average_pool_ceil_without_pad": (lambda: nn.AveragePool((2, 4), stride=(2, 1), ceil=True), image),
        "average_pool_padded_behind": (lambda: nn.AveragePool(2, stride=2, pad=((0, 1), 0)), image),
        "average_pool_padded_behind_ceil": (
            lambda: nn.AveragePool((2, 4), stride=(3, 4), pad=((1, 0), 0), ceil=True),
            image,
        ),
        "average_pool_real_pixels_ceil": (
            lambda: nn.AveragePool((2, 4), stride=(2, 1), pad=(0, 1), ceil=True, count_pad=False),
            image,
        ),
        "average_pool": (nn.AveragePool, image),
        "average_pool_pad": (lambda: nn.AveragePool(4, stride=(1, 2), pad=(2, 1)), image),
        "average_pool_real_pixels": (lambda: nn.AveragePool(3, stride=2, pad=1, count_pad=False), image),
        "adaptive_average_pool": (lambda: nn.AdaptiveAveragePool((3, 4)), image),
        "adaptive_average_pool_of_rows": (lambda: nn.AdaptiveAveragePool((2, None)), image),
        "adaptive_average_pool_to_more": (lambda: nn.AdaptiveAveragePool(9), image),
        "adaptive_average_pool_even": (lambda: nn.AdaptiveAveragePool((7, 3)), image),
        "adaptive_average_pool_to_one": (lambda: nn.AdaptiveAveragePool(1), image),
        "global_average_pool": (nn.GlobalAveragePool, image),
        "upsample": (nn.Upsample, image),
        "upsample_by_what_pytorch_rounds": (lambda: nn.Upsample((1, 41)), image),
        "upsample_linear": (lambda: nn.Upsample((2, 4), mode="linear"), image),
        "upsample_corners": (lambda: nn.Upsample((3, 2), mode="linear", align_corners=True), image),
        "relu": (nn.Relu, image),
        "leaky_relu": (nn.LeakyRelu, image),
        "leaky_relu_steep": (lambda: nn.LeakyRelu(2.5), row),
        "leaky_relu_quarter": (lambda: nn.LeakyRelu(0.25), row),
        "silu": (nn.Silu, image),
        "gelu": (nn.Gelu, image),
        "gelu_tanh": (lambda: nn.Gelu(approximate="tanh"), row),
        "dropout": (lambda: nn.Dropout(0.3), row),
        "flatten": (nn.Flatten, image),
        "flatten_rows": (nn.Flatten, row),
        "sequential": (lambda: nn.Sequential(nn.Affine(5, 4), nn.Sequential(nn.Relu(), nn.Affine(4, 2))), row),
        "residual": (lambda: nn.Residual(nn.Sequential(nn.Conv(4, 4, pad=1), nn.Relu())), image),
        "residual_of_nothing": (lambda: nn.Residual(nn.Dropout()), row),
        "residual_projected": (
            lambda: nn.Sequential(first=nn.Residual(nn.Conv(4, 6, stride=2, pad=1), nn.Conv(4, 6, 1, stride=2))),
            image,
        ),
        "scale": (lambda: nn.Scale(0.125), row),
        "conv_frozen": (lambda: nn.Conv(4, 3, frozen=True), image),
        "bn_without_scale": (lambda: nn.BatchNorm(4, scale=False), image),
    }


LAYERS = layers()
# Sums of small integers, and halves and quarters of them: exact in any order.
EXACT = [
    name
    for name in LAYERS
    if not name.startswith(
        (
            "bn",
            "group_norm",
            "layer_norm",
            "silu",
            "gelu",
            "global",
            "adaptive",
            "average_pool_real",
            "upsample_corners",
        )
    )
]


def residual_net(**settings):
    body = nn.Sequential(
        nn.Conv(3, 6, pad=1, bias=False),
        nn.BatchNorm(6),
        nn.Gelu(),
        nn.Residual(
            nn.Sequential(nn.Conv(6, 8, stride=2, pad=1), nn.BatchNorm(8), nn.Relu(), nn.Dropout(0.2)),
            nn.Conv(6, 8, 1, stride=2),
        ),
        nn.Residual(nn.Sequential(nn.Conv(8, 8, pad=1, groups=2), nn.Relu())),
        nn.GlobalAveragePool(),
        nn.Affine(8, 4),
    )
    return nn.Net(body, (3, 8, 8), **settings)


NETS = {
    "conv_net": lambda **settings: nn.ConvNet(4, 8, input_shape=(3, 8, 8), classes=4, **settings),
    "three_layer": lambda **settings: nn.ThreeLayerConvNet(
        (3, 8, 8), 4, 3, 16, classes=4, weight_scale=None, **settings
    ),
    "residual_net": residual_net,
}
# The trainer's other nets, with small widths.
STRONG = {
    "VGG": (4, 4, 6, 6),
    "ResNet9": (4, 6, 6, 8),
    "ResNet18": (4, 6, 6, 8),
    "SpeedrunNet": (6, 8, 8),
}
each_layer = pytest.mark.parametrize("name", LAYERS)
each_net = pytest.mark.parametrize("name", NETS)
each_dtype = pytest.mark.parametrize("kind", DTYPES)


def made(name, rng, draw=normal, **settings):
    """Return a layer's or a net's Net with random parameters and running statistics."""
    if name in NETS:
        net = NETS[name](**settings)
    else:
        make, shape = LAYERS[name]
        net = nn.Net(make(), shape, **settings)
    for key, array in net.params.items():
        scale = np.sqrt(array[0].size) if draw is normal and key.endswith("w") else 1
        store.put(array, draw(rng, array.shape) / scale)
    for key, array in net.state.items():
        store.put(array, rng.uniform(0.5, 2, array.shape) if key.endswith("var") else draw(rng, array.shape))
    return net


def by_onnx(net, x, **options):
    model = export.onnx_model(net, **options)
    return check.onnx_reference(model)(x)


@pytest.fixture
def torch_module(tmp_path):
    """Return what loads the module that to_torch writes for a net."""
    pytest.importorskip("torch")

    def load(net, **facts):
        path = tmp_path / "written.safetensors"
        export.to_torch(net, path, overwrite=True, **facts)
        spec = importlib.util.spec_from_file_location("written", path.with_suffix(".py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def by_torch(module, x):
    with module.torch.no_grad():
        return module.load()(module.torch.from_numpy(x)).numpy()


def assert_same_net(found, net):
    assert found.config == net.config
    for kind in ("params", "state"):
        assert list(getattr(found, kind)) == list(getattr(net, kind))
        for key, array in getattr(net, kind).items():
            assert_same_bits(getattr(found, kind)[key], array)


# What is computed ---------------------------------------------------------------------------------------------------


@each_dtype
@each_layer
def test_a_layer_computes_the_same_in_onnx(name, kind, rng):
    net = made(name, rng, dtype=kind)
    x = normal(rng, (3, *net.input_shape), kind)
    found = export.check_onnx(net, export.onnx_model(net), normalized=x)
    assert found.within, found
    assert found.count == 3


@each_dtype
@each_layer
def test_a_layer_computes_the_same_in_pytorch(name, kind, rng):
    pytest.importorskip("torch")
    net = made(name, rng, dtype=kind)
    x = normal(rng, (3, *net.input_shape), kind)
    found = export.check_torch(net, *torch_file.encode(net, "any.safetensors"), normalized=x)
    assert found.within, found
    assert found.program.startswith("PyTorch")


@pytest.mark.parametrize("name", EXACT)
def test_integers_match_bit_for_bit(name, rng, torch_module):
    net = made(name, rng, whole)
    x = whole(rng, (3, *net.input_shape), "float32")
    ours = net.forward(x)
    theirs = by_onnx(net, x), by_torch(torch_module(net), x)
    assert np.abs(ours).max() > 0
    for scores in theirs:
        assert scores.dtype == ours.dtype
        np.testing.assert_array_equal(scores, ours, strict=True)


@pytest.mark.parametrize("input", onnx_file.INPUTS)
@pytest.mark.parametrize("kind", DTYPES)
@each_net
def test_a_net_computes_the_same_in_onnx_for_each_kind_of_input(name, kind, input, rng):
    net = made(name, rng, dtype=kind)
    pictures = rng.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    model = export.onnx_model(net, mean=MEAN, std=STD, input=input)
    found = export.check_onnx(net, model, pictures=pictures, mean=MEAN, std=STD)
    assert found.within, found
    assert found.same_class == found.count == 4


@pytest.mark.parametrize("kind", DTYPES)
@each_net
def test_a_net_computes_the_same_in_pytorch(name, kind, rng):
    pytest.importorskip("torch")
    net = made(name, rng, dtype=kind)
    x = normal(rng, (4, 3, 8, 8))
    found = export.check_torch(net, *torch_file.encode(net, "any.safetensors"), normalized=x)
    assert found.within, found
    assert found.same_class == found.count == 4


@pytest.mark.parametrize("count", [1, 5])
def test_the_batch_axis_is_free(count, rng):
    net = made("conv_net", rng)
    x = normal(rng, (count, 3, 8, 8), "float32")
    assert by_onnx(net, x).shape == (count, 4)
    model = export.onnx_model(net)
    assert [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] == [
        *("N", 3, 8, 8)
    ]
    assert [axis.dim_param or axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim] == ["N", 4]


@pytest.mark.parametrize("kind", DTYPES)
def test_another_dtype_can_be_asked_for(kind, rng):
    net = made("residual_net", rng)
    model = export.onnx_model(net, dtype=kind)
    assert onnx_file.scores_dtype(model) == kind
    assert {onnx.numpy_helper.to_array(tensor).dtype.name for tensor in model.graph.initializer} == {kind}
    found = export.check_onnx(net, model, normalized=normal(rng, (3, 3, 8, 8)))
    assert found.within, found


def test_the_check_uses_onnxruntime_where_it_is_installed(rng):
    pytest.importorskip("onnxruntime")
    net = made("residual_net", rng)
    found = export.check_onnx(net, export.onnx_model(net), normalized=normal(rng, (3, 3, 8, 8)))
    assert found.program.startswith("ONNX Runtime")
    assert found.within


@pytest.mark.parametrize("error", ["Fail", "NotImplemented"])
def test_what_onnxruntime_does_not_take_is_checked_by_the_reference(error, rng, monkeypatch):
    """It has no float64 convolution, for one, and no pool that is padded by more than its window."""
    errors = types.ModuleType("onnxruntime.capi.onnxruntime_pybind11_state")
    for name in ("Fail", "NotImplemented"):
        setattr(errors, name, type(name, (Exception,), {}))

    def refuse(*_):
        raise getattr(errors, error)

    capi, runtime = types.ModuleType("onnxruntime.capi"), types.ModuleType("onnxruntime")
    capi.onnxruntime_pybind11_state, runtime.capi = errors, capi
    runtime.__version__, runtime.__spec__ = "1.2.3", importlib.machinery.ModuleSpec("onnxruntime", None)
    runtime.SessionOptions, runtime.InferenceSession = types.SimpleNamespace, refuse
    for module in (runtime, capi, errors):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    net = made("residual_net", rng)
    found = export.check_onnx(net, export.onnx_model(net), normalized=normal(rng, (3, 3, 8, 8)))
    assert found.program == f"onnx.reference {onnx.__version__} (ONNX Runtime 1.2.3 does not take the file)"
    assert found.within


@pytest.mark.parametrize("name", STRONG)
def test_a_strong_net_computes_the_same_and_comes_back(name, rng, tmp_path):
    net = getattr(nn, name)(*STRONG[name], input_shape=(3, 16, 16), classes=4)
    x = normal(rng, (8, 3, 16, 16), "float32")
    net.prepare(x)
    for step in range(2):
        net.forward(x, training=True, step=step)  # running statistics that fit
    found = export.check_onnx(net, export.onnx_model(net), normalized=x[:2])
    assert found.within, found
    export.to_onnx(net, tmp_path / "net.onnx")
    export.to_torch(net, tmp_path / "net.safetensors")
    assert_same_net(export.from_onnx(tmp_path / "net.onnx"), net)
    assert_same_net(export.from_torch(tmp_path / "net.safetensors"), net)
    pytest.importorskip("torch")
    found = export.check_torch(net, *torch_file.encode(net, "any.safetensors"), normalized=x[:2])
    assert found.within, found


# The tolerance ------------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("cancels", [True, False])
def test_the_bound_of_one_sum_is_the_rule_of_the_operators(cancels, kind, rng):
    """c u S + u |y|; x, rounded once, adds no more than u for every 1 or |x| that a sum takes in."""
    net = made("conv", rng, dtype=kind)
    x = normal(rng, (2, *net.input_shape), kind)
    if not cancels:
        x, net.flat_params[...] = np.abs(x), np.abs(net.flat_params)
    wide = [a.astype(np.float64) for a in (x, net.params["w"], net.params["b"])]
    y, size = ops.conv_forward(*wide)[0], ops.conv_forward(*map(np.abs, wide))[0]
    u, terms = U_OUT[kind], 4 * 3 * 3 + 1
    rule = (8 if cancels else 4 + 2 * terms**0.5) * u * size + u * np.abs(y)
    bound = error_bound(net, x, dtype=kind)
    assert (bound >= rule).all()
    reached = size + np.abs(wide[1]).sum((1, 2, 3))[:, None, None]
    allowed = 8 * u * size + (4 + 2 * terms**0.5) * u * np.abs(y) + u * np.abs(y)
    assert (bound <= allowed + u * reached + 99 * TINY[kind]).all()


@each_net
def test_a_wrong_weight_is_noticed(name, rng):
    """One weight of each layer off by a hundredth of its size, or one statistic: the check says so."""
    net = made(name, rng)
    x = normal(rng, (4, 3, 8, 8))
    for key in (*net.params, *net.state):
        model = export.onnx_model(net)
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == key)
        values = onnx.numpy_helper.to_array(tensor).copy()
        values *= np.float32(1.02)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, key))
        assert not export.check_onnx(net, model, normalized=x).within, key


@pytest.mark.parametrize("name", ["bn_rows", "group_norm_of_images", "layer_norm_eps"])
def test_a_wrong_setting_is_noticed(name, rng):
    net = made(name, rng)
    x = normal(rng, (4, *net.input_shape))
    model = export.onnx_model(net)
    (eps,) = (value for node in model.graph.node for value in node.attribute if value.name == "epsilon")
    eps.f *= 2
    assert not export.check_onnx(net, model, normalized=x).within


def test_wrong_weights_and_settings_are_noticed_in_pytorch(rng):
    pytest.importorskip("torch")
    net = made("bn_rows", rng)
    x = normal(rng, (4, 5))
    weights, source = torch_file.encode(net, "any.safetensors")
    assert not export.check_torch(net, weights, source.replace(b"eps=0.001", b"eps=0.002"), normalized=x).within
    arrays = safetensors.numpy.load(weights)
    arrays["bias"] = arrays["bias"] + np.float32(0.01)
    assert not export.check_torch(net, safetensors.numpy.save(arrays), source, normalized=x).within


def test_scores_that_are_not_finite_agree_only_in_the_same_places(rng):
    net = made("affine", rng)
    net.params["b"][1] = np.inf
    x = normal(rng, (2, 5))
    model = export.onnx_model(net)
    assert export.check_onnx(net, model, normalized=x).within
    net.params["b"][1] = 0
    found = export.check_onnx(net, model, normalized=x)
    assert not found.within
    assert found.largest == np.inf


# And back -----------------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("name", [*LAYERS, *NETS])
def test_every_bit_comes_back(name, kind, rng, tmp_path):
    net = made(name, rng, dtype=kind)
    export.to_onnx(net, tmp_path / "net.onnx")
    export.to_torch(net, tmp_path / "net.safetensors")
    assert_same_net(export.from_onnx(tmp_path / "net.onnx"), net)
    assert_same_net(export.from_torch(tmp_path / "net.safetensors"), net)
    other = made(name, rng, dtype=kind)
    assert export.from_onnx(tmp_path / "net.onnx", other) is other
    assert_same_net(other, net)
    other = made(name, rng, dtype=kind)
    assert export.from_torch(tmp_path / "net.safetensors", other) is other
    assert_same_net(other, net)


@pytest.mark.parametrize("input", onnx_file.INPUTS)
def test_a_graph_that_normalises_comes_back(input, rng, tmp_path):
    net = made("conv_net", rng)
    export.to_onnx(net, tmp_path / "net.onnx", mean=MEAN, std=STD, input=input)
    assert_same_net(export.from_onnx(tmp_path / "net.onnx", made("conv_net", rng)), net)


@pytest.mark.parametrize("write", [export.to_onnx, export.to_torch])
def test_equal_nets_give_equal_files(write, rng, tmp_path):
    net = made("residual_net", rng)
    suffix = ".onnx" if write is export.to_onnx else ".safetensors"
    texts = []
    for _ in range(5):  # an order that comes from a random hash would differ by now
        write(net, tmp_path / f"net{suffix}", classes=list("abcd"), mean=MEAN, std=STD, overwrite=True)
        texts.append([path.read_bytes() for path in sorted(tmp_path.iterdir())])
    assert all(text == texts[0] for text in texts)


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_a_state_dict_that_pytorch_saved_comes_in(wrapper, rng, tmp_path, torch_module):
    """Trained a step there; from a wrapped model, too.  A fresh one counts its batches."""
    net = made("residual_net", rng)
    module = torch_module(net)
    model = module.load().train()
    x = normal(rng, (8, 3, 8, 8), "float32")
    model(module.torch.from_numpy(x)).square().sum().backward()
    with module.torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(1e-3 * parameter.grad)
    model.eval()
    from safetensors.torch import save_file

    save_file({f"{wrapper}{key}": value for key, value in model.state_dict().items()}, tmp_path / "theirs.safetensors")
    before = net.flat_params.copy()
    export.from_torch(tmp_path / "theirs.safetensors", net)
    assert (net.flat_params != before).mean() > 0.9
    with module.torch.no_grad():
        theirs = model(module.torch.from_numpy(x)).numpy()
    difference = np.abs(net.forward(x) - theirs)
    assert (difference <= 2 * error_bound(net, x, dtype="float32")).all()


def test_narrower_weights_widen_and_wider_ones_are_refused(rng, tmp_path):
    half, wide = made("affine", rng, dtype="float16"), made("affine", rng, dtype="float64")
    for net, name in ((half, "half"), (wide, "wide")):
        export.to_torch(net, tmp_path / f"{name}.safetensors")
        export.to_onnx(net, tmp_path / f"{name}.onnx")
    for read, suffix in ((export.from_torch, "safetensors"), (export.from_onnx, "onnx")):
        net = made("affine", rng)
        read(tmp_path / f"half.{suffix}", net)
        np.testing.assert_array_equal(net.flat_params, half.flat_params)
        before = net.flat_params.copy()
        with pytest.raises(CheckpointMismatchError, match="float64, which a net of float32 cannot take without loss"):
            read(tmp_path / f"wide.{suffix}", net)
        np.testing.assert_array_equal(net.flat_params, before)


# What the files say -------------------------------------------------------------------------------------------------


def test_an_onnx_file_says_what_it_is(rng, tmp_path):
    net = made("conv_net", rng)
    export.to_onnx(
        net, tmp_path / "net.onnx", classes=["cat", "ship", "straße", "d"], mean=MEAN, std=STD, input="uint8"
    )
    model = onnx.load(tmp_path / "net.onnx")
    assert (model.opset_import[0].version, model.ir_version, model.producer_name) == (17, 8, "gpuconv")
    values = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(values["classes"]) == ["cat", "ship", "straße", "d"]
    assert (json.loads(values["mean"]), json.loads(values["std"])) == (list(MEAN), list(STD))
    assert values["input"] == "uint8"
    assert json.loads(values["gpuconv"])["net"] == net.config
    names = {tensor.name for tensor in model.graph.initializer}
    assert {*net.params, *net.state} <= names
    assert [node.name for node in model.graph.node][-3:] == ["relu2", "flatten1", "affine1"]


def test_a_module_says_what_it_is_and_learns_where_it_should(rng, torch_module):
    net = made("residual_net", rng)
    module = torch_module(net, classes=["a", 'b"', "straße", "d"], mean=MEAN, std=STD)
    assert module.CLASSES == ("a", 'b"', "straße", "d")
    assert (module.MEAN, module.STD) == (MEAN, STD)
    model = module.load()
    assert not model.training
    assert module.build().training
    assert (model.bn1.momentum, model.bn1.eps) == (0.1, 1e-5)
    assert model.bn1.num_batches_tracked.item() == 0
    assert model.affine1.weight.shape == (4, 8)
    assert all(parameter.requires_grad for parameter in model.parameters())
    pictures = rng.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    theirs = module.normalize(module.torch.from_numpy(pictures)).numpy()
    x = ops.augment(pictures, mean=MEAN, std=STD)
    assert theirs.dtype == np.float32
    allowed = (check._normalising(MEAN, STD) + 1) * 2.0**-24 * np.maximum(np.abs(x), 1)
    assert (np.abs(theirs - x) <= allowed).all()
    text = Path(module.__file__).read_text()
    assert max(map(len, text.splitlines())) <= 120
    assert '("conv1", nn.Conv2d(3, 6, 3, padding=1, bias=False)),' in text


@pytest.mark.parametrize("name", ["conv_frozen", "bn_without_scale"])
def test_what_is_frozen_here_is_frozen_there(name, rng, torch_module):
    model = torch_module(made(name, rng)).load()
    assert {key: value.requires_grad for key, value in model.named_parameters()} == {"weight": False, "bias": True}


def test_names_that_a_module_of_pytorch_has_already_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    assert {name for name in dir(torch.nn.Sequential()) if not name.startswith("_")} <= torch_source.TAKEN
    for name in ("train", "_modules", "_own"):
        net = nn.Net(nn.Sequential(**{name: nn.Affine(2, 2)}), (2,))
        with pytest.raises(UnsupportedError, match=f"layer '{name}' cannot be called so"):
            export.to_torch(net, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys; import gpuconv; assert 'gpuconv.export' not in sys.modules\n"
        "from gpuconv import export, cli; export.to_onnx\n"
        "assert not {'onnx', 'torch', 'onnxruntime'} & set(sys.modules)"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_without_the_package_the_error_says_what_to_install(rng, tmp_path, monkeypatch):
    net = made("affine", rng)
    export.to_onnx(net, tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: export.onnx_model(net), lambda: export.from_onnx(tmp_path / "net.onnx")):
        with pytest.raises(UnsupportedError, match=r"pip install -e '\.\[onnx\]' in the checkout"):
            call()


# Bad input ----------------------------------------------------------------------------------------------------------


class Doubled(nn.Layer):
    """A layer that no table knows."""

    def output_shape(self, shape):
        return shape

    def _forward(self, x, training, step):
        return 2 * x, None


class Louder(nn.Relu):
    """A subclass that computes something else."""

    def _forward(self, x, training, step):
        return 2 * np.maximum(x, 0), None


class Renamed(nn.Relu):
    """A subclass that computes the same."""


class Twice(nn.Net):
    """A net that is not what its layers say."""

    def forward(self, x, **options):
        return 2 * super().forward(x, **options)


@pytest.mark.parametrize("layer", [Doubled, Louder])
@pytest.mark.parametrize("write", [export.to_onnx, export.to_torch])
def test_a_layer_without_a_writer_is_named(write, layer, tmp_path):
    net = nn.Net(nn.Sequential(nn.Affine(2, 2), nn.Sequential(odd=layer())), (2,))
    suffix = ".onnx" if write is export.to_onnx else ".safetensors"
    with pytest.raises(UnsupportedError, match=rf"layer sequential1\.odd is a {layer.__name__}, .* known: .*Affine, "):
        write(net, tmp_path / f"net{suffix}")
    assert not list(tmp_path.iterdir())


AVERAGES = {
    "dilation": (nn.AveragePool(2, stride=1, dilation=2), "ot", "an average pool with dilation"),
    "one_sided_real_pixels": (
        nn.AveragePool(2, pad=((0, 1), 0), count_pad=False),
        "t",
        "an average of real pixels amid padding",
    ),
    "padded_by_all_but_a_tap": (
        nn.AveragePool(3, pad=2, count_pad=False),
        "t",
        "an average of real pixels amid padding above half the window",
    ),
    "one_sided_dropped_window": (
        nn.AveragePool((2, 3), stride=(2, 3), pad=((1, 0), (0, 1)), ceil=True),
        "t",
        "an average with ceil amid padding of one side",
    ),
}


@pytest.mark.parametrize(("pool", "formats", "words"), AVERAGES.values(), ids=AVERAGES)
def test_averages_that_a_format_does_not_have_are_named(pool, formats, words, tmp_path):
    net = nn.Net(nn.Sequential(mean=pool, rows=nn.Flatten()), (2, 6, 6))
    for write, suffix in ((export.to_onnx, ".onnx"), (export.to_torch, ".safetensors")):
        if write.__name__.removeprefix("to_")[0] in formats:
            with pytest.raises(UnsupportedError, match=f"layer mean is {words}"):
                write(net, tmp_path / f"net{suffix}")
        else:
            write(net, tmp_path / f"net{suffix}")


def test_a_subclass_that_computes_the_same_is_written(rng):
    net = nn.Net(nn.Sequential(nn.Affine(2, 2), Renamed()), (2,))
    assert [node.op_type for node in export.onnx_model(net).graph.node] == ["Gemm", "Relu"]


BAD_WRITES = {
    "no_net": (lambda net, path: export.to_onnx(nn.Relu(), path / "a.onnx"), ArgTypeError, "net must be a gpuconv"),
    "own_forward": (
        lambda net, path: export.to_torch(Twice(nn.Relu(), (2,)), path / "a.safetensors"),
        UnsupportedError,
        "Twice has a forward of its own",
    ),
    "onnx_suffix": (lambda net, path: export.to_onnx(net, path / "a.pb"), ConfigError, "must end in .onnx, got"),
    "torch_suffix": (lambda net, path: export.to_torch(net, path / "a.pt"), ConfigError, "must end in .safetensors"),
    "no_folder": (lambda net, path: export.to_onnx(net, path / "b" / "a.onnx"), ConfigError, "there is no folder"),
    "classes": (
        lambda net, path: export.to_onnx(net, path / "a.onnx", classes=["a"]),
        ShapeError,
        r"the net gives \(4,\), got 1 names",
    ),
    "classes_as_text": (
        lambda net, path: export.to_onnx(net, path / "a.onnx", classes="abcd"),
        ArgTypeError,
        "classes must be a sequence of names",
    ),
    "mean_alone": (
        lambda net, path: export.to_torch(net, path / "a.safetensors", mean=MEAN),
        ArgTypeError,
        "mean and std must be given together",
    ),
    "mean_of_two": (
        lambda net, path: export.to_onnx(net, path / "a.onnx", mean=(0, 0), std=(1, 1)),
        ShapeError,
        r"mean must have one entry per channel \(3\), got 2",
    ),
    "std_zero": (
        lambda net, path: export.to_onnx(net, path / "a.onnx", mean=MEAN, std=(1, 1, 0)),
        ParamError,
        "std must be finite, above 0",
    ),
    "input": (
        lambda net, path: export.to_onnx(net, path / "a.onnx", input="bytes"),
        ParamError,
        "input must be one of normalized, unit, uint8, got 'bytes'",
    ),
    "input_without_mean": (
        lambda net, path: export.to_onnx(net, path / "a.onnx", input="uint8"),
        ConfigError,
        'input="uint8" needs mean and std',
    ),
}


@pytest.mark.parametrize(("write", "error", "message"), BAD_WRITES.values(), ids=BAD_WRITES.keys())
def test_bad_input_is_refused_before_anything_is_written(write, error, message, rng, tmp_path):
    with pytest.raises(error, match=message):
        write(made("conv_net", rng), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_check_says_what_it_takes(rng):
    net = made("conv_net", rng)
    model = export.onnx_model(net)
    for refused, error, words in (
        (lambda: export.check_onnx(net, "net.onnx"), ArgTypeError, "model must be an onnx.ModelProto.*got 'net.onnx'$"),
        (lambda: export.check_onnx(net, model), ParamError, "needs inputs of the net: normalized, or pictures"),
        (lambda: export.check_torch(net, "net.safetensors", b""), ArgTypeError, "weights must be bytes, the content"),
        (lambda: export.check_torch(net, b"", None), ArgTypeError, "source must be bytes.*got None$"),
    ):
        with pytest.raises(error, match=words):
            refused()


def test_what_is_there_stays_unless_it_may_be_overwritten(rng, tmp_path, monkeypatch):
    net = made("affine", rng)
    for name in ("net.onnx", "net.py"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=r"net\.onnx is there already"):
        export.to_onnx(net, tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match=r"net\.py is there already"):
        export.to_torch(net, tmp_path / "net.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.py"]

    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "_create", full)
        with pytest.raises(CheckpointWriteError, match="No space left"):
            export.to_onnx(net, tmp_path / "net.onnx", overwrite=True)
    assert (tmp_path / "net.onnx").read_text() == "mine"
    export.to_onnx(net, tmp_path / "net.onnx", overwrite=True)
    export.to_torch(net, tmp_path / "net.safetensors", overwrite=True)
    assert_same_net(export.from_onnx(tmp_path / "net.onnx"), net)


def changed_model(change):
    def write(net, path):
        model = export.onnx_model(net, mean=MEAN, std=STD, input="unit")
        change(model)
        path.write_bytes(model.SerializeToString())

    return write


def rename(model):
    model.graph.node[3].name = "other"


def stride(model):
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    next(a for a in conv.attribute if a.name == "pads").ints[:] = [0, 0, 2, 2]


def tensor(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def outside(model):
    data = tensor(model, "affine1.b")
    data.ClearField("raw_data")
    data.data_location = onnx.TensorProto.EXTERNAL
    entry = data.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"


def nan(model):
    tensor(model, "affine1.b").CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), "affine1.b"))


def other_std(model):
    data = tensor(model, "input.std")
    data.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(data) * np.float32(2), "input.std"))


def other_shape(model):
    tensor(model, "affine1.b").CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "affine1.b"))


def more(model):
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "spare"))


def extra_node(model):
    model.graph.node.append(onnx.helper.make_node("Identity", ["scores"], ["spare"], name="spare"))


def other_output(model):
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5


BAD_ONNX = {
    "missing": (lambda net, path: None, ConfigError, "could not be read"),
    "garbage": (lambda net, path: path.write_bytes(b"\xff" * 40), CheckpointCorruptError, "is not a sound ONNX file"),
    "empty": (lambda net, path: path.write_bytes(b""), CheckpointCorruptError, "is not a sound ONNX file"),
    "cut": (
        lambda net, path: path.write_bytes(onnx_file.encode(export.onnx_model(net))[:-9]),
        CheckpointCorruptError,
        "is not a sound ONNX file",
    ),
    "foreign": (
        changed_model(lambda model: setattr(model, "producer_name", "pytorch")),
        UnsupportedError,
        "was not written by gpuconv",
    ),
    "renamed_node": (changed_model(rename), CheckpointMismatchError, "its node 4 is .* other, the net's is"),
    "other_pad": (changed_model(stride), CheckpointMismatchError, "its node 3 is Conv conv1, with other settings"),
    "extra_node": (changed_model(extra_node), CheckpointMismatchError, "its node 13 is Identity spare, the net's is none"),
    "other_output": (changed_model(other_output), CheckpointMismatchError, "its output has another name, shape"),
    "weights_outside": (changed_model(outside), (UnsupportedError, CheckpointCorruptError), "."),
    "nan": (changed_model(nan), CheckpointMismatchError, r"affine1\.b holds NaN or infinity"),
    "other_constant": (changed_model(other_std), CheckpointMismatchError, r"its constant input\.std is another"),
    "other_shape": (changed_model(other_shape), CheckpointMismatchError, r"affine1\.b must be \(4,\)"),
    "unused_array": (changed_model(more), CheckpointMismatchError, "unexpected: spare"),
    "no_record": (
        changed_model(lambda model: model.metadata_props.remove(
            next(prop for prop in model.metadata_props if prop.key == "gpuconv"))),
        UnsupportedError,
        "was not written by gpuconv",
    ),
    "bad_metadata": (
        changed_model(lambda model: setattr(
            next(prop for prop in model.metadata_props if prop.key == "mean"), "value", "[1,")),
        CheckpointMismatchError,
        "does not fit the net",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("write", "error", "message"), BAD_ONNX.values(), ids=BAD_ONNX.keys())
def test_a_bad_onnx_file_leaves_the_net_as_it_was(write, error, message, rng, tmp_path):
    net = made("conv_net", rng)
    write(net, tmp_path / "net.onnx")
    target = made("conv_net", rng)
    before = target.flat_params.copy(), {key: array.copy() for key, array in target.state.items()}
    with pytest.raises(error, match=message):
        export.from_onnx(tmp_path / "net.onnx", target)
    np.testing.assert_array_equal(target.flat_params, before[0])
    for key, array in target.state.items():
        np.testing.assert_array_equal(array, before[1][key])


def changed_arrays(change):
    def write(net, path):
        arrays = safetensors.numpy.load(torch_file.encode(net, "a")[0])
        change(arrays)
        path.write_bytes(safetensors.numpy.save(arrays))

    return write


BAD_TORCH = {
    "missing_file": (lambda net, path: None, ConfigError, "could not be read"),
    "garbage": (lambda net, path: path.write_bytes(b"x" * 40), CheckpointCorruptError, "is not a safetensors file"),
    "empty": (lambda net, path: path.write_bytes(b""), CheckpointCorruptError, "is not a safetensors file"),
    "cut": (
        lambda net, path: path.write_bytes(torch_file.encode(net, "a")[0][:-1]),
        CheckpointCorruptError,
        "is not a safetensors file",
    ),
    "zip_of_pickles": (lambda net, path: path.write_bytes(b"PK\x03\x04"), UnsupportedError, "is a pickle of PyTorch"),
    "pickle": (lambda net, path: path.write_bytes(b"\x80\x02}"), UnsupportedError, "can run code"),
    "missing": (
        changed_arrays(lambda arrays: arrays.pop("bn2.running_var")),
        CheckpointMismatchError,
        r"missing: bn2\.running_var",
    ),
    "unexpected": (
        changed_arrays(lambda arrays: arrays.update({"conv1.bias": np.zeros(4, np.float32)})),
        CheckpointMismatchError,
        r"unexpected: conv1\.bias",
    ),
    "shape": (
        changed_arrays(lambda arrays: arrays.update({"affine1.weight": np.zeros((32, 4), np.float32)})),
        CheckpointMismatchError,
        r"affine1\.weight must be \(4, 32\), got \(32, 4\)",
    ),
    "integers": (
        changed_arrays(lambda arrays: arrays.update({"affine1.bias": np.zeros(4, np.int32)})),
        CheckpointMismatchError,
        "int32, which a net of float32 cannot take",
    ),
    "nan": (
        changed_arrays(lambda arrays: arrays["bn1.bias"].__setitem__(0, np.nan)),
        CheckpointMismatchError,
        "holds NaN or infinity",
    ),
    "own_checkpoint": (
        lambda net, path: path.write_bytes(safetensors.numpy.save({"params/conv1.w": np.zeros(1)})),
        CheckpointMismatchError,
        "is a checkpoint of gpuconv",
    ),
}


@pytest.mark.parametrize(("write", "error", "message"), BAD_TORCH.values(), ids=BAD_TORCH.keys())
def test_bad_weights_leave_the_net_as_it_was(write, error, message, rng, tmp_path):
    net = made("conv_net", rng)
    path = tmp_path / "net.safetensors"
    write(net, path)
    target = made("conv_net", rng)
    before = target.flat_params.copy(), {key: array.copy() for key, array in target.state.items()}
    with pytest.raises(error, match=message):
        export.from_torch(path, target)
    np.testing.assert_array_equal(target.flat_params, before[0])
    for key, array in target.state.items():
        np.testing.assert_array_equal(array, before[1][key])


def test_bfloat16_is_refused_by_name(rng, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3, 5, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    with pytest.raises((UnsupportedError, CheckpointMismatchError)):
        export.from_torch(tmp_path / "a.safetensors", made("affine_no_bias", rng))


@pytest.mark.parametrize("record", [None, "{}", "[", '{"net": 3}', '{"net": {"net": "Unknown"}}'])
def test_a_file_that_does_not_say_its_net_needs_one(record, rng, tmp_path):
    metadata = None if record is None else {"gpuconv": record}
    (tmp_path / "a.safetensors").write_bytes(safetensors.numpy.save({"weight": np.zeros((3, 5))}, metadata=metadata))
    with pytest.raises(CheckpointMismatchError, match=r"does not (say which net|describe a net)"):
        export.from_torch(tmp_path / "a.safetensors")


def test_a_net_on_a_gpu_is_written_from_there(gpu, rng, tmp_path):
    """Its arrays are copied to the host; what comes back lands where the net is."""
    net = made("conv_net", rng)
    there = made("conv_net", rng)
    for kind in ("params", "state"):
        for key in getattr(there, kind):
            getattr(there, kind)[key] = gpu.array(getattr(net, kind)[key])
    for (_, leaf), (_, other) in zip(there.body.leaves(), net.body.leaves(), strict=True):
        for kind in ("params", "state"):
            getattr(leaf, kind).update({key: gpu.array(array) for key, array in getattr(other, kind).items()})
    for write, suffix in ((export.to_onnx, "onnx"), (export.to_torch, "safetensors")):
        write(net, tmp_path / f"host.{suffix}")
        write(there, tmp_path / f"there.{suffix}")
        assert (tmp_path / f"there.{suffix}").read_bytes() == (tmp_path / f"host.{suffix}").read_bytes()
