// Tensor cores, compute capability 8.0 and later: chunks of numbers, products of the fragments that ldmatrix brings.
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

// Leave the first 11 bits of each float in `high`, rounded to nearest, and return the 11 bits behind them in `low`.
//
// Tensor cores take no notice of the last 13 bits of a register: half a unit of what they see is added to `low` before.
// Infinities, and numbers beyond 2^114, leave NaN.  Source: T. J. Dekker, Numerische Mathematik 18 (1971).
template <int N>
__device__ __forceinline__ void split(unsigned (&high)[N], unsigned (&low)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float value = __uint_as_float(high[i]), first = multiply_add(value, -8192, __fmul_rn(value, 8193));
    high[i] = __float_as_uint(first);
    low[i] = __float_as_uint(value - first) + 0x1000u;
  }
}
