"""Choose an implementation from the arrays of a call, and the place where new arrays are made.

A backend is a package that defines every operator under the same name and signature.  It is imported when the first
of its arrays arrives, so a machine without CuPy never tries to import it.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from .errors import ArgTypeError, ConfigError, DeviceMismatchError
from .foreign import class_in_words, way_out
from .placed import Number

Function = TypeVar("Function", bound=Callable)

# One line per backend: the library an array comes from, and the package that computes on it.
_PACKAGE_OF = {"NumPy": "gpuconv.cpu", "CuPy": "gpuconv.cuda"}

# Array classes taken as they are.  Other subclasses (matrix, masked arrays, ...) carry meaning that would be lost.
_LIBRARY_OF = {
    ("numpy", "ndarray"): "NumPy",
    ("numpy", "memmap"): "NumPy",
    ("cupy", "ndarray"): "CuPy",
}


def register_array(module: str, qualname: str, library: str) -> None:
    """Take arrays of a class, named by its top-level module, for those of a library: "NumPy" or "CuPy".

    For tests, whose stand-in for GPU arrays runs the CUDA backend without a GPU.
    """
    _LIBRARY_OF[module, qualname] = library


def _library(cls: type) -> str | None:
    """Return the library whose plain array class this is, or None."""
    return _LIBRARY_OF.get((cls.__module__.partition(".")[0], cls.__qualname__))


@functools.cache
def _load(package: str) -> ModuleType:
    return importlib.import_module(package)


def backend_of(**arrays: Any) -> ModuleType:
    """Return the backend package shared by all arrays, given by argument name; None is an absent optional array."""
    first = library = gpu = None
    for name, array in arrays.items():
        if array is None:
            continue
        here = _library(type(array))
        if here is None:
            kind, way = class_in_words(array), way_out(name, array, gpu=True)
            msg = f"{name} must be a NumPy or CuPy array, got {kind}{way}"
            raise ArgTypeError(msg)
        if library is None:
            first, library, gpu = name, here, getattr(array, "device", None)
        elif here != library:
            msg = f"{first} is a {library} array but {name} is a {here} array: move one of them first"
            raise DeviceMismatchError(msg)
        elif here == "CuPy" and (there := getattr(array, "device", None)) != gpu:
            msg = f"{first} is on {gpu} but {name} is on {there}: move one of them first"
            raise DeviceMismatchError(msg)
    if library is None:
        msg = f"expected at least one array among {', '.join(arrays)}, got None"
        raise ArgTypeError(msg)
    return _load(_PACKAGE_OF[library])


_chosen: str | None = None


def use(device: str) -> None:
    """Choose where nets and data are created from now on: "cpu", "cuda" or "auto" (the GPU if there is one).

    Operators take no notice: the arrays they are given decide where they run.
    Raises ConfigError for another name, GpuUnavailableError for "cuda" where it cannot be used.

    >>> gpuconv.use("cpu")
    >>> gpuconv.default_device()
    'cpu'
    >>> gpuconv.nn.ConvNet(8).device
    'cpu'
    """
    global _chosen  # noqa: PLW0603 - the one piece of state that `use` exists to set
    _chosen = resolve_device(device)


@contextmanager
def using(device: str) -> Iterator[None]:
    """Create nets and data on a device inside a with block: "cpu", "cuda", or "auto" for what is chosen already."""
    global _chosen  # noqa: PLW0603 - put back at the end
    before = _chosen
    _chosen = default_device() if device == "auto" else resolve_device(device)
    try:
        yield
    finally:
        _chosen = before


def default_device() -> str:
    """Return "cpu" or "cuda": what `use` chose, else the environment variable GPUCONV_DEVICE, else "auto".

    >>> gpuconv.use("cpu")
    >>> gpuconv.default_device()
    'cpu'
    """
    return _chosen or resolve_device(os.environ.get("GPUCONV_DEVICE", "auto"))


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "cpu", "cuda" or "auto"; raise the error that says why not."""
    if device == "cpu":
        return "cpu"
    if device in ("auto", "cuda"):
        status = _gpu()
        if device == "cuda":
            status.require_gpu()
        return "cuda" if status.gpu_status()[0] else "cpu"
    msg = f'device must be "auto", "cpu" or "cuda", got {device!r}'
    raise ConfigError(msg)


# Arrays between the host and the place of nets and data ----------------------------------------------------------------


