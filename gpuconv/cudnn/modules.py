"""Make `from cupy import cudnn` find these functions, and undo it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from . import constants
from .errors import CuDNNError
from .refusals import SERVED

VERSION = 8900  # callers compare it with those of cuDNN
NAMES = ("cupy.cuda.cudnn", "cupyx.cudnn", "cupy.cudnn")
OWN = {"install", "installed", "uninstall"}  # what cupy.cudnn never had

_modules: dict[str, ModuleType] = {}


def _version() -> int:
    return VERSION


def _not_served(name: str) -> NoReturn:
    msg = f"gpuconv serves no {name}: it has no calls by pointer, but cupy.cudnn's {SERVED}"
    raise AttributeError(msg)


class _Finder(MetaPathFinder, Loader):
    """Find the three modules; at the end of the path, so that a real one wins."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, origin="gpuconv.cudnn") if fullname in NAMES else None

    def exec_module(self, module: ModuleType) -> None:
        public: dict[str, Any] = {name: value for name, value in vars(constants).items() if name.startswith("CUDNN_")}
        if module.__name__ == "cupy.cuda.cudnn":
            asked = {"available": True, "getVersion": _version, "get_build_version": _version}
            public |= {"CuDNNError": CuDNNError, **asked}
        else:
            package = importlib.import_module("gpuconv.cudnn")
            public |= {name: getattr(package, name) for name in package.__all__ if name not in OWN}
        vars(module).update(public, __getattr__=_not_served)
        _modules[module.__name__] = module


_FINDER = _Finder()


def install() -> bool:
    """Make cupy.cudnn, cupyx.cudnn and cupy.cuda.cudnn importable; call it before a client is imported.

    Returns False, and says so, where CuPy has modules of its own.  Twice is as good as once.  Raises ImportError without CuPy.

    >>> cudnn.install()
    True
    >>> from cupy import cudnn as as_before
    >>> as_before.convolution_forward is cudnn.convolution_forward
    True
    """
    if _FINDER in sys.meta_path:
        return True
    importlib.import_module("cupy")
    if importlib.util.find_spec("cupy.cuda.cudnn"):
        available = importlib.import_module("cupy.cuda.cudnn").available
        way = "cuDNN of its own" if available else "a cupy.cuda.cudnn of its own, though no cuDNN; CuPy 14 has neither"
        warnings.warn(f"CuPy has {way}: gpuconv.cudnn is not installed", stacklevel=2)
        return False
    sys.meta_path.append(_FINDER)
    for name in NAMES:
        importlib.import_module(name)
    config = sys.modules.get("sigpy.config")
    if config is not None and not getattr(config, "cudnn_enabled", True):
        msg = (
            "sigpy was imported before gpuconv.cudnn.install() and goes without cuDNN: install first, then import sigpy"
        )
        warnings.warn(msg, stacklevel=2)
    return True


def uninstall() -> None:
    """Take away what install() added; names that a client has bound already go on working.

    >>> cudnn.install()
    True
    >>> cudnn.uninstall()
    >>> import cupy.cudnn
    Traceback (most recent call last):
        ...
    ModuleNotFoundError: No module named 'cupy.cudnn'
    """
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    for name, module in _modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
        parent, _, child = name.rpartition(".")
        if parent in sys.modules and vars(sys.modules[parent]).get(child) is module:
            delattr(sys.modules[parent], child)
    _modules.clear()


@contextmanager
def installed() -> Iterator[None]:
    """Install inside a with block; what was installed before stays.

    >>> with cudnn.installed():
    ...     from cupy import cudnn as as_before
    >>> as_before.get_handle()
    1
    """
    before = _FINDER in sys.meta_path
    install()
    try:
        yield
    finally:
        if not before:
            uninstall()
