"""Muon against loops in plain NumPy and on a GPU, the rate of biases, and the clipping of gradients."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from compare import U_OUT, assert_same, normal
from places import Cpu

from gpuconv import nn
from gpuconv.cuda import muon
from gpuconv.errors import ArgTypeError, CheckpointMismatchError, ConfigError, ParamError
from gpuconv.nn.muon import orthogonal
from gpuconv.placed import Number


def net_of_everything(dtype="float64"):
    """Return a net with wide and tall filter banks, a frozen one, affine weights, biases, gamma and beta."""
    body = nn.Sequential(
        nn.Conv(2, 4, 2, frozen=True),
        nn.Conv(4, 3, pad=1),
        nn.BatchNorm(3),
        nn.Conv(3, 40, 2, bias=False),
        nn.Flatten(),
        nn.Affine(160, 5),
        nn.Relu(),
        nn.Affine(5, 3, bias=False),
    )
    return nn.Net(body, (2, 4, 4), dtype=dtype)


# Muon ---------------------------------------------------------------------------------------------------------------


def newton_schulz(u, iterations):
    """The iteration as published, for a matrix that may be tall."""
    x = u / (np.sqrt((u**2).sum()) + 1e-7)
    turned = x.shape[0] > x.shape[1]
    if turned:
        x = x.T
    for _ in range(iterations):
        gram = x.dot(x.T)
        x = 3.4445 * x - 4.7750 * gram.dot(x) + 2.0315 * gram.dot(gram).dot(x)
    return x.T if turned else x


MUON = {
    "defaults": ({}, {}),
    "everything": (
        {"momentum": 0.9, "nesterov": False, "weight_decay": 0.1, "iterations": 5, "renormalise": False,
         "sgd_momentum": 0.7, "affine_lr": 3.0, "bias_lr": 0.25},
    ) * 2,
    "no_momentum": ({"momentum": 0.0, "sgd_momentum": 0.0},) * 2,
}  # fmt: skip


@pytest.mark.parametrize(("given", "used"), MUON.values(), ids=MUON.keys())
def test_five_steps_equal_those_of_a_loop(rng, given, used):
    used = {
        "momentum": 0.6, "nesterov": True, "weight_decay": 0.0, "iterations": 3, "renormalise": True,
        "sgd_momentum": 0.85, "affine_lr": 1.0, "bias_lr": 1.0,
    } | used  # fmt: skip
    net = net_of_everything()
    frozen = net.state["conv1.w"].copy()
    net.flat_params += 0.1 * normal(rng, net.flat_params.shape)
    weights = {name: array.copy() for name, array in net.params.items()}
    buffers = {name: np.zeros_like(array) for name, array in net.params.items()}
    optimiser = nn.Muon(net, **given)
    for step in range(5):
        lr = 0.1 / (1 + step)
        net.flat_grads[...] = normal(rng, net.flat_grads.shape)
        optimiser.step(lr)
        for name, w in weights.items():
            g, m = net.grads[name], buffers[name]
            if w.ndim == 4:
                m[...] = used["momentum"] * m + g
                u = g + used["momentum"] * m if used["nesterov"] else m
                if used["renormalise"]:
                    w[...] *= np.sqrt(len(w)) / np.linalg.norm(w)
                w[...] -= lr * newton_schulz(u.reshape(len(u), -1), used["iterations"]).reshape(w.shape)
                continue
            factor = used["affine_lr"] if w.ndim == 2 else used["bias_lr"]
            g = g + (used["weight_decay"] * w if w.ndim == 2 else 0)
            m[...] = used["sgd_momentum"] * m + g
            w[...] -= factor * lr * (g + used["sgd_momentum"] * m)
    for name, w in weights.items():
        # The iteration multiplies errors by up to 3.44 a time, at most 5 times 5: 1e-16 grows to 1e-13.
        np.testing.assert_allclose(net.params[name], w, rtol=1e-11, atol=1e-12, err_msg=name)
    assert_same(net.state["conv1.w"], frozen)
    assert optimiser.steps == 5


@pytest.mark.parametrize("shape", [(8, 27), (30, 6), (5, 5)], ids=str)
def test_singular_values_are_pulled_towards_one(rng, shape):
    u = normal(rng, shape)
    before = np.linalg.svd(u, compute_uv=False)
    U, _, Vt = np.linalg.svd(u, full_matrices=False)
    x = orthogonal(u, 5)
    assert x.shape == shape
    inside = U.T @ x @ Vt.T
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-12)  # the directions stay
    after = np.diag(inside)
    kept = before / np.linalg.norm(before) > 0.02  # 3.4445^5 = 485 times a smaller one is not yet there
    assert ((after[kept] > 0.6) & (after[kept] < 1.3)).all()


def test_zero_gradients_and_zero_filters_make_no_nan():
    net = net_of_everything("float32")
    optimiser = nn.Muon(net)
    net.params["conv2.w"][...] = 0
    optimiser.step(0.1)
    assert np.isfinite(net.flat_params).all()
    assert not net.params["conv2.w"].any()


def test_a_restored_muon_goes_on_to_the_bit(rng):
    grads = normal(rng, (6, net_of_everything().flat_params.size), "float32")
    nets, optimisers = [], []
    for _ in range(2):
        nets.append(net_of_everything("float32"))
        optimisers.append(nn.Muon(nets[-1], bias_lr=2.0))

    def go(which, steps):
        for grad in steps:
            nets[which].flat_grads[...] = grad
            optimisers[which].step(0.1)

    go(0, grads[:3])
    nets[1].load(nets[0].params, nets[0].state)
    optimisers[1].load({name: array.copy() for name, array in optimisers[0].state.items()}, optimisers[0].steps)
    go(0, grads[3:])
    go(1, grads[3:])
    assert_same(nets[1].flat_params, nets[0].flat_params)
    with pytest.raises(CheckpointMismatchError, match="velocity"):
        optimisers[1].load({}, 3)


def test_muon_in_half_precision_is_computed_in_single(rng):
    u = (300 * normal(rng, (4, 9))).astype("float16")  # its squares overflow float16
    x = orthogonal(u, 3)
    assert x.dtype == np.float16
    assert_same(x, orthogonal(u.astype("float32"), 3), dtype="float16")


# On a GPU -----------------------------------------------------------------------------------------------------------

SHAPES = {
    "first": (6, 5),
    "wide": (70, 8, 3, 3),
    "one": (1, 1, 1, 1),
    "second": (3, 7),
    "tall": (130, 5, 2, 3),
    "square": (64, 16, 2, 2),
    "long": (66, 33, 3, 3),  # its sums of x x^T are cut into slices
}


@pytest.mark.parametrize(
    ("short", "long"), [(1, 1), (64, 256), (64, 257), (66, 297), (256, 2304), (512, 4608), (1024, 9216)]
)
def test_the_slices_of_a_sum_are_whole_runs_and_make_it_up(short, long):
    slices, length = muon.slices_of(short, long)
    assert length % muon._RUN == 0
    assert (slices - 1) * length < long <= slices * length
    tiles = (-(-short // muon._TILE)) ** 2
    assert slices == 1 or slices * tiles <= muon._ENOUGH_BLOCKS
    assert slices <= -(-long // muon._LEAST_SLICE)


def vectors_at(place, w):
    """Return a net as far as Muon looks at it: parameters of SHAPES and 11 more that do not decay, no gradients yet."""
    flat, start, params = place.array(w.copy()), 0, {}
    for name, shape in SHAPES.items():
        params[name] = flat[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    params["bias"] = flat[start:]
    return SimpleNamespace(
        params=params, flat_params=flat, flat_grads=place.array(np.zeros_like(w)), decayed=start, copies=None
    )


def taken(place, w, grads, **given):
    """Return w and the velocity after a step on each of the gradients, as float64."""
    net = vectors_at(place, w)
    optimiser = nn.Muon(net, **given)
    for step, grad in enumerate(grads):
        net.flat_grads[...] = place.array(grad)
        optimiser.step(0.1 / (1 + step))
    return [place.numpy(array).astype(np.float64) for array in (net.flat_params, optimiser.state["velocity"])]


def drawn(rng, dtype, steps=2):
    size = sum(map(math.prod, SHAPES.values())) + 11
    return normal(rng, (size,), dtype), normal(rng, (steps, size), dtype)


@pytest.mark.parametrize("given", [given for given, _ in MUON.values()], ids=MUON.keys())
def test_steps_on_a_gpu_are_those_of_the_cpu(given, gpu, dtype, rng):
    """Where the CPU is e away from the CPU in float64, the GPU may be 4 e away, and 8 u of the largest entry.

    Two orders of the same sums lose alike.  In float64, which is nothing away from itself, e is 2^29 times less than in
    float32.
    """
    w, grads = drawn(rng, dtype)
    exact = taken(Cpu, w.astype(np.float64), grads.astype(np.float64), **given)
    rounded = np.float32 if dtype == "float64" else dtype
    less = 2.0**-29 if dtype == "float64" else 1.0
    of_cpu = taken(Cpu, w.astype(rounded), grads.astype(rounded), **given)
    of_gpu = taken(gpu, w, grads, **given)
    for wanted, cpu, found in zip(exact, of_cpu, of_gpu, strict=True):
        allowed = 4 * less * np.abs(cpu - wanted).max() + 8 * U_OUT[dtype] * np.abs(wanted).max()
        assert np.abs(found - wanted).max() <= allowed


def test_a_gradient_that_is_no_number_stays_in_its_bank(gpu, rng):
    w, grads = drawn(rng, "float32", steps=1)
    places, start = {}, 0
    for name, shape in SHAPES.items():
        places[name] = slice(start, start := start + math.prod(shape))
    expected, _ = taken(gpu, w, grads)
    grads[0, places["wide"].start] = np.nan
    found, _ = taken(gpu, w, grads)
    assert np.isnan(found[places["wide"]]).all()
    for name, where in places.items():
        if name != "wide":
            assert_same(found[where], expected[where])


def test_zero_gradients_and_zero_filters_on_a_gpu_make_no_nan(gpu, rng):
    w, grads = drawn(rng, "float32")
    grads[...] = 0
    found, velocity = taken(gpu, w * 0, grads)
    assert not found.any()
    assert not velocity.any()
    for array in taken(gpu, w, grads):
        assert np.isfinite(array).all()


def test_the_bits_are_those_of_any_number_of_multiprocessors(gpu, rng, monkeypatch):
    w, grads = drawn(rng, "float32")
    expected = taken(gpu, w, grads)
    monkeypatch.setattr("gpuconv.cuda.kernel._BLOCKS_PER_SM", 1)
    for found, wanted in zip(taken(gpu, w, grads), expected, strict=True):
        assert_same(found, wanted)


def test_a_rate_by_its_place_is_the_one_there_at_the_launch(gpu, rng):
    w, grads = drawn(rng, "float32", steps=1)
    rate, found = gpu.array(np.zeros(1)), []
    for lr in (0.25, Number(rate, times=0.5)):
        net = vectors_at(gpu, w)
        optimiser = nn.Muon(net)
        net.flat_grads[...] = gpu.array(grads[0])
        rate[...] = 0.5
        rule = {"momentum": 0.6, "nesterov": True, "renormalise": True, "iterations": 1, "quintic": (2.0, -1.5, 0.5)}
        optimiser._on_gpu.step(*optimiser._vectors, lr=lr, **rule)
        found.append(gpu.numpy(net.flat_params))
    assert_same(*found)
    assert (found[0] != w).any()


@pytest.mark.parametrize("go", [0, 1])
def test_a_step_that_does_not_go_ahead_changes_no_bit(go, gpu, rng, dtype):
    """Its gradient is no number; one that goes ahead is that of a rate by its value."""
    w, grads = drawn(rng, dtype, steps=1)
    before = normal(rng, w.shape, dtype)
    rule = {"momentum": 0.6, "nesterov": True, "renormalise": True, "iterations": 2, "quintic": (2.0, -1.5, 0.5)}
    rate = Number(gpu.array(np.full(1, 0.25)), go=gpu.array(np.array([go], np.uint64)))
    found = []
    for lr in (rate, 0.25):
        net = vectors_at(gpu, w)
        optimiser = nn.Muon(net)
        optimiser.state["velocity"][...] = gpu.array(before)
        net.flat_grads[...] = gpu.array(grads[0] if go else np.full_like(w, np.nan))
        optimiser._on_gpu.step(*optimiser._vectors, lr=lr, **rule)
        found.append([gpu.numpy(array) for array in (net.flat_params, optimiser.state["velocity"])])
    for held, wanted in zip(found[0], found[1] if go else (w, before), strict=True):
        assert_same(held, wanted)


class _Crossed(nn.Layer):
    """A layer whose matrix is not decayed: it does not lie where Muon looks for weights."""

    def __init__(self):
        super().__init__()
        self.declared["w"] = nn.Declared((2, 2), "zeros")

    def output_shape(self, shape):
        return shape


NET = net_of_everything()
BAD = {
    "momentum_above_one": (lambda: nn.Muon(NET, 1.5), ParamError, "momentum"),
    "sgd_momentum_text": (lambda: nn.Muon(NET, sgd_momentum="0.9"), ArgTypeError, "sgd_momentum"),
    "nesterov_a_number": (lambda: nn.Muon(NET, nesterov=1), ArgTypeError, "nesterov"),
    "no_iterations": (lambda: nn.Muon(NET, iterations=0), ParamError, "iterations"),
    "renormalise_a_number": (lambda: nn.Muon(NET, renormalise=0), ArgTypeError, "renormalise"),
    "affine_lr_negative": (lambda: nn.Muon(NET, affine_lr=-1), ParamError, "affine_lr"),
    "bias_lr_nan": (lambda: nn.SGD(NET, bias_lr=float("nan")), ParamError, "bias_lr"),
    "bias_lr_text": (lambda: nn.AdamW(NET, bias_lr="1"), ArgTypeError, "bias_lr"),
    "matrix_out_of_place": (lambda: nn.Muon(nn.Net(_Crossed(), (2,))), ParamError, "weights in front"),
    "unknown_setting": (lambda: nn.optimiser("muon", NET, beta1=0.9), ConfigError, "it takes momentum"),
    "max_norm_zero": (lambda: nn.clip_gradients(NET, 0.0), ParamError, "max_norm"),
    "max_norm_none": (lambda: nn.clip_gradients(NET, None), ArgTypeError, "max_norm"),
}


@pytest.mark.parametrize(("make", "error", "word"), BAD.values(), ids=BAD.keys())
def test_bad_settings_are_refused_by_name(make, error, word):
    with pytest.raises(error, match=word):
        make()


def test_muon_by_name():
    assert type(nn.optimiser("muon", NET, iterations=5)) is nn.Muon
    assert "iterations=5" in repr(nn.Muon(NET, iterations=5))


# The rate of biases -------------------------------------------------------------------------------------------------

RULES = {"sgd": nn.SGD, "rmsprop": nn.RMSprop, "adam": nn.Adam, "adamw": nn.AdamW}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("make", RULES.values(), ids=RULES.keys())
def test_biases_go_at_their_own_rate_and_weights_as_before(rng, make, weight_decay):
    grads = normal(rng, (4, 30))
    w = normal(rng, (30,))

    def run(lr, **settings):
        net = SimpleNamespace(flat_params=w.copy(), flat_grads=np.zeros(30), decayed=20, copies=None)
        optimiser = make(net, weight_decay=weight_decay, **settings)
        for grad in grads:
            net.flat_grads[...] = grad
            optimiser.step(lr)
        return net.flat_params

    both, plain, slow = run(0.1, bias_lr=0.25), run(0.1), run(0.1 * 0.25)
    assert_same(both[:20], plain[:20])
    assert_same(both[20:], slow[20:])
    assert (both[20:] != plain[20:]).all()


# Clipping -----------------------------------------------------------------------------------------------------------


def gradients(values):
    return SimpleNamespace(flat_grads=np.asarray(values))


def test_gradients_longer_than_the_limit_are_shortened_to_it(rng):
    for size in (1, 7, 2**18 + 5):
        values = normal(rng, (size,), "float32")
        length = np.linalg.norm(values.astype("float64"))
        net = gradients(values.copy())
        assert nn.clip_gradients(net, 2 * length) == pytest.approx(length, rel=1e-14)
        assert_same(net.flat_grads, values)
        assert nn.clip_gradients(net, length / 3) == pytest.approx(length, rel=1e-14)
        np.testing.assert_allclose(net.flat_grads, values / 3, rtol=2**-22)  # two roundings of float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_norm_that_is_no_number_changes_nothing(value):
    net = gradients([1.0, value, -2.0])
    assert not np.isfinite(nn.clip_gradients(net, 1.0))
    assert_same(net.flat_grads, np.array([1.0, value, -2.0]))


def test_large_float32_gradients_have_a_norm():
    net = gradients(np.full(4, 1e30, np.float32))  # their squares overflow float32
    assert nn.clip_gradients(net, 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(net.flat_grads, 0.5, rtol=1e-6)
    assert nn.clip_gradients(gradients(np.zeros(3)), 1.0) == 0
