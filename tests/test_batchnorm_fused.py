"""Nets on a GPU run batch norm with what follows it in one pass: the bits are those of the layers one after the other."""

from functools import partial

import numpy as np
import pytest
from compare import assert_same_bits, normal, whole
from pairs import DTYPES, GPUS, STORED, pairs
from places import LAYOUTS

from gpuconv import backend, nn
from gpuconv.errors import CacheError, NonFiniteScoresError
from gpuconv.nn import fuse
from gpuconv.nn.finite import check_scores
from gpuconv.ops import batchnorm_fused
from gpuconv.ops.conv_fused import conv_forward_fused


class OwnRelu(nn.Relu):
    """A user's layer, which may compute what it likes."""


def _conv_norm(channels, filters, *behind, **settings):
    return nn.Conv(channels, filters, pad=1, bias=False, **settings), nn.BatchNorm(filters), *behind


def _classes(channels):
    return nn.GlobalAveragePool(), nn.Affine(channels, 3)


def _residual_relu(body, shortcut=None):
    return nn.Sequential(add=nn.Residual(body, shortcut), relu=nn.Relu())


def _blocks():
    """Return residuals of every kind: what ends the body, what the shortcut is, what follows."""
    half = nn.Conv(4, 4, 1, bias=False)
    return (
        *_conv_norm(3, 4, nn.Relu()),
        _residual_relu(nn.Sequential(*_conv_norm(4, 4, nn.Relu()), *_conv_norm(4, 4))),
        _residual_relu(nn.BatchNorm(4), nn.Sequential(half, nn.BatchNorm(4))),
        _residual_relu(nn.Sequential(*_conv_norm(4, 4)), nn.BatchNorm(4)),
        _residual_relu(nn.Sequential(*_conv_norm(4, 4)), nn.Conv(4, 4, 1)),
        _residual_relu(nn.Sequential(*_conv_norm(4, 4)), nn.Sequential(nn.Scale(0.5))),
        _residual_relu(nn.Sequential(*_conv_norm(4, 4, nn.Relu()))),
        _residual_relu(nn.Conv(4, 4, pad=1)),
        _residual_relu(nn.Scale(2.0), nn.Relu()),
        nn.Residual(nn.Sequential(*_conv_norm(4, 4, nn.Gelu()))),
        nn.Residual(nn.Sequential(*_conv_norm(4, 4)), nn.Conv(4, 4, 1)),
        nn.Residual(nn.Sequential(*_conv_norm(4, 8, nn.MaxPool(2))), nn.Conv(4, 8, 1, stride=2)),
        *_classes(8),
    )


NETS = {
    "convnet": lambda dtype: nn.ConvNet(4, 8, input_shape=(3, 8, 8), dtype=dtype),
    "resnet9": lambda dtype: nn.ResNet9(3, 4, 4, 8, input_shape=(3, 8, 8), dtype=dtype),
    "resnet18": lambda dtype: nn.ResNet18(3, 4, 4, 8, input_shape=(3, 6, 5), dtype=dtype),
    "speedrun": lambda dtype: nn.SpeedrunNet(4, 4, 8, input_shape=(3, 9, 9), dtype=dtype),
    "vgg": lambda dtype: nn.VGG(4, 4, 8, 8, input_shape=(3, 9, 9), dtype=dtype),
    "residuals": lambda dtype: nn.Net(nn.Sequential(*_blocks()), (3, 6, 8), dtype=dtype),
    "relu_before_the_pool": lambda dtype: nn.Net(
        nn.Sequential(*_conv_norm(3, 8, nn.Relu(), nn.MaxPool(2)), *_classes(8)), (3, 6, 8), dtype=dtype
    ),
    "other_pools_and_activations": lambda dtype: nn.Net(
        nn.Sequential(
            *_conv_norm(3, 4, nn.MaxPool(3, stride=2)),
            *_conv_norm(4, 4, nn.MaxPool(2, stride=1), nn.Relu()),
            *_conv_norm(4, 4, nn.Gelu(approximate="tanh"), nn.Relu()),
            *_conv_norm(4, 4, nn.LeakyRelu(), nn.Relu()),
            *_conv_norm(4, 4, nn.Relu(), nn.Relu()),
            *_conv_norm(4, 4, nn.MaxPool(2), nn.Gelu()),
            *_classes(4),
        ),
        (3, 11, 11),
        dtype=dtype,
    ),
    "a_users_relu": lambda dtype: nn.Net(
        nn.Sequential(*_conv_norm(3, 4, OwnRelu()), *_classes(4)), (3, 5, 4), dtype=dtype
    ),
    "rows": lambda dtype: nn.Net(
        nn.Sequential(nn.Affine(12, 8), nn.BatchNorm(8), nn.Relu(), nn.BatchNorm(8), nn.Affine(8, 3)),
        (12,),
        dtype=dtype,
    ),
    "norm_first": lambda dtype: nn.Net(
        nn.Sequential(nn.Relu(), nn.Residual(nn.BatchNorm(3, scale=False)), *_classes(3)), (3, 4, 4), dtype=dtype
    ),
}


