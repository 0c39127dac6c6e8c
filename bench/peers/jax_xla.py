"""JAX, compiled by XLA."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..cases import pair, sides
from ..clocks import Clock, HostClock, QueueClock
from ..inputs import Inputs
from .base import Calls, NotOffered, Peer


class Jax(Peer):
    label = "JAX"
    packages = ("jax", "jaxlib")
    devices = ("cpu", "cuda")

    def start(self, device: str, threads: int) -> str:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        os.environ["JAX_PLATFORMS"] = device
        # XLA takes its number of threads from the cores that the process may use; the harness sets those.
        import jax

        self.device = device
        try:
            jax.devices()
        except RuntimeError as error:
            msg = f"JAX {jax.__version__} has no {device}: {str(error).splitlines()[0]}"
            raise NotOffered(msg) from None
        if jax.default_backend() != {"cpu": "cpu", "cuda": "gpu"}[device]:
            msg = f"JAX {jax.__version__} has started on {jax.default_backend()} in this process, and stays there"
            raise NotOffered(msg)
        return jax.__version__

    def calls(self, inputs: Inputs) -> Calls:
        import jax

        if len(inputs.case.x) not in (2, 4):
            msg = "is called on images: its operators of signals and volumes are not written"
            raise NotOffered(msg)
        precision = "default" if inputs.regime == "tf32" else "highest"
        with jax.default_matmul_precision(precision):
            function = operator(inputs, precision)
            arrays = [jax.device_put(_ordered(inputs.x, inputs))]
            arrays += [jax.device_put(array) for array in (inputs.w, inputs.b) if array is not None]
            dy = jax.device_put(_ordered(inputs.dy, inputs))
            forward = jax.jit(function)
            _, vjp = jax.vjp(function, *arrays)
            backward = jax.jit(lambda pullback, upstream: pullback(upstream))
            forward(*arrays), backward(vjp, dy)  # compiled here, under this precision
        if self.device == "cuda":  # the clock waits, once a round
            return {"forward": lambda: (forward(*arrays),), "backward": lambda: backward(vjp, dy)}
        return {
            "forward": lambda: (forward(*arrays).block_until_ready(),),
            "backward": lambda: jax.block_until_ready(backward(vjp, dy)),
        }

    def clock(self) -> Clock:
        import jax

        return HostClock() if self.device == "cpu" else QueueClock(jax.block_until_ready)

    def host(self, result: Any, name: str, inputs: Inputs) -> np.ndarray:
        array = np.asarray(result)
        return (
            array.transpose(0, 3, 1, 2) if inputs.channels_last and name in ("y", "dx") and array.ndim == 4 else array
        )


def _ordered(array: Any, inputs: Inputs) -> np.ndarray:
    """Return images in the order of axes that JAX is told of."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1) if inputs.channels_last and array.ndim == 4 else array)


def operator(inputs: Inputs, precision: str) -> Callable[..., Any]:
    """Return a case's operator as a function of x, and of w and b where it has them."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    op, options = inputs.case.op, inputs.case.options
    last = inputs.channels_last
    rows, columns = (1, 2) if last else (2, 3)
    channel = (1, 1, 1, -1) if last else (1, -1, 1, 1)
    pads = sides(options.get("pad", 0), 2)
    if op == "conv":
        layout = "NHWC" if last else "NCHW"

        def conv(x: Any, w: Any, b: Any) -> Any:
            y = lax.conv_general_dilated(
                x,
                w,
                pair(options.get("stride", 1)),
                pads,
                rhs_dilation=pair(options.get("dilation", 1)),
                dimension_numbers=(layout, "OIHW", layout),
                feature_group_count=options.get("groups", 1),
                precision=precision,
            )
            return y + b.reshape(channel)

        return conv
    if op in ("max_pool", "average_pool"):
        window = pair(options["window"])
        stride = pair(options.get("stride", window))

        def spread(values: Any, rest: Any) -> tuple[Any, ...]:
            full = [rest] * 4
            full[rows], full[columns] = values
            return tuple(full)

        window_, stride_, pads_ = spread(window, 1), spread(stride, 1), spread(pads, (0, 0))
        apart, ceil = pair(options.get("dilation", 1)), options.get("ceil", False)
        if apart != (1, 1):
            msg = "has no gradient of maxima in dilated windows"
            raise NotOffered(msg)
        if op == "max_pool":
            axes = zip(inputs.case.x[2:], inputs.case.y[2:], window, stride, pads, strict=True)
            reach = [(before, max(after, (q - 1) * s + r - n - before)) for n, q, r, s, (before, after) in axes]
            pads_ = spread(reach, (0, 0))
            return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window_, stride_, pads_)
        if ceil:
            msg = "divides sums over windows by their size"
            raise NotOffered(msg)
        return lambda x: lax.reduce_window(x, 0.0, lax.add, window_, stride_, pads_) / (window[0] * window[1])
    if op == "upsample":
        if options.get("align_corners", False):
            msg = "resizes without corners on corners"
            raise NotOffered(msg)
        larger = list(inputs.case.y)
        if last:
            larger = [larger[0], *larger[2:], larger[1]]
        return lambda x: jax.image.resize(x, larger, options["mode"])
    if op == "global_average_pool":
        return lambda x: x.mean((rows, columns))
    if op == "spatial_batchnorm":

        def batchnorm(x: Any, gamma: Any, beta: Any) -> Any:
            wide = x.astype(jnp.float32)
            mean = wide.mean((0, rows, columns), keepdims=True)
            var = wide.var((0, rows, columns), keepdims=True)
            y = (wide - mean) * lax.rsqrt(var + 1e-5) * gamma.reshape(channel) + beta.reshape(channel)
            return y.astype(x.dtype)

        return batchnorm
    if op == "gelu":
        return lambda x: jax.nn.gelu(x, approximate=False)
    if not hasattr(jax.nn, op):
        msg = f"its {op} is not written"
        raise NotOffered(msg)
    return partial(getattr(jax.nn, op), **options)  # a function of single elements has the same name there
