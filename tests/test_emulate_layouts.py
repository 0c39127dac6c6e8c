"""Tensor-core fragments lie where two independent sources say: the PTX ISA's formulas and CUTLASS's layouts."""

import numpy as np
import pytest
from emulate import EmulatedDevice
from emulate.fragments import CUTLASS, INSTRUCTIONS, PTX_ISA, compiled, loaded, multiplied, offset_in

pytestmark = pytest.mark.compilers


@pytest.mark.parametrize("matrix", "ABC")
@pytest.mark.parametrize("shape", PTX_ISA)
def test_both_sources_agree(shape, matrix):
    count, position = PTX_ISA[shape][matrix]
    rows, shapes, strides = CUTLASS[shape][matrix]
    for lane in range(32):
        for i in range(count):
            index = offset_in(lane, shapes[0], strides[0]) + offset_in(i, shapes[1], strides[1])
            first, second = index % rows, index // rows
            assert position(lane, i) == ((second, first) if matrix == "B" else (first, second))


ROUTES = ["emulated", "emulated-check", "emulated-ptx", "emulated-ptx-check"]


@pytest.fixture(params=ROUTES, scope="module")
def kernels(request):
    device = EmulatedDevice(request.param)
    return device, compiled(device)


@pytest.mark.parametrize("kernel", INSTRUCTIONS)
def test_mma_multiplies_matrices_laid_out_so(kernels, kernel):
    got, (a, b, c) = multiplied(*kernels, kernel)
    np.testing.assert_allclose(got, a @ b + c, rtol=0, atol=2e-6)


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
def test_ldmatrix_gives_each_lane_its_pair(kernels, transposed):
    np.testing.assert_array_equal(*loaded(*kernels, transposed))
