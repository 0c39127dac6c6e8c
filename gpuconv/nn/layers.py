"""The layers: each a thin, named holder of one operator's parameters and cache."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import checks, ops
from ..backend import in_format
from ..errors import ParamError, ShapeError
from ..plural import counted
from ..pool_shapes import adaptive_sizes, image_pool_sizes
from ..shapes import check_images, conv_sizes, is_channels_last
from ..upsample_shapes import check_mode, upsampled
from . import init as initialisers
from .geometry import plain, plain_pad, stand_in
from .layer import Declared, Layer, register

__all__ = [
    "AdaptiveAveragePool",
    "Affine",
    "AveragePool",
    "BatchNorm",
    "Conv",
    "Flatten",
    "GlobalAveragePool",
    "MaxPool",
    "Upsample",
]


@register("conv")
class Conv(Layer):
    """2-D convolution: w (filters, in_channels / groups, R, S), b (filters,); see gpuconv.conv_forward.

    window, stride, pad and dilation are an int or a pair (vertical, horizontal); pad may have a pair (before, after) for
    an axis, or be "same".
    init: "he", "xavier", "uniform", "dirac" (groups=1), or the standard deviation of a normal distribution.
    frozen=True keeps w in `state`: it is saved and loaded but never updated; b still learns.

    >>> layer = nn.Conv(3, 8, window=3, pad=1).create()
    >>> layer.forward(np.ones((2, 3, 32, 32), np.float32)).shape
    (2, 8, 32, 32)
    >>> layer.params["w"].shape
    (8, 3, 3, 3)
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        window: int | tuple[int, ...] = 3,
        *,
        stride: int | tuple[int, ...] = 1,
        pad: int | str | tuple[int | tuple[int, int], ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        init: str | float = "he",
        frozen: bool = False,
    ) -> None:
        C = checks.integer("in_channels", in_channels, least=1)
        K = checks.integer("filters", filters, least=1)
        R, S = checks.pair("window", window, least=1)
        groups = checks.integer("groups", groups, least=1)
        reach = checks.pair("dilation", dilation, least=1)
        # The smallest input that a window fits into has every argument but the image size checked here.
        smallest = stand_in(1, C, reach[0] * (R - 1) + 1, reach[1] * (S - 1) + 1)
        if C % groups:
            msg = f"groups must divide in_channels and filters, got groups={groups}, in_channels={C}, filters={K}"
            raise ParamError(msg)
        w = (K, C // groups, R, S)
        z = conv_sizes(smallest, stand_in(*w), None, stride=stride, pad=pad, dilation=dilation, groups=groups)
        pad = plain_pad(pad)
        self.geometry: dict[str, Any] = {"stride": z.stride, "pad": pad, "dilation": z.dilation, "groups": groups}
        bias, frozen = checks.flag("bias", bias), checks.flag("frozen", frozen)
        init = initialisers.check(init, ("he", "xavier", "uniform", "dirac"))
        if init == "dirac" and groups > 1:
            msg = f'init="dirac" needs groups=1, got groups={groups}'
            raise ParamError(msg)
        super().__init__(
            in_channels=C,
            filters=K,
            window=plain(R, S),
            stride=plain(*z.stride),
            pad=pad,
            dilation=plain(*z.dilation),
            groups=groups,
            bias=bias,
            init=init,
            frozen=frozen,
        )
        self.w_shape = w
        (self.declared_state if frozen else self.declared)["w"] = Declared(w, init, decayed=not frozen)
        if bias:
            self.declared["b"] = Declared((K,), "zeros")

    @classmethod
    def inferred(cls, shape: tuple[int, ...], classes: int | None) -> dict[str, Any]:
        return {"in_channels": shape[0]}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        z = conv_sizes(stand_in(1, *shape), stand_in(*self.w_shape), None, **self.geometry)
        return z.K, z.P, z.Q

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        precision = self.precision if training else None
        return ops.conv_forward(x, self.weight("w", x), self.weight("b", x), **self.geometry, precision=precision)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        dw, db = self.grads.get("w"), self.grads.get("b")
        return ops.conv.conv_backward_into(dy, cache, dw, db, input_grad=input_grad)

    def backward_plus(self, dy: Any, plus: Any, mask: Any) -> Any:
        """Return backward(dy) + plus on a GPU; mask: where plus counts, see conv_backward_into."""
        dw, db = self.grads.get("w"), self.grads.get("b")
        return self._told(ops.conv.conv_backward_into(dy, self._remembered(), dw, db, plus=plus, mask=mask))


@register("bn")
class BatchNorm(Layer):
    """Batch normalisation of rows (N, C) or images (N, C, H, W): gamma, beta (C,); see gpuconv.batchnorm_forward.

    state: running_mean (from 0) and running_var (from 1), updated by forward(training=True), used by training=False.
    scale=False keeps gamma at 1, in `state`: only beta learns.

    >>> layer = nn.BatchNorm(2).create(dtype="float64")
    >>> y = layer.forward(np.array([[0.0, 10.0], [2.0, 30.0]]), training=True)
    >>> layer.state["running_mean"]
    array([0.1, 2. ])
    """

    float32_params = True
    across: Any = None  # of other processes, with which the layer shares its batches: see ops.batchnorm.Across

    def __init__(self, channels: int, *, momentum: float = 0.9, eps: float = 1e-5, scale: bool = True) -> None:
        C = checks.integer("channels", channels, least=1)
        momentum = checks.real("momentum", momentum, low=0.0, high=1.0)
        eps = checks.real("eps", eps, low=0.0, open_low=True)
        super().__init__(channels=C, momentum=momentum, eps=eps, scale=checks.flag("scale", scale))
        (self.declared if scale else self.declared_state)["gamma"] = Declared((C,), "ones")
        self.declared["beta"] = Declared((C,), "zeros")
        self.declared_state |= {"running_mean": Declared((C,), "zeros"), "running_var": Declared((C,), "ones")}

    @classmethod
    def inferred(cls, shape: tuple[int, ...], classes: int | None) -> dict[str, Any]:
        return {"channels": shape[0]}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) not in (1, 3) or shape[0] != self.settings["channels"]:
            msg = f"one sample must be (C,) or (C, H, W) with C={self.settings['channels']} channels, got {shape}"
            raise ShapeError(msg)
        return shape

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        forward = ops.batchnorm_forward
        if x.ndim != 2:
            check_images("x", x)
            forward = ops.spatial_batchnorm_forward
        momentum, eps = self.settings["momentum"], self.settings["eps"]
        if training and self.across is not None:
            vectors = {**self.params, **self.state}
            return ops.batchnorm.batchnorm_forward_across(x, **vectors, momentum=momentum, eps=eps, across=self.across)
        return forward(x, **self.params, **self.state, training=training, momentum=momentum, eps=eps)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        dx = ops.batchnorm.batchnorm_backward_into(dy, cache, self.grads.get("gamma"), self.grads["beta"])
        return dx if input_grad else None


