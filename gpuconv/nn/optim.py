"""Optimisers: each holds its settings and flat state vectors, and lets one operator update the whole net in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .. import checks, ops
from ..backend import backend_of, zeros_like
from ..errors import ParamError, UnsupportedError
from ..placed import Number
from .net import Net
from .store import check_fit, copy_in


class Optimiser:
    """Steps on net.flat_params along net.flat_grads.  Weight decay applies to the first net.decayed entries only.

    bias_lr: the rate of the entries that it does not apply to (biases, gamma, beta), as a multiple of lr.

    state: the flat vectors that a rule carries from step to step; steps: how many were taken.  Both go into a
    checkpoint, and `load` brings them back.

    A rule of your own is a subclass: it names its vectors and defines `_update`.  Steps of `gpuconv.train.Stepper` on a
    GPU, which are recorded, need the same from numbers that lie there: `_update_by_place`.

    >>> net = nn.ConvNet(4, input_shape=(3, 8, 8))
    >>> optimiser = nn.SGD(net, momentum=0.9)
    >>> optimiser.step(lr=0.1)  # along net.grads, which a net's backward writes
    >>> optimiser.steps, list(optimiser.state)
    (1, ['velocity'])
    """

    def __init__(
        self, net: Net, vectors: tuple[str, ...], weight_decay: float, bias_lr: float, **settings: Any
    ) -> None:
        self.weight_decay = checks.real("weight_decay", weight_decay, low=0.0)
        self.bias_lr = checks.real("bias_lr", bias_lr, low=0.0)
        self.settings = settings
        self.state = {name: zeros_like(net.flat_params) for name in vectors}
        self.steps = 0
        self._net = net
        self._vectors = [net.flat_params, net.flat_grads, *self.state.values()]
        self._parts: list[tuple[list[Any], slice, float, float]] = []  # arrays, where they lie, decay, factor of lr
        border, size = net.decayed if self.weight_decay or self.bias_lr != 1 else 0, net.flat_params.size
        self._add_part(0, border, self.weight_decay, 1.0)
        self._add_part(border, size, 0.0, self.bias_lr)

    def step(self, lr: float) -> None:
        """Take one step with learning rate lr."""
        lr = checks.real("lr", lr, low=0.0)
        self.steps += 1
        self._update_all(lr)
        if self._net.copies is not None:
            self._net.copies.renew()

    def told(self, lr: float) -> tuple[list[float], list[float]]:
        """Return what steps of learning rate lr are told, part by part: rates, and factors that shrink weights."""
        lr = checks.real("lr", lr, low=0.0)
        rates = [lr * factor for *_, factor in self._parts]
        return rates, [1.0] * len(rates)

    def corrections(self, steps: int) -> tuple[float, float]:
        """Return what the rate and the squares of step number `steps`, from 1, are divided by."""
        del steps
        return 1.0, 1.0

    def step_by_place(self, numbers: Any) -> None:
        """Take one step on a GPU, by numbers that lie there, a gpuconv.cuda.StepNumbers; whoever calls this counts it."""
        self._update_all_by_place(numbers)
        if self._net.copies is not None:
            self._net.copies.follow()

    def check_by_place(self) -> None:
        """Raise UnsupportedError where the rule is another by numbers than by their place: only one was defined anew."""
        order = type(self).__mro__
        for name, by_place in (("step", "step_by_place"), ("_update", "_update_by_place")):
            own, needed = (next(i for i, kind in enumerate(order) if of in vars(kind)) for of in (name, by_place))
            if own < needed:
                msg = (
                    f"{order[own].__name__} defines {name} and not {by_place}, by which a training step on a GPU goes: "
                    f"define it, too, or call {type(self).__name__}.step in steps of your own"
                )
                raise UnsupportedError(msg)

    def load(self, state: Mapping[str, Any], steps: int) -> None:
        """Take over the state of an earlier run; raise CheckpointMismatchError if it does not fit."""
        steps = checks.integer("steps", steps, least=0)
        check_fit("optimiser state", self.state, state)
        copy_in(self.state, state)
        self.steps = steps

    def _add_part(self, first: int, last: int, weight_decay: float, factor: float) -> None:
        """Let entries of the flat vectors be updated with a rate of factor lr."""
        if first < last:
            self._parts.append(([a[first:last] for a in self._vectors], slice(first, last), weight_decay, factor))

    def _copy(self, where: slice = slice(None)) -> Any:
        """Return the copy that a step on a GPU leaves of what it updates; None where the net has none."""
        copies = self._net.copies
        return None if copies is None else copies.flat[where]

    def _update_all(self, lr: float) -> None:
        for arrays, _, weight_decay, factor in self._parts:
            self._update(arrays, lr * factor, weight_decay)

    def _update_all_by_place(self, numbers: Any) -> None:
        for k, (arrays, where, weight_decay, _) in enumerate(self._parts):
            self._update_by_place(arrays, weight_decay, numbers, k, self._copy(where))

    def _update(self, arrays: list[Any], lr: float, weight_decay: float) -> None:
        """Update one part: arrays are w, dw and the state vectors, all of one length."""
        raise NotImplementedError

    def _update_by_place(self, arrays: list[Any], weight_decay: float, numbers: Any, part: int, copy: Any) -> None:
        """Update one part, whose number this is, by numbers that lie on the device: a gpuconv.cuda.StepNumbers.

        Its rate(part) is lr, to be handed to gpuconv.cuda's updates as it is: they leave everything alone in a step
        that is skipped.   copy: where they leave w in 16 bits, too; None where the net has no copies.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        settings = {**self.settings, "weight_decay": self.weight_decay}
        if self.bias_lr != 1:
            settings["bias_lr"] = self.bias_lr
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in settings.items())})"


