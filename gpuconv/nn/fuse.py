"""What a net runs on a GPU in place of its layers: batch norm with what follows it in one pass.

The layers are what a user sees, saves and exports; units hold no array of their own.  Of a Sequential, runs of batch
norm with ReLU, GELU or a 2 x 2 max-pool become one unit, and a Residual whose body ends with a batch norm adds its
shortcut there, before or after an activation.  A convolution takes the maxima of a 2 x 2 max-pool behind it, and the
moments for a batch norm behind both.  Results and gradients are those of the layers, bit for bit, but for such moments,
which are added up in another order.  A batch norm that shares its batches with other processes stays a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .. import checks
from ..backend import add
from ..errors import CacheError
from ..ops.batchnorm_fused import fused_backward_into, fused_forward, joined
from ..ops.conv_fused import conv_forward_fused
from .containers import Residual, Sequential, backward_through
from .layer import Layer
from .layers import BatchNorm, Conv, MaxPool
from .single_elements import Gelu, Relu

FUSED = True  # False: nets run layer by layer on a GPU, too


class Unit(Protocol):
    """What runs in place of layers: they themselves are such, too."""

    @property
    def trainable(self) -> bool: ...

    def forward(self, x: Any, *, training: bool = False, step: int = 0) -> Any: ...

    def backward(self, dy: Any, *, input_grad: bool = True) -> Any: ...


def fused(layer: Layer) -> Unit:
    """Return what computes as a layer does, on a GPU in fewer passes."""
    if type(layer) is Sequential:
        return _Chain(_units(_in_a_row(layer)))
    if type(layer) is Residual:
        return _Sum(layer, None)
    return layer


def _in_a_row(layer: Layer) -> list[Layer]:
    """Return the layers of a Sequential, and of those inside it, one after the other."""
    if type(layer) is not Sequential:
        return [layer]
    return [inner for child in layer.layers.values() for inner in _in_a_row(child)]


def _units(layers: list[Layer]) -> list[Unit]:
    """Return layers that follow one another as units."""
    units: list[Unit] = []
    while layers:
        first, *layers = layers
        if type(first) is Residual:
            relu = layers[0] if layers and type(layers[0]) is Relu else None
            both = _Sum(first, relu)
            units.append(both)
            layers = layers[1:] if both.cut_off else layers
        elif type(first) is BatchNorm and first.across is None:
            norm = _Norm(first, layers)
            if units and isinstance(units[-1], _Conv):
                units[-1].norm = norm
            units.append(norm)
            layers = layers[norm.taken :]
        elif type(first) is Conv:
            pool = layers[0] if layers and _kind(layers[0]) == "pool" else None
            units.append(_Conv(first, pool))
            layers = layers if pool is None else layers[1:]
        else:
            units.append(first)
    return units


class _Chain:
    """Units one after the other."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self.units = units

    @property
    def trainable(self) -> bool:
        return any(unit.trainable for unit in self.units)

    def forward(self, x: Any, *, training: bool = False, step: int = 0) -> Any:
        for unit in self.units:
            x = unit.forward(x, training=training, step=step)
        return x

    def backward(self, dy: Any, *, input_grad: bool = True) -> Any:
        return backward_through(self.units, dy, input_grad=input_grad)

    def backward_plus(self, dy: Any, plus: Any, mask: Any) -> Any:
        """Return backward(dy) + plus; mask: where plus counts, unless it is None."""
        first = self.units[0] if self.units else None
        if isinstance(first, _Conv):
            return first.backward_plus(backward_through(self.units[1:], dy, input_grad=True), plus, mask)
        dx = self.backward(dy)
        return add(dx, plus) if mask is None else joined(plus, mask, dx)


class _Conv:
    """A convolution, and the 2 x 2 max-pool behind it if there is one; `norm`: the batch norm behind both, if any."""

    def __init__(self, conv: Conv, pool: Layer | None) -> None:
        self.conv, self.pool = conv, pool
        self.norm: _Norm | None = None

    @property
    def trainable(self) -> bool:
        return self.conv.trainable

    def forward(self, x: Any, *, training: bool = False, step: int = 0) -> Any:
        conv, pool = self.conv, self.pool
        moments = training and self.norm is not None
        if (pool is None and not moments) or x.ndim != 4:
            y = conv.forward(x, training=training, step=step)
            return y if pool is None else pool.forward(y, training=training, step=step)
        y, cache, of_pool, found = conv_forward_fused(
            x,
            conv.weight("w", x),
            conv.weight("b", x),
            precision=conv.precision if training else None,
            pool=pool is not None,
            training=training,
            moments=moments,
            **conv.geometry,
        )
        conv.remember(cache if training else None)
        if pool is not None:
            pool.remember(of_pool if training else None)
        if self.norm is not None:
            self.norm.given = found
        return y

    def backward(self, dy: Any, *, input_grad: bool = True) -> Any:
        return backward_through(self._layers, dy, input_grad=input_grad)

    def backward_plus(self, dy: Any, plus: Any, mask: Any) -> Any:
        """Return backward(dy) + plus; mask: where plus counts, unless it is None."""
        return self.conv.backward_plus(backward_through(self._layers[1:], dy, input_grad=True), plus, mask)

    @property
    def _layers(self) -> list[Layer]:
        return [self.conv] if self.pool is None else [self.conv, self.pool]


