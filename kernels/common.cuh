// Shared by every kernel file: thread indices and the types that sums are kept in.
//
// Not yet run on a GPU: the CUDA backend is being built on this header.
#pragma once

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

// Sums of T are kept in Accumulator<T>::type: float64 for float64, float32 for everything narrower.
template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
