"""What the convolutions of gpuconv.cudnn refuse, as which error, before anything is written."""

import pickle

import numpy as np
import pytest

from gpuconv import cudnn

FUNCTIONS = {"convolution_forward": "y", "convolution_backward_data": "y", "convolution_backward_filter": "gW"}
SHAPES = {  # of the arguments that are arrays, by the function
    "convolution_forward": {"x": (2, 4, 5, 4), "W": (6, 2, 3, 2), "b": (6,), "y": (2, 6, 3, 3)},
    "convolution_backward_data": {"W": (6, 2, 3, 2), "x": (2, 6, 3, 3), "b": (4,), "y": (2, 4, 5, 4)},
    "convolution_backward_filter": {"x": (2, 4, 5, 4), "gy": (2, 6, 3, 3), "gW": (6, 2, 3, 2)},
}
FUNCTION = pytest.mark.parametrize("function", FUNCTIONS)


def arguments(function, **shapes):
    """Return what a function takes, by name: arrays of its shapes, or of those given, whose output holds -7."""
    arrays = {name: np.ones(shapes.get(name, shape)) for name, shape in SHAPES[function].items()}
    arrays[FUNCTIONS[function]].fill(-7)
    options = {"pad": (0, 0), "stride": (1, 1), "dilation": (1, 1), "groups": 2}
    free = {"auto_tune": True, "tensor_core": "auto", "d_layout": 0, "w_layout": 0}
    return {**arrays, **options, **free, **({} if "forward" in function else {"deterministic": False})}


def refused(function, error, match, given):
    """Check that a call fails, and leaves its output alone; return the error."""
    output = given[FUNCTIONS[function]]
    with pytest.raises(error, match=match) as caught:
        getattr(cudnn, function)(**given)
    assert (output == -7).all()
    return caught.value


@FUNCTION
def test_what_is_valid_here_is_valid(function):
    given = arguments(function)
    getattr(cudnn, function)(**given)
    assert (given[FUNCTIONS[function]] != -7).all()


@FUNCTION
@pytest.mark.parametrize(
    ("option", "value", "error", "match"),
    [
        ("pad", [0, 0], TypeError, r"pad must be a tuple, got \[0, 0\]"),
        ("pad", 0, TypeError, "pad must be a tuple, got 0"),
        ("stride", [1, 1], TypeError, "stride must be a tuple"),
        ("dilation", [1, 1], TypeError, "dilation must be a tuple"),
        ("pad", (0.0, 0.0), TypeError, "pad must be an int"),
        ("stride", (1,), ValueError, "stride must have as many entries as pad, 2"),
        ("dilation", (1, 1, 1), ValueError, "dilation must have as many entries as pad, 2"),
        ("tensor_core", "perhaps", ValueError, 'tensor_core must be "auto", "always" or "never", got \'perhaps\''),
        ("d_layout", 2, ValueError, "d_layout must be 0 .* or 1 .*, got 2"),
        ("w_layout", -1, ValueError, "w_layout must be 0 .* or 1 .*, got -1"),
        ("stride", (1, 0), cudnn.CuDNNError, "BAD_PARAM\nstride, dilation and groups must be positive"),
        ("dilation", (0, 1), cudnn.CuDNNError, "BAD_PARAM\nstride, dilation and groups must be positive"),
        ("groups", 0, cudnn.CuDNNError, "BAD_PARAM\nstride, dilation and groups must be positive"),
        ("pad", (-1, 0), cudnn.CuDNNError, "pad not negative"),
        ("groups", 1, cudnn.CuDNNError, "channels must be those of a filter times groups"),
    ],
)
def test_options(function, option, value, error, match):
    refused(function, error, match, {**arguments(function), option: value})


@FUNCTION
@pytest.mark.parametrize("keyword", ["auto_tune", "tensor_core", "deterministic"])
def test_keywords_have_no_defaults(function, keyword):
    given = arguments(function)
    if given.pop(keyword, None) is not None:
        refused(function, TypeError, f"missing 1 required keyword-only argument: '{keyword}'", given)


