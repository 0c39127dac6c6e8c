"""Layers of nets on a GPU: each pass right first, then timed by graph replay, ours and PyTorch's in turns.

What is expected of them stands in predictions.json, a layer a line; here stands how each side does them.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

import gpuconv
from bench import oracle
from bench.cases import Case
from bench.inputs import Inputs, draw
from gpuconv import backend
from gpuconv.ops.conv import input_gradient, weight_gradient

from .predictions import predictions, share
from .replay import CupyReplay, TorchReplay, spread, turns
from .work import Work, line

_CALLS, _LEAST_CALLS, _GRAPH_US = 20, 4, 8000  # captured in a graph, and about how long it may take
_MOST_BYTES = 150e6  # of the inputs of all captured calls: more than twice the L2 cache of an H200
_FIRST = 6  # layers that come in every regime before the others
_AHEAD = 3  # items that are prepared while one is measured
# The regimes of a layer; our own kernels know no TF32.
REGIMES = ("float32", "float16", "tf32")
_DRY_LAYER = {"name": "small 16->16 3x3", "x": [2, 16, 6, 5], "w": [16, 16, 3, 3], "stride": 1, "pad": 1, "us": {}}
_DRY_PASSES = [
    {"name": "batch norm, small", "op": "spatial_batchnorm", "x": [2, 8, 4, 5], "us": {}},
    {"name": "max-pool 2x2, small", "op": "max_pool", "x": [2, 8, 4, 6], "us": {}},
]

Item = tuple[dict[str, Any], str]  # a line of predictions.json, and a regime
Passes = dict[str, tuple[str, Callable[[], Any]]]  # pass: its result as bench/oracle.py names it, and the call
References = dict[str, oracle.Reference]


def run(work: Work) -> bool:
    """Measure until the time is spent, the layers that tell most first."""
    if work.dry:
        work.leave_out("all layers but a small one", "times", "PyTorch on a GPU: its calls run on the CPU, uncaptured")
    torch = _torch(work)
    if not work.dry and "peaks" not in work.found:
        work.keep(peaks=_peaks())
    work.keep(rows=work.found.get("rows", []))
    chosen = items(dry=work.dry)
    ahead = _Ahead(chosen)
    ok = work.each(chosen, lambda item: _measure(work, torch, *item, *ahead.get(item)), words)
    ahead.end()
    work.keep(shown=_shown(work.found["rows"]))
    return ok is not False


def items(*, dry: bool) -> list[Item]:
    """Return what is measured, in this order."""
    found = predictions()
    if dry:
        return [(_DRY_LAYER, regime) for regime in REGIMES] + [(each, "float32") for each in _DRY_PASSES]
    first, others = found["layers"][:_FIRST], found["layers"][_FIRST:]
    passes = [(each, "float32") for each in found["passes"]]
    return [
        *((layer, regime) for layer in first for regime in REGIMES),
        *passes[:4],
        *((layer, regime) for layer in others for regime in REGIMES),
        *passes[4:],
    ]


def words(item: Item) -> str:
    """Return an item as messages show it."""
    return f"{item[0]['name']}, {item[1]}"


def _torch(work: Work) -> Any:
    """Return PyTorch, set up as fast as it is without other numbers, or None, which is named."""
    try:
        import torch
    except ImportError as error:
        work.keep(torch=f"not measured: {line(error)}")
        return None
    if not torch.cuda.is_available() and not work.dry:
        work.keep(torch=f"not measured: PyTorch {torch.__version__} sees no GPU")
        return None
    torch.backends.cudnn.benchmark = True
    work.keep(torch=torch.__version__)
    return torch


def _peaks() -> dict[str, float]:
    from bench.peaks import cuda_peaks

    return {name: round(value) for name, value in cuda_peaks().items()}


class _Ahead:
    """Draws the inputs of the next items, and computes what must come of them, while one is on the GPU."""

    def __init__(self, chosen: list[Item]) -> None:
        self._items = chosen
        self._threads = ThreadPoolExecutor(_AHEAD, "prepare")
        self._made: dict[str, Future[tuple[Inputs, References]]] = {}

    def get(self, item: Item) -> tuple[Inputs, References]:
        place = self._items.index(item)
        for later in self._items[place : place + _AHEAD + 1]:
            if words(later) not in self._made:
                self._made[words(later)] = self._threads.submit(prepared, *later)
        return self._made.pop(words(item)).result()

    def end(self) -> None:
        self._threads.shutdown(cancel_futures=True)


def prepared(layer: dict[str, Any], regime: str) -> tuple[Inputs, References]:
    """Return the inputs of a layer, and the results of its passes by the definition."""
    inputs = draw(case_of(layer), "NHWC", regime)
    if inputs.case.op == "conv" and inputs.b is not None:
        inputs = dataclasses.replace(inputs, b=np.zeros_like(inputs.b))  # layers with batch norm have none
    return inputs, {each.name: each for parts in oracle.references(inputs).values() for each in parts}


def _measure(work: Work, torch: Any, layer: dict[str, Any], regime: str, inputs: Inputs, wanted: References) -> None:
    """Hold both sides of a layer's passes to the definition, then time them."""
    count = 2 if work.dry else _captured(layer)
    copies = _copies(inputs, count)
    # An input of its own for each captured call, as far as that takes: else the cache would be timed.
    ours = [_ours(inputs) for _ in range(copies)] if regime != "tf32" else []
    theirs = _theirs_or_not(work, torch, inputs, copies)
    for name in _passes_of(inputs.case):
        predicted = layer["us"].get(name)
        if layer["us"] and predicted is None:  # a first layer needs no dx
            continue
        mine = beside = None
        if ours:
            _hold(wanted, inputs, *ours[0][name])
            mine = CupyReplay([ours[i % copies][name][1] for i in range(count)])
        if theirs and _agree(work, wanted, inputs, name, *theirs[0][name]) and torch.cuda.is_available():
            beside = TorchReplay([theirs[i % copies][name][1] for i in range(count)])
        our_us, their_us = turns(mine, beside, count, dry=work.dry)
        if not (our_us or their_us or work.dry):
            continue
        row = {"layer": layer["name"], "pass": name, "regime": regime}
        row |= _result(layer, inputs.case, name, regime, our_us, their_us)
        work.keep(rows=[*work.found["rows"], row])
        del mine, beside


