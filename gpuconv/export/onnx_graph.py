"""The nodes and weights of an ONNX graph while it is written."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import extras
from ..errors import UnsupportedError

OUTPUT = "scores"


def library() -> Any:
    """Return the package onnx, with the parts that are needed; raise UnsupportedError where it is not installed."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        msg = f"ONNX files need the package onnx: {extras.install('onnx')}"
        raise UnsupportedError(msg) from error
    return onnx


class Graph:
    """Nodes and initialisers so far."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.initialisers: dict[str, np.ndarray] = {}

    def node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        output = f"{name}.y"
        self.nodes.append(library().helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def array(self, name: str, values: Any, dtype: np.dtype | None = None) -> str:
        """Add an initialiser, in the graph's dtype unless another is given; return its name."""
        self.initialisers[name] = np.ascontiguousarray(np.asarray(values).astype(dtype or self.dtype))
        return name

    def finish(self, value: str) -> None:
        """Give the last value the name of the output."""
        if self.nodes and value == self.nodes[-1].output[0]:
            self.nodes[-1].output[0] = OUTPUT
        else:  # a net of nothing but dropout
            self.nodes.append(library().helper.make_node("Identity", [value], [OUTPUT], name=OUTPUT))