def zeros(shape: tuple[int, ...], dtype: Any, *, beside: Any = None) -> Any:
    """Return zeros where nets and data are created, or where the array `beside` is."""
    if beside is None:
        return np.zeros(shape, dtype) if default_device() == "cpu" else _gpu().current().zeros(shape, dtype)
    return _gpu().device_of(beside).zeros(shape, dtype) if on_gpu(beside) else np.zeros(shape, dtype)


def zeros_like(array: Any) -> Any:
    """Return zeros of an array's shape and dtype, in its place."""
    return _gpu().device_of(array).zeros(tuple(array.shape), array.dtype) if on_gpu(array) else np.zeros_like(array)


def asarray(host: Any, *, beside: Any = None) -> Any:
    """Return a host array where nets and data are created, or where the array `beside` is: a copy, but on the CPU itself."""
    if beside is None:
        return host if default_device() == "cpu" else _gpu().current().asarray(host)
    return _gpu().device_of(beside).asarray(host) if on_gpu(beside) else host


def asnumpy(array: Any) -> Any:
    """Return an array on the host: a copy, for which the GPU is waited for; on the CPU itself."""
    return _gpu().device_of(array).asnumpy(array) if on_gpu(array) else array


def free_memory() -> int:
    """Give the memory that the CPU backend keeps for coming results back to the system; return how many bytes.

    The scratch memory of its threads, a few megabytes each, stays.

    At most GPUCONV_KEEP_MB megabytes (1024) are kept, and only ever what arrays in use have needed before.  Memory on
    a GPU is CuPy's: cupy.get_default_memory_pool().free_all_blocks().

    >>> y, cache = gpuconv.relu_forward(np.ones((4, 64, 64, 64), np.float32))
    >>> del y, cache
    >>> freed = gpuconv.free_memory()
    >>> gpuconv.free_memory()
    0
    """
    return _load("gpuconv.cpu.memory").free_memory()


def threads() -> int:
    """Return how many threads of the CPU work at once: GPUCONV_THREADS, else the cores this process may use."""
    count: int = _load("gpuconv.cpu.parallel").threads()
    return count


def share_cores(processes: int) -> None:
    """Let the CPU backend take one of so many equal shares of the cores that this process may use."""
    _load("gpuconv.cpu.parallel").share_cores(processes)


def loops_in_words() -> str:
    """Return what passes over NumPy arrays of float32 run as.

    "NumPy alone", or "compiled loops, numba 0.68.1, 256-bit vectors".
    """
    words: str = _load("gpuconv.cpu.compiled").in_words()
    return words


def quiet(function: Function) -> Function:
    """Compute as IEEE says where a function does arithmetic of NumPy's own: without warnings of NaN and infinities."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return _load("gpuconv.cpu.parallel").quiet(function)(*args, **kwargs)

    return run  # type: ignore[return-value]


def add(a: Any, b: Any) -> Any:
    """Return a + b, two arrays of one shape and dtype, as a new one."""
    return (_cuda("arithmetic") if on_gpu(a) else _load("gpuconv.cpu.copies")).add(a, b)


def multiple(array: Any, factor: float) -> Any:
    """Return factor array as a new one."""
    return _cuda("arithmetic").multiple(array, factor) if on_gpu(array) else array * factor


def cast(array: Any, dtype: Any, factor: float | Number = 1.0) -> Any:
    """Return factor array in another dtype, rounded once, as a new one; on a GPU the factor may come by its place."""
    return (_cuda("arithmetic") if on_gpu(array) else _load("gpuconv.cpu.copies")).cast(array, dtype, factor)


def cast_into(source: Any, target: Any) -> None:
    """Fill target with what an array of its shape and of another dtype, in its place, holds; both without gaps."""
    (_cuda("arithmetic").cast_into if on_gpu(target) else _load("gpuconv.cpu.copies").copy)(source, target)


def scale(array: Any, factor: float | Number) -> None:
    """Multiply a flat vector by a factor, in place; on a GPU it may come by its place."""
    (_cuda("arithmetic") if on_gpu(array) else _load("gpuconv.cpu.copies")).scale(array, factor)


def copy(source: Any, target: Any) -> None:
    """Fill target, on a GPU one without gaps, with what an array of its shape and dtype, in its place, holds."""
    if on_gpu(target):
        _cuda("copy").copy_into(target, source)
    else:
        _load("gpuconv.cpu.copies").copy(source, target)


def fill(targets: Iterable[Any], sources: Iterable[Any]) -> None:
    """Copy each source into its target; None where there is none."""
    for target, source in zip(targets, sources, strict=True):
        if source is not None:
            copy(source, target)


def in_format(images: Any, *, channels_last: bool) -> Any:
    """Return a copy of images (N, C, H, W) in a memory format."""
    place = _cuda("layout") if on_gpu(images) else _load("gpuconv.cpu.copies")
    return place.in_format(images, channels_last=channels_last)


def filter_banks(banks: list[tuple[int, int, int]], like: Any) -> Any:
    """Return what takes Muon's steps on banks of filters on a GPU, (start, rows, columns) of each in a flat vector.

    None where `like`, one of a net's flat vectors, is on the CPU, or where there are no banks.
    """
    return _cuda("muon").Banks(banks, like) if banks and on_gpu(like) else None


def turned_filters(flat: Any, shapes: dict[int, tuple[int, ...]]) -> Any:
    """Return the filters of a flat vector in the order in which its GPU reads them, a gpuconv.cuda.turned.Turned.

    shapes: of arrays in the vector, by their starts.   None on the CPU, and where the GPU reads none in another order.
    """
    return _cuda("turned").turned(flat, shapes) if on_gpu(flat) else None


def on_gpu(array: Any) -> bool:
    """Return whether this is an array on a GPU."""
    return _library(type(array)) == "CuPy"


def capability_of(array: Any) -> tuple[str, int] | None:
    """Return the name of an array's GPU and its compute capability without the dot, 90 for 9.0; None on the CPU."""
    if not on_gpu(array):
        return None
    device = _gpu().device_of(array)
    return device.name, device.arch


