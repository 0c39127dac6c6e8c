"""Checks of arguments that several operators share.  Each raises before anything is allocated or computed.

All messages name the argument and what was found.  Array dtypes are compared by NumPy dtype objects, which CuPy
shares, so the same code and the same words serve every backend.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import operator
import os
from typing import Any

import numpy as np

from . import bfloat16
from .errors import AliasError, ArgTypeError, CacheError, DTypeError, ParamError, ShapeError
from .placed import Count
from .plural import counted

FLOATS = tuple(np.dtype(name) for name in ("float16", "float32", "float64"))
_LARGEST_INT = 2**31 - 1
_LONGEST = 200  # letters of a value in a message
# What os.environ looks into.  It raises and catches an error for a name that is not set, for which every launch would pay.
_ENVIRONMENT: Any = getattr(os.environ, "_data", None)
_DEBUG, _ON = os.environ.encodekey("GPUCONV_DEBUG"), os.environ.encodevalue("1")


# Numbers ------------------------------------------------------------------------------------------------------------


def integer(name: str, value: Any, *, least: int, most: int = _LARGEST_INT) -> int:
    """Return value as an int in [least, most]; floats, strings and booleans are refused, not converted."""
    number = _whole(name, value)
    if not least <= number <= most:
        end = "2^31 - 1" if most == _LARGEST_INT else most
        msg = f"{name} must be an int from {least} to {end}, got {name}={digits(number)}"
        raise ParamError(msg)
    return number


_EACH_AXIS = {1: "a tuple of one", 2: "a pair (vertical, horizontal)", 3: "a triple (depth, vertical, horizontal)"}


def each_axis(name: str, value: Any, axes: int, *, least: int) -> tuple[int, ...]:
    """Return an int for each of 1 to 3 spatial axes, of an int for all of them or a tuple of as many."""
    if isinstance(value, (tuple, list)):
        if len(value) != axes:
            values = counted(len(value), "value")
            msg = f"{name} must be an int or {_EACH_AXIS[axes]}, got {values}: {shown(value)}"
            raise ParamError(msg)
        return tuple(integer(name, number, least=least) for number in value)
    return (integer(name, value, least=least),) * axes


def each_side(name: str, value: Any, axes: int) -> tuple[tuple[int, int], ...]:
    """Return (before, after) for each of 1 to 3 spatial axes.

    value: an int for all sides, or a tuple with an entry for each axis: an int for both of its sides, or a pair.
    """
    if isinstance(value, str):
        msg = f'{name} must be numbers or "same", got {shown(value)}'
        raise ParamError(msg)
    entries = value if isinstance(value, (tuple, list)) else (value,) * axes
    if len(entries) != axes:
        values = counted(len(entries), "value")
        msg = f"{name} must be an int or {_EACH_AXIS[axes]}, each an int or a pair (before, after), got {values}: {shown(value)}"
        raise ParamError(msg)
    sides = []
    for entry in entries:
        both = entry if isinstance(entry, (tuple, list)) else (entry, entry)
        if len(both) != 2:
            values = counted(len(both), "value")
            msg = f"{name} must be an int or a pair (before, after) along an axis, got {values}: {shown(entry)}"
            raise ParamError(msg)
        before, after = (integer(name, number, least=0) for number in both)
        sides.append((before, after))
    return tuple(sides)


def pair(name: str, value: Any, *, least: int) -> tuple[int, int]:
    """Return (vertical, horizontal) of an int or a pair of ints."""
    vertical, horizontal = each_axis(name, value, 2, least=least)
    return vertical, horizontal


def shown(value: Any) -> str:
    """Return a value as a message shows it: short, whatever it is; Python shows no int of thousands of digits, for one."""
    if _on_gpu(value):
        return "an array on a GPU"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - what somebody's own class may raise, or a list deep inside itself
        return f"a value of class {type(value).__qualname__} that cannot be shown"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def choice(name: str, value: Any, words: tuple[str, ...]) -> str:
    """Return value if it is one of the words."""
    if not isinstance(value, str) or value not in words:
        *others, last = (f'"{word}"' for word in words)
        msg = f"{name} must be {', '.join(others)} or {last}, got {shown(value)}"
        raise ParamError(msg)
    return value


def digits(number: int) -> str:
    """Return an int as digits, or how long it is: Python writes none of thousands of digits."""
    return str(number) if number.bit_length() <= 256 else f"an int of {number.bit_length()} bits"


def _whole(name: str, value: Any) -> int:
    """Return value as an int of any size."""
    if not isinstance(value, (bool, np.bool_)) and not _on_gpu(value):
        with contextlib.suppress(Exception):  # TypeError, or what somebody's own class raises
            return operator.index(value)
    msg = f"{name} must be an int, got {shown(value)}"
    raise ArgTypeError(msg)


def word(name: str, value: Any) -> int:
    """Return value as an int in [0, 2^64): a seed or a counter of the random number generator."""
    number = _whole(name, value)
    if not 0 <= number < 2**64:
        msg = f"{name} must be an int from 0 to 2^64 - 1, got {name}={digits(number)}"
        raise ParamError(msg)
    return number


def step_word(name: str, value: Any) -> Any:
    """Return a step that random numbers are drawn for: as `word`, or by its place on a GPU."""
    return value if isinstance(value, Count) else word(name, value)


def real(name: str, value: Any, *, low: float, high: float = math.inf, open_low: bool = False) -> float:
    """Return value as a finite float in [low, high], or (low, high] with open_low."""
    number = _float(value)
    if number is None:
        msg = f"{name} must be a number, got {shown(value)}"
        raise ArgTypeError(msg)
    if not math.isfinite(number) or number < low or number > high or (open_low and number == low):
        below = f" and at most {high:g}" if math.isfinite(high) else ""
        msg = f"{name} must be finite, {'above' if open_low else 'at least'} {low:g}{below}, got {name}={number}"
        raise ParamError(msg)
    return number


def _on_gpu(value: Any) -> bool:
    """Return whether this is an array on a GPU: no number in it is read, which would be to wait for the GPU."""
    return hasattr(type(value), "__cuda_array_interface__")


def _on_cpu(array: Any) -> bool:
    """Return whether this is an array of NumPy's own."""
    return type(array).__module__.partition(".")[0] == "numpy"