def _wide_blocks():
    """Return residuals whose gradients are summed where tensor cores make one: with a mask, with a stride, with neither."""
    wide = nn.Conv(16, 16, 1, bias=False)
    return (
        *_conv_norm(3, 16, nn.Relu()),
        _residual_relu(nn.Sequential(*_conv_norm(16, 16, nn.Relu()), *_conv_norm(16, 16))),
        _residual_relu(
            nn.Sequential(*_conv_norm(16, 24, nn.Relu(), stride=2), *_conv_norm(24, 24)),
            nn.Sequential(nn.Conv(16, 24, 1, stride=2, bias=False), nn.BatchNorm(24)),
        ),
        nn.Residual(nn.Sequential(*_conv_norm(24, 24)), nn.Conv(24, 24, 1)),
        _residual_relu(nn.Sequential(*_conv_norm(24, 16, groups=2)), nn.Conv(24, 16, 1)),
        _residual_relu(nn.Sequential(wide, *_conv_norm(16, 16)), nn.BatchNorm(16)),
        *_classes(16),
    )


NETS["wide_speedrun"] = lambda dtype: nn.SpeedrunNet(16, 16, 24, input_shape=(3, 9, 9), dtype=dtype)
NETS["wide_residuals"] = lambda dtype: nn.Net(nn.Sequential(*_wide_blocks()), (3, 7, 6), dtype=dtype)


def _drawn(rng, draw, net, dtype, memory):
    x = draw(rng, (5, *net.input_shape)).astype(dtype)
    return LAYOUTS[memory](x) if x.ndim == 4 else x


def _without_moments(*arrays, **settings):
    """Return what conv_forward_fused does, but leave a batch norm to add up its moments by itself, in its own order."""
    return conv_forward_fused(*arrays, **{**settings, "moments": False})


def _run(place, make, dtype, memory, draw, monkeypatch, *, fused):
    """Return all that two training steps and an evaluation compute."""
    monkeypatch.setattr(fuse, "FUSED", fused)
    monkeypatch.setattr(fuse, "conv_forward_fused", _without_moments)
    rng = np.random.default_rng(0)
    with backend.using("cuda"):
        net = make(dtype)
    found = []
    for step in range(2):
        scores = net.forward(place.array(_drawn(rng, draw, net, dtype, memory)), training=True, step=step)
        net.backward(place.array(normal(rng, scores.shape, dtype=dtype)))
        found += [scores, net.flat_grads.copy()]
    found.append(net.forward(place.array(_drawn(rng, draw, net, dtype, memory))))
    return [place.numpy(array) for array in (*found, *net.state.values())]


@pairs(net=NETS, dtype=DTYPES, memory=STORED)
def test_units_compute_the_bits_of_their_layers(net, dtype, memory, cuda, monkeypatch):
    units, layers = (_run(cuda, net, dtype, memory, normal, monkeypatch, fused=fused) for fused in (True, False))
    for unit, layer in zip(units, layers, strict=True):
        assert_same_bits(unit, layer)


@pairs(net={name: NETS[name] for name in ("convnet", "vgg", "relu_before_the_pool")}, dtype=DTYPES, memory=STORED)
def test_of_equal_maxima_the_first_gets_the_gradient(net, dtype, memory, cuda, monkeypatch):
    units, layers = (_run(cuda, net, dtype, memory, whole, monkeypatch, fused=fused) for fused in (True, False))
    for unit, layer in zip(units, layers, strict=True):
        assert_same_bits(unit, layer)


