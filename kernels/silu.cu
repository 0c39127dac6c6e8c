// Sigmoid linear unit.
//
//   s(x) = 1 / (1 + exp(-x))          forward    y = x s(x)          backward   dx = dy (s + x s (1 - s))
//
// Of exp(-|x|), which never overflows, are made both s(x) and 1 - s(x) = s(-x), each with all its digits.
// Any shape, without gaps; all arrays of a call in one order of elements.
//
//   kernel          | one thread per
//   silu_forward    | pack of 16 bytes after pack
//   silu_backward   | pack of 16 bytes after pack
//
// Source: Elfwing, Uchibe and Doya, Sigmoid-weighted linear units, arXiv 1702.03118.
// Launchers: gpuconv/cuda/silu.py.
#include "pointwise.cuh"

__device__ __forceinline__ float silu_exp(float x) { return expf(x); }
__device__ __forceinline__ double silu_exp(double x) { return exp(x); }

template <typename T>
__global__ void __launch_bounds__(256) silu_forward(const T* __restrict__ x, T* __restrict__ y, long long total) {
  pointwise(x, y, total, [](T input) {
    const Sum<T> value = widen(input), small = silu_exp(value < 0 ? value : -value);
    return narrow<T>(value * ((value < 0 ? small : Sum<T>(1)) / (1 + small)));
  });
}

template <typename T>
__global__ void __launch_bounds__(256)
silu_backward(const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dx, long long total) {
  pointwise(dy, x, dx, total, [](T gradient, T input) {
    const Sum<T> value = widen(input), small = silu_exp(value < 0 ? value : -value);
    const Sum<T> share = 1 / (1 + small), rest = small / (1 + small), likely = value < 0 ? rest : share;
    return narrow<T>(widen(gradient) * (likely + value * (share * rest)));
  });
}
