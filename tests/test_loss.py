"""Losses at the end of a classifier: values, gradients, and scores no exponential survives.

Tolerances (c = 8): a log-probability is known to u (|score| + |top| + log of the sum), top being the row's largest
score; a probability p_j to p_j u (1 + |score_j - top| + the mean of that distance).  Losses are sums of positive
terms over batch and classes: c = 4 + 2 sqrt(terms).
"""

import numpy as np
import pytest
from compare import assert_close, assert_same, normal, whole
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, pairs

import gpuconv
from gpuconv import naive
from gpuconv.errors import ParamError

# why the case exists: (samples, classes)
CASES = {
    "one_of_each": (1, 1),
    "one_class": (5, 1),
    "two_classes": (4, 2),
    "cifar_batch": (100, 10),
    "more_classes_than_samples": (3, 129),
    "primes": (7, 13),
    "empty_batch": (0, 10),
}


def _check_softmax(device, scores, labels, smoothing=0.0):
    loss, dscores = gpuconv.softmax_cross_entropy(device.array(scores), device.array(labels), label_smoothing=smoothing)
    ref, dref = naive.softmax_cross_entropy(scores, labels, label_smoothing=smoothing)
    N, classes = scores.shape
    wide = scores.astype(np.float64)
    top = wide.max(axis=1, keepdims=True) if N else np.zeros((0, 1))
    p = np.exp(wide - top)
    log_sum = np.log(p.sum(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    target = smoothing / classes + (1 - smoothing) * np.eye(classes)[labels.astype(int)]
    scale = (target * (np.abs(wide) + np.abs(top) + log_sum)).sum() / max(N, 1)
    kind = "float64" if scores.dtype == np.float64 else "float32"
    terms = scores.size
    assert_close(np.asarray(device.numpy(loss)), ref, scale=scale, dtype=kind, terms=terms, zero_mean=False)
    far = top - wide
    scale = (p * (1 + far + (p * far).sum(axis=1, keepdims=True)) + target) / max(N, 1)
    assert_close(device.numpy(dscores), dref, scale=scale, dtype=scores.dtype)


@pairs(shape=CASES, smoothing=[0.0, 0.1, 1.0], kind=["int64", "int32", "uint8"], device=DEVICES, dtype=DTYPES)
def test_softmax_matches_oracle(shape, smoothing, kind, device, dtype, rng):
    scores, labels = 3 * normal(rng, shape, dtype), rng.integers(0, shape[1], shape[0]).astype(kind)
    before = scores.copy(), labels.copy()
    _check_softmax(device, scores, labels, smoothing)
    assert_same(scores, before[0])
    assert_same(labels, before[1])


@pytest.mark.parametrize("size", [1e-3, 10, 1e3, 6e4])
def test_softmax_of_large_and_small_scores(size, device, dtype, rng):
    """exp(score) itself would overflow from 11 (float16), 89 (float32) or 710 (float64) on."""
    scores = (size * rng.uniform(-1, 1, (20, 10))).astype(dtype)
    _check_softmax(device, scores, rng.integers(0, 10, 20))


WEIGHTED = {
    "weights": {"class_weights": True},
    "weights_smoothed": {"class_weights": True, "label_smoothing": 0.2},
    "ignored": {"ignore": 1},
    "ignored_beyond_the_classes": {"ignore": -100},
    "everything": {"class_weights": True, "ignore": 2, "label_smoothing": 0.1},
    "nothing": {},
}


@pairs(
    shape={name: case for name, case in CASES.items() if name != "one_of_each"},
    options=WEIGHTED,
    reduction=["mean", "sum", "none"],
    kind=["int64", "int32", "uint8"],
    device=DEVICES,
    dtype=DTYPES,
    together=[("options", "reduction")],
)
def test_softmax_of_weights_and_ignored_rows_matches_oracle(shape, options, reduction, kind, device, dtype, rng):
    """As many units as of plain rows: each term of the target has a weight, and so has its scale."""
    N, classes = shape
    ignore = options.get("ignore")
    if kind == "uint8" and ignore is not None:
        ignore = abs(ignore)
    scores, labels = 3 * normal(rng, (N, classes), dtype), rng.integers(0, classes, N).astype(kind)
    if ignore is not None:
        labels[::3] = ignore
    weights = rng.uniform(0, 2, classes).astype(dtype) if "class_weights" in options else None
    how = {"label_smoothing": options.get("label_smoothing", 0.0), "ignore": ignore, "reduction": reduction}
    loss, dscores = gpuconv.softmax_cross_entropy(
        device.array(scores),
        device.array(labels),
        **how,
        class_weights=None if weights is None else device.array(weights),
    )
    ref, dref = naive.softmax_cross_entropy(scores, labels, **how, class_weights=weights)
    size = 4 * (np.abs(scores.astype(np.float64)).max(initial=1) + np.log(classes))
    each, _ = naive.softmax_cross_entropy(scores, labels, **how | {"reduction": "sum"}, class_weights=weights)
    total = float(each) / float(ref) if reduction == "mean" and ref else 1.0
    heavy = 2 * max(1.0, 0.0 if weights is None else float(weights.astype(np.float64).max()))
    scale = heavy * size * (1 if reduction == "none" else N) / total
    kind = "float64" if dtype == "float64" else "float32"
    assert_close(
        np.asarray(device.numpy(loss)),
        ref,
        scale=np.full(ref.shape, scale),
        dtype=kind,
        terms=N * classes,
        zero_mean=False,
    )
    assert_close(device.numpy(dscores), dref, scale=np.full(dref.shape, heavy * size / total), dtype=dtype)
    if ignore is not None:
        assert not device.numpy(dscores)[labels == ignore].any()


def test_an_ignored_row_may_hold_anything(device, dtype):
    scores = np.array([[np.nan, np.inf, 1.0], [0.0, 0.0, 0.0]], dtype)
    loss, dscores = gpuconv.softmax_cross_entropy(device.array(scores), device.array(np.array([-1, 2])), ignore=-1)
    np.testing.assert_allclose(float(device.numpy(loss)), np.log(3), rtol=1e-6)
    assert not device.numpy(dscores)[0].any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_rows_that_are_all_ignored_have_no_loss(reduction, device, dtype):
    labels = device.array(np.array([7, 7]))
    loss, dscores = gpuconv.softmax_cross_entropy(
        device.array(np.ones((2, 3), dtype)), labels, ignore=7, reduction=reduction
    )
    assert not device.numpy(loss).any()
    assert not device.numpy(dscores).any()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_softmax_of_weights_and_ignored_rows_matches_pytorch(smoothing, reduction, rng):
    torch = pytest.importorskip("torch")
    scores, labels, weights = normal(rng, (50, 7)), rng.integers(0, 7, 50), rng.uniform(0, 2, 7)
    labels[::4] = -100
    tensor = torch.from_numpy(scores).requires_grad_()
    how = {"label_smoothing": smoothing, "reduction": reduction}
    theirs = torch.nn.functional.cross_entropy(
        tensor, torch.from_numpy(labels), weight=torch.from_numpy(weights), ignore_index=-100, **how
    )
    theirs.sum().backward()
    loss, dscores = gpuconv.softmax_cross_entropy(scores, labels, class_weights=weights, ignore=-100, **how)
    np.testing.assert_allclose(loss, theirs.detach().numpy(), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(dscores, tensor.grad.numpy(), rtol=1e-13, atol=1e-15)


SIGMOID = {"one": (1,), "odd": (3, 7), "empty": (0, 4), "images": (2, 3, 5, 4), "more_than_one_run": (3, 700)}


@pairs(shape=SIGMOID, reduction=["mean", "sum", "none"], device=DEVICES, dtype=DTYPES)
def test_sigmoid_matches_oracle(shape, reduction, device, dtype, rng):
    """A loss is known to u of its terms, which are positive for targets of 0 and 1; a gradient to u of its two."""
    scores, targets = 5 * normal(rng, shape, dtype), rng.integers(0, 2, shape).astype(dtype)
    loss, dscores = gpuconv.sigmoid_cross_entropy(device.array(scores), device.array(targets), reduction=reduction)
    ref, dref = naive.sigmoid_cross_entropy(scores, targets, reduction=reduction)
    divisor = max(1, scores.size) if reduction == "mean" else 1
    sizes = np.maximum(scores.astype(np.float64), 0) + np.abs(scores.astype(np.float64) * targets) + 1
    scale = sizes if reduction == "none" else np.asarray(sizes.sum() / divisor)
    kind = "float64" if dtype == "float64" else "float32"
    assert_close(np.asarray(device.numpy(loss)), ref, scale=scale, dtype=kind, terms=scores.size, zero_mean=False)
    assert_close(device.numpy(dscores), dref, scale=np.full(dref.shape, 2 / divisor), dtype=dtype)


def test_sigmoid_keeps_the_memory_format(layout, device, rng):
    scores, targets = normal(rng, (2, 3, 4, 5)), rng.uniform(0, 1, (2, 3, 4, 5))
    expected = gpuconv.sigmoid_cross_entropy(device.array(scores), device.array(targets), reduction="none")
    view = layout(scores)
    for found, wanted in zip(
        gpuconv.sigmoid_cross_entropy(device.array(view), device.array(targets), reduction="none"),
        expected,
        strict=True,
    ):
        assert_same(device.numpy(found), device.numpy(wanted))


def test_sigmoid_of_large_scores_overflows_nothing(device, dtype):
    scores = np.array([60000, -60000, 60000, -60000, np.inf, np.nan], dtype)
    targets = np.array([1, 0, 0, 1, 1, 1], dtype)
    losses, dscores = gpuconv.sigmoid_cross_entropy(device.array(scores), device.array(targets), reduction="none")
    size = float(scores[0])
    assert_same(device.numpy(losses)[:4].astype(np.float64), np.array([0, 0, size, size]))
    assert_same(device.numpy(dscores)[:4], np.array([0, 0, 1, -1]).astype(dtype))
    assert np.isnan(device.numpy(losses)[4:]).all()


def test_softmax_of_equal_scores_is_the_logarithm_of_the_classes(device, dtype):
    for value in (0, 1, -1000, 60000):
        loss, dscores = gpuconv.softmax_cross_entropy(
            device.array(np.full((4, 8), value, dtype)), device.array(np.arange(4))
        )
        np.testing.assert_allclose(float(device.numpy(loss)), np.log(8), rtol=1e-6)
        assert_same(device.numpy(dscores), (np.full((4, 8), 1 / 8) - np.eye(8)[:4]) / 4, dtype=dtype)


def test_softmax_with_a_class_ruled_out(device, dtype):
    """A score of minus infinity has probability 0: no NaN, unless it is the label."""
    scores = np.array([[1.0, -np.inf, 1.0], [-np.inf, 0.0, -np.inf]], dtype)
    loss, dscores = gpuconv.softmax_cross_entropy(device.array(scores), device.array(np.array([0, 1])))
    np.testing.assert_allclose(float(device.numpy(loss)), np.log(2) / 2, rtol=1e-6)
    assert_same(device.numpy(dscores), np.array([[-0.25, 0, 0.25], [0, 0, 0]], dtype))
    loss, _ = gpuconv.softmax_cross_entropy(device.array(scores), device.array(np.array([1, 1])))
    assert float(device.numpy(loss)) == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_softmax_of_nan_and_infinity_is_nan(value, column, device, dtype):
    scores = np.zeros((2, 3), dtype)
    scores[0, column] = value
    loss, dscores = gpuconv.softmax_cross_entropy(device.array(scores), device.array(np.array([1, 2])))
    assert np.isnan(float(device.numpy(loss)))
    assert np.isnan(device.numpy(dscores)[0]).all()
    assert np.isfinite(device.numpy(dscores)[1]).all()


def _check_svm(device, scores, labels, margin=1.0):
    """A difference of scores is known to u (|a| + |b| + margin); the gradient is a count over N."""
    loss, dscores = gpuconv.svm_loss(device.array(scores), device.array(labels), margin=margin)
    ref, dref = naive.svm_loss(scores, labels, margin=margin)
    N, classes = scores.shape
    size = np.abs(scores.astype(np.float64))
    own = size[np.arange(N), labels][:, None]
    scale = (size + own + margin).sum() / max(N, 1)
    kind = "float64" if scores.dtype == np.float64 else "float32"
    terms = scores.size
    assert_close(np.asarray(device.numpy(loss)), ref, scale=scale, dtype=kind, terms=terms, zero_mean=False)
    assert_close(device.numpy(dscores), dref, scale=np.abs(dref), dtype=scores.dtype, terms=classes, zero_mean=False)


@pairs(shape=CASES, margin=[0.0, 1.0, 2.5], device=DEVICES, dtype=DTYPES)
def test_svm_matches_oracle(shape, margin, device, dtype, rng):
    """On quarters, so that the kinks are hit exactly too: there the gradient is 0."""
    scores = (whole(rng, shape, largest=8) / 4).astype(dtype)
    _check_svm(device, scores, rng.integers(0, shape[1], shape[0]), margin)


def test_svm_on_random_numbers(device, dtype, rng):
    # Away from the kinks: float16 numbers differ by far more than the rounding of their difference.
    _check_svm(device, normal(rng, (50, 10), dtype), rng.integers(0, 10, 50))


def test_svm_of_nan_is_nan(device, dtype):
    """A comparison with NaN is false: the loss must not drop it for that."""
    for column in range(3):
        scores = np.zeros((2, 3), dtype)
        scores[0, column] = np.nan
        loss, _ = gpuconv.svm_loss(device.array(scores), device.array(np.array([1, 2])))
        assert np.isnan(float(device.numpy(loss)))


@pytest.mark.parametrize("label", [-1, 3, 255, -(2**63)])
@pytest.mark.parametrize("loss", [gpuconv.softmax_cross_entropy, gpuconv.svm_loss])
def test_label_out_of_range_is_named(loss, label):
    """On the CPU always; a GPU looks in debug mode only."""
    with pytest.raises(ParamError, match=rf"label.*3 classes.*{label}|label {label}.*3 classes"):
        loss(np.zeros((2, 3)), np.array([0, label]))


def test_any_memory_layout(layout, device, rng):
    scores, labels = normal(rng, (6, 5)), rng.integers(0, 5, 6)
    plain = gpuconv.softmax_cross_entropy(device.array(scores), device.array(labels))
    strided = np.repeat(labels, 2)[::2]
    other = gpuconv.softmax_cross_entropy(device.array(layout(scores)), device.array(strided))
    assert float(device.numpy(plain[0])) == float(device.numpy(other[0]))
    assert_same(device.numpy(other[1]), device.numpy(plain[1]))
    _check_svm(device, layout(scores), strided)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.9]))
