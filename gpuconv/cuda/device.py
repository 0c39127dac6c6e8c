"""Where kernels run: the few things that launchers need of a device, and CuPy's GPUs behind them.

CuPy is imported here and nowhere else, at the first use of a GPU.  Tests register a device of their own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .. import checks
from ..errors import ArgTypeError, GpuFaultError, GpuLaunchError, GpuUnavailableError, RecordingError
from .installed import gpu_status
from .products import Products
from .recording import CupyRecording, Recording, active, forbid
from .tensor_map import Form, Maps, TensorMap


class Device(Protocol):
    """What launchers and `Kernel` use of a place that runs kernels."""

    name: str  # as messages show it
    arch: int  # compute capability without the dot: 90
    sm_count: int  # multiprocessors

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an uninitialised C-contiguous array."""

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return a C-contiguous array of zeros."""

    def asarray(self, host: np.ndarray) -> Any:
        """Return a NumPy array's copy on the device."""

    def asnumpy(self, array: Any) -> np.ndarray:
        """Return a device array's copy on the host; the only function here that waits for the device."""

    def compile(self, text: str, file: str, expressions: tuple[str, ...], options: tuple[str, ...]) -> dict[str, Any]:
        """Compile CUDA C++, the spliced source of kernels/<file>; return the function of each expression.

        An expression names a kernel with its template arguments: "conv_forward_direct<float, true, int>".
        """

    def tensor_map(self, array: Any, form: Form) -> Any:
        """Return how a kernel's bulk copies find boxes of such a form in a C-contiguous array: `array` of it is that.

        Raises GpuLaunchError where the driver makes no such map.
        """

    def launch(
        self, function: Any, grid: tuple[int, int, int], block: tuple[int, int, int], args: tuple[Any, ...], shared: int
    ) -> None:
        """Start a kernel with `shared` bytes of dynamic shared memory.

        An argument is an array, of which the kernel gets the address of the first element, whatever its strides;
        None, a null pointer; a NumPy scalar, np.void for a struct, passed by value; or what tensor_map returned.
        """

    def matmul(self, a: Any, b: Any, out: Any, *, tf32: bool = False) -> None:
        """Write the product of two matrices, C-contiguous or transposed, float32 or float64, into a C-contiguous one.

        float32 is IEEE float32, with sums in float32; with tf32 its factors may be rounded to TF32.
        """

    def synchronize(self) -> None:
        """Wait until everything launched so far is done; raise what went wrong."""

    def holds(self, array: Any) -> bool:
        """True if this is where the array lives."""

    def is_aligned(self, array: Any, size: int) -> bool:
        """True if the array begins at a multiple of `size` bytes, a power of 2 up to 256: as new arrays do."""

    def record(self, work: Callable[[], Any]) -> Recording:
        """Call work() once and note what it would do here, launches, products and memory sets, without doing it.

        New arrays of the work lie in memory of the recording's own, and hold nothing before the first replay.  Arrays
        from elsewhere must live as long as it does.  Do the work once before: the first launch of a kernel compiles it.
        Raises RecordingError, naming what it is, for what cannot be recorded: a wait, a copy from or to the host, a
        first launch, GPUCONV_DEBUG=1, a recording within a recording.  Then, and where work raises an error, nothing
        is left of the recording.
        """


