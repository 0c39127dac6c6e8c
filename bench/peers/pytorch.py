"""PyTorch: oneDNN on the CPU, cuDNN on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..cases import LOSSES, of_axes, sides
from ..clocks import FLUSH_BYTES, Clock, EventClock, HostClock
from ..inputs import Inputs
from ..memory import Meter
from .base import Calls, NotOffered, Peer
from .ours import first_rate


class PyTorch(Peer):
    label = "PyTorch"
    packages = ("torch",)
    devices = ("cpu", "cuda")
    metered = ("cuda",)
    takes_complex = True

    def start(self, device: str, threads: int) -> str:
        import torch

        self.device = device
        torch.set_num_threads(threads)
        if device == "cpu":
            return torch.__version__
        if not torch.cuda.is_available():
            msg = f"PyTorch {torch.__version__} sees no GPU"
            raise NotOffered(msg)
        torch.backends.cudnn.benchmark = True
        return f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}"

    def calls(self, inputs: Inputs) -> Calls:
        import torch

        self._regime(inputs.regime)
        if inputs.case.op == "train_step":
            return {"step": self._train_step(inputs)}
        if inputs.case.op in LOSSES:
            return {"loss": self._loss(inputs)}
        leaves = [
            self._put(array, inputs).requires_grad_() for array in (inputs.x, inputs.w, inputs.b) if array is not None
        ]
        function = self._compiled(operator(inputs, torch.device(self.device)))

        def forward() -> Sequence[Any]:  # as in training: it builds the graph
            return (function(*leaves),)

        (y,) = forward()
        dy = self._put(inputs.dy, inputs)
        return {"forward": forward, "backward": lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)}

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function that is timed: here as it is."""
        return function

    def _loss(self, inputs: Inputs) -> Callable[[], Sequence[Any]]:
        """Return a loss and its gradient, as in training."""
        import torch
        import torch.nn.functional as F

        functions = {
            "softmax_cross_entropy": F.cross_entropy,
            "sigmoid_cross_entropy": F.binary_cross_entropy_with_logits,
        }
        function = self._compiled(functions[inputs.case.op])
        scores, labels = self._put(inputs.x, inputs).requires_grad_(), self._put(inputs.labels, inputs)

        def loss() -> Sequence[Any]:
            value = function(scores, labels)
            return value, *torch.autograd.grad(value, scores)

        return loss

    def _regime(self, regime: str) -> None:
        import torch

        if regime == "tf32" and self.device == "cpu":
            msg = "TF32 is of GPUs"
            raise NotOffered(msg)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = regime == "tf32"

    def _put(self, array: Any, inputs: Inputs) -> Any:
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        return tensor.contiguous(memory_format=self._memory(inputs)) if tensor.ndim == 4 else tensor

    def _memory(self, inputs: Inputs) -> Any:
        import torch

        return torch.channels_last if inputs.channels_last else torch.contiguous_format

    def _train_step(self, inputs: Inputs) -> Callable[[], Sequence[Any]]:
        """Return a step of the preset's net, with gpuconv's first weights."""
        import torch
        import torch.nn.functional as F

        if inputs.regime == "float16":
            msg = "trains in float32"
            raise NotOffered(msg)
        config, net = net_of(inputs)
        net = net.to(self.device, memory_format=self._memory(inputs)).train()
        optimiser = optimiser_of(config, net)
        x, labels = self._put(inputs.x, inputs), torch.from_numpy(inputs.labels).to(self.device)

        def loss_of(x: Any, labels: Any) -> Any:
            return F.cross_entropy(net(x), labels, label_smoothing=config.label_smoothing)

        loss_of = self._compiled(loss_of)

        def step() -> Sequence[Any]:
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(x, labels)
            loss.backward()
            optimiser.step()
            return (loss,)

        return step

    def host(self, result: Any, name: str, inputs: Inputs) -> np.ndarray:
        return result.detach().cpu().numpy()

    def clock(self) -> Clock:
        import torch

        if self.device == "cpu":
            return HostClock()
        waste = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
        return EventClock(
            lambda: torch.cuda.Event(enable_timing=True), lambda first, last: first.elapsed_time(last), waste.zero_
        )

    def meter(self) -> Meter | None:
        import torch

        if self.device == "cpu":
            return None
        cuda = torch.cuda
        return Meter(cuda.memory_allocated, cuda.max_memory_allocated, cuda.reset_peak_memory_stats, copies=True)


