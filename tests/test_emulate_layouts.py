"""Tensor-core fragments lie where two independent sources say: the PTX ISA's formulas and CUTLASS's layouts."""

import numpy as np
import pytest
from emulate import EmulatedDevice
from emulate.examples import bfloat16, from_bfloat16, text

pytestmark = pytest.mark.compilers

# Formulas of the PTX ISA ("Matrix Fragments for mma.m16n8k16", ".m16n8k8"): (row, column) of element i of lane l, with
# group g = l >> 2 and thread t = l % 4 of the group; and how many elements a lane holds.


def _lanes(place):
    return lambda lane, i: place(lane >> 2, lane % 4, i)


_C = (4, _lanes(lambda g, t, i: (g if i < 2 else g + 8, t * 2 + (i & 1))))
PTX_ISA = {
    "16x8x16_half": {
        "A": (8, _lanes(lambda g, t, i: (g if i < 2 or 4 <= i < 6 else g + 8, t * 2 + (i & 1) + (0 if i < 4 else 8)))),
        "B": (4, _lanes(lambda g, t, i: (t * 2 + (i & 1) + (0 if i < 2 else 8), g))),
        "C": _C,
    },
    "16x8x8_half": {
        "A": (4, _lanes(lambda g, t, i: (g if i < 2 else g + 8, t * 2 + (i & 1)))),
        "B": (2, _lanes(lambda g, t, i: (t * 2 + i, g))),
        "C": _C,
    },
    "16x8x8_tf32": {
        "A": (4, _lanes(lambda g, t, i: (g if i in (0, 2) else g + 8, t + (0 if i < 2 else 4)))),
        "B": (2, _lanes(lambda g, t, i: (t + 4 * i, g))),
        "C": _C,
    },
}

# CUTLASS's MMA_Traits: shapes and strides of (lane, element) -> index, column-major in A (M, K), B (N, K), C (M, N);
# with the number of rows of that matrix.
_CUTE_C = (16, ((4, 8), (2, 2)), ((32, 1), (16, 8)))
CUTLASS = {
    "16x8x16_half": {
        "A": (16, ((4, 8), (2, 2, 2)), ((32, 1), (16, 8, 128))),
        "B": (8, ((4, 8), (2, 2)), ((16, 1), (8, 64))),
        "C": _CUTE_C,
    },
    "16x8x8_half": {
        "A": (16, ((4, 8), (2, 2)), ((32, 1), (16, 8))),
        "B": (8, ((4, 8), (2,)), ((16, 1), (8,))),
        "C": _CUTE_C,
    },
    "16x8x8_tf32": {
        "A": (16, ((4, 8), (2, 2)), ((16, 1), (8, 64))),
        "B": (8, ((4, 8), (2,)), ((8, 1), (32,))),
        "C": _CUTE_C,
    },
}


def _offset(index, shape, stride):
    """Return what one mode of a CuTe layout maps an index to."""
    total = 0
    for size, step in zip(shape, stride, strict=True):
        total += index % size * step
        index //= size
    return total


@pytest.mark.parametrize("matrix", "ABC")
@pytest.mark.parametrize("shape", PTX_ISA)
def test_both_sources_agree(shape, matrix):
    count, place = PTX_ISA[shape][matrix]
    rows, shapes, strides = CUTLASS[shape][matrix]
    for lane in range(32):
        for i in range(count):
            index = _offset(lane, shapes[0], strides[0]) + _offset(i, shapes[1], strides[1])
            first, second = index % rows, index // rows
            assert place(lane, i) == ((second, first) if matrix == "B" else (first, second))


def _registers(matrix, layout):
    """Return the matrix as every lane's 32-bit registers."""
    count, place = layout
    values = [[matrix[place(lane, i)] for i in range(count)] for lane in range(32)]
    return np.array(values, matrix.dtype).view(np.uint32).reshape(32, -1)


def _matrix(registers, layout):
    count, place = layout
    matrix = np.empty((16, 8), registers.dtype)
    for lane in range(32):
        for i in range(count):
            matrix[place(lane, i)] = registers[lane, i]
    return matrix


def _half(values):
    return values.astype(np.float16), values.astype(np.float16).astype(float)


def _bfloat(values):
    bits = bfloat16(values)
    return bits, from_bfloat16(bits).astype(float)


def _tf32(values):
    """Return float32 values, and what the tensor cores see of them: they ignore the low 13 bits."""
    stored = values.astype(np.float32)
    return stored, (stored.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(float)


INSTRUCTIONS = {
    "mma_16x8x16_f16": ("16x8x16_half", 16, _half),
    "mma_16x8x16_bf16": ("16x8x16_half", 16, _bfloat),
    "mma_16x8x8_f16": ("16x8x8_half", 8, _half),
    "mma_16x8x8_tf32": ("16x8x8_tf32", 8, _tf32),
}

ROUTES = ["emulated", "emulated-check", "emulated-ptx", "emulated-ptx-check"]


@pytest.fixture(params=ROUTES, scope="module")
def kernels(request):
    device = EmulatedDevice(request.param)
    return device, device.compile(text("layouts.cu"), "layouts.cu", (*INSTRUCTIONS, "ldmatrix"), ())


@pytest.mark.parametrize("kernel", INSTRUCTIONS)
def test_mma_multiplies_matrices_laid_out_so(kernels, kernel):
    device, functions = kernels
    shape, k, stored = INSTRUCTIONS[kernel]
    rng = np.random.default_rng(1)
    layouts = PTX_ISA[shape]
    (a, seen_a), (b, seen_b) = stored(rng.standard_normal((16, k))), stored(rng.standard_normal((k, 8)))
    c = rng.standard_normal((16, 8)).astype(np.float32)
    registers = [_registers(a, layouts["A"]), _registers(b, layouts["B"]), _registers(c, layouts["C"]).view(np.float32)]
    d = device.empty((32, 4), np.float32)
    device.launch(functions[kernel], (1,), (32,), (*map(device.asarray, registers), d))
    np.testing.assert_allclose(_matrix(device.asnumpy(d), layouts["C"]), seen_a @ seen_b + c, rtol=0, atol=2e-6)


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
def test_ldmatrix_gives_each_lane_its_pair(kernels, transposed):
    device, functions = kernels
    rng = np.random.default_rng(2)
    matrix = rng.integers(0, 65536, (32, 8)).astype(np.uint16)
    rows = rng.permutation(32).astype(np.int32)  # rows need not be in order
    out = device.empty((32, 4), np.uint32)
    args = (device.asarray(matrix), device.asarray(rows), out, np.bool_(transposed))
    device.launch(functions["ldmatrix"], (1,), (32,), args)
    pairs = device.asnumpy(out).view(np.uint16).reshape(32, 4, 2)
    for m in range(4):
        loaded = matrix[rows[8 * m : 8 * m + 8]]
        loaded = loaded.T if transposed else loaded
        want = [loaded[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2] for lane in range(32)]
        np.testing.assert_array_equal(pairs[:, m], want)