class CupyDevice:
    """One GPU, by CuPy: its arrays, its current stream; nothing waits but asnumpy and synchronize."""

    def __init__(self, index: int) -> None:
        import cupy

        self._cupy, self._index, self._current = cupy, index, cupy.cuda.runtime.getDevice
        gpu = cupy.cuda.Device(index)
        model = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
        self.name = f"cuda:{index} ({model})"
        self._place = _Place(gpu, self.name)
        self.arch = int(gpu.compute_capability)
        self.sm_count = int(gpu.attributes["MultiProcessorCount"])
        self._products, self._maps = Products(cupy, self.arch), Maps()
        self._granted: dict[Any, int] = {}  # dynamic shared memory by kernel, as far as it has been asked for

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        with self._place:
            return self._cupy.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        with self._place:
            return self._cupy.zeros(shape, dtype)

    def asarray(self, host: np.ndarray) -> Any:
        forbid("a copy from the host", "make it before, and change what is in the array between replays")
        with self._place:
            return self._cupy.array(host)

    def asnumpy(self, array: Any) -> np.ndarray:
        forbid("a copy to the host", "make it after a replay")
        with self._place:
            return self._cupy.asnumpy(array)

    def compile(self, text: str, file: str, expressions: tuple[str, ...], options: tuple[str, ...]) -> dict[str, Any]:
        del file  # #line directives in the text name it
        forbid(f"the first launch of {', '.join(expressions)}, which compiles it,", "do the work once before")
        with self._place:
            module = self._cupy.RawModule(code=text, options=options, name_expressions=expressions)
            return {expression: module.get_function(expression) for expression in expressions}

    def tensor_map(self, array: Any, form: Form) -> TensorMap:
        return self._maps.of(array, form)

    def launch(
        self, function: Any, grid: tuple[int, int, int], block: tuple[int, int, int], args: tuple[Any, ...], shared: int
    ) -> None:
        passed = tuple([_PASSED[type(arg)](arg) if type(arg) in _PASSED else arg for arg in args])
        if (recording := active()) is not None:
            recording.keep(tuple(arg.array if type(arg) is TensorMap else arg for arg in args))
        if shared > self._granted.get(function, 0):
            with self._place:
                if shared + function.shared_size_bytes > _SHARED_BY_DEFAULT:
                    function.max_dynamic_shared_size_bytes = shared
            self._granted[function] = shared
        try:  # to make this GPU the current one takes as long as all else here
            if self._current() == self._index:
                function(grid, block, passed, shared_mem=shared)
                return
        except Exception as error:
            self._place.tell(error)
            raise
        with self._place:
            function(grid, block, passed, shared_mem=shared)

    def matmul(self, a: Any, b: Any, out: Any, *, tf32: bool = False) -> None:
        if (recording := active()) is not None:
            recording.keep((a, b, out))
        with self._place:
            self._products.write(a, b, out, tf32=tf32)

    def synchronize(self) -> None:
        forbid("a wait for the GPU", "wait after a replay")
        with self._place:
            self._cupy.cuda.get_current_stream().synchronize()

    def holds(self, array: Any) -> bool:
        return isinstance(array, self._cupy.ndarray) and array.data.device_id == self._index

    def is_aligned(self, array: Any, size: int) -> bool:
        return bool(array.data.ptr % size == 0)

    def record(self, work: Callable[[], Any]) -> Recording:
        return CupyRecording(self._cupy, self._place, work)


class _Place:
    """A GPU, current in a with block; what CuPy raises there becomes gpuconv's error, with CuPy's for its cause."""

    def __init__(self, gpu: Any, name: str) -> None:
        self._gpu, self._name = gpu, name

    def __enter__(self) -> None:
        try:
            self._gpu.__enter__()
        except Exception as error:
            self.tell(error)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._gpu.__exit__(kind, error, trace)
        except Exception as late:
            self.tell(error or late)
            raise
        self.tell(error)

    def tell(self, error: BaseException | None) -> None:
        """Raise gpuconv's error for one of CuPy's."""
        said = None if error is None else told(error, self._name)
        if said is None:
            return
        try:
            raise said from error
        finally:
            del said, error  # its traceback has this frame: arrays in other frames would live until they are collected


# cudaErrorECCUncorrectable, IllegalAddress, LaunchTimeout, Assert, HardwareStackError, IllegalInstruction,
# MisalignedAddress, InvalidAddressSpace, InvalidPc, LaunchFailure: what goes wrong while a kernel runs.  CUDA tells of
# it at some later call, and refuses all others from then on.
_FAULTS = (214, 700, 702, 710, 714, 715, 716, 717, 718, 719)
# cudaErrorStreamCaptureUnsupported to WrongThread: something that a capture forbids.
_CAPTURE = range(900, 909)
# What CuPy itself raises there, before it asks CUDA.
_OF_CAPTURE = (RuntimeError, NotImplementedError)
_SAYS_CAPTURE = re.compile(r"stream is capturing|stream capture|stream was capturing")
_NOT_CAPTURED = "; no wait, no copy from or to the host and no product of CuPy's own can be captured or recorded"
_NO_MEMORY = {"CUDARuntimeError": 2, "CUDADriverError": 2, "CUBLASError": 3}


