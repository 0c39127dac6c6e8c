"""Make something by its name, as settings files and checkpoints ask for it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ArgTypeError, ConfigError


def make(what: str, table: Mapping[str, Callable[..., Any]], name: Any, settings: Mapping[str, Any], *args: Any) -> Any:
    """Return table[name](*args, **settings); raise ConfigError for an unknown name, or settings it does not take."""
    if not isinstance(name, str):
        msg = f"{what} must be a name, got {name!r}"
        raise ArgTypeError(msg)
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(table)}"
        msg = f"{what} {name!r} is not known; {hint}"
        raise ConfigError(msg)
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
