"""Loaded by every Python process that has this folder on its path: CuPy, once imported, runs on the CPU."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent


class _Beside:
    """Finds the two packages that are needed, and nothing else of the folder they lie in."""

    folder = str(_HERE.parents[1])

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in ("cupy_emulated", "emulate"):
            return None
        return importlib.machinery.PathFinder.find_spec(name, [cls.folder], target)


def _next():
    """Run the sitecustomize that this one hides, if there is one."""
    others = [place for place in sys.path if Path(place or ".").resolve() != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


sys.meta_path.insert(0, _Beside)
from cupy_emulated.activate import activate

activate()
_next()