def test_softmax_gradients_of_a_row_sum_to_zero(device, N, classes, seed, smoothing):
    """As the probabilities sum to 1, and so does the target; rounding leaves a few u per class."""
    rng = np.random.default_rng(seed)
    scores, labels = normal(rng, (N, classes)), rng.integers(0, classes, N)
    _, dscores = gpuconv.softmax_cross_entropy(device.array(scores), device.array(labels), label_smoothing=smoothing)
    assert (np.abs(device.numpy(dscores).sum(axis=1)) <= 16 * classes * 2.0**-53 / N).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_matches_pytorch(smoothing, device, dtype, rng):
    torch = pytest.importorskip("torch")
    scores, labels = 3 * normal(rng, (200, 17), dtype), rng.integers(0, 17, 200)
    t = torch.from_numpy(scores.astype(np.float64)).requires_grad_()
    loss_t = torch.nn.functional.cross_entropy(t, torch.from_numpy(labels), label_smoothing=smoothing)
    (dscores_t,) = torch.autograd.grad(loss_t, t)
    loss, dscores = gpuconv.softmax_cross_entropy(device.array(scores), device.array(labels), label_smoothing=smoothing)
    kind = "float64" if dtype == "float64" else "float32"
    ref = loss_t.detach().numpy()
    assert_close(np.asarray(device.numpy(loss)), ref, scale=np.abs(scores.astype(float)).max() + ref, dtype=kind)
    distance = np.abs(scores.astype(float)).max() * 2
    scale = np.abs(dscores_t.numpy()) * (1 + 2 * distance) + 1 / 200
    assert_close(device.numpy(dscores), dscores_t.numpy(), scale=scale, dtype=dtype)


def test_svm_matches_pytorch(device, rng):
    """multi_margin_loss divides by the number of classes, we do not."""
    torch = pytest.importorskip("torch")
    scores, labels = normal(rng, (50, 10)), rng.integers(0, 10, 50)
    t = torch.from_numpy(scores).requires_grad_()
    loss_t = 10 * torch.nn.functional.multi_margin_loss(t, torch.from_numpy(labels))
    (dscores_t,) = torch.autograd.grad(loss_t, t)
    loss, dscores = gpuconv.svm_loss(device.array(scores), device.array(labels))
    np.testing.assert_allclose(float(device.numpy(loss)), float(loss_t.detach()), rtol=1e-13)
    np.testing.assert_allclose(device.numpy(dscores), dscores_t.numpy(), rtol=1e-13, atol=1e-17)
