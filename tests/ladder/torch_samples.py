"""Put the inputs that PyTorch tests its own operators with through gpuconv, and count what is right.

    python -m tests.ladder.torch_samples [--only NAME,...] [--save [FILE]]

Convolution, max and average pooling of signals, images and volumes, and batch norm, forward and backward, on the CPU.
Every sample ends as one of these:

  right     computed, and within the tolerance of tests/compare.py of what PyTorch computes in float64
  adapted   likewise, where the sample has no batch axis: a batch of one is made of it here
  refused   for the reason it is counted under: something that gpuconv has no argument for, or an error of its own
  wrong     computed, and not within the tolerance; or refused for a reason that is not in REASONS

What gpuconv says in other words is translated: padding="valid", divisor_override=None of pools, a momentum that counts
the other way round.  Running statistics are not compared, for gpuconv keeps the biased variance in them.  Inputs at
which PyTorch must raise an error are counted apart: refused by gpuconv too, or taken.

Exit status 1: something was wrong, or of a function and dtype fewer are right than in the newest record in bench/results, where that
is of the same PyTorch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import types
import unittest
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from compare import U_SUM, assert_close
from norm_scales import batchnorm_scales

import gpuconv
from gpuconv.errors import GpuconvError

from . import outcomes
from .outcomes import INTEGERS, Outcome, Refused

KIND = "torch-samples"

AXES = {f"{kind}{axes}d": axes for kind in ("conv", "max_pool", "avg_pool") for axes in (1, 2, 3)}
NAMES = (*AXES, "batch_norm")
DTYPES = ("float64", "float32", "float16", "complex64", "complex128", "int64")

# Why a sample may be refused.
DIVISOR = "divisor_override"
INDICES = "return_indices"
NO_STATISTICS = "batch norm without running statistics"
NO_MOMENTUM = "momentum None"
NO_WEIGHT = "batch norm without weight"
MOMENTUM = "momentum outside 0 to 1"
ONE_AXIS = "batch norm of one axis"
REASONS = (
    *(DIVISOR, INDICES, INTEGERS, NO_STATISTICS),
    *(NO_MOMENTUM, NO_WEIGHT, MOMENTUM, ONE_AXIS),
)


@dataclass(frozen=True)
class Sample:
    """One call of torch.nn.functional: arrays and options by name; an array may be None."""

    name: str
    arrays: dict[str, Any]
    options: dict[str, Any]

    @property
    def x(self) -> np.ndarray:
        return self.arrays["x"]

    @property
    def unbatched(self) -> bool:
        """True if x has only the axes of one image."""
        return self.name in AXES and self.x.ndim == AXES[self.name] + 1

    def __str__(self) -> str:
        shapes = {name: None if array is None else array.shape for name, array in self.arrays.items()}
        return f"{self.name} of {self.x.dtype}: {shapes}, {self.options}"


@dataclass
class Counts:
    """How the samples of one function and dtype ended; wrong: what says so, by sample."""

    right: int = 0
    adapted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, sample: Sample, outcome: Outcome) -> None:
        how, why = outcome
        match how:
            case "right":
                self.right += 1
            case "adapted":
                self.adapted += 1
            case "refused":
                self.refused[why] += 1
            case _:
                self.wrong.append(f"{sample}: {why}")


# PyTorch's samples --------------------------------------------------------------------------------------------------

_ARRAYS = {"conv": ("w", "b"), "batch_norm": ("running_mean", "running_var", "gamma", "beta")}
_KEYWORDS = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
_POSITIONAL = {  # names of the options that may come without one, in their order
    "conv": ("stride", "padding", "dilation", "groups"),
    "max_pool": ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "avg_pool": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    "batch_norm": ("training", "momentum", "eps"),
}


def kind_of(name: str) -> str:
    """Return the name of a function of PyTorch without its number of axes."""
    return name[:-2] if name in AXES else name


def operators() -> dict[str, Any]:
    """Return PyTorch's descriptions of the functions, which draw their samples, by name."""
    # The module of the samples imports this one for a base class of tests, which no sample has a use for.
    if "expecttest" not in sys.modules and importlib.util.find_spec("expecttest") is None:
        stand_in = types.ModuleType("expecttest")
        stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = stand_in
    from torch.testing._internal.common_methods_invocations import op_db

    found = {op.name.removeprefix("nn.functional."): op for op in op_db if not op.variant_test_name}
    return {name: found[name] for name in NAMES}


