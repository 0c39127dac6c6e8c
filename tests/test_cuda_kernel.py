"""Launches: what CUDA would take in silence is refused, with the kernel and the argument named."""

import re

import numpy as np
import pytest

from bench import launch_cost
from gpuconv.cuda import kernel as kernel_module
from gpuconv.cuda.kernel import Kernel, cover
from gpuconv.errors import ArgTypeError, DeviceMismatchError, DTypeError, GpuLaunchError, SizeLimitError

TEXT = """
// template <typename T> __global__ void scale(int old) is what this comment says
struct Shape {
  int N, C;
  long long steps[2];
  float eps;
};

template <typename T, int R, bool RELU, typename Index>
__global__ void __launch_bounds__(256) scale(const T* __restrict__ x, T* y, const Shape shape, Sum<T> factor,
    Index total /* elements */, unsigned char* __restrict__ flags, bool flip) {}

__global__ void
__launch_bounds__(64)
plain(float* out, long long n) {}

struct Pair {
  int N, C;
};
__global__ void count(const Pair pair) {}
__global__ void count_to(int last) {}

template <typename T> __global__ void twice(T* out) {}
template <typename T> __global__ void twice(T* out, int n) {}
__global__ void unknown(size_t n) {}
"""

SHAPE = {"N": 2, "C": 3, "steps": [7, -1], "eps": 0.5}


class FakeDevice:
    """Records what reaches the device."""

    name, arch, sm_count = "fake", 90, 4

    def __init__(self):
        self.compiled, self.launched, self.waits, self.fails = [], [], 0, {}

    def holds(self, array):
        return isinstance(array, np.ndarray)

    def compile(self, text, file, expressions, options):
        if "compile" in self.fails:
            raise self.fails["compile"]
        self.compiled.append((file, expressions))
        return {expression: expression for expression in expressions}

    def launch(self, function, grid, block, args, shared):
        if "launch" in self.fails:
            raise self.fails["launch"]
        self.launched.append((function, grid, block, args, shared))

    def synchronize(self):
        self.waits += 1
        if "run" in self.fails:
            raise self.fails["run"]


@pytest.fixture
def fake():
    return FakeDevice()


@pytest.fixture(autouse=True)
def _source(monkeypatch):
    monkeypatch.setattr(kernel_module, "source", lambda name: TEXT)
    monkeypatch.setattr(Kernel, "all", {})


def dtypes(*names):
    return tuple(np.dtype(name) for name in names)


FLOAT, INT = dtypes("float32", "int32")


def args(**replaced):
    """Return right arguments for `scale` in float32, some of them replaced."""
    right = {
        "x": np.zeros((2, 3), np.float32),
        "y": np.zeros((2, 3), np.float32),
        "shape": SHAPE,
        "factor": 2,
        "total": 6,
        "flags": None,
        "flip": True,
    }
    return tuple({**right, **replaced}.values())


def launch(fake, values, *, templates=(FLOAT, 3, False, INT), grid=1, **options):
    Kernel("any.cu", "scale", **options)(fake, templates, grid, *values)
    return fake.launched[-1]


# What a right call passes on ----------------------------------------------------------------------------------------


def test_arguments_get_the_exact_types_of_the_parameters(fake):
    function, grid, block, values, shared = launch(fake, args())
    assert (function, grid, block, shared) == ("scale<float, 3, false, int>", (1, 1, 1), (256, 1, 1), 0)
    assert [type(value) for value in values] == [
        *(np.ndarray, np.ndarray, np.void, np.float32, np.int32, type(None), np.bool_)
    ]


@pytest.mark.parametrize(
    ("templates", "expression", "factor", "total"),
    [
        ((*dtypes("float64"), 2, True, *dtypes("int64")), "scale<double, 2, true, long long>", "float64", "int64"),
        ((*dtypes("float16"), 0, False, *dtypes("int32")), "scale<half16, 0, false, int>", "float32", "int32"),
    ],
    ids=["double", "half"],
)
def test_types_follow_the_template_arguments(templates, expression, factor, total, fake):
    x = np.zeros(6, templates[0])
    function, _, _, values, _ = launch(fake, args(x=x, y=x.copy()), templates=templates)
    assert function == expression
    assert (values[3].dtype, values[4].dtype) == (factor, total)


def test_struct_is_laid_out_as_c_does(fake):
    packed = launch(fake, args())[3][2]
    assert packed.dtype.itemsize == 32
    assert {name: packed.dtype.fields[name][1] for name in packed.dtype.names} == {
        "N": 0,
        "C": 4,
        "steps": 8,
        "eps": 24,
    }
    assert [packed[name].tolist() for name in packed.dtype.names] == list(SHAPE.values())


