"""gpuconv itself, on NumPy or CuPy arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

import gpuconv
from gpuconv import backend, ops
from gpuconv.backend import loops_in_words
from gpuconv.runs.settings import PRESETS
from gpuconv.train import recipe
from gpuconv.version import gpuconv_version

from ..cases import LOSSES
from ..clocks import Clock, HostClock, cupy_clock
from ..inputs import Inputs
from ..memory import Meter, cupy_meter, numpy_meter
from .base import Calls, NotOffered, Peer


class Ours(Peer):
    label = "gpuconv"
    devices = metered = ("cpu", "cuda")
    takes_complex = True

    def start(self, device: str, threads: int) -> str:
        gpuconv.use(device)
        self.device = device
        return gpuconv_version()

    def calls(self, inputs: Inputs) -> Calls:
        if inputs.regime == "tf32":
            msg = "computes float32 as float32"
            raise NotOffered(msg)
        case = inputs.case
        if case.op == "train_step":
            if inputs.regime != "float32":
                msg = "trains in float32"
                raise NotOffered(msg)
            step = TrainStep(inputs)
            return {"step": lambda: (step(),)}
        if case.op in LOSSES:
            loss = getattr(gpuconv, case.op)
            scores, labels = self._put(inputs.x), self._put(inputs.labels)
            return {"loss": lambda: loss(scores, labels, **case.options)}
        forward = getattr(gpuconv, f"{case.op}_forward")
        backward = getattr(gpuconv, f"{case.op}_backward")
        arrays = [self._put(array) for array in (inputs.x, inputs.w, inputs.b) if array is not None]
        if case.op in ("batchnorm", "spatial_batchnorm") and inputs.w is not None:
            C = case.x[1]
            arrays += [self._put(np.zeros(C, inputs.w.dtype)), self._put(np.ones(C, inputs.w.dtype))]
        dy = self._put(inputs.dy)
        _, cache = forward(*arrays, **case.options)

        def back() -> Sequence[Any]:
            result = backward(dy, cache)
            return result if isinstance(result, tuple) else (result,)

        return {"forward": lambda: forward(*arrays, **case.options)[:1], "backward": back}

    def _put(self, array: Any) -> Any:
        """Return an array where this side computes, in its own memory format."""
        if self.device == "cpu" or array.ndim != 4:
            return backend.asarray(array)
        inner = backend.asarray(np.ascontiguousarray(array.transpose(0, 2, 3, 1)))  # the copy keeps no strides
        return inner.transpose(0, 3, 1, 2) if not array.flags.c_contiguous else backend.asarray(array)

    def host(self, result: Any, name: str, inputs: Inputs) -> np.ndarray:
        return np.asarray(backend.asnumpy(result))

    def clock(self) -> Clock:
        return HostClock() if self.device == "cpu" else cupy_clock()

    def meter(self) -> Meter:
        return numpy_meter() if self.device == "cpu" else cupy_meter()


class NumPyAlone(Ours):
    """gpuconv as it computes where its passes are not compiled; elsewhere there is nothing to compare."""

    label = "gpuconv, NumPy alone"
    packages = ("numba",)
    devices = metered = ("cpu",)
    variables: ClassVar = {"GPUCONV_COMPILED": "0"}

    def start(self, device: str, threads: int) -> str:
        if (words := loops_in_words()) != self.label.partition(", ")[2]:
            msg = f"this process computes with {words}, unless GPUCONV_COMPILED=0"
            raise NotOffered(msg)
        return super().start(device, threads)


class TrainStep:
    """One step of a preset at a time, on the same batch: forward, loss, backward, optimiser.  A call returns the loss."""

    def __init__(self, inputs: Inputs, dtype: str = "float32") -> None:
        config = PRESETS[inputs.case.options["preset"]]
        self.net = recipe.net(config, inputs.case.x[1:], 10)
        if dtype != config.dtype:
            weights, state = (
                {k: v.astype(dtype) for k, v in part.items()} for part in (self.net.params, self.net.state)
            )
            self.net = recipe.net(dataclasses.replace(config, dtype=dtype), inputs.case.x[1:], 10)
            self.net.load(weights, state)
        self.optimiser = recipe.optimiser(config, self.net)
        self.lr = first_rate(config)
        self.smoothing = config.label_smoothing
        self.x = backend.asarray(inputs.x.astype(dtype, order="K"))
        self.labels = backend.asarray(inputs.labels)

    def __call__(self) -> Any:
        scores = self.net.forward(self.x, training=True)
        loss, dscores = ops.softmax_cross_entropy(scores, self.labels, label_smoothing=self.smoothing)
        self.net.backward(dscores)
        self.optimiser.step(self.lr)
        return loss


def first_rate(config: Any) -> float:
    """Return the learning rate of a preset's first step, which both sides keep: the highest would make losses chaotic."""
    return recipe.schedule(config, recipe.Plan(100, 100 * config.epochs))(0)