_ALONE = (
    "relu_forward",
    "relu_backward",
    "gelu_backward",
    "max_pool_",
    "arithmetic_add",
    "batchnorm_forward_normalise",
)


def test_nothing_is_left_for_passes_of_their_own(emulated_gpu):
    """A ResNet-18: its shortcuts' own norms, and a sum of two gradients where a shortcut has a convolution."""
    with backend.using("cuda"):
        net = nn.ResNet18(3, 4, 4, 8, input_shape=(3, 6, 5))
    emulated_gpu.device.launches.clear()
    scores = net.forward(emulated_gpu.array(np.ones((2, 3, 6, 5), np.float32)), training=True)
    net.backward(scores)
    names = [record.kernel.partition("<")[0] for record in emulated_gpu.device.launches]
    alone = {name: names.count(name) for name in names if name.startswith(_ALONE)}
    assert alone == {"batchnorm_forward_normalise": 3, "arithmetic_add": 3}
    assert names.count("batchnorm_forward_fused") == 17
    assert names.count("batchnorm_backward_joined") == 5


@pytest.mark.parametrize("more", [{"ceil": True}, {"dilation": 2}, {"pad": ((0, 1), 0)}, {"pad": 1}], ids=str)
def test_only_plain_windows_of_2x2_are_pooled_behind_a_norm(more):
    assert fuse._kind(nn.MaxPool(2)) == fuse._kind(nn.MaxPool(2, stride=2, ceil=False)) == "pool"
    assert fuse._kind(nn.MaxPool(2, **more)) == ""


def test_where_tensor_cores_make_a_gradient_the_other_is_added_there(emulated_gpu):
    """A ResNet-18 in 16 bits: neither the gradients of its shortcuts nor those of the sums have a pass of their own."""
    with backend.using("cuda"):
        net = nn.ResNet18(16, 16, 16, 16, input_shape=(16, 10, 9), dtype="float16")
    x = LAYOUTS["channels_last"](np.ones((1, 16, 10, 9), np.float16))
    emulated_gpu.device.launches.clear()
    net.backward(net.forward(emulated_gpu.array(x), training=True))
    names = [record.kernel.partition("<")[0] for record in emulated_gpu.device.launches]
    assert names.count("conv_backward_data_tensor") == 19
    assert not [name for name in names if name in ("batchnorm_backward_joined", "arithmetic_add")]
    assert "batchnorm_forward_moments" not in names
    assert names.count("batchnorm_forward_moments_merge") == 20


def test_where_tensor_cores_make_images_their_maxima_are_taken_there(emulated_gpu):
    with backend.using("cuda"):
        net = nn.SpeedrunNet(16, 16, 24, input_shape=(3, 24, 24), dtype="float16")
    x = LAYOUTS["channels_last"](np.ones((2, 3, 24, 24), np.float16))
    emulated_gpu.device.launches.clear()
    net.backward(net.forward(emulated_gpu.array(x), training=True))
    names = [record.kernel.partition("<")[0] for record in emulated_gpu.device.launches]
    assert names.count("max_pool_forward_direct") == 1  # the one over all that is left of an image
    assert names.count("max_pool_backward_direct") == 4
    assert "batchnorm_forward_moments" not in names


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["residuals", "resnet18", "wide_residuals"])
def test_each_layer_says_once_that_its_gradients_are_made(name, fused, cuda, monkeypatch):
    """What it then has is what it has in the end: processes that train together send it on at once."""
    monkeypatch.setattr(fuse, "FUSED", fused)
    with backend.using("cuda"):
        net = NETS[name]("float32")
    said = []

    def note(prefix, leaf):
        said.append((prefix, {name: cuda.numpy(grad) for name, grad in leaf.grads.items()}))

    leaves = {prefix: leaf for prefix, leaf in net.body.leaves() if leaf.declared}
    for prefix, leaf in leaves.items():
        leaf.graded = partial(note, prefix, leaf)
    x = normal(np.random.default_rng(0), (2, *net.input_shape)).astype(np.float32)
    net.backward(net.forward(cuda.array(x), training=True))
    assert sorted(prefix for prefix, _ in said) == sorted(leaves)
    for prefix, grads in said:
        for each, grad in grads.items():
            assert_same_bits(grad, cuda.numpy(leaves[prefix].grads[each]))