def _float(value: Any) -> float | None:
    """Return a real number as a float; None for a text, a boolean, a complex number, an array of several, a signalling NaN."""
    if isinstance(value, (bool, str, bytes, bytearray)) or getattr(value, "ndim", 0) != 0:
        return None
    if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind not in "iuf":
        return None
    if not hasattr(value, "__float__") or _on_gpu(value):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except Exception:  # noqa: BLE001 - what somebody's own class may raise
        return None


def flag(name: str, value: Any) -> bool:
    """Return value if it is a boolean; 0, 1 and strings are refused."""
    if not isinstance(value, (bool, np.bool_)):
        msg = f"{name} must be True or False, got {shown(value)}"
        raise ArgTypeError(msg)
    return bool(value)


# Arrays -------------------------------------------------------------------------------------------------------------


def common_dtype(taken: tuple[np.dtype, ...] = FLOATS, /, **arrays: Any) -> np.dtype:
    """Return the one dtype of all arrays, of those that are taken, in native byte order; None is skipped.

    Where arrays are on a GPU, bfloat16 is taken, too.
    """
    dtypes = {name: array.dtype for name, array in arrays.items() if array is not None}
    for name, dtype in dtypes.items():
        if bfloat16.is_bfloat16(dtype):
            _for_a_gpu(name, arrays[name])
        elif dtype not in taken or not dtype.isnative:
            what = f"{dtype} ({dtype.str})" if not dtype.isnative else str(dtype)
            *others, last = map(str, taken)
            msg = f"{name} must be {', '.join(others)} or {last} in native byte order, got {what}"
            raise DTypeError(msg)
    if len(set(dtypes.values())) > 1:
        msg = "arrays must share one dtype, got " + ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise DTypeError(msg)
    return next(iter(dtypes.values()))


