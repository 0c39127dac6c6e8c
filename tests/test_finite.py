"""Scores that are not numbers: an error of eval, import and export that names the layer, never an agreement."""

from __future__ import annotations

import numpy as np
import pytest
from train_helpers import TINY, change, go, names, shapes

from gpuconv import export, nn, train
from gpuconv.errors import CheckpointMismatchError, NonFiniteLossError, NonFiniteScoresError
from gpuconv.export import check
from gpuconv.nn.finite import check_scores
from gpuconv.runs import checkpoint, evaluation, sealed
from gpuconv.train import Run


def net(dtype="float32") -> nn.Net:
    """Return a net with a batch norm inside a shortcut's body."""
    body = nn.Sequential(nn.Conv(3, 4, pad=1), nn.BatchNorm(4), nn.Relu())
    inner = nn.Residual(nn.Sequential(nn.Conv(4, 4, pad=1), nn.BatchNorm(4)))
    return nn.Net(
        nn.Sequential(stem=body, block=inner, pool1=nn.GlobalAveragePool(), fc=nn.Affine(4, 3)), (3, 6, 6), dtype=dtype
    )


def spoil(net: nn.Net, name: str, value: float) -> nn.Net:
    {**net.params, **net.state}[name][...] = value
    return net


BEGINS = {
    "a_negative_variance": ("float32", "stem.bn1.running_var", -1, "NaN first comes out of layer stem.bn1"),
    "inside_a_branch": ("float32", "block.body.bn1.running_var", -9, "NaN first comes out of layer block.body.bn1"),
    "nan_in_the_last_weights": ("float64", "fc.w", np.nan, "NaN first comes out of layer fc"),
    "beyond_float16": ("float16", "stem.conv1.w", 6e4, "infinity first comes out of layer stem.conv1"),
    "beyond_float32": ("float32", "block.body.conv1.w", 3e38, "infinity first comes out of layer block.body.conv1"),
}


@pytest.mark.parametrize(("dtype", "name", "value", "message"), BEGINS.values(), ids=BEGINS.keys())
def test_the_layer_where_it_begins_is_named(dtype, name, value, message):
    bad = spoil(net(dtype), name, value)
    with np.errstate(all="raise"), pytest.raises(NonFiniteScoresError, match=rf"{message}\): its weights") as caught:
        check_scores(bad, check.samples(bad), "this net")
    assert caught.value.fault.startswith("this net gives scores that are not numbers for 16 of 16 inputs (")
    assert not any("forward" in vars(layer) for _, layer in bad.body.leaves())


def test_a_sum_of_two_branches_is_named_as_a_whole():
    halves = nn.Residual(nn.Relu())
    bad = nn.Net(nn.Sequential(double=halves, fc=nn.Affine(2, 2)), (2,), dtype="float16")
    with pytest.raises(NonFiniteScoresError, match=r"for 1 of 2 inputs \(infinity first comes out of layer double"):
        check_scores(bad, np.array([[1, 1], [6e4, 1]], np.float16), "this net")


def test_scores_that_are_numbers_pass():
    sound = net()
    before = sound.flat_params.copy()
    check_scores(sound, check.samples(sound), "this net")
    np.testing.assert_array_equal(sound.flat_params, before)


# Variances ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1e-30, np.nan, -np.inf])
def test_a_running_variance_below_0_is_refused_and_nothing_taken(value):
    target, source = net(), net()
    spoil(source, "stem.conv1.w", 0.5)
    source.state["stem.bn1.running_var"][2] = value
    before = target.flat_params.copy()
    with pytest.raises(CheckpointMismatchError, match=r"state stem\.bn1\.running_var holds .* no variance is below 0"):
        target.load(source.params, source.state)
    np.testing.assert_array_equal(target.flat_params, before)
    average = nn.WeightAverage(target)
    state = {**average.state, "block.body.bn1.running_var": np.full(4, value, np.float32)}
    with pytest.raises(CheckpointMismatchError, match=r"weight average block\.body\.bn1\.running_var holds"):
        average.load(state)


def test_a_variance_of_0_is_one(tmp_path):
    source = spoil(net(), "stem.bn1.running_var", 0)
    target = net()
    target.load(source.params, source.state)
    assert not target.state["stem.bn1.running_var"].any()