def operator(inputs: Inputs, device: Any) -> Callable[..., Any]:
    """Return a case's operator as a function of x, and of w and b where it has them."""
    import torch
    import torch.nn.functional as F

    op, options, axes = inputs.case.op, dict(inputs.case.options), len(inputs.case.x) - 2
    if op == "conv":
        options["padding"], frame = _padding(options.pop("pad", 0), axes)
        conv = getattr(F, f"conv{axes}d")
        return lambda x, w, b: conv(F.pad(x, frame) if frame else x, w, b, **options)
    if op == "conv_transpose":
        options["padding"], frame = _padding(options.pop("pad", 0), axes)
        options["output_padding"] = options.pop("output_pad", 0)
        transpose, cut = getattr(F, f"conv_transpose{axes}d"), [-n for n in frame]

        def transposed(x: Any, w: Any, b: Any) -> Any:
            y = transpose(x, w, b, **options)
            return F.pad(y, cut) if cut else y

        return transposed
    if op in ("max_pool", "average_pool"):
        pool = getattr(F, f"{'max' if op == 'max_pool' else 'avg'}_pool{axes}d")
        window, ceil = of_axes(options["window"], axes), options.get("ceil", False)
        stride, (pad, frame) = of_axes(options.get("stride", window), axes), _padding(options.get("pad", 0), axes)
        if op == "max_pool":
            border, more = float("-inf"), (of_axes(options.get("dilation", 1), axes), ceil)
        elif of_axes(options.get("dilation", 1), axes) != (1,) * axes:
            msg = "averages windows without gaps"
            raise NotOffered(msg)
        else:
            border, more = 0.0, (ceil,)
        return lambda x: pool(F.pad(x, frame, value=border) if frame else x, window, stride, pad, *more)
    if op == "adaptive_average_pool":
        return partial(getattr(F, f"adaptive_avg_pool{axes}d"), output_size=options["size"])
    if op == "upsample":
        factor, mode = of_axes(options["factor"], axes), options["mode"]
        if mode == "nearest":
            return lambda x: F.interpolate(x, scale_factor=factor, mode="nearest")
        mode, corners = ("linear", "bilinear", "trilinear")[axes - 1], options.get("align_corners", False)
        return lambda x: F.interpolate(x, scale_factor=factor, mode=mode, align_corners=corners)
    if op == "global_average_pool":
        return lambda x: x.mean((2, 3))
    if op == "affine":
        return lambda x, w, b: torch.addmm(b, x.flatten(1), w)
    if op in ("batchnorm", "spatial_batchnorm"):
        C = inputs.case.x[1]
        mean, var = torch.zeros(C, device=device), torch.ones(C, device=device)
        return lambda x, gamma, beta: F.batch_norm(x, mean, var, gamma, beta, training=True)
    if op == "groupnorm":
        return lambda x, gamma, beta: F.group_norm(x, options["groups"], gamma, beta)
    if op == "layernorm":
        return lambda x, gamma, beta: F.layer_norm(x, x.shape[1:], gamma, beta)
    if op == "dropout":
        return lambda x: F.dropout(x, options["rate"])
    return partial(getattr(F, op), **options)  # a function of single elements has the same name there


def _padding(pad: Any, axes: int) -> tuple[Any, list[int]]:
    """Return the padding that a function takes itself, and what F.pad adds before where the sides differ: else none."""
    both = sides(pad, axes)
    if all(before == after for before, after in both):
        return tuple(before for before, _ in both), []
    return 0, [n for side in reversed(both) for n in side]


def net_of(inputs: Inputs) -> tuple[Any, Any]:
    """Return a preset's settings, and its net as `gpuconv export` writes it for PyTorch, with gpuconv's first weights."""
    from safetensors.torch import load

    from gpuconv.export import torch_file
    from gpuconv.runs.settings import PRESETS
    from gpuconv.train import recipe

    config = PRESETS[inputs.case.options["preset"]]
    weights, source = torch_file.encode(recipe.net(config, inputs.case.x[1:], 10), "weights.safetensors")
    module: dict[str, Any] = {"__name__": "net", "__file__": "net.py"}
    exec(compile(source, "net.py", "exec"), module)  # noqa: S102 - our own text
    net = module["build"]()
    net.load_state_dict(load(weights))
    return config, net


def optimiser_of(config: Any, net: Any) -> Any:
    """Return the preset's optimiser, fused into one kernel; weight decay is for filters and matrices only."""
    import torch

    lr = first_rate(config)
    trained = [p for p in net.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    match config.optimizer:
        case "muon":
            return Muon(config, trained, lr)
        case "sgd":
            return torch.optim.SGD(groups, lr, config.momentum, nesterov=config.nesterov, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr, config.smoothing, config.eps)
        case name:
            cls = torch.optim.Adam if name == "adam" else torch.optim.AdamW
            return cls(groups, lr, (config.beta1, config.beta2), config.eps, fused=True)


class Muon:
    """The speed run's optimiser: filter banks, kept at one length, step by an orthogonal matrix, all else by momentum."""

    def __init__(self, config: Any, trained: Sequence[Any], lr: float) -> None:
        import torch

        self._lr, self._momentum, self._iterations = lr, config.muon_momentum, config.muon_iterations
        self._nesterov = config.nesterov
        self._banks = [(p, torch.zeros_like(p)) for p in trained if p.ndim == 4]
        matrices = [p for p in trained if p.ndim == 2]
        others = [p for p in trained if p.ndim == 1]
        groups = [
            {"params": matrices, "lr": lr * config.affine_lr, "weight_decay": config.weight_decay},
            {"params": others, "lr": lr * config.bias_lr},
        ]
        self._rest = torch.optim.SGD(groups, lr, config.momentum, nesterov=config.momentum > 0, fused=True)

    def zero_grad(self, *, set_to_none: bool) -> None:
        self._rest.zero_grad(set_to_none=set_to_none)
        for bank, _ in self._banks:
            bank.grad = None

    def step(self) -> None:
        import torch

        self._rest.step()
        with torch.no_grad():
            for bank, velocity in self._banks:
                velocity.mul_(self._momentum).add_(bank.grad)
                step = bank.grad.add(velocity, alpha=self._momentum) if self._nesterov else velocity
                bank.mul_(len(bank) ** 0.5 / bank.norm())
                bank.sub_(orthogonal(step.flatten(1), self._iterations).view_as(bank), alpha=self._lr)


def orthogonal(u: Any, iterations: int) -> Any:
    """Return about U V^T of the singular value decomposition u = U S V^T, by Newton and Schulz's iteration."""
    x = (u if len(u) <= u.shape[1] else u.T) / (u.norm() + 1e-7)
    for _ in range(iterations):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x if len(u) <= u.shape[1] else x.T
