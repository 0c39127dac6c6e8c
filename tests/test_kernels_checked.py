"""Every operator's launchers on small odd shapes in the emulator's check mode, in two orders of threads.

Check mode sees each access out of bounds, race, divergence, uninitialised read and misaligned access; the results are
held to the CPU backend in float64.  The first run builds the kernels, which takes a minute; they are kept.
"""

import functools

import numpy as np
import pytest
from emulate import EmulationError
from places import Cpu, Emulated

from gpuconv.cuda import kernel
from gpuconv.cuda.kernel import Kernel
from gpuconv.errors import GpuLaunchError
from tests.ladder import hopper_calls
from tests.ladder.kernel_calls import (
    CALLS,
    DTYPES,
    FORMATS,
    GroupedDevice,
    Scaled,
    assert_as_expected,
    emulated_on,
    launched,
    random_call,
)

pytestmark = pytest.mark.compilers

# Thread order and the most blocks of a loop over elements: as a large device would run it, and one block round and
# round with its threads one after another.
WAYS = {"threads_in_step": ("forward", None), "threads_one_by_one": ("depth-reverse", 1)}


@functools.cache
def _device(name, dtype, order, *, quick):
    calls = [call for call in CALLS.values() if call.quick or not quick]
    return GroupedDevice(name, launched(calls, (dtype,)).values(), order=order, timeout=60)


@functools.cache
def _hopper(name, order):
    kernels = launched(list(hopper_calls.CALLS.values()), ("float16",)).values()
    return GroupedDevice(name, kernels, order=order, arch=90, timeout=60)


def _check(call, mode, way, dtype, memory, *, quick):
    order, blocks = WAYS[way]
    with emulated_on(_device(mode, dtype, order, quick=quick), blocks=blocks) as place:
        assert_as_expected(call.on(place, dtype, memory), call.expected(dtype, memory))


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", [call for call in CALLS.values() if call.quick], ids=lambda call: call.name)
def test_float32(call, way, memory):
    _check(call, "emulated-check", way, "float32", memory, quick=True)


@pytest.mark.parametrize(("way", "memory"), [("threads_in_step", "NHWC"), ("threads_one_by_one", "NCHW")])
@pytest.mark.parametrize(
    ("call", "dtype"),
    [
        pytest.param(call, dtype, id=f"{call.name}-{dtype}")
        for call in CALLS.values()
        if call.name.startswith("conv_tensor")
        for dtype in call.dtypes
    ],
)
def test_tensor_cores(call, dtype, way, memory):
    _check(call, "emulated-check", way, dtype, memory, quick=False)


@pytest.mark.long
@pytest.mark.parametrize(("way", "memory"), [("threads_in_step", "NHWC"), ("threads_one_by_one", "NCHW")])
@pytest.mark.parametrize("call", hopper_calls.CALLS.values(), ids=lambda call: call.name)
def test_hopper_s_own_instructions(call, way, memory):
    memory = memory if memory in call.formats else call.formats[0]
    order, blocks = WAYS[way]
    with emulated_on(_hopper("emulated-check", order), blocks=blocks) as place:
        assert_as_expected(call.on(place, "float16", memory), call.expected("float16", memory))


@pytest.mark.ladder
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("call", "dtype"),
    [pytest.param(call, dtype, id=f"{call.name}-{dtype}") for call in CALLS.values() for dtype in call.dtypes],
)
def test_all(call, dtype, way, memory):
    _check(call, "emulated-check", way, dtype, memory, quick=False)


@functools.cache
def _call_of():
    """Return a call, dtype and memory format that launch each kernel: as few as are found one after another."""
    launches = {
        (name, dtype, memory): {one.kernel.name for one in launched([call], (dtype,), (memory,)).values()}
        for dtype in ("float32", "float16")
        for name, call in CALLS.items()
        for memory in FORMATS
    }
    missing, chosen = {name for name, one in Kernel.all.items() if one.target is None}, {}
    while missing:
        best = max(launches, key=lambda key: len(launches[key] & missing))
        new = launches[best] & missing
        if not new:
            break
        chosen.update(dict.fromkeys(new, best))
        missing -= new
    return chosen


@functools.cache
def _by_way_of_ptx(name, dtype, memory):
    """Return what running a call raised, if anything: several kernels share a call."""
    call = CALLS[name]
    device = GroupedDevice("emulated-ptx-check", launched([call], (dtype,), (memory,)).values(), timeout=60)
    try:
        with emulated_on(device) as place:
            assert_as_expected(call.on(place, dtype, memory), call.expected(dtype, memory))
    except (AssertionError, GpuLaunchError) as error:
        return error
    return None


@pytest.mark.parametrize("name", sorted(name for name, one in Kernel.all.items() if one.target is None))
def test_every_kernel_by_way_of_ptx(name):
    """What NVRTC made of the kernel, not what g++ makes of it; that knows nothing of Hopper's own instructions."""
    error = _by_way_of_ptx(*_call_of()[name])
    if error is not None:
        raise error


def test_a_wrong_index_is_seen(monkeypatch):
    """The check checks: one element too far, and the launch says where."""
    source = kernel.source
    monkeypatch.setattr(kernel, "source", lambda file: source(file).replace("out[i] = in", "out[i + 1] = in"))
    call = CALLS["copy_of_strided_rows"]
    device = GroupedDevice("emulated-check", ())
    with emulated_on(device) as place, pytest.raises(Exception, match=r"copy\.cu:\d+") as caught:
        call.on(place, "float32", "NCHW")
    assert isinstance(caught.value.__cause__, EmulationError)


def test_a_wrong_number_is_seen():
    right = np.array([1.0, np.nan, 3.0], np.float32)
    assert_as_expected([right], [right.astype(np.float64)])
    for wrong in ([1.0, 2.0, 3.0], [1.0, np.nan, 3.001], [1.0, np.nan]):
        with pytest.raises(AssertionError):
            assert_as_expected([np.array(wrong, np.float32)], [right.astype(np.float64)])


def test_a_wrong_number_beside_its_scale_is_seen():
    """Where terms cancel, the error allowed is a share of the terms, not of what is left of them."""
    expected = [Scaled(np.array([1e-9, 2.0]), np.array([1.0, 2.0]))]
    assert_as_expected([np.array([3e-7, 2.0], np.float32)], expected)
    for wrong in ([1e-6, 2.0], [0.0, 2.000003], [np.nan, 2.0], [0.0]):
        with pytest.raises(AssertionError, match="result 0"):
            assert_as_expected([np.array(wrong, np.float32)], expected)


# Random calls whose results cancel: norms with few values in a group, gradients that are 0 but for eps.
CANCELLING = (387, 391, 668, 874, 1323, 1366, 1551)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", [*range(40), *CANCELLING])
def test_random_calls_on_the_cpu(seed, dtype):
    call, _, memory = random_call(seed)
    assert_as_expected(call.on(Cpu, dtype, memory), call.expected(dtype, memory))


@pytest.mark.parametrize("seed", CANCELLING)
def test_random_calls_that_cancel(seed):
    call, dtype, memory = random_call(seed)
    assert_as_expected(call.on(Emulated, dtype, memory), call.expected(dtype, memory))
    assert_as_expected(call.on(Emulated, dtype, memory), call.by_oracle(dtype, memory))
