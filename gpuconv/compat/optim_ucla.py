"""The update rules with UCLA's names of the state: RMSprop keeps `a`; Adam `v`, the first moment, and `a`, the second."""

from __future__ import annotations

from typing import Any

from .optim import Config, _adam_step, _rmsprop_step


def rmsprop(w: Any, dw: Any, config: Config | None = None) -> tuple[Any, Config]:
    """Take a step of RMSprop.   config: learning_rate (1e-2), decay_rate (0.99), epsilon (1e-8), a."""
    return _rmsprop_step(w, dw, config, square="a")


def adam(w: Any, dw: Any, config: Config | None = None) -> tuple[Any, Config]:
    """Take a step of Adam.   config: learning_rate (1e-3), beta1 (0.9), beta2 (0.999), epsilon (1e-8), v, a, t."""
    return _adam_step(w, dw, config, first="v", second="a")


def adam_epsilon_hat(w: Any, dw: Any, config: Config | None = None) -> tuple[Any, Config]:
    """Take a step of Adam with an epsilon that is not corrected, as in optim.adam_epsilon_hat."""
    return _adam_step(w, dw, config, first="v", second="a", epsilon_hat=True)
