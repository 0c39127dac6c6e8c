"""What every layer is: parameters by name, a forward that may remember, a backward that uses what was remembered."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy.typing as npt

from .. import checks
from ..backend import backend_of
from ..elsewhere import says_ours
from ..errors import ArgTypeError, CacheError, ConfigError, ParamError
from ..typing import Array, Gradient
from . import choice
from .store import create


@dataclass(frozen=True, slots=True)
class Declared:
    """An array that a layer asks for.  Its memory comes later, from `create`, so that a net's arrays lie together.

    >>> nn.Conv(3, 8).declared["w"]
    Declared(shape=(8, 3, 3, 3), init='he', decayed=True)
    """

    shape: tuple[int, ...]
    init: str | float
    decayed: bool = False


class Layer:
    """A function of one array with parameters.  Subclasses write `_forward`, `_backward` and `output_shape`.

    A constructor checks its arguments and declares arrays; `params`, `grads` and `state` (running statistics, weights
    that do not learn) are empty until a Net, or `create` for a layer on its own, gives them memory.

    >>> class Double(nn.Layer):
    ...     def output_shape(self, shape):
    ...         return shape
    ...     def _forward(self, x, training, step):
    ...         return 2 * x, "nothing to remember"
    ...     def _backward(self, dy, cache, input_grad):
    ...         return 2 * dy
    >>> Double().forward(np.array([1.0, 2.0]))
    array([2., 4.])
    """

    kind: ClassVar[str] = "layer"  # the first half of its name in a Sequential: conv1, conv2, ...
    random: ClassVar[bool] = False  # True: draws random numbers in forward
    chained: ClassVar[bool] = False  # True: the layers inside follow one another
    float32_params: ClassVar[bool] = False  # True: it takes x in 16 bits beside parameters in float32

    def __init__(self, **settings: Any) -> None:
        self.settings = settings  # the constructor's arguments as plain values: what repr and config show
        self.declared: dict[str, Declared] = {}
        self.declared_state: dict[str, Declared] = {}
        self.params: dict[str, Any] = {}
        self.grads: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        self.copies: dict[str, Any] = {}  # of weights, in 16 bits: see Net.compute_in
        self.precision: str | None = None  # of products in training: see Net.round_factors
        self.placed = False  # True once `create` has given it memory: a layer belongs to one place
        self.seed = 0
        self.samples_before = 0  # in a batch of which this process has a part
        self.random_index, self.random_count = 0, 1  # which of the net's random layers this is, of how many
        self._cache: Any = None

    graded: Callable[[], None] | None = None  # called when a backward has written `grads`

    # What the user calls --------------------------------------------------------------------------------------------

    def create(self, *, seed: int = 0, dtype: npt.DTypeLike = "float32") -> Self:
        """Give a layer that is in no Net its parameters; return it."""
        create(self, seed=seed, dtype=dtype)
        return self

    def forward(self, x: Array, *, training: bool = False, step: int = 0) -> Array:
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

    def backward(self, dy: Array, *, input_grad: bool = True) -> Gradient[Array]:
        """Overwrite `grads` and return dx (None with input_grad=False), for the last forward(training=True).

        The memory of that forward is given back: each backward needs a forward of its own, else CacheError.
        """
        cache = self._remembered()
        if not input_grad and not self.trainable:
            return None
        return self._told(self._backward(dy, cache, input_grad))

    def _told(self, dx: Any) -> Any:
        """Return dx, and say that the gradients are written."""
        if self.graded is not None:
            self.graded()
        return dx

    def remember(self, cache: Any) -> None:
        """Keep what `backward` needs of a forward that something else has done."""
        self._cache = cache

    def _remembered(self) -> Any:
        """Return what the last forward remembered, once."""
        cache, self._cache = self._cache, None
        if cache is None:
            msg = f"{type(self).__name__}.backward needs a forward(..., training=True) just before it"
            raise CacheError(msg)
        return cache

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one sample's output, given that of its input; raise ShapeError if it does not fit."""
        raise NotImplementedError

    @classmethod
    def inferred(cls, shape: tuple[int, ...], classes: int | None) -> dict[str, Any]:
        """Return the settings that a .toml file may leave out: they follow from the shape of one sample that comes in.

        classes: of a classifier; None of a net for something else
        """
        return {}

    # What a subclass writes -----------------------------------------------------------------------------------------

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        """Return (y, cache)."""
        raise NotImplementedError

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        """Write self.grads and return dx."""
        raise NotImplementedError

    def weight(self, name: str, x: Any) -> Any:
        """Return what the layer computes with beside x: its weight of this name, or its copy if x has the dtype of that.

        None if the layer has none of this name.
        """
        copy = self.copies.get(name)
        if copy is not None and copy.dtype == x.dtype:
            return copy
        return self.params.get(name, self.state.get(name))

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
            value = self.settings.get(name, parameter.default)
            if parameter.default is parameter.empty:
                shown.append(repr(value))
            elif value != parameter.default:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


# Layers by name -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """How files ask for a kind of layer."""

    cls: type[Layer]
    from_config: Callable[..., Layer]  # makes one from the values of its `config`
    from_toml: Callable[..., Layer]  # makes one from the settings of a .toml file


KINDS: dict[str, Kind] = {}  # by their names in .toml files

L = TypeVar("L", bound=Layer)


def register(
    toml: str,
    *,
    from_config: Callable[..., Layer] | None = None,
    from_toml: Callable[..., Layer] | None = None,
) -> Callable[[type[L]], type[L]]:
    """Let files ask for a class: checkpoints and exports by the class's own name, .toml files by `toml`.

    The last word of `toml` numbers its layers: "max-pool" gives pool1, pool2, ...
    from_config, from_toml: what makes a layer, where that is not the constructor.
    """

    def remember(cls: type[L]) -> type[L]:
        cls.kind = toml.rpartition("-")[2]
        setattr(cls, "__init__", says_ours()(vars(cls)["__init__"]))  # noqa: B010 - mypy takes no other assignment
        KINDS[toml] = Kind(cls, from_config or cls, from_toml or cls)
        return cls

    return remember


def build_layer(config: Mapping[str, Any]) -> Layer:
    """Return the layer whose `config` this is, without parameters yet; raise ConfigError if there is none.

    >>> config = nn.MaxPool(2).config
    >>> config
    {'layer': 'MaxPool', 'window': 2, 'stride': None, 'pad': 0}
    >>> nn.build_layer(config)
    MaxPool()
    """
    makers = {kind.cls.__name__: kind.from_config for kind in KINDS.values()}
    return choice.make("layer", dict(sorted(makers.items())), *split_config("layer", config))


def split_config(key: str, config: Any) -> tuple[Any, dict[str, Any]]:
    """Return the name and the settings in a config."""
    if not isinstance(config, Mapping):
        msg = f"the config of a {key} must be a dict, got {checks.shown(config)}"
        raise ArgTypeError(msg)
    if key not in config:
        msg = f'the config of a {key} must have an entry "{key}", got {", ".join(config) or "none"}'
        raise ConfigError(msg)
    return config[key], {name: value for name, value in config.items() if name != key}
