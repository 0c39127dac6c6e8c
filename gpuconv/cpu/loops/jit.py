"""How the loops are compiled: without the interpreter lock, by IEEE's rules, when their module is imported.

contract lets a * b + c round once.  reassoc, for sums only, lets a vector hold partial sums; their number is settled
when a loop is compiled, so the same block always gives the same bits.  Nothing else of "fast math" is allowed: NaN,
infinities and signed zeros are results here.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from numba import njit, types
from numba.core.ccallback import CFunc
from numba.core.compiler import Compiler
from numba.core.registry import cpu_target

from . import cache

# Nothing is allocated, so references need not be counted; only Python calls a pass, and only passes call what is inside.
_COMMON: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    "_nrt": False,
    "no_cfunc_wrapper": True,
}
_INSIDE: dict[str, Any] = {**_COMMON, "no_cpython_wrapper": True}
_SUMS = {"contract", "reassoc"}
_operator: contextvars.ContextVar[Notice | None] = contextvars.ContextVar("operator", default=None)


class _Apart(Compiler):
    """Promises LLVM that array arguments do not overlap, which it would else check each time, or not vectorise."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.flags.noalias = True


_callbacks: list[CFunc] = []  # whose machine code lives as long as they

# Helpers, compiled into the passes that call them.  They have no way in from Python: a call from there crashes.
loop = njit(fastmath={"contract"}, **_INSIDE)
apart_loop = njit(fastmath={"contract"}, pipeline_class=_Apart, **_INSIDE)
summing_loop = njit(fastmath=_SUMS, pipeline_class=_Apart, **_INSIDE)

if inspect.isfunction(loop(lambda: None)):
    msg = "NUMBA_DISABLE_JIT is set"
    raise ImportError(msg)

NUMBER = types.intp
PAIR, TRIPLE = types.UniTuple(types.intp, 2), types.UniTuple(types.intp, 3)


def vector_bits() -> int:
    """Return the width of the widest vectors that code for this processor may use."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return 512 if "+avx512f" in features else 256 if "+avx" in features else 128


def read(ndim: int, kind: types.Type = types.float32) -> types.Type:
    """An array argument that is only read: C-contiguous, and also taken where it is read-only."""
    return types.Array(kind, ndim, "C", readonly=True)


def write(ndim: int, kind: types.Type = types.float32) -> types.Type:
    """A C-contiguous array argument that is written."""
    return types.Array(kind, ndim, "C")


def compiled_pass(*arguments: types.Type, sums: bool = False, returns: types.Type = types.void) -> Callable:
    """Compile a pass for these arguments, which do not overlap, and for no others: or find it, compiled before."""

    def compile_now(function: Callable) -> Callable:
        dispatcher = njit(fastmath=_SUMS if sums else {"contract"}, pipeline_class=_Apart, **_COMMON)(function)
        with cache.Kept(function, _begin, _wait) as dispatcher._cache:
            dispatcher.compile(returns(*arguments))
        dispatcher.disable_compile()
        return dispatcher

    return compile_now


def callback(numbers: int) -> Callable:
    """Compile a function of so many numbers that passes call by its address: once, and not into each of them."""

    def compile_now(function: Callable) -> int:
        options = {"error_model": "numpy", "boundscheck": False, "fastmath": {"contract"}, "_nrt": False}
        compiled: Any = CFunc(function, ((NUMBER,) * numbers, types.void), {}, options)
        with cache.Kept(function, _begin, _wait) as compiled._cache:
            compiled.compile()
        _callbacks.append(compiled)
        return int(compiled.address)

    return compile_now


@contextlib.contextmanager
def compiling(operator: str) -> Iterator[None]:
    """Say, in one line, if loops have to be compiled inside, by this process or another, and how long that took."""
    notice = Notice(operator)
    token = _operator.set(notice)
    try:
        yield
    finally:
        _operator.reset(token)
        notice.end()


class Notice:
    """The line about an operator: on a terminal it begins before one has to wait; elsewhere it goes to the log."""

    def __init__(self, operator: str) -> None:
        self._operator = operator
        self._begun: float | None = None
        self._compiled = False

    def begin(self, *, elsewhere: bool) -> None:
        """Say what is going to take time, once; elsewhere: another process compiles, and this one waits for it."""
        self._compiled |= not elsewhere
        if self._begun is None:
            self._begun = time.perf_counter()
            if sys.stderr.isatty():
                does = "waiting for another process that compiles" if elsewhere else "compiling"
                sys.stderr.write(f"gpuconv: {does} loops of {self._operator} for this processor ...")
                sys.stderr.flush()

    def end(self) -> None:
        """Say how long it took."""
        if self._begun is None:
            return
        seconds = time.perf_counter() - self._begun
        if sys.stderr.isatty():
            sys.stderr.write(f" {seconds:.1f} s\n")
        else:
            did = "compiled" if self._compiled else "waited for another process to compile"
            logger = logging.getLogger("gpuconv")
            logger.info("%s loops of %s for this processor in %.1f s", did, self._operator, seconds)


def _begin(*, elsewhere: bool = False) -> None:
    notice = _operator.get()
    if notice is not None:
        notice.begin(elsewhere=elsewhere)


def _wait() -> None:
    _begin(elsewhere=True)
