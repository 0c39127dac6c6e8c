"""The same cases in PyTorch on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from .cases import Arrays, Case


def torch_calls(case: Case, arrays: Arrays, *, channels_last: bool) -> dict[str, Callable[[], Any]]:
    """Return forward (as in training, building the graph) and backward of a case as calls without arguments."""
    memory = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.from_numpy(arrays.x).to(memory_format=memory).requires_grad_()
    leaves = [x]
    options = dict(case.options)
    if case.op == "conv":
        assert arrays.w is not None
        assert arrays.b is not None
        w = torch.from_numpy(arrays.w).to(memory_format=memory).requires_grad_()
        b = torch.from_numpy(arrays.b).requires_grad_()
        leaves += [w, b]
        if "pad" in options:
            options["padding"] = options.pop("pad")

        def forward() -> torch.Tensor:
            return F.conv2d(x, w, b, **options)

    elif case.op in ("max_pool", "average_pool"):
        pool = F.max_pool2d if case.op == "max_pool" else F.avg_pool2d

        def forward() -> torch.Tensor:
            return pool(x, options["window"], options.get("stride"), options.get("pad", 0))

    elif case.op == "spatial_batchnorm":
        C = case.x[1]
        mean, var = torch.zeros(C), torch.ones(C)
        gamma = torch.from_numpy(arrays.w).requires_grad_()
        beta = torch.from_numpy(arrays.b).requires_grad_()
        leaves += [gamma, beta]

        def forward() -> torch.Tensor:
            return F.batch_norm(x, mean, var, gamma, beta, training=True)

    else:

        def forward() -> torch.Tensor:
            return F.relu(x)

    y = forward()
    dy = torch.from_numpy(arrays.upstream(tuple(y.shape), channels_last=channels_last)).to(memory_format=memory)
    return {"forward": forward, "backward": lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)}
