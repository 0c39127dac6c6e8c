"""What settings ask of the place of a run: a step as one CUDA graph, bfloat16 and TF32 need a GPU."""

from __future__ import annotations

from .. import bfloat16, checks
from ..backend import compute_capability, default_device
from ..errors import ConfigError, UnsupportedError
from ..runs.config import Config

_OLDEST = (8, 0)  # compute capability of the first GPUs that calculate with bfloat16 and TF32
_ON_A_GPU = {  # precisions that need one: what to choose on the CPU, and on older GPUs
    bfloat16.NAME: ("float32, or float16, which is slow there", "float16"),
    "tf32": ("float32", "float32"),
}


def check_place(config: Config) -> None:
    """Raise ConfigError where graph "on", or precision "bfloat16" or "tf32", is asked for and cannot be."""
    device = default_device() if config.device == "auto" else config.device
    if config.graph == "on":
        _check_graph(device)
    if config.precision in _ON_A_GPU:
        _check_precision(config.precision, device)


def _check_graph(device: str) -> None:
    if device == "cpu":
        msg = 'graph "on" needs a GPU, and this run is on the CPU: leave graph at "auto"'
        raise ConfigError(msg)
    if checks.debug():
        msg = 'graph "on" cannot be with GPUCONV_DEBUG=1, which waits for every launch: leave graph at "auto"'
        raise ConfigError(msg)


def _check_precision(precision: str, device: str) -> None:
    on_cpu, on_older = _ON_A_GPU[precision]
    if device == "cpu":
        msg = f"precision {precision} needs a GPU, and this run is on the CPU: choose {on_cpu}"
        raise ConfigError(msg)
    if precision == bfloat16.NAME:
        try:
            bfloat16.bfloat16()
        except UnsupportedError as error:
            raise ConfigError(str(error)) from None
    found = compute_capability()
    if found < _OLDEST:
        had, needed = (".".join(map(str, version)) for version in (found, _OLDEST))
        msg = f"precision {precision} needs a GPU of compute capability {needed}, this one has {had}: choose {on_older}"
        raise ConfigError(msg)
