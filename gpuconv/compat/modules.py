"""The courses' modules: their names, what `from ... import *` gets of each, and their place in sys.modules."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from ..backend import use
from ..errors import ConfigError
from . import (
    cnn,
    conv_layers,
    data_utils,
    fast_layers,
    fc_net,
    gradient_check,
    im2col,
    layer_utils,
    layers,
    optim,
    optim_ucla,
    solver,
    vis_utils,
)
from .params import set_dropout_p

# What each module of a course offers.  CS231n's layers hold all of them; UCLA has its convolutions in a module that
# imports the others.  The tools of UCLA's older years lie in cs231n, those of 2023 and 2024 in utils.
_TOOLS: dict[str, tuple[ModuleType, ...]] = {
    "data_utils": (data_utils,),
    "fast_layers": (im2col, fast_layers),
    "gradient_check": (gradient_check,),
    "im2col": (im2col,),
    "im2col_cython": (im2col,),
    "solver": (solver,),
    "vis_utils": (vis_utils,),
}
_UCLA: dict[str, tuple[ModuleType, ...]] = {
    "layers": (layers,),
    "conv_layers": (layers, conv_layers),
    "layer_utils": (layers, layer_utils),
    "conv_layer_utils": (layers, conv_layers, fast_layers, layer_utils),
    "cnn": (layers, conv_layers, fast_layers, layer_utils, cnn),
    "fc_net": (layers, layer_utils, fc_net),
    "optim": (optim, optim_ucla),
}
_STANFORD: dict[str, tuple[ModuleType, ...]] = {
    "layers": (layers, conv_layers),
    "layer_utils": (layers, conv_layers, fast_layers, layer_utils),
    "optim": (optim,),
    "classifiers.cnn": (layers, conv_layers, fast_layers, layer_utils, cnn),
    "classifiers.fc_net": (layers, layer_utils, fc_net),
}
MODULES: dict[str, tuple[ModuleType, ...]] = {
    **{f"nndl.{name}": parts for name, parts in _UCLA.items()},
    **{f"utils.{name}": parts for name, parts in _TOOLS.items()},
    **{f"cs231n.{name}": parts for name, parts in (_TOOLS | _STANFORD).items()},
}
_PACKAGES = ("nndl", "utils", "cs231n", "cs231n.classifiers")

# What stood in sys.modules before, by name; None for nothing.
_before: dict[str, ModuleType | None] = {}


def install(*names: str, device: str | None = None, dropout_p: str | None = None) -> None:
    """Let imports of the courses' modules find ours, from now on and whatever files lie beside the notebook.

    Modules of a student's own in a folder of the same name (nndl/layer_tests.py) are found as before, and find ours; so
    are the names in a file utils.py, or in the __init__.py of such a folder.

    names: modules to replace, such as "fast_layers" (in every package that has it) or "cs231n.solver"; all others
    stay the student's own.  None: everything, nndl, utils and cs231n.
    device: "cpu", "cuda" or "auto", as in gpuconv.use.   dropout_p: whether p is the probability to "keep" or to
    "drop", where a notebook's year has the other one; see params.set_dropout_p.

    Call it before the notebook's own imports: names that are bound already stay what they are.
    Raises ConfigError for a name that no course has.

    >>> compat.install()
    >>> from nndl.layers import affine_forward
    >>> y, cache = affine_forward(np.ones((2, 3)), np.ones((3, 4)), np.zeros(4))
    >>> y.shape
    (2, 4)
    """
    chosen = [name for name in MODULES if not names or name in names or name.rpartition(".")[2] in names]
    for name in names:
        if name not in MODULES and not any(full.rpartition(".")[2] == name for full in MODULES):
            known = ", ".join(sorted({full.rpartition(".")[2] for full in MODULES}))
            msg = f"no course has a module {name!r}, there are: {known}"
            raise ConfigError(msg)
    if device is not None:
        use(device)
    if dropout_p is not None:
        set_dropout_p(dropout_p)
    if not names:
        for package in _PACKAGES:
            _put(package, _module(package, ()))
    for name in chosen:
        _put(name, _module(name, MODULES[name]))
    if not names and _NotServed not in sys.meta_path:
        sys.meta_path.append(_NotServed)


def uninstall() -> None:
    """Put back what install has replaced.

    >>> compat.install()
    >>> compat.uninstall()
    >>> import nndl
    Traceback (most recent call last):
        ...
    ModuleNotFoundError: No module named 'nndl'
    """
    for name, module in _before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module
        _tell_parent(name, module)
    _before.clear()
    if _NotServed in sys.meta_path:
        sys.meta_path.remove(_NotServed)
    set_dropout_p("keep")


def _module(name: str, parts: tuple[ModuleType, ...]) -> ModuleType:
    """Return a new module with the public functions and classes that are defined in ours, and np, as notebooks rely on."""
    module = ModuleType(name, f"gpuconv.compat in the place of the course's {name}.")
    module.__spec__ = ModuleSpec(name, None, is_package=name in _PACKAGES)
    if name in _PACKAGES:
        own = _own_spec(name)
        module.__path__ = list(own.submodule_search_locations or ()) if own else []
        module.__getattr__ = _OwnNames(module, own, sys.modules.get(name))  # type: ignore[method-assign]
        return module
    for part in parts:
        for key, value in vars(part).items():
            ours = isinstance(value, (FunctionType, type)) and value.__module__ == part.__name__
            if ours and not key.startswith("_"):
                setattr(module, key, value)
    module.np = np  # type: ignore[attr-defined]
    return module


def _own_spec(package: str) -> ModuleSpec | None:
    """Return where a student's package or module of this name lies: what is in it and not in the lists stays importable."""
    parent = sys.modules.get(package.rpartition(".")[0])
    return PathFinder.find_spec(package, getattr(parent, "__path__", None))


