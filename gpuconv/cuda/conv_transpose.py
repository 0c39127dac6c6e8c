"""Launches of transposed convolution: those of convolution, whose backward it does forward."""

from __future__ import annotations

from typing import Any

from .conv import Sizes, transposed, transposed_gradients


def conv_transpose_forward(x: Any, w: Any, b: Any, sizes: Sizes) -> Any:
    return transposed(x, w, b, sizes)


def conv_transpose_backward(
    dy: Any, x: Any, w: Any, sizes: Sizes, *, input_grad: bool, weight_grad: bool, bias_grad: bool
) -> tuple[Any, Any, Any]:
    wanted = {"input_grad": input_grad, "weight_grad": weight_grad, "bias_grad": bias_grad}
    return transposed_gradients(dy, x, w, sizes, **wanted)
