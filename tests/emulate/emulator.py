"""Kernels that run on the CPU: modules made from kernel text, checked launches, reports of what went wrong.

One fiber plays one CUDA thread; blocks run one after another, or divided among forked workers.  A launch runs in
another process (server.py): a crash, a failed check or an endless loop becomes an EmulationError in this one.

Mode "fast" checks what guard pages, canaries and the thread scheduler see.  "check" looks at every load and store:
bounds, const, alignment, races, uninitialised shared memory.  "stats" counts the memory transactions of each line.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from . import build
from .errors import EmulationError
from .hopper.tensor_map import TensorMap
from .library import Buffer, Launch, Library, Statistics
from .memory import Arena, Memory
from .nvrtc import nvrtc
from .ptx_to_cpp import translate
from .server import borrowed

ORDERS = ("forward", "reverse", "random", "depth", "depth-reverse")

# Bits of Launch.flags and the order of Statistics.counters and Site.kind, as in runtime/launch.hpp.
_TRACK, _COUNT, _LATE_COPIES, _EARLY_EXIT, _BETWEEN_BLOCKS, _RACES = 1, 2, 4, 8, 16, 32
_COUNTERS = ("mma_flop", "atomics", "shuffles", "barriers", "warp_operations")
_KINDS = (
    "global load",
    "global store",
    "shared load",
    "shared store",
    "atomic",
    "ldmatrix",
    "wmma",
    "cp.async",
)
_REPORT_BYTES = 1 << 16
_POINTER_BYTES = 8
_TENSOR_MAP_BYTES = 128


class _Places(NamedTuple):
    """Where the parts of a launch lie in the arena that every launch has; the Launch itself lies at 0."""

    report: int = 4096
    statistics: int = 4096 + _REPORT_BYTES
    end: int = 4096 + _REPORT_BYTES + ctypes.sizeof(Statistics)


_PLACES = _Places()


@dataclass(frozen=True)
class Settings:
    """How launches run: what may differ between two GPUs, or between two launches on one."""

    order: str = "forward"  # in which threads start and go on after a barrier, one of ORDERS
    block_order: str = "forward"  # forward, reverse or random
    seed: int = 1  # of the random orders
    workers: int = 1  # processes that share the blocks; in modes check and stats always one
    timeout: int = 300  # seconds
    stack_bytes: int = 65536  # of one thread
    late_copies: bool = True  # cp.async data arrives as late as its wait allows, not at once
    early_exit: bool = False  # threads may return before a barrier that others reach
    between_blocks: bool = True  # report races between blocks, which a kernel with fences may intend


@dataclass(frozen=True)
class SiteCounts:
    """The memory requests of one line: `units` are 32-byte sectors (global) or wavefronts (shared), `ideal` the least."""

    line: str
    kind: str
    requests: int
    lanes: int
    bytes: int
    units: int
    ideal: int


@dataclass(frozen=True)
class LaunchRecord:
    """What is known after a launch."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int
    seconds: float
    counts: dict[str, int]
    sites: list[SiteCounts] = field(default_factory=list)  # mode stats
    instructions: dict[str, int] = field(default_factory=dict)  # PTX route, modes fast and stats: by opcode, per thread


class Module:
    """The kernels of one text, built for one mode."""

    def __init__(
        self,
        library: Library,
        mode: str,
        symbols: Mapping[str, str],
        *,
        basic_blocks: Sequence[Mapping[str, int]] = (),
        typed_pointers: bool = True,
    ) -> None:
        self.library, self.mode = library, mode
        self.basic_blocks = basic_blocks  # how often each opcode stands in each; none on the g++ route
        self.typed_pointers = typed_pointers  # in PTX a pointer is a 64-bit number
        self._symbols = symbols  # of the library's kernels, by name expression

    def function(self, expression: str) -> Function:
        """Return the kernel that a name expression such as "scale<float, 4>" stands for."""
        return Function(self, expression, self._symbols[expression])