@FUNCTION
@pytest.mark.parametrize("keyword", ["auto_tune", "tensor_core", "deterministic"])
def test_keywords_are_not_taken_by_position(function, keyword):
    given = arguments(function)
    by_position = [given[name] for name in (*SHAPES[function], "pad", "stride", "dilation", "groups")]
    with pytest.raises(TypeError, match="positional argument"):
        getattr(cudnn, function)(*by_position, given.get(keyword))


@FUNCTION
@pytest.mark.parametrize("wrong", ["dtype", "byte order", "no array", "None"])
def test_what_is_no_array_of_floats_is_a_type_error(function, wrong):
    for name in SHAPES[function]:
        given = arguments(function)
        convert = {
            "dtype": lambda array: array.astype(np.int32),
            "byte order": lambda array: array.astype(">f8"),
            "no array": lambda array: array.tolist(),
            "None": lambda array: None,
        }[wrong]
        output, given[name] = given[FUNCTIONS[function]], convert(given[name])
        if name != "b" or wrong == "no array":
            with pytest.raises(TypeError, match=f"{name} must be"):
                getattr(cudnn, function)(**given)
        assert (output == -7).all()


@FUNCTION
def test_arrays_of_two_dtypes_are_cudnns_error_with_lines_of_what_was_given(function):
    for name in SHAPES[function]:
        given = arguments(function)
        given[name] = given[name].astype(np.float32)
        error = refused(function, cudnn.CuDNNError, "BAD_PARAM\narrays must share one dtype", given)
        assert isinstance(error, RuntimeError)
        assert error.status == 3
        assert f"{name}: shape={SHAPES[function][name]}, dtype=float32, strides={given[name].strides}" in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


@FUNCTION
def test_an_output_that_is_not_contiguous_is_a_value_error(function):
    given, name = arguments(function), FUNCTIONS[function]
    given[name] = np.repeat(given[name], 2, axis=-1)[..., ::2]
    refused(function, ValueError, f"{name} must be C-contiguous, got strides", given)


# A size that no other array has, for each axis that has to agree.
WRONG = [
    *(("x", axis) for axis in range(4)),
    *(("W", axis) for axis in range(4)),
    *(("y", axis) for axis in range(4)),
    *(("gy", axis) for axis in range(4)),
    *(("gW", axis) for axis in range(4)),
    ("b", 0),
]


@FUNCTION
@pytest.mark.parametrize("size", [0, 11])
def test_sizes_that_do_not_fit_are_cudnns_error(function, size):
    """Also where no sum has a term."""
    for name, axis in WRONG:
        if name in SHAPES[function]:
            shape = [size if i == axis else n for i, n in enumerate(SHAPES[function][name])]
            error = refused(function, cudnn.CuDNNError, "BAD_PARAM", arguments(function, **{name: shape}))
            assert "pad=(0, 0), stride=(1, 1), dilation=(1, 1), groups=2" in str(error)
            assert f"{name}: shape={tuple(shape)}, dtype=float64, strides=" in str(error)


@FUNCTION
@pytest.mark.parametrize("axes", [1, 3, 0, 4])
def test_axes_are_two_more_than_pad_has_entries(function, axes):
    many = {"pad": (0,) * axes, "stride": (1,) * axes, "dilation": (1,) * axes}
    refused(function, cudnn.CuDNNError, "two axes more than pad has entries", {**arguments(function), **many})


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (0, "SUCCESS"),
        (1, "NOT_INITIALIZED"),
        (2, "ALLOC_FAILED"),
        (3, "BAD_PARAM"),
        (4, "INTERNAL_ERROR"),
        (5, "INVALID_VALUE"),
        (8, "EXECUTION_FAILED"),
        (9, "NOT_SUPPORTED"),
        (77, "77"),
    ],
)
def test_an_error_has_its_status_and_name_and_lines(status, name):
    error = cudnn.CuDNNError(status, "one", "two")
    assert str(error) == f"cuDNN Error: CUDNN_STATUS_{name}\none\ntwo"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cudnn.CuDNNError
    assert (copy.status, str(copy)) == (status, str(error))
    assert str(cudnn.CuDNNError(status)) == f"cuDNN Error: CUDNN_STATUS_{name}"
