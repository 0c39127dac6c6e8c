"""Put the inputs that PyTorch tests its own operators with through gpuconv, and count what is right.

    python -m tests.ladder.torch_samples [--only NAME,...] [--save [FILE]]

Convolution, also transposed, max and average pooling, also to a size, of signals, images and volumes, batch norm, SiLU and cross-entropy,
forward and backward, on the CPU; in our words by torch_words.py.  Every sample ends as one of these:

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
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from compare import assert_close, assert_same

from gpuconv.errors import GpuconvError

from . import outcomes
from .outcomes import Outcome, Refused
from .torch_reference import AXES, Sample, by_torch, one_thread, wide
from .torch_words import WORDS, reason_of, words_of

KIND = "torch-samples"
# Functions by their names: "conv2d", "silu".
NAMES = tuple(
    name for kind in WORDS for name in ([f"{kind}{axes}d" for axes in (1, 2, 3)] if f"{kind}1d" in AXES else [kind])
)
DTYPES = ("float64", "float32", "float16", "complex64", "complex128", "int64")


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

    words = words_of(name)
    arrays = {"x": array(drawn.input), **dict.fromkeys(words.arrays)}
    arrays |= dict(zip(words.arrays, map(array, drawn.args), strict=False))
    options = dict(zip(words.options, drawn.args[len(words.arrays) :], strict=False))
    for key, value in drawn.kwargs.items():
        if key in words.keywords:
            arrays[words.keywords[key]] = array(value)
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


# The judgement ------------------------------------------------------------------------------------------------------


def judge(sample: Sample, rng: np.random.Generator) -> Outcome:
    """Return how a sample ends, and why, where it is refused or wrong."""

    words, kept = words_of(sample.name), []

    def upstream(shape: tuple[int, ...]) -> np.ndarray:
        drawn = np.ones(shape) if words.loss else rng.standard_normal(shape)
        drawn = drawn + 1j * rng.standard_normal(shape) if sample.x.dtype.kind == "c" else drawn
        kept.append(drawn.astype(sample.x.dtype))
        return kept[0]

    copies = {name: None if array is None else array.copy() for name, array in sample.arrays.items()}
    try:
        results = words.compute(Sample(sample.name, copies, sample.options), upstream)
    except Refused as refusal:
        return Outcome("refused", str(refusal))
    except GpuconvError as error:
        reason = reason_of(error, sample)
        return Outcome("refused", reason) if reason else Outcome("wrong", f"{type(error).__name__}: {error}")
    dy = kept[0][0] if sample.unbatched else kept[0]
    arrays = {name: None if array is None else wide(array) for name, array in sample.arrays.items()}
    expected, scales = by_torch(sample, arrays, wide(dy)), words.scales(sample, dy)
    terms = words.terms(sample, results["y"])
    if results.keys() != expected.keys():
        return Outcome("wrong", f"results {list(results)}, expected {list(expected)}")
    for name, result in results.items():
        try:
            if name == "indices":
                assert_same(result, expected[name])
                continue
            for got, want, scale in _real_parts(result, expected[name], scales[name]):
                dtype = got.dtype if result.dtype == _dtype_of(name, sample) else sample.x.dtype
                assert_close(got, want, scale=scale, dtype=dtype, terms=terms[name], zero_mean=False)
        except AssertionError as difference:
            return Outcome("wrong", f"{name}: {difference}")
    return Outcome("adapted" if sample.unbatched else "right")


def _dtype_of(result: str, sample: Sample) -> np.dtype:
    """Return the dtype that a result of a sample has: that of x, but for losses, which are float32 at least."""
    if words_of(sample.name).loss and result == "y":
        return np.promote_types(sample.x.dtype, np.float32)
    return sample.x.dtype


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
            with one_thread():
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
                words_of(name).compute(sample, lambda shape, x=sample.x: np.ones(shape, x.dtype))  # type: ignore[misc]
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
            print(f"{name:33} {dtype:12}{words}")
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