def all_finite(array: Any) -> bool:
    """Return whether no element is NaN or infinite; waits for the GPU."""
    return _reduce(array).all_finite(array)


def square_sum(array: Any) -> float:
    """Return the sum of the squares of all elements, added up in float64 on the host; waits for the GPU."""
    total: float = _load("gpuconv.cpu.reduce").square_sum(asnumpy(array))
    return total


def step_numbers(beside: Any, **sizes: Any) -> Any:
    """Return the numbers of a run's step, a gpuconv.cuda.StepNumbers, on the GPU of an array."""
    return _load("gpuconv.cuda.step").StepNumbers(beside, **sizes)


def record(work: Callable[[], Any], beside: Any) -> Any:
    """Return work recorded on the GPU of an array, a gpuconv.cuda.recording.Recording, done at each of its replays."""
    return _gpu().device_of(beside).record(work)


def nccl_missing() -> str:
    """Return why arrays on a GPU cannot go to other processes by NCCL; empty where they can."""
    missing: str = _cuda("nccl").missing()
    return missing


def nccl_name() -> Any:
    """Return the name by which processes find each other by NCCL, made by the first of them."""
    return _cuda("nccl").unique_id()


def nccl(rank: int, ranks: int, name: Any, beside: Any) -> Any:
    """Return the GPU of an array among those of other processes, a gpuconv.cuda.nccl.Nccl."""
    return _cuda("nccl").Nccl(rank, ranks, name, beside)


def choose_gpu(number: int) -> tuple[str, int]:
    """Create nets and data on a GPU by its number from now on; return its address, and how many GPUs there are."""
    found: tuple[str, int] = _cuda("nccl").choose(number)
    return found


def _reduce(array: Any) -> ModuleType:
    return _load(f"{_PACKAGE_OF[_library(type(array)) or 'NumPy']}.reduce")


def gpu_name() -> str | None:
    """Return the name of the GPU where nets and data are created, None on the CPU."""
    return None if default_device() == "cpu" else _gpu().current().name


def cuda_in_words() -> str:
    """Return whether CUDA can be used here, or why not; if so far only the CPU was asked for, it is not looked for."""
    if "gpuconv.cuda.device" not in sys.modules:
        return "not looked for: only the CPU was asked for"
    usable, reason = _gpu().gpu_status()
    return f"device cuda can be used: {reason}" if usable else reason


def gpu_error(error: BaseException) -> Exception | None:
    """Return what gpuconv raises for an error of CuPy's own, as its arithmetic may raise it; None for any other error."""
    return _gpu().told(error) if "cupy" in sys.modules else None


def compute_capability() -> tuple[int, int]:
    """Return that of the GPU where nets and data are created by default, such as (8, 0)."""
    return divmod(_gpu().current().arch, 10)


def gpu_versions() -> dict[str, str]:
    """Return the versions that results on the GPU where nets are created depend on; nothing on the CPU."""
    return {} if default_device() == "cpu" else _load("gpuconv.cuda.installed").versions()


def _gpu() -> ModuleType:
    return _load("gpuconv.cuda.device")


def _cuda(module: str) -> ModuleType:
    return _load(f"gpuconv.cuda.{module}")
