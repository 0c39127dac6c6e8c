"""Where in a net numbers stop being numbers: scores of NaN or infinity say nothing about a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..backend import asarray, asnumpy
from ..errors import NonFiniteScoresError
from .layer import Layer
from .net import Net


def check_scores(net: Net, x: Any, what: str) -> None:
    """Raise NonFiniteScoresError, with the layer where it begins, if a net's score for an input is NaN or infinite.

    x: (N, *input_shape), on the host or where the net is   what: whose scores they are, for the message.
    """
    placed = asarray(x, beside=net.flat_params) if isinstance(x, np.ndarray) else x
    with np.errstate(all="ignore"):
        scores = asnumpy(net.forward(placed))
        if np.isfinite(scores).all():
            return
        begins = _begins(net, placed)
    bad = int((~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1)).sum())
    fault = f"{what} gives scores that are not numbers for {bad} of {len(scores)} inputs ({begins})"
    way_out = f"its weights are damaged or too large for {net.dtype}, take those of another checkpoint or file"
    raise NonFiniteScoresError(fault, way_out)


def _begins(net: Net, x: Any) -> str:
    """Return in words which layer is the first to give something other than a finite number."""
    first: list[str] = []

    def watched(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watching(x: Any, **keywords: Any) -> Any:
            y = forward(x, **keywords)
            numbers = asnumpy(y)
            if not first and not np.isfinite(numbers).all():
                kind = "NaN" if np.isnan(numbers).any() else "infinity"
                first.append(f"{kind} first comes out of {f'layer {name}' if name else 'the net as a whole'}")
            return y

        return watching

    layers = list(_all_layers("", net.body))
    for name, layer in layers:
        vars(layer)["forward"] = watched(name, layer.forward)
    try:
        net.body.forward(x)  # layer by layer, on a GPU, too
    finally:
        for _, layer in layers:
            del vars(layer)["forward"]
    return first[0] if first else "no layer does so alone"


def _all_layers(name: str, layer: Layer) -> Iterator[tuple[str, Layer]]:
    """Yield (dotted name, layer) for a layer and all inside it: a sum behind two branches can overflow, too."""
    yield name, layer
    for inner, child in layer.children().items():
        yield from _all_layers(f"{name}.{inner}" if name else inner, child)
