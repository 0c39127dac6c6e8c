"""One kernel, checked against its own source at every call: what CUDA would take in silence is refused here.

A launch with a wrong number of arguments, a float64 where the kernel reads float32, an 8-byte Python int for an int
parameter, a strided view, an array of another GPU, an index beyond 32 bits: each is an error that names the kernel
and the argument.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from .. import checks
from ..errors import (
    ArgTypeError,
    DeviceMismatchError,
    DTypeError,
    GpuFaultError,
    GpuLaunchError,
    RecordingError,
    SizeLimitError,
)
from .device import Device
from .signature import C_NAMES, C_TYPES, Parameter, Signature, read_signature, resolved
from .source import source

OPTIONS = ("-std=c++17", "-lineinfo")

_TENSOR_MAP = "ptx::TensorMap"  # of ptx_hopper.cuh
_MOST_BLOCKS = (2**31 - 1, 65_535, 65_535)
_MOST_THREADS = (1024, 1024, 64)
_BLOCKS_PER_SM = 32  # enough to fill a multiprocessor several times over

_KEPT = 1024  # numbers, or structs of whole numbers, that a parameter keeps: sizes come again at every step
_INT = {int}

Converter = Callable[[Any], Any]


class Kernel:
    """A `__global__` function of kernels/<file>, compiled at its first launch on each device, once per set of types.

    block is the number of threads of a block, or their numbers along x, y, z.  Arrays must be C-contiguous but for
    the arguments named in `strided`, whose kernel is told the strides.  least_arch: the lowest compute capability that
    has the kernel's instructions, without the dot; target: the only architecture that has them, such as "90a".
    """

    all: ClassVar[dict[str, Kernel]] = {}

    def __init__(
        self,
        file: str,
        name: str,
        *,
        block: int | tuple[int, ...] = 256,
        strided: tuple[str, ...] = (),
        least_arch: int = 0,
        target: str | None = None,
    ) -> None:
        self.file, self.name, self.strided, self.least_arch, self.target = file, name, strided, least_arch, target
        # The GPU's own architecture is named after this one; a compiler that is given both takes the special one.
        self.options = OPTIONS if target is None else (*OPTIONS, f"-arch=sm_{target}")
        self.block = _three(block)
        if any(not 1 <= size <= most for size, most in zip(self.block, _MOST_THREADS, strict=True)) or (
            math.prod(self.block) > _MOST_THREADS[0]
        ):
            msg = f"{name}: a block has at most {_MOST_THREADS[0]} threads, got {block}"
            raise SizeLimitError(msg)
        self._ready: dict[tuple[Device, tuple[Any, ...]], tuple[Any, tuple[Converter, ...]]] = {}
        Kernel.all[name] = self

    def __repr__(self) -> str:
        return f"Kernel({self.file!r}, {self.name!r}, block={self.block})"

    def __call__(
        self, device: Device, templates: tuple[Any, ...], grid: int | tuple[int, ...], *args: Any, shared: int = 0
    ) -> None:
        """Launch `grid` blocks; no blocks is no work.

        templates: a dtype for a type, an int or bool for a value.  args: device arrays; None for a null pointer;
        Python numbers, converted to the parameter's exact type; for a struct, a mapping of its fields or what `pack`
        returned.
        Raises ArgTypeError, DTypeError, DeviceMismatchError, SizeLimitError before anything is launched, and
        GpuLaunchError for what the device refuses (with GPUCONV_DEBUG=1 also for what fails while running).
        """
        blocks = (grid, 1, 1) if type(grid) is int else _three(grid)
        x, y, z = blocks
        if not (0 < x <= _MOST_BLOCKS[0] and 0 < y <= _MOST_BLOCKS[1] and 0 < z <= _MOST_BLOCKS[2]):
            if 0 in blocks:
                return
            msg = f"{self.name}: a grid has at most {_MOST_BLOCKS} blocks, got {blocks}"
            raise SizeLimitError(msg)
        function, converters = self._ready.get((device, templates)) or self.prepare(device, templates)
        if len(args) != len(converters):
            names = ", ".join(parameter.name for parameter in self.signature.parameters)
            msg = f"{self.name} takes {len(converters)} arguments ({names}), got {len(args)}"
            raise ArgTypeError(msg)
        values = tuple([convert(arg) for convert, arg in zip(converters, args)])  # noqa: B905 - lengths were compared
        try:
            device.launch(function, blocks, self.block, values, shared)
            if checks.debug():
                device.synchronize()
        except Exception as error:
            if isinstance(error, (MemoryError, RecordingError)) or (
                isinstance(error, GpuFaultError) and not checks.debug()
            ):
                raise  # a fault is another kernel's, if nobody waits for this one
            msg = f"{self.name}{_shown(templates)} on {device.name} failed: {_origin(error)}"
            msg += f"\n{self._described(blocks, args)}"
            raise GpuLaunchError(msg) from _origin(error)

    @functools.cached_property
    def signature(self) -> Signature:
        """The kernel's template parameters and arguments, as its source declares them."""
        return read_signature(source(self.file), self.file, self.name)

    def pack(self, parameter: str, fields: Mapping[str, Any]) -> np.void:
        """Return a struct argument from its fields, checked: for launchers that keep it from call to call."""
        (declared,) = (p for p in self.signature.parameters if p.name == parameter)
        return _struct(f"{self.name}: argument {parameter}", self.signature.structs[declared.type])(fields)

    def expression(self, templates: tuple[Any, ...]) -> str:
        """Return the C++ name of the kernel with these template arguments."""
        wanted = self.signature.templates
        if len(templates) != len(wanted):
            names = ", ".join(name for _, name in wanted)
            msg = f"{self.name} takes {len(wanted)} template arguments ({names}), got {len(templates)}"
            raise ArgTypeError(msg)
        parts = [self._template_argument(kind, name, value) for (kind, name), value in zip(wanted, templates)]  # noqa: B905 - lengths were compared
        return f"{self.name}<{', '.join(parts)}>" if parts else self.name

    def _template_argument(self, kind: str, name: str, value: Any) -> str:
        what = f"{self.name}: template argument {name}"
        if kind == "typename":
            if not isinstance(value, np.dtype) or value not in C_NAMES:
                msg = f"{what} must be a dtype that kernels know, got {value!r}"
                raise DTypeError(msg)
            return C_NAMES[value]
        if kind == "bool":
            if not isinstance(value, bool):
                msg = f"{what} must be True or False, got {value!r}"
                raise ArgTypeError(msg)
            return "true" if value else "false"
        return str(int(_scalar(what, C_TYPES[kind])(value)))

    def prepare(self, device: Device, templates: tuple[Any, ...]) -> tuple[Any, tuple[Converter, ...]]:
        """Compile the kernel for a device, unless it is; return the function, and what converts its arguments.

        Raises GpuLaunchError where the device cannot have it.
        """
        ready = self._ready.get((device, templates))
        if ready is not None:
            return ready
        expression = self.expression(templates)
        if device.arch < self.least_arch or (self.target is not None and device.arch != self.least_arch):
            needed, has = (f"{arch // 10}.{arch % 10}" for arch in (self.least_arch, device.arch))
            msg = f"{self.name} needs compute capability {needed}, {device.name} has {has}"
            raise GpuLaunchError(msg)
        try:
            functions = device.compile(source(self.file), self.file, (expression,), self.options)
        except Exception as error:
            if isinstance(error, (MemoryError, GpuFaultError, RecordingError)):
                raise
            msg = f"{expression} of kernels/{self.file} does not compile for {device.name}: {_origin(error)}"
            raise GpuLaunchError(msg) from _origin(error)
        bound = {
            name: C_NAMES[value]
            for (kind, name), value in zip(self.signature.templates, templates, strict=True)
            if kind == "typename"
        }
        converters = tuple(self._converter(device, parameter, bound) for parameter in self.signature.parameters)
        self._ready[device, templates] = functions[expression], converters
        return functions[expression], converters

    def _converter(self, device: Device, parameter: Parameter, bound: Mapping[str, str]) -> Converter:
        what = f"{self.name}: argument {parameter.name}"
        if parameter.type == _TENSOR_MAP:
            return _tensor_map(what, device)
        struct = self.signature.structs.get(parameter.type)
        if struct is not None:
            return _struct(what, struct)
        dtype = C_TYPES[resolved(what, parameter.type, bound)]
        if parameter.pointer:
            return _array(what, dtype, device, any_strides=parameter.name in self.strided)
        return _scalar(what, dtype)

    def _described(self, blocks: tuple[int, ...], args: tuple[Any, ...]) -> str:
        """Return the launch in words, one line an argument."""
        lines = [f"  grid {blocks}, block {self.block}"]
        for parameter, arg in zip(self.signature.parameters, args, strict=True):
            of_map = parameter.type == _TENSOR_MAP
            given = arg.array if of_map else arg
            shown = f"{given.dtype} {tuple(given.shape)}" if hasattr(given, "shape") else repr(given)
            lines.append(f"  {parameter.name}: {'map of ' * of_map}{shown}")
        return "\n".join(lines)