def from_source(text: str, file: str, expressions: Sequence[str], options: Sequence[str], mode: str) -> Module:
    """Compile kernel text with g++: the first way to the CPU."""
    path = build.library(text, file, expressions, options, mode)
    return Module(Library(path), mode, {e: e for e in expressions})


def from_ptx(text: str, file: str, expressions: Sequence[str], options: Sequence[str], mode: str, arch: int) -> Module:
    """Compile kernel text with NVRTC to PTX, and that with g++: the second way to the CPU."""
    compiled = nvrtc().ptx(text, file, expressions, options, str(arch))
    symbols = [compiled.symbols[e] for e in expressions]
    translation = translate(str(compiled.code), symbols)
    counted = () if mode == "check" else ("-DEMULATE_COUNT_BASIC_BLOCKS",)
    path = build.library(translation.cpp, f"{file}.ptx", symbols, counted, mode)
    return Module(Library(path), mode, compiled.symbols, basic_blocks=translation.basic_blocks, typed_pointers=False)


class Function:
    """A kernel that can be launched."""

    def __init__(self, module: Module, name: str, symbol: str) -> None:
        self.module, self.name = module, name
        if symbol not in module.library.kernels:
            msg = f"kernel {name} not found; the module has {sorted(module.library.kernels)}"
            raise KeyError(msg)
        self._signature = module.library.kernels[symbol]

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        shared: int,
        settings: Settings,
        blocks: tuple[int, int] | None = None,
    ) -> LaunchRecord:
        """Run the kernel on arrays, NumPy scalars, tensor maps and None; raise EmulationError if it misbehaves.

        `blocks` = (first, count) runs only those blocks of the grid.
        """
        grid, block = _three(grid), _three(block)
        self._check_shape(grid, block, shared)
        parameters = _Parameters(self, args)
        with borrowed() as server:
            arena = server.arena
            arena.clear(_PLACES.end)
            memory = Memory(arena, parameters.arrays)
            launch = self._launch(grid, block, shared, settings, memory, arena, parameters.values(memory))
            launch.first_block, launch.block_count = blocks or (0, 0)
            arena.bytes[_PLACES.report] = 0
            statistics = Statistics.from_buffer(arena.map, _PLACES.statistics)
            ctypes.memset(ctypes.addressof(statistics), 0, Statistics.sites.offset)
            counted = len(self.module.basic_blocks) * _POINTER_BYTES
            ctypes.memset(ctypes.addressof(statistics) + Statistics.basic_blocks.offset, 0, counted)
            arena.map[: ctypes.sizeof(launch)] = bytes(launch)
            start = time.perf_counter()
            code = server.run(self.module.library.path)
            seconds = time.perf_counter() - start
            self._raise_for(code, memory.copy_back(), arena, grid, block, shared)
            return self._record(grid, block, shared, seconds, statistics)

    def _raise_for(
        self, code: int, beside: list[int], arena: Arena, grid: tuple[int, ...], block: tuple[int, ...], shared: int
    ) -> None:
        if not code and not beside:
            return
        report = arena.map[_PLACES.report : _PLACES.report + _REPORT_BYTES]
        message = report.partition(b"\0")[0].decode(errors="replace")
        if code and not message:
            message = f"the launch server ended with status {code}\n"
        if beside:
            message += f"CANARY: bytes beside argument(s) {beside} were overwritten; mode check names the line\n"
        explained = self.module.library.explain(message)
        msg = f"{self.name}: grid {grid}, block {block}, {shared} bytes of dynamic shared memory\n{explained}"
        raise EmulationError(msg)

    def _check_shape(self, grid: tuple[int, ...], block: tuple[int, ...], shared: int) -> None:
        threads = block[0] * block[1] * block[2]
        bad_block = not 0 < threads <= 1024 or block[2] > 64
        if bad_block or min(grid) < 1 or grid[0] > 2**31 - 1 or max(grid[1:]) > 65535:
            msg = f"{self.name}: invalid launch configuration: grid {grid}, block {block}"
            raise EmulationError(msg)
        if not 0 <= shared <= build.DYNAMIC_SHARED_BYTES:
            msg = f"{self.name}: {shared} bytes of dynamic shared memory; a block has at most 232,448"
            raise EmulationError(msg)

    def _launch(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared: int,
        settings: Settings,
        memory: Memory,
        arena: Arena,
        values: Sequence[ctypes.Array],
    ) -> Launch:
        mode, launch = self.module.mode, Launch()
        launch.kernel = self._signature.index
        launch.grid[:], launch.block[:] = grid, block
        launch.flags = (
            (_TRACK if mode != "fast" else 0)
            | (_RACES if mode == "check" else 0)
            | (_COUNT if mode == "stats" else 0)
            | (_LATE_COPIES if settings.late_copies else 0)
            | (_EARLY_EXIT if settings.early_exit else 0)
            | (_BETWEEN_BLOCKS if settings.between_blocks else 0)
        )
        launch.thread_order = ORDERS.index(settings.order)
        launch.block_order = ORDERS.index(settings.block_order)
        launch.workers = settings.workers if mode == "fast" else 1
        launch.timeout_seconds, launch.seed = settings.timeout, settings.seed
        launch.shared_bytes, launch.stack_bytes = shared, settings.stack_bytes
        launch.parameters = arena.put((ctypes.c_uint64 * (len(values) or 1))(*map(arena.put, values)))
        buffers = [
            Buffer(
                base=r.base,
                size=r.size,
                element=r.element,
                valid=0 if mode == "fast" else r.valid(),
                argument=r.span.argument,
                read_only=not r.span.writable,
            )
            for r in memory.regions
        ]
        launch.buffers = arena.put((Buffer * (len(buffers) or 1))(*buffers))
        launch.buffer_count = len(buffers)
        if mode != "fast":
            shared_arrays = [a for a in self.module.library.shared_arrays if a.name != build.DYNAMIC_SHARED]
            numbers = [n for s in shared_arrays for n in (s.offset, s.size)]
            launch.shared_symbols = arena.put((ctypes.c_uint64 * (len(numbers) or 1))(*numbers))
            launch.shared_symbol_count = len(shared_arrays)
        launch.report, launch.report_bytes = arena.server_base + _PLACES.report, _REPORT_BYTES
        launch.statistics = arena.server_base + _PLACES.statistics
        return launch

    def _record(
        self, grid: tuple[int, ...], block: tuple[int, ...], shared: int, seconds: float, statistics: Statistics
    ) -> LaunchRecord:
        counts = {name: int(statistics.counters[i]) for i, name in enumerate(_COUNTERS)}
        counts.update({name: int(getattr(statistics, name)) for name in ("blocks", "threads", "switches")})
        sites = statistics.sites[: statistics.site_count]
        lines = self.module.library.lines_of([int(s.pc) for s in sites])
        counted = [
            SiteCounts(
                line, _KINDS[s.kind], *(int(getattr(s, n)) for n in ("requests", "lanes", "bytes", "units", "ideal"))
            )
            for s, line in zip(sites, lines, strict=True)
        ]
        instructions: dict[str, int] = {}
        for i, mix in enumerate(self.module.basic_blocks):
            times = int(statistics.basic_blocks[i])
            for opcode, count in mix.items() if times else ():
                instructions[opcode] = instructions.get(opcode, 0) + times * count
        return LaunchRecord(self.name, grid, block, shared, seconds, counts, counted, instructions)


