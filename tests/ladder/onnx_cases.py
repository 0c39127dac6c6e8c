"""Put the cases that ONNX tests its backends with through gpuconv, and count what is right.

    python -m tests.ladder.onnx_cases [--only OPERATOR,...] [--save [FILE]]

Every case of the installed `onnx` is taken whose graph has no nodes but those of our operators (onnx_words.py) and such
as only move numbers: single nodes, with what the operator's definition says of them, and small models that PyTorch once
exported.  A case ends as one of these:

  right     each output within the case's own tolerances of what ONNX says
  refused   for the reason it is counted under: something that gpuconv has no words for
  wrong     computed, and not within them; or an error that is none of those reasons

Exit status 1: something was wrong, or a case that the newest record in bench/results has as right is no more.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from places import Cpu

from gpuconv.errors import GpuconvError

from . import outcomes
from .onnx_words import WORDS, Node
from .outcomes import INTEGERS, Outcome, Refused

KIND = "onnx-cases"


@dataclass(frozen=True, eq=False)
class Case:
    """A case of ONNX: a graph, sets of inputs and outputs of it, and how far apart numbers may be."""

    name: str
    model: Any
    data: tuple[tuple[list[np.ndarray], list[np.ndarray]], ...]
    rtol: float
    atol: float

    @property
    def operator(self) -> str:
        """The operator that it is counted under."""
        return next(node.op_type for node in self.model.graph.node if node.op_type in WORDS)

    @property
    def size(self) -> int:
        """How many numbers go in and come out."""
        return sum(array.size for inputs, outputs in self.data for array in (*inputs, *outputs))


# What only moves numbers, between nodes of ours.
_MOVES: dict[str, Callable[..., np.ndarray]] = {
    "Constant": lambda node: _array(node.take("value", None)),
    "Squeeze": lambda node, x: x.squeeze(tuple(node.take("axes", None))),
    "Transpose": lambda node, x: x.transpose(node.take("perm", None)),
    "Unsqueeze": lambda node, x: np.expand_dims(x, tuple(node.take("axes", None))),
}


# ONNX's cases -------------------------------------------------------------------------------------------------------


@cache
def cases() -> tuple[Case, ...]:
    """Return the cases of our operators, in the order of their names."""
    found = {case.name: case for case in (*_of_nodes(), *_of_models()) if _is_ours(case.model.graph)}
    return tuple(found[name] for name in sorted(found))


def _is_ours(graph: Any) -> bool:
    kinds = {node.op_type for node in graph.node}
    return bool(kinds & WORDS.keys()) and kinds <= WORDS.keys() | _MOVES.keys()


def _of_nodes() -> Iterator[Case]:
    """Yield what ONNX generates beside the definition of each operator."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # cases of casts overflow
        drawn = collect_testcases(None)
    for case in drawn:
        yield Case(case.name, case.model, tuple(case.data_sets), case.rtol, case.atol)


def _of_models() -> Iterator[Case]:
    """Yield the small models of files that come with ONNX."""
    import onnx
    from onnx.backend.test.loader import load_model_tests

    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for case in load_model_tests(kind=kind):
            folder = Path(case.model_dir)
            model = onnx.load(folder / "model.onnx")
            if _is_ours(model.graph):
                data = tuple(
                    (_arrays(part, "input"), _arrays(part, "output")) for part in folder.glob("test_data_set_*")
                )
                yield Case(case.name, model, data, case.rtol, case.atol)


def _arrays(folder: Path, what: str) -> list[np.ndarray]:
    import onnx

    count = len(list(folder.glob(f"{what}_*.pb")))
    return [_array(onnx.load_tensor(str(folder / f"{what}_{place}.pb"))) for place in range(count)]


def _array(tensor: Any) -> np.ndarray:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


# The judgement ------------------------------------------------------------------------------------------------------


