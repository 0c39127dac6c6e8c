"""What every layer is: parameters by name, a forward that may remember, a backward that uses what was remembered."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from .. import checks
from ..backend import backend_of
from ..errors import CacheError, ParamError
from .store import create


@dataclass(frozen=True, slots=True)
class Declared:
    """An array that a layer asks for.  Its memory comes later, from `create`, so that a net's arrays lie together."""

    shape: tuple[int, ...]
    init: str | float
    decayed: bool = False


class Layer:
    """A function of one array with parameters.  Subclasses write `_forward`, `_backward` and `output_shape`.

    A constructor checks its arguments and declares arrays; `params`, `grads` and `state` (running statistics, weights
    that do not learn) are empty until a Net, or `create` for a layer on its own, gives them memory.
    """

    kind: ClassVar[str] = "layer"  # the first half of its name in a Sequential: conv1, conv2, ...
    random: ClassVar[bool] = False  # True: draws random numbers in forward
    chained: ClassVar[bool] = False  # True: the layers inside follow one another

    def __init__(self, **settings: Any) -> None:
        self.settings = settings  # the constructor's arguments as plain values: what repr and config show
        self.declared: dict[str, Declared] = {}
        self.declared_state: dict[str, Declared] = {}
        self.params: dict[str, Any] = {}
        self.grads: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        self.placed = False  # True once `create` has given it memory: a layer belongs to one place
        self.seed = 0
        self.random_index, self.random_count = 0, 1  # which of the net's random layers this is, of how many
        self._cache: Any = None

    # What the user calls --------------------------------------------------------------------------------------------

    def create(self, *, seed: int = 0, dtype: Any = "float32") -> Self:
        """Give a layer that is in no Net its parameters; return it."""
        create(self, seed=seed, dtype=dtype)
        return self

    def forward(self, x: Any, *, training: bool = False, step: int = 0) -> Any:
        """Return y.  training=True remembers what backward needs; step (0, 1, ...) numbers the draws of dropout."""
        self._cache = None
        training = checks.flag("training", training)
        backend_of(x=x)
        if len(self.params) < len(self.declared):
            msg = f"{type(self).__name__} has no parameters yet: put it into a Net, or call its create()"
            raise ParamError(msg)
        y, cache = self._forward(x, training, step)
        if training:
            self._cache = cache
        return y

    def backward(self, dy: Any, *, input_grad: bool = True) -> Any:
        """Overwrite `grads` and return dx (None with input_grad=False), for the last forward(training=True).

        The memory of that forward is given back: each backward needs a forward of its own, else CacheError.
        """
        cache, self._cache = self._cache, None
        if cache is None:
            msg = f"{type(self).__name__}.backward needs a forward(..., training=True) just before it"
            raise CacheError(msg)
        if not input_grad and not self.trainable:
            return None
        return self._backward(dy, cache, input_grad)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one sample's output, given that of its input; raise ShapeError if it does not fit."""
        raise NotImplementedError

    # What a subclass writes -----------------------------------------------------------------------------------------

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        """Return (y, cache)."""
        raise NotImplementedError

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        """Write self.grads and return dx."""
        raise NotImplementedError

    # What containers, nets and tables use ---------------------------------------------------------------------------

    def children(self) -> dict[str, Layer]:
        """Return the layers inside this one, by name, in order."""
        return {}

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield (dotted name, layer) for every innermost layer, in order."""
        if not self.children():
            yield prefix, self
        for name, child in self.children().items():
            yield from child.leaves(f"{prefix}.{name}" if prefix else name)

    @property
    def trainable(self) -> bool:
        """True if the layer, or one inside it, has parameters."""
        return bool(self.declared)

    @property
    def config(self) -> dict[str, Any]:
        """Plain values (JSON) from which `build_layer` makes the same layer."""
        return {"layer": type(self).__name__, **self.settings}

    def __repr__(self) -> str:
        """Print the call that makes this layer, without the arguments that have their default value."""
        shown = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = self.settings[name]
            if parameter.default is parameter.empty:
                shown.append(repr(value))
            elif value != parameter.default:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"
