"""`train` with its net and its pictures on the GPU, the emulator's or CuPy's: the CPU's numbers after a few steps of each
preset.

The tolerance of steps is that of lossy.py.  Steps that do more than the presets', and in float16, are held to what the
CPU itself loses in the same precision: two orders of the same sums lose alike, so where the CPU is e away from the CPU
in float64, the GPU may be 4 e away, plus 8 u of the largest entry for what happens to be exact.
"""

import dataclasses
import functools
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from compare import U_OUT, assert_same, normal
from lossy import allowed, assert_allowed, lossy_cpu
from places import EMULATED, GPU
from train_helpers import assert_same_run, metrics, shapes

from gpuconv import backend, nn
from gpuconv.cuda import conv_tensor
from gpuconv.cuda import device as cuda_device
from gpuconv.errors import NonFiniteLossError
from gpuconv.nn import fuse
from gpuconv.runs import sealed
from gpuconv.train import PRESETS, Stepper, evaluate, load_net, precision, resume, train

TINY = {
    "convnet": {"widths": (4, 8), "lr_start": 1.0},
    "three-layer": {"filters": 3, "hidden": 9},
    "vgg": {"widths": (3, 4), "lr_start": 1.0},
    "resnet9": {"widths": (3, 4, 4, 5), "lr_start": 1.0},
    "resnet18": {"widths": (2, 3, 4, 4), "lr_start": 1.0, "max_steps": 1},
    "speedrun": {"widths": (3, 4, 4), "lr": 0.05, "bias_lr": 4.0},  # six images bear no larger steps
}
LONG = ("resnet18", "speedrun")  # in the emulator
SMALL = {"data": "shapes", "batch_size": 6, "train_images": 18, "validation": 10, "test_images": 12}


def _config(preset, **settings):
    return dataclasses.replace(PRESETS[preset], **{**SMALL, **TINY[preset], **settings})


def _outcome(folder):
    """Return every array and number that a run ended with."""
    arrays, _ = sealed.read(folder / "last.safetensors")
    found = {name: array.astype(np.float64) for name, array in arrays.items()}
    for row in metrics(folder):
        for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
            found[f"{name} {row['epoch']}"] = np.array(float(row[name]))
    result = json.loads((folder / "result.json").read_text())
    numbers = {name: result[name] for name in ("test_loss", "test_accuracy", "test_accuracy_tta", "skipped_steps")}
    return found | {name: np.array(number) for name, number in numbers.items() if number is not None}


def _case(place, preset, *values, core=False, long=False):
    """Return parameters of a case that runs at one place."""
    marks = [*place.marks, *([pytest.mark.core] if core else []), *([pytest.mark.long] if long else [])]
    return pytest.param(preset, *values, *place.values, marks=marks)


# Wide enough for tensor cores.  Factors of TF32 have as many bits as float16, and nothing else is rounded.
WIDE = {"convnet": {"widths": (16, 16)}, "resnet9": {"widths": (16, 16, 16, 16)}}
LIKE = {"float16": "float16", "bfloat16": "bfloat16", "tf32": "float16"}
_IN_UNITS = [
    ("convnet", "float32"),
    ("vgg", "float16"),
    ("resnet9", "float16"),
    ("resnet18", "float32"),
    ("speedrun", "float16"),
]
RULES = {"rmsprop": 1e-3, "adamw": 1e-2}  # with rates at which no first step throws the weights about


@pytest.mark.parametrize(
    ("preset", "optimizer", "cuda"),
    [
        *(_case(EMULATED, preset, None, long=preset in LONG) for preset in TINY if preset != "vgg"),
        *(_case(EMULATED, "convnet", optimizer) for optimizer in RULES),
        *(_case(GPU, preset, None, core=preset != "resnet18") for preset in TINY),
        *(_case(GPU, "convnet", optimizer) for optimizer in RULES),
    ],
    indirect=["cuda"],
)
def test_steps_of_each_preset_end_where_the_cpu_s_do(preset, optimizer, cuda, tmp_path):
    """Draw, crop, flip, forward, loss, backward, update, validation, checkpoint, test."""
    exact, bounds = _steps_of_the_cpu(preset, optimizer)
    for device in ("cpu", "cuda"):
        for dtype in ("float32", "float64"):
            found = _train(_steps(preset, optimizer, device=device, dtype=dtype), tmp_path / f"{device}-{dtype}")
            assert_allowed(found, exact, bounds, dtype)