def test_no_file_brings_one_in(tmp_path):
    bad = spoil(net(), "stem.bn1.running_var", -1)
    export.to_torch(bad, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointMismatchError, match=r"net\.safetensors does not fit .*running_var holds -1"):
        export.from_torch(tmp_path / "net.safetensors")
    pytest.importorskip("onnx")
    export.to_onnx(bad, tmp_path / "net.onnx")
    with pytest.raises(CheckpointMismatchError, match=r"net\.onnx does not fit .*running_var holds -1"):
        export.from_onnx(tmp_path / "net.onnx")


# The commands -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one step, of a net with batch norm."""
    folder = tmp_path_factory.mktemp("finite") / "run"
    go(change(max_steps=1), folder)
    return folder


def overflowing(source, target) -> str:
    """Write a sound checkpoint whose finite weights overflow, and return the name of the layer where they do."""
    arrays, values = sealed.read(source)
    name = next(name for name in arrays if name.startswith("params/") and name.endswith(".w"))
    arrays[name] = np.full_like(arrays[name], 3e38)
    sealed.write(target, arrays, values)
    return name.removeprefix("params/").removesuffix(".w")


COMMANDS = {
    "eval": ["eval", "bad.safetensors"],
    "eval_with_views": ["eval", "bad.safetensors", "--tta", "flip"],
    "export_to_torch": ["export", "bad.safetensors", "--to", "torch", "-o", "net.safetensors"],
    "export_unchecked": ["export", "bad.safetensors", "--to", "torch", "-o", "net.safetensors", "--no-check"],
    "export_to_onnx": ["export", "bad.safetensors", "--to", "onnx", "-o", "net.onnx"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_command_ends_with_an_error_one_line_and_no_file(command, gpuconv, finished, tmp_path):
    layer = overflowing(finished / "best.safetensors", tmp_path / "bad.safetensors")
    code, out, err = gpuconv(*command)
    assert (code, out) == (1, "")
    assert f"first comes out of layer {layer}" in err
    assert err.count("\n") == 1  # and no warning of NumPy's
    assert names(tmp_path) == ["bad.safetensors"]


def test_import_refuses_them_and_names_the_file(gpuconv, finished, tmp_path):
    overflowing(finished / "best.safetensors", tmp_path / "bad.safetensors")
    export.to_torch(checkpoint.load_net(tmp_path / "bad.safetensors"), tmp_path / "net.safetensors")
    before = names(tmp_path)
    code, out, err = gpuconv("import", "net.safetensors", "--net", finished, "-o", "a.safetensors")
    assert (code, out) == (1, "")
    assert err.startswith("gpuconv: error: net.safetensors gives scores that are not numbers for 16 of 16 inputs")
    assert names(tmp_path) == before


def test_a_run_is_not_evaluated_to_a_number(finished, tmp_path):
    run = Run(finished)
    bad = spoil(run.net(), next(name for name in run.net().state if name.endswith("running_var")), -1)
    with pytest.raises(NonFiniteScoresError, match=r"the net gives scores .*\(NaN first comes out of layer"):
        evaluation.evaluate_on(bad, shapes())


def test_training_says_where_in_the_run_it_was(tmp_path, monkeypatch):
    real = evaluation.evaluate

    def spoilt(net, *arguments, **keywords):
        spoil(net, next(name for name in net.state if name.endswith("running_var")), -1)
        return real(net, *arguments, **keywords)

    monkeypatch.setattr("gpuconv.train.loop.evaluate", spoilt)
    with pytest.raises(
        NonFiniteLossError, match=r"comes out of layer \S+\) in epoch 1, step 10, at a .* of \S+\.  The weights of"
    ):
        go(TINY, tmp_path / "run")
    assert train.Run(tmp_path / "run").events[-1]["event"] == "failed"
    with pytest.raises(
        NonFiniteLossError, match=r"comes out of layer \S+\) in epoch 1, step 3, at a .* of \S+\.  Nothing was saved"
    ):
        train.rehearse(TINY, dataset=shapes(), progress="none")


# The other program --------------------------------------------------------------------------------------------------


def test_nan_does_not_agree_with_nan():
    bad = spoil(net(), "stem.bn1.running_var", -1)
    pytest.importorskip("onnx")
    with pytest.raises(NonFiniteScoresError, match=r"NaN first comes out of layer stem\.bn1"):
        export.check_onnx(bad, export.onnx_model(bad), normalized=check.samples(bad))


def test_nan_of_the_other_program_alone_does_not_agree():
    pytest.importorskip("onnx")
    model = export.onnx_model(spoil(net(), "fc.b", np.nan))
    found = export.check_onnx(net(), model, normalized=check.samples(net()))
    assert (found.within, found.largest) == (False, np.inf)