def sample_of(name: str, drawn: Any) -> Sample:
    """Return a SampleInput of PyTorch with its tensors as NumPy arrays."""
    import torch

    def array(value: Any) -> Any:
        return value.detach().resolve_conj().numpy().copy() if isinstance(value, torch.Tensor) else value

    kind = kind_of(name)
    names = _ARRAYS.get(kind, ())
    arrays = {"x": array(drawn.input), **dict.fromkeys(names)}
    arrays |= dict(zip(names, map(array, drawn.args), strict=False))
    options = dict(zip(_POSITIONAL[kind], drawn.args[len(names) :], strict=False))
    for key, value in drawn.kwargs.items():
        if kind == "batch_norm" and key in _KEYWORDS:
            arrays[_KEYWORDS[key]] = array(value)
        elif kind == "conv" and key in ("weight", "bias"):
            arrays[{"weight": "w", "bias": "b"}[key]] = array(value)
        else:
            options[key] = value
    return Sample(name, arrays, options)


def samples(operator: Any, name: str, dtype: str) -> list[Sample]:
    """Return the samples of a function in a dtype; none where it has no such dtype."""
    import torch

    kind = getattr(torch, dtype)
    if kind not in operator.dtypes:
        return []
    return [sample_of(name, drawn) for drawn in operator.reference_inputs("cpu", kind)]


def error_samples(operator: Any, name: str) -> list[Sample]:
    """Return the samples of a function at which PyTorch raises an error."""
    if operator.error_inputs_func is None:
        return []
    return [sample_of(name, one.sample_input) for one in operator.error_inputs("cpu")]


# gpuconv ------------------------------------------------------------------------------------------------------------


def computed(sample: Sample, dy_of: Callable[[tuple[int, ...]], np.ndarray]) -> dict[str, np.ndarray]:
    """Return y and the gradients by gpuconv; raise Refused where it has no words, or GpuconvError where it refuses.

    dy_of: the shape of y to the gradient from above
    """
    arrays = {name: array for name, array in sample.arrays.items() if array is not None}
    if sample.unbatched:
        arrays["x"] = arrays["x"][None]
    translate = {"conv": _conv, "batch_norm": _batch_norm}.get(kind_of(sample.name), _pool)
    operator, options = translate(sample)
    forward = getattr(gpuconv, f"{operator}_forward")
    backward = getattr(gpuconv, f"{operator}_backward")
    y, cache = forward(**arrays, **options)
    gradients = backward(dy_of(y.shape), cache)
    names = {"conv": ("dx", "dw", "db")}.get(operator, ("dx", "dgamma", "dbeta"))
    results = {"y": y, **dict(zip(names, gradients if isinstance(gradients, tuple) else (gradients,), strict=False))}
    if sample.unbatched:
        results |= {name: results[name][0] for name in ("y", "dx")}
    return {name: result for name, result in results.items() if result is not None}