def cover(device: Device, threads: int, block: int = 256) -> int:
    """Return a number of blocks for a loop over `threads` elements: one each, up to what fills the device."""
    return min(-(-threads // block), device.sm_count * _BLOCKS_PER_SM)


# Conversions of arguments -------------------------------------------------------------------------------------------


def _array(what: str, dtype: np.dtype, device: Device, *, any_strides: bool) -> Converter:
    holds = device.holds

    def convert(value: Any) -> Any:
        if value is None:
            return None
        if not holds(value):
            cls = type(value)
            if not hasattr(value, "dtype") or isinstance(value, np.generic):
                msg = f"{what} must be an array or None, got {cls.__module__}.{cls.__qualname__}"
                raise ArgTypeError(msg)
            msg = f"{what} must be an array on {device.name}, got {cls.__module__}.{cls.__qualname__} elsewhere"
            raise DeviceMismatchError(msg)
        if value.dtype != dtype:
            msg = f"{what} must be {dtype}, got {value.dtype}"
            raise DTypeError(msg)
        if not any_strides and not value.flags.c_contiguous:
            msg = f"{what} must be C-contiguous, got shape {tuple(value.shape)} with strides {tuple(value.strides)}"
            raise ArgTypeError(msg)
        return value

    return convert


def _tensor_map(what: str, device: Device) -> Converter:
    holds = device.holds

    def convert(value: Any) -> Any:
        array = getattr(value, "array", None)
        if array is None or not holds(array):
            cls = type(value)
            msg = f"{what} must be a tensor map of an array on {device.name}, got {cls.__module__}.{cls.__qualname__}"
            raise ArgTypeError(msg)
        return value

    return convert


def _scalar(what: str, dtype: np.dtype) -> Converter:
    def boolean(value: Any) -> Any:
        if not isinstance(value, (bool, np.bool_)):
            msg = f"{what} must be True or False, got {value!r}"
            raise ArgTypeError(msg)
        return np.bool_(value)

    def integer(value: Any) -> Any:
        if type(value) is int and (known := made.get(value)) is not None:
            return known
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            msg = f"{what} must be an int, got {value!r}"
            raise ArgTypeError(msg)
        number = int(value)
        if not low <= number <= high:
            msg = f"{what} must be from {low} to {high} ({dtype}), got {number}"
            raise SizeLimitError(msg)
        scalar = kind(number)
        if len(made) < _KEPT:
            made[number] = scalar
        return scalar

    def real(value: Any) -> Any:
        if type(value) is not float and (
            not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool)
        ):
            msg = f"{what} must be a number, got {value!r}"
            raise ArgTypeError(msg)
        number = float(value)
        if not -largest <= number <= largest and math.isfinite(number):
            msg = f"{what} must be at most {largest:g} in size ({dtype}), got {number:g}"
            raise SizeLimitError(msg)
        return kind(number)

    kind = dtype.type
    if dtype.kind == "b":
        return boolean
    if dtype.kind in "iu":
        made: dict[int, Any] = {}
        limits = np.iinfo(dtype)
        low, high = int(limits.min), int(limits.max)
        return integer
    largest = float(np.finfo(dtype).max)
    return real


def _struct(what: str, dtype: np.dtype) -> Converter:
    fields = {name: dtype[name] for name in dtype.names or ()}
    converters = {name: _scalar(f"{what}.{name}", field.base) for name, field in fields.items()}
    names, made = tuple(fields), dict[tuple[int, ...], Any]()
    same = dtype  # the last found to be equal: another kernel's, whose comparison takes as long as all the rest

    def convert(value: Any) -> Any:
        nonlocal same
        if type(value) is np.void and (value.dtype is same or value.dtype == dtype):
            same = value.dtype
            return value
        if type(value) is dict and tuple(value) == names:
            numbers = tuple(value.values())
            if set(map(type, numbers)) == _INT:
                if (known := made.get(numbers)) is None:
                    known = pack(value)
                    if len(made) < _KEPT:
                        made[numbers] = known
                return known
        return pack(value)

    def pack(value: Any) -> Any:
        if not isinstance(value, Mapping) or value.keys() != fields.keys():
            got = ", ".join(value) if isinstance(value, Mapping) else repr(value)
            msg = f"{what} must be a mapping of {', '.join(fields)}, got {got}"
            raise ArgTypeError(msg)
        packed = np.zeros((), dtype)
        for name, field in fields.items():
            entry, convert_entry = value[name], converters[name]
            if not field.shape:
                packed[name] = convert_entry(entry)
                continue
            if len(entry) > field.shape[0]:
                msg = f"{what}.{name} has {field.shape[0]} entries, got {len(entry)}"
                raise ArgTypeError(msg)
            for i, number in enumerate(entry):
                packed[name][i] = convert_entry(number)
        return packed[()]

    return convert


def _three(sizes: int | tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = (*(sizes if isinstance(sizes, tuple) else (sizes,)), 1, 1)[:3]
    return int(x), int(y), int(z)


def _origin(error: Exception) -> BaseException:
    """Return what a device's own GpuLaunchError was raised from: a kernel's says the rest better."""
    return error.__cause__ if isinstance(error, GpuLaunchError) and error.__cause__ is not None else error


def _shown(templates: tuple[Any, ...]) -> str:
    return f"<{', '.join(map(str, templates))}>" if templates else ""