class _OwnNames:
    """Finds the names that a student's own package or module has and ours in its place lacks.

    Its code is run when the first of them is asked for, in ours and once; one that was imported before is asked itself.
    """

    def __init__(self, module: ModuleType, spec: ModuleSpec | None, imported: ModuleType | None) -> None:
        self._module, self._spec, self._imported = module, spec, imported

    def __call__(self, name: str) -> Any:
        if not name.startswith("__") or name == "__all__":
            if self._imported is not None and hasattr(self._imported, name):
                return getattr(self._imported, name)
            if self._imported is None:
                self._run()
            if name in vars(self._module):
                return vars(self._module)[name]
        msg = f"module {self._module.__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)

    def _run(self) -> None:
        spec, self._spec = self._spec, None
        code = getattr(spec.loader, "get_code", lambda name: None)(spec.name) if spec is not None else None
        if spec is None or code is None:
            return
        names = vars(self._module)
        ours = {name: value for name, value in names.items() if isinstance(value, ModuleType)}
        names["__file__"] = spec.origin
        try:
            exec(code, names)  # noqa: S102 - as an import would
        except BaseException:
            self._spec = spec  # to fail alike when it is asked again
            raise
        names.update(ours)


class _NotServed:
    """Is asked last for a module of a course, when neither we nor the student's files have it, and says so."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        package, _, own = name.partition(".")
        if package not in ("nndl", "cs231n") or not own:  # any other program may have a package utils
            return
        served = ", ".join(full.partition(".")[2] for full in MODULES if full.startswith(f"{package}."))
        msg = f"{name} is none of the modules that gpuconv.compat serves, and no file of the course is beside it; "
        msg += f"{package} has {served}"
        raise ModuleNotFoundError(msg, name=name)


def _put(name: str, module: ModuleType) -> None:
    """Place a module under its name, in sys.modules and in its package."""
    _import_package(name.rpartition(".")[0])
    _before.setdefault(name, sys.modules.get(name))
    sys.modules[name] = module
    _tell_parent(name, module)


def _import_package(name: str) -> None:
    """Import a package if it is not yet; where there is none, place an empty one."""
    if not name or name in sys.modules:
        return
    _import_package(name.rpartition(".")[0])
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        _put(name, _module(name, ()))


def _tell_parent(name: str, module: ModuleType | None) -> None:
    """Let a package know its module, or that it has none."""
    parent, _, own = name.rpartition(".")
    if parent not in sys.modules:
        return
    if module is not None:
        setattr(sys.modules[parent], own, module)
    else:
        vars(sys.modules[parent]).pop(own, None)
