// Tensor cores, compute capability 8.0 and later: chunks of numbers, products of the fragments that ldmatrix brings.
//
// float32 on them is TF32, whose numbers have 11 bits: they take no notice of the last 13 of a register.  One product
// rounds its factors.  Three keep float32: a = a1 + a2 of 11 bits each and a sign, up to 2^-23 of a, and a b = a1 b1 +
// a1 b2 + a2 b1 up to 2^-22 for the product that is left out, 2^-21 of a b in all at most and mostly far less.
//
// What is infinite or very large becomes NaN on the way: results that are not finite must be computed again by their
// formula, so that they are what IEEE says.
#pragma once

#include "pack.cuh"

// Numbers in 16 bytes: what cp.async copies, and a row of ldmatrix holds.
template <typename T>
constexpr int CHUNK_OF = 16 / static_cast<int>(sizeof(T));

// sum += a b, over two chunks: 16 x 8 sums of a warp.
template <typename T>
__device__ __forceinline__ void add_product(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
template <>
__device__ __forceinline__ void add_product<half16>(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  ptx::mma_m16n8k16_f16(sum, a, b, sum);
}
template <>
__device__ __forceinline__ void add_product<bfloat16>(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  ptx::mma_m16n8k16_bf16(sum, a, b, sum);
}
template <>
__device__ __forceinline__ void add_product<float>(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  ptx::mma_m16n8k8_tf32(sum, a, b, sum);
}

// A number rounded to nearest to 11 bits: those that 8193 of it, rounded to 24, has more than 8192 of it.  NaN where it is
// infinite, NaN or beyond 2^114.
__device__ __forceinline__ float rounded_to_tf32(float value) {
  return multiply_add(-8192.0f, value, multiply_add(8192.0f, value, value));
}
template <int N>
__device__ __forceinline__ void round_to_tf32(unsigned (&numbers)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) numbers[i] = __float_as_uint(rounded_to_tf32(__uint_as_float(numbers[i])));
}

// Leave the numbers rounded to 11 bits in `high`; return what they lack in `low`, of which tensor cores see 11 bits.
template <int N>
__device__ __forceinline__ void split(unsigned (&high)[N], unsigned (&low)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float value = __uint_as_float(high[i]), rounded = rounded_to_tf32(value);
    high[i] = __float_as_uint(rounded);
    low[i] = __float_as_uint(value - rounded);
  }
}

// sum += a b of float32, over two chunks: PRODUCTS 1, of factors rounded to TF32, or 3.
template <int PRODUCTS, int DOWN, int ACROSS>
__device__ __forceinline__ void add_float_products(float (&sum)[DOWN][ACROSS][4], unsigned (&a)[DOWN][4],
                                                   unsigned (&b)[ACROSS][2]) {
  if constexpr (PRODUCTS == 3) {
    unsigned a_low[DOWN][4], b_low[ACROSS][2];
#pragma unroll
    for (int i = 0; i < DOWN; ++i) split(a[i], a_low[i]);
#pragma unroll
    for (int j = 0; j < ACROSS; ++j) split(b[j], b_low[j]);
#pragma unroll
    for (int i = 0; i < DOWN; ++i)
#pragma unroll
      for (int j = 0; j < ACROSS; ++j) add_product<float>(sum[i][j], a_low[i], b[j]);  // small ones first
#pragma unroll
    for (int i = 0; i < DOWN; ++i)
#pragma unroll
      for (int j = 0; j < ACROSS; ++j) add_product<float>(sum[i][j], a[i], b_low[j]);
  } else {
#pragma unroll
    for (int i = 0; i < DOWN; ++i) round_to_tf32(a[i]);
#pragma unroll
    for (int j = 0; j < ACROSS; ++j) round_to_tf32(b[j]);
  }
#pragma unroll
  for (int i = 0; i < DOWN; ++i)
#pragma unroll
    for (int j = 0; j < ACROSS; ++j) add_product<float>(sum[i][j], a[i], b[j]);
}

// total += sum, rounded to nearest, and sum = 0: what tensor cores cut off does not grow with the length of a sum.
template <int DOWN, int ACROSS>
__device__ __forceinline__ void add_to_total(float (&total)[DOWN][ACROSS][4], float (&sum)[DOWN][ACROSS][4]) {
#pragma unroll
  for (int i = 0; i < DOWN; ++i)
#pragma unroll
    for (int j = 0; j < ACROSS; ++j)
#pragma unroll
      for (int v = 0; v < 4; ++v) total[i][j][v] += sum[i][j][v], sum[i][j][v] = 0;
}