class _Across:
    """Another process with as many pictures, in whose share everything is 0."""

    rank, images = 0, (5, 5)

    def __init__(self, place):
        self._place = place

    def gather(self, array):
        own = self._place.numpy(array)
        return self._place.array(np.stack([own, np.zeros_like(own)]))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_norms_that_share_their_batches_stay_layers(dtype, cuda, monkeypatch):
    def shared(dtype):
        net = NETS["residuals"](dtype)
        net.normalise_across(_Across(cuda))
        return net

    nets = (shared, shared, NETS["residuals"])
    units, layers, alone = (
        _run(cuda, net, dtype, "c_order", normal, monkeypatch, fused=fused)
        for net, fused in zip(nets, (True, False, True), strict=True)
    )
    for unit, layer in zip(units, layers, strict=True):
        assert_same_bits(unit, layer)
    assert np.abs(units[0] - alone[0]).max() > 1e-2


def test_what_a_user_sees_is_the_layers(cuda, monkeypatch):
    seen = []
    for fused in (True, False):
        monkeypatch.setattr(fuse, "FUSED", fused)
        with backend.using("cuda"):
            net = NETS["residuals"]("float32")
        seen.append((net.summary(), net.config, list(net.params), list(net.grads), list(net.state)))
    assert seen[0] == seen[1]


def test_a_backward_needs_a_forward_of_its_own(cuda):
    with backend.using("cuda"):
        net = NETS["residuals"]("float32")
    scores = net.forward(cuda.array(np.ones((2, 3, 6, 8), np.float32)), training=True)
    net.backward(scores)
    with pytest.raises(CacheError, match=r"forward\(\.\.\., training=True\) just before it"):
        net.backward(scores)


@pytest.mark.parametrize("name", ["convnet", "resnet18", "speedrun"])
def test_an_empty_batch_is_evaluated(name, cuda):
    with backend.using("cuda"):
        net = NETS[name]("float32")
    assert net.forward(cuda.array(np.zeros((0, *net.input_shape), np.float32))).shape == (0, *net.output_shape)


def test_on_the_cpu_the_layers_run(rng, monkeypatch):
    def refused(*_, **__):
        pytest.fail("a unit runs on the CPU")

    monkeypatch.setattr(batchnorm_fused, "fused_forward", refused)
    monkeypatch.setattr(fuse, "fused_forward", refused)
    net = NETS["convnet"]("float32")
    net.backward(net.forward(normal(rng, (2, 3, 8, 8), dtype="float32"), training=True))


def test_the_layer_where_numbers_end_is_named(cuda):
    with backend.using("cuda"):
        net = NETS["convnet"]("float32")
    net.state["bn2.running_var"][...] = -1.0
    with pytest.raises(NonFiniteScoresError, match="NaN first comes out of layer bn2"):
        check_scores(net, np.ones((2, 3, 8, 8), np.float32), "this net")


@pairs(gpu=GPUS, dtype=DTYPES)
def test_a_mask_counts_in_either_memory_format(gpu, dtype, rng):
    """A shortcut's norm may lie in another format than the sum whose mask it is given."""
    shape, vectors = (3, 8, 4, 4), [gpu.array(normal(rng, 8, dtype=dtype)) for _ in range(2)]
    x, dy = normal(rng, shape, dtype=dtype), gpu.array(normal(rng, shape, dtype=dtype))
    settings = {"training": True, "momentum": 0.9, "eps": 1e-5}
    found = []
    for memory in STORED:
        running = [gpu.array(np.ones(8, dtype)) for _ in range(2)]
        there = gpu.array(LAYOUTS["channels_last"](x))
        _, sum_cache = batchnorm_fused.fused_forward(there, *vectors, *running, activation="relu", **settings)
        _, cache = batchnorm_fused.fused_forward(gpu.array(LAYOUTS[memory](x)), *vectors, *running, **settings)
        gradients = [gpu.array(np.zeros(8, dtype)) for _ in range(2)]
        dx = batchnorm_fused.fused_backward_into(dy, cache, *gradients, mask=sum_cache.told)
        found.append([gpu.numpy(array).astype(np.float64) for array in (dx, *gradients)])
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(
            here, there, rtol=0, atol={"float16": 2e-2, "float32": 1e-5, "float64": 1e-12}[dtype]
        )
