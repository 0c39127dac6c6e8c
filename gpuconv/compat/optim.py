"""The course's update rules, rule(w, dw, config=None) -> (next_w, config), with the state keys of CS231n.

They compute on the host, whatever gpuconv.use says: all their arrays come from there and go back.  As in the course
only sgd changes w itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from . import border

Config = dict[str, Any]


def sgd(w: Any, dw: Any, config: Config | None = None) -> tuple[Any, Config]:
    """Take a step of gradient descent, in place.   config: learning_rate (1e-2)."""
    config = _with_defaults(config, learning_rate=1e-2)
    w -= config["learning_rate"] * dw
    return w, config


def sgd_momentum(w: Any, dw: Any, config: Config | None = None) -> tuple[Any, Config]:
    """Take a step with momentum: v = momentum v - lr dw;  w += v.

    config: learning_rate (1e-2), momentum (0.9), velocity
    """
    config, old = _velocity(w, config)
    config["velocity"] = config["momentum"] * old - config["learning_rate"] * dw
    return w + config["velocity"], config


def sgd_nesterov_momentum(w: Any, dw: Any, config: Config | None = None) -> tuple[Any, Config]:
    """Take a step with Nesterov's momentum: v' = momentum v - lr dw;  w += v' + momentum (v' - v).

    config: learning_rate (1e-2), momentum (0.9), velocity
    """
    config, old = _velocity(w, config)
    new = config["velocity"] = config["momentum"] * old - config["learning_rate"] * dw
    return w + new + config["momentum"] * (new - old), config


def rmsprop(w: Any, dw: Any, config: Config | None = None) -> tuple[Any, Config]:
    """Take a step of RMSprop: c = decay c + (1 - decay) dw^2;  w -= lr dw / (sqrt(c) + epsilon).

    config: learning_rate (1e-2), decay_rate (0.99), epsilon (1e-8), cache
    """
    return _rmsprop_step(w, dw, config, square="cache")


def adam(w: Any, dw: Any, config: Config | None = None) -> tuple[Any, Config]:
    """Take a step of Adam: w -= lr m' / (sqrt(v') + epsilon), with the moments' biases corrected.

    config: learning_rate (1e-3), beta1 (0.9), beta2 (0.999), epsilon (1e-8), m, v, t (counted up before it is used)
    """
    return _adam_step(w, dw, config, first="m", second="v")


def adam_epsilon_hat(w: Any, dw: Any, config: Config | None = None) -> tuple[Any, Config]:
    """Take a step of Adam as its paper reorders it: w -= lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon).

    epsilon then counts for more in the first steps than in `adam`: both pass the course's test and train differently.
    """
    return _adam_step(w, dw, config, first="m", second="v", epsilon_hat=True)


# With either course's names of the state ------------------------------------------------------------------------------


def _rmsprop_step(w: Any, dw: Any, config: Config | None, *, square: str) -> tuple[Any, Config]:
    """Take a step of RMSprop with its state in config[square]."""
    config = _with_defaults(config, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8)
    next_w, gradient, mean_square = _flat(w, dw, config.get(square))
    settings = {"lr": config["learning_rate"], "smoothing": config["decay_rate"], "eps": config["epsilon"]}
    ops.rmsprop_update(next_w, gradient, mean_square, **settings)
    config[square] = mean_square.reshape(w.shape)
    return next_w.reshape(w.shape), config


def _adam_step(
    w: Any, dw: Any, config: Config | None, *, first: str, second: str, epsilon_hat: bool = False
) -> tuple[Any, Config]:
    """Take a step of Adam with its moments in config[first] and config[second]."""
    config = _with_defaults(config, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, t=0)
    config["t"] += 1
    next_w, gradient, m, v = _flat(w, dw, config.get(first), config.get(second))
    eps = config["epsilon"]
    if epsilon_hat:
        eps = eps / (1 - config["beta2"] ** config["t"]) ** 0.5
    settings = {"lr": config["learning_rate"], "beta1": config["beta1"], "beta2": config["beta2"], "eps": eps}
    ops.adam_update(next_w, gradient, m, v, step=config["t"], **settings)
    config[first], config[second] = m.reshape(w.shape), v.reshape(w.shape)
    return next_w.reshape(w.shape), config


def _velocity(w: Any, config: Config | None) -> tuple[Config, Any]:
    """Return config with its defaults, and the velocity so far."""
    config = _with_defaults(config, learning_rate=1e-2, momentum=0.9)
    velocity = config.get("velocity")
    return config, np.zeros_like(w) if velocity is None else velocity


def _with_defaults(config: Config | None, **defaults: Any) -> Config:
    """Return config, or a new dict, with what it lacks."""
    config = {} if config is None else config
    for name, value in defaults.items():
        config.setdefault(name, value)
    return config


def _flat(w: Any, dw: Any, *state: Any) -> list[Any]:
    """Return flat copies in one float dtype of w and of the state, zeros where there is none, and dw flat."""
    given = [array for array in (w, dw, *state) if array is not None]
    dtype = border.float_type(*given)
    copies = [np.zeros(np.size(w), dtype) if a is None else np.array(a, dtype).reshape(-1) for a in (w, *state)]
    return [copies[0], np.asarray(dw, dtype).reshape(-1), *copies[1:]]
