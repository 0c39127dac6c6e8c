"""The sides of a comparison, one small file each; a name here is what `--peers` takes."""

from __future__ import annotations

import importlib

from gpuconv.errors import ConfigError

from .base import NotOffered, Peer

__all__ = ["MODULES", "NotOffered", "Peer", "choose", "load"]

# name: module and class.  "self" is gpuconv a second time: the ratio of a thing to itself shows the noise.  "gpuconv-numpy"
# is gpuconv without compiled loops.  "naive" is for cases of a moment.
MODULES = {
    "gpuconv": "ours:Ours",
    "self": "ours:Ours",
    "torch": "pytorch:PyTorch",
    "torch-compile": "pytorch_compile:Compiled",
    "jax": "jax_xla:Jax",
    "course": "course:Course",
    "scipy": "scipy_signal:SciPy",
    "cupy-im2col": "cupy_im2col:CupyIm2col",
    "gpuconv-numpy": "ours:NumPyAlone",
    "naive": "naive:Naive",
}


def load(name: str) -> Peer:
    """Return the side of a name.  Its library is not imported before `start`."""
    module, _, cls = MODULES[name].partition(":")
    peer: Peer = getattr(importlib.import_module(f"{__name__}.{module}"), cls)()
    return peer


def choose(names: tuple[str, ...], device: str) -> list[str]:
    """Return the peers of these names, which must exist for the device; of none: all but "self" and "naive"."""
    known = {name: load(name) for name in MODULES if name != "gpuconv"}
    here = [name for name, peer in known.items() if device in peer.devices]
    for name in names:
        if name not in known:
            msg = f"there is no peer {name!r}: choose from {', '.join(here)}"
            raise ConfigError(msg)
        if name not in here:
            msg = f"the peer {name} runs on {', '.join(known[name].devices)}, not on {device}"
            raise ConfigError(msg)
    return list(dict.fromkeys(names)) or [name for name in here if name not in ("self", "naive")]
