"""How well a net does on pictures it has not been trained on."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import tables
from ..backend import asarray, asnumpy, on_gpu, zeros_like
from ..data.check import check_dataset
from ..errors import CheckpointMismatchError, ParamError
from ..nn.finite import check_scores
from ..nn.net import Net
from ..nn.replayed import Replayed, keep_quiet
from ..ops.augmentation import augment
from ..ops.loss import softmax_cross_entropy
from ..plural import counted
from ..typing import AnyArray
from .dataset import first_test_images

BATCH_SIZE = 250
TTA = ("none", "flip", "flip+shift")
MOST_MISTAKES = 36
_HEAD = ["class", "images", "recognised", "accuracy"]


class Mistake(NamedTuple):
    """An image that was not recognised: its number, its class, the one it was taken for, at which probability."""

    image: int
    true: int
    predicted: int
    confidence: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Evaluation:
    """The outcome on a set of images: mean loss, and how often the highest score was right.

    print() shows a line for each class, with its name where that is known.

    >>> pictures, net = data.draw_shapes(100, 40), train.load_net("runs/first/best.safetensors")
    >>> normalised_by = {"mean": pictures.mean, "std": pictures.std}
    >>> evaluation = train.evaluate(net, pictures.x_test, pictures.y_test, **normalised_by, classes=10)
    >>> evaluation.count, evaluation.confusion.shape, len(evaluation.class_accuracy)
    (40, (10, 10), 10)
    """

    loss: float
    accuracy: float
    class_counts: np.ndarray  # (classes,): images of each class
    class_correct: np.ndarray  # (classes,): those of them that were recognised
    confusion: np.ndarray  # (classes, classes): images of the row's class that were taken for the column's
    right: np.ndarray  # (N,) bool: which images were recognised
    mistakes: list[Mistake]  # the most confident ones, worst first
    classes: tuple[str, ...] = ()  # the names of the classes, where they are known

    @property
    def count(self) -> int:
        """How many images were looked at."""
        return int(self.class_counts.sum())

    @property
    def class_accuracy(self) -> list[float | None]:
        """Accuracy of each class; None for one without images."""
        pairs = zip(self.class_correct.tolist(), self.class_counts.tolist(), strict=True)
        return [right / count if count else None for right, count in pairs]

    @property
    def state(self) -> str:
        """The outcome in words."""
        return f"accuracy {self.accuracy:.2%}, loss {self.loss:.4f} on {counted(self.count, 'image')}"

    def __repr__(self) -> str:
        return f"Evaluation({self.state} of {counted(len(self.class_counts), 'class', 'classes')})"

    def __str__(self) -> str:
        return "\n".join([self.state, "", *tables.columns([_HEAD, *self._rows()], numbers=3)])

    def _repr_html_(self) -> str:
        return tables.html("Evaluation", self.state, _HEAD, self._rows())

    def _rows(self) -> list[list[str]]:
        """Return the cells of each class: its name or number, images, those recognised, their share."""
        return [
            [label, f"{count:,}", f"{right:,}", "-" if share is None else f"{share:.2%}"]
            for label, count, right, share in zip(
                self.classes or map(str, range(len(self.class_counts))),
                self.class_counts.tolist(),
                self.class_correct.tolist(),
                self.class_accuracy,
                strict=True,
            )
        ]


def evaluate(
    net: Net,
    images: AnyArray,
    labels: np.ndarray,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    classes: Any,
    tta: str = "none",
    between: Callable[[], None] | None = None,
    graph: str = "off",
    tell: Callable[[str], None] | None = None,
    team: Any = None,
) -> Evaluation:
    """Return loss and accuracy of a net on images as they are stored; no augmentation, running statistics.

    images: (N, C, H, W) uint8   labels: (N,) on the host   Images on the host go to the net's place batch by batch;
    those that lie there already stay.   between: called after each batch, or once where processes share them (and may
    raise to end it early).
    Raises NonFiniteScoresError, with the layer where it begins, if a score is NaN or infinite.

    graph: "on" or "auto" to replay the forward of whole batches on a GPU, as of `Config`; the same bits.
    tell: called with a sentence where that cannot be recorded, and graph is "auto".
    team: processes that each look at a share of the batches, and all return the same: `share` and `in_order` of a
    gpuconv.train.team.Team.

    tta (test-time augmentation) averages the scores of several views of each image: "none" is the image itself;
    "flip" it and its mirror image; "flip+shift" gives half the weight to these two and half to their shifts by one
    pixel up and left, and down and right, with the border reflected: six views, six times the work.
    Source of the six views and their weights: Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU, arXiv 2404.00498.

    >>> pictures = data.draw_shapes(100, 500)
    >>> net = nn.Net(nn.Sequential(nn.Flatten(), nn.Affine(3072, 10, init=0.0)), (3, 32, 32))
    >>> normalised_by = {"mean": pictures.mean, "std": pictures.std}
    >>> found = train.evaluate(net, pictures.x_test, pictures.y_test, **normalised_by, classes=10)
    >>> found.accuracy, round(found.loss, 4)  # a net that knows nothing: 1 / 10, ln(10)
    (0.1, 2.3026)
    """
    count = len(labels)
    if count == 0:
        msg = "images must not be empty: there is no accuracy of nothing"
        raise ParamError(msg)
    check_views(tta)
    names = tuple(classes) if isinstance(classes, (tuple, list)) else ()
    classes = len(names) or classes
    loss_sum = 0.0
    counts, correct = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    confusion, rights = np.zeros(classes**2, np.int64), np.zeros(count, bool)
    mistakes: list[Mistake] = []
    forward = _Forward(net, mean, std, graph, tell or keep_quiet)

    def look(start: int) -> tuple[int, float, Any]:
        batch = slice(start, min(start + BATCH_SIZE, count))
        scores = scores_of(net, images[batch], mean=mean, std=std, tta=tta, forward=forward)
        if scores.shape[1] != classes:
            msg = f"the net has {counted(scores.shape[1], 'class', 'classes')} but the data set has {classes}"
            raise CheckpointMismatchError(msg)
        on_host = asnumpy(scores)
        loss, _ = softmax_cross_entropy(scores, asarray(labels[batch], beside=scores))
        if between is not None and not shared:
            between()
        return start, float(asnumpy(loss)), on_host

    starts, shared = range(0, count, BATCH_SIZE), team is not None and team.size > 1
    looked: Iterable[tuple[int, float, Any]] = map(look, starts)
    if shared:
        looked = team.in_order([look(starts[number]) for number in team.share(len(starts))])
    for start, loss, on_host in looked:
        batch = slice(start, start + len(on_host))
        loss_sum += loss * len(on_host)
        predicted = on_host.argmax(axis=1)
        right = predicted == labels[batch]
        rights[batch] = right
        confusion += np.bincount(np.int64(classes) * labels[batch] + predicted, minlength=classes**2)
        mistakes = _worst(mistakes, start, on_host, labels[batch], predicted)
        counts += np.bincount(labels[batch], minlength=classes)
        correct += np.bincount(labels[batch][right], minlength=classes)
    if between is not None and shared:
        between()
    return Evaluation(
        loss_sum / count,
        int(correct.sum()) / count,
        counts,
        correct,
        confusion.reshape(classes, classes),
        rights,
        mistakes,
        names,
    )


class _Forward:
    """Scores of one batch of pictures after the other, by replays where these are of one shape and on a GPU."""

    def __init__(
        self, net: Any, mean: tuple[float, ...], std: tuple[float, ...], graph: str, tell: Callable[[str], None]
    ) -> None:
        self._net, self._mean, self._std = net, mean, std
        self._replayed = Replayed(graph, net.flat_params, tell, "the batches of an evaluation")
        self._pictures: Any = None  # where those of a replay lie

    def __call__(self, pictures: Any) -> Any:
        """Return scores that hold until the next call."""
        if not on_gpu(pictures):
            return self._of(pictures)
        if self._pictures is None:
            self._pictures = zeros_like(pictures)
        if pictures.shape != self._pictures.shape:
            return self._of(pictures)
        self._pictures[...] = pictures
        return self._replayed.do(lambda: self._of(self._pictures), pictures.shape)

    def _of(self, pictures: Any) -> Any:
        return self._net.forward(_normalised(self._net, pictures, self._mean, self._std))


def scores_of(
    net: Any,
    images: Any,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    tta: str = "none",
    forward: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the scores (N, classes) of a batch of pictures as they are stored, averaged over the views of tta.

    forward: from pictures to scores, where that is not just the net's.
    Raises NonFiniteScoresError, with the layer where it begins, if a score is NaN or infinite.
    """
    scores = None
    placed = images if on_gpu(images) else asarray(images, beside=net.flat_params)
    for weight, pictures in views(placed, tta):
        with np.errstate(all="ignore"):  # what is no number is refused below
            of_view = net.forward(_normalised(net, pictures, mean, std)) if forward is None else forward(pictures)
        if tta == "none":
            scores = of_view
        else:
            weighted = weight * asnumpy(of_view)
            scores = weighted if scores is None else scores + weighted
    if not np.isfinite(asnumpy(scores)).all():
        for _, pictures in views(placed, tta):
            check_scores(net, _normalised(net, pictures, mean, std), "the net")
    return scores