@register("max-pool")
class MaxPool(Layer):
    """Maximum of every window; see gpuconv.max_pool_forward.  stride=None: the window.

    >>> nn.MaxPool(2).forward(np.arange(16.0).reshape(1, 1, 4, 4))[0, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """

    def __init__(
        self,
        window: int | tuple[int, ...] = 2,
        *,
        stride: int | tuple[int, ...] | None = None,
        pad: int | str | tuple[int | tuple[int, int], ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        ceil: bool = False,
    ) -> None:
        super().__init__(**_pool_settings(window, stride, pad, dilation, ceil))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        z = image_pool_sizes(stand_in(1, *shape), **self.settings)
        return z.C, z.P, z.Q

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        check_images("x", x)
        return ops.max_pool_forward(x, **self.settings)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        return ops.max_pool_backward(dy, cache)


@register("average-pool")
class AveragePool(Layer):
    """Mean of every window; see gpuconv.average_pool_forward.  stride=None: the window.

    >>> nn.AveragePool(2).forward(np.ones((1, 3, 8, 8))).shape
    (1, 3, 4, 4)
    """

    def __init__(
        self,
        window: int | tuple[int, ...] = 2,
        *,
        stride: int | tuple[int, ...] | None = None,
        pad: int | str | tuple[int | tuple[int, int], ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        ceil: bool = False,
        count_pad: bool = True,
    ) -> None:
        settings = _pool_settings(window, stride, pad, dilation, ceil)
        super().__init__(**settings, count_pad=checks.flag("count_pad", count_pad))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        windows = {name: value for name, value in self.settings.items() if name != "count_pad"}
        z = image_pool_sizes(stand_in(1, *shape), **windows)
        return z.C, z.P, z.Q

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        check_images("x", x)
        return ops.average_pool_forward(x, **self.settings)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        return ops.average_pool_backward(dy, cache)


def _adaptive_average_pool_from_toml(size: Any) -> Layer:
    """TOML has no None."""
    return AdaptiveAveragePool(
        tuple(None if entry == "same" else entry for entry in size) if isinstance(size, list) else size
    )


@register("adaptive-average-pool", from_toml=_adaptive_average_pool_from_toml)
class AdaptiveAveragePool(Layer):
    """Mean of windows that share images out evenly, size (P, Q) or an int for both; see adaptive_average_pool_forward.

    None leaves an axis as it is, in .toml files "same" does.

    >>> nn.AdaptiveAveragePool((1, 4)).forward(np.ones((1, 3, 7, 9))).shape
    (1, 3, 1, 4)
    """

    def __init__(self, size: int | tuple[int | None, ...]) -> None:
        out = adaptive_sizes(stand_in(1, 1, 1, 1), size).out[2:]
        given = size if isinstance(size, (tuple, list)) else out
        kept = [None if entry is None else number for entry, number in zip(given, out, strict=True)]
        super().__init__(size=kept if None in kept else plain(*out))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        image = stand_in(1, *shape)
        check_images("x", image)
        return adaptive_sizes(image, self.settings["size"]).out[1:]

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        check_images("x", x)
        return ops.adaptive_average_pool_forward(x, **self.settings)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        return ops.adaptive_average_pool_backward(dy, cache)


@register("global-average-pool")
class GlobalAveragePool(Layer):
    """Mean of every channel of every image: (N, C, H, W) -> (N, C).

    >>> nn.GlobalAveragePool().forward(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[1.5, 5.5]])
    """

    def __init__(self) -> None:
        super().__init__()

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        check_images("x", stand_in(1, *shape))
        return shape[:1]

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        check_images("x", x)
        return ops.global_average_pool_forward(x)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        return ops.global_average_pool_backward(dy, cache)


@register("upsample")
class Upsample(Layer):
    """Images enlarged by whole factors: mode="nearest" or "linear"; see gpuconv.upsample_forward.

    factor is an int or a pair (vertical, horizontal).

    >>> nn.Upsample(2, mode="linear").forward(np.array([[[[0.0, 4.0]]]]))[0, 0, 0]
    array([0., 1., 3., 4.])
    """

    def __init__(
        self, factor: int | tuple[int, ...] = 2, *, mode: str = "nearest", align_corners: bool = False
    ) -> None:
        mode, align_corners = check_mode(mode, align_corners)
        pair = checks.pair("factor", factor, least=1)
        super().__init__(factor=plain(*pair), mode=mode, align_corners=align_corners)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        x = stand_in(1, *shape)
        check_images("x", x)
        return upsampled(x, self.settings["factor"])[1][1:]

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        check_images("x", x)
        return ops.upsample_forward(x, **self.settings)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        return ops.upsample_backward(dy, cache)


@register("flatten")
class Flatten(Layer):
    """Each sample as one row, in (C, H, W) row order whatever the memory format: (N, d1, ..., dk) -> (N, d1 ... dk).

    >>> nn.Flatten().forward(np.ones((2, 3, 4, 4))).shape
    (2, 48)
    """

    def __init__(self) -> None:
        super().__init__()

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (prod(shape),)

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        shape = tuple(x.shape)
        channels_last = len(shape) == 4 and is_channels_last(x)
        rows = in_format(x, channels_last=False) if channels_last else x
        return rows.reshape(shape[0], prod(shape[1:])), (shape, channels_last)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        shape, channels_last = cache
        checks.same_shape("dy", dy, (shape[0], prod(shape[1:])), "the shape of the forward's output")
        dx = dy.reshape(shape)
        # The gradient takes the memory format of the images, so that the layers before stay on their fast path.
        return in_format(dx, channels_last=True) if channels_last else dx


def _affine_from_toml(units: int, in_features: int, bias: bool = True, init: str | float = "xavier") -> Layer:
    return Affine(in_features, checks.integer("units", units, least=1), bias=bias, init=init)


@register("affine", from_toml=_affine_from_toml)
class Affine(Layer):
    """Fully connected layer: w (in_features, out_features), b (out_features,); see gpuconv.affine_forward.

    init: "he", "xavier", "uniform", or the standard deviation of a normal distribution.

    >>> layer = nn.Affine(3, 2).create()
    >>> layer.forward(np.ones((5, 3), np.float32)).shape
    (5, 2)
    >>> layer.params["w"].shape, layer.params["b"].shape
    ((3, 2), (2,))
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, init: str | float = "he") -> None:
        D = checks.integer("in_features", in_features, least=1)
        M = checks.integer("out_features", out_features, least=1)
        bias, init = checks.flag("bias", bias), initialisers.check(init)
        super().__init__(in_features=D, out_features=M, bias=bias, init=init)
        self.declared["w"] = Declared((D, M), init, decayed=True)
        if bias:
            self.declared["b"] = Declared((M,), "zeros")

    @classmethod
    def inferred(cls, shape: tuple[int, ...], classes: int | None) -> dict[str, Any]:
        units = {} if classes is None else {"units": classes}
        return {"in_features": prod(shape), **units}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        D, M = self.declared["w"].shape
        if prod(shape) != D:
            msg = f"x has {counted(prod(shape), 'feature')} but w expects {D}: one sample {shape}, w {(D, M)}"
            raise ShapeError(msg)
        return (M,)

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        return ops.affine_forward(
            x, self.weight("w", x), self.weight("b", x), precision=self.precision if training else None
        )

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        dw, db = self.grads["w"], self.grads.get("b")
        return ops.affine.affine_backward_into(dy, cache, dw, db, input_grad=input_grad)


def _pool_settings(window: Any, stride: Any, pad: Any, dilation: Any, ceil: Any) -> dict[str, Any]:
    """Return the settings of pooling, checked by the sizes of an image as large as the window.

    Those that came later are there only where they are not as usual: nets that do without are written as before.
    """
    reach = zip(checks.pair("window", window, least=1), checks.pair("dilation", dilation, least=1), strict=True)
    image = stand_in(1, 1, *(apart * (taps - 1) + 1 for taps, apart in reach))
    z = image_pool_sizes(image, window=window, stride=stride, pad=pad, dilation=dilation, ceil=ceil)
    later = {"dilation": (plain(*z.dilation), 1), "ceil": (bool(ceil), False)}
    return {
        "window": plain(z.R, z.S),
        "stride": None if stride is None else plain(*z.stride),
        "pad": plain_pad(pad),
        **{name: value for name, (value, usual) in later.items() if value != usual},
    }