@pytest.mark.parametrize(
    ("preset", "dtype", "cuda"),
    [
        case
        for preset in TINY
        for dtype in ("float16", "bfloat16")
        for case in (
            _case(EMULATED, preset, dtype, long=preset != "convnet"),
            _case(GPU, preset, dtype, core=preset in ("convnet", "speedrun")),
        )
    ],
    indirect=["cuda"],
)
def test_steps_in_16_bits_end_where_those_of_the_cpu_in_float64_do(preset, dtype, cuda, tmp_path, monkeypatch):
    """As near as storing every array in 16 bits lets them, with a loss scale that skips no step."""
    monkeypatch.setattr(precision, "LossScale", functools.partial(precision.LossScale, 64.0))
    exact, bounds = _steps_of_the_cpu(preset, None, dtype)
    found = _train(_steps(preset, None, device="cuda", precision=dtype), tmp_path / "run")
    assert found["skipped_steps"] == 0
    assert_allowed(found, exact, bounds, "float32")


@pytest.mark.parametrize(
    ("preset", "precision", "cuda"),
    [
        *(_case(EMULATED, *case, long=case[0] in LONG) for case in _IN_UNITS),
        *(_case(GPU, *case, core=case[0] == "convnet") for case in _IN_UNITS),
    ],
    indirect=["cuda"],
)
def test_units_of_several_layers_train_to_the_bits_of_the_layers(preset, precision, cuda, tmp_path, monkeypatch):
    found = []
    for fused in (True, False):
        monkeypatch.setattr(fuse, "FUSED", fused)
        found.append(_train(_config(preset, max_steps=4, precision=precision, device="cuda"), tmp_path / str(fused)))
    assert found[0].keys() == found[1].keys()
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name], name)


@pytest.mark.parametrize(
    ("preset", "precision_of_steps", "cuda"),
    [
        case
        for preset in WIDE
        for dtype in LIKE
        for case in (_case(EMULATED, preset, dtype, long=True), _case(GPU, preset, dtype, core=preset == "convnet"))
    ],
    indirect=["cuda"],
)
def test_steps_on_tensor_cores_end_where_those_of_the_cpu_in_float64_do(
    preset, precision_of_steps, cuda, tmp_path, monkeypatch
):
    monkeypatch.setattr(precision, "LossScale", functools.partial(precision.LossScale, 64.0))
    monkeypatch.setitem(TINY, preset, TINY[preset] | WIDE[preset])
    launched = []
    takes = conv_tensor.takes
    monkeypatch.setattr(conv_tensor, "takes", lambda *sizes: launched.append(takes(*sizes)) or launched[-1])
    exact, bounds = _steps_of_the_cpu.__wrapped__(preset, None, LIKE[precision_of_steps])  # of these widths
    found = _train(_steps(preset, None, device="cuda", precision=precision_of_steps), tmp_path / "run")
    assert any(launched)
    assert_allowed(found, exact, bounds, "float32")


def _steps(preset, optimizer, **settings):
    steps = TINY[preset].get("max_steps", 2)
    rule = {"optimizer": optimizer, "lr": RULES[optimizer]} if optimizer else {}
    return _config(preset, max_steps=steps, **rule, **settings)


@functools.cache
def _noise():
    """Return pictures of noise: in drawn ones whole windows are equal, and which maximum is the first is up to rounding."""
    rng, drawn = np.random.default_rng(0), shapes()
    images = {name: rng.integers(0, 256, getattr(drawn, name).shape, np.uint8) for name in ("x_train", "x_test")}
    return dataclasses.replace(drawn, **images)


