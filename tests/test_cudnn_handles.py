"""Dropout, settings, constants and refusals of gpuconv.cudnn."""

import numpy as np
import pytest
from compare import assert_same, normal
from pairs import DEVICES, DTYPES, pairs

from gpuconv import cudnn
from gpuconv.cudnn import constants, refusals
from gpuconv.errors import UnsupportedError

pytestmark = pytest.mark.core


@pairs(device=DEVICES, dtype=DTYPES)
def test_one_seed_draws_one_mask_and_backward_uses_it(rng, device, dtype):
    x = np.abs(normal(rng, (3, 4, 5, 6), dtype)) + np.ones((), dtype)
    first, second, other = (cudnn.DropoutStates(None, seed) for seed in (7, 7, 8))
    reserve, y = first.forward(None, device.array(x), 0.25)
    again = device.numpy(second.forward(1, device.array(x), 0.25)[1])
    host = device.numpy(y)
    assert reserve.dtype == np.int8
    assert_same(host, again)
    assert 0 < (host == 0).sum() < x.size
    for different in (other, second):  # another seed, another call
        assert (device.numpy(different.forward(None, device.array(x), 0.25)[1]) != host).any()
    assert_same(device.numpy(first.backward(None, device.array(x), 0.25, reserve)), host)
    reserve, y = first.forward(None, device.array(x), 0.0)
    assert_same(device.numpy(y), x)
    assert_same(device.numpy(first.backward(None, device.array(x), 0.0, reserve)), x)


def test_dropout_is_undone_by_its_own_reserve_space_alone(rng, device):
    """A kernel would read beyond another one."""
    x = device.array(normal(rng, (3, 4), "float32"))
    states = cudnn.DropoutStates(None, 7)
    reserve, _ = states.forward(None, x, 0.25)
    none, _ = states.forward(None, x, 0.0)
    for dy, ratio, space in ((x, 0.25, reserve[:2]), (x[:2], 0.25, reserve), (x, 0.25, none), (x, 0.0, reserve),
                             (x, 1.0, reserve), (x, -0.5, reserve)):  # fmt: skip
        with pytest.raises(cudnn.CuDNNError, match="BAD_PARAM\nreserve_space must be what forward returned"):
            states.backward(None, dy, ratio, space)


def test_dropout_takes_floats(rng):
    states, whole = cudnn.DropoutStates(None, 7), np.ones((3, 4), int)
    with pytest.raises(TypeError, match="x must be float16, float32 or float64, got int64"):
        states.forward(None, whole, 0.5)
    with pytest.raises(TypeError, match="dy must be float16, float32 or float64, got int64"):
        states.backward(None, whole, 0.5, whole.astype(np.int8))
    assert states.set_dropout_ratio(0.5) is None
    y = normal(rng, (3, 4))
    assert_same(states.forward(None, y, 0.0)[1], y)


def test_settings_are_kept():
    before = cudnn.get_max_workspace_size()
    assert before == 8 * 2**20
    cudnn.set_max_workspace_size(0)
    assert cudnn.get_max_workspace_size() == 0
    cudnn.set_max_workspace_size(before)
    assert cudnn.get_handle()
    assert [cudnn.get_data_type(np.dtype(c)) for c in "fde"] == [0, 1, 2]
    with pytest.raises(TypeError, match="got int64"):
        cudnn.get_data_type(np.dtype("int64"))
    assert not cudnn.is_tensor_core_available(np.dtype("e"))


def test_constants_are_plain_integers_with_the_values_of_cudnn():
    values = {name: value for name, value in vars(constants).items() if name.startswith("CUDNN_")}
    of_float = {"CUDNN_BN_MIN_EPSILON"}
    assert {name for name, value in values.items() if type(value) is not int} == of_float
    assert values["CUDNN_BATCHNORM_SPATIAL_PERSISTENT"] == 2
    assert values["CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED"] == 7
    assert values["CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3"] == values["CUDNN_GRU"] == 3
    assert values["CUDNN_POOLING_MAX_DETERMINISTIC"] == 3


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, value in vars(refusals).items()
        if hasattr(value, "__qualname__") and value.__module__ == refusals.__name__ and name != "_refusal"
    ],
)
def test_what_is_not_here_says_so_by_name(name):
    with pytest.raises(UnsupportedError, match=f"has no {name}: it has convolutions"):
        getattr(cudnn, name)(1, key=2)
