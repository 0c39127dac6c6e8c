"""Whether a training step is to be one CUDA graph: a setting that changes no bit."""

from __future__ import annotations

from .. import checks
from ..backend import default_device
from ..errors import ConfigError
from ..runs.config import Config


def check_graph(config: Config) -> None:
    """Raise ConfigError where graph "on" is asked for and cannot be."""
    if config.graph != "on":
        return
    if (default_device() if config.device == "auto" else config.device) == "cpu":
        msg = 'graph "on" needs a GPU, and this run is on the CPU: leave graph at "auto"'
        raise ConfigError(msg)
    if checks.debug():
        msg = 'graph "on" cannot be with GPUCONV_DEBUG=1, which waits for every launch: leave graph at "auto"'
        raise ConfigError(msg)
