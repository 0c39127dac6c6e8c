"""ThreeLayerConvNet: conv - relu - 2x2 max pool - affine - relu - affine - softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import border
from .layer_utils import (
    affine_bn_relu_backward,
    affine_bn_relu_forward,
    affine_relu_backward,
    affine_relu_forward,
    conv_bn_relu_pool_backward,
    conv_bn_relu_pool_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)
from .layers import affine_backward, affine_forward, softmax_loss
from .params import regularise


class ThreeLayerConvNet:
    """The course's convolutional net on images (N, C, H, W).

    params: W1 (F, C, S, S), b1 (F,), W2 (F (H / 2) (W / 2), hidden), b2, W3 (hidden, classes), b3; with use_batchnorm
    also gamma1, beta1 (F,) after the convolution and gamma2, beta2 (hidden,) after the first affine layer.
    Weights are drawn from NumPy's global generator in the order W1, W2, W3.  reg weighs 0.5 W^2 of those three.

    On a GPU a call of loss moves the pictures and the parameters there, and the gradients back.
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (3, 32, 32),
        num_filters: int = 32,
        filter_size: int = 7,
        hidden_dim: int = 100,
        num_classes: int = 10,
        weight_scale: float = 1e-3,
        reg: float = 0.0,
        dtype: Any = np.float32,
        use_batchnorm: bool = False,
    ) -> None:
        C, H, W = input_dim
        self.use_batchnorm, self.reg, self.dtype = use_batchnorm, reg, dtype
        shapes = (
            (num_filters, C, filter_size, filter_size),
            (num_filters * (H // 2) * (W // 2), hidden_dim),
            (hidden_dim, num_classes),
        )
        self.params: dict[str, np.ndarray] = {}
        for i, (shape, out) in enumerate(zip(shapes, (num_filters, hidden_dim, num_classes), strict=True), start=1):
            drawn = weight_scale * np.random.randn(*shape)  # noqa: NPY002 - the generator that notebooks seed
            self.params[f"W{i}"], self.params[f"b{i}"] = drawn, np.zeros(out)
        self.bn_params: list[dict[str, Any]] = []
        if use_batchnorm:
            for i, width in enumerate((num_filters, hidden_dim), start=1):
                self.params[f"gamma{i}"], self.params[f"beta{i}"] = np.ones(width), np.zeros(width)
            self.bn_params = [{"mode": "train"}, {"mode": "train"}]
        self.params = {name: values.astype(dtype) for name, values in self.params.items()}

    def loss(self, X: Any, y: Any = None, *, mode: str | None = None) -> Any:
        """Return scores (N, classes) without labels, else (loss, gradients by name).

        mode: "train" or "test", how batch normalisation goes about it; without it, test without labels.
        """
        for bn_param in self.bn_params:
            bn_param["mode"] = mode or ("test" if y is None else "train")
        X, *moved = border.inward(X, *self.params.values())
        p = dict(zip(self.params, moved, strict=True))
        size = p["W1"].shape[2]
        conv_param = {"stride": 1, "pad": (size - 1) // 2}
        pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
        conv = p["W1"], p["b1"]
        hidden = p["W2"], p["b2"]
        if self.use_batchnorm:
            first, second = self.bn_params
            args = *conv, p["gamma1"], p["beta1"], conv_param, first, pool_param
            a, conv_cache = conv_bn_relu_pool_forward(X, *args)
            a, hidden_cache = affine_bn_relu_forward(a, *hidden, p["gamma2"], p["beta2"], second)
        else:
            a, conv_cache = conv_relu_pool_forward(X, *conv, conv_param, pool_param)
            a, hidden_cache = affine_relu_forward(a, *hidden)
        scores, cache = affine_forward(a, p["W3"], p["b3"])
        if y is None:
            return border.outward(scores)

        loss, dscores = softmax_loss(scores, y)
        grads: dict[str, Any] = {}
        da, grads["W3"], grads["b3"] = affine_backward(dscores, cache)
        # The first layer's input needs no gradient.
        if self.use_batchnorm:
            da, *of_hidden = affine_bn_relu_backward(da, hidden_cache)
            _, *of_conv = conv_bn_relu_pool_backward(da, conv_cache, input_grad=False)
            for i, (dw, db, dgamma, dbeta) in ((1, of_conv), (2, of_hidden)):
                grads |= {f"W{i}": dw, f"b{i}": db, f"gamma{i}": dgamma, f"beta{i}": dbeta}
        else:
            da, grads["W2"], grads["b2"] = affine_relu_backward(da, hidden_cache)
            _, grads["W1"], grads["b1"] = conv_relu_pool_backward(da, conv_cache, input_grad=False)
        grads = {name: border.outward(grads[name]) for name in self.params}
        return loss + regularise(self.params, grads, self.reg), grads
