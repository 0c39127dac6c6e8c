// Phi of the Gaussian error linear unit, x Phi(x), and its derivative; the formulas stand in gelu.cu.
#pragma once

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