def computed(model: Any, inputs: list[np.ndarray], place: Any) -> list[np.ndarray]:
    """Return the outputs of a graph; raise Refused where gpuconv has no words, or GpuconvError where it refuses."""
    from onnx import helper

    graph = model.graph
    known = {"": None, **{tensor.name: _array(tensor) for tensor in graph.initializer}}
    known |= zip((one.name for one in graph.input if one.name not in known), inputs, strict=True)
    (opset, *_) = [one.version for one in model.opset_import]
    for each in graph.node:
        attributes = {one.name: helper.get_attribute_value(one) for one in each.attribute}
        node = Node(each.op_type, attributes, len(each.output), opset, place)
        results = (WORDS | _MOVES)[node.kind](node, *(known[name] for name in each.input))
        if left := attributes.keys() - node.taken:
            msg = f"onnx_words.py does not read the attribute {', '.join(sorted(left))} of {node.kind}"
            raise NotImplementedError(msg)
        known |= zip(each.output, results if isinstance(results, tuple) else (results,), strict=False)
    return [known[one.name] for one in graph.output]


def judge(case: Case, place: Any = Cpu) -> Outcome:
    """Return how a case ends in a place of tests/places.py."""
    for inputs, expected in case.data:
        try:
            results = computed(case.model, inputs, place)
            for result, want in zip(results, expected, strict=True):
                assert result.dtype == want.dtype, f"{result.dtype}, not {want.dtype}"
                np.testing.assert_allclose(result, want, case.rtol, case.atol, strict=True)
        except Refused as refusal:
            return Outcome("refused", str(refusal))
        except GpuconvError as error:
            if outcomes.is_of_integers(error, inputs[0]):
                return Outcome("refused", INTEGERS)
            return Outcome("wrong", f"{type(error).__name__}: {error}")
        except (AssertionError, NotImplementedError) as difference:
            return Outcome("wrong", " ".join(str(difference).split()))
    return Outcome("right")


def count(only: Iterable[str] = WORDS, place: Any = Cpu) -> dict[Case, Outcome]:
    """Return how the cases of some operators end."""
    wanted = set(only)
    return {case: judge(case, place) for case in cases() if case.operator in wanted}


def report(counted: Mapping[Case, Outcome]) -> dict[str, Any]:
    """Return what is saved: how many cases of each operator end each way, and how each one does."""
    import onnx

    operators = sorted({case.operator for case in counted})
    of = {name: [ended for case, ended in counted.items() if case.operator == name] for name in operators}
    return {
        **outcomes.stamp(onnx=onnx.__version__),
        "total": outcomes.total(counted.values()),
        "operators": {name: outcomes.total(of[name]) for name in operators},
        "cases": {
            case.name: {"operator": case.operator, "outcome": ended.how} | ({"why": ended.why} if ended.why else {})
            for case, ended in counted.items()
        },
    }


def lost(found: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """Return the names of cases that were right in a record before, and are no more."""
    were = before["cases"] if before else {}
    now = found["cases"]
    return [name for name in now if now[name]["outcome"] != "right" == were.get(name, {}).get("outcome")]


def main(arguments: list[str] | None = None) -> int:
    """Count, show, and save if wanted; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.ladder.onnx_cases", description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="OPERATOR,...", help=f"some of {', '.join(WORDS)}")
    parser.add_argument("--save", metavar="FILE", nargs="?", const="", help="default: bench/results, with the date")
    given = parser.parse_args(arguments)
    only = given.only.split(",") if given.only else list(WORDS)
    if unknown := set(only) - WORDS.keys():
        parser.error(f"there is no operator {', '.join(sorted(unknown))}: choose from {', '.join(WORDS)}")
    found = report(count(only))
    for name, one in found["operators"].items():
        print(f"{name:26}right {one['right']:4}  refused {sum(one['refused'].values()):4}  wrong {one['wrong']:4}")
    for name, case in found["cases"].items():
        if case["outcome"] == "wrong":
            print(f"    {name}: {case['why']}")
    no_more = lost(found, outcomes.newest(KIND))
    print(f"\nin all: {json.dumps(found['total'], indent=2)}")
    print(*(f"was right: {name}\n" for name in no_more), sep="", end="")
    if given.save is not None:
        print(outcomes.save(found, KIND, given.save))
    return int(found["total"]["wrong"] > 0 or bool(no_more))


if __name__ == "__main__":
    raise SystemExit(main())
