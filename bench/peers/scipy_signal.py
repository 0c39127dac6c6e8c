"""SciPy: one scipy.signal.correlate for each image and filter, direct or by FFT as SciPy chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..cases import pair, sides
from ..inputs import Inputs
from .base import Calls, NotOffered, Peer

_MOST_CALLS = 10_000  # of correlate, at about 0.1 ms each and more


class SciPy(Peer):
    label = "SciPy"
    packages = ("scipy",)

    def start(self, device: str, threads: int) -> str:
        import scipy

        return scipy.__version__

    def calls(self, inputs: Inputs) -> Calls:
        from scipy.signal import correlate

        case, options = inputs.case, inputs.case.options
        if (
            case.op != "conv"
            or len(case.x) != 4
            or options.get("groups", 1) != 1
            or pair(options.get("dilation", 1)) != (1, 1)
        ):
            msg = "correlates whole images: no groups, no dilation, nothing but convolution"
            raise NotOffered(msg)
        if inputs.channels_last or inputs.regime != "float32":
            msg = "is called in NCHW and float32"
            raise NotOffered(msg)
        if case.x[0] * case.y[1] > _MOST_CALLS:
            msg = f"would need {case.x[0] * case.y[1]:,} calls"
            raise NotOffered(msg)
        stride, pad = pair(options.get("stride", 1)), sides(options.get("pad", 0), 2)
        x, w, b = inputs.x, inputs.w, inputs.b
        assert w is not None
        assert b is not None

        def forward() -> Sequence[Any]:
            y = np.empty(case.y, x.dtype)
            padded = np.pad(x, ((0, 0), (0, 0), *pad))
            for n, image in enumerate(padded):
                for k, kernel in enumerate(w):
                    y[n, k] = correlate(image, kernel, mode="valid")[0, :: stride[0], :: stride[1]] + b[k]
            return (y,)

        return {"forward": forward}