def _three(sizes: Sequence[int]) -> tuple[int, ...]:
    return (*map(int, sizes), *(1,) * (3 - len(sizes)))


class _Parameters:
    """The arguments of one launch, checked against the kernel's parameters."""

    def __init__(self, function: Function, args: Sequence[Any]) -> None:
        signature = function._signature
        if len(args) != len(signature.sizes):
            msg = f"{function.name} takes {len(signature.sizes)} arguments, {len(args)} given"
            raise TypeError(msg)
        self._args = args
        self._signature = signature
        self._typed = function.module.typed_pointers
        self._what = [f"argument {i} of {function.name}" for i in range(len(args))]
        self.arrays = [array for i in range(len(args)) for array in self._array(i)]

    def _array(self, i: int) -> list[tuple[int, np.ndarray, bool]]:
        """Return the array behind argument i, with its number and whether the kernel may write it."""
        arg, access, kind, size = self._args[i], *self._parameter(i)
        if isinstance(arg, TensorMap):
            if access != "s" or size != _TENSOR_MAP_BYTES:
                msg = f"{self._what[i]}: a TensorMap goes to a const __grid_constant__ ptx::TensorMap parameter"
                raise TypeError(msg)
            return [(i, arg.array, arg.writable)]
        if access == "s" and not (
            isinstance(arg, np.ndarray) and not self._typed and kind == "u" and size == _POINTER_BYTES
        ):
            return []
        if arg is None:
            return []
        if not isinstance(arg, np.ndarray):
            msg = f"{self._what[i]}: expected an array, got {type(arg).__name__}"
            raise TypeError(msg)
        if self._typed and not _points_to(arg.dtype, kind, size):
            msg = f"{self._what[i]}: the kernel wants a pointer to {size}-byte {kind!r}, the array is {arg.dtype}"
            raise TypeError(msg)
        return [(i, arg, access != "c")]

    def _parameter(self, i: int) -> tuple[str, str, int]:
        return self._signature.access[i], self._signature.kind[i], self._signature.sizes[i]

    def values(self, memory: Memory) -> list[ctypes.Array]:
        """Return the bytes of every argument: addresses of the guarded copies, scalars, tensor maps."""
        return [self._value(i, memory) for i in range(len(self._args))]

    def _value(self, i: int, memory: Memory) -> ctypes.Array:
        arg, access, kind, size = self._args[i], *self._parameter(i)
        if isinstance(arg, TensorMap):
            return ctypes.create_string_buffer(arg.emulated(memory.address(arg.array)), _TENSOR_MAP_BYTES)
        if any(i == argument for argument, _, _ in self.arrays):
            return (ctypes.c_uint64 * 1)(memory.address(arg))
        if arg is None and (access != "s" or not self._typed):
            return (ctypes.c_uint64 * 1)(0)
        if isinstance(arg, (bool, int, float)):  # CuPy packs these as 1 or 8 bytes
            arg = np.bool_(arg) if isinstance(arg, bool) else np.int64(arg) if isinstance(arg, int) else np.float64(arg)
        if not isinstance(arg, np.generic) and not (type(arg) is np.ndarray and arg.ndim == 0):
            msg = f"{self._what[i]}: expected a NumPy scalar, got {type(arg).__name__}"
            raise TypeError(msg)
        if not _is_scalar(arg.dtype, kind, size, typed=self._typed):
            msg = f"{self._what[i]}: the kernel wants a {size}-byte {kind!r}, got {arg.dtype}: use the exact NumPy type"
            raise TypeError(msg)
        return ctypes.create_string_buffer(arg.tobytes(), max(size, 1))


_KIND_OF = {"f": "f", "i": "i", "u": "u", "b": "?"}


def _points_to(dtype: np.dtype, kind: str, size: int) -> bool:
    """Return whether a pointer of the kernel may point to elements of this dtype."""
    if kind == "v":
        return True
    if kind == "V":  # a struct or vector type, such as float4
        return size % dtype.itemsize == 0
    named = {"h": np.float16, "b": np.uint16}.get(kind)
    return dtype.itemsize == size and (_KIND_OF.get(dtype.kind) == kind if named is None else dtype == named)


def _is_scalar(dtype: np.dtype, kind: str, size: int, *, typed: bool) -> bool:
    """Return whether a scalar of this dtype is what the kernel's parameter holds; signs may differ.

    In PTX, which is not typed, a bool is an unsigned byte.
    """
    integers = kind in "iu" and dtype.kind in ("iu" if typed else "iub")
    return dtype.itemsize == size and (kind not in "fiu?" or integers or _KIND_OF.get(dtype.kind) == kind)
