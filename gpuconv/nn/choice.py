"""Make something by its name, as files and the command line ask for it; say what a wrong name may have meant."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .. import checks
from ..elsewhere import OURS
from ..errors import ArgTypeError, ConfigError

# What people call settings, layers and commands, beside the words of libraries that elsewhere.py has: letters alone, and
# what it is here, the first of them that is known where it was asked for.
_OTHERS: dict[str, tuple[str, ...]] = {
    "eta": ("lr",),
    "batch": ("batch_size",),
    "bs": ("batch_size",),
    "wd": ("weight_decay",),
    "l2": ("weight_decay",),
    "decay": ("weight_decay",),
    "optim": ("optimizer",),
    "scheduler": ("schedule",),
    "lrscheduler": ("schedule",),
    "clip": ("clip_norm",),
    "gradclip": ("clip_norm",),
    "clipgradnorm": ("clip_norm",),
    "maxgradnorm": ("clip_norm",),
    "clipnormvalue": ("clip_norm",),
    "gradientaccumulation": ("accumulate",),
    "gradientaccumulationsteps": ("accumulate",),
    "accumulategradbatches": ("accumulate",),
    "earlystopping": ("patience",),
    "betas": ("beta1",),
    "alpha": ("slope", "smoothing"),
    "imgsz": ("image_size",),
    "imgsize": ("image_size",),
    "datapath": ("data_dir", "data"),
    "dataset": ("data",),
    "model": ("net",),
    "arch": ("net",),
    "architecture": ("net",),
    "randomseed": ("seed",),
    "fp16": ("precision",),
    "bf16": ("precision",),
    "amp": ("precision",),
    "ls": ("label_smoothing",),
    "valsplit": ("validation",),
    "validationsplit": ("validation",),
    "filtersize": ("window",),
    "group": ("groups",),
    "numfilters": ("filters",),
    "inchannels": ("channels",),
    "infeatures": ("features",),
    "outfeatures": ("units",),
    "usebias": ("bias",),
    "dropoutrate": ("rate",),
    "kernelinitializer": ("init",),
    "type": ("kind",),
    "conv2d": ("conv",),
    "convolution": ("conv",),
    "convtranspose2d": ("conv-transpose",),
    "conv2dtranspose": ("conv-transpose",),
    "transposedconv": ("conv-transpose",),
    "deconv": ("conv-transpose",),
    "deconv2d": ("conv-transpose",),
    "deconvolution": ("conv-transpose",),
    "swish": ("silu",),
    "batchnorm": ("bn",),
    "batchnorm2d": ("bn",),
    "batchnormalization": ("bn",),
    "maxpool2d": ("max-pool",),
    "maxpooling2d": ("max-pool",),
    "avgpool": ("average-pool",),
    "avgpool2d": ("average-pool",),
    "averagepooling2d": ("average-pool",),
    "gap": ("global-average-pool",),
    "upsampling2d": ("upsample",),
    "upsamplingnearest2d": ("upsample",),
    "upsamplingbilinear2d": ("upsample",),
    "interpolate": ("upsample",),
    "resize": ("upsample",),
    "adaptiveavgpool2d": ("adaptive-average-pool",),
    "linear": ("affine",),
    "dense": ("affine",),
    "fc": ("affine",),
    "fullyconnected": ("affine",),
    "evaluate": ("eval",),
    "test": ("eval",),
    "fit": ("train",),
    "benchmark": ("bench",),
    "diff": ("compare",),
    "info": ("doctor",),
    "load": ("import",),
    "save": ("export",),
}


@functools.cache
def _synonyms() -> dict[str, tuple[str, ...]]:
    """Return every word of others, and what it may mean."""
    return {_letters(word): meanings for word, meanings in OURS.items()} | _OTHERS


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
        taken = list(signature.parameters)[len(args) :]
        meant = [(name, near) for name in settings if name not in taken and (near := nearest(name, taken))]
        hint = f', did you mean "{meant[0][1]}" by {meant[0][0]!r}?' if meant else ""
        msg = f"{what}: {error}; it takes {', '.join(taken) or 'no settings'}{hint}"
        raise ConfigError(msg) from None
    return function(*args, **settings)


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return the words on a name that is not known: the one it most likely means, or all there are."""
    names = list(known)
    near = nearest(name, names)
    hint = f'did you mean "{near}"?' if near else f"known: {', '.join(names)}"
    return f"{what} {checks.shown(name)} is not known; {hint}"


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that a wrong one most likely means, in whatever way it is written; None if none is near."""
    by_letters = {_letters(each): each for each in known}
    synonyms: dict[str, str] = {}
    for synonym, meanings in _synonyms().items():
        meant = [by_letters[letters] for letters in map(_letters, meanings) if letters in by_letters]
        synonyms |= {synonym: meant[0]} if meant else {}
    letters = _letters(name) if isinstance(name, str) else ""
    for names in (by_letters, synonyms):  # its own name otherwise written, or that of others
        if letters in names:
            return names[letters]
    for names in (by_letters, synonyms):
        if near := difflib.get_close_matches(letters, names, n=1):
            return names[near[0]]
    return None


def no_attribute(module: str, name: str, known: Mapping[str, str]) -> AttributeError:
    """Return the error of a name that a module does not have, with the one it most likely means.

    known: what is looked for -> the name it stands for.
    """
    near = None if name.startswith("_") else nearest(name, known)
    hint = f"; did you mean {known[near]}?" if near else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")


def _letters(name: str) -> str:
    """Return a name without what sets its words apart: batch_size, --batch-size and batchSize are one."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