def _tuple(value: Any, axes: int) -> tuple[int, ...]:
    """Return an option as PyTorch reads it: one number, alone or in a tuple, is that of every axis."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * axes if len(values) == 1 else values


def _conv(sample: Sample) -> tuple[str, dict[str, Any]]:
    axes, options = AXES[sample.name], dict(sample.options)
    padding = options.pop("padding", 0)
    options |= {name: _tuple(options[name], axes) for name in ("stride", "dilation") if name in options}
    if isinstance(padding, str):
        return "conv", {**options, "pad": 0 if padding == "valid" else padding}
    return "conv", {**options, "pad": _tuple(padding, axes)}


def _pool(sample: Sample) -> tuple[str, dict[str, Any]]:
    axes, options = AXES[sample.name], sample.options
    window = _tuple(options["kernel_size"], axes)
    stride = _tuple(window if options.get("stride") in (None, ()) else options["stride"], axes)
    pad = _tuple(options.get("padding", 0), axes)
    if options.get("return_indices"):
        raise Refused(INDICES)
    if options.get("divisor_override") is not None:
        raise Refused(DIVISOR)
    translated: dict[str, Any] = {
        "window": window,
        "stride": stride,
        "pad": pad,
        "ceil": options.get("ceil_mode", False),
    }
    if kind_of(sample.name) == "max_pool":
        return "max_pool", {**translated, "dilation": _tuple(options.get("dilation", 1), axes)}
    return "average_pool", {**translated, "count_pad": options.get("count_include_pad", True)}


def _batch_norm(sample: Sample) -> tuple[str, dict[str, Any]]:
    arrays, options = sample.arrays, sample.options
    if sample.x.ndim < 2:
        raise Refused(ONE_AXIS)
    if arrays["gamma"] is None or arrays["beta"] is None:
        raise Refused(NO_WEIGHT)
    if arrays["running_mean"] is None or arrays["running_var"] is None:
        raise Refused(NO_STATISTICS)
    translated = {"training": options.get("training", False), "eps": options.get("eps", 1e-5)}
    if translated["training"]:  # what the running statistics keep is no matter elsewhere
        momentum = options.get("momentum", 0.1)
        if momentum is None:
            raise Refused(NO_MOMENTUM)
        translated["momentum"] = 1 - momentum
    return ("batchnorm" if sample.x.ndim == 2 else "spatial_batchnorm"), translated


def reason_of(error: GpuconvError, sample: Sample) -> str | None:
    """Return which of REASONS an error of gpuconv is, or None."""
    if outcomes.is_of_integers(error, sample.x):
        return INTEGERS
    if "momentum must be" in str(error):
        return MOMENTUM
    return None


# The judgement ------------------------------------------------------------------------------------------------------


def by_torch(sample: Sample, arrays: Mapping[str, Any], dy: np.ndarray) -> dict[str, np.ndarray]:
    """Return y and the gradients by PyTorch, of other arrays in the place of a sample's."""
    import torch

    tensors = {name: torch.tensor(array) for name, array in arrays.items() if array is not None}
    leaves = {name: tensor for name, tensor in tensors.items() if name in _GRADIENTS}
    if sample.x.dtype.kind == "c":
        return _complex_by_torch(sample, leaves, dy)
    for leaf in leaves.values():
        leaf.requires_grad_()
    y = _call_torch(sample, tensors)
    gradients = torch.autograd.grad(y, list(leaves.values()), torch.tensor(dy.reshape(y.shape)))
    results = {"y": y.detach(), **{_GRADIENTS[name]: g for name, g in zip(leaves, gradients, strict=True)}}
    return {name: result.numpy() for name, result in results.items()}


_GRADIENTS = {"x": "dx", "w": "dw", "b": "db", "gamma": "dgamma", "beta": "dbeta"}