def _train(config, folder):
    train(config, folder=folder, dataset=_noise(), progress="none")
    return _outcome(folder)


@functools.cache
def _steps_of_the_cpu(preset, optimizer, dtype="float32"):
    """Return what steps come to in float64, and how far a dtype may be from it."""
    config = _steps(preset, optimizer, device="cpu", dtype="float64")
    with tempfile.TemporaryDirectory() as folder:
        numbers = map(str, itertools.count())

        def again(rng):
            with lossy_cpu(rng, dtype):
                return _train(config, Path(folder) / next(numbers))

        exact = _train(config, Path(folder) / "exact")
        bounds = allowed(exact, again, dtype)
    # Far less than any wrong formula is off; more would say that a maximum or the sign of an activation is in doubt.
    assert dtype != "float32" or all(
        bounds[name] <= 2e-4 * np.abs(array).max() for name, array in exact.items() if array.any()
    )
    return exact, bounds


def test_pictures_go_to_the_gpu_once_and_views_are_made_there(cuda, tmp_path, monkeypatch):
    device = cuda_device.current()
    real, placed = device.asarray, []

    def watched(host):
        if host.ndim == 4 and host.dtype == np.uint8:
            placed.append(host.shape[0])
        return real(host)

    monkeypatch.setattr(device, "asarray", watched)
    config = _config("convnet", device="cuda", epochs=2, max_steps=4, tta="flip+shift")
    result = train(config, folder=tmp_path / "run", dataset=shapes(), progress="none")
    assert sorted(placed) == [10, 12, 18]  # validation, test, training: once each
    with backend.using("cuda"):
        net = load_net(tmp_path / "run" / "best.safetensors")
    pictures = shapes()
    keywords = {"mean": pictures.mean, "std": pictures.std, "classes": 10, "tta": "flip+shift"}
    found = evaluate(net, pictures.x_test[:12], pictures.y_test[:12], **keywords)
    there = evaluate(net, real(pictures.x_test[:12]), pictures.y_test[:12], **keywords)
    assert (found.loss, found.accuracy) == (there.loss, there.accuracy)
    assert found.accuracy == result.test_accuracy_tta


@pytest.mark.parametrize("preset", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in TINY])
def test_same_run_same_bits(preset, cuda, tmp_path):
    config = _config(preset, max_steps=3, device="cuda", checkpoint_every=1)
    for name in ("first", "second"):
        train(config, folder=tmp_path / name, dataset=shapes(), progress="none")
    assert_same_run(tmp_path / "first", tmp_path / "second")


