"""The fully connected layer: what the user calls."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .. import checks
from ..backend import backend_of, fill, on_gpu
from ..elsewhere import says_ours
from ..errors import ShapeError
from ..typing import Array, Gradient
from . import _precision
from ._cache import Cache


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AffineCache(Cache):
    """What affine_backward needs: the inputs, by reference."""

    x: Any
    w: Any
    has_bias: bool
    marks: dict[str, bytes] | None
    precision: str | None = None


@says_ours()
def affine_forward(
    x: Array, w: Array, b: Array | None = None, *, precision: str | None = None
) -> tuple[Array, AffineCache]:
    """Multiply every flattened sample by a matrix and add a vector; return (y, cache).

    x: (N, d1, ..., dk)   w: (D, M)   b: (M,) or None   ->   y = x.reshape(N, D) @ w + b: (N, M)   with D = d1 ... dk

    precision="tf32" is leave for cuBLAS to round each factor to TF32, of float32 arrays on a GPU of compute capability
    8.0 or later, here and in affine_backward.  How it rounds and adds up is not documented: if it cuts off, a factor is
    off by up to 2^-10 of itself.

    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> w, b = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]), np.array([0.0, 0.0, 10.0])
    >>> y, cache = gpuconv.affine_forward(x, w, b)
    >>> y
    array([[ 1.,  2., 13.],
           [ 3.,  4., 17.]])
    """
    checks.given(x=x, w=w)
    backend = backend_of(x=x, w=w, b=b)
    checks.common_dtype(x=x, w=w, b=b)
    precision = _precision.check(precision, x)
    if x.ndim < 2:
        msg = f"x must be (N, d1, ..., dk), got shape {tuple(x.shape)}"
        raise ShapeError(msg)
    checks.not_empty("x", x, "(N, d1, ..., dk)")
    checks.ndim("w", w, 2, "(D, M)")
    features = x[0:1].size if x.shape[0] else _product(x.shape[1:])
    if w.shape[0] != features or w.shape[1] == 0:
        msg = f"x has {features} features but w expects {w.shape[0]}: x {tuple(x.shape)}, w {tuple(w.shape)}"
        raise ShapeError(msg)
    if b is not None:
        checks.same_shape("b", b, w.shape[1:], "one entry per column of w,")
    y = backend.affine_forward(x, w, b) if precision is None else backend.affine.forward(x, w, b, precision=precision)
    return y, AffineCache(x, w, b is not None, checks.mark(x=x, w=w), precision)


def affine_backward(
    dy: Array, cache: AffineCache, *, input_grad: bool = True
) -> tuple[Gradient[Array], Gradient[Array], Gradient[Array]]:
    """Return (dx, dw, db).   dy: (N, M)  ->  dx: (N, d1, ..., dk)   dw: (D, M)   db: (M,).

    dx is None with input_grad=False; db is None where forward had no b.

    >>> y, cache = gpuconv.affine_forward(np.ones((5, 3, 4)), np.ones((12, 2)), np.zeros(2))
    >>> dx, dw, db = gpuconv.affine_backward(np.ones_like(y), cache)
    >>> dx.shape, dw.shape, db
    ((5, 3, 4), (12, 2), array([5., 5.]))
    """
    backend = _checked(dy, cache)
    input_grad = checks.flag("input_grad", input_grad)
    wanted = {"input_grad": input_grad, "bias_grad": cache.has_bias}
    if cache.precision is not None:
        return backend.affine.gradients(dy, cache.x, cache.w, **wanted, precision=cache.precision)
    return backend.affine_backward(dy, cache.x, cache.w, **wanted)


def affine_backward_into(dy: Any, cache: AffineCache, dw: Any, db: Any, *, input_grad: bool = True) -> Any:
    """Return dx as affine_backward does, and fill dw and db: what a net keeps, on a GPU C-contiguous and written there.

    db is None where forward had no b.  Beside 16 bits dw and db may be float32: the sums as they are, not rounded.
    """
    backend = _checked(dy, cache)
    input_grad = checks.flag("input_grad", input_grad)
    if on_gpu(cache.x):
        given = dy, cache.x, cache.w, dw, db
        return backend.affine.affine_backward_into(*given, input_grad=input_grad, precision=cache.precision)
    x, w, bias_grad = cache.x, cache.w, cache.has_bias
    dx, *made = backend.affine_backward(dy, x, w, input_grad=input_grad, bias_grad=bias_grad)
    if dw.dtype != x.dtype:
        wide = (array.astype(dw.dtype) for array in (dy, x, w))
        _, *made = backend.affine_backward(*wide, input_grad=False, bias_grad=bias_grad)
    fill((dw, db), made)
    return dx


def _checked(dy: Any, cache: Any) -> ModuleType:
    """Return the backend where dy belongs to the cache."""
    checks.cache_of(cache, AffineCache, "affine_forward")
    backend = backend_of(dy=dy, x=cache.x)
    checks.upstream(dy, (cache.x.shape[0], cache.w.shape[1]), cache.x.dtype)
    checks.unchanged(cache.marks, x=cache.x, w=cache.w)
    return backend


def _product(sizes: tuple[int, ...]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
