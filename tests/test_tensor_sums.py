"""Tensor cores cut sums off: the emulator does it bit for bit as the model, and the table of errors is the model's."""

import json

import numpy as np
import pytest
from emulate import EmulatedDevice
from emulate.fragments import INSTRUCTIONS, compiled, multiplied

from tests.ladder import tensor_sums
from tests.ladder.tensor_sums import CORES, DATA, REGIMES, added, share

RECORDED = tensor_sums.recorded()
A100 = CORES["A100"]
BLOCKS = {"f16": A100.of_16_bits, "bf16": A100.of_16_bits, "tf32": A100.of_tf32}


@pytest.fixture(params=["emulated", "emulated-ptx-check"], scope="module")
def kernels(request):
    device = EmulatedDevice(request.param)
    return device, compiled(device)


def _of_magnitudes(rng, shape):
    return rng.standard_normal(shape) * 2.0 ** rng.integers(-9, 9, shape)


@pytest.mark.compilers
@pytest.mark.parametrize("draw", [np.random.Generator.standard_normal, _of_magnitudes], ids=["normal", "magnitudes"])
@pytest.mark.parametrize("kernel", INSTRUCTIONS)
def test_the_emulator_cuts_off_what_the_model_cuts_off(kernels, kernel, draw):
    got, (a, b, c) = multiplied(*kernels, kernel, draw)
    block = BLOCKS[kernel.rpartition("_")[2]]
    want = c.ravel()
    products = np.einsum("mk,kn->mnk", a, b).reshape(want.size, -1)
    for k in range(0, products.shape[1], block):
        want = added(want, products[:, k : k + block], A100.further_bits)
    np.testing.assert_array_equal(got.ravel(), want)
    assert (got.ravel() != (c.ravel() + products.sum(1)).astype(np.float32)).mean() > 0.2


@pytest.mark.compilers
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("before", "after"), [(2.0**23, 2.0**23 + 8), (2.0**24, 2.0**24)])
def test_sixteen_halves_are_lost_beside_a_large_sum(kernels, before, after, sign):
    """Added exactly, 16 times 1/2 and 2**24 are 2**24 + 8, a float32; 24 bits behind the first one reach to 1."""
    device, functions = kernels
    ones, halves = np.full((32, 4), 0x3C003C00, np.uint32), np.full((32, 2), 0x38003800, np.uint32)
    halves |= np.uint32(0x80008000 if sign < 0 else 0)
    d, c = device.empty((32, 4), np.float32), np.full((32, 4), sign * before, np.float32)
    device.launch(functions["mma_16x8x16_f16"], (1,), (32,), (*map(device.asarray, (ones, halves, c)), d))
    np.testing.assert_array_equal(device.asnumpy(d), sign * after)


@pytest.mark.compilers
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_so(kernels, value):
    def draw(rng, shape):
        drawn = rng.standard_normal(shape)
        if shape != (16, 8):
            drawn[0, 0] = value
        return drawn

    got, (a, b, c) = multiplied(*kernels, "mma_16x8x16_f16", draw)
    with np.errstate(invalid="ignore"):
        want = (a @ b + c).astype(np.float32)
    changed = ~np.isfinite(want)
    np.testing.assert_array_equal(got[changed], want[changed])
    assert changed.any()
    assert np.isfinite(got[~changed]).all()


# The model -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "products", "sums"),
    [
        (1, [2.0**-24], {"A100": 1, "H100": 1}),
        (1, [2.0**-24, 2.0**-24], {"A100": 1 + 2.0**-23, "H100": 1 + 2.0**-23}),
        (1, [2.0**-25] * 4, {"A100": 1, "H100": 1 + 2.0**-23}),
        (1, [2.0**-26] * 8, {"A100": 1, "H100": 1}),
        (-1, [-(2.0**-24)], {"A100": -1, "H100": -1}),
        (1, [-(2.0**-24)], {"A100": 1 - 2.0**-24, "H100": 1 - 2.0**-24}),
        (0, [3, 5], {"A100": 8, "H100": 8}),
        (0, [0, 0], {"A100": 0, "H100": 0}),
    ],
)
def test_a_block_is_cut_off_at_the_bits_that_are_kept(total, products, sums):
    for name, cores in CORES.items():
        assert added(np.array([total], np.float32), np.array([products], float), cores.further_bits) == sums[name]


# The table -------------------------------------------------------------------------------------------------------------


def test_the_table_has_every_regime():
    assert list(RECORDED["shares"]) == list(REGIMES)
    assert RECORDED["terms"] == list(tensor_sums.TERMS)
    for of_cores in RECORDED["shares"].values():
        assert {name: tuple(of_data) for name, of_data in of_cores.items()} == dict.fromkeys(CORES, DATA)


@pytest.mark.parametrize("name", REGIMES)
def test_the_table_is_what_the_model_says(name):
    for cores, of_data in RECORDED["shares"][name].items():
        for data, shares in of_data.items():
            again = share(REGIMES[name], CORES[cores], tensor_sums.TERMS[0], data)
            assert shares[0] == round(again, 2), (cores, data)


def _largest(name):
    return max(max(shares) for of_data in RECORDED["shares"][name].values() for shares in of_data.values())


def test_long_runs_break_the_rule_and_short_ones_keep_it():
    for name in ("float16 to float32, one run", "float32 by three of TF32, one run"):
        assert _largest(name) > 1
    for name in ("float16 to float32, runs of 128", *(f"float32 by three of TF32, runs of {n}" for n in (8, 16, 32))):
        assert _largest(name) < 1


def test_the_table_is_written_as_it_is_read():
    assert json.loads(tensor_sums.dumped(RECORDED)) == RECORDED
