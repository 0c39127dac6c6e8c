"""Filters of a net as tensor cores read them: which are kept so, by how many launches they are filled, and to what."""

import numpy as np
import pytest
from compare import assert_same, whole

from gpuconv.cuda import turned

emulate = pytest.importorskip("emulate")

SHAPES = {  # (K, C / groups, R, S) -> whether they are kept channels-last
    (16, 8, 3, 3): True,
    (8, 24, 1, 1): True,
    (24, 16, 2, 5): True,
    (16, 3, 3, 3): False,
    (10, 16, 3, 3): False,
    (16, 16): False,
    (16, 16, 3, 3, 3): False,
    (0, 16, 3, 3): False,
}


def _flat(rng, monkeypatch, arch=80, dtype=np.float16):
    """Return a flat vector of arrays of these shapes, on the host and on a device, where they begin, and the device."""
    device, starts, end = emulate.EmulatedDevice("emulated", arch=arch), {}, 5
    monkeypatch.setattr(turned, "device_of", lambda array: device)
    for shape in SHAPES:
        starts[shape], end = end, end + int(np.prod(shape)) + 3
    flat = whole(rng, (end,), dtype)
    return flat, device.asarray(flat), {start: shape for shape, start in starts.items()}, device


def test_filters_of_whole_chunks_are_turned_by_one_launch(rng, monkeypatch):
    flat, on_device, shapes, device = _flat(rng, monkeypatch)
    copies = turned.turned(on_device, shapes)
    copies.fill()
    assert copies.filters.keys() == {start for start, shape in shapes.items() if SHAPES[shape]}
    for start, shape in shapes.items():
        if SHAPES[shape]:
            assert copies.filters[start].transpose(0, 2, 3, 1).flags.c_contiguous
            assert_same(device.asnumpy(copies.filters[start]), flat[start:][: np.prod(shape)].reshape(shape))
    assert [launch.kernel for launch in device.launches] == ["conv_turn_tensor<half16>"]
    assert copies.nbytes == sum(2 * int(np.prod(shape)) for shape, kept in SHAPES.items() if kept)


@pytest.mark.parametrize(("arch", "dtype"), [(75, np.float16), (90, np.float32)])
def test_what_no_tensor_core_reads_so_is_not_turned(arch, dtype, rng, monkeypatch):
    _, on_device, shapes, _ = _flat(rng, monkeypatch, arch, dtype)
    assert turned.turned(on_device, shapes) is None
