"""What settings ask of the place of a run: a step as one CUDA graph, and bfloat16, need a GPU."""

from __future__ import annotations

from .. import bfloat16, checks
from ..backend import compute_capability, default_device
from ..errors import ConfigError, UnsupportedError
from ..runs.config import Config

_OLDEST = (8, 0)  # compute capability of the first GPUs that calculate with bfloat16


def check_place(config: Config) -> None:
    """Raise ConfigError where graph "on" or precision "bfloat16" is asked for and cannot be."""
    device = default_device() if config.device == "auto" else config.device
    if config.graph == "on":
        _check_graph(device)
    if config.precision == bfloat16.NAME:
        _check_bfloat16(device)


def _check_graph(device: str) -> None:
    if device == "cpu":
        msg = 'graph "on" needs a GPU, and this run is on the CPU: leave graph at "auto"'
        raise ConfigError(msg)
    if checks.debug():
        msg = 'graph "on" cannot be with GPUCONV_DEBUG=1, which waits for every launch: leave graph at "auto"'
        raise ConfigError(msg)


def _check_bfloat16(device: str) -> None:
    if device == "cpu":
        msg = "precision bfloat16 needs a GPU, and this run is on the CPU: choose float32, or float16, which is slow there"
        raise ConfigError(msg)
    try:
        bfloat16.bfloat16()
    except UnsupportedError as error:
        raise ConfigError(str(error)) from None
    found = compute_capability()
    if found < _OLDEST:
        had, needed = (".".join(map(str, version)) for version in (found, _OLDEST))
        msg = f"precision bfloat16 needs a GPU of compute capability {needed}, this one has {had}: choose float16"
        raise ConfigError(msg)
