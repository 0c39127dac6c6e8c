"""The layer of transposed convolution."""

from __future__ import annotations

from typing import Any

from .. import checks, ops
from ..errors import ParamError
from ..shapes import conv_transpose_sizes
from . import init as initialisers
from .geometry import plain, plain_pad, stand_in
from .layer import Declared, Layer, register

__all__ = ["ConvTranspose"]


@register("conv-transpose")
class ConvTranspose(Layer):
    """Transposed 2-D convolution: w (in_channels, filters / groups, R, S), b (filters,); see conv_transpose_forward.

    window, stride, pad, output_pad and dilation are an int or a pair (vertical, horizontal); pad may have a pair
    (before, after) for an axis, or be "same".
    init: "he", "xavier", "uniform", with filters / groups R S inputs as PyTorch counts them, or the standard deviation
    of a normal distribution.

    >>> nn.ConvTranspose(64, 32, 4, stride=2, pad=1).output_shape((64, 8, 8))
    (32, 16, 16)
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        window: int | tuple[int, ...] = 3,
        *,
        stride: int | tuple[int, ...] = 1,
        pad: int | str | tuple[int | tuple[int, int], ...] = 0,
        output_pad: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        init: str | float = "he",
    ) -> None:
        C = checks.integer("in_channels", in_channels, least=1)
        K = checks.integer("filters", filters, least=1)
        R, S = checks.pair("window", window, least=1)
        groups = checks.integer("groups", groups, least=1)
        if C % groups or K % groups:
            msg = f"groups must divide in_channels and filters, got groups={groups}, in_channels={C}, filters={K}"
            raise ParamError(msg)
        geometry = {"stride": stride, "pad": pad, "output_pad": output_pad, "dilation": dilation, "groups": groups}
        pad = plain_pad(pad)
        # An input that the padding leaves something of has every argument but the image size checked here.
        cut = (0, 0) if pad == "same" else (sum(both) for both in checks.each_side("pad", pad, 2))
        w, large = (C, K // groups, R, S), stand_in(1, C, *(1 + n for n in cut))
        z = conv_transpose_sizes(large, stand_in(*w), None, **geometry)
        more = checks.pair("output_pad", output_pad, least=0)
        pairs = {"stride": z.stride, "pad": pad, "output_pad": more, "dilation": z.dilation}
        self.geometry: dict[str, Any] = {**pairs, "groups": groups}
        bias, init = checks.flag("bias", bias), initialisers.check(init)
        super().__init__(
            in_channels=C,
            filters=K,
            window=plain(R, S),
            stride=plain(*z.stride),
            pad=pad,
            output_pad=plain(*more),
            dilation=plain(*z.dilation),
            groups=groups,
            bias=bias,
            init=init,
        )
        self.w_shape = w
        self.declared["w"] = Declared(w, init, decayed=True)
        if bias:
            self.declared["b"] = Declared((K,), "zeros")

    @classmethod
    def inferred(cls, shape: tuple[int, ...], classes: int | None) -> dict[str, Any]:
        return {"in_channels": shape[0]}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        z = conv_transpose_sizes(stand_in(1, *shape), stand_in(*self.w_shape), None, **self.geometry)
        return z.image[1:]

    def _forward(self, x: Any, training: bool, step: int) -> tuple[Any, Any]:
        arrays, precision = (x, self.weight("w", x), self.weight("b", x)), self.precision if training else None
        return ops.conv_transpose_forward(*arrays, **self.geometry, precision=precision)

    def _backward(self, dy: Any, cache: Any, input_grad: bool) -> Any:
        dw, db = self.grads["w"], self.grads.get("b")
        return ops.conv_transpose.conv_transpose_backward_into(dy, cache, dw, db, input_grad=input_grad)