def float_dtype(dtype: Any, *, beside: Any = None) -> np.dtype:
    """Return np.dtype(dtype) if it is one that the operators take; None is none, where NumPy takes it for float64.

    beside: an array; where it is on a GPU, bfloat16 is taken, too.
    """
    parsed = None
    named = isinstance(dtype, str) and dtype == bfloat16.NAME  # NumPy knows the name once ml_dtypes is imported
    if beside is not None and (named or bfloat16.is_bfloat16(dtype)):
        _for_a_gpu("dtype", beside)
        return bfloat16.bfloat16()
    if dtype is not None and not named:
        with contextlib.suppress(Exception):  # NumPy's own, of many classes, and those of somebody's class
            parsed = np.dtype(dtype)
    if parsed is None and not named:
        msg = f"dtype must name an array element type, got {shown(dtype)}"
        raise ArgTypeError(msg)
    if parsed is None or parsed not in FLOATS:
        msg = f"dtype must be float16, float32 or float64, got {parsed or dtype}"
        raise DTypeError(msg)
    return parsed


def sixteen_bits(dtype: Any, *, beside: Any) -> np.dtype:
    """Return np.dtype(dtype) if it is float16, or bfloat16 and the array `beside` is on a GPU."""
    parsed = float_dtype(dtype, beside=beside)
    if parsed.itemsize != 2:
        msg = f"dtype must be float16 or bfloat16, got {parsed}"
        raise DTypeError(msg)
    return parsed


def _for_a_gpu(name: str, array: Any) -> None:
    """Raise DTypeError where an array, by whose side bfloat16 is to be computed, is on the CPU."""
    if _on_cpu(array):
        msg = f"{name} is bfloat16: bfloat16 arrays are computed on a GPU; on the CPU use float32"
        raise DTypeError(msg)


def given(**arrays: Any) -> None:
    """Check that no array is None."""
    for name, array in arrays.items():
        if array is None:
            msg = f"{name} must be an array, got None"
            raise ArgTypeError(msg)


def ndim(name: str, array: Any, wanted: int, letters: str) -> None:
    """Check the number of axes; letters names them, as in "(N, C, H, W)"."""
    if array.ndim != wanted:
        msg = f"{name} must be {letters}, got shape {tuple(array.shape)}"
        raise ShapeError(msg)


def ndim_among(name: str, array: Any, letters: dict[int, str]) -> None:
    """Check that the number of axes is a key of letters; the first of them is named where it is none."""
    ndim(name, array, array.ndim if array.ndim in letters else next(iter(letters)), next(iter(letters.values())))


def not_empty(name: str, array: Any, letters: str) -> None:
    """Check that no axis but the first (the batch) has size 0."""
    if 0 in array.shape[1:]:
        msg = f"{name} must have no axis of size 0 but the batch {letters}, got shape {tuple(array.shape)}"
        raise ShapeError(msg)


def same_shape(name: str, array: Any, shape: tuple[int, ...], why: str, way_out: str = "") -> None:
    """Check that an array has exactly the given shape; why says where the shape comes from."""
    if tuple(array.shape) != tuple(shape):
        msg = f"{name} must have {why} {tuple(shape)}, got {tuple(array.shape)}{way_out}"
        raise ShapeError(msg)


def per_channel(name: str, vector: Any, x: Any, what: str = "channel") -> None:
    """Check that a vector has an entry for each channel of images, or column of rows; say where images lie otherwise."""
    way_out = channels_first("x", x, vector.shape[0]) if vector.ndim == 1 else ""
    same_shape(name, vector, (x.shape[1],), f"one entry per {what} of x,", way_out)


def channels_first(name: str, array: Any, channels: int) -> str:
    """Return the way out of a wrong number of channels, if images (N, C, H, W) would have it as (N, H, W, C); else ""."""
    if array.ndim != 4 or array.shape[3] != channels or array.shape[1] == channels:
        return ""
    return f" ({name} is N H W C? {name}.transpose(0, 3, 1, 2))"


def class_scores(scores: Any, labels: Any) -> None:
    """Check scores (N, classes) and integer labels (N,).  The labels' range is the backend's to check."""
    given(scores=scores, labels=labels)
    common_dtype(scores=scores)
    ndim("scores", scores, 2, "(N, classes)")
    not_empty("scores", scores, "(N, classes)")
    if labels.dtype.kind not in "iu" or not labels.dtype.isnative:
        msg = f"labels must be an integer array, got {labels.dtype}"
        raise DTypeError(msg)
    same_shape("labels", labels, scores.shape[:1], "one entry per row of scores,")