def told(error: BaseException, where: str = "the GPU") -> Exception | None:
    """Return what gpuconv raises for an error of CuPy or of CUDA below it; None for any other error.

    CuPy's OutOfMemoryError is a MemoryError and stays what it is; where CUDA itself has no memory left, it becomes one.
    """
    kind, status = type(error), getattr(error, "status", None)
    if kind in _OF_CAPTURE and _SAYS_CAPTURE.search(str(error)):
        return RecordingError(f"{where}: {error}{_NOT_CAPTURED}")
    if kind.__module__.partition(".")[0] not in ("cupy", "cupy_backends") or isinstance(error, MemoryError):
        return None
    if status is not None and status == _NO_MEMORY.get(kind.__name__):
        return MemoryError(f"{where}: {error}")
    if kind.__name__ != "CUBLASError" and status in _CAPTURE:
        return RecordingError(f"{where}: {error}{_NOT_CAPTURED}")
    if kind.__name__ == "CUBLASError":  # it fails after a fault, too, without a word of it
        status, error = _fault(error)
    if status not in _FAULTS:
        return GpuLaunchError(f"{where}: {error}")
    which, how = "an earlier kernel", "; with GPUCONV_DEBUG=1 the launch that fails says so itself"
    if checks.debug():
        which, how = "a kernel", ""
    return GpuFaultError(f"{where}: {which} failed ({error}), and this process can use the GPU no more{how}")


def _fault(error: BaseException) -> tuple[int | None, BaseException]:
    """Return what CUDA says when it is waited for, and its number; if nothing is wrong, the error and no number."""
    import cupy

    try:
        cupy.cuda.runtime.deviceSynchronize()
    except cupy.cuda.runtime.CUDARuntimeError as fault:
        return fault.status, fault
    return None, error


# What CuPy is given for arguments that it does not take: what is passed by value must be a NumPy array of one element.
_PASSED: dict[type, Callable[[Any], Any]] = {
    type(None): lambda arg: np.uint64(0),
    np.void: np.asarray,
    TensorMap: lambda arg: np.asarray(arg.encoded),
}

_SHARED_BY_DEFAULT = 48 * 1024  # bytes of shared memory, static and dynamic, that need no permission

# Array classes of test devices, and how to find the device of such an array.
_REGISTERED: dict[type, Callable[[Any], Device]] = {}


def register(array_class: type, device: Callable[[Any], Device]) -> None:
    """Let arrays of a class run on the device that `device(array)` returns: for tests, beside CuPy's arrays."""
    _REGISTERED[array_class] = device


def device_of(array: Any) -> Device:
    """Return the device an array lives on.

    Raises ArgTypeError for an array of no device, GpuUnavailableError where CuPy's GPUs cannot be used.
    """
    find = _REGISTERED.get(type(array))
    if find is not None:
        return find(array)
    cls = type(array)
    if (cls.__module__.partition(".")[0], cls.__qualname__) != ("cupy", "ndarray"):
        msg = f"expected an array on a GPU, got {cls.__module__}.{cls.__qualname__}"
        raise ArgTypeError(msg)
    require_gpu()
    return gpu(array.device.id)


@functools.cache
def gpu(index: int) -> CupyDevice:
    """Return CuPy's GPU of this number."""
    return CupyDevice(index)


def current() -> Device:
    """Return the GPU on which new arrays are made: CuPy's current one."""
    require_gpu()
    import cupy

    return gpu(cupy.cuda.Device().id)


def require_gpu() -> None:
    """Raise GpuUnavailableError, saying why, where no GPU can be used."""
    usable, reason = gpu_status()
    if not usable:
        msg = f"{reason}; device cpu needs none of this"
        raise GpuUnavailableError(msg)
