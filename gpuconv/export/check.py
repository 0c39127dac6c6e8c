"""Run an exported net in the other program and hold its scores against ours."""

from __future__ import annotations

import importlib.util
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..backend import asarray, asnumpy
from ..checks import shown
from ..errors import ArgTypeError, ParamError
from ..nn.finite import check_scores
from ..ops.augmentation import augment
from . import onnx_file
from .tolerance import error_bound

SAMPLES = 16  # inputs of each kind that a check looks at: each layer meets many values, and onnx.reference is slow
_SEED = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the scores of another program compare with ours on the same inputs.

    >>> net = nn.ConvNet(4, input_shape=(3, 8, 8))
    >>> agreement = export.check_onnx(net, export.onnx_model(net), normalized=np.ones((2, 3, 8, 8), np.float32))
    >>> agreement.within, agreement.count, agreement.same_class
    (True, 2, 2)
    """

    program: str  # with its version
    count: int  # inputs
    largest: float  # difference of two scores
    allowed: float  # for the score with the largest difference
    within: bool  # no difference is larger than allowed
    same_class: int  # inputs whose highest score is the same one


def check_onnx(
    net: nn.Net,
    model: Any,
    *,
    normalized: np.ndarray | None = None,
    pictures: np.ndarray | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Agreement:
    """Return how a model of `onnx_model` agrees with its net: in onnxruntime if it is installed, else onnx.reference.

    normalized: (N, *input_shape) inputs of the net, on the host; or pictures: (N, C, H, W) uint8, with mean and std.
    The scores may differ by what rounding can do to either; see tolerance.py.

    >>> net = nn.ConvNet(4, input_shape=(3, 8, 8))
    >>> model = export.onnx_model(net)
    >>> export.check_onnx(net, model, normalized=np.ones((2, 3, 8, 8), np.float32)).within
    True
    """
    if not hasattr(model, "metadata_props"):
        msg = f"model must be an onnx.ModelProto, as onnx_model returns it, got {shown(model)}"
        raise ArgTypeError(msg)
    values = {prop.key: prop.value for prop in model.metadata_props}
    dtype = onnx_file.scores_dtype(model)
    x = _normalized(net, normalized, pictures, mean, std)
    feed: Any = pictures
    if values["input"] == "normalized":
        feed = x.astype(dtype)
    elif values["input"] == "unit":
        feed = _wide_input(pictures, dtype)
    x_error = 0.0 if values["input"] == "normalized" else _normalising(mean, std)
    program, run = _onnx_program(model)
    return _compare(program, net, x, run(feed), dtype, x_error)


def check_torch(
    net: nn.Net,
    weights: bytes,
    source: bytes,
    *,
    normalized: np.ndarray | None = None,
    pictures: np.ndarray | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Agreement:
    """Return how the two files of to_torch agree with their net, in PyTorch; imports torch, through the module.

    >>> from pathlib import Path
    >>> net = nn.ConvNet(4, input_shape=(3, 8, 8))
    >>> export.to_torch(net, "net.safetensors")
    >>> weights, module = (Path(name).read_bytes() for name in ("net.safetensors", "net.py"))
    >>> export.check_torch(net, weights, module, normalized=np.ones((2, 3, 8, 8), np.float32)).within
    True
    """
    for name, value in (("weights", weights), ("source", source)):
        if not isinstance(value, bytes):
            msg = f"{name} must be bytes, the content of a file of to_torch, got {shown(value)}"
            raise ArgTypeError(msg)
    x = _normalized(net, normalized, pictures, mean, std)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exported.safetensors"
        path.write_bytes(weights)
        module_path = path.with_suffix(".py")
        module_path.write_bytes(source)
        module = _load_module(module_path)
        theirs = module.load(path)
    torch = module.torch
    with torch.no_grad():
        scores = theirs(torch.from_numpy(np.ascontiguousarray(x))).numpy()
    return _compare(f"PyTorch {torch.__version__}", net, x, scores, net.dtype, 0.0)


def samples(net: nn.Net) -> np.ndarray:
    """Return random inputs of a net, on the host, in its dtype: (SAMPLES, *input_shape), the same each time."""
    return np.random.default_rng(_SEED).standard_normal((SAMPLES, *net.input_shape)).astype(net.dtype)


def available(target: str) -> bool:
    """Return whether what a check needs is installed: target is "onnx" or "torch"."""
    needed = {"onnx": ("onnx",), "torch": ("torch", "safetensors")}[target]
    return all(importlib.util.find_spec(name) is not None for name in needed)


def _compare(program: str, net: nn.Net, x: np.ndarray, theirs: Any, dtype: np.dtype, x_error: float) -> Agreement:
    ours = asnumpy(net.forward(asarray(x, beside=net.flat_params)))
    rows = len(x), math.prod(ours.shape[1:])
    got, want = (scores.reshape(rows).astype(np.float64) for scores in (np.asarray(theirs), ours))
    allowed = error_bound(net, x, dtype=net.dtype) + error_bound(net, x, dtype=dtype, x_error=x_error)
    allowed = allowed.reshape(rows)
    with np.errstate(divide="ignore", invalid="ignore"):  # infinity less itself is no number
        difference = np.where(got == want, 0.0, np.abs(got - want))
        difference = np.where(np.isnan(difference), np.inf, difference)
        excess = np.where(difference == 0, 0.0, np.where(np.isinf(difference), np.inf, difference / allowed))
    worst = np.unravel_index(int(excess.argmax()), rows) if excess.size else None
    return Agreement(
        program=program,
        count=len(x),
        largest=float(np.max(difference, initial=0.0)),
        allowed=float(allowed[worst]) if worst is not None else 0.0,
        within=bool((excess <= 1).all()),
        same_class=int((got.argmax(axis=1) == want.argmax(axis=1)).sum()),
    )


def _normalized(net: nn.Net, normalized: Any, pictures: Any, mean: Any, std: Any) -> np.ndarray:
    """Return the inputs of the net, on the host, in its dtype; of NaN, with which nothing agrees, it may make none."""
    if pictures is None and normalized is None:
        msg = "a check needs inputs of the net: normalized, or pictures with mean and std"
        raise ParamError(msg)
    if pictures is None:
        x = np.asarray(normalized).astype(net.dtype)
    else:
        x = augment(np.ascontiguousarray(pictures), mean=mean, std=std, dtype=net.dtype)
    with np.errstate(all="ignore"):
        ours = asnumpy(net.forward(asarray(x, beside=net.flat_params)))
    if np.isnan(ours).any():
        check_scores(net, x, "the net")
    return x


def _wide_input(pictures: Any, dtype: np.dtype) -> np.ndarray:
    return (pictures / 255.0).astype(np.promote_types(dtype, np.float32))


def _normalising(mean: Any, std: Any) -> float:
    """Return how far normalising inside the graph may be off, in u max(|x|, 1).

    v / 255 and mean are rounded before they are subtracted: 2 u (1 + |mean|) / std, then 3 u |x| for the rest.
    """
    return 3 + max(2 * (1 + abs(m)) / s for m, s in zip(mean, std, strict=True))


def _onnx_program(model: Any) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """Return the name of what runs ONNX files here, and how."""
    refused = ""
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        name = f"ONNX Runtime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it cannot do is said here, by name
        try:
            session = onnxruntime.InferenceSession(onnx_file.encode(model), options, ["CPUExecutionProvider"])
        except (errors.Fail, errors.NotImplemented):  # float64 convolutions, pools padded by more than the window
            refused = f" ({name} does not take the file)"
        else:
            return name, lambda x: np.asarray(session.run([onnx_file.OUTPUT], {onnx_file.INPUT: x})[0])
    import onnx

    return f"onnx.reference {onnx.__version__}{refused}", onnx_reference(model)


def onnx_reference(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return what runs a model in onnx.reference, with its faults mended."""
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun
    from onnx.reference.ops import load_op

    class Erf(OpRun):  # that of onnx 1.23 rounds to float32, whatever the type of x
        op_domain = ""

        def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
            return (np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),)

    class ConvTranspose(OpRun):  # that of onnx 1.23 fails where there are several groups
        op_domain = ""

        def _run(self, x: np.ndarray, w: np.ndarray, *b: np.ndarray, group: int, **how: Any) -> tuple[np.ndarray]:
            of_one = load_op("", "ConvTranspose")(self.onnx_node, self.run_params)
            cut = [np.split(array, group, axis) for array, axis in zip((x, w, *b), (1, 0, 0), strict=False)]
            made = [of_one._run(*arrays, group=1, **how)[0] for arrays in zip(*cut, strict=True)]
            return (np.concatenate(made, axis=1),)

    class MaxPool(OpRun):  # that of onnx 1.23 takes one pad for another where windows are one step apart
        op_domain = ""

        def _run(self, x: np.ndarray, **how: Any) -> tuple[np.ndarray, ...]:
            return tuple(load_op("", "MaxPool")(self.onnx_node, self.run_params)._max_pool(x, **how))

    evaluator: Any = ReferenceEvaluator(model, new_ops=[Erf, ConvTranspose, MaxPool])

    def run(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):  # what is no number agrees with nothing
            scores: np.ndarray = evaluator.run([onnx_file.OUTPUT], {onnx_file.INPUT: x})[0]
            return scores

    return run


def _load_module(path: Path) -> Any:
    """Return a Python file as a module that nothing else can see."""
    spec = importlib.util.spec_from_file_location("_gpuconv_exported", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module
