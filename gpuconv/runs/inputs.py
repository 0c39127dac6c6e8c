"""What a net takes and what its scores mean: it travels with the weights, which then need no data set beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from .. import checks
from ..data.check import check_classes
from ..data.dataset import Dataset
from ..errors import ArgTypeError, CheckpointMismatchError, ParamError, ShapeError
from ..nn.net import Net
from .classes import in_order_of

SCALING = "middle, bicubic"  # the largest part in the middle with the net's proportions, as `read_files` scales it


@dataclass(frozen=True, slots=True)
class Inputs:
    """Pictures as a net takes them, and the names of its scores, in their order; None: not recorded.

    Raises ArgTypeError, ParamError or ShapeError for what cannot be.
    """

    shape: tuple[int, int, int]
    """(channels, height, width)."""
    classes: tuple[str, ...] | None
    mean: tuple[float, ...] | None
    """Per channel, of pictures / 255."""
    std: tuple[float, ...] | None
    scaling: str = SCALING
    """How pictures of other sizes become height x width."""

    def __post_init__(self) -> None:
        if not isinstance(self.shape, (tuple, list)) or len(self.shape) != 3:
            msg = f"input_shape must be (channels, height, width), got {self.shape!r}"
            raise ArgTypeError(msg)
        for size in self.shape:
            checks.integer("input_shape", size, least=1)
        if self.classes is not None:
            check_classes(self.classes)
        if (self.mean is None) != (self.std is None):
            msg = f"mean and std belong together, got mean={self.mean!r}, std={self.std!r}"
            raise ArgTypeError(msg)
        for name, low in (("mean", -float("inf")), ("std", 0.0)):
            values = getattr(self, name)
            if values is None:
                continue
            if not isinstance(values, (tuple, list)):
                msg = f"{name} must be one number for each channel, got {values!r}"
                raise ArgTypeError(msg)
            if len(values) != self.shape[0]:
                msg = f"{name} must be one number for each of {self.shape[0]} channels, got {len(values)}"
                raise ShapeError(msg)
            numbers = tuple(checks.real(name, value, low=low, open_low=True) for value in values)
            object.__setattr__(self, name, numbers)
        for name in ("shape", "classes"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(values))
        if self.scaling != SCALING:
            msg = f'scaling must be "{SCALING}", got {self.scaling!r}'
            raise ParamError(msg)

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Return what a net that is trained on a data set takes."""
        _, channels, height, width = dataset.x_train.shape
        return cls((channels, height, width), tuple(dataset.classes), tuple(dataset.mean), tuple(dataset.std))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_values` gave; raise KeyError, TypeError or what the constructor raises for anything else."""
        return cls(*(values[name] for name in ("input_shape", "classes", "mean", "std", "scaling")))

    def to_values(self) -> dict[str, Any]:
        """Return plain values, by the names they have in checkpoints, result.json and exported files."""
        lists = {"classes": self.classes, "mean": self.mean, "std": self.std, "input_shape": self.shape}
        return {
            **{name: None if values is None else list(values) for name, values in lists.items()},
            "scaling": self.scaling,
        }

    def check_net(self, net: Net) -> None:
        """Raise CheckpointMismatchError if a net takes something else, or has more or fewer scores than names."""
        if net.input_shape != self.shape:
            msg = f"input_shape must be what the net takes, {net.input_shape}, got {self.shape}"
            raise CheckpointMismatchError(msg)
        if self.classes is not None and net.output_shape != (len(self.classes),):
            msg = (
                f"classes must name each score, which have the shape {net.output_shape}, got {len(self.classes)} names"
            )
            raise CheckpointMismatchError(msg)

    def fitted(self, dataset: Dataset) -> Dataset:
        """Return a data set as the net sees it: labels numbered by the net's classes, normalised as it has learnt.

        Raises CheckpointMismatchError for classes that the net does not know.
        """
        if self.classes is not None:
            dataset = in_order_of(self.classes, dataset)
        if self.mean is not None and self.std is not None:
            dataset = dataclasses.replace(dataset, mean=self.mean, std=self.std)
        return dataset
