// Shared by every kernel file: thread indices, the float16 storage type, the types that sums are kept in.
//
// Not yet run on a GPU.
#pragma once

#include "ptx.cuh"

// Index of this thread in a 1-D launch.  64 bits: arrays may have more than 2^31 elements.
__device__ __forceinline__ long long thread_index() {
  return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Number of threads in a 1-D launch: the step of a loop that lets each thread do several elements.
__device__ __forceinline__ long long thread_count() { return static_cast<long long>(gridDim.x) * blockDim.x; }

template <typename Integer>
__host__ __device__ constexpr Integer ceil_div(Integer a, Integer b) {
  return (a + b - 1) / b;
}

// float16 in memory.  It has no arithmetic: sums are kept in Accumulator<half16>::type.
struct half16 {
  unsigned short bits;
};

// Sums of T are kept in Accumulator<T>::type: float64 for float64, float32 for everything narrower.
template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <typename T>
using Sum = typename Accumulator<T>::type;

// A stored value as a number to calculate with, and back (rounding to nearest, ties to even).
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(half16 value) { return ptx::half_to_float(value.bits); }

template <typename T>
__device__ __forceinline__ T narrow(Sum<T> value) {
  return static_cast<T>(value);
}
template <>
__device__ __forceinline__ half16 narrow<half16>(float value) {
  return half16{ptx::float_to_half(value)};
}

__device__ __forceinline__ bool is_nan(float value) { return value != value; }
__device__ __forceinline__ bool is_nan(double value) { return value != value; }
