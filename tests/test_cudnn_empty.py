"""Convolutions of gpuconv.cudnn where a size is 0: sums of no terms are 0, and sizes agree as they do elsewhere."""

import numpy as np
import pytest
from compare import assert_same

from gpuconv import cudnn

pytestmark = pytest.mark.core

FREE = {"auto_tune": True, "tensor_core": "auto"}
OPTIONS = (1, 1), (1, 1), (1, 1), 1
# why it is empty: x, W, y of the forward pass
EMPTY = {
    "no_images": ((0, 2, 5, 4), (3, 2, 3, 2), (0, 3, 5, 5)),
    "no_channels": ((2, 0, 5, 4), (3, 0, 3, 2), (2, 3, 5, 5)),
    "no_filters": ((2, 2, 5, 4), (0, 2, 3, 2), (2, 0, 5, 5)),
    "nothing_but_padding": ((2, 2, 0, 4), (3, 2, 2, 2), (2, 3, 1, 5)),
    "no_window_fits": ((2, 2, 1, 4), (3, 2, 4, 2), (2, 3, 0, 5)),
}


def results(device, shapes, b=None):
    """Return y, gx, gW of arrays of ones, written over sevens."""
    x, w, gy = (device.array(np.ones(shape, "float32")) for shape in shapes)
    gx, gw, y = (device.array(np.full(shape, 7, "float32")) for shape in shapes)
    biases = [None if b is None else device.array(np.full(n, b, "float32")) for n in (w.shape[0], x.shape[1])]
    cudnn.convolution_forward(x, w, biases[0], y, *OPTIONS, **FREE)
    cudnn.convolution_backward_data(w, gy, biases[1], gx, *OPTIONS, deterministic=True, **FREE)
    cudnn.convolution_backward_filter(x, gy, gw, *OPTIONS, deterministic=True, **FREE)
    return map(device.numpy, (gx, gw, y))


@pytest.mark.parametrize("b", [None, 3], ids=["alone", "bias"])
@pytest.mark.parametrize("name", EMPTY)
def test_sums_of_no_terms_are_zero_and_the_bias(device, name, b):
    for result, shape, value in zip(results(device, EMPTY[name], b), EMPTY[name], (b or 0, 0, b or 0), strict=True):
        assert_same(result, np.full(shape, value, "float32"))


CALLS = {  # the function, and which of x, W and y it takes in which order, the last to be written
    "forward": (cudnn.convolution_forward, (0, 1, 2)),
    "data": (cudnn.convolution_backward_data, (1, 2, 0)),
    "filter": (cudnn.convolution_backward_filter, (0, 2, 1)),
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("call", CALLS)
def test_sizes_agree_where_one_is_zero(name, call):
    """An entry too many, on each axis of each array."""
    function, order = CALLS[call]
    free = FREE if call == "forward" else {"deterministic": True, **FREE}
    for array, axis in np.ndindex(3, 4):
        if (name, array, axis) == ("no_window_fits", 1, 2):
            continue  # nor does a larger one
        arrays = [np.ones([n + (i == array and a == axis) for a, n in enumerate(s)]) for i, s in enumerate(EMPTY[name])]
        first, second, output = (arrays[i] for i in order)
        output.fill(7)
        with pytest.raises(cudnn.CuDNNError, match="BAD_PARAM"):
            function(first, second, *([] if call == "filter" else [None]), output, *OPTIONS, **free)
        assert (output == 7).all()
