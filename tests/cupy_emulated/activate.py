"""Put the stand-ins in place when CuPy is imported."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_CACHE = "emulated"
_active = False


def activate() -> None:
    """Let CuPy run on the CPU in this process: call this before it is imported.  Nothing is loaded until then."""
    global _active  # noqa: PLW0603 - once in a process
    if _active:
        return
    _active = True
    os.environ["CUPY_COMPILE_WITH_PTX"] = "1"  # NVRTC makes PTX, which can be translated, not machine code
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB is compiled for GPUs: reductions by CuPy's own kernels
    os.environ.setdefault("CUPY_NVRTC_USE_PCH", "1")  # CuPy's headers are parsed once in a process
    # PTX must not lie where CuPy on a GPU looks for machine code.
    kept = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
    os.environ["CUPY_CACHE_DIR"] = str(kept if kept.name == _CACHE else kept / _CACHE)
    sys.meta_path.insert(0, _Finder())


def _runtime_is_loaded() -> None:
    from .install import install

    install()


def _cupy_is_imported() -> None:
    from .install import finish

    finish()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds two modules of CuPy as others do, and acts when the one is loaded and when the other has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in ("cupy", "cupy_backends.cuda.api.runtime"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            is_cupy = name == "cupy"
            spec.loader = _Loader(spec.loader, _cupy_is_imported if is_cupy else _runtime_is_loaded, late=is_cupy)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads as another one does, and calls a function before the module runs, or after (`late`)."""

    def __init__(self, loader: Any, function: Callable[[], None], *, late: bool) -> None:
        self._loader, self._function, self._late = loader, function, late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # what importlib.resources and others ask of it

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if not self._late:
            self._function()
        self._loader.exec_module(module)
        if self._late:
            self._function()
