"""Layers made of layers: one after the other, or a body beside a shortcut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .. import checks
from ..backend import add
from ..errors import ArgTypeError, ConfigError, ParamError, ShapeError
from ..typing import Array, Gradient
from .layer import KINDS, Layer, build_layer, register
from .summary import summary


class Container(Layer):
    """A layer whose parameters are those of the layers inside it, under dotted names: "conv1.w"."""

    @property
    def trainable(self) -> bool:
        return any(child.trainable for child in self.children().values())

    def summary(self, input_shape: tuple[int, ...] | None = None) -> str:
        """Return a table of the layers and their parameter counts; with the shape of one sample, of output shapes."""
        return summary(self, input_shape)

    def __repr__(self) -> str:
        return self.summary()


def _residual(body: Any, shortcut: Any = None) -> Layer:
    return Residual(build_layer(body), None if shortcut is None else build_layer(shortcut))


@register("residual", from_config=_residual)
class Residual(Container):
    """y = body(x) + shortcut(x), or body(x) + x with shortcut=None.

    Source: He et al., Deep residual learning for image recognition, arXiv 1512.03385.

    >>> body = nn.Sequential(nn.Conv(4, 4, pad=1), nn.Relu())
    >>> layer = nn.Residual(body).create()
    >>> layer.forward(np.ones((1, 4, 8, 8), np.float32)).shape
    (1, 4, 8, 8)
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        super().__init__()
        self.body = _layer("body", body)
        self.shortcut = None if shortcut is None else _layer("shortcut", shortcut)

    def children(self) -> dict[str, Layer]:
        return {"body": self.body} if self.shortcut is None else {"body": self.body, "shortcut": self.shortcut}

    @property
    def config(self) -> dict[str, Any]:
        return {
            "layer": "Residual",
            "body": self.body.config,
            "shortcut": None if self.shortcut is None else self.shortcut.config,
        }

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        long = self.body.output_shape(shape)
        short = shape if self.shortcut is None else self.shortcut.output_shape(shape)
        if long != short:
            msg = f"body and shortcut must give one shape, got {long} and {short}"
            raise ShapeError(msg)
        return long

    def forward(self, x: Array, *, training: bool = False, step: int = 0) -> Array:
        y = self.body.forward(x, training=training, step=step)
        short = x if self.shortcut is None else self.shortcut.forward(x, training=training, step=step)
        checks.same_shape("shortcut", short, y.shape, "the shape of the body's output")
        return add(y, short)  # a new array: the body may have remembered its y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Gradient[Array]:
        dx = self.body.backward(dy, input_grad=input_grad)
        short = dy if self.shortcut is None else self.shortcut.backward(dy, input_grad=input_grad)
        return add(dx, short) if input_grad else None


def _sequential(layers: Any) -> Layer:
    if not isinstance(layers, (list, tuple)):
        msg = f"layers must be a list of [name, config], got {checks.shown(layers)}"
        raise ConfigError(msg)
    named = {}
    for entry in layers:
        if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not isinstance(entry[0], str):
            msg = f"layers must be a list of [name, config], got the entry {checks.shown(entry)}"
            raise ConfigError(msg)
        named[entry[0]] = build_layer(entry[1])
    return Sequential(**named)


@register("sequential", from_config=_sequential)
class Sequential(Container):
    """Layers one after the other.

    Sequential(Conv(3, 8), Relu(), Conv(8, 8)) names them by kind and number: conv1, relu1, conv2.
    Sequential(first=Conv(3, 8), act=Relu()) takes the names given.

    >>> layers = nn.Sequential(nn.Conv(3, 8, pad=1), nn.Relu(), nn.MaxPool(2), nn.Flatten())
    >>> layers.output_shape((3, 32, 32))
    (2048,)
    >>> list(layers.children())
    ['conv1', 'relu1', 'pool1', 'flatten1']
    """

    chained = True

    def __init__(self, *layers: Layer, **named: Layer) -> None:
        if bool(layers) == bool(named):
            msg = "Sequential needs layers, either in a row or by name"
            raise ParamError(msg)
        super().__init__()
        self.layers = _numbered(layers) if layers else {name: _layer(name, layer) for name, layer in named.items()}

    def children(self) -> dict[str, Layer]:
        return self.layers

    @property
    def config(self) -> dict[str, Any]:
        # A list, not a dict: the order is the net, and a JSON writer may sort the keys of a dict.
        return {"layer": "Sequential", "layers": [[name, layer.config] for name, layer in self.layers.items()]}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for name, layer in self.layers.items():
            try:
                shape = layer.output_shape(shape)
            except ShapeError as error:
                msg = f"{name}: {error}"
                raise ShapeError(msg) from None
        return shape

    def forward(self, x: Array, *, training: bool = False, step: int = 0) -> Array:
        for layer in self.layers.values():
            x = layer.forward(x, training=training, step=step)
        return x

    def backward(self, dy: Array, *, input_grad: bool = True) -> Gradient[Array]:
        return backward_through(list(self.layers.values()), dy, input_grad=input_grad)


def backward_through(layers: Sequence[Any], dy: Any, *, input_grad: bool) -> Any:
    """Return the gradient through layers that follow one another, from the last to the first."""
    # A layer's dx is needed where the caller wants it, or where a layer before it has parameters.  In front of
    # the first parameters nothing is computed: those layers only drop what they remembered, and pass None on.
    input_grads, needed = [], input_grad
    for layer in layers:
        input_grads.append(needed)
        needed = needed or layer.trainable
    for layer, layer_input_grad in zip(reversed(layers), reversed(input_grads), strict=True):
        dy = layer.backward(dy, input_grad=layer_input_grad)
    return dy


def _numbered(layers: tuple[Layer, ...]) -> dict[str, Layer]:
    """Name layers by their kind and a number for each kind, from 1."""
    count: Counter[str] = Counter()
    named = {}
    for index, layer in enumerate(layers):
        kind = _layer(f"layer {index}", layer).kind
        count[kind] += 1
        named[f"{kind}{count[kind]}"] = layer
    return named


def _layer(name: str, layer: Any) -> Layer:
    if not isinstance(layer, Layer):
        msg = f"{name} must be a layer, got {type(layer).__module__}.{type(layer).__qualname__}"
        raise ArgTypeError(msg)
    if "." in name:
        msg = f"a layer's name must have no dot, got {checks.shown(name)}"
        raise ParamError(msg)
    return layer


def kinds() -> dict[str, type[Layer]]:
    """Return the layers that a .toml file may ask for, by their kinds there, those made of layers last.

    >>> nn.kinds()["max-pool"]
    <class 'gpuconv.nn.layers.MaxPool'>
    """
    classes = {kind: KINDS[kind].cls for kind in KINDS}
    return dict(sorted(classes.items(), key=lambda item: issubclass(item[1], (Residual, Sequential))))
