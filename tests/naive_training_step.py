"""One training step of three-layer and of convnet in float64, with the loops of gpuconv.naive alone: the trainer's oracle.

Pictures are cropped, mirrored and normalised; forward; softmax with smoothed labels; backward; one update by SGD with
momentum or by Adam, at the rate of a one-cycle schedule.  Layers, nets, optimisers, schedules and the loop of the
package are not used: what they do is written out here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpuconv import data, naive
from gpuconv.pool_shapes import pool_sizes
from gpuconv.shapes import conv_sizes

Arrays = dict[str, np.ndarray]
Near = Callable[[np.ndarray], np.ndarray]
HALVES = {"window": 2, "stride": 2, "pad": 0}
MOMENTUM_OF_STATISTICS, EPS = 0.9, 1e-5


@dataclass
class Moment:
    """Everything that a step changes, by name, and what it came to."""

    params: Arrays
    state: Arrays  # running statistics
    vectors: dict[str, Arrays]  # of the optimiser: "velocity", or "m" and "v"
    loss: float = 0.0
    grads: Arrays = field(default_factory=dict)


def step(config: Any, dataset: Any, before: Moment, number: int, *, near: Near = np.asarray) -> Moment:
    """Return the moment after a step, of which `number` have been done before.

    config: the settings of the run, all images of the data set trained on.   near: what operators get for an array; it
    may be a little off, to see what comes of that.
    """
    after, images = copy.deepcopy(before), len(dataset.y_train)
    steps = images // config.batch_size
    epoch, place = divmod(number, steps)
    chosen = data.epoch_batches(images, config.batch_size, seed=config.seed, epoch=epoch)[place]
    draws = data.epoch_draws(images, seed=config.seed, epoch=epoch, alternate_flip=config.flip_mode == "alternate")
    x = naive.augment(
        dataset.x_train[chosen],
        draws[chosen],
        mean=dataset.mean,
        std=dataset.std,
        pad=config.crop,
        pad_mode=config.pad_mode,
        flip=config.flip,
        cutout=config.cutout,
        dtype=np.dtype(np.float64),
        channels_last=False,
    )
    net = {"three-layer": _three_layer, "convnet": _convnet}[config.net]
    net(after, x, dataset.y_train[chosen], config.label_smoothing, near)
    _update(after, config, number, _rate(config, number, config.epochs * steps), near)
    return after


def _three_layer(m: Moment, x: np.ndarray, labels: np.ndarray, smoothing: float, near: Near) -> None:
    """conv - relu - pool - affine - relu - affine."""
    p, g = m.params, m.grads
    z = conv_sizes(x, p["conv1.w"], p["conv1.b"], pad=p["conv1.w"].shape[-1] // 2)
    image = naive.relu_forward(naive.conv_forward(near(x), near(p["conv1.w"]), near(p["conv1.b"]), z))
    halves = pool_sizes(image, **HALVES)
    pooled, argmax = naive.max_pool_forward(near(image), halves)
    rows = pooled.reshape(len(x), -1)
    hidden = naive.relu_forward(naive.affine_forward(near(rows), near(p["affine1.w"]), near(p["affine1.b"])))
    dhidden = _head(m, "affine2", hidden, labels, smoothing, near)
    dhidden = naive.relu_backward(near(dhidden), hidden)
    drows, g["affine1.w"], g["affine1.b"] = naive.affine_backward(
        near(dhidden), near(rows), near(p["affine1.w"]), input_grad=True, bias_grad=True
    )
    dimage = naive.max_pool_backward(near(drows).reshape(pooled.shape), argmax, halves)
    dimage = naive.relu_backward(dimage, image)
    _, g["conv1.w"], g["conv1.b"] = naive.conv_backward(
        near(dimage), near(x), near(p["conv1.w"]), z, input_grad=False, bias_grad=True
    )


def _convnet(m: Moment, x: np.ndarray, labels: np.ndarray, smoothing: float, near: Near) -> None:
    """[conv without bias - batch norm - pool - relu] for each stage, then affine."""
    p, g, remembered = m.params, m.grads, []
    for stage in range(1, 1 + sum(name.startswith("conv") for name in p)):
        w, gamma, beta = p[f"conv{stage}.w"], p[f"bn{stage}.gamma"], p[f"bn{stage}.beta"]
        z = conv_sizes(x, w, None, pad=1)
        image = naive.conv_forward(near(x), near(w), None, z)
        y, mean, inv_std = naive.batchnorm_forward(
            near(image),
            near(gamma),
            near(beta),
            m.state[f"bn{stage}.running_mean"],
            m.state[f"bn{stage}.running_var"],
            training=True,
            momentum=MOMENTUM_OF_STATISTICS,
            eps=EPS,
        )
        halves = pool_sizes(y, **HALVES)
        pooled, argmax = naive.max_pool_forward(near(y), halves)
        remembered.append((stage, x, w, z, image, gamma, mean, inv_std, halves, argmax, naive.relu_forward(pooled)))
        x = remembered[-1][-1]
    dy = _head(m, "affine1", x.reshape(len(x), -1), labels, smoothing, near).reshape(x.shape)
    for stage, x, w, z, image, gamma, mean, inv_std, halves, argmax, y in reversed(remembered):
        dy = naive.max_pool_backward(naive.relu_backward(near(dy), y), argmax, halves)
        dimage, g[f"bn{stage}.gamma"], g[f"bn{stage}.beta"] = naive.batchnorm_backward(
            near(dy), near(image), near(gamma), near(mean), near(inv_std), training=True
        )
        dy, g[f"conv{stage}.w"], _ = naive.conv_backward(
            near(dimage), near(x), near(w), z, input_grad=stage > 1, bias_grad=False
        )


def _head(m: Moment, name: str, rows: np.ndarray, labels: np.ndarray, smoothing: float, near: Near) -> np.ndarray:
    """The scores and their loss; return the gradient of what the scores were made of."""
    w, b = m.params[f"{name}.w"], m.params[f"{name}.b"]
    scores = naive.affine_forward(near(rows), near(w), near(b))
    loss, dscores = naive.softmax_cross_entropy(near(scores), labels, label_smoothing=smoothing)
    drows, m.grads[f"{name}.w"], m.grads[f"{name}.b"] = naive.affine_backward(
        near(dscores), near(rows), near(w), input_grad=True, bias_grad=True
    )
    m.loss = float(loss)
    return drows


def _rate(config: Any, number: int, total: int) -> float:
    """From lr_start lr up to lr in a line, in a share of the steps, and no faster than in warmup_steps; then down to
    lr_end lr.
    """
    assert (config.schedule, config.lr_curve) == ("one-cycle", "linear")
    rising = round(config.warmup * total)
    most = config.lr * (config.lr_start + (1 - config.lr_start) * number / max(rising, config.warmup_steps))
    if number < rising:
        return most
    return min(most, config.lr * (1 + (config.lr_end - 1) * (number - rising) / (total - rising)))


def _update(m: Moment, config: Any, number: int, rate: float, near: Near) -> None:
    """Weights of convolutions and affine layers are decayed, biases, gamma and beta are not."""
    for name, w in m.params.items():
        vectors = [vector[name].reshape(-1) for vector in m.vectors.values()]
        dw = near(m.grads[name]).reshape(-1)
        how = {"lr": rate, "weight_decay": config.weight_decay if w.ndim > 1 else 0.0}
        if config.optimizer == "sgd":
            naive.sgd_update(w.reshape(-1), dw, *vectors, momentum=config.momentum, nesterov=config.nesterov, **how)
        else:
            how |= {"beta1": config.beta1, "beta2": config.beta2, "eps": config.eps}
            naive.adam_update(
                w.reshape(-1), dw, *vectors, step=number + 1, decoupled=config.optimizer == "adamw", **how
            )
