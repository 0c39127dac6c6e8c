"""A net: layers, and the two flat vectors that hold all their parameters and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from .. import checks
from ..backend import backend_of, default_device, on_gpu
from ..errors import ArgTypeError, DTypeError, ShapeError
from ..ops._precision import check as check_precision
from ..ops.batchnorm import Across
from ..typing import AnyArray, Array
from . import fuse
from .layer import Layer
from .layers import BatchNorm
from .store import Copies, Store, check_fit, check_variances, copies_for, copy_in, create
from .summary import summary, summary_html


class Net:
    """Give a layer (most often a Sequential) its parameters, and run it.

    input_shape: that of one sample, such as (3, 32, 32); output_shape follows from it: (classes,) of a classifier, that
    of a picture where it makes pictures.   dtype: float32; float64 for gradient checks; float16, whose
    running statistics and steps are float16 too, is for nets that are used rather than trained.

    flat_params and flat_grads are one vector each; params and grads map names such as "conv1.w" to views into them,
    so an update of the vector is an update of every layer.  The first `decayed` entries of the vectors are the weights
    of convolutions and affine layers; biases, gamma and beta follow.  state maps "bn1.running_mean" and the like: running
    statistics, and weights that do not learn.

    The loss is the caller's: backward takes its gradient with respect to what forward returned.

    >>> net = nn.Net(nn.Sequential(nn.Flatten(), nn.Affine(12, 2)), input_shape=(3, 2, 2))
    >>> scores = net.forward(np.ones((5, 3, 2, 2), np.float32), training=True)
    >>> loss, dscores = gpuconv.softmax_cross_entropy(scores, np.array([0, 1, 0, 1, 0]))
    >>> net.backward(dscores)
    >>> {name: gradient.shape for name, gradient in net.grads.items()}
    {'affine1.w': (12, 2), 'affine1.b': (2,)}
    """

    def __init__(
        self, body: Layer, input_shape: tuple[int, ...], *, seed: int = 0, dtype: npt.DTypeLike = "float32"
    ) -> None:
        if not isinstance(body, Layer):
            msg = f"body must be a layer, got {type(body).__module__}.{type(body).__qualname__}"
            raise ArgTypeError(msg)
        seed = checks.word("seed", seed)
        self.body = body
        self._fused: Any = fuse.fused(body)
        self._ran: Any = body  # what the last forward went through: the layers, or the units of several
        self.input_shape = sample_shape(input_shape)
        self.output_shape = body.output_shape(self.input_shape)
        self.device = default_device()
        store = create(body, seed=seed, dtype=dtype)
        self.flat_params, self.flat_grads, self.decayed = store.params, store.grads, store.decayed
        self.copies: Copies | None = None
        self.params, self.grads, self.state = body.params, body.grads, body.state
        self.dtype = self.flat_params.dtype
        # Plain values from which `build` makes this net again.
        self.config: dict[str, Any] = {
            "net": "Net",
            "body": body.config,
            "input_shape": list(self.input_shape),
            "seed": seed,
            "dtype": self.dtype.name,
        }

    def describe(self, name: str, **settings: Any) -> None:
        """Let `config` name the net and its settings, from which `build` makes it, in place of its layers."""
        del self.config["body"]
        self.config |= {"net": name, **settings}

    def prepare(self, x: AnyArray) -> None:
        """Look at normalised training images before the first step of a new run; here there is nothing to learn.

        x: (N, *input_shape), up to 5000 images without augmentation
        """

    def compute_in(self, dtype: Any) -> Copies:
        """Let forward take x in 16 bits, too: float16, or on a GPU bfloat16.   dtype: which of them.

        Layers then compute in the dtype of x, with copies of their weights, while parameters, their gradients, running
        statistics, batch norm's vectors and the optimiser stay float32.  An optimiser's steps keep the copies, which are
        returned, up to date, and so does load; whoever else changes weights calls their renew().
        """
        dtype = checks.sixteen_bits(dtype, beside=self.flat_params)
        if self.dtype != "float32":
            msg = f"a net that computes in {dtype} keeps its weights in float32, got a net in {self.dtype}"
            raise DTypeError(msg)
        self.copies = copies_for(self.body, Store(self.flat_params, self.flat_grads, self.decayed), dtype)
        self.copies.renew()
        return self.copies

    def round_factors(self, precision: str | None = "tf32") -> None:
        """Let convolutions and fully connected layers round their factors in training, as `precision` of theirs allows.

        None: no more.  Without training=True nothing is rounded.  Raises ParamError, DTypeError or UnsupportedError
        where the net's place or dtype has no such products.
        """
        precision = check_precision(precision, self.flat_params)
        for _, leaf in self.body.leaves():
            leaf.precision = precision

    def normalise_across(self, across: Across) -> None:
        """Let batch norms in training normalise over the shares of a batch that other processes have, too."""
        for _, leaf in self.body.leaves():
            if isinstance(leaf, BatchNorm):
                leaf.across = across
        self._fused = fuse.fused(self.body)

    def forward(self, x: Array, *, training: bool = False, step: int = 0) -> Array:
        """Return what the layers make of x.   x: (N, *input_shape)   ->   y: (N, *output_shape).

        training=True normalises by the batch, drops, and remembers what backward needs; step is the number of the
        training step, from which dropout draws.  training=False remembers nothing.
        """
        backend_of(x=x)
        if tuple(x.shape[1:]) != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            turned = x.ndim == 4 and (x.shape[3], *x.shape[1:3]) == self.input_shape
            hint = checks.channels_first("x", x, self.input_shape[0]) if turned else ""
            msg = f"x must be (N, {expected}) for this net, got {tuple(x.shape)}{hint}"
            raise ShapeError(msg)
        self._ran = self._fused if fuse.FUSED and on_gpu(x) else self.body
        return self._ran.forward(x, training=training, step=checks.step_word("step", step))

    def backward(self, dy: AnyArray) -> None:
        """Overwrite the gradients, for the last forward(training=True).

        dy: (N, *output_shape), the gradient of a number, most often of the mean loss, with respect to forward's y
        """
        self._ran.backward(dy, input_grad=False)

    def load(self, params: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Copy parameters and running statistics in, by name.

        Raises CheckpointMismatchError, before anything is changed, that lists what is missing, unexpected, or of
        another shape or dtype, or names a running variance below 0.
        """
        check_fit("params", self.params, params)
        check_fit("state", self.state, state)
        check_variances("state", state)
        copy_in(self.params, params)
        copy_in(self.state, state)
        if self.copies is not None:
            self.copies.renew()

    def summary(self) -> str:
        """Return a table of the layers: their names, output shapes, parameter counts."""
        sizes = " x ".join(map(str, self.input_shape))
        title = f"{type(self).__name__} on {sizes}, {self.dtype.name}, {self.device}"
        return f"{title}\n{summary(self.body, self.input_shape)}"

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        title, _ = self.summary().split("\n", 1)
        return summary_html(self.body, self.input_shape, title)


def sample_shape(shape: Any) -> tuple[int, ...]:
    """Return the shape of one sample as a tuple of ints above 0."""
    if not isinstance(shape, (tuple, list)) or not shape:
        msg = f"input_shape must be a tuple such as (3, 32, 32), got {checks.shown(shape)}"
        raise ArgTypeError(msg)
    return tuple(checks.integer("input_shape", size, least=1) for size in shape)