def evaluate_on(net: Any, dataset: Any, *, test_images: int = 0, tta: str = "none") -> Evaluation:
    """Return how well a net does on the test images of a data set: on the first so many, or on all for 0."""
    check_dataset(dataset)
    images, labels = first_test_images(dataset, test_images)
    return evaluate(net, images, labels, mean=dataset.mean, std=dataset.std, classes=dataset.classes, tta=tta)


def _normalised(net: Any, pictures: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """Return pictures, where they are, as inputs of a net."""
    return augment(pictures, mean=mean, std=std, dtype=net.flat_params.dtype, channels_last=True)


def _worst(known: list[Mistake], start: int, scores: Any, labels: Any, predicted: Any) -> list[Mistake]:
    """Return the most confident mistakes of those known and of a batch that starts at image start."""
    wrong = np.flatnonzero(predicted != labels)
    apart = scores[wrong].astype(np.float64)
    apart -= apart.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(apart).sum(axis=1)  # softmax of the highest score
    columns = (wrong + start, labels[wrong], predicted[wrong], confidence)
    new = [Mistake(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
    return sorted([*known, *new], key=lambda one: (-one.confidence, one.image))[:MOST_MISTAKES]


def pack_bits(bits: np.ndarray) -> str:
    """Return an array of bools as base64 text, eight to a byte, the first one highest."""
    return base64.b64encode(np.packbits(bits).tobytes()).decode("ascii")


def unpack_bits(text: str, count: int) -> np.ndarray:
    """Return the first count bools that pack_bits wrote."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)


def check_views(tta: str) -> None:
    """Raise ParamError for a name of views that there is not."""
    if tta not in TTA:
        msg = f"tta must be one of {', '.join(TTA)}, got {tta!r}"
        raise ParamError(msg)


def views(images: Any, tta: str) -> Iterator[tuple[float, Any]]:
    """Yield (weight, images) for every view of images (N, C, H, W), made where they are; the weights add up to 1."""
    if tta == "none":
        yield 1.0, images
        return
    yield from _flipped(images, 0.25 if tta == "flip+shift" else 0.5)
    if tta == "flip+shift":
        for start in (0, 2):
            shifted = images
            for axis in (2, 3):
                size = images.shape[axis]
                framed = np.pad(np.arange(size), 1, mode="reflect")  # the numbers of rows or columns
                shifted = _picked(shifted, framed[start : start + size], axis)
            yield from _flipped(shifted, 0.125)


def _flipped(images: Any, weight: float) -> Iterator[tuple[float, Any]]:
    """Yield images and their mirror images."""
    yield weight, images
    yield weight, _picked(images, np.arange(images.shape[3])[::-1].copy(), 3)


def _picked(images: Any, numbers: np.ndarray, axis: int) -> Any:
    """Return the rows or columns with these numbers, in a new array beside the old one."""
    return images.take(asarray(numbers, beside=images), axis=axis)