class SGD(Optimiser):
    """Gradient descent with momentum (heavy ball, or Nesterov's); see gpuconv.sgd_update.

    >>> net = nn.Net(nn.Affine(1, 1, init=0.0), (1,), dtype="float64")
    >>> optimiser = nn.SGD(net, momentum=0.5)
    >>> net.grads["w"][...] = 1.0
    >>> optimiser.step(lr=0.1)
    >>> optimiser.step(lr=0.1)
    >>> net.params["w"]
    array([[-0.25]])
    """

    def __init__(
        self,
        net: Net,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        bias_lr: float = 1.0,
    ) -> None:
        momentum = checks.real("momentum", momentum, low=0.0, high=1.0)
        nesterov = checks.flag("nesterov", nesterov)
        if nesterov and not momentum:
            msg = "nesterov=True needs a momentum above 0, got momentum=0.0"
            raise ParamError(msg)
        vectors = ("velocity",) if momentum else ()
        super().__init__(net, vectors, weight_decay, bias_lr, momentum=momentum, nesterov=nesterov)

    def _update(self, arrays: list[Any], lr: float, weight_decay: float) -> None:
        ops.sgd_update(*arrays, lr=lr, weight_decay=weight_decay, **self.settings)

    def _update_by_place(self, arrays: list[Any], weight_decay: float, numbers: Any, part: int, copy: Any) -> None:
        sgd_by_place(arrays, numbers.rate(part), copy=copy, weight_decay=weight_decay, **self.settings)


