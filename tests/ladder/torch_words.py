"""Functions of torch.nn.functional in gpuconv's words: which operator computes each, called with what, and how near it comes.

A new function is an entry of WORDS, under its name without the number of axes (which AXES of torch_reference.py adds); its
samples are then drawn, computed and counted.  Where gpuconv has no words for what a sample asks: Refused, with one of
REASONS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from compare import U_SUM
from norm_scales import batchnorm_scales

import gpuconv
from gpuconv.errors import GpuconvError

from .outcomes import INTEGERS, Refused, is_of_integers
from .pool_indices import pool_indices
from .torch_reference import AXES, Sample, along, by_absolute_values, by_torch, wide

# Why a sample may be refused.
DIVISOR = "divisor_override"
MOMENTUM = "momentum outside 0 to 1"
NO_MOMENTUM = "momentum None"
NO_STATISTICS = "batch norm without running statistics"
NO_WEIGHT = "batch norm without weight"
ONE_AXIS = "batch norm of one axis"
PROBABILITIES = "probabilities of classes for labels"
WEIGHTS = "weight or pos_weight of a binary cross-entropy"
REASONS = (
    *(DIVISOR, INTEGERS, MOMENTUM, NO_MOMENTUM),
    *(NO_STATISTICS, NO_WEIGHT, ONE_AXIS, PROBABILITIES, WEIGHTS),
)

Results = dict[str, np.ndarray]
Upstream = Callable[[tuple[int, ...]], np.ndarray]  # the shape of y to the gradient from above


@dataclass(frozen=True)
class Words:
    """What is to be known of a function.

    compute: (sample, upstream) to y and the gradients by gpuconv.   scales: the sizes of the terms of each, as
    compare.assert_close takes them.   terms: (sample, y) to an upper limit of the number of terms of each result's sums.
    arrays: those that may come without a name behind x, as they are called here.   keywords: and by PyTorch's names.
    options: those that may come without a name, in their order.   loss: what it returns is differentiated as it is, and
    is float32 where x has 16 bits.
    """

    compute: Callable[[Sample, Upstream], Results]
    scales: Callable[[Sample, np.ndarray], Results]
    terms: Callable[[Sample, np.ndarray], dict[str, int]]
    arrays: tuple[str, ...] = ()
    keywords: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    loss: bool = False


def words_of(name: str) -> Words:
    """Return the words of a function: "conv2d"."""
    return WORDS[kind_of(name)]


def kind_of(name: str) -> str:
    """Return the name of a function of PyTorch without its number of axes."""
    return name[:-2] if name in AXES else name


def reason_of(error: GpuconvError, sample: Sample) -> str | None:
    """Return which of REASONS an error of gpuconv is, or None."""
    if is_of_integers(error, sample.x):
        return INTEGERS
    if "momentum must be" in str(error):
        return MOMENTUM
    return None


# Operators with a backward -------------------------------------------------------------------------------------------


def _by(
    translate: Callable[[Sample], tuple[str, dict[str, Any]]],
    *gradients: str,
    kept: Callable[[Sample, Any], Results] = lambda sample, cache: {},
) -> Callable[[Sample, Upstream], Results]:
    """Return what computes a sample by an operator's forward and backward.

    translate: a sample to the operator and its options.   gradients: the names of what the backward returns.
    kept: more results, from the forward's cache
    """

    def compute(sample: Sample, upstream: Upstream) -> Results:
        arrays = {name: array for name, array in sample.arrays.items() if array is not None}
        if sample.unbatched:
            arrays["x"] = arrays["x"][None]
        operator, options = translate(sample)
        y, cache = getattr(gpuconv, f"{operator}_forward")(**arrays, **options)
        returned = getattr(gpuconv, f"{operator}_backward")(upstream(y.shape), cache)
        each = returned if isinstance(returned, tuple) else (returned,)
        results = {"y": y, **dict(zip(gradients, each, strict=True)), **kept(sample, cache)}
        if sample.unbatched:
            results |= {name: results[name][0] for name in ("y", "dx", "indices") if name in results}
        return {name: result for name, result in results.items() if result is not None}

    return compute


def _conv(sample: Sample) -> tuple[str, dict[str, Any]]:
    axes, options = AXES[sample.name], dict(sample.options)
    padding = options.pop("padding", 0)
    options |= {name: along(options[name], axes) for name in ("stride", "dilation") if name in options}
    if isinstance(padding, str):
        return "conv", {**options, "pad": 0 if padding == "valid" else padding}
    return "conv", {**options, "pad": along(padding, axes)}


def _conv_transpose(sample: Sample) -> tuple[str, dict[str, Any]]:
    axes, ours = AXES[sample.name], {"padding": "pad", "output_padding": "output_pad"}
    return "conv_transpose", {
        ours.get(name, name): value if name == "groups" else along(value, axes)
        for name, value in sample.options.items()
    }


def _pool(sample: Sample) -> tuple[str, dict[str, Any]]:
    axes, options, window = AXES[sample.name], sample.options, sample.window
    stride = along(window if options.get("stride") in (None, ()) else options["stride"], axes)
    pad = along(options.get("padding", 0), axes)
    if options.get("divisor_override") is not None:
        raise Refused(DIVISOR)
    translated: dict[str, Any] = {
        "window": window,
        "stride": stride,
        "pad": pad,
        "ceil": options.get("ceil_mode", False),
    }
    if kind_of(sample.name) == "max_pool":
        return "max_pool", {**translated, "dilation": along(options.get("dilation", 1), axes)}
    return "average_pool", {**translated, "count_pad": options.get("count_include_pad", True)}


def _adaptive_pool(sample: Sample) -> tuple[str, dict[str, Any]]:
    return "adaptive_average_pool", {"size": along(sample.options["output_size"], AXES[sample.name])}


def _indices(sample: Sample, cache: Any) -> Results:
    return {"indices": pool_indices(cache.argmax, cache.sizes)} if sample.options.get("return_indices") else {}


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


def _silu(sample: Sample) -> tuple[str, dict[str, Any]]:
    return "silu", {}


# Losses --------------------------------------------------------------------------------------------------------------


def _cross_entropy(sample: Sample, upstream: Upstream) -> Results:
    scores, labels, options = sample.x, sample.arrays["labels"], sample.options
    if labels.dtype.kind == "f":
        raise Refused(PROBABILITIES)
    rows = np.ascontiguousarray(np.moveaxis(scores, 1, -1)).reshape(-1, scores.shape[1])
    loss, dscores = gpuconv.softmax_cross_entropy(
        rows,
        labels.ravel(),
        class_weights=sample.arrays["class_weights"],
        ignore=options.get("ignore_index", -100),
        reduction=options.get("reduction", "mean"),
        label_smoothing=options.get("label_smoothing", 0.0),
    )
    y = loss.reshape(labels.shape) if loss.ndim else loss
    upstream(y.shape)
    return {"y": y, "dx": np.moveaxis(dscores.reshape(*labels.shape, -1), -1, 1)}


def _binary_cross_entropy(sample: Sample, upstream: Upstream) -> Results:
    if sample.arrays["weight"] is not None or sample.options.get("pos_weight") is not None:
        raise Refused(WEIGHTS)
    reduction = sample.options.get("reduction", "mean")
    y, dx = gpuconv.sigmoid_cross_entropy(sample.x, sample.arrays["targets"], reduction=reduction)
    upstream(y.shape)
    return {"y": y, "dx": dx}


# How far rounding may take a result -------------------------------------------------------------------------------------


def _batch_norm_scales(sample: Sample, dy: np.ndarray) -> Results:
    options = {"training": False} | {
        name: sample.options[name] for name in ("training", "eps") if name in sample.options
    }
    sizes = batchnorm_scales(**sample.arrays, dy=dy, unit=U_SUM[sample.x.dtype.name], **options)
    return {"y": sizes.y, "dx": sizes.dx, "dgamma": sizes.dgamma, "dbeta": sizes.dbeta}


def _maximum_scales(sample: Sample, dy: np.ndarray) -> Results:
    """The largest is chosen among the numbers themselves, not among their absolute values."""
    sizes = by_torch(sample, {"x": wide(sample.x)}, np.abs(wide(dy)))
    return {name: np.abs(size) for name, size in sizes.items()}


def _silu_scales(sample: Sample, dy: np.ndarray) -> Results:
    x = np.abs(wide(sample.x))
    return {"y": x, "dx": np.abs(wide(dy)) * (1 + x)}


def _cross_entropy_scales(sample: Sample, dy: np.ndarray) -> Results:
    """As tests/test_loss.py has them: each term is known to the largest score and the logarithm of the classes."""
    labels, weights, classes = sample.arrays["labels"], sample.arrays["class_weights"], sample.x.shape[1]
    each = np.ones(classes) if weights is None else wide(weights)
    size = 8 * max(1.0, np.abs(each).max()) * (np.abs(wide(sample.x)).max(initial=1) + np.log(classes))
    if sample.options.get("reduction", "mean") == "mean":
        divided = each[labels[labels != sample.options.get("ignore_index", -100)]]
        size *= np.abs(divided).sum() / divided.sum() ** 2  # weights of both signs cancel in the divisor
    rows = labels.size if dy.ndim == 0 else 1
    return {"y": np.full(dy.shape, size * rows), "dx": np.full(sample.x.shape, size)}


def _binary_cross_entropy_scales(sample: Sample, dy: np.ndarray) -> Results:
    scores, targets, reduction = wide(sample.x), wide(sample.arrays["targets"]), sample.options.get("reduction", "mean")
    divisor = max(1, scores.size) if reduction == "mean" else 1
    sizes = np.maximum(scores, 0) + np.abs(scores * targets) + 1
    y = sizes if reduction == "none" else np.asarray(sizes.sum() / divisor)
    return {"y": y, "dx": np.full(scores.shape, 2 / divisor)}


def _conv_terms(sample: Sample, y: np.ndarray) -> dict[str, int]:
    w, parts = sample.arrays["w"], 2 if sample.x.dtype.kind == "c" else 1
    positions = y.size // w.shape[0]
    dx = w.size // w.shape[1] // sample.options.get("groups", 1)
    return {"y": parts * prod(w.shape[1:]) + 1, "dx": parts * dx, "dw": parts * positions, "db": positions}


def _conv_transpose_terms(sample: Sample, y: np.ndarray) -> dict[str, int]:
    w, groups, parts = sample.arrays["w"], sample.options.get("groups", 1), 2 if sample.x.dtype.kind == "c" else 1
    terms = {"y": w.size // w.shape[1] // groups, "dx": prod(w.shape[1:]), "dw": sample.x.size // w.shape[0]}
    summed = {name: parts * count for name, count in terms.items()}
    return {**summed, "y": summed["y"] + 1, "db": y.size // w.shape[1] // groups}


def _pool_terms(sample: Sample, y: np.ndarray) -> dict[str, int]:
    return dict.fromkeys(("y", "dx"), prod(sample.window))


def _adaptive_pool_terms(sample: Sample, y: np.ndarray) -> dict[str, int]:
    """Windows that do not tile an axis have up to a pixel more than its share."""
    axes = AXES[sample.name]
    sizes = list(zip(sample.x.shape[-axes:], y.shape[-axes:], strict=True))
    return {"y": prod(-(-n // p) + 1 for n, p in sizes), "dx": prod(-(-p // n) + 1 for n, p in sizes)}


def _batch_norm_terms(sample: Sample, y: np.ndarray) -> dict[str, int]:
    return dict.fromkeys(("y", "dx", "dgamma", "dbeta"), sample.x.size // sample.x.shape[1])


def _element_terms(sample: Sample, y: np.ndarray) -> dict[str, int]:
    """Four come to the c = 8 of single elements."""
    return {"y": 4, "dx": 4}


def _loss_terms(sample: Sample, y: np.ndarray) -> dict[str, int]:
    return {"y": sample.x.size, "dx": 4}


_WINDOWS = ("kernel_size", "stride", "padding")

WORDS = {
    "adaptive_avg_pool": Words(
        _by(_adaptive_pool, "dx"), by_absolute_values, _adaptive_pool_terms, options=("output_size",)
    ),
    "avg_pool": Words(
        _by(_pool, "dx"),
        by_absolute_values,
        _pool_terms,
        options=(*_WINDOWS, "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    "batch_norm": Words(
        _by(_batch_norm, "dx", "dgamma", "dbeta"),
        _batch_norm_scales,
        _batch_norm_terms,
        arrays=("running_mean", "running_var", "gamma", "beta"),
        keywords={"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"},
        options=("training", "momentum", "eps"),
    ),
    "binary_cross_entropy_with_logits": Words(
        _binary_cross_entropy,
        _binary_cross_entropy_scales,
        _loss_terms,
        arrays=("targets", "weight"),
        keywords={"weight": "weight"},
        loss=True,
    ),
    "conv": Words(
        _by(_conv, "dx", "dw", "db"),
        by_absolute_values,
        _conv_terms,
        arrays=("w", "b"),
        keywords={"weight": "w", "bias": "b"},
        options=("stride", "padding", "dilation", "groups"),
    ),
    "conv_transpose": Words(
        _by(_conv_transpose, "dx", "dw", "db"),
        by_absolute_values,
        _conv_transpose_terms,
        arrays=("w", "b"),
        keywords={"weight": "w", "bias": "b"},
        options=("stride", "padding", "output_padding", "groups", "dilation"),
    ),
    "cross_entropy": Words(
        _cross_entropy,
        _cross_entropy_scales,
        _loss_terms,
        arrays=("labels", "class_weights"),
        keywords={"weight": "class_weights"},
        loss=True,
    ),
    "max_pool": Words(
        _by(_pool, "dx", kept=_indices),
        _maximum_scales,
        _pool_terms,
        options=(*_WINDOWS, "dilation", "ceil_mode", "return_indices"),
    ),
    "silu": Words(_by(_silu, "dx"), _silu_scales, _element_terms),
}
