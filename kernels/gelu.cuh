// Phi of the Gaussian error linear unit, x Phi(x), and its derivative; the formulas stand in gelu.cu.
#pragma once

#include "common.cuh"

// Rounded once, whatever follows: left to itself a compiler takes a product and a sum behind it as one, in one kernel and
// not in another, and what GELU is alone it must be behind a batch norm, too.
__device__ __forceinline__ float rounded_product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double rounded_product(double a, double b) { return __dmul_rn(a, b); }

__device__ __forceinline__ float gelu_erfc(float x) { return erfcf(x); }
__device__ __forceinline__ double gelu_erfc(double x) { return erfc(x); }
__device__ __forceinline__ float gelu_exp(float x) { return expf(x); }
__device__ __forceinline__ double gelu_exp(double x) { return exp(x); }
__device__ __forceinline__ float gelu_tanh(float x) { return tanhf(x); }
__device__ __forceinline__ double gelu_tanh(double x) { return tanh(x); }

// Phi(x), and with SLOPE also Phi(x) + x Phi'(x) in its place.
template <bool TANH, bool SLOPE, typename S>
__device__ __forceinline__ S gelu_factor(S x) {
  const S half = static_cast<S>(0.5), square = rounded_product(x, x);
  if (TANH) {
    const S scale = static_cast<S>(0.79788456080286535588), cubic = static_cast<S>(0.044715);  // sqrt(2 / pi)
    const S t = gelu_tanh(rounded_product(scale, multiply_add(rounded_product(cubic, square), x, x)));
    const S phi = rounded_product(half, 1 + t);
    // Far out t is 1: there x^2 may be infinite, and its product with 1 - t^2 would be NaN.
    if (!SLOPE || t * t == 1) return phi;
    const S bend = multiply_add(-t, t, static_cast<S>(1));
    const S steep = rounded_product(scale, multiply_add(3 * cubic, square, static_cast<S>(1)));
    return multiply_add(rounded_product(rounded_product(half, x), bend), steep, phi);
  }
  const S root = static_cast<S>(0.70710678118654752440), density = static_cast<S>(0.39894228040143267794);
  const S phi = rounded_product(half, gelu_erfc(rounded_product(-x, root)));
  return SLOPE ? multiply_add(rounded_product(x, density), gelu_exp(rounded_product(-half, square)), phi) : phi;
}
