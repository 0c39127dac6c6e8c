// Numbers that a launch is given by value, or by their address where they change between replays of a recording, which
// holds everything else as it was.
//
// A kernel declares the two side by side, `const S* __restrict__ rate_at, S rate`, and reads scalar_of(rate_at, rate).
// Launchers pass both as *scalar(rate) of gpuconv/cuda/scalar.py.
#pragma once

template <typename S>
__device__ __forceinline__ S scalar_of(const S* at, S value) {
  return at ? *at : value;
}
