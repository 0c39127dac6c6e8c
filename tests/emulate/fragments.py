"""Fragments of mma and ldmatrix: where two independent sources say they lie, and kernels/layouts.cu held to that.

A device is an EmulatedDevice, or what looks like one.
"""

from __future__ import annotations

import numpy as np

from .examples import bfloat16, from_bfloat16, text

# Formulas of the PTX ISA ("Matrix Fragments for mma.m16n8k16", ".m16n8k8"): (row, column) of element i of lane l, with
# group g = l >> 2 and thread t = l % 4 of the group; and how many elements a lane holds.


def _lanes(position):
    return lambda lane, i: position(lane >> 2, lane % 4, i)


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


def offset_in(index, shape, stride):
    """Return what one mode of a CuTe layout maps an index to."""
    total = 0
    for size, step in zip(shape, stride, strict=True):
        total += index % size * step
        index //= size
    return total


def _registers(matrix, layout):
    """Return the matrix as every lane's 32-bit registers."""
    count, position = layout
    values = [[matrix[position(lane, i)] for i in range(count)] for lane in range(32)]
    return np.array(values, matrix.dtype).view(np.uint32).reshape(32, -1)


def _matrix(registers, layout):
    count, position = layout
    matrix = np.empty((16, 8), registers.dtype)
    for lane in range(32):
        for i in range(count):
            matrix[position(lane, i)] = registers[lane, i]
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


def compiled(device):
    """Return the kernels of layouts.cu by name."""
    return device.compile(text("layouts.cu"), "layouts.cu", (*INSTRUCTIONS, "ldmatrix"), ())


def multiplied(device, functions, kernel, draw=np.random.Generator.standard_normal):
    """Return a b + c of matrices whose every element was put where the layouts say, and (a, b, c).

    draw(rng, shape): their numbers
    """
    shape, k, stored = INSTRUCTIONS[kernel]
    rng = np.random.default_rng(1)
    layouts = PTX_ISA[shape]
    (a, seen_a), (b, seen_b) = stored(draw(rng, (16, k))), stored(draw(rng, (k, 8)))
    c = draw(rng, (16, 8)).astype(np.float32)
    registers = [_registers(a, layouts["A"]), _registers(b, layouts["B"]), _registers(c, layouts["C"]).view(np.float32)]
    d = device.empty((32, 4), np.float32)
    device.launch(functions[kernel], (1,), (32,), (*map(device.asarray, registers), d))
    return _matrix(device.asnumpy(d), layouts["C"]), (seen_a, seen_b, c)


def loaded(device, functions, transposed):
    """Return the pairs that ldmatrix gives each lane of four matrices, and those it must."""
    rng = np.random.default_rng(2)
    matrix = rng.integers(0, 65536, (32, 8)).astype(np.uint16)
    rows = rng.permutation(32).astype(np.int32)  # rows need not be in order
    out = device.empty((32, 4), np.uint32)
    args = (device.asarray(matrix), device.asarray(rows), out, np.bool_(transposed))
    device.launch(functions["ldmatrix"], (1,), (32,), args)
    pairs = device.asnumpy(out).view(np.uint16).reshape(32, 4, 2)
    want = np.empty_like(pairs)
    for m in range(4):
        of_matrix = matrix[rows[8 * m : 8 * m + 8]]
        of_matrix = of_matrix.T if transposed else of_matrix
        want[:, m] = [of_matrix[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2] for lane in range(32)]
    return pairs, want
