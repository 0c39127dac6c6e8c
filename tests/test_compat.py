"""What the courses' modules promise beyond their test cells: names, dicts, dtypes, and what the originals get wrong."""

import importlib
import importlib.util
import io
import pickle
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import tiny_cifar10 as tiny
from places import CPU, EMULATED, GPU, Emulated, device_cuda

from gpuconv import backend, compat
from gpuconv.compat import (
    cnn,
    conv_layers,
    data_utils,
    fast_layers,
    fc_net,
    gradient_check,
    im2col,
    layer_utils,
    layers,
    modules,
    optim,
    optim_ucla,
    params,
    solver,
    vis_utils,
)
from gpuconv.data import cifar10
from gpuconv.errors import (
    ArgTypeError,
    CacheError,
    ConfigError,
    DatasetCorruptError,
    DatasetMissingError,
    ParamError,
    ShapeError,
    UnsafeArchiveError,
)


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with backend.using("cpu"):
        yield


@pytest.fixture
def installed():
    """Install everything, and take it back."""
    compat.install()
    yield
    compat.uninstall()


@pytest.fixture(params=[CPU, EMULATED, GPU])
def where(request):
    with device_cuda(request.param), backend.using(request.param.partition("-")[0]):
        yield request.param


def _draw(rng, *shapes):
    return [rng.standard_normal(shape) for shape in shapes]


# Modules ------------------------------------------------------------------------------------------------------------

NOTEBOOKS = {
    "ucla layers": """
from nndl.conv_layers import *
from utils.data_utils import get_CIFAR10_data
from utils.gradient_check import eval_numerical_gradient, eval_numerical_gradient_array
from utils.solver import Solver
from utils.fast_layers import conv_forward_fast, conv_backward_fast
from utils.fast_layers import max_pool_forward_fast, max_pool_backward_fast
from nndl.conv_layer_utils import conv_relu_forward, conv_relu_backward
from nndl.conv_layer_utils import conv_relu_pool_forward, conv_relu_pool_backward
used = conv_forward_naive, max_pool_backward_naive, batchnorm_forward, affine_forward, np.zeros
""",
    "ucla batch norm": """
from nndl.conv_layers import *
from cs231n.data_utils import get_CIFAR10_data
from cs231n.gradient_check import eval_numerical_gradient, eval_numerical_gradient_array
from cs231n.solver import Solver
used = spatial_batchnorm_forward, spatial_batchnorm_backward, np.random
""",
    "ucla net": """
from nndl.cnn import *
from nndl.layers import *
from nndl.conv_layers import *
from utils.fast_layers import *
from utils.data_utils import get_CIFAR10_data
from utils.gradient_check import eval_numerical_gradient_array, eval_numerical_gradient
from utils.solver import Solver
import nndl.optim as optim
used = ThreeLayerConvNet(use_batchnorm=True), softmax_loss, svm_loss, conv_forward_strides, optim.sgd_nesterov_momentum
""",
    "stanford fully connected": """
from cs231n.classifiers.fc_net import *
from cs231n.data_utils import get_CIFAR10_data
from cs231n.gradient_check import eval_numerical_gradient, eval_numerical_gradient_array
from cs231n.solver import Solver
from cs231n.optim import sgd_momentum, rmsprop, adam
used = TwoLayerNet, FullyConnectedNet, affine_relu_forward, batchnorm_backward_alt, dropout_forward, svm_loss
""",
    "stanford": """
from cs231n.classifiers.cnn import *
from cs231n.data_utils import get_CIFAR10_data
from cs231n.gradient_check import eval_numerical_gradient_array, eval_numerical_gradient
from cs231n.layers import *
from cs231n.fast_layers import *
from cs231n.solver import Solver
from cs231n.layer_utils import conv_relu_forward, conv_relu_backward
from cs231n.layer_utils import conv_relu_pool_forward, conv_relu_pool_backward
from cs231n.fast_layers import conv_forward_fast, conv_backward_fast
from cs231n.fast_layers import max_pool_forward_fast, max_pool_backward_fast
from cs231n.vis_utils import visualize_grid
from cs231n.classifiers.fc_net import *
import cs231n.optim
used = ThreeLayerConvNet, FullyConnectedNet, spatial_groupnorm_forward, layernorm_backward, batchnorm_backward_alt
used += max_pool_forward_reshape, max_pool_backward_im2col, conv_backward_strides, cs231n.optim.adam
""",
}


@pytest.mark.parametrize("imports", NOTEBOOKS.values(), ids=NOTEBOOKS.keys())
@pytest.mark.usefixtures("installed")
def test_the_notebooks_imports_work(imports):
    exec(imports, {})  # noqa: S102 - as a notebook's cell


@pytest.mark.usefixtures("installed")
def test_every_module_is_there_and_holds_what_it_should():
    for name, parts in modules.MODULES.items():
        module = importlib.import_module(name)
        for part in parts:
            for key, value in vars(part).items():
                if getattr(value, "__module__", None) == part.__name__ and not key.startswith("_"):
                    assert hasattr(module, key), f"{name}.{key}"
        assert not [key for key in vars(module) if key in ("border", "params", "ops", "Any", "unpacked")]
    assert importlib.util.find_spec("cs231n.layers") is not None  # what tools ask of a module that is there
    assert sys.modules["nndl.optim"].adam is optim_ucla.adam
    assert sys.modules["cs231n.optim"].adam is optim.adam


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["cs231n.rnn_layers", "cs231n.classifiers.rnn", "nndl.neural_net"])
def test_a_module_that_is_not_served_says_so(name):
    with pytest.raises(
        ModuleNotFoundError, match=f"^{name} is none of the modules that gpuconv.compat serves.* layers, "
    ) as caught:
        exec(f"from {name} import *", {})  # noqa: S102
    assert caught.value.name == name
    assert importlib.util.find_spec("utils.rnn_layers") is None


