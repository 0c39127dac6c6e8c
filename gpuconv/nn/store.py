"""The arrays of a net: two flat vectors, parameters and gradients, of which every layer holds its views.

One vector makes an optimiser step one pass, and a gradient exchange one message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..backend import asarray, asnumpy, backend_of, cast_into, quiet, turned_filters, zeros
from ..errors import CheckpointMismatchError, ParamError
from ..random import Stream, generator
from . import init

if TYPE_CHECKING:
    from .layer import Declared, Layer


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """Flat parameters and gradients; the first `decayed` entries are those that weight decay applies to."""

    params: Any
    grads: Any
    decayed: int


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """A net's weights once more, in 16 bits: what steps compute with, while the optimiser goes on in float32.

    flat: of all parameters, in the order of the flat vectors, so that an update fills it as it goes.   others: pairs of
    weights that do not learn and their copies.   turned: filters of `flat` as a GPU reads them, None where there are none.
    """

    params: Any
    flat: Any
    others: list[tuple[Any, Any]]
    turned: Any = None

    @property
    def nbytes(self) -> int:
        of_turned = 0 if self.turned is None else self.turned.nbytes
        return int(self.flat.nbytes) + sum(int(copy.nbytes) for _, copy in self.others) + of_turned

    @quiet
    def renew(self) -> None:
        """Let them be the weights as these are now."""
        cast_into(self.params, self.flat)
        for weight, copy in self.others:
            cast_into(weight, copy)
        self.follow()

    def follow(self) -> None:
        """Let those that are kept besides `flat` be what an update has left there."""
        if self.turned is not None:
            self.turned.fill()


def copies_for(layer: Layer, store: Store, dtype: np.dtype) -> Copies:
    """Make copies of the weights of a layer and those inside it, and hand them out; they hold nothing yet.

    Layers that keep float32 parameters beside 16 bits are left without.
    """
    leaves = [leaf for _, leaf in layer.leaves()]
    flat = zeros(tuple(store.params.shape), dtype)
    places = [place for place in _places(leaves, store.decayed) if not place[0].float32_params]
    turned = turned_filters(flat, {where.start: array.shape for _, _, array, where in places})
    copies = Copies(store.params, flat, [], turned)
    filters = {} if turned is None else turned.filters
    for leaf, name, array, where in places:
        leaf.copies[name] = filters.get(where.start, flat[where].reshape(array.shape))
    for leaf in leaves:
        for name, weight in leaf.state.items() if not leaf.float32_params else ():
            leaf.copies[name] = zeros(tuple(weight.shape), dtype)
            copies.others.append((weight, leaf.copies[name]))
    return copies


def create(layer: Layer, *, seed: int, dtype: Any) -> Store:
    """Make, fill and hand out the arrays that a layer and those inside it have declared.

    Order of the flat vectors: first what weight decay applies to, then the rest, each in the order of the layers.
    The n-th layer that draws its weights (n from 0) draws from (seed, Stream.INIT, n): a ReLU more changes no weight.
    """
    seed, dtype = checks.word("seed", seed), checks.float_dtype(dtype)
    _check_fresh(layer)
    leaves = [leaf for _, leaf in layer.leaves()]
    store = _lay_out(leaves, dtype)
    _fill(leaves, seed, dtype)
    random = [leaf for leaf in leaves if leaf.random]
    for index, leaf in enumerate(random):
        leaf.seed, leaf.random_index, leaf.random_count = seed, index, len(random)
    for leaf in leaves:
        leaf.placed = True
    _gather(layer)
    return store


def _check_fresh(layer: Layer) -> None:
    """Check that each layer stands in the net once and in no other: it has memory for one call."""
    seen: dict[int, str] = {}
    for name, leaf in layer.leaves():
        if leaf.placed:
            msg = f"layer {name or type(leaf).__name__} already belongs to a net: make a new layer for each net"
            raise ParamError(msg)
        if id(leaf) in seen:
            msg = f"layers {seen[id(leaf)]} and {name} are one object: make a new layer for each place"
            raise ParamError(msg)
        seen[id(leaf)] = name


def _lay_out(leaves: list[Layer], dtype: np.dtype) -> Store:
    """Make the flat vectors and give each layer its views."""
    arrays = [array for leaf in leaves for array in leaf.declared.values()]
    total = sum(prod(array.shape) for array in arrays)
    decayed = sum(prod(array.shape) for array in arrays if array.decayed)
    store = Store(zeros((total,), dtype), zeros((total,), dtype), decayed)
    for leaf, name, array, where in _places(leaves, decayed):
        leaf.params[name] = store.params[where].reshape(array.shape)
        leaf.grads[name] = store.grads[where].reshape(array.shape)
    return store


def _places(leaves: list[Layer], decayed: int) -> Iterator[tuple[Layer, str, Declared, slice]]:
    """Yield each parameter, with its layer and name and where it lies in the flat vectors."""
    start = {True: 0, False: decayed}
    for leaf in leaves:
        for name, array in leaf.declared.items():
            first = start[array.decayed]
            last = start[array.decayed] = first + prod(array.shape)
            yield leaf, name, array, slice(first, last)


def _fill(leaves: list[Layer], seed: int, dtype: np.dtype) -> None:
    """Write initial values into the parameters; make the frozen weights and running statistics."""
    drawn = 0
    for leaf in leaves:
        for name, array in leaf.declared_state.items():
            leaf.state[name] = zeros(array.shape, dtype)
        for arrays, declared in ((leaf.params, leaf.declared), (leaf.state, leaf.declared_state)):
            for name, array in declared.items():
                if array.init in init.FIXED:
                    arrays[name][...] = init.FIXED[array.init]
                else:
                    put(arrays[name], init.draw(array.init, array.shape, generator(seed, Stream.INIT, drawn)))
                    drawn += 1


def _gather(layer: Layer) -> None:
    """Give every container the arrays of the layers inside it, under dotted names."""
    for name, child in layer.children().items():
        _gather(child)
        for kind in ("params", "grads", "state"):
            getattr(layer, kind).update({f"{name}.{key}": array for key, array in getattr(child, kind).items()})


def check_fit(what: str, targets: Mapping[str, Any], sources: Mapping[str, Any]) -> None:
    """Raise CheckpointMismatchError unless both have the same names, shapes and dtypes."""
    for name, source in sources.items():
        backend_of(**{f"{what} {name}": source})
    problems = []
    if missing := [name for name in targets if name not in sources]:
        problems.append(f"missing: {', '.join(missing)}")
    if unexpected := [name for name in sources if name not in targets]:
        problems.append(f"unexpected: {', '.join(unexpected)}")
    for name, target in targets.items():
        source = sources.get(name)
        if source is not None and (tuple(source.shape) != tuple(target.shape) or source.dtype != target.dtype):
            problems.append(
                f"{name} must be {tuple(target.shape)} {target.dtype}, got {tuple(source.shape)} {source.dtype}"
            )
    if problems:
        msg = f"{what} does not fit: {'; '.join(problems)}"
        raise CheckpointMismatchError(msg)


def check_variances(what: str, sources: Mapping[str, Any]) -> None:
    """Raise CheckpointMismatchError for a running variance below 0, or one that is no number."""
    for name, source in sources.items():
        if name.rpartition(".")[2] == "running_var" and not (values := asnumpy(source)).min() >= 0:
            msg = (
                f"{what} {name} holds {values.min():g}, and no variance is below 0: "
                "the weights are damaged, take them from another file"
            )
            raise CheckpointMismatchError(msg)


def copy_in(targets: Mapping[str, Any], sources: Mapping[str, Any]) -> None:
    """Copy arrays that `check_fit` has accepted."""
    for name, target in targets.items():
        put(target, sources[name])


@quiet
def put(target: Any, source: Any) -> None:
    """Copy an array, from wherever it is, into another, rounding to its dtype."""
    target[...] = asarray(asnumpy(source).astype(target.dtype, copy=False), beside=target)