def _result(
    layer: dict[str, Any], case: Case, name: str, regime: str, ours: list[float], theirs: list[float]
) -> dict[str, Any]:
    """Return the numbers of a row, each beside what was predicted."""
    found: dict[str, Any] = {"predicted us": None if regime == "tf32" else layer["us"].get(name)}
    kind = "float16" if regime == "float16" else "float32"
    if ours:
        found |= {"us": round(statistics.median(ours), 2), "spread": spread(ours)}
        found["measured / predicted"] = share(found["us"], found["predicted us"])
        if case.op == "conv":
            found["TFLOP/s"] = round(case.flop("forward") / found["us"] / 1e6, 1)
        floor = layer.get("floor_us", {}).get(kind if case.op == "conv" else name)
        found["of the floor"] = None if floor is None else round(floor / found["us"], 3)
        if regime == "float16" and name == "forward":
            found["predicted of tensor cores"] = layer.get("tensor_core_us")
    if theirs:
        found |= {"torch us": round(statistics.median(theirs), 2), "torch spread": spread(theirs)}
        estimate = layer.get("cudnn_us", {}).get(kind) if regime != "tf32" else None
        found["torch measured / predicted"] = share(found["torch us"], estimate)
    if ours and theirs:
        found["torch / ours"] = round(found["torch us"] / found["us"], 3)
    return found


