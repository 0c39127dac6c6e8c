"""Put the stand-ins in place when CuPy is imported."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_RUNTIME = "cupy_backends.cuda.api.runtime"
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
    # PTX must not lie where CuPy on a GPU looks for machine code.
    kept = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
    os.environ["CUPY_CACHE_DIR"] = str(kept if kept.name == _CACHE else kept / _CACHE)
    sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds CuPy's runtime module as others do, and patches it as soon as it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _RUNTIME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        from .install import install

        module = self._loader.create_module(spec)
        install()
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