class _Norm:
    """A batch norm, and what is taken of the layers behind it."""

    def __init__(self, norm: BatchNorm, behind: Sequence[Layer]) -> None:
        kinds = [_kind(layer) for layer in behind[:2]]
        self.norm = norm
        self.pool = kinds in (["pool", "relu"], ["relu", "pool"]) or kinds[:1] == ["pool"]
        self.activation = "identity"
        self.taken = 0
        if kinds in (["pool", "relu"], ["relu", "pool"]):  # whose order changes nothing: see ConvNet
            self.activation, self.taken = "relu", 2
        elif kinds[:1] == ["pool"]:
            self.taken = 1
        elif kinds and kinds[0]:
            self.activation, self.taken = kinds[0], 1
        self._cache: Any = None
        self.given: Any = None  # the moments of its next input, where they were made with it

    trainable = True

    @property
    def plain(self) -> bool:
        """True if nothing follows the batch norm."""
        return self.taken == 0

    @property
    def mask(self) -> Any:
        """Where the output of the last forward was above 0."""
        return None if self._cache is None else self._cache.told

    def forward(
        self,
        x: Any,
        *,
        training: bool = False,
        step: int = 0,
        other: Any = None,
        join: str = "alone",
        activation: str | None = None,
    ) -> Any:
        """Return y; other: what a residual adds, see fused_forward; activation: that of the sum, else its own."""
        self._cache = None
        given, self.given = self.given, None
        norm = self.norm
        settings = {name: norm.settings[name] for name in ("momentum", "eps")}
        how = {"activation": activation or self.activation, "pool": self.pool, "other": other, "join": join}
        how["given"] = given
        y, cache = fused_forward(x, **norm.params, **norm.state, training=training, **settings, **how)
        if training:
            self._cache = cache
        return y

    def backward(self, dy: Any, *, input_grad: bool = True, mask: Any = None) -> Any:
        """Overwrite the layer's gradients and return dx; mask: where dy is the gradient, elsewhere it is 0."""
        cache, self._cache = self._cache, None
        if cache is None:
            msg = "BatchNorm.backward needs a forward(..., training=True) just before it"
            raise CacheError(msg)
        grads = self.norm.grads
        dx = fused_backward_into(dy, cache, grads.get("gamma"), grads["beta"], mask=mask)
        if self.norm.graded is not None:
            self.norm.graded()
        return dx if input_grad else None


class _Sum:
    """A Residual, and the ReLU behind it where that can be part of it: `cut_off`."""

    def __init__(self, residual: Residual, relu: Layer | None) -> None:
        body = _units(_in_a_row(residual.body))
        self._short = None if residual.shortcut is None else _Chain(_units(_in_a_row(residual.shortcut)))
        last = body[-1]
        self._tail = last if isinstance(last, _Norm) and not last.pool else None
        self._head = _Chain(body if self._tail is None else body[:-1])
        self.cut_off = relu is not None and self._tail is not None and self._tail.plain

    @property
    def trainable(self) -> bool:
        return self._head.trainable or self._tail is not None or (self._short is not None and self._short.trainable)

    def forward(self, x: Any, *, training: bool = False, step: int = 0) -> Any:
        short = x if self._short is None else self._short.forward(x, training=training, step=step)
        y = self._head.forward(x, training=training, step=step)
        if self._tail is None:
            checks.same_shape("shortcut", short, y.shape, "the shape of the body's output")
            return add(y, short)
        how = {"join": "before", "activation": "relu"} if self.cut_off else {"join": "after"}
        return self._tail.forward(y, training=training, step=step, other=short, **how)

    def backward(self, dy: Any, *, input_grad: bool = True) -> Any:
        mask = self._tail.mask if self._tail is not None and self.cut_off else None
        dx = dy
        if self._tail is not None:
            dx = self._tail.backward(dy, input_grad=input_grad or self._head.trainable)
        short, of_short = dy, mask
        if self._short is not None:
            short, of_short = self._backward_short(dy, mask, input_grad=input_grad), None
        if not input_grad:
            return self._head.backward(dx, input_grad=False)
        return self._head.backward_plus(dx, short, of_short)

    def _backward_short(self, dy: Any, mask: Any, *, input_grad: bool) -> Any:
        """Return the gradient through the shortcut of a dy that counts where the mask is set."""
        assert self._short is not None
        *head, last = self._short.units
        if mask is None:
            return self._short.backward(dy, input_grad=input_grad)
        if not (isinstance(last, _Norm) and last.plain):
            return self._short.backward(joined(dy, mask), input_grad=input_grad)
        before = _Chain(head)
        dy = last.backward(dy, input_grad=input_grad or before.trainable, mask=mask)
        return before.backward(dy, input_grad=input_grad)


def _kind(layer: Layer) -> str:
    """Return what a layer is behind a batch norm: "pool", an activation of fused_forward, or "" for nothing of these."""
    if type(layer) is Relu:
        return "relu"
    if type(layer) is Gelu:
        return "gelu" if layer.settings["approximate"] == "none" else "gelu-tanh"
    if type(layer) is MaxPool and layer.settings["stride"] in (None, 2):
        windows = {name: value for name, value in layer.settings.items() if name != "stride"}
        return "pool" if windows == {"window": 2, "pad": 0} else ""
    return ""
