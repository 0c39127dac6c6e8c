"""Make something by its name, as settings files and checkpoints ask for it; say what a wrong name may have meant."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .. import checks
from ..errors import ArgTypeError, ConfigError


def make(what: str, table: Mapping[str, Callable[..., Any]], name: Any, settings: Mapping[str, Any], *args: Any) -> Any:
    """Return table[name](*args, **settings); raise ConfigError for an unknown name, or settings it does not take."""
    if not isinstance(name, str):
        msg = f"{what} must be a name, got {checks.shown(name)}"
        raise ArgTypeError(msg)
    if name not in table:
        raise ConfigError(unknown(what, name, table))
    return call(f"{what} {name!r}", table[name], settings, *args)


def call(what: str, function: Callable[..., Any], settings: Mapping[str, Any], *args: Any) -> Any:
    """Return function(*args, **settings); raise ConfigError if these are not its arguments."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **settings)
    except TypeError as error:
        taken = ", ".join(list(signature.parameters)[len(args) :]) or "no settings"
        msg = f"{what}: {error}; it takes {taken}"
        raise ConfigError(msg) from None
    return function(*args, **settings)


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return the words on a name that is not known: the one it is nearest to, or all there are."""
    names = list(known)
    near = difflib.get_close_matches(name if isinstance(name, str) else "", names, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(names)}"
    return f"{what} {checks.shown(name)} is not known; {hint}"
