"""Optimisers: the course's numbers, PyTorch's steps, which parameters decay, checkpoints, settings."""

from types import SimpleNamespace

import numpy as np
import pytest
from compare import assert_same, normal

from gpuconv import nn
from gpuconv.errors import ArgTypeError, CheckpointMismatchError, ConfigError, GpuconvError, ParamError

RULES = {
    "sgd": lambda net: nn.SGD(net, momentum=0.0),
    "momentum": lambda net: nn.SGD(net, momentum=0.8),
    "nesterov": lambda net: nn.SGD(net, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda net: nn.RMSprop(net, smoothing=0.9, weight_decay=0.1),
    "adam": lambda net: nn.Adam(net, weight_decay=0.1),
    "adamw": lambda net: nn.AdamW(net, weight_decay=0.1),
}
each_rule = pytest.mark.parametrize("make", RULES.values(), ids=RULES.keys())


def vectors(params, grads, decayed=None):
    """Return what an optimiser sees of a net."""
    decayed = params.size if decayed is None else decayed
    return SimpleNamespace(flat_params=params, flat_grads=grads, decayed=decayed, copies=None)


# The course's cells: w, dw of 20 numbers each, and the first row (5 numbers) of the w that follows.  Its velocity is
# v = momentum v - lr dw, ours is v = momentum v + dw with w -= lr v: theirs is -lr times ours.
COURSE = {
    "momentum": (
        nn.SGD, 1e-3, {"velocity": -np.linspace(0.6, 0.9, 20) / 1e-3}, 0,
        [0.1406, 0.20738947, 0.27417895, 0.34096842, 0.40775789],
    ),
    "nesterov": (
        lambda net: nn.SGD(net, nesterov=True), 1e-3, {"velocity": -np.linspace(0.6, 0.9, 20) / 1e-3}, 0,
        [0.08714, 0.15246105, 0.21778211, 0.28310316, 0.34842421],
    ),
    "rmsprop": (
        nn.RMSprop, 1e-2, {"square": np.linspace(0.6, 0.9, 20)}, 0,
        [-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247],
    ),
    "adam": (
        nn.Adam, 1e-2, {"m": np.linspace(0.6, 0.9, 20), "v": np.linspace(0.7, 0.5, 20)}, 5,
        [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "lr", "state", "steps", "expected"), COURSE.values(), ids=COURSE.keys())
def test_a_step_gives_the_numbers_of_the_course(make, lr, state, steps, expected):
    w, dw = np.linspace(-0.4, 0.6, 20), np.linspace(-0.6, 0.4, 20)
    optimiser = make(vectors(w, dw))
    optimiser.load(state, steps)
    optimiser.step(lr)
    np.testing.assert_allclose(w[:5], expected, rtol=0, atol=0.6e-8)  # their last printed digit, rounded
    assert optimiser.steps == steps + 1


TORCH = {
    "sgd": ("SGD", lambda net: nn.SGD(net, momentum=0.0), {}),
    "sgd_weight_decay": ("SGD", lambda net: nn.SGD(net, momentum=0.0, weight_decay=0.1), {"weight_decay": 0.1}),
    "momentum": ("SGD", nn.SGD, {"momentum": 0.9}),
    "momentum_weight_decay": (
        "SGD", lambda net: nn.SGD(net, momentum=0.7, weight_decay=0.1), {"momentum": 0.7, "weight_decay": 0.1}
    ),
    "nesterov": ("SGD", lambda net: nn.SGD(net, nesterov=True), {"momentum": 0.9, "nesterov": True}),
    "nesterov_weight_decay": (
        "SGD", lambda net: nn.SGD(net, 0.8, True, 0.1), {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}
    ),
    "rmsprop": ("RMSprop", nn.RMSprop, {}),
    "rmsprop_every_setting": (
        "RMSprop", lambda net: nn.RMSprop(net, 0.9, 1e-3, 0.1), {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}
    ),
    "adam": ("Adam", nn.Adam, {}),
    "adam_every_setting": (
        "Adam", lambda net: nn.Adam(net, 0.8, 0.95, 1e-3, 0.1),
        {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
    ),
    "adamw": ("AdamW", nn.AdamW, {}),
    "adamw_every_setting": (
        "AdamW", lambda net: nn.AdamW(net, 0.8, 0.95, 1e-3, 0.1),
        {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "make", "settings"), TORCH.values(), ids=TORCH.keys())
def test_ten_steps_equal_those_of_pytorch(rng, name, make, settings):
    torch = pytest.importorskip("torch")
    w, dw = normal(rng, (50,)), np.zeros(50)
    twin = torch.nn.Parameter(torch.from_numpy(w.copy()))
    optimiser, twin_optimiser = make(vectors(w, dw)), getattr(torch.optim, name)([twin], lr=0.05, **settings)
    for step in range(10):
        lr = 0.05 / (1 + step)
        dw[...] = normal(rng, (50,))
        twin.grad = torch.from_numpy(dw.copy())
        twin_optimiser.param_groups[0]["lr"] = lr
        optimiser.step(lr)
        twin_optimiser.step()
    np.testing.assert_allclose(w, twin.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_weight_decay_spares_biases_gamma_and_beta(rng):
    def step(weight_decay, make):
        net = nn.ConvNet(3, input_shape=(2, 4, 4), classes=3, dtype="float64")
        net.flat_params[...] = normal(np.random.default_rng(1), net.flat_params.shape)
        net.flat_grads[...] = normal(np.random.default_rng(2), net.flat_params.shape)
        optimiser = make(net, weight_decay=weight_decay)
        for _ in range(2):
            optimiser.step(0.1)
        return net

    for make in (nn.SGD, nn.RMSprop, nn.Adam, nn.AdamW):
        plain, decayed = step(0.0, make), step(0.5, make)
        for name, array in plain.params.items():
            same = array == decayed.params[name]
            assert not same.any() if name.endswith(".w") else same.all(), (make, name)


@each_rule
def test_a_net_without_gradients_stands_still_but_for_decay(make):
    w = np.ones(4)
    optimiser = make(vectors(w, np.zeros(4), decayed=2))
    optimiser.step(0.1)
    assert (w[2:] == 1).all()
    assert (w[:2] < 1).all() if optimiser.weight_decay else (w[:2] == 1).all()


@each_rule
def test_a_restored_optimiser_goes_on_to_the_bit(rng, make):
    grads = normal(rng, (6, 40), "float32")
    w, dw = normal(rng, (40,), "float32"), np.zeros(40, np.float32)
    whole_run = make(vectors(w, dw, decayed=25))
    for grad in grads[:3]:
        dw[...] = grad
        whole_run.step(0.1)
    saved_w, saved_state = w.copy(), {name: array.copy() for name, array in whole_run.state.items()}
    resumed_w, resumed_dw = saved_w, np.zeros(40, np.float32)
    resumed = make(vectors(resumed_w, resumed_dw, decayed=25))
    held = dict(resumed.state)
    resumed.load(saved_state, whole_run.steps)
    assert resumed.steps == 3
    for name, array in resumed.state.items():
        assert array is held[name], "load must copy into the vectors that step uses"
        assert not np.shares_memory(array, saved_state[name])
    for grad in grads[3:]:
        dw[...] = resumed_dw[...] = grad
        whole_run.step(0.1)
        resumed.step(0.1)
    assert_same(resumed_w, w)
    for name, array in resumed.state.items():
        assert_same(array, whole_run.state[name])


def test_state_vectors_are_flat_and_of_the_nets_dtype():
    net = nn.Net(nn.Affine(3, 2), (3,), dtype="float32")
    names = {make: list(make(net).state) for make in (nn.SGD, nn.RMSprop, nn.Adam, nn.AdamW)}
    assert names == {nn.SGD: ["velocity"], nn.RMSprop: ["square"], nn.Adam: ["m", "v"], nn.AdamW: ["m", "v"]}
    assert nn.SGD(net, momentum=0.0).state == {}
    for array in nn.Adam(net).state.values():
        assert array.shape == net.flat_params.shape
        assert array.dtype == np.float32
        assert not array.any()


def test_load_refuses_what_does_not_fit():
    optimiser = nn.Adam(vectors(np.ones(4), np.ones(4)))
    good = {"m": np.ones(4), "v": np.ones(4)}
    for state, word in (
        ({"m": np.ones(4)}, "missing: v"),
        ({**good, "velocity": np.ones(4)}, "unexpected: velocity"),
        ({**good, "v": np.ones(5)}, r"v must be \(4,\)"),
        ({**good, "v": np.ones(4, np.float32)}, "float32"),
    ):
        with pytest.raises(CheckpointMismatchError, match=word):
            optimiser.load(state, 3)
    with pytest.raises(ParamError, match="steps"):
        optimiser.load(good, -1)
    assert optimiser.steps == 0
    assert not optimiser.state["m"].any()


NET = vectors(np.ones(4), np.ones(4))
BAD = {
    "momentum_above_one": (lambda: nn.SGD(NET, momentum=1.1), ParamError, "momentum"),
    "momentum_text": (lambda: nn.SGD(NET, momentum="0.9"), ArgTypeError, "momentum"),
    "nesterov_a_number": (lambda: nn.SGD(NET, nesterov=1), ArgTypeError, "nesterov"),
    "nesterov_without_momentum": (lambda: nn.SGD(NET, momentum=0.0, nesterov=True), ParamError, "nesterov"),
    "weight_decay_negative": (lambda: nn.SGD(NET, weight_decay=-1e-4), ParamError, "weight_decay"),
    "weight_decay_nan": (lambda: nn.AdamW(NET, weight_decay=float("nan")), ParamError, "weight_decay"),
    "smoothing_negative": (lambda: nn.RMSprop(NET, smoothing=-0.1), ParamError, "smoothing"),
    "smoothing_above_one": (lambda: nn.RMSprop(NET, smoothing=1.5), ParamError, "smoothing"),
    "rmsprop_eps_zero": (lambda: nn.RMSprop(NET, eps=0.0), ParamError, "eps"),
    "beta1_one": (lambda: nn.Adam(NET, beta1=1.0), ParamError, "beta1"),
    "beta2_negative": (lambda: nn.Adam(NET, beta2=-0.5), ParamError, "beta2"),
    "adam_eps_zero": (lambda: nn.Adam(NET, eps=0), ParamError, "eps"),
    "unknown_optimiser": (lambda: nn.optimiser("adamax", NET), ConfigError, 'did you mean "adamw"|"adam"'),
    "nothing_like_it": (lambda: nn.optimiser("x", NET), ConfigError, "known: sgd, rmsprop, adam, adamw"),
    "unknown_setting": (lambda: nn.optimiser("sgd", NET, momentun=0.9), ConfigError, "momentun.*it takes momentum"),
    "setting_in_other_words": (
        lambda: nn.optimiser("sgd", NET, wd=0.1),
        ConfigError,
        "did you mean \"weight_decay\" by 'wd'",
    ),
    "setting_of_another": (lambda: nn.optimiser("adam", NET, momentum=0.9), ConfigError, "it takes beta1"),
    "name_a_number": (lambda: nn.optimiser(3, NET), ArgTypeError, "optimiser"),
    "lr_negative": (lambda: nn.SGD(NET).step(-0.1), ParamError, "lr"),
    "lr_infinite": (lambda: nn.Adam(NET).step(float("inf")), ParamError, "lr"),
    "lr_text": (lambda: nn.Adam(NET).step("0.1"), ArgTypeError, "lr"),
}


@pytest.mark.parametrize(("make", "error", "word"), BAD.values(), ids=BAD.keys())
def test_bad_settings_are_refused_by_name(make, error, word):
    with pytest.raises(error, match=word) as caught:
        make()
    assert isinstance(caught.value, GpuconvError)
    assert (NET.flat_params == 1).all()


def test_optimisers_by_name_are_the_classes():
    for name, cls in {"sgd": nn.SGD, "rmsprop": nn.RMSprop, "adam": nn.Adam, "adamw": nn.AdamW}.items():
        assert type(nn.optimiser(name, NET)) is cls
    assert repr(nn.optimiser("sgd", NET, nesterov=True, weight_decay=1e-3)) == (
        "SGD(momentum=0.9, nesterov=True, weight_decay=0.001)"
    )
