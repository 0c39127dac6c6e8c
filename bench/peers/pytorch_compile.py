"""torch.compile: what PyTorch's compiler can generate itself; a lone convolution it would hand to the same library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..inputs import Inputs
from .base import Calls, NotOffered
from .pytorch import PyTorch


class Compiled(PyTorch):
    label = "torch.compile"
    takes_complex = False

    def start(self, device: str, threads: int) -> str:
        version = super().start(device, threads)
        from torch._functorch import config

        config.donated_buffer = False  # backward is called again and again on one graph
        return version

    def calls(self, inputs: Inputs) -> Calls:
        if inputs.case.op == "conv":
            msg = "compiles a lone convolution to PyTorch's own call"
            raise NotOffered(msg)
        import torch

        torch.compiler.reset()  # each case is compiled for its own shapes
        return super().calls(inputs)

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import torch

        return torch.compile(function, dynamic=False)