def _shown(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows for the table, as many as a screen takes."""
    lines = []
    for row in rows[:70]:
        text = f"{row['layer']:30s} {row['pass']:8s} {row['regime']:8s}"
        if "us" in row:
            ratio = row["measured / predicted"]
            text += f" {row['us']:8.1f} us" + (f", x{ratio:.2f} of predicted" if ratio is not None else "")
        if "torch us" in row:
            text += f"  torch {row['torch us']:8.1f} us"
        if not {"us", "torch us"} & row.keys():  # of a dry run
            text += " right"
        lines.append(text + (f", torch / ours {row['torch / ours']:.2f}" if "torch / ours" in row else ""))
    return lines


# The two sides --------------------------------------------------------------------------------------------------------


def case_of(layer: dict[str, Any]) -> Case:
    """Return a line of predictions.json as bench/ knows it."""
    shape = tuple(layer["x"])
    if "op" in layer:
        options = {"window": 2} if layer["op"] == "max_pool" else {}
        return Case(layer["name"], layer["op"], shape, options=options)
    options = {"stride": layer["stride"], "pad": layer["pad"]}
    return Case(layer["name"], "conv", shape, tuple(layer["w"]), options)


def _passes_of(case: Case) -> tuple[str, ...]:
    return ("forward", "dx", "dw") if case.op == "conv" else ("forward", "backward")


def _captured(layer: dict[str, Any]) -> int:
    """Return how many calls a graph holds: 20, or fewer where those would take long."""
    return max(_LEAST_CALLS, min(_CALLS, round(_GRAPH_US / max(us for us in layer["us"].values() if us is not None))))


def _copies(inputs: Inputs, most: int) -> int:
    """Return how many sets of inputs are needed so that none of them is in the cache when its turn comes."""
    bytes_ = sum(array.nbytes for array in (inputs.x, inputs.dy, inputs.w) if array is not None)
    return int(min(most, -(-_MOST_BYTES // bytes_)))


def _hold(wanted: References, inputs: Inputs, name: str, call: Callable[[], Any]) -> None:
    """Raise AssertionError if the first result of a call is not the definition's."""
    result = call()
    if type(result).__module__.partition(".")[0] == "torch":
        side, host = "PyTorch", result.detach().cpu().numpy()
    else:
        side, host = "gpuconv", backend.asnumpy(result)
    got = oracle.sample(host, name)
    if not wanted[name].agrees(got):
        msg = f"{side}'s {name} is wrong: off by {wanted[name].error(got):.2g} of its largest value"
        raise AssertionError(msg)


def _agree(work: Work, wanted: References, inputs: Inputs, which: str, name: str, call: Callable[[], Any]) -> bool:
    """Return whether PyTorch's pass is right: a wrong one is named and not timed, and fails nothing of ours."""
    try:
        _hold(wanted, inputs, name, call)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        refused = work.found.get("torch refused", {})
        work.keep(**{"torch refused": refused | {f"{inputs.case.name}, {inputs.regime}, {which}": line(error)}})
        return False
    return True


def _ours(inputs: Inputs) -> Passes:
    """Return our passes, on arrays of their own."""
    case = inputs.case

    def put(array: Any) -> Any:
        if array.ndim != 4 or array.flags.c_contiguous:
            return backend.asarray(array)
        return backend.asarray(np.ascontiguousarray(array.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)

    with backend.using("cuda"):
        x, dy = put(inputs.x), put(inputs.dy)
        if case.op == "conv":
            w = backend.asarray(np.ascontiguousarray(inputs.w))
            return {
                "forward": ("y", lambda: gpuconv.conv_forward(x, w, **case.options)[0]),
                "dx": ("dx", lambda: input_gradient(dy, w, x, **case.options)),
                "dw": ("dw", lambda: weight_gradient(dy, x, w, **case.options)),
            }
        if case.op == "max_pool":
            _, pooled = gpuconv.max_pool_forward(x, **case.options)
            return {
                "forward": ("y", lambda: gpuconv.max_pool_forward(x, **case.options)[0]),
                "backward": ("dx", lambda: gpuconv.max_pool_backward(dy, pooled)),
            }
        vectors = [put(inputs.w), put(inputs.b), *(put(f(case.x[1], dtype=np.float32)) for f in (np.zeros, np.ones))]
        _, normed = gpuconv.spatial_batchnorm_forward(x, *vectors)
        return {
            "forward": ("y", lambda: gpuconv.spatial_batchnorm_forward(x, *vectors)[0]),
            "backward": ("dx", lambda: gpuconv.spatial_batchnorm_backward(dy, normed)[0]),
        }


def _theirs_or_not(work: Work, torch: Any, inputs: Inputs, copies: int) -> list[Passes]:
    """Return PyTorch's passes; none where it is not there or cannot do this, which is named."""
    if torch is None:
        return []
    try:
        return [_theirs(torch, inputs) for _ in range(copies)]
    except (RuntimeError, NotImplementedError) as error:
        refused = work.found.get("torch refused", {})
        work.keep(**{"torch refused": refused | {f"{inputs.case.name}, {inputs.regime}": line(error)}})
        return []


def _theirs(torch: Any, inputs: Inputs) -> Passes:
    """Return PyTorch's passes, without autograd, on arrays of their own."""
    case, aten = inputs.case, torch.ops.aten
    where = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = inputs.regime == "tf32"

    def put(array: Any) -> Any:
        if array.ndim != 4:
            return torch.from_numpy(array).to(where)
        inner = np.ascontiguousarray(array.transpose(0, 2, 3, 1))  # of images as they are stored: no copy
        return torch.from_numpy(inner).to(where, copy=True).permute(0, 3, 1, 2)

    x, dy = put(inputs.x), put(inputs.dy)
    if case.op == "conv":
        w, stride, pad = put(inputs.w), [case.options["stride"]] * 2, [case.options["pad"]] * 2

        def backward(which: int) -> Any:
            mask = [place == which for place in range(3)]
            return aten.convolution_backward(dy, x, w, None, stride, pad, [1, 1], False, [0, 0], 1, mask)[which]

        forward = partial(torch.nn.functional.conv2d, x, w, None, stride, pad)
        return {"forward": ("y", forward), "dx": ("dx", partial(backward, 0)), "dw": ("dw", partial(backward, 1))}
    if case.op == "max_pool":
        _, places = aten.max_pool2d_with_indices(x, [2, 2], [2, 2])
        gradient = aten.max_pool2d_with_indices_backward
        return {
            "forward": ("y", lambda: aten.max_pool2d_with_indices(x, [2, 2], [2, 2])[0]),
            "backward": ("dx", lambda: gradient(dy, x, [2, 2], [2, 2], [0, 0], [1, 1], False, places)),
        }
    w, b, mean, var = put(inputs.w), put(inputs.b), *(put(f(case.x[1], dtype=np.float32)) for f in (np.zeros, np.ones))
    _, saved, inverse = aten.native_batch_norm(x, w, b, mean, var, True, 0.1, 1e-5)
    back = partial(aten.native_batch_norm_backward, dy, x, w, mean, var, saved, inverse, True, 1e-5, [True] * 3)
    return {
        "forward": ("y", lambda: torch.nn.functional.batch_norm(x, mean, var, w, b, True, 0.1, 1e-5)),
        "backward": ("dx", lambda: back()[0]),
    }
