"""What CuPy alone gives: the course's im2col on the GPU, its products by cuBLAS."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..clocks import Clock, cupy_clock
from ..inputs import Inputs
from ..memory import Meter, cupy_meter
from .base import Calls, NotOffered, Peer
from .course import layers


class CupyIm2col(Peer):
    label = "CuPy im2col"
    packages = ("cupy",)
    devices = metered = ("cuda",)

    def start(self, device: str, threads: int) -> str:
        import cupy

        return f"CuPy {cupy.__version__}"

    def calls(self, inputs: Inputs) -> Calls:
        import cupy

        if inputs.case.op == "max_pool" and not hasattr(cupy, "put_along_axis"):
            window = inputs.case.options["window"]
            if inputs.case.options.get("stride", window) != window:
                msg = "CuPy has no put_along_axis"
                raise NotOffered(msg)
        try:
            return layers(cupy, inputs, cupy.asarray)
        except ImportError:
            if inputs.case.op != "dropout":
                raise
            msg = "draws by cuRAND, which is not installed"
            raise NotOffered(msg) from None

    def host(self, result: Any, name: str, inputs: Inputs) -> np.ndarray:
        import cupy

        return cupy.asnumpy(result)

    def clock(self) -> Clock:
        return cupy_clock()

    def meter(self) -> Meter:
        return cupy_meter()