class RMSprop(Optimiser):
    """Steps divided by a running root mean square of the gradient; see gpuconv.rmsprop_update.

    >>> net = nn.Net(nn.Affine(1, 1, init=0.0), (1,), dtype="float64")
    >>> optimiser = nn.RMSprop(net, smoothing=0.75)
    >>> net.grads["w"][...] = 8.0
    >>> optimiser.step(lr=0.1)
    >>> net.params["w"].round(3)
    array([[-0.2]])
    """

    def __init__(
        self,
        net: Net,
        smoothing: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        bias_lr: float = 1.0,
    ) -> None:
        smoothing = checks.real("smoothing", smoothing, low=0.0, high=1.0)
        eps = checks.real("eps", eps, low=0.0, open_low=True)
        super().__init__(net, ("square",), weight_decay, bias_lr, smoothing=smoothing, eps=eps)

    def _update(self, arrays: list[Any], lr: float, weight_decay: float) -> None:
        ops.rmsprop_update(*arrays, lr=lr, weight_decay=weight_decay, **self.settings)

    def _update_by_place(self, arrays: list[Any], weight_decay: float, numbers: Any, part: int, copy: Any) -> None:
        update = backend_of(w=arrays[0]).update.rmsprop_step
        update(*arrays, lr=numbers.rate(part), weight_decay=weight_decay, copy=copy, **self.settings)


class Adam(Optimiser):
    """Momentum divided by a running root mean square, both corrected for their start; see gpuconv.adam_update.

    >>> net = nn.Net(nn.Affine(1, 1, init=0.0), (1,), dtype="float64")
    >>> optimiser = nn.Adam(net)
    >>> net.grads["w"][...] = 8.0
    >>> optimiser.step(lr=0.1)
    >>> net.params["w"].round(3)
    array([[-0.1]])
    """

    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        net: Net,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        bias_lr: float = 1.0,
    ) -> None:
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if checks.real(name, beta, low=0.0, high=1.0) == 1.0:
                msg = f"{name} must be below 1, got {name}=1.0"
                raise ParamError(msg)
        eps = checks.real("eps", eps, low=0.0, open_low=True)
        super().__init__(net, ("m", "v"), weight_decay, bias_lr, beta1=float(beta1), beta2=float(beta2), eps=eps)

    def _update(self, arrays: list[Any], lr: float, weight_decay: float) -> None:
        rule = {"step": self.steps, "decoupled": self.decoupled, **self.settings}
        ops.adam_update(*arrays, lr=lr, weight_decay=weight_decay, **rule)

    def told(self, lr: float) -> tuple[list[float], list[float]]:
        rates, shrinks = super().told(lr)
        if self.decoupled:
            shrinks = [1 - rate * decay for rate, (_, _, decay, _) in zip(rates, self._parts, strict=True)]
        return rates, shrinks

    def corrections(self, steps: int) -> tuple[float, float]:
        return 1 - self.settings["beta1"] ** steps, 1 - self.settings["beta2"] ** steps

    def _update_by_place(self, arrays: list[Any], weight_decay: float, numbers: Any, part: int, copy: Any) -> None:
        told = {"rate": numbers.rate(part), "second": numbers.second, "shrink": numbers.shrink(part)}
        penalty = 0.0 if self.decoupled else weight_decay
        backend_of(w=arrays[0]).update.adam_step(*arrays, **told, weight_decay=penalty, copy=copy, **self.settings)


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights directly, apart from the gradient.

    >>> net = nn.Net(nn.Affine(1, 1, init=0.0), (1,), dtype="float64")
    >>> net.params["w"][...] = 1.0
    >>> nn.AdamW(net, weight_decay=0.5).step(lr=0.1)  # no gradient: only the decay
    >>> net.params["w"].round(3)
    array([[0.95]])
    """

    decoupled = True

    def __init__(
        self,
        net: Net,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        bias_lr: float = 1.0,
    ) -> None:
        super().__init__(net, beta1, beta2, eps, weight_decay, bias_lr=bias_lr)


def sgd_by_place(arrays: list[Any], rate: Number, **settings: Any) -> None:
    """Take a step of gradient descent with a rate that lies on a GPU.   arrays: w, dw and, with momentum, velocity."""
    w, dw, velocity = (*arrays, None)[:3]
    backend_of(w=w).update.sgd_step(w, dw, velocity, lr=rate, **settings)
