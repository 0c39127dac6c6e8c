// Rectified linear unit.
//
//   forward    y = max(x, 0), NaN stays NaN          backward   dx = dy where y > 0, else 0
//
// Any shape, without gaps; all arrays of a call in one order of elements.
//
//   kernel          | one thread per
//   relu_forward    | pack of 16 bytes after pack
//   relu_backward   | pack of 16 bytes after pack
//
// Signs are read from the bits: a comparison would take the smallest numbers for 0 where the compiler flushes them.
// Launchers: gpuconv/cuda/relu.py.
#include "pointwise.cuh"

// +1 for a value above 0, 0 for NaN, -1 for the rest.
template <typename Bits>
__device__ __forceinline__ int relu_sign(Bits bits, Bits infinity) {
  constexpr Bits SIGN = static_cast<Bits>(static_cast<Bits>(1) << (8 * sizeof(Bits) - 1));
  if (static_cast<Bits>(bits & ~SIGN) > infinity) return 0;
  return bits != 0 && !(bits & SIGN) ? 1 : -1;
}
__device__ __forceinline__ int relu_sign(half16 value) {
  return relu_sign(value.bits, static_cast<unsigned short>(0x7C00));
}
__device__ __forceinline__ int relu_sign(float value) { return relu_sign(__float_as_uint(value), 0x7F800000u); }
__device__ __forceinline__ int relu_sign(double value) {
  return relu_sign(static_cast<unsigned long long>(__double_as_longlong(value)), 0x7FF0000000000000ull);
}

template <typename T>
__global__ void __launch_bounds__(256) relu_forward(const T* __restrict__ x, T* __restrict__ y, long long total) {
  pointwise(x, y, total, [](T value) { return relu_sign(value) < 0 ? T{} : value; });
}

template <typename T>
__global__ void __launch_bounds__(256)
relu_backward(const T* __restrict__ dy, const T* __restrict__ y, T* __restrict__ dx, long long total) {
  pointwise(dy, y, dx, total, [](T gradient, T output) { return relu_sign(output) <= 0 ? T{} : gradient; });
}
