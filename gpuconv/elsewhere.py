"""What other libraries call our arguments: a call in their words is told ours."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from .errors import ArgTypeError

Function = TypeVar("Function", bound=Callable)

# By the word of PyTorch, Keras, JAX, SciPy or cuDNN: what it may be here, of which the first that a function has is meant.
OURS: dict[str, tuple[str, ...]] = {
    "alpha": ("slope",),
    "bias": ("b", "beta"),
    "count_include_pad": ("count_pad",),
    "dilation_rate": ("dilation",),
    "dilations": ("dilation",),
    "epsilon": ("eps",),
    "feature_group_count": ("groups",),
    "filters": ("w",),
    "ignore_index": ("ignore",),
    "input": ("x", "scores", "images"),
    "inputs": ("x", "scores", "images"),
    "interpolation": ("mode",),
    "kernel": ("w", "window"),
    "kernel_size": ("window",),
    "ksize": ("window",),
    "labels": ("targets",),
    "learning_rate": ("lr",),
    "lhs": ("x",),
    "logits": ("scores",),
    "method": ("mode",),
    "negative_slope": ("slope",),
    "normalized_shape": ("features",),
    "num_channels": ("channels",),
    "num_features": ("channels", "features"),
    "num_groups": ("groups",),
    "out_channels": ("filters",),
    "output_padding": ("output_pad",),
    "output_size": ("size",),
    "p": ("rate",),
    "padding": ("pad",),
    "pads": ("pad",),
    "pool_size": ("window",),
    "rhs": ("w",),
    "scale_factor": ("factor",),
    "scales": ("factor",),
    "strides": ("stride",),
    "target": ("labels", "targets"),
    "targets": ("labels",),
    "units": ("out_features",),
    "weight": ("w", "gamma", "class_weights"),
    "weights": ("w",),
    "window_strides": ("stride",),
}

_BY_HAND = 'multiply loss and gradient by them, with reduction="none"'

# By a word that has no counterpart here: a function that has all of these arguments says what to do instead.
_INSTEAD: dict[str, tuple[tuple[str, ...], str]] = {
    "data_format": (("stride",), "channels come second, in whatever order memory has them"),
    "from_logits": (("scores",), "scores are logits"),
    "output_size": (("output_pad",), "it follows from the other sizes; output_pad adds to it"),
    "padding_mode": (("dilation", "groups"), "padding is zeros: np.pad x first"),
    "pos_weight": (("targets", "reduction"), _BY_HAND),
    "weight": (("targets", "reduction"), _BY_HAND),
}


def says_ours(**reasons: str) -> Callable[[Function], Function]:
    """Let a function answer a call that does not fit its parameters by what they are called here.

    reasons: what to say of words that it has no parameter for, where there is something to say.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except TypeError:
                said = _said(function, args, kwargs, reasons)
                if not said:
                    raise
            raise ArgTypeError(said)

        return call  # type: ignore[return-value]

    return decorate


def _said(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], reasons: dict[str, str]) -> str:
    """Return what is wrong with a call that does not fit; "" of one that does, and where Python says it as well."""
    parameters = inspect.signature(function).parameters
    name = function.__qualname__.removesuffix(".__init__")
    own = [word for word in parameters if word != "self"]
    for word in kwargs:
        if word in parameters:
            continue
        if word in reasons:
            return f"{name} has no argument {word}: {reasons[word]}"
        ours = [known for known in OURS.get(word, ()) if known in own]
        if ours:
            return f"{name} has no argument {word}: it is called {ours[0]} here"
        needed, instead = _INSTEAD.get(word, ((), ""))
        if instead and set(needed) <= set(own):
            return f"{name} has no argument {word}: {instead}"
        close = difflib.get_close_matches(word, own, n=1)
        meant = f"did you mean {close[0]}?" if close else f"it takes {', '.join(own) or 'none'}"
        return f"{name} has no argument {word}: {meant}"
    by_place = [p.name for p in parameters.values() if p.kind is not p.KEYWORD_ONLY]
    by_name = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    if by_name and len(args) > len(by_place):
        places = ", ".join(word for word in by_place if word != "self")
        return f"{name} takes {places} by place, and by name: {', '.join(f'{word}=' for word in by_name)}"
    return ""
