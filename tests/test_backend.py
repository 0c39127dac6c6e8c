"""Where arrays are made: where nets and data are created, or beside one that is there already; devices are played."""

from types import SimpleNamespace

import numpy as np
import pytest

from gpuconv import backend


class Placed(SimpleNamespace):
    """Stands in for an array on a GPU."""

    shape, dtype = (2, 3), np.dtype(np.float32)


class Played:
    """Stands in for a GPU: its arrays say where they are, and how they came there."""

    def __init__(self, name):
        self.name = name

    def zeros(self, shape, dtype):
        return (self.name, "zeros", shape, dtype)

    def asarray(self, host):
        return (self.name, "copy", host)

    def asnumpy(self, array):
        return (self.name, "on the host", array)


@pytest.fixture
def gpus(monkeypatch):
    """Play a GPU that nets and data are created on, and another one that has arrays."""
    played = SimpleNamespace(current=lambda: Played("current"), device_of=lambda array: Played("its"))
    monkeypatch.setattr(backend, "_gpu", lambda: played)
    monkeypatch.setattr(backend, "on_gpu", lambda array: isinstance(array, Placed))
    monkeypatch.setattr(backend, "default_device", lambda: "cuda")


@pytest.mark.usefixtures("gpus")
def test_arrays_are_made_beside_others_or_where_nets_are_created():
    assert backend.zeros((2,), "float32") == ("current", "zeros", (2,), "float32")
    assert backend.zeros((2,), "float32", beside=Placed()) == ("its", "zeros", (2,), "float32")
    assert backend.zeros_like(Placed()) == ("its", "zeros", (2, 3), np.dtype(np.float32))
    host = [1.0]
    assert backend.asarray(host) == ("current", "copy", host)
    assert backend.asarray(host, beside=Placed()) == ("its", "copy", host)
    placed = Placed()
    assert backend.asnumpy(placed) == ("its", "on the host", placed)


@pytest.mark.usefixtures("gpus")
def test_beside_an_array_on_the_host_they_stay_there():
    host = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(backend.zeros((2,), "float64", beside=host), np.zeros(2), strict=True)
    np.testing.assert_array_equal(backend.zeros_like(host), np.zeros((2, 3), np.float32), strict=True)
    assert backend.asarray(host, beside=host) is host
    assert backend.asnumpy(host) is host


def test_on_the_cpu_nothing_is_copied(monkeypatch):
    monkeypatch.setattr(backend, "default_device", lambda: "cpu")
    host = np.ones(3)
    assert backend.asarray(host) is host
    np.testing.assert_array_equal(backend.zeros((2,), "float32"), np.zeros(2, np.float32), strict=True)