def test_a_module_of_the_students_own_is_found_before_it_is_refused(tmp_path, monkeypatch):
    (tmp_path / "cs231n").mkdir()
    (tmp_path / "cs231n" / "rnn_layers.py").write_text("mine = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    try:
        compat.install()
        assert importlib.import_module("cs231n.rnn_layers").mine == 1
    finally:
        compat.uninstall()
        sys.modules.pop("cs231n.rnn_layers", None)
    assert sys.meta_path == before


def test_uninstall_puts_back_what_was_there(monkeypatch):
    theirs = type(sys)("utils")
    monkeypatch.setitem(sys.modules, "utils", theirs)
    compat.install()
    assert sys.modules["utils"] is not theirs
    compat.install("fast_layers")  # twice does no harm
    compat.uninstall()
    assert sys.modules["utils"] is theirs
    assert not [name for name in sys.modules if name.partition(".")[0] in ("nndl", "cs231n")]


def test_fast_layers_alone_leaves_the_students_own(tmp_path, monkeypatch):
    """Their package is imported from their files, but for that one module."""
    package = tmp_path / "cs231n"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "layers.py").write_text("def relu_forward(x):\n    return 'mine'\n")
    (package / "fast_layers.py").write_text("raise ImportError('not compiled')\n")
    (package / "layer_utils.py").write_text("from .layers import *\nfrom .fast_layers import *\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        compat.install("fast_layers")
        found = {}
        exec("from cs231n.layer_utils import *\nimport cs231n.fast_layers", found)  # noqa: S102
        assert found["relu_forward"](0) == "mine"
        assert found["conv_forward_fast"] is fast_layers.conv_forward_fast
        assert found["cs231n"].fast_layers.conv_forward_fast is fast_layers.conv_forward_fast
        assert found["cs231n"].__file__ == str(package / "__init__.py")
        compat.uninstall()
        with pytest.raises(ImportError, match="not compiled"):
            importlib.import_module("cs231n.fast_layers")
    finally:
        compat.uninstall()
        for name in [name for name in sys.modules if name.partition(".")[0] == "cs231n"]:
            del sys.modules[name]


def test_modules_of_a_student_that_the_lists_lack_stay_importable(tmp_path, monkeypatch):
    for name in ("nndl", "cs231n", "cs231n/classifiers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "extra.py").write_text("from nndl.layers import affine_forward\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    compat.install()
    try:
        for name in ("nndl", "cs231n", "cs231n.classifiers"):
            found = importlib.import_module(f"{name}.extra")
            assert found.affine_forward is layers.affine_forward
    finally:
        compat.uninstall()
        for name in [name for name in sys.modules if name.partition(".")[0] in ("nndl", "cs231n")]:
            del sys.modules[name]


def test_an_unknown_module_is_refused_before_anything_is_replaced():
    with pytest.raises(ConfigError, match=r"no course has a module 'fast_layer', there are: .*fast_layers"):
        compat.install("solver", "fast_layer")
    assert "cs231n.solver" not in sys.modules


# What the originals get wrong -----------------------------------------------------------------------------------------

CONV_CASES = {
    "float_pad": ((2, 3, 7, 6), (4, 3, 3, 3), {"stride": 1, "pad": (3 - 1) / 2}),
    "numpy_float_pad_and_stride": ((2, 3, 7, 6), (4, 3, 3, 3), {"stride": np.float64(2), "pad": np.float32(1)}),
    "pad_zero": ((2, 3, 7, 6), (4, 3, 3, 3), {"stride": 1, "pad": 0}),
    "filter_three_by_five": ((2, 3, 7, 9), (4, 3, 3, 5), {"stride": 1, "pad": 1}),
    "filter_five_by_three": ((2, 3, 9, 7), (4, 3, 5, 3), {"stride": 1, "pad": 1}),
    "stride_two": ((2, 3, 7, 8), (4, 3, 3, 3), {"stride": 2, "pad": 1}),
    "stride_above_the_filter": ((2, 3, 8, 8), (4, 3, 2, 2), {"stride": 3, "pad": 0}),
    "one_by_one": ((2, 3, 5, 4), (4, 3, 1, 1), {"stride": 1, "pad": 0}),
    "one_image": ((1, 3, 5, 4), (4, 3, 3, 3), {"stride": 1, "pad": 1}),
}


@pytest.mark.parametrize("name", ["fast", "strides", "im2col"])
@pytest.mark.parametrize(("x_shape", "w_shape", "conv_param"), CONV_CASES.values(), ids=CONV_CASES.keys())
def test_conv_is_right_where_originals_are_not(x_shape, w_shape, conv_param, name, where, rng):
    x, w, b = _draw(rng, x_shape, w_shape, w_shape[0])
    out, cache = getattr(fast_layers, f"conv_forward_{name}")(x, w, b, conv_param)
    expected, naive_cache = conv_layers.conv_forward_naive(x, w, b, conv_param)
    dout = rng.standard_normal(out.shape)
    grads = getattr(fast_layers, f"conv_backward_{name}")(dout, cache)
    expected_grads = conv_layers.conv_backward_naive(dout, naive_cache)
    for got, want in zip((out, *grads), (expected, *expected_grads), strict=True):
        assert got.flags.writeable
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    again = fast_layers.conv_backward_fast(dout, naive_cache)  # a cache of the naive forward will do
    np.testing.assert_allclose(again[0], expected_grads[0], rtol=1e-12, atol=1e-12)


def test_half_a_pixel_of_pad_is_refused(rng):
    x, w, b = _draw(rng, (1, 1, 4, 4), (1, 1, 2, 2), 1)
    for forward in (conv_layers.conv_forward_naive, fast_layers.conv_forward_fast):
        with pytest.raises(ArgTypeError, match=r"pad must be an int, got 0\.5"):
            forward(x, w, b, {"stride": 1, "pad": 0.5})


def test_fortran_order_is_right(where, rng):
    x, w, b = _draw(rng, (2, 3, 6, 5), (4, 3, 3, 3), 4)
    expected, _ = conv_layers.conv_forward_naive(x, w, b, {"stride": 1, "pad": 1})
    for stored in (np.asfortranarray(x), np.ascontiguousarray(x.transpose(3, 1, 0, 2)).transpose(2, 1, 3, 0)):
        out, _ = fast_layers.conv_forward_fast(stored, np.asfortranarray(w), b, {"stride": 1, "pad": 1})
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


POOL_CASES = {
    "overlapping": ((2, 3, 7, 7), (3, 3, 2)),
    "every_pixel": ((2, 3, 6, 5), (3, 3, 1)),
    "not_square": ((2, 3, 6, 8), (2, 4, 2)),
    "leaves_a_row_over": ((2, 3, 7, 7), (2, 2, 2)),
    "gaps": ((2, 3, 8, 8), (2, 2, 3)),
    "float_sizes": ((2, 3, 6, 6), (2.0, np.float64(2), 2.0)),
}


@pytest.mark.parametrize("name", ["fast", "reshape", "im2col"])
@pytest.mark.parametrize(("shape", "sizes"), POOL_CASES.values(), ids=POOL_CASES.keys())
def test_max_pool_is_right_where_originals_are_not(shape, sizes, name, where, rng):
    pool_param = dict(zip(("pool_height", "pool_width", "stride"), sizes, strict=True))
    x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(float)
    out, cache = getattr(fast_layers, f"max_pool_forward_{name}")(x, pool_param)
    expected, naive_cache = conv_layers.max_pool_forward_naive(x, pool_param)
    np.testing.assert_array_equal(out, expected)
    dout = rng.integers(-9, 10, out.shape).astype(float)
    dx = getattr(fast_layers, f"max_pool_backward_{name}")(dout, cache)
    np.testing.assert_array_equal(dx, conv_layers.max_pool_backward_naive(dout, naive_cache))


def test_the_rule_for_ties_is_that_of_each_function(where):
    x, dout, pool_param = np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), {"pool_height": 2, "pool_width": 2, "stride": 2}
    _, cache = conv_layers.max_pool_forward_naive(x, pool_param)
    assert conv_layers.max_pool_backward_naive(dout, cache).ravel().tolist() == [1, 1, 1, 1]
    for name, expected in {"fast": [0.25] * 4, "reshape": [0.25] * 4, "im2col": [1, 0, 0, 0]}.items():
        _, cache = getattr(fast_layers, f"max_pool_forward_{name}")(x, pool_param)
        assert cache[0] == ("im2col" if name == "im2col" else "reshape")
        assert fast_layers.max_pool_backward_fast(dout, cache).ravel().tolist() == expected
    _, cache = fast_layers.max_pool_forward_fast(np.ones((1, 1, 3, 2)), pool_param)  # does not tile
    assert fast_layers.max_pool_backward_fast(dout, cache).ravel().tolist() == [1, 0, 0, 0, 0, 0]


def test_integer_pixels_have_gradients(where):
    x, pool_param = np.arange(16).reshape(1, 1, 4, 4), {"pool_height": 2, "pool_width": 2, "stride": 2}
    out, cache = fast_layers.max_pool_forward_fast(x, pool_param)
    dx = fast_layers.max_pool_backward_fast(out, cache)
    assert dx.dtype == np.float64
    assert dx.sum() == out.sum()


def test_a_thousand_images_need_no_gigabyte():
    """The 7 x 7 convolution of the net, which as columns is 147 x 1,024,000 numbers of 8 bytes."""
    x, w, b = np.zeros((1000, 3, 32, 32)), np.zeros((32, 3, 7, 7)), np.zeros(32)
    tracemalloc.start()
    try:
        out, cache = fast_layers.conv_forward_fast(x, w, b, {"stride": 1, "pad": 3.0})
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache[0] is x
    assert out.nbytes <= peak < out.nbytes + 64 * 2**20
    assert kept < out.nbytes + 64 * 2**20


# Arrays at the border -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "result"),
    [
        (("f8", "f8", "f8"), "f8"),
        (("f4", "f4", "f4"), "f4"),
        (("f2", "f2", "f2"), "f2"),
        (("f8", "f4", "f4"), "f8"),
        (("f4", "f4", "i8"), "f8"),
        (("u1", "f4", "f4"), "f4"),
        (("i8", "i8", "i8"), "f8"),
        ((">f4", "f4", "f4"), "f4"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else value,
)
def test_results_have_numpys_promotion(kinds, result, where, rng):
    """Float64 pictures with float32 weights compute in float64; integers give floats."""
    shapes = ((1, 2, 4, 4), (2, 2, 3, 3), 2)
    x, w, b = (rng.integers(0, 4, shape).astype(kind) for shape, kind in zip(shapes, kinds, strict=True))
    pairs = [(fast_layers.conv_forward_fast, fast_layers.conv_backward_fast)]
    if where == "cpu":
        pairs.append((conv_layers.conv_forward_naive, conv_layers.conv_backward_naive))
    for forward, backward in pairs:
        out, cache = forward(x, w, b, {"stride": 1, "pad": 1})
        assert out.dtype == result
        assert {grad.dtype.str[1:] for grad in backward(out, cache)} == {result}
    out, cache = layers.affine_forward(x, w.reshape(2, -1).T[:1].repeat(32, axis=0), b)
    assert out.dtype == result
    assert {grad.dtype.str[1:] for grad in layers.affine_backward(out, cache)} == {result}


def test_gradients_have_the_forwards_dtype(where, rng):
    """A dout of float64 comes from a notebook's randn, whatever the layer computed in."""
    narrow = {"mode": "train"}
    x, w, b = (a.astype(np.float32) for a in _draw(rng, (2, 3, 4, 4), (3, 3, 3, 3), 3))
    pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    calls = [
        (fast_layers.conv_forward_fast, fast_layers.conv_backward_fast, (x, w, b, {"stride": 1, "pad": 1})),
        (fast_layers.max_pool_forward_fast, fast_layers.max_pool_backward_fast, (x, pool_param)),
        (fast_layers.max_pool_forward_im2col, fast_layers.max_pool_backward_fast, (x, pool_param)),
        (layers.relu_forward, layers.relu_backward, (x,)),
        (layers.affine_forward, layers.affine_backward, (x, w.reshape(-1, 1)[:48], b[:1])),
        (conv_layers.spatial_batchnorm_forward, conv_layers.spatial_batchnorm_backward, (x, b, b, narrow)),
        (layers.layernorm_forward, layers.layernorm_backward, (x[:, :, 0, 0], b, b, {})),
        (layers.dropout_forward, layers.dropout_backward, (x, {"mode": "train", "p": 0.5})),
    ]
    for forward, backward, args in calls:
        out, cache = forward(*args)
        assert out.dtype == np.float32
        grads = backward(np.ones(out.shape), cache)
        # Dropout's cache is a mask, which says nothing of x.
        expected = np.float64 if forward is layers.dropout_forward else np.float32
        assert {grad.dtype for grad in (grads if isinstance(grads, tuple) else (grads,))} == {np.dtype(expected)}
    assert narrow["running_mean"].dtype == np.float32


def test_results_are_numpys_own_and_inputs_stay(where, rng):
    x, w, b = _draw(rng, (2, 3, 8, 8), (4, 3, 3, 3), 4)
    before = [a.copy() for a in (x, w, b)]
    pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    out, cache = layer_utils.conv_relu_pool_forward(x, w, b, {"stride": 1, "pad": 1}, pool_param)
    grads = layer_utils.conv_relu_pool_backward(np.ones_like(out), cache)
    assert {type(array) for array in (out, *grads)} == {np.ndarray}
    for array, old in zip((x, w, b), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_arrays_are_read_anew_at_every_call(where, rng):
    """Gradient checks change parameters in place."""
    x, w, b = _draw(rng, (2, 5), (5, 3), 3)
    first, _ = layers.affine_forward(x, w, b)
    w[2, 1] += 1
    second, _ = layers.affine_forward(x, w, b)
    np.testing.assert_allclose(second - first, np.outer(x[:, 2], [0, 1, 0]), rtol=1e-12, atol=1e-14)


def test_a_sandwich_crosses_the_border_once_each_way(emulated_gpu, monkeypatch, rng):
    """What lies between its layers stays on the GPU; so does all of a net's pass but scores and gradients."""
    moved = []
    real = Emulated.device.asnumpy
    monkeypatch.setattr(Emulated.device, "asnumpy", lambda array: moved.append(array.shape) or real(array))
    x, w, b = _draw(rng, (2, 3, 8, 8), (4, 3, 3, 3), 4)
    pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    with backend.using("cuda"):
        out, cache = layer_utils.conv_relu_pool_forward(x, w, b, {"stride": 1, "pad": 1}, pool_param)
        assert moved == [out.shape]
        moved.clear()
        layer_utils.conv_relu_pool_backward(out, cache)
        assert moved == [x.shape, w.shape, b.shape]
        moved.clear()
        model = cnn.ThreeLayerConvNet((3, 8, 8), num_filters=4, filter_size=3, hidden_dim=5)
        model.loss(x, np.array([1, 2]))
    assert sorted(moved) == sorted([(), *(values.shape for values in model.params.values())])


@pytest.mark.parametrize("settings", [{}, {"use_batchnorm": True}], ids=["plain", "batchnorm"])
def test_the_gpu_gives_the_nets_numbers(settings, emulated_gpu, rng):
    X, y = rng.standard_normal((3, 3, 8, 8)), np.array([1, 0, 9])
    np.random.seed(0)  # noqa: NPY002
    model = cnn.ThreeLayerConvNet(
        (3, 8, 8), num_filters=4, filter_size=3, hidden_dim=5, weight_scale=0.1, reg=0.1, dtype=np.float64, **settings
    )
    loss, grads = model.loss(X, y)
    with backend.using("cuda"):
        gpu_loss, gpu_grads = model.loss(X, y)
        scores = model.loss(X, mode="train")
    assert gpu_loss == pytest.approx(loss, rel=1e-13)
    assert gpu_grads.keys() == grads.keys() == model.params.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(gpu_grads[name], grad, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(scores, model.loss(X, mode="train"), rtol=1e-11, atol=1e-13)


def test_a_cache_stays_where_its_forward_ran(emulated_gpu, rng):
    x, gamma, beta = _draw(rng, (5, 3), 3, 3)
    with backend.using("cuda"):
        out, cache = layers.batchnorm_forward(x, gamma, beta, {"mode": "train"})
    dx, _, _ = layers.batchnorm_backward(out, cache)
    expected, _, _ = layers.batchnorm_backward(out, layers.batchnorm_forward(x, gamma, beta, {"mode": "train"})[1])
    np.testing.assert_allclose(dx, expected, rtol=1e-10, atol=1e-12)


# Dicts and caches -----------------------------------------------------------------------------------------------------


def test_batchnorm_keeps_its_statistics_in_the_dict(where, rng):
    x = rng.standard_normal((5, 3)).astype(np.float32)
    bn_param = {"mode": "train", "momentum": 0.5}
    layers.batchnorm_forward(x, np.ones(3), np.zeros(3), bn_param)
    assert bn_param["running_mean"].dtype == np.float32
    np.testing.assert_allclose(bn_param["running_mean"], x.mean(axis=0) / 2, rtol=1e-6)
    np.testing.assert_allclose(bn_param["running_var"], x.var(axis=0) / 2, rtol=1e-6)
    first = bn_param["running_mean"]
    kept = first.copy()
    layers.batchnorm_forward(x, np.ones(3), np.zeros(3), bn_param)
    np.testing.assert_array_equal(first, kept)  # replaced, not overwritten: a notebook may hold on to it
    bn_param["mode"] = "test"
    before = bn_param["running_var"].copy()
    layers.batchnorm_forward(x, np.ones(3), np.zeros(3), bn_param)
    np.testing.assert_array_equal(bn_param["running_var"], before)
    bn_param["mode"] = "eval"
    with pytest.raises(ParamError, match='Invalid forward batchnorm mode "eval"'):
        layers.batchnorm_forward(x, np.ones(3), np.zeros(3), bn_param)


def test_eps_and_momentum_are_taken_from_the_dicts(where, rng):
    x = 1e-3 * rng.standard_normal((6, 4))
    bn_param = {"mode": "train", "eps": 1.0, "momentum": 0.0}
    out, _ = layers.batchnorm_forward(x, np.ones(4), np.zeros(4), bn_param)
    np.testing.assert_allclose(out, (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1), rtol=1e-9)
    np.testing.assert_allclose(bn_param["running_var"], x.var(axis=0), rtol=1e-12)
    out, _ = layers.layernorm_forward(x, np.ones(4), np.zeros(4), {"eps": 1.0})
    rows = x.var(axis=1, keepdims=True)
    np.testing.assert_allclose(out, (x - x.mean(axis=1, keepdims=True)) / np.sqrt(rows + 1), rtol=1e-9)
    images, ones = x.reshape(3, 2, 2, 2), np.ones((1, 2, 1, 1))
    out, _ = conv_layers.spatial_groupnorm_forward(images, ones, 0 * ones, 1, {"eps": 1.0})
    flat = images.reshape(3, -1)
    expected = (flat - flat.mean(axis=1, keepdims=True)) / np.sqrt(flat.var(axis=1, keepdims=True) + 1)
    np.testing.assert_allclose(out.reshape(3, -1), expected, rtol=1e-9)


_HALVES = {"pool_height": 2, "pool_width": 2, "stride": 2}


@pytest.mark.parametrize(
    "call",
    [
        lambda x: compat.conv_layers.spatial_batchnorm_forward(x, np.ones(3), np.zeros(3), {"mode": "train"}),
        lambda x: compat.conv_layers.spatial_groupnorm_forward(x, np.ones(3), np.zeros(3), 1, {}),
        lambda x: compat.conv_layers.max_pool_forward_naive(x, _HALVES),
        lambda x: compat.fast_layers.max_pool_forward_im2col(x, _HALVES),
    ],
    ids=["batchnorm", "groupnorm", "naive_pool", "fast_pool"],
)
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 4, 4)], ids=["signals", "volumes"])
def test_the_courses_functions_take_images_alone(call, shape):
    with pytest.raises(ShapeError, match=r"x must be \(N, C, H, W\), got shape"):
        call(np.zeros(shape))


def test_groupnorm_refuses_vectors_of_another_length():
    with pytest.raises(ShapeError, match=r"one entry per channel of x, 6, got \(1, 3, 1, 1\)"):
        conv_layers.spatial_groupnorm_forward(
            np.zeros((2, 6, 2, 2)), np.ones((1, 3, 1, 1)), np.ones((1, 6, 1, 1)), 2, {}
        )


def test_caches_that_a_notebook_opens():
    x, w, b = np.ones((1, 2, 4, 4)), np.ones((3, 2, 3, 3)), np.zeros(3)
    conv_param, pool_param = {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}
    for forward in (conv_layers.conv_forward_naive, fast_layers.conv_forward_fast):
        cache = forward(x, w, b, conv_param)[1]
        assert all(kept is given for kept, given in zip(cache[:4], (x, w, b, conv_param), strict=True))
    cache = conv_layers.max_pool_forward_naive(x, pool_param)[1]
    assert cache[0] is x
    assert cache[1] is pool_param
    assert layers.relu_forward(x)[1] is x
    assert layers.affine_forward(x, np.ones((32, 2)), np.ones(2))[1][0] is x
    for name in ("conv_relu", "conv_relu_pool"):
        args = (conv_param, pool_param)[: name.count("_")]
        assert len(getattr(layer_utils, f"{name}_forward")(x, w, b, *args)[1]) == 1 + len(args)


def test_caches_are_checked(rng):
    out = rng.standard_normal((1, 2, 4, 4))
    for backward in (
        conv_layers.conv_backward_naive,
        conv_layers.max_pool_backward_naive,
        fast_layers.conv_backward_fast,
        fast_layers.max_pool_backward_fast,
        layers.affine_backward,
        layers.dropout_backward,
        layers.batchnorm_backward,
        layers.layernorm_backward,
        conv_layers.spatial_batchnorm_backward,
        conv_layers.spatial_groupnorm_backward,
        layer_utils.affine_relu_backward,
        layer_utils.conv_bn_relu_backward,
    ):
        for cache in (None, (), (1, 2, 3, 4, 5, 6)):
            with pytest.raises(CacheError, match="cache must be the "):
                backward(out, cache)


# Dropout ------------------------------------------------------------------------------------------------------------


def test_what_p_of_dropout_means_can_be_said(rng):
    x = 1 + rng.random((200, 200))
    try:
        for p_is, share in (("keep", 0.8), ("drop", 0.2)):
            out, _ = layers.dropout_forward(x, {"mode": "train", "p": 0.2, "seed": 1}, p_is=p_is)
            assert abs((out == 0).mean() - share) < 0.02
            compat.install("layers", dropout_p=p_is)
            again, _ = layers.dropout_forward(x, {"mode": "train", "p": 0.2, "seed": 1})
            np.testing.assert_array_equal(again, out)
    finally:
        compat.uninstall()
    assert params.keep_probability(0.2, None) == 0.2
    with pytest.raises(ParamError, match='"keep" or to "drop", got \'lose\''):
        compat.install(dropout_p="lose")
    with pytest.raises(ParamError, match='Invalid forward dropout mode "run"'):
        layers.dropout_forward(x, {"mode": "run", "p": 0.5})


# Solver -------------------------------------------------------------------------------------------------------------


class _Recorded:
    """A model whose answers are known: it says class 0, and its accuracy is that of its labels."""

    def __init__(self):
        self.params = {"w": np.zeros(3), "b": np.zeros(())}
        self.batches = []

    def loss(self, X, y=None):
        if y is None:
            return np.tile([1.0, 0.0], (len(X), 1))
        self.batches.append(X[:, 0].copy())
        return 0.5, {"w": np.ones(3), "b": np.ones(())}


def _data(n=10, rows=4):
    labels = np.arange(n) % 2
    return {
        "X_train": np.arange(n, dtype=float).reshape(n, 1),
        "y_train": labels,
        "X_val": np.zeros((rows, 1)),
        "y_val": np.zeros(rows, int),
    }


def test_solver_draws_in_the_courses_order():
    """One choice with replacement each step; one for the training accuracy where there are more than it wants."""
    np.random.seed(7)  # noqa: NPY002
    model = _Recorded()
    solver.Solver(model, _data(), num_epochs=2, batch_size=4, num_train_samples=6, verbose=False).train()
    draw, expected = np.random.RandomState(7), []
    for step in range(4):
        expected.append(draw.choice(10, 4).astype(float))
        if step in (0, 1, 3):
            draw.choice(10, 6)
    np.testing.assert_array_equal(model.batches, expected)


def test_solver_prints_what_the_notebook_shows(capsys):
    course = solver.Solver(_Recorded(), _data(), num_epochs=2, batch_size=5, print_every=3)
    course.train()
    assert capsys.readouterr().out.splitlines() == [
        "(Iteration 1 / 4) loss: 0.500000",
        "(Epoch 0 / 2) train acc: 0.500000; val_acc: 1.000000",
        "(Epoch 1 / 2) train acc: 0.500000; val_acc: 1.000000",
        "(Iteration 4 / 4) loss: 0.500000",
        "(Epoch 2 / 2) train acc: 0.500000; val_acc: 1.000000",
    ]
    assert course.loss_history == [0.5] * 4
    assert course.train_acc_history == [0.5] * 3
    assert course.val_acc_history == [1.0] * 3
    assert course.epoch == 2
    assert course.best_val_acc == 1.0


def test_solver_decays_each_parameters_rate():
    config = {"learning_rate": 1.0}
    model = _Recorded()
    course = solver.Solver(
        model, _data(), num_epochs=3, batch_size=10, lr_decay=0.5, optim_config=config, verbose=False
    )
    course.train()
    assert {c["learning_rate"] for c in course.optim_configs.values()} == {0.125}
    assert config == {"learning_rate": 1.0}
    # sgd changes w in place, and the first measurement is the best: 1 after its step.
    np.testing.assert_array_equal(model.params["w"], [-1, -1, -1])


def test_solver_refuses_what_it_does_not_know():
    with pytest.raises(ParamError, match='Unrecognized arguments "batchsize", "lr"'):
        solver.Solver(_Recorded(), _data(), batchsize=3, lr=1)
    with pytest.raises(ParamError, match='Invalid update_rule "adamw"'):
        solver.Solver(_Recorded(), _data(), update_rule="adamw")


@pytest.mark.parametrize("rule", solver._RULES)
def test_solver_takes_every_rule(rule):
    course = solver.Solver(_Recorded(), _data(), num_epochs=1, batch_size=5, update_rule=rule, verbose=False)
    course.train()
    assert course.update_rule is getattr(optim, rule)


def test_solver_saves_an_epoch_as_a_pickle(tmp_path, capsys):
    name = str(tmp_path / "run")
    course = solver.Solver(_Recorded(), _data(), num_epochs=1, batch_size=10, checkpoint_name=name)
    course.train()
    stored = pickle.loads((tmp_path / "run_epoch_1.pkl").read_bytes())
    assert stored["loss_history"] == course.loss_history
    assert stored["epoch"] == 1
    assert stored["model"].params.keys() == {"w", "b"}
    assert f'Saving checkpoint to "{name}_epoch_1.pkl"' in capsys.readouterr().out
    with pytest.raises(UnsafeArchiveError, match=r"names test_compat\._Recorded; nothing of it was run"):
        data_utils.load_models(tmp_path)


def test_models_of_the_course_come_back_from_pickles(tmp_path, rng):
    np.random.seed(1)  # noqa: NPY002
    x = rng.standard_normal((5, 3, 6, 6))
    models = {
        "a": cnn.ThreeLayerConvNet((3, 6, 6), 4, 3, 8, 3, weight_scale=0.1, use_batchnorm=True),
        "b": fc_net.FullyConnectedNet([8], 108, 3, normalization="batchnorm", dtype=np.float64),
        "c": fc_net.TwoLayerNet(108, 7, 3),
    }
    for name, model in models.items():
        checkpoint = {"model": model, "loss_history": [0.5, np.float64(0.25)], "epoch": 3}
        (tmp_path / name).write_bytes(pickle.dumps(checkpoint))
    (tmp_path / "notes.txt").write_text("no pickle")
    found = data_utils.load_models(tmp_path)
    assert found.keys() == models.keys()
    for name, model in models.items():
        assert type(found[name]) is type(model)
        np.testing.assert_array_equal(found[name].loss(x), model.loss(x))


def test_best_parameters_come_with_their_batch_norm_statistics(rng):
    """The accuracy that the solver reports is that of the model that it leaves behind."""
    X, y = rng.standard_normal((60, 3, 6, 6)), rng.integers(0, 3, 60)
    data = {"X_train": X[:30], "y_train": y[:30], "X_val": X[30:], "y_val": y[30:]}
    np.random.seed(1)  # noqa: NPY002
    for model in (
        cnn.ThreeLayerConvNet((3, 6, 6), 4, 3, 8, 3, weight_scale=0.1, use_batchnorm=True),
        fc_net.FullyConnectedNet([8], 108, 3, normalization="batchnorm", weight_scale=0.1),
    ):
        course = solver.Solver(
            model,
            data,
            num_epochs=8,
            batch_size=6,
            update_rule="adam",
            optim_config={"learning_rate": 3e-2},
            verbose=False,
        )
        course.train()
        assert course.val_acc_history[-1] < course.best_val_acc  # the last is not the best, or this shows nothing
        assert course.check_accuracy(data["X_val"], data["y_val"]) == course.best_val_acc


def test_evaluation_does_not_depend_on_the_batch(rng):
    """A net whose batch norm stays in training mode gives other scores for other company."""
    np.random.seed(1)  # noqa: NPY002
    model = cnn.ThreeLayerConvNet((3, 6, 6), 4, 3, 8, 3, weight_scale=0.1, use_batchnorm=True)
    X, y = rng.standard_normal((10, 3, 6, 6)), rng.integers(0, 3, 10)
    model.loss(X, y)
    together = model.loss(X)
    np.testing.assert_allclose(np.vstack([model.loss(X[i : i + 1]) for i in range(10)]), together, rtol=1e-12)
    assert np.abs(model.loss(X, mode="train") - together).max() > 1e-3


def test_the_nets_weights_are_drawn_in_order():
    np.random.seed(3)  # noqa: NPY002
    model = cnn.ThreeLayerConvNet((3, 4, 4), 2, 3, 5, 4, weight_scale=0.5)
    draw = np.random.RandomState(3)
    for name, shape in {"W1": (2, 3, 3, 3), "W2": (8, 5), "W3": (5, 4)}.items():
        np.testing.assert_array_equal(model.params[name], (0.5 * draw.randn(*shape)).astype(np.float32))
    assert {values.dtype for values in model.params.values()} == {np.dtype(np.float32)}
    assert list(model.params) == ["W1", "b1", "W2", "b2", "W3", "b3"]


def test_the_penalty_is_on_the_three_weights_only(rng):
    X, y = rng.standard_normal((2, 3, 4, 4)), np.array([0, 1])
    model = cnn.ThreeLayerConvNet((3, 4, 4), 2, 3, 5, 4, dtype=np.float64)
    loss, grads = model.loss(X, y)
    model.reg = 0.7
    more, more_grads = model.loss(X, y)
    squares = sum((model.params[name] ** 2).sum() for name in ("W1", "W2", "W3"))
    assert more - loss == pytest.approx(0.35 * squares, rel=1e-6)
    for name, grad in grads.items():
        extra = 0.7 * model.params[name] if name.startswith("W") else 0
        np.testing.assert_allclose(more_grads[name], grad + extra, rtol=1e-12, atol=1e-18)


# Data -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_data(monkeypatch, tmp_path):
    """Let the tiny CIFAR-10 be the real one, in the folder of UCLA's notebook."""
    monkeypatch.setattr(cifar10, "OFFICIAL", tiny.spec())
    monkeypatch.delenv("GPUCONV_DATA", raising=False)
    monkeypatch.setenv("GPUCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tiny.write_folder(tmp_path, tiny.PYTHON)


@pytest.mark.usefixtures("tiny_data")
@pytest.mark.parametrize("subtract_mean", [True, False])
def test_cifar10_as_the_notebooks_want_it(subtract_mean):
    x_train, y_train, x_test, y_test = tiny.arrays()
    found = data_utils.get_CIFAR10_data(450, 30, 20, subtract_mean=subtract_mean)
    mean = x_train[:450].astype(float).mean(axis=0) if subtract_mean else 0
    expected = {"train": (x_train[:450], y_train[:450]), "val": (x_train[450:480], y_train[450:480])}
    expected["test"] = x_test[:20], y_test[:20]
    assert list(found) == ["X_train", "y_train", "X_val", "y_val", "X_test", "y_test"]
    for name, (x, y) in expected.items():
        assert found[f"X_{name}"].dtype == np.float64
        np.testing.assert_array_equal(found[f"X_{name}"], x - mean)
        np.testing.assert_array_equal(found[f"y_{name}"], y)


def test_cifar10_is_found_in_the_folder_of_stanfords_script(tiny_data, tmp_path):
    folder = tmp_path / "cs231n" / "datasets"
    folder.mkdir(parents=True)
    tiny_data.rename(folder / tiny_data.name)
    assert data_utils.get_CIFAR10_data(10, 10, 10)["X_train"].shape == (10, 3, 32, 32)


def test_whole_batches_have_their_channels_last(tiny_data):
    x_train, y_train, _, y_test = tiny.arrays()
    X, Y = data_utils.load_CIFAR_batch(tiny_data / "data_batch_1")
    np.testing.assert_array_equal(X, x_train[:100].transpose(0, 2, 3, 1))
    assert X.dtype == np.float64
    np.testing.assert_array_equal(Y, y_train[:100])
    X_train, Y_train, X_test, Y_test = data_utils.load_CIFAR10(tiny_data)
    np.testing.assert_array_equal(X_train, x_train.transpose(0, 2, 3, 1))
    assert X_test.shape == (100, 32, 32, 3)
    np.testing.assert_array_equal(np.append(Y_train, Y_test), np.append(y_train, y_test))
    with (tiny_data / "data_batch_2").open("rb") as file:
        stored = data_utils.load_pickle(file)
    assert stored["labels"] == y_train[100:200].tolist()
    np.testing.assert_array_equal(stored["data"], x_train[100:200].reshape(100, -1))


def test_binary_batches_are_read_too(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "OFFICIAL", tiny.spec())
    folder = tiny.write_folder(tmp_path, tiny.BINARY)
    X, Y = data_utils.load_CIFAR_batch(folder / "test_batch.bin")
    np.testing.assert_array_equal(X.transpose(0, 3, 1, 2), tiny.arrays()[2])
    np.testing.assert_array_equal(Y, tiny.arrays()[3])


@pytest.fixture
def tiny_imagenet(tmp_path):
    """Write a folder like TinyImageNet, and return it with its pictures by name."""
    plt = pytest.importorskip("matplotlib.pyplot")
    rng, pictures = np.random.default_rng(0), {}

    def write(place, name, *, grey=False):
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 8) if grey else (8, 8, 3)).astype(np.uint8)
        pictures[name] = pixels
        plt.imsave(place / name, pixels, **({"cmap": "gray", "vmin": 0, "vmax": 255} if grey else {}))

    (tmp_path / "wnids.txt").write_text("n02\nn01\n")
    (tmp_path / "words.txt").write_text("n01\tcat, house cat\nn02\tdog\nn03\tneither\n")
    for wnid in ("n01", "n02"):
        write(tmp_path / "train" / wnid / "images", f"{wnid}_0.png")
        boxes = tmp_path / "train" / wnid / f"{wnid}_boxes.txt"
        boxes.write_text(f"{wnid}_0.png\t0\t0\t7\t7\n")
    write(tmp_path / "val" / "images", "val_0.png")
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.png\tn01\t0\t0\t7\t7\n")
    write(tmp_path / "test" / "images", "test_0.png")
    return tmp_path, pictures


