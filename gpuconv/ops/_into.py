"""Gradients of parameters into arrays that are there: what a net keeps, of both kinds of convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import fill


def parameters_into(
    backward: Callable[..., tuple[Any, Any, Any]], dy: Any, x: Any, w: Any, dw: Any, db: Any, *, input_grad: bool
) -> Any:
    """Return dx, and fill dw and db, either of which may be None, by backward(dy, x, w, wanted), which makes all three.

    Where they are wider than x, sums of 16 bits in float32, they are made from wider arrays, and dx from those that are given.
    """
    kept = {"weight_grad": dw is not None, "bias_grad": db is not None}
    dtype = next((array.dtype for array in (dw, db) if array is not None), x.dtype)
    if dtype == x.dtype:
        dx, *made = backward(dy, x, w, {"input_grad": input_grad, **kept})
    else:
        dx, *_ = backward(dy, x, w, {"input_grad": input_grad, **dict.fromkeys(kept, False)})
        _, *made = backward(*(array.astype(dtype) for array in (dy, x, w)), {"input_grad": False, **kept})
    fill((dw, db), made)
    return dx
