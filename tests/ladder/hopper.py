"""The emulator's examples on a GPU: what it believes of tensor cores, TMA and mbarriers, held to hardware.

TMA and wgmma need sm_90a: elsewhere they are named as not run.  Of a dry run they run in the emulator, which is what
the tests do; the others run by CuPy, as on a GPU.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from typing import Any

import numpy as np
from emulate import EmulatedDevice, examples, fragments
from emulate.hopper import examples as hopper
from emulate.hopper.tensor_map import TensorMap

from .work import Work, line

_HOPPER = ("-std=c++17", "-arch=sm_90a")  # CuPy adds -arch=sm_90: the compiler takes the one with the a
_ANY = ("-std=c++17",)
_SHARED_BY_DEFAULT = 48 * 1024
_PLAIN = {  # of examples.PROBLEMS; those with wmma need a header that CuPy's wheels lack
    name: make for name, make in examples.PROBLEMS.items() if not name.startswith("wmma")
}
_DRY = ("box, swizzle 128, inside", "im2col, stride_2", "mbarrier for ordinary stores", "wgmma, bfloat16")


class Gpu:
    """CuPy's GPU with the face of an EmulatedDevice."""

    def __init__(self, options: tuple[str, ...]) -> None:
        import cupy

        self._cupy, self._options = cupy, options

    def compile(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
        names = tuple(expressions)
        module = self._cupy.RawModule(code=text, options=(*self._options, *options), name_expressions=names)
        return {name: module.get_function(name) for name in names}

    def empty(self, shape: Any, dtype: Any) -> Any:
        """Return an array of 0xFF bytes, so that what is never written shows."""
        array = self._cupy.empty(shape, dtype)
        self._cupy.cuda.runtime.memset(array.data.ptr, 0xFF, array.nbytes)
        return array

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return self._cupy.zeros(shape, dtype)

    def asarray(self, host: np.ndarray) -> Any:
        return self._cupy.asarray(host)

    def asnumpy(self, array: Any) -> np.ndarray:
        return self._cupy.asnumpy(array)

    def launch(self, function: Any, grid: Any, block: Any, args: Sequence[Any], shared: int = 0) -> None:
        passed = [np.asarray(arg.device()) if isinstance(arg, TensorMap) else arg for arg in args]
        if shared > _SHARED_BY_DEFAULT:
            function.max_dynamic_shared_size_bytes = shared
        function(_three(grid), _three(block), tuple(passed), shared_mem=shared)


class _Recorder(Gpu):
    """Notes what is compiled, and runs nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def compile(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
        self.asked.append((text, tuple(expressions)))
        return dict.fromkeys(expressions)

    def empty(self, shape: Any, dtype: Any) -> Any:
        return np.zeros(shape, dtype)

    zeros = empty

    def asarray(self, host: np.ndarray) -> Any:
        return host

    def asnumpy(self, array: Any) -> np.ndarray:
        return array

    def launch(self, function: Any, grid: Any, block: Any, args: Sequence[Any], shared: int = 0) -> None: ...


def _three(sizes: Sequence[int]) -> tuple[int, ...]:
    return (*sizes, 1, 1)[:3]


def run(work: Work) -> bool | None:
    """Run every example, those first that the kernels to come rest on."""
    import cupy

    capability = cupy.cuda.Device().compute_capability
    with_hopper = capability == "90" and not work.dry
    chosen = [f"plain {name}" for name in _PLAIN] + [f"mma {name}" for name in (*fragments.INSTRUCTIONS, "ldmatrix")]
    if with_hopper:
        _compile_ahead(work, list(hopper.EXAMPLES))
        chosen += hopper.EXAMPLES
    elif work.dry:
        chosen = [name for name in chosen if "tf32" not in name or "mma" in name] + list(_DRY)
        work.leave_out(f"TMA and wgmma by CuPy: of {len(hopper.EXAMPLES)} examples {len(_DRY)} run in the emulator")
    else:
        work.keep(**{"not run": f"TMA and wgmma need sm_90a, this is sm_{capability}"})
    device = EmulatedDevice("emulated", arch=90) if work.dry else Gpu(_HOPPER)
    return work.each(chosen, partial(_one, Gpu(_ANY), device))


def _one(plain: Any, device: Any, name: str) -> None:
    kind, _, rest = name.partition(" ")
    if kind == "plain":
        _PLAIN[rest]().check(plain)
    elif kind == "mma":
        functions = fragments.compiled(plain)
        if rest == "ldmatrix":
            for transposed in (False, True):
                np.testing.assert_array_equal(*fragments.loaded(plain, functions, transposed))
        else:
            got, (a, b, c) = fragments.multiplied(plain, functions, rest)
            want = a @ b + c
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    else:
        error = hopper.error_of(hopper.EXAMPLES[name](device))
        if not error <= hopper.LIMIT:
            msg = f"off by {error:.2g} of the largest value, {hopper.LIMIT:.0e} is rounding"
            raise AssertionError(msg)


def modules(names: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the texts and expressions that examples compile, each once."""
    recorder = _Recorder()
    for name in names:
        with np.errstate(all="ignore"):
            hopper.EXAMPLES[name](recorder)
    return list(dict.fromkeys(recorder.asked))


def _compile_ahead(work: Work, names: Sequence[str]) -> None:
    """Fill CuPy's cache in parallel: most of the examples' time is the compiler's."""
    todo = modules(names)
    failed = []
    pool = ProcessPoolExecutor(max(2, (os.cpu_count() or 2) - 2), multiprocessing.get_context("spawn"))
    futures = {pool.submit(compile_one, *each): each[1] for each in todo}
    try:
        for future in as_completed(futures, timeout=max(work.left() / 2, 1)):
            if (error := future.exception()) is not None:
                failed.append(f"{futures[future]}: {line(error)}")  # type: ignore[arg-type]
    except TimeoutError:
        failed.append("not all in half of the time")
    pool.shutdown(wait=False, cancel_futures=True)
    work.keep(**{"modules": len(todo), "not compiled ahead": failed})


def compile_one(text: str, expressions: tuple[str, ...]) -> None:
    """Compile one module for Hopper into CuPy's cache."""
    Gpu(_HOPPER).compile(text, "", expressions)
