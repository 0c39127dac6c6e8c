"""Layers of nets on a GPU: each pass right first, then timed by graph replay, ours and PyTorch's in turns.

The layers stand in predictions.json, what is expected of our passes in layer_times.json, and our passes in layers.py;
here stands how PyTorch does them, in the same memory format and the same arithmetic, and how both are held and timed.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from bench import oracle
from bench.inputs import Inputs, draw
from gpuconv import backend, bfloat16

from .layers import FFMA, REGIMES, Arrays, Passes, case_of, in_regime, ours, passes_of, regimes_of
from .predictions import floor_us, predictions, share
from .replay import CupyReplay, TorchReplay, spread, turns
from .work import Work, line

_CALLS, _LEAST_CALLS, _GRAPH_US = 20, 4, 8000  # captured in a graph, and about how long it may take
_MOST_BYTES = 150e6  # of the inputs of all captured calls: more than twice the L2 cache of an H200
_FIRST = 6  # layers that come in every regime before the others
_AHEAD = 6  # items that are prepared while one is measured
_SHOWN = 90  # rows of the table
_DRY_LAYER = {"name": "small 16->16 3x3", "x": [2, 16, 6, 5], "w": [16, 16, 3, 3], "stride": 1, "pad": 1, "us": {}}
_DRY_PASSES = [
    {"name": "batch norm, small", "op": "spatial_batchnorm", "x": [2, 8, 4, 5], "us": {}},
    {"name": "max-pool 2x2, small", "op": "max_pool", "x": [2, 8, 4, 6], "us": {}},
]

Item = tuple[dict[str, Any], str]  # a line of predictions.json, and a regime
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
    """Return what is measured, in this order: the first layers in every regime, then regime after regime of the others.

    By FFMA, beside what float32 goes by, the first layers alone.
    """
    found = predictions()
    if dry:
        return _in_regimes([_DRY_LAYER, *_DRY_PASSES])
    first, others = found["layers"][:_FIRST], found["layers"][_FIRST:]
    later = [(layer, regime) for regime in REGIMES if regime != FFMA for layer in others]
    return [*_in_regimes(first), *_in_regimes(found["passes"][:2]), *later, *_in_regimes(found["passes"][2:])]


def _in_regimes(layers: list[dict[str, Any]]) -> list[Item]:
    return [(layer, regime) for layer in layers for regime in regimes_of(layer)]


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
    inputs = draw(case_of(layer), "NHWC", "float32" if regime == FFMA else regime)
    if inputs.case.op == "conv" and inputs.b is not None:
        inputs = dataclasses.replace(inputs, b=np.zeros_like(inputs.b))  # layers with batch norm have none
    return inputs, {each.name: each for parts in oracle.references(inputs).values() for each in parts}


def _measure(work: Work, torch: Any, layer: dict[str, Any], regime: str, inputs: Inputs, wanted: References) -> None:
    """Hold both sides of a layer's passes to the definition, then time them; of FFMA, ours alone."""
    count = 2 if work.dry else _captured(layer, regime)
    copies = _copies(inputs, count)
    with in_regime(regime):
        # An input of its own for each captured call, as far as that takes: else the cache would be timed.
        mine = [ours(inputs.case, _put(inputs), regime) for _ in range(copies)]
        theirs = _theirs_or_not(work, None if regime == FFMA else torch, inputs, copies)
        for name in passes_of(layer):
            _hold(wanted, inputs, *mine[0][name])
            replay = CupyReplay([mine[i % copies][name][1] for i in range(count)])
            beside = None
            if theirs and _agree(work, wanted, inputs, name, *theirs[0][name]) and torch.cuda.is_available():
                beside = TorchReplay([theirs[i % copies][name][1] for i in range(count)])
            our_us, their_us = turns(replay, beside, count, dry=work.dry)
            row = {"layer": layer["name"], "pass": name, "regime": regime}
            row |= _result(layer, inputs, name, regime, our_us, their_us)
            work.keep(rows=[*work.found["rows"], row])
            del replay, beside


def _result(
    layer: dict[str, Any], inputs: Inputs, name: str, regime: str, ours: list[float], theirs: list[float]
) -> dict[str, Any]:
    """Return the numbers of a row, each beside what was predicted."""
    case = inputs.case
    found: dict[str, Any] = {"predicted us": layer["us"].get(regime, {}).get(name)}
    if ours:
        found |= {"us": round(statistics.median(ours), 2), "spread": spread(ours)}
        found["measured / predicted"] = share(found["us"], found["predicted us"])
        if case.op == "conv":
            found["TFLOP/s"] = round(case.flop("forward") / found["us"] / 1e6, 1)
        # What a pass must move: as forward does, each gradient reads dy and one of x and w, and writes the other.
        direction = "backward" if name == "backward" else "forward"
        floor = floor_us(case.flop(direction), case.bytes(direction, inputs.dtype.itemsize), regime)
        found |= {"floor us": round(floor, 1), "of the floor": round(floor / found["us"], 3)}
    if theirs:
        found |= {"torch us": round(statistics.median(theirs), 2), "torch spread": spread(theirs)}
        estimates = layer.get("cudnn_us", {})
        found["torch measured / predicted"] = share(
            found["torch us"], estimates.get("float16" if inputs.dtype.itemsize == 2 else regime)
        )
    if ours and theirs:
        found["torch / ours"] = round(found["torch us"] / found["us"], 3)
    return found


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the geometric mean of ours / PyTorch's time over a regime's rows: below 1 ours takes less."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if "torch / ours" in row:
            ratios.setdefault(row["regime"], []).append(row["torch / ours"])
    return {regime: round(1 / statistics.geometric_mean(found), 3) for regime, found in ratios.items()}