def test_struct_can_be_packed_once_for_many_calls(fake):
    packed = Kernel("any.cu", "scale").pack("shape", SHAPE)
    assert launch(fake, args(shape=packed))[3][2] is packed
    with pytest.raises(SizeLimitError, match=r"^scale: argument shape\.N must be from"):
        Kernel("any.cu", "scale").pack("shape", {**SHAPE, "N": 2**31})
    with pytest.raises(ArgTypeError, match="shape must be a mapping of N, C, steps, eps"):
        launch(fake, args(shape=np.zeros((), "i4,i4")[()]))


def test_each_set_of_types_is_compiled_once_per_device(fake):
    scale, other = Kernel("any.cu", "scale"), FakeDevice()
    for device in (fake, fake, other):
        scale(device, (FLOAT, 3, False, INT), 1, *args())
    scale(fake, (FLOAT, 5, False, INT), 1, *args())
    assert fake.compiled == [
        ("any.cu", ("scale<float, 3, false, int>",)),
        ("any.cu", ("scale<float, 5, false, int>",)),
    ]
    assert len(other.compiled) == 1


def test_kernels_register_themselves():
    plain = Kernel("any.cu", "plain", block=64)
    assert Kernel.all == {"plain": plain}
    assert repr(plain) == "Kernel('any.cu', 'plain', block=(64, 1, 1))"


def test_kernel_without_templates(fake):
    Kernel("any.cu", "plain", block=(8, 4))(fake, (), (2, 3), np.zeros(1, np.float32), 2**40, shared=512)
    function, grid, block, values, shared = fake.launched[0]
    assert (function, grid, block, shared) == ("plain", (2, 3, 1), (8, 4, 1), 512)
    assert values[1] == np.int64(2**40)


@pytest.mark.parametrize("blocks", [1, 7, 128])
def test_cover_is_one_thread_an_element_up_to_a_full_device(blocks, fake):
    assert cover(fake, blocks * 256) == blocks
    assert cover(fake, blocks * 256 - 255) == blocks
    assert cover(fake, 2**40) == 4 * 32
    assert cover(fake, 0) == 0


# Traps, one by one --------------------------------------------------------------------------------------------------

COLUMNS = np.zeros((3, 2), np.float32).T
WRONG = {
    "too_few": (args()[:-1], ArgTypeError, "takes 7 arguments (x, y, shape, factor, total, flags, flip), got 6"),
    "too_many": ((*args(), 1), ArgTypeError, "got 8"),
    "wrong_float": (args(x=np.zeros(6)), DTypeError, "argument x must be float32, got float64"),
    "wrong_integer": (args(flags=np.zeros(6, np.int8)), DTypeError, "argument flags must be uint8, got int8"),
    "other_byte_order": (args(x=np.zeros(6, ">f4")), DTypeError, "argument x must be float32, got >f4"),
    "strided": (args(x=COLUMNS), ArgTypeError, "argument x must be C-contiguous, got shape (2, 3) with strides (4, 8)"),
    "number_for_an_array": (args(y=1.0), ArgTypeError, "argument y must be an array or None, got builtins.float"),
    "scalar_for_an_array": (args(y=np.float32(1)), ArgTypeError, "argument y must be an array or None"),
    "list_for_an_array": (args(y=[1.0]), ArgTypeError, "argument y must be an array or None, got builtins.list"),
    "float_for_an_int": (args(total=6.0), ArgTypeError, "argument total must be an int, got 6.0"),
    "bool_for_an_int": (args(total=True), ArgTypeError, "argument total must be an int, got True"),
    "array_for_an_int": (args(total=np.zeros(1)), ArgTypeError, "argument total must be an int"),
    "int_for_a_bool": (args(flip=1), ArgTypeError, "argument flip must be True or False, got 1"),
    "text_for_a_float": (args(factor="2"), ArgTypeError, "argument factor must be a number, got '2'"),
    "bool_for_a_float": (args(factor=True), ArgTypeError, "argument factor must be a number, got True"),
    "int_beyond_32_bits": (args(total=2**31), SizeLimitError, "argument total must be from -2147483648 to 2147483647"),
    "int_below_32_bits": (args(total=-(2**31) - 1), SizeLimitError, "(int32), got -2147483649"),
    "float_beyond_32_bits": (args(factor=1e39), SizeLimitError, "argument factor must be at most 3.40282e+38"),
    "struct_without_a_field": (
        args(shape={"N": 2}),
        ArgTypeError,
        "shape must be a mapping of N, C, steps, eps, got N",
    ),
    "struct_with_another": (args(shape={**SHAPE, "K": 1}), ArgTypeError, "got N, C, steps, eps, K"),
    "tuple_for_a_struct": (args(shape=(2, 3)), ArgTypeError, "got (2, 3)"),
    "field_out_of_range": (args(shape={**SHAPE, "C": 2**31}), SizeLimitError, "argument shape.C must be from"),
    "field_of_another_kind": (args(shape={**SHAPE, "N": 2.0}), ArgTypeError, "argument shape.N must be an int"),
    "too_many_entries": (args(shape={**SHAPE, "steps": [1, 2, 3]}), ArgTypeError, "steps has 2 entries, got 3"),
}


