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