def test_an_interrupted_run_goes_on_on_the_gpu(cuda, tmp_path, monkeypatch):
    config = _config("convnet", epochs=1, device="cuda", checkpoint_every=1)
    train(config, folder=tmp_path / "whole", dataset=shapes(), progress="none")
    real, steps = Stepper.step, []

    def dies(run, *arguments):
        steps.append(None)
        if len(steps) > 1:
            raise KeyboardInterrupt
        return real(run, *arguments)

    monkeypatch.setattr(Stepper, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(config, folder=tmp_path / "again", dataset=shapes(), progress="none")
    monkeypatch.setattr(Stepper, "step", real)
    resume(tmp_path / "again", dataset=shapes(), progress="none")
    assert_same_run(tmp_path / "again", tmp_path / "whole")


FEATURES = {
    "parts": {"accumulate": 2},
    "clipping": {"clip_norm": 0.1},
    "average": {"ema": 0.9},
    "cut_out_squares": {"cutout": 8},
    "views": {"tta": "flip+shift"},
    "float16": {"precision": "float16"},
    "float16_in_parts": {"precision": "float16", "accumulate": 2},
}


@pytest.mark.parametrize(
    ("preset", "settings", "cuda"),
    [
        *(
            pytest.param("convnet", FEATURES[name], *place.values, marks=[*place.marks, *core], id=f"{name}-{at}")
            # By CuPy they all run on every change, in the emulator as part of the ladder.
            for place, at, core in ((EMULATED, "emulated", [pytest.mark.ladder]), (GPU, "cuda", [pytest.mark.core]))
            for name in FEATURES
        ),
        # Muon's own arithmetic beside 16 bits.
        pytest.param("speedrun", FEATURES["float16"], *GPU.values, marks=GPU.marks, id="float16_muon-cuda"),
    ],
    indirect=["cuda"],
)
def test_what_a_step_may_do_besides_ends_where_the_cpu_s_does(preset, settings, cuda, tmp_path):
    """As above; float16 loses 2^13 times more than float32, whose loss is taken for scale.

    Both sides skip the same first steps, if any: those whose gradients are beyond float16.
    """
    config = _config(preset, max_steps=4 if "precision" in settings else 2, **settings)
    runs = {}
    for name, changes in {
        "cpu": {"device": "cpu"},
        "cuda": {"device": "cuda"},
        "exact": {"device": "cpu", "dtype": "float64", "precision": "float32"},
    }.items():
        train(dataclasses.replace(config, **changes), folder=tmp_path / name, dataset=shapes(), progress="none")
        runs[name] = _outcome(tmp_path / name)
    skipped = {name: run.pop("skipped_steps") for name, run in runs.items()}
    assert skipped["cuda"] == skipped["cpu"] < config.max_steps
    for name, exact in runs["exact"].items():
        lost, largest = np.abs(runs["cpu"][name] - exact).max(), np.abs(exact).max()
        unit = U_OUT["float16" if "precision" in settings else "float32"]
        bound = 4 * lost + 8 * unit * largest
        error = np.abs(runs["cuda"][name] - exact).max()
        assert error <= bound, f"{name}: {error:.3g} away, allowed {bound:.3g}"


def test_a_run_is_asked_for_its_outcomes_now_and_then(cuda, tmp_path, monkeypatch):
    """Nine steps, of which every fourth and the last of an epoch are followed by a look: one read each."""
    monkeypatch.setattr("gpuconv.train.step._LOOK_EVERY", 4)
    config = _config("convnet", batch_size=2, epochs=1, device="cuda", validation=0)
    device = cuda_device.current()
    real, reads, at = device.asnumpy, [], []
    monkeypatch.setattr(device, "asnumpy", lambda array: reads.append(None) or real(array))
    real_step = Stepper.step

    def counted(stepper, *arguments):
        before = len(reads)
        real_step(stepper, *arguments)
        at.append(len(reads) - before)

    monkeypatch.setattr(Stepper, "step", counted)
    train(config, folder=tmp_path / "late", dataset=shapes(), progress="none")
    assert at == [0, 0, 0, 1, 0, 0, 0, 1, 0]
    monkeypatch.setattr("gpuconv.train.step._LOOK_EVERY", 1)
    train(config, folder=tmp_path / "at once", dataset=shapes(), progress="none")
    assert at[9:] == [1] * 9
    assert_same_run(tmp_path / "late", tmp_path / "at once")


def test_the_record_says_which_gpu(cuda, tmp_path):
    config = _config("three-layer", max_steps=1)
    for device in ("cpu", "cuda"):
        train(dataclasses.replace(config, device=device), folder=tmp_path / device, dataset=shapes(), progress="none")
    of_gpu, of_cpu = (json.loads((tmp_path / name / "result.json").read_text())["machine"] for name in ("cuda", "cpu"))
    assert of_gpu["gpu"] == cuda_device.current().name
    assert "gpu" not in of_cpu


def test_a_gradient_that_is_no_number_stops_before_the_update(cuda, tmp_path, monkeypatch):
    real = precision.ops.softmax_cross_entropy

    def injected(*arguments, **keywords):
        loss, dscores = real(*arguments, **keywords)
        dscores[3, 3] = np.inf
        return loss, dscores

    monkeypatch.setattr(precision.ops, "softmax_cross_entropy", injected)
    with pytest.raises(NonFiniteLossError, match="a gradient is NaN or infinite"):
        train(_config("convnet", device="cuda"), folder=tmp_path / "run", dataset=shapes(), progress="none")
    _, values = sealed.read(tmp_path / "run" / "last.safetensors")
    assert values["optimizer"]["steps"] == 0


# Nets on the GPU ----------------------------------------------------------------------------------------------------


def test_everything_of_a_net_lives_on_the_gpu(cuda):
    with backend.using("cuda"):
        net = nn.ConvNet(2, input_shape=(3, 4, 4), seed=1)
        optimiser = nn.AdamW(net)
    arrays = [net.flat_params, net.flat_grads, *net.state.values(), *optimiser.state.values()]
    assert all(map(backend.on_gpu, arrays))
    assert net.device == "cuda"
    with backend.using("cpu"):
        host = nn.ConvNet(2, input_shape=(3, 4, 4), seed=1)
    assert type(host.flat_params) is np.ndarray
    assert_same(backend.asnumpy(net.flat_params), host.flat_params)


def test_whitening_averages_and_clipping_on_the_gpu_are_the_cpu_s(cuda, rng):
    x = normal(rng, (4, 3, 9, 9), "float32")
    values = {}
    for device in ("cpu", "cuda"):
        with backend.using(device):
            net = nn.SpeedrunNet(2, 2, 2, input_shape=(3, 9, 9))
            net.prepare(backend.asarray(x))
            average = nn.WeightAverage(net, 0.9)
        moves = np.random.default_rng(1)
        for step in range(3):
            for array in (net.flat_params, net.flat_grads, net.state["group1.bn1.running_var"]):
                array[...] = backend.asarray(normal(moves, array.shape, "float32"), beside=array)
            average.update(step)
        norm = nn.clip_gradients(net, 0.5)
        own = backend.asnumpy(net.flat_params).copy()
        with average.applied():
            applied = backend.asnumpy(net.flat_params).copy()
        assert_same(backend.asnumpy(net.flat_params), own)
        arrays = [net.state["whiten.w"], net.flat_grads, *average.state.values()]
        assert backend.on_gpu(net.flat_grads) == (device == "cuda")
        values[device] = [norm, applied, *(backend.asnumpy(array) for array in arrays)]
    for of_cpu, of_gpu in zip(values["cpu"], values["cuda"], strict=True):
        # Values of at most 4 in size; an update of the average rounds up to three times, here or there.
        np.testing.assert_allclose(of_gpu, of_cpu, rtol=0, atol=3 * 3 * 4 * U_OUT["float32"])


def test_weights_move_between_host_and_gpu(cuda):
    with backend.using("cpu"):
        host, back = (nn.ConvNet(2, input_shape=(3, 4, 4), seed=seed) for seed in (1, 3))
    with backend.using("cuda"):
        net = nn.ConvNet(2, input_shape=(3, 4, 4), seed=2)
    net.load(host.params, host.state)
    assert backend.on_gpu(net.flat_params)
    assert_same(backend.asnumpy(net.flat_params), host.flat_params)
    back.load(net.params, net.state)
    assert_same(back.flat_params, host.flat_params)


def test_using_ends_with_its_block(cuda, monkeypatch):
    monkeypatch.setattr(backend, "_chosen", "cpu")
    with pytest.raises(ZeroDivisionError), backend.using("cuda"):
        1 / 0  # noqa: B018
    assert backend.default_device() == "cpu"
    with backend.using("cuda"), backend.using("auto"):
        assert backend.default_device() == "cuda"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 37, 5000, 8191, 8192])
def test_a_number_that_is_none_is_found_anywhere(value, place, device, dtype):
    x = np.full(8193, np.finfo(dtype).max, dtype)
    assert backend.all_finite(device.array(x)) is True
    x[place] = value
    assert backend.all_finite(device.array(x)) is False


def test_nothing_is_finite_throughout(device, dtype):
    assert backend.all_finite(device.array(np.zeros(0, dtype))) is True