@pytest.mark.parametrize(("values", "error", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_argument_is_named_and_nothing_is_launched(values, error, message, fake):
    with pytest.raises(error, match=f"^scale.*{re.escape(message)}"):
        launch(fake, values)
    assert not fake.launched


@pytest.mark.parametrize(("values", "error", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_was_right_before_lets_nothing_wrong_through(values, error, message, fake):
    """Numbers are kept from call to call, and True, 1 and 1.0 are one key of a dictionary."""
    kernel, templates = Kernel("any.cu", "scale"), (FLOAT, 3, False, INT)
    for total in (1, 2, 6):
        kernel(fake, templates, 1, *args(total=total, factor=total, shape={**SHAPE, "N": total}))
    count = len(fake.launched)
    with pytest.raises(error, match=f"^scale.*{re.escape(message)}"):
        kernel(fake, templates, 1, *values)
    assert len(fake.launched) == count


def test_a_struct_of_whole_numbers_is_kept_for_those_numbers_alone(fake):
    kernel = Kernel("any.cu", "count")
    for C in (0, 1, 2, 0):
        kernel(fake, (), 1, {"N": 1, "C": C})
    assert [tuple(values[0]) for *_, values, _ in fake.launched] == [(1, 0), (1, 1), (1, 2), (1, 0)]
    kernel(fake, (), 1, {"C": 1, "N": 0})  # the order of names is the caller's
    assert tuple(fake.launched[-1][3][0]) == (0, 1)
    for wrong in ({"N": True, "C": 0}, {"N": 1.0, "C": 0}):
        with pytest.raises(ArgTypeError, match=r"^count: argument pair\.N must be an int"):
            kernel(fake, (), 1, wrong)


def test_numbers_that_are_kept_have_an_end(fake, monkeypatch):
    monkeypatch.setattr(kernel_module, "_KEPT", 2)
    kernel = Kernel("any.cu", "count_to")
    for number in (*range(-1, 5), *range(5)):
        kernel(fake, (), 1, number)
        assert fake.launched[-1][3] == (np.int32(number),)
        assert type(fake.launched[-1][3][0]) is np.int32


def test_a_struct_that_another_kernel_packed_is_taken_only_if_it_is_the_same(fake):
    kernel = Kernel("any.cu", "count")
    same, other = np.dtype([("N", "i4"), ("C", "i4")], align=True), np.dtype([("N", "i4"), ("K", "i4")], align=True)
    for _ in range(2):
        kernel(fake, (), 1, np.zeros((), same)[()])
        with pytest.raises(ArgTypeError, match="must be a mapping of N, C"):
            kernel(fake, (), 1, np.zeros((), other)[()])


def test_numbers_at_the_end_of_their_range_pass(fake):
    for total in (2**31 - 1, -(2**31), np.int64(5), np.uint8(5)):
        assert launch(fake, args(total=total))[3][4] == total
    for factor in (3.4028e38, float("inf"), -float("inf"), np.float64(0.5)):
        assert launch(fake, args(factor=factor))[3][3] == np.float32(factor)
    assert np.isnan(launch(fake, args(factor=float("nan")))[3][3])


def test_array_of_another_device(fake, monkeypatch):
    monkeypatch.setattr(fake, "holds", lambda array: array.ndim == 1)
    with pytest.raises(DeviceMismatchError, match=r"scale: argument x must be an array on fake, got numpy.ndarray"):
        launch(fake, args())


def test_strides_pass_where_the_kernel_is_told_of_them(fake):
    assert launch(fake, args(x=COLUMNS), strided=("x",))[3][0] is COLUMNS
    with pytest.raises(ArgTypeError, match="argument y must be C-contiguous"):
        launch(fake, args(y=COLUMNS), strided=("x",))


@pytest.mark.parametrize("grid", [0, (0, 1), (5, 0), (1, 1, 0)], ids=str)
def test_no_blocks_are_no_launch(grid, fake):
    """CuPy would launch one block."""
    Kernel("any.cu", "scale")(fake, (FLOAT, 3, False, INT), grid, *args())
    assert not fake.compiled
    assert not fake.launched


@pytest.mark.parametrize("grid", [2**31, (1, 65_536), (1, 1, 65_536), -1, (1, -1)], ids=str)
def test_grid_beyond_what_cuda_counts(grid, fake):
    with pytest.raises(SizeLimitError, match="scale: a grid has at most"):
        launch(fake, args(), grid=grid)
    assert not fake.launched


def test_largest_grid_passes(fake):
    assert launch(fake, args(), grid=(2**31 - 1, 65_535, 65_535))[1] == (2**31 - 1, 65_535, 65_535)


@pytest.mark.parametrize("block", [1025, (32, 33), 0, (1, 1, 65), (1, 2048)], ids=str)
def test_block_beyond_what_cuda_takes(block):
    with pytest.raises(SizeLimitError, match="scale: a block has at most 1024 threads"):
        Kernel("any.cu", "scale", block=block)


WRONG_TEMPLATES = {
    "too_few": ((FLOAT, 3, False), ArgTypeError, r"takes 4 template arguments \(T, R, RELU, Index\), got 3"),
    "name_of_a_dtype": (("float32", 3, False, INT), DTypeError, "template argument T must be a dtype"),
    "dtype_of_no_kernel": ((np.dtype("complex64"), 3, False, INT), DTypeError, "template argument T must be a dtype"),
    "float_for_an_int": ((FLOAT, 3.0, False, INT), ArgTypeError, "template argument R must be an int, got 3.0"),
    "int_for_a_bool": ((FLOAT, 3, 0, INT), ArgTypeError, "template argument RELU must be True or False, got 0"),
}


@pytest.mark.parametrize(("templates", "error", "message"), WRONG_TEMPLATES.values(), ids=WRONG_TEMPLATES.keys())
def test_wrong_template_argument_is_named(templates, error, message, fake):
    with pytest.raises(error, match=f"scale.*{message}"):
        launch(fake, args(), templates=templates)
    assert not fake.compiled


@pytest.mark.parametrize(("name", "count"), [("absent", 0), ("twice", 2)])
def test_source_must_define_the_kernel_once(name, count, fake):
    with pytest.raises(ArgTypeError, match=rf"kernels/any.cu must define the kernel {name} once, found {count}"):
        Kernel("any.cu", name)(fake, (FLOAT,), 1, np.zeros(1, np.float32))


def test_parameter_type_that_launches_do_not_know(fake):
    with pytest.raises(ArgTypeError, match="unknown: argument n has the type size_t"):
        Kernel("any.cu", "unknown")(fake, (), 1, 1)


# Failures on the device ---------------------------------------------------------------------------------------------


def test_compiler_s_message_names_the_kernel(fake):
    fake.fails["compile"] = ValueError("line 7: expected a ;")
    wanted = r"scale<float, 3, false, int> of kernels/any.cu does not compile for fake: line 7"
    with pytest.raises(GpuLaunchError, match=wanted) as raised:
        launch(fake, args())
    assert raised.value.__cause__ is fake.fails["compile"]


def test_failed_launch_shows_its_arguments(fake):
    fake.fails["launch"] = ValueError("out of resources")
    with pytest.raises(GpuLaunchError) as raised:
        launch(fake, args())
    for part in (
        "scale<float32, 3, False, int32> on fake failed: out of resources",
        "grid (1, 1, 1), block (256, 1, 1)",
    ):
        assert part in str(raised.value)
    assert "x: float32 (2, 3)" in str(raised.value)
    assert "total: 6" in str(raised.value)


def test_the_bench_of_launches_shows_each_beside_a_plain_call(monkeypatch, capsys):
    monkeypatch.undo()  # it launches kernels that there are
    monkeypatch.setattr(launch_cost, "_REPEATS", 1)
    launch_cost.show(launch_cost.NoDevice(), launch_cost.no_memory)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(re.search(r"^\w+: .*: [\d.]+ us, [\d.]+ plain calls of [\d.]+ us$", line) for line in lines)


def test_debug_mode_waits_and_names_what_failed_while_running(fake, monkeypatch):
    fake.fails["run"] = ValueError("an illegal memory access")
    launch(fake, args())
    assert fake.waits == 0
    monkeypatch.setenv("GPUCONV_DEBUG", "1")
    with pytest.raises(GpuLaunchError, match=r"scale<.* failed: an illegal memory access"):
        launch(fake, args())
    assert fake.waits == 1