def test_tiny_imagenet(tiny_imagenet):
    folder, pictures = tiny_imagenet
    found = data_utils.load_tiny_imagenet(folder, subtract_mean=False)
    assert found["class_names"] == [["dog"], ["cat", "house cat"]]
    assert found["y_train"].tolist() == [0, 1]
    assert found["y_val"].tolist() == [1]
    assert found["y_test"] is None
    assert found["X_train"].dtype == np.float32
    first = found["X_train"][0, :3]
    np.testing.assert_allclose(first, pictures["n02_0.png"].transpose(2, 0, 1) / 255, atol=1e-6)
    centred = data_utils.load_tiny_imagenet(folder)
    np.testing.assert_allclose(centred["X_train"].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(centred["X_val"] + centred["mean_image"], found["X_val"], atol=1e-6)


BROKEN_TINY_IMAGENETS = {
    "no_text": ("wnids.txt", b"n02\n\xff\n", r"wnids\.txt is no text in UTF-8: invalid start byte at byte 4"),
    "words_without_tabs": ("words.txt", b"n01 cat\n", r"words\.txt, line 1: expected 2 columns .* got 1"),
    "class_without_words": ("words.txt", b"n01\tcat\n", r"wnids\.txt has 'n02', of which .*words\.txt says nothing"),
    "unknown_class": (
        "val/val_annotations.txt",
        b"val_0.png\tn09\n",
        r"val_annotations\.txt has 'n09', of which .*wnids",
    ),
    "picture_unlabelled": ("test/test_annotations.txt", b"other.png\tn01\n", r"images has 'test_0\.png', of which"),
    "no_picture": ("val/images/val_0.png", b"no picture", r"val_0\.png could not be read as a picture"),
    "cut_picture": (
        "val/images/val_0.png",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        r"val_0\.png could not be read as a picture",
    ),
    "missing_text": ("words.txt", None, r"words\.txt is not there"),
    "missing_picture": ("train/n01/images/n01_0.png", None, r"n01_0\.png is not there"),
    "no_pictures": ("test/images/test_0.png", None, "a part without pictures"),
}


@pytest.mark.parametrize(
    ("name", "content", "message"), BROKEN_TINY_IMAGENETS.values(), ids=BROKEN_TINY_IMAGENETS.keys()
)
def test_what_is_broken_in_a_tiny_imagenet_is_named(tiny_imagenet, name, content, message):
    path = tiny_imagenet[0] / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((DatasetCorruptError, DatasetMissingError), match=message):
        data_utils.load_tiny_imagenet(tiny_imagenet[0])


def _member(content, **fields):
    """Return an archive whose X is that file, its entry changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("X.npy", content)
        packed.writestr("y.npy", content)
        packed.writestr("label_map.npy", content)
    packed = bytearray(file.getvalue())
    for here, there, value in fields.values():
        for mark, offset in ((b"PK\3\4", here), (b"PK\1\2", there)):
            place = packed.index(mark) + offset
            packed[place : place + 2] = value.to_bytes(2, "little")
    return bytes(packed)


def _npy(header):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


BROKEN_IMAGENETS = {
    "header_unclosed": _member(_npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,")),
    "header_no_python": _member(_npy(b"{'descr': '<f4' 'fortran_order' False}")),
    "header_nested": _member(_npy(b"(" * 5000)),
    "header_of_no_dtype": _member(_npy(b"{'descr': [1], 'fortran_order': False, 'shape': (2,)}")),
    "shape_of_a_petabyte": _member(_npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (200000000000000,)}")),
    "shape_beyond_counting": _member(
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9" + b"9" * 30 + b",)}")
    ),
    "shape_negative": _member(_npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}")),
    "text": _member(b"no array"),
    "a_secret": _member(b"", flags=(6, 8, 1)),
    "another_compression": _member(b"", method=(8, 10, 99)),
    "a_later_zip": _member(b"", version=(4, 6, 255)),
    "no_archive": b"PK\3\4 and no more",
}


@pytest.mark.parametrize("content", BROKEN_IMAGENETS.values(), ids=BROKEN_IMAGENETS.keys())
def test_broken_imagenet_validation_pictures_are_named(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet_val_25.npz").write_bytes(content)
    with pytest.raises(DatasetCorruptError, match=r"imagenet_val_25\.npz is not the file of the course's script: ."):
        data_utils.load_imagenet_val()


def test_imagenet_validation_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetMissingError, match=r"imagenet_val_25\.npz is in none of"):
        data_utils.load_imagenet_val()
    X, y = np.arange(24).reshape(2, 2, 2, 3), np.array([5, 7])
    np.savez(tmp_path / "imagenet_val_25.npz", X=X, y=y, label_map=np.array({5: "tench"}, dtype=object))
    found = data_utils.load_imagenet_val(num=1)
    np.testing.assert_array_equal(found[0], X[:1])
    assert found[1].tolist() == [5]
    assert found[2] == {5: "tench"}


# Columns, gradient checks, pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "field", "padding", "stride"),
    [
        ((2, 3, 5, 6), (3, 3), 1, 1),
        ((2, 3, 6, 5), (2, 4), 1, 2),
        ((1, 2, 7, 7), (5, 3), 0, 2),
        ((2, 1, 4, 4), (1, 1), 0, 1),
    ],
)
def test_columns_and_back(shape, field, padding, stride, rng):
    """A convolution is a product with the columns, and col2im is the adjoint of im2col."""
    x = rng.standard_normal(shape)
    w, b = rng.standard_normal((4, shape[1], *field)), np.zeros(4)
    columns = im2col.im2col_indices(x, *field, padding, stride)
    out, _ = fast_layers.conv_forward_fast(x, w, b, {"stride": stride, "pad": padding})
    N, F, high, wide = out.shape
    product = (w.reshape(F, -1) @ columns).reshape(F, high, wide, N).transpose(3, 0, 1, 2)
    np.testing.assert_allclose(product, out, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(im2col.im2col_cython(x, *field, padding, stride), columns)
    d = rng.standard_normal(columns.shape)
    back = im2col.col2im_indices(d, shape, *field, padding, stride)
    assert back.shape == shape
    assert np.vdot(back, x) == pytest.approx(np.vdot(d, columns), rel=1e-12)
    np.testing.assert_array_equal(im2col.col2im_cython(d, *shape, *field, padding, stride), back)
    six = d.reshape(shape[1], *field, high, wide, N).transpose(0, 1, 2, 5, 3, 4)
    np.testing.assert_array_equal(im2col.col2im_6d_cython(six, *shape, *field, padding, stride), back)


def test_gradient_checks_put_everything_back(rng, capsys):
    x, w = _draw(rng, (2, 3), (2, 3))
    before = x.copy()
    grad = gradient_check.eval_numerical_gradient(lambda x: np.sum(w * x**2), x)
    np.testing.assert_allclose(grad, 2 * w * x, rtol=1e-8)
    assert len(capsys.readouterr().out.splitlines()) == 6
    grad = gradient_check.eval_numerical_gradient_array(lambda x: x**2, x, w)
    np.testing.assert_allclose(grad, 2 * w * x, rtol=1e-8)
    with pytest.raises(ZeroDivisionError):
        gradient_check.eval_numerical_gradient(lambda x: 1 / 0, x)
    np.testing.assert_array_equal(x, before)

    gradient_check.grad_check_sparse(lambda x: np.sum(w * x**2), x, 2 * w * x, num_checks=4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("numerical: ") and float(line.rpartition(" ")[2]) < 1e-7 for line in lines)
    np.testing.assert_array_equal(x, before)


def test_gradient_checks_of_blobs_and_nets(rng):
    class Blob:
        def __init__(self, vals):
            self.vals, self.diffs = vals, rng.standard_normal(vals.shape)

    a, b, out = (Blob(rng.standard_normal((2, 2))) for _ in range(3))

    def f(a, b, out):
        out.vals = a.vals * b.vals

    grads = gradient_check.eval_numerical_gradient_blobs(f, (a, b), out)
    np.testing.assert_allclose(grads, [b.vals * out.diffs, a.vals * out.diffs], rtol=1e-8)

    class Net:
        @staticmethod
        def forward():
            f(a, b, out)

    again = gradient_check.eval_numerical_gradient_net(Net, (a, b), out)
    np.testing.assert_allclose(again, grads, rtol=1e-8)


def test_pictures_side_by_side(rng):
    """Each is stretched by itself; a constant one, which divides by 0 in the original, is black."""
    Xs = rng.standard_normal((5, 4, 3, 3))
    Xs[1] = 7.0
    grid = vis_utils.visualize_grid(Xs, padding=2)
    assert grid.shape == (3 * 4 + 2 * 2, 3 * 3 + 2 * 2, 3)
    assert np.isfinite(grid).all()
    first, second = grid[:4, :3], grid[:4, 5:8]
    assert first.min() == 0
    assert first.max() == 255
    assert not second.any()
    np.testing.assert_allclose(first, 255 * (Xs[0] - Xs[0].min()) / np.ptp(Xs[0]), rtol=1e-12)
    assert not grid[12:, 5:].any()
    together = vis_utils.vis_grid(Xs)
    assert together.shape == (3 * 5, 3 * 4, 3)
    assert (together.min(), together.max()) == (0, 1)
    rows = vis_utils.vis_nn([[Xs[0], Xs[2]], [Xs[3], Xs[4]]])
    assert rows.shape == (2 * 5, 2 * 4, 3)