def _shown(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows for the table, as many as a screen takes."""
    lines = [
        f"geometric mean of ours / PyTorch's, {regime}: {mean} of {sum(row['regime'] == regime for row in rows)} rows"
        for regime, mean in means(rows).items()
    ]
    for row in rows[:_SHOWN]:
        text = f"{row['layer']:30s} {row['pass']:8s} {row['regime']:12s}"
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


def _captured(layer: dict[str, Any], regime: str) -> int:
    """Return how many calls a graph holds: 20, or fewer where those would take long."""
    return max(_LEAST_CALLS, min(_CALLS, round(_GRAPH_US / max(layer["us"][regime].values()))))


def _copies(inputs: Inputs, most: int) -> int:
    """Return how many sets of inputs are needed so that none of them is in the cache when its turn comes."""
    bytes_ = sum(array.nbytes for array in (inputs.x, inputs.dy, inputs.w) if array is not None)
    return int(min(most, -(-_MOST_BYTES // bytes_)))


def _hold(wanted: References, inputs: Inputs, name: str, call: Callable[[], Any]) -> None:
    """Raise AssertionError if the first result of one of our calls is not the definition's, within the rule of its regime."""
    got, reference = oracle.sample(backend.asnumpy(call()), name), wanted[name]
    if not (reference.as_promised(got) if inputs.case.op == "conv" else reference.agrees(got)):
        msg = f"gpuconv's {name} is wrong: off by {reference.error(got):.2g} of its largest value"
        raise AssertionError(msg)


def _agree(work: Work, wanted: References, inputs: Inputs, which: str, name: str, call: Callable[[], Any]) -> bool:
    """Return whether PyTorch's pass is right: a wrong one is named and not timed, and fails nothing of ours.

    One that is right but further off than ours may be is named, too, and timed.
    """
    what = f"{inputs.case.name}, {inputs.regime}, {which}"
    try:
        host = call().detach().cpu()
    except (RuntimeError, NotImplementedError) as error:
        _note(work, "torch refused", what, line(error))
        return False
    got = oracle.sample((host.float() if host.itemsize == 2 else host).numpy(), name)
    off = f"off by {wanted[name].error(got):.2g} of its largest value"
    if not wanted[name].agrees(got):
        _note(work, "torch refused", what, f"PyTorch's {name} is wrong: {off}")
        return False
    if inputs.case.op == "conv" and not wanted[name].as_promised(got):
        _note(work, "torch beyond our rule", what, off)
    return True


def _note(work: Work, key: str, what: str, said: str) -> None:
    work.keep(**{key: work.found.get(key, {}) | {what: said}})


def _put(inputs: Inputs) -> Arrays:
    """Return the inputs of our passes in arrays of their own."""

    def put(array: Any) -> Any:
        if array.ndim != 4 or array.flags.c_contiguous:
            return backend.asarray(array)
        return backend.asarray(np.ascontiguousarray(array.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)

    with backend.using("cuda"):
        x, dy = put(inputs.x), put(inputs.dy)
        if inputs.case.op == "conv":
            assert inputs.w is not None
            return Arrays(x, dy, backend.asarray(np.ascontiguousarray(inputs.w)), [])
        if inputs.w is None:
            return Arrays(x, dy, None, [])
        moments = [f(inputs.case.x[1], dtype=np.float32) for f in (np.zeros, np.ones)]
        return Arrays(x, dy, None, [put(vector) for vector in (inputs.w, inputs.b, *moments)])


def _theirs_or_not(work: Work, torch: Any, inputs: Inputs, copies: int) -> list[Passes]:
    """Return PyTorch's passes; none where it is not there or cannot do this, which is named."""
    if torch is None:
        return []
    try:
        return [_theirs(torch, inputs) for _ in range(copies)]
    except (RuntimeError, NotImplementedError) as error:
        _note(work, "torch refused", f"{inputs.case.name}, {inputs.regime}", line(error))
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
        if bfloat16.is_bfloat16(inner.dtype):  # PyTorch has a dtype of its own for it
            return torch.from_numpy(inner.view(np.int16)).to(where, copy=True).view(torch.bfloat16).permute(0, 3, 1, 2)
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
