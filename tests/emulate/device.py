"""The emulated device: what gpuconv.cuda needs of a GPU, played by the emulator."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from typing import Any

import numpy as np

from .array import EmulatedArray
from .build import DYNAMIC_SHARED
from .cubin import MULTIPROCESSORS
from .emulator import Function, LaunchRecord, Settings, from_ptx, from_source
from .errors import BuildError, EmulationError
from .hopper.tensor_map import TensorMap
from .memory import allocation
from .recording import EmulatedRecording, uninitialised
from .source import host_text
from .thread import active, forbid

# Name of a device -> (route to the CPU, what is checked).
MODES = {
    "emulated": ("g++", "fast"),
    "emulated-check": ("g++", "check"),
    "emulated-stats": ("g++", "stats"),
    "emulated-ptx": ("ptx", "fast"),
    "emulated-ptx-check": ("ptx", "check"),
    "emulated-ptx-stats": ("ptx", "stats"),
}

_KEPT_LAUNCHES = 256
_TOGETHER = 12  # kernels built together: fewer take longer each, more leave processors idle


def _rounded_to_tf32(factor: np.ndarray) -> np.ndarray:
    """Return float32 numbers with the 10 bits after the first that TF32 has, rounded to nearest, ties away from 0."""
    bits = np.ascontiguousarray(factor).view(np.uint32)
    rounded = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(factor), rounded.view(np.float32), factor)


class EmulatedDevice:
    """A device that runs kernels on the CPU; see MODES for its names and Settings for what else can be chosen."""

    sm_count = 4  # small, so that a launcher's "enough blocks for every multiprocessor" stays small

    def __init__(self, name: str = "emulated", *, arch: int = 80, **settings: Any) -> None:
        if name not in MODES:
            msg = f"the emulated device must be one of {', '.join(MODES)}, got {name!r}"
            raise ValueError(msg)
        self.name, self.arch = name, arch
        self.route, self.mode = MODES[name]
        self.settings = Settings(**settings)
        self._ahead: dict[tuple[str, str, str, tuple[str, ...]], Future[dict[str, Function]]] = {}
        self.launches: deque[LaunchRecord] = deque(maxlen=_KEPT_LAUNCHES)

    def empty(self, shape: Any, dtype: Any) -> EmulatedArray:
        """Return an array of 0xFF bytes (NaN, -1 or the largest value), so that what is never written shows."""
        if (recording := active()) is not None:
            return recording.empty(shape, dtype)
        array: EmulatedArray = uninitialised(np.empty(shape, dtype)).view(EmulatedArray)
        return array

    def zeros(self, shape: Any, dtype: Any) -> EmulatedArray:
        if active() is None:
            return np.zeros(shape, dtype).view(EmulatedArray)
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def asarray(self, host: np.ndarray) -> EmulatedArray:
        """Return a copy in device memory; the order of the axes in memory is kept."""
        forbid("a copy from the host", "make it before, and change what is in the array between replays")
        return np.array(host, order="K", copy=True).view(EmulatedArray)

    def asnumpy(self, array: EmulatedArray) -> np.ndarray:
        """Return a copy in host memory."""
        forbid("a copy to the host", "make it after a replay")
        return np.array(array.view(np.ndarray), order="K", copy=True)

    def same_layout(self, host: np.ndarray) -> EmulatedArray:
        """Return a copy in device memory with the host array's strides; the gaps between elements are 0xFF bytes."""
        if not host.size:
            return self.asarray(host)
        low, high = np.lib.array_utils.byte_bounds(host)
        memory = self.empty(high - low, np.uint8)
        array = np.ndarray.__new__(
            EmulatedArray, host.shape, host.dtype, memory.data, host.ctypes.data - low, host.strides
        )
        array[...] = host
        return array

    def compile(
        self, text: str, file: str, expressions: Sequence[str], options: Sequence[str] = ()
    ) -> dict[str, Function]:
        """Return the kernels that name expressions such as "scale<float, 4>" stand for."""
        forbid(f"the first launch of {', '.join(expressions)}, which compiles it,", "do the work once before")
        ahead = {e: self._ahead.get((text, file, e, tuple(options))) for e in expressions}
        with contextlib.suppress(BuildError, CancelledError):  # by one of the others built with it, it may be
            built = {e: future.result()[e] for e, future in ahead.items() if future is not None}
            if len(built) == len(ahead):
                return built
        return self._compile(text, file, expressions, options)

    def build_ahead(
        self, pool: Executor, text: str, file: str, expressions: Sequence[str], options: Sequence[str]
    ) -> None:
        """Let a pool build kernels that will be asked for, several at once: that takes a third of the time."""
        for first in range(0, len(expressions), _TOGETHER):
            together = tuple(expressions[first : first + _TOGETHER])
            built = pool.submit(self._compile, text, file, together, options)
            self._ahead.update({(text, file, e, tuple(options)): built for e in together})

    def _compile(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str]) -> dict[str, Function]:
        if self.route == "ptx":
            module = from_ptx(text, file, expressions, options, self.mode, self.arch)
        else:
            target = ("-U__CUDA_ARCH__", f"-D__CUDA_ARCH__={self.arch}0")
            module = from_source(host_text(text), file, expressions, (*options, *target), self.mode)
        return {e: module.function(e) for e in expressions}

    def tensor_map(self, array: EmulatedArray, form: Any) -> TensorMap:
        """Return a map of a form: what has a `box`, or the corners of an im2col walk."""
        how = form._asdict()
        if "box" in how:
            return TensorMap.tiled(array, how.pop("box"), **how)
        return TensorMap.im2col(array, strides=how.pop("steps"), **how)

    def launch(
        self, function: Function, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared: int = 0
    ) -> None:
        """Run a kernel to its end; raise EmulationError if it misbehaves."""
        self._check_shared(function, shared)
        if (recording := active()) is not None:
            forms = {i: dataclasses.replace(m, array=None) for i, m in enumerate(args) if isinstance(m, TensorMap)}

            def again(*now: Any) -> None:
                mapped = [dataclasses.replace(forms[i], array=arg) if i in forms else arg for i, arg in enumerate(now)]
                self.launch(function, grid, block, mapped, shared)

            recording.add(again, *(arg.array if isinstance(arg, TensorMap) else arg for arg in args))
            return
        self.launches.append(function.launch(grid, block, args, shared, self.settings))

    def matmul(self, a: EmulatedArray, b: EmulatedArray, out: EmulatedArray, *, tf32: bool = False) -> None:
        """Write a @ b into out: what is left to cuBLAS on a GPU; with tf32, of factors rounded to TF32."""
        if (recording := active()) is not None:
            recording.add(functools.partial(self.matmul, tf32=tf32), a, b, out)
            return
        factors = [_rounded_to_tf32(f.view(np.ndarray)) if tf32 else f.view(np.ndarray) for f in (a, b)]
        with np.errstate(all="ignore"):  # a GPU does not warn
            np.matmul(*factors, out=out.view(np.ndarray))

    def _check_shared(self, function: Function, shared: int) -> None:
        """Refuse more shared memory than a block of this architecture can have."""
        most = MULTIPROCESSORS[self.arch].shared_bytes_of_block if self.arch in MULTIPROCESSORS else None
        if not shared or most is None:
            return
        static = sum(a.size for a in function.module.library.shared_arrays if a.name != DYNAMIC_SHARED)
        if static + shared > most:
            sizes = f"{static} bytes of static and {shared} bytes of dynamic shared memory"
            msg = f"{function.name}: {sizes}; a block of sm_{self.arch} has at most {most}"
            raise EmulationError(msg)

    def synchronize(self) -> None:
        """Do nothing: every launch has ended when it returns."""
        forbid("a wait for the GPU", "wait after a replay")

    def record(self, work: Callable[[], Any]) -> EmulatedRecording:
        """Note what work() would do, in order, without doing it."""
        return EmulatedRecording(work)

    def holds(self, array: Any) -> bool:
        return isinstance(array, EmulatedArray)

    def is_aligned(self, array: EmulatedArray, size: int) -> bool:
        """Tell by the distance from the beginning of the allocation, which a launch keeps."""
        return (array.ctypes.data - allocation(array).ctypes.data) % size == 0
