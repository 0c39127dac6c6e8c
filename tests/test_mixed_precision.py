"""Nets that compute in 16 bits beside float32 weights: their copies, their gradients, and what is refused."""

import functools
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from compare import assert_same, assert_same_bits, normal
from places import EMULATED
from test_cuda_training_step import _config
from train_helpers import shapes

from gpuconv import backend, bfloat16, nn
from gpuconv.cuda import device as cuda_device
from gpuconv.errors import ConfigError, DTypeError, UnsupportedError
from gpuconv.train import Stepper, precision, recipe, resume, train
from gpuconv.train.feed import Feed

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
RULES = {
    "sgd": {"momentum": 0.9},
    "plain_sgd": {"momentum": 0.0, "nesterov": False},
    "rmsprop": {"optimizer": "rmsprop"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "bias_lr": 2.0},
    "muon": {"preset": "speedrun", "optimizer": "muon", "weight_decay": 0.1, "affine_lr": 2.0},
}


def _stepper(gpu, number=1, **settings):
    """Return a stepper on the GPU, and so many batches."""
    preset = settings.pop("preset", "convnet")
    config = _config(preset, **{"device": "cuda", "graph": "off", "lr": 1e-3, **settings})
    pictures = shapes()
    split = recipe.split(pictures, config)
    with backend.using("cuda"):
        net = recipe.net(config, pictures.x_train.shape[1:], 10)
        stepper = Stepper(net, config, lambda step: config.lr, lambda outcome: None)
        feed = Feed(split.x_train, split.y_train, config, mean=pictures.mean, std=pictures.std)
        stepper.prepare(feed.first(20))
        return stepper, list(feed.epoch(0, 0, number))


def _weights(gpu, net):
    """Return every weight that there is a copy of, and its copy, on the host; then those that layers compute with."""
    copies = [(net.flat_params, net.copies.flat), *net.copies.others]
    for _, leaf in net.body.leaves():
        copies += [(leaf.params.get(name, leaf.state.get(name)), copy) for name, copy in leaf.copies.items()]
    return [tuple(map(gpu.numpy, pair)) for pair in copies]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_an_update_leaves_the_weights_in_16_bits_too(rule, dtype, cuda, monkeypatch):
    """Whichever rule makes it, frozen weights included, and nobody copies them afterwards."""
    monkeypatch.setattr(precision, "LossScale", functools.partial(precision.LossScale, 64.0))
    stepper, batches = _stepper(cuda, 2, precision=dtype, **RULES[rule])
    before = _weights(cuda, stepper.net)
    with mock.patch.object(nn.store.Copies, "renew", side_effect=AssertionError("copied once more")):
        for step, batch in enumerate(batches):
            stepper.step(batch, step)
        stepper.look()
    assert stepper.optimiser.steps == 2
    after = _weights(cuda, stepper.net)
    assert (before[0][0] != after[0][0]).mean() > 0.9
    for weights, copies in after:
        assert_same_bits(copies.astype(np.float32), weights.astype(DTYPES[dtype]).astype(np.float32))


@pytest.mark.parametrize("rule", RULES)
def test_a_step_that_is_skipped_changes_neither_weights_nor_copies(rule, cuda, monkeypatch):
    monkeypatch.setattr(precision, "LossScale", functools.partial(precision.LossScale, 2.0**60))
    stepper, (batch,) = _stepper(cuda, precision="float16", **RULES[rule])
    arrays = stepper.net.flat_params, stepper.net.copies.flat, *stepper.optimiser.state.values()
    before = [cuda.numpy(array) for array in arrays]
    stepper.step(batch, 0)
    stepper.look()
    assert (stepper.skipped, stepper.optimiser.steps) == (1, 0)
    for array, kept in zip(arrays, before, strict=True):
        assert_same(cuda.numpy(array), kept)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_weights_are_float32_as_they_are_made(dtype, cuda):
    """None is rounded to 16 bits on its way, nor beyond their range."""
    stepper, (batch,) = _stepper(cuda, precision=dtype)
    with backend.using("cuda"):
        net, narrow = stepper.net, DTYPES[dtype]
        x, _ = batch.part(0)
        scores = net.forward(x, training=True)
        assert (x.dtype, scores.dtype) == (narrow, narrow)
        net.backward(cuda.array(np.full(scores.shape, 2.0**15, narrow)))
    for name, array in net.grads.items():
        grads = cuda.numpy(array)
        assert grads.dtype == np.float32
        if name.startswith(("conv", "affine")) and name.endswith("w"):
            with np.errstate(over="ignore"):
                assert (grads != grads.astype(narrow).astype(np.float32)).any(), name
            assert np.isfinite(grads).all()
    assert (cuda.numpy(net.grads["affine1.b"]) == x.shape[0] * 2.0**15).all()


