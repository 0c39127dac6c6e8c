"""A stand-in for CUDA's driver: cuTensorMapEncode* with the documented signatures, remembering what they are given."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

from ..build import compiler

_STAND_IN = r"""
#include <cstdint>
#include <cstring>
static int64_t seen_values[64];
static int count, refusals;
static void note(int64_t value) { seen_values[count++] = value; }
template <class T>
static void note_all(const T* values, int n) { for (int i = 0; i < n; i++) note(values[i]); }
static void begin(void* map, int type, uint32_t rank, void* address, const uint64_t* sizes, const uint64_t* strides) {
  count = 0;
  memset(map, 7, 128);
  note((int64_t)map % 64); note(type); note(rank); note((int64_t)address);
  note_all(sizes, rank);
  note_all(strides, rank - 1);
}
static void end(uint32_t rank, const uint32_t* steps, int interleave, int swizzle, int promotion, int fill) {
  note_all(steps, rank);
  note(interleave); note(swizzle); note(promotion); note(fill);
}
extern "C" const int64_t* seen() { return seen_values; }
extern "C" void refuse(int times) { refusals = times; }
extern "C" int cuTensorMapEncodeTiled(void* map, int type, uint32_t rank, void* address, const uint64_t* sizes,
    const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave, int swizzle, int promotion,
    int fill) {
  begin(map, type, rank, address, sizes, strides);
  note_all(box, rank);
  end(rank, steps, interleave, swizzle, promotion, fill);
  return refusals > 0 ? refusals--, 1 : 0;
}
extern "C" int cuTensorMapEncodeIm2col(void* map, int type, uint32_t rank, void* address, const uint64_t* sizes,
    const uint64_t* strides, const int* lower, const int* upper, uint32_t channels, uint32_t pixels,
    const uint32_t* steps, int interleave, int swizzle, int promotion, int fill) {
  begin(map, type, rank, address, sizes, strides);
  note_all(lower, rank - 2);
  note_all(upper, rank - 2);
  note(channels); note(pixels);
  end(rank, steps, interleave, swizzle, promotion, fill);
  return refusals > 0 ? refusals--, 1 : 0;
}
"""


def stand_in(folder: Path) -> Any:
    """Build it in a folder; return it loaded: seen() is what the last call was given, refuse(n) lets n calls fail."""
    (folder / "cuda.cpp").write_text(_STAND_IN, encoding="utf-8")
    subprocess.run([compiler(), "-shared", "-fPIC", "-o", folder / "cuda.so", folder / "cuda.cpp"], check=True)
    library = ctypes.CDLL(str(folder / "cuda.so"))
    library.seen.restype = ctypes.POINTER(ctypes.c_int64)
    return library
