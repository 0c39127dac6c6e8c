"""The average of weights: its numbers, the swap into the net and back, checkpoints."""

import numpy as np
import pytest
from compare import assert_same, normal

from gpuconv import nn
from gpuconv.errors import ArgTypeError, CheckpointMismatchError, ParamError


def small_net(seed=0):
    body = nn.Sequential(nn.Conv(2, 3, 2, frozen=True), nn.BatchNorm(3, scale=False), nn.Flatten(), nn.Affine(12, 3))
    return nn.Net(body, (2, 3, 3), seed=seed)


def moved(net, rng):
    net.flat_params[...] = normal(rng, net.flat_params.shape, "float32")
    net.state["bn1.running_mean"][...] = normal(rng, (3,), "float32")
    net.state["bn1.running_var"][...] = np.abs(normal(rng, (3,), "float32"))


def everything(net):
    return {name: array.copy() for name, array in (net.params | net.state).items()}


def test_the_average_follows_its_formula(rng):
    net = small_net()
    average = nn.WeightAverage(net, 0.5)
    held = {
        "params": net.flat_params,
        **{f"bn1.running_{what}": net.state[f"bn1.running_{what}"] for what in ("mean", "var")},
    }
    expected = {name: array.astype("float64") for name, array in held.items()}
    assert average.state.keys() == expected.keys()
    for step in range(20):
        moved(net, rng)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, array in held.items():
            expected[name] = decay * expected[name] + (1 - decay) * array
    for name, array in average.state.items():
        # Each of 20 updates rounds three times, to 2^-24 of numbers of about 1 to 4; older errors are halved.
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=2 * 3 * 4 * 2.0**-24)


def test_the_net_holds_the_average_inside_the_block_and_its_own_bits_after_it(rng):
    net = small_net()
    average = nn.WeightAverage(net, 0.9)
    for step in range(3):
        moved(net, rng)
        average.update(step)
    net.flat_params[:2] = [-0.0, 1e-42]  # what a detour through arithmetic would lose
    before = everything(net)
    with average.applied():
        assert_same(net.flat_params, average.state["params"])
        assert_same(net.state["bn1.running_var"], average.state["bn1.running_var"])
        assert_same(net.state["conv1.w"], before["conv1.w"])
    for name, array in everything(net).items():
        assert array.tobytes() == before[name].tobytes(), name
    with pytest.raises(ZeroDivisionError), average.applied():
        1 / 0  # noqa: B018
    for name, array in everything(net).items():
        assert array.tobytes() == before[name].tobytes(), name


def test_filters_prepared_after_the_average_was_made_stay(rng):
    net = nn.SpeedrunNet(2, 2, 2)
    average = nn.WeightAverage(net)
    net.prepare(normal(rng, (3, 3, 32, 32), "float32"))
    filters = net.state["whiten.w"].copy()
    average.update(0)
    with average.applied():
        assert_same(net.state["whiten.w"], filters)


def test_an_average_of_equal_weights_is_equal(rng):
    net = small_net()
    average = nn.WeightAverage(net, 0.99)
    for step in range(50):
        average.update(step)
    assert_same(average.state["params"], net.flat_params)


def test_a_restored_average_goes_on_to_the_bit(rng):
    net = small_net()
    average = nn.WeightAverage(net, 0.9)
    for step in range(4):
        moved(net, rng)
        average.update(step)
    again = nn.WeightAverage(net, 0.9)
    held = dict(again.state)
    again.load({name: array.copy() for name, array in average.state.items()})
    assert all(again.state[name] is array for name, array in held.items())
    moved(net, rng)
    for one in (average, again):
        one.update(4)
    for name, array in average.state.items():
        assert_same(again.state[name], array)
    with pytest.raises(CheckpointMismatchError, match="missing: params"):
        again.load({name: array for name, array in average.state.items() if name != "params"})


BAD = {
    "decay_one": (lambda: nn.WeightAverage(small_net(), 1.0), ParamError, "below 1"),
    "decay_negative": (lambda: nn.WeightAverage(small_net(), -0.1), ParamError, "decay"),
    "decay_text": (lambda: nn.WeightAverage(small_net(), "0.9"), ArgTypeError, "decay"),
    "step_negative": (lambda: nn.WeightAverage(small_net()).update(-1), ParamError, "step"),
}


@pytest.mark.parametrize(("make", "error", "word"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused(make, error, word):
    with pytest.raises(error, match=word):
        make()


def test_nothing_but_reading_happens_inside_the_block():
    average = nn.WeightAverage(small_net())
    with average.applied():
        for change in (lambda: average.update(0), lambda: average.load({}), average.applied().__enter__):
            with pytest.raises(ParamError, match="end the"):
                change()
    average.update(0)
