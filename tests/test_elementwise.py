"""Operators of single elements, each as its row in operators.py says: oracle, PyTorch, memory layouts, threads.

What is special about one, its edges and its own numbers, stands in the test of its name.
"""

from unittest import mock

import numpy as np
import pytest
from compare import assert_close, assert_same, normal
from operators import OPERATORS
from pairs import DEVICES, DTYPES, pairs

from gpuconv import backend
from gpuconv.shapes import is_channels_last

WAYS = {
    " ".join([row.name, *way.split()]): (row, options)
    for row in OPERATORS.values()
    if row.elementwise
    for way, options in row.all_ways.items()
}
SHAPES = {
    "no_axis": (),
    "one_number": (1,),
    "empty_batch": (0, 3, 4, 4),
    "rows": (7, 11),
    "images": (2, 3, 5, 7),
    "five_axes": (2, 1, 3, 1, 4),
    "more_than_one_block": (3, 70_001),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def _drawn(way, rng, shape, dtype="float64"):
    """Return an x that meets what is special about the operator, and a dy."""
    x = np.asarray(way[0].elementwise.numbers(rng, shape)).astype(dtype)
    return x, np.asarray(normal(rng, shape)).astype(dtype)


def _results(way, device, x, dy):
    row, options = way
    y, cache = row.forward({"x": device.array(x)}, options)
    (dx,) = row.backward(device.array(dy), cache)
    return device.numpy(y), device.numpy(dx)


def _by_loops(way, x, dy):
    """Return y and dx of the oracle, in float64."""
    row, options = way
    with mock.patch.dict(backend._PACKAGE_OF, {"NumPy": "gpuconv.naive"}):
        y, cache = row.forward({"x": x.astype(np.float64)}, options)
        return y, *row.backward(dy.astype(np.float64), cache)


def _check(way, device, x, dy, expected=None):
    """Hold y and dx to the oracle, or to other results in float64: exactly, or to 8 units of their terms."""
    results, references = _results(way, device, x, dy), expected or _by_loops(way, x, dy)
    scales = way[0].elementwise.scales
    if scales is None:
        for actual, reference in zip(results, references, strict=True):
            assert_same(actual, reference, dtype=x.dtype)
        return results
    sizes = scales(*(np.abs(a.astype(np.float64)) for a in (x, dy)))
    for actual, reference, size in zip(results, references, sizes, strict=True):
        assert_close(actual, reference, scale=size, dtype=x.dtype)
    return results


@pairs(way=WAYS, shape=SHAPES, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(way, shape, device, dtype, rng):
    _check(way, device, *_drawn(way, rng, shape, dtype))


@each_way
def test_the_gradient_of_the_oracle_is_its_derivative(way, rng):
    """At numbers that are a quarter apart, none of them 0, so that no step meets a corner."""
    x, dy, step = (rng.permutation(20) - 9.5) / 4, normal(rng, (20,)), 1e-5
    (dx,) = _by_loops(way, x, dy)[1:]
    up, down = (_by_loops(way, x + change, dy)[0] for change in (step, -step))
    np.testing.assert_allclose(dx, dy * (up - down) / (2 * step), rtol=0, atol=1e-9 * np.abs(dx).max(initial=1e-300))


@each_way
def test_any_memory_layout(way, layout, device, rng):
    """y and dx are stored as x is, however dy is; x stays as it was."""
    x, dy = _drawn(way, rng, (2, 3, 4, 5))
    view = layout(x)
    for upstream in (dy, layout(dy)):
        y, dx = _check(way, device, view, upstream)
        assert is_channels_last(y) == is_channels_last(dx) == is_channels_last(view)
    assert_same(np.ascontiguousarray(view), x)


@each_way
def test_matches_pytorch(way, device, dtype, rng):
    torch = pytest.importorskip("torch")
    row, options = way
    if row.elementwise.torch is None:
        pytest.skip("PyTorch has no such function")
    x, dy = _drawn(way, rng, (64, 33), dtype)
    t = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    theirs = {row.elementwise.torch_options.get(name, name): value for name, value in options.items()}
    y = getattr(torch.nn.functional, row.elementwise.torch)(t, **theirs)
    (dx,) = torch.autograd.grad(y, t, torch.from_numpy(dy.astype(np.float64)))
    _check(way, device, x, dy, (y.detach().numpy(), dx.numpy()))


@each_way
def test_same_bits_for_any_number_of_threads(way, device, rng, monkeypatch):
    x, dy = _drawn(way, rng, (5, 70_001), "float32")
    runs = []
    for threads in ("1", "2", "3", "7"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        runs.append([result.tobytes() for result in _results(way, device, x, dy)])
    assert runs == runs[:1] * 4
