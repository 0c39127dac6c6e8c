"""A training step by PyTorch, in the same regime: the preset's net as gpuconv exports it, channels-last, as one CUDA graph.

It takes a batch that lies on the GPU: what gpuconv's steps do besides, augmenting and keeping outcomes, it does not do.
float16 and bfloat16 are its autocast, over float32 weights; of float16 without a scale of the loss, so with less to do.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

from bench.cases import Case
from bench.inputs import draw

from .replay import TorchReplay, us

_NARROW = ("float16", "bfloat16")


def step_of(preset: str, batch: int, precision: str) -> Callable[[], Any]:
    """Return a function that does a step and returns its loss."""
    import torch
    import torch.nn.functional as F

    from bench.peers.pytorch import net_of, optimiser_of

    where = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    inputs = draw(Case(preset, "train_step", (batch, 3, 32, 32), options={"preset": preset}), "NHWC")
    config, net = net_of(inputs)
    net = net.to(where, memory_format=torch.channels_last).train()
    optimiser = optimiser_of(config, net)
    x = torch.from_numpy(inputs.x).to(where).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(inputs.labels).to(where)
    narrow = torch.bfloat16 if precision == "bfloat16" else torch.float16

    def step() -> Any:
        optimiser.zero_grad(set_to_none=True)
        # Without its cache: what a graph keeps of casts would be those of the first weights.
        cast = torch.autocast(where, narrow, cache_enabled=False) if precision in _NARROW else contextlib.nullcontext()
        with cast:
            loss = F.cross_entropy(net(x), labels, label_smoothing=config.label_smoothing)
        loss.backward()
        optimiser.step()
        return loss

    return step


def ms(preset: str, batch: int, precision: str, *, dry: bool) -> list[float]:
    """Return the milliseconds of a step, replayed, several times; of a dry run, which does one step, none."""
    step = step_of(preset, batch, precision)
    loss = float(step().detach())
    if not math.isfinite(loss):
        msg = f"PyTorch's first loss is {loss}"
        raise ValueError(msg)
    return [] if dry else [found / 1e3 for found in us(TorchReplay([step]), 1, dry=False)]
