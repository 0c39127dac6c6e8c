// Gaussian error linear unit.
//
//   forward    y = x Phi(x)          backward   dx = dy (Phi(x) + x Phi'(x))
//   exact      Phi(x) = erfc(-x / sqrt 2) / 2: small relative error in the lower tail, too
//   tanh       Phi(x) = (1 + tanh u) / 2   with u = sqrt(2 / pi) (x + 0.044715 x^3)
//
// Any shape, without gaps; all arrays of a call in one order of elements.
//
//   kernel          | one thread per
//   gelu_forward    | pack of 16 bytes after pack
//   gelu_backward   | pack of 16 bytes after pack
//
// Source: Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.
// Launchers: gpuconv/cuda/gelu.py.
#include "gelu.cuh"
#include "pointwise.cuh"

template <typename T, bool TANH>
__global__ void __launch_bounds__(256) gelu_forward(const T* __restrict__ x, T* __restrict__ y, long long total) {
  pointwise(x, y, total, [](T input) {
    const Sum<T> value = widen(input);
    return narrow<T>(rounded_product(value, gelu_factor<TANH, false>(value)));
  });
}

// Without the bound of 4 blocks ptxas spills registers of float64 for a block more.
template <typename T, bool TANH>
__global__ void __launch_bounds__(256, 4)
gelu_backward(const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dx, long long total) {
  pointwise(dy, x, dx, total, [](T gradient, T input) {
    return narrow<T>(rounded_product(widen(gradient), gelu_factor<TANH, true>(widen(input))));
  });
}