def writable(name: str, array: Any) -> None:
    """Check that an array may be updated in place.

    Of views with several axes those that interleave are refused with those that overlap: to tell them apart may take long.
    """
    flags = array.flags
    if not getattr(flags, "writeable", True):
        msg = f"{name} is updated in place but is read-only"
        raise AliasError(msg)
    steps = [(abs(step), size) for step, size in zip(array.strides, array.shape, strict=True) if size > 1]
    if 0 in (step for step, _ in steps):
        msg = f"{name} is updated in place but is a broadcast view: several elements share one place"
        raise AliasError(msg)
    reach = array.dtype.itemsize  # bytes from the first to the end of the last element, of the axes looked at
    for step, size in sorted(steps):
        if step < reach and 0 not in array.shape:
            msg = f"{name} is updated in place, but its elements lie over one another: its strides are {array.strides}"
            raise AliasError(msg)
        reach += step * (size - 1)


def apart(*written: str, **arrays: Any) -> None:
    """Check that no written array, given by name, shares memory with any other."""
    items = [(name, _places(array)) for name, array in arrays.items() if array is not None]
    for i, (name, array) in enumerate(items):
        for other_name, other in items[:i]:
            if (name in written or other_name in written) and _overlap(array, other):
                target = name if name in written else other_name
                msg = f"{target} is updated in place, but {other_name} and {name} share memory"
                raise AliasError(msg)


# Caches -------------------------------------------------------------------------------------------------------------


def debug() -> bool:
    """True with GPUCONV_DEBUG=1: caches are checked for changes, running variances for their sign."""
    if _ENVIRONMENT is None:
        return os.environ.get("GPUCONV_DEBUG") == "1"
    return bool(_ENVIRONMENT.get(_DEBUG) == _ON)


def mark(**arrays: Any) -> dict[str, bytes] | None:
    """In debug mode, digests of what a cache refers to; else None."""
    if not debug():
        return None
    return {name: _digest(array) for name, array in arrays.items() if array is not None}


def unchanged(marks: dict[str, bytes] | None, **arrays: Any) -> None:
    """Check that the arrays a cache refers to are as they were in forward (debug mode only)."""
    for name, digest in (marks or {}).items():
        if _digest(arrays[name]) != digest:
            msg = f"{name} was changed in place between forward and backward, so the gradient would be wrong"
            raise CacheError(msg)


def nothing_like(array: Any) -> Any:
    """Return an empty array in the same place: how a cache that needs no array remembers where forward ran."""
    return array[None][:0].copy()


def cache_of(cache: Any, wanted: type, forward: str) -> None:
    """Check that a cache is the one the named forward returns."""
    if type(cache) is not wanted:
        msg = f"cache must be the one that {forward} returned, got {type(cache).__qualname__}"
        raise CacheError(msg)


def upstream(dy: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Check the incoming gradient against its forward's output."""
    given(dy=dy)
    if dy.dtype != dtype or not dy.dtype.isnative:
        msg = f"dy must have the forward's dtype {dtype}, got {dy.dtype}"
        raise DTypeError(msg)
    same_shape("dy", dy, shape, "the shape of the forward's output")


class _Places:
    """The addresses of an array on a GPU, in the form that NumPy takes over."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = {name: interface[name] for name in ("shape", "typestr", "data", "strides")}
        self.__array_interface__["version"] = 3


def _places(array: Any) -> np.ndarray:
    """Return an array of the same addresses that NumPy can compare; its elements must not be read."""
    if isinstance(array, np.ndarray):
        return array.view(np.ndarray)
    return np.asarray(_Places(array.__cuda_array_interface__))


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """True if an element of a lies where one of b does; columns of one array interleave and do not overlap."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # the stub knows 0 and -1 only
    except np.exceptions.TooHardError:
        return True


def _digest(array: Any) -> bytes:
    host = array if isinstance(array, np.ndarray) else array.get()
    return hashlib.blake2b(np.ascontiguousarray(host).tobytes(), digest_size=16).digest()
