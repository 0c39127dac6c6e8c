"""Convolution, max-pooling and batch normalisation on NumPy arrays, and what a net needs around them.

The operators are here: each has a `_forward`, which returns (y, cache), and a `_backward`, which takes (dy, cache).

    nn        layers, nets, optimisers, learning rates
    train     training, runs and what became of them
    data      data sets, and the order in which an epoch shows them
    export    nets as files for other programs, and back
    testing   gradients held to central differences
    typing    types of arrays, for signatures of one's own
    errors    what is raised
    compat    the modules of two courses by their names
    cudnn     the functions that CuPy had until 13

Examples in docstrings begin after

    import numpy as np
    import gpuconv
    from gpuconv import compat, cudnn, data, export, nn, testing, train
"""

# The command `gpuconv` begins here, too: Ctrl-C, which ends it with 130, has no traceback to show for that.
try:
    from . import interrupts

    interrupts.end_at_once()
except KeyboardInterrupt:
    from . import interrupts

    if interrupts.is_command():
        raise SystemExit(130) from None
    raise

# X as X: what type checkers and editors take for public without a list, which they could not read from ops.
from typing import TYPE_CHECKING

from . import ops as ops
from .backend import default_device as default_device
from .backend import free_memory as free_memory
from .backend import use as use
from .errors import GpuconvError as GpuconvError
from .ops import *

if TYPE_CHECKING:
    from . import compat as compat
    from . import cudnn as cudnn
    from . import data as data
    from . import errors as errors
    from . import export as export
    from . import nn as nn
    from . import testing as testing
    from . import train as train
    from . import typing as typing
    from .runs.prediction import load as load

    __version__: str
else:
    __all__ = ["GpuconvError", "default_device", "free_memory", "load", "use"]
    __all__ += ops.__all__

    _PARTS = ("compat", "cudnn", "data", "export", "nn", "testing", "train")  # imported when first touched

    def __getattr__(name):
        if name in _PARTS:
            from importlib import import_module

            return import_module(f"{__name__}.{name}")
        if name == "load":
            from .runs.prediction import load

            return load
        if name == "__version__":
            from .version import gpuconv_version

            return gpuconv_version()
        if name.startswith("_"):  # what programs ask of any module: no reason to import more
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from .nn.choice import no_attribute

        stems = {known.removesuffix("_forward").removesuffix("_update"): known for known in __all__}
        raise no_attribute(__name__, name, stems | {known: known for known in __all__})

    def __dir__():
        own = {name for name in globals() if name.startswith("__")}
        return sorted({*own, *__all__, *_PARTS, "errors", "typing", "__version__"})
