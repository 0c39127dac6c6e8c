"""CuDNNError: what callers of cupy.cudnn catch."""

from __future__ import annotations

_NAMES = {
    0: "SUCCESS",
    1: "NOT_INITIALIZED",
    2: "ALLOC_FAILED",
    3: "BAD_PARAM",
    4: "INTERNAL_ERROR",
    5: "INVALID_VALUE",
    8: "EXECUTION_FAILED",
    9: "NOT_SUPPORTED",
}
BAD_PARAM = 3


class CuDNNError(RuntimeError):
    """An error with a status of cuDNN's, and lines that say what was given."""

    def __init__(self, status: int, *lines: str) -> None:
        self.status = status
        self.lines = lines
        super().__init__("\n".join((f"cuDNN Error: CUDNN_STATUS_{_NAMES.get(status, status)}", *lines)))

    def __reduce__(self) -> tuple[type[CuDNNError], tuple[int | str, ...]]:
        return type(self), (self.status, *self.lines)
