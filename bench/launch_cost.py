"""What a launch costs the host before CUDA is asked: Kernel.__call__, beside a plain call of a function.

    python -m bench.launch_cost

The device launches nothing, so that neither a GPU nor CuPy is needed; where CuPy is there, the same launches on its
arrays follow, up to the call of CuPy's function.  Of each launch: the least of many repeats, in microseconds and in
calls of a function that takes the same arguments and does nothing.  On a busy machine the second number is the one to
compare.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np

from gpuconv.cuda import conv, conv_tiles, relu, update
from gpuconv.cuda.device import CupyDevice, gpu_status
from gpuconv.cuda.kernel import Kernel
from gpuconv.shapes import ConvSizes

_CALLS, _REPEATS = 100, 1_000  # so short that some meet no other work


class Array(np.ndarray):
    """Memory of the device that launches nothing."""


class NoDevice:
    """A device that takes launches and does nothing with them."""

    name, arch, sm_count = "none", 90, 132

    def holds(self, array: Any) -> bool:
        return isinstance(array, Array)

    def compile(self, text: str, file: str, expressions: tuple[str, ...], options: tuple[str, ...]) -> dict[str, Any]:
        return {expression: expression for expression in expressions}

    def launch(self, function: Any, grid: Any, block: Any, args: Any, shared: int) -> None:
        pass

    def synchronize(self) -> None:
        pass


class UpToCupy(CupyDevice):
    """CuPy's GPU, whose kernels do nothing."""

    def compile(self, text: str, file: str, expressions: tuple[str, ...], options: tuple[str, ...]) -> dict[str, Any]:
        return dict.fromkeys(expressions, _nothing)


def _nothing(grid: Any, block: Any, args: Any, shared_mem: int) -> None:
    pass


def no_memory(*shape: int) -> Any:
    """Return an array of NoDevice."""
    return np.zeros(shape, np.float32).view(Array)


def _plain(device: Any, templates: Any, grid: Any, *args: Any, shared: int = 0) -> None:
    """Take what a kernel takes."""


def launches(
    empty: Callable[..., Any],
) -> dict[str, tuple[Kernel, tuple[Any, ...], int | tuple[int, ...], tuple[Any, ...]]]:
    """Return launches as launchers make them: kernel, template arguments, grid, arguments."""
    kind = np.dtype(np.float32)
    x, w, y, b = empty(2, 8, 8, 4), empty(16, 4, 3, 3), empty(2, 8, 8, 16), empty(16)
    sizes = ConvSizes(
        N=2, C=4, H=8, W=8, K=16, R=3, S=3, P=8, Q=8, stride=(1, 1), pad=(1, 1), dilation=(1, 1), groups=1
    )
    steps = {"w": 1, "dw": 1, "first": 1, "second": 0}
    return {
        "relu_forward: 2 arrays, 1 number": (relu._FORWARD, (kind,), 4, (x, y, x.size)),
        "conv_forward_tiled: 4 arrays, 1 struct": (
            conv._IMAGE_KERNELS["forward"]["tiled"],
            (kind, True, False, False, *conv_tiles.SMALL),
            8,
            (x, w, b, y, conv._shape(sizes)),
        ),
        "conv_pack_filters: 3 arrays, 7 numbers": (
            conv._PACK,
            (kind, True),
            8,
            (w, y, None, 1, 16, 4, 9, 8, 72, 64),
        ),
        "sgd_update: 4 arrays, 1 mapping, 5 numbers, none by its place": (
            update._SGD,
            (kind, kind, True),
            4,
            (b, b.copy(), b.copy(), None, steps, 16, None, None, 0.1, 0.9, False, 0.0),
        ),
    }


def least(call: Callable[[], None]) -> float:
    """Return the microseconds of one call, the least of many repeats."""
    return min(timeit.repeat(call, timer=time.thread_time, number=_CALLS, repeat=_REPEATS)) / _CALLS * 1e6


def main() -> None:
    show(NoDevice(), no_memory)
    if gpu_status()[0]:
        import cupy

        print("on CuPy's arrays, up to CuPy's call:")
        show(UpToCupy(0), lambda *shape: cupy.empty(shape, np.float32))


def show(device: Any, empty: Callable[..., Any]) -> None:
    """Print a line for each launch on a device, whose arrays `empty` makes."""
    for name, (kernel, templates, grid, args) in launches(empty).items():
        kernel(device, templates, grid, *args)
        plain = least(lambda: _plain(device, templates, grid, *args))  # noqa: B023 - called at once
        launch = least(lambda: kernel(device, templates, grid, *args))  # noqa: B023
        print(f"{name}: {launch:.2f} us, {launch / plain:.1f} plain calls of {plain:.3f} us")


if __name__ == "__main__":
    main()