def test_a_float32_x_meets_the_weights_themselves(rng):
    net, other = (nn.ConvNet(2, input_shape=(3, 8, 8), seed=1) for _ in range(2))
    net.compute_in("float16")
    x = normal(rng, (2, 3, 8, 8), "float32")
    assert_same_bits(net.forward(x), other.forward(x))
    assert net.forward(x.astype(np.float16)).dtype == np.float16


def test_steps_by_hand_keep_the_copies_up_to_date(rng):
    net = nn.ConvNet(2, input_shape=(3, 8, 8), seed=1)
    copies = net.compute_in("float16")
    optimiser = nn.SGD(net)
    net.backward(net.forward(normal(rng, (2, 3, 8, 8), "float16"), training=True))
    optimiser.step(0.1)
    assert_same(copies.flat, net.flat_params.astype(np.float16))
    net.flat_params[...] = 0.5
    copies.renew()
    assert set(copies.flat) == {np.float16(0.5)}
    other = nn.ConvNet(2, input_shape=(3, 8, 8), seed=2)
    net.load(other.params, other.state)
    assert_same(copies.flat, other.flat_params.astype(np.float16))


def test_what_cannot_be_computed_in_is_refused():
    net = nn.ConvNet(2, input_shape=(3, 8, 8))
    with pytest.raises(DTypeError, match="dtype must be float16 or bfloat16, got float32"):
        net.compute_in("float32")
    with pytest.raises(DTypeError, match="dtype is bfloat16: bfloat16 arrays are computed on a GPU"):
        net.compute_in("bfloat16")
    wide = nn.ConvNet(2, input_shape=(3, 8, 8), dtype="float64")
    with pytest.raises(DTypeError, match="keeps its weights in float32, got a net in float64"):
        wide.compute_in("float16")
    assert net.copies is None


# `--precision bfloat16` -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "auto"])
@pytest.mark.parametrize(
    ("precision", "instead"), [("bfloat16", "float32, or float16, which is slow there"), ("tf32", "float32")]
)
def test_on_the_cpu_it_is_refused_before_anything_happens(device, precision, instead, tmp_path):
    config = _config("convnet", device=device, precision=precision)
    says = f"^precision {precision} needs a GPU, and this run is on the CPU: choose {instead}$"
    with backend.using("cpu"), pytest.raises(ConfigError, match=says):
        train(config, folder=tmp_path / "run", dataset=shapes(), progress="none")
    assert not (tmp_path / "run").exists()


def test_an_older_gpu_and_a_missing_package_are_named(emulated_gpu, tmp_path, monkeypatch):
    config = _config("convnet", device="cuda", precision="bfloat16")
    monkeypatch.setattr(cuda_device.current(), "arch", 75)
    with pytest.raises(ConfigError, match=r"a GPU of compute capability 8\.0, this one has 7\.5: choose float16$"):
        train(config, folder=tmp_path / "run", dataset=shapes(), progress="none")
    with pytest.raises(ConfigError, match=r"^precision tf32 needs a GPU .* 8\.0, this one has 7\.5: choose float32$"):
        train(_config("convnet", device="cuda", precision="tf32"), folder=tmp_path / "run", dataset=shapes())
    monkeypatch.setattr(bfloat16, "found", lambda: None)
    with pytest.raises(ConfigError, match=r"^bfloat16 needs the package ml_dtypes.*\[bfloat16\]"):
        train(config, folder=tmp_path / "run", dataset=shapes(), progress="none")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("cuda", [EMULATED], indirect=True)
def test_a_run_has_no_loss_scale_and_says_how_it_computes(cuda, tmp_path, capsys):
    config = _config("three-layer", device="cuda", precision="bfloat16", max_steps=2)
    result = train(config, folder=tmp_path / "run", dataset=shapes(), progress="plain")
    said = capsys.readouterr().out
    assert "bfloat16 with float32 weights" in said
    assert "skipped" not in said
    with backend.using("cuda"):
        assert Stepper(nn.ConvNet(2), config, lambda step: 0.1, lambda outcome: None).arithmetic.scale is None
    assert resume(tmp_path / "run", dataset=shapes(), progress="none").test_loss == result.test_loss


@pytest.mark.parametrize("cuda", [EMULATED], indirect=True)
def test_factors_are_rounded_in_training_only(cuda):
    with backend.using("cuda"):
        net = nn.ConvNet(2, input_shape=(3, 8, 8))
        x = backend.asarray(np.ones((1, 3, 8, 8), np.float32))
    net.round_factors("tf32")
    convolution = next(leaf for _, leaf in net.body.leaves() if isinstance(leaf, nn.Conv))
    for training, expected in ((True, "tf32"), (False, None)):
        assert convolution._forward(x, training, 0)[1].precision == expected
    net.round_factors(None)
    assert convolution._forward(x, True, 0)[1].precision is None


def test_factors_of_a_net_on_the_cpu_cannot_be_rounded():
    with pytest.raises(UnsupportedError, match="needs a GPU"):
        nn.ConvNet(2, input_shape=(3, 8, 8)).round_factors()
