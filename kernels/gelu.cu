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
#include "pointwise.cuh"

__device__ __forceinline__ float gelu_erfc(float x) { return erfcf(x); }
__device__ __forceinline__ double gelu_erfc(double x) { return erfc(x); }
__device__ __forceinline__ float gelu_exp(float x) { return expf(x); }
__device__ __forceinline__ double gelu_exp(double x) { return exp(x); }
__device__ __forceinline__ float gelu_tanh(float x) { return tanhf(x); }
__device__ __forceinline__ double gelu_tanh(double x) { return tanh(x); }

// Phi(x), and with SLOPE also Phi(x) + x Phi'(x) in its place.
template <bool TANH, bool SLOPE, typename S>
__device__ __forceinline__ S gelu_factor(S x) {
  if (TANH) {
    const S scale = static_cast<S>(0.79788456080286535588), cubic = static_cast<S>(0.044715);  // sqrt(2 / pi)
    const S t = gelu_tanh(scale * (x + cubic * x * x * x)), phi = static_cast<S>(0.5) * (1 + t);
    // Far out t is 1: there x^2 may be infinite, and its product with 1 - t^2 would be NaN.
    if (!SLOPE || t * t == 1) return phi;
    return phi + static_cast<S>(0.5) * x * (1 - t * t) * (scale * (1 + 3 * cubic * x * x));
  }
  const S root = static_cast<S>(0.70710678118654752440), density = static_cast<S>(0.39894228040143267794);
  const S phi = static_cast<S>(0.5) * gelu_erfc(-x * root);
  return SLOPE ? phi + x * density * gelu_exp(static_cast<S>(-0.5) * x * x) : phi;
}

template <typename T, bool TANH>
__global__ void __launch_bounds__(256) gelu_forward(const T* __restrict__ x, T* __restrict__ y, long long total) {
  pointwise(x, y, total, [](T input) {
    const Sum<T> value = widen(input);
    return narrow<T>(value * gelu_factor<TANH, false>(value));
  });
}

// Without the bound of 4 blocks ptxas spills registers of float64 for a block more.
template <typename T, bool TANH>
__global__ void __launch_bounds__(256, 4)
gelu_backward(const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dx, long long total) {
  pointwise(dy, x, dx, total, [](T gradient, T input) {
    return narrow<T>(widen(gradient) * gelu_factor<TANH, true>(widen(input)));
  });
}
