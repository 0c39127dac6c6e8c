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
// Launchers: gpuconv/cuda/relu.py.
#include "pointwise.cuh"
#include "sign.cuh"

template <typename T>
__global__ void __launch_bounds__(256) relu_forward(const T* __restrict__ x, T* __restrict__ y, long long total) {
  pointwise(x, y, total, [](T value) { return sign_of(value) < 0 ? T{} : value; });
}

template <typename T>
__global__ void __launch_bounds__(256)
relu_backward(const T* __restrict__ dy, const T* __restrict__ y, T* __restrict__ dx, long long total) {
  pointwise(dy, y, dx, total, [](T gradient, T output) { return sign_of(output) <= 0 ? T{} : gradient; });
}