def _call_torch(sample: Sample, tensors: Mapping[str, Any]) -> Any:
    """Return y of a sample's function, of other tensors in the place of its arrays."""
    import torch.nn.functional as F

    ordered = [tensors.get(name) for name in ("x", *_ARRAYS.get(kind_of(sample.name), ()))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # padding="same" with unequal sides makes a copy
        return getattr(F, sample.name)(*ordered, **sample.options)


def _complex_by_torch(sample: Sample, leaves: Mapping[str, Any], dy: np.ndarray) -> dict[str, np.ndarray]:
    """Return y and the gradients of a complex convolution by real ones of its parts.

    PyTorch's own saves one of four products and takes the difference of large sums instead, which loses digits: no
    reference for numbers of the same precision.
    """
    import torch

    real = {name: leaf.real.clone().requires_grad_() for name, leaf in leaves.items()}
    imaginary = {name: leaf.imag.clone().requires_grad_() for name, leaf in leaves.items()}

    def product(x: Mapping[str, Any], w: Mapping[str, Any], b: Any = None) -> Any:
        return _call_torch(sample, {"x": x["x"], "w": w["w"], "b": b})

    y = [
        product(real, real, real.get("b")) - product(imaginary, imaginary),
        product(real, imaginary, imaginary.get("b")) + product(imaginary, real),
    ]
    upstream = [torch.tensor(np.ascontiguousarray(part.reshape(y[0].shape))) for part in (dy.real, dy.imag)]
    gradients = torch.autograd.grad(y, [*real.values(), *imaginary.values()], upstream)
    results = {"y": torch.complex(*y).detach()}
    for name, re, im in zip(leaves, gradients[: len(real)], gradients[len(real) :], strict=True):
        results[_GRADIENTS[name]] = torch.complex(re, im)
    return {name: result.numpy() for name, result in results.items()}


def scales_of(sample: Sample, dy: np.ndarray) -> dict[str, np.ndarray]:
    """Return the sizes of the terms of each result, as compare.assert_close takes them; those of complex ones complex."""
    arrays = {name: array for name, array in sample.arrays.items() if array is not None}
    if sample.name == "batch_norm":
        unit = U_SUM[sample.x.dtype.name]
        options = {name: value for name, value in sample.options.items() if name in ("training", "eps")}
        options = {"training": False, **options}
        sizes = batchnorm_scales(**arrays, dy=dy, unit=unit, **options)
        return {"y": sizes.y, "dx": sizes.dx, "dgamma": sizes.dgamma, "dbeta": sizes.dbeta}
    if kind_of(sample.name) == "max_pool":  # the largest is chosen among the numbers themselves
        sizes = by_torch(sample, {"x": _wide(sample.x)}, np.abs(_wide(dy)))
        return {name: np.abs(size) for name, size in sizes.items()}
    if sample.x.dtype.kind != "c":
        return by_torch(sample, {name: np.abs(_wide(array)) for name, array in arrays.items()}, np.abs(_wide(dy)))

    def sizes_with(sign_x: int, sign_w: int) -> dict[str, np.ndarray]:
        signs = {"x": sign_x, "w": sign_w}
        return by_torch(sample, {name: _parts(array, signs.get(name, 1)) for name, array in arrays.items()}, _parts(dy))

    # Signs that let the terms of a part of a result add up.  Gradients take x and w conjugate.
    straight, turned, mixed = sizes_with(1, 1), sizes_with(-1, -1), sizes_with(-1, 1)
    scales = {"y": mixed["y"].real + 1j * straight["y"].imag}
    for name in ("dx", "dw"):
        scales[name] = straight[name].real + 1j * turned[name].imag
    return scales | ({"db": straight["db"]} if "db" in straight else {})


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _parts(array: np.ndarray, sign: int = 1) -> np.ndarray:
    """Return |Re| + i |Im|, or its conjugate."""
    return np.abs(_wide(array).real) + sign * 1j * np.abs(_wide(array).imag)


def terms_of(sample: Sample, y: np.ndarray) -> dict[str, int]:
    """Return an upper limit of the number of terms of each result's sums."""
    kind, x = kind_of(sample.name), sample.x
    if kind == "batch_norm":
        count = x.size // x.shape[1]
        return dict.fromkeys(("y", "dx", "dgamma", "dbeta"), count)
    if kind != "conv":
        window = prod(_tuple(sample.options["kernel_size"], AXES[sample.name]))
        return {"y": window, "dx": window}
    w, parts = sample.arrays["w"], 2 if x.dtype.kind == "c" else 1
    positions = y.size // w.shape[0]
    dx = w.size // w.shape[1] // sample.options.get("groups", 1)
    return {"y": parts * prod(w.shape[1:]) + 1, "dx": parts * dx, "dw": parts * positions, "db": positions}


def judge(sample: Sample, rng: np.random.Generator) -> Outcome:
    """Return how a sample ends, and why, where it is refused or wrong."""

    def dy_of(shape: tuple[int, ...]) -> np.ndarray:
        values = rng.standard_normal(shape)
        drawn = values + 1j * rng.standard_normal(shape) if sample.x.dtype.kind == "c" else values
        kept.append(drawn.astype(sample.x.dtype))
        return kept[0]

    kept: list[np.ndarray] = []
    copies = {name: None if array is None else array.copy() for name, array in sample.arrays.items()}
    try:
        results = computed(Sample(sample.name, copies, sample.options), dy_of)
    except Refused as refusal:
        return Outcome("refused", str(refusal))
    except GpuconvError as error:
        reason = reason_of(error, sample)
        return Outcome("refused", reason) if reason else Outcome("wrong", f"{type(error).__name__}: {error}")
    dy = kept[0][0] if sample.unbatched else kept[0]
    wide = {name: None if array is None else _wide(array) for name, array in sample.arrays.items()}
    expected, scales, terms = by_torch(sample, wide, _wide(dy)), scales_of(sample, dy), terms_of(sample, results["y"])
    if results.keys() != expected.keys():
        return Outcome("wrong", f"results {list(results)}, expected {list(expected)}")
    for name, result in results.items():
        try:
            for got, want, scale in _real_parts(result, expected[name], scales[name]):
                dtype = got.dtype if result.dtype == sample.x.dtype else sample.x.dtype
                assert_close(got, want, scale=scale, dtype=dtype, terms=terms[name], zero_mean=False)
        except AssertionError as difference:
            return Outcome("wrong", f"{name}: {difference}")
    return Outcome("adapted" if sample.unbatched else "right")


def _real_parts(*arrays: np.ndarray) -> Iterable[tuple[np.ndarray, ...]]:
    """Yield the real parts of arrays, then, where they are complex, the imaginary ones."""
    yield tuple(np.ascontiguousarray(array.real) for array in arrays)
    if arrays[0].dtype.kind == "c":
        yield tuple(np.ascontiguousarray(array.imag) for array in arrays)


def count(only: Iterable[str] = NAMES, dtypes: Iterable[str] = DTYPES) -> dict[str, dict[str, Counts]]:
    """Return how the samples end, by function and dtype."""
    known, counts, chosen = operators(), {}, tuple(dtypes)
    for name in only:
        counts[name] = {}
        for dtype in chosen:
            rng = np.random.default_rng(0)
            if drawn := samples(known[name], name, dtype):
                counts[name][dtype] = Counts()
            for sample in drawn:
                counts[name][dtype].add(sample, judge(sample, rng))
    return counts


def count_errors(only: Iterable[str] = NAMES) -> dict[str, dict[str, Any]]:
    """Return how many inputs at which PyTorch raises an error gpuconv refuses, and which it takes, by function."""
    known, counts = operators(), {}
    for name in only:
        refused, taken = 0, []
        for sample in error_samples(known[name], name):
            try:
                computed(sample, lambda shape, x=sample.x: np.ones(shape, x.dtype))  # type: ignore[misc]
            except (Refused, GpuconvError):
                refused += 1
            else:
                taken.append(str(sample))
        counts[name] = {"refused": refused, "taken": taken}
    return counts


def report(counts: Mapping[str, Mapping[str, Counts]], errors: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is saved."""
    import torch

    everyone = [one for by_dtype in counts.values() for one in by_dtype.values()]
    refused = sum((one.refused for one in everyone), Counter())
    return {
        **outcomes.stamp(torch=torch.__version__),
        "total": {
            "right": sum(one.right for one in everyone),
            "adapted": sum(one.adapted for one in everyone),
            "refused": dict(refused.most_common()),
            "wrong": sum(len(one.wrong) for one in everyone),
        },
        "samples": {
            name: {dtype: {**vars(one), "refused": dict(one.refused)} for dtype, one in by_dtype.items()}
            for name, by_dtype in counts.items()
        },
        "errors": dict(errors),
    }


def lost(found: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """Return of which functions and dtypes fewer samples are right than in a record before, of the same PyTorch."""
    if before is None or before["torch"] != found["torch"]:
        return []
    return [
        f"{name} of {dtype}"
        for name, by_dtype in found["samples"].items()
        for dtype, now in by_dtype.items()
        if (was := before["samples"].get(name, {}).get(dtype))
        and now["right"] + now["adapted"] < was["right"] + was["adapted"]
    ]


def main(arguments: list[str] | None = None) -> int:
    """Count, show, and save if wanted; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.ladder.torch_samples", description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--save", metavar="FILE", nargs="?", const="", help="default: bench/results, with the date")
    given = parser.parse_args(arguments)
    only = given.only.split(",") if given.only else NAMES
    if unknown := set(only) - set(NAMES):
        parser.error(f"there is no function {', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
    counts, errors = count(only), count_errors(only)
    found = report(counts, errors)
    for name, by_dtype in counts.items():
        for dtype, one in by_dtype.items():
            words = (
                f"right {one.right:4}  adapted {one.adapted:4}  refused {one.refused.total():4}  wrong {len(one.wrong)}"
            )
            print(f"{name:12}{dtype:12}{words}")
            for why in one.wrong:
                print(f"    {why}")
    print(f"\nin all: {json.dumps(found['total'], indent=2)}")
    for name, one in errors.items():
        print(f"errors of {name}: refused {one['refused']}, taken {len(one['taken'])}", *one["taken"], sep="\n    ")
    fewer = lost(found, outcomes.newest(KIND))
    print(*(f"fewer are right than were: {one}\n" for one in fewer), sep="", end="")
    if given.save is not None:
        print(outcomes.save(found, KIND, given.save))
    return int(found["total"]["wrong"] > 0 or bool(fewer))


if __name__ == "__main__":
    raise SystemExit(main())
