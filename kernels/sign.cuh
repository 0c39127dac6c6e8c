// Signs of stored values, read from their bits: a comparison would take the smallest numbers for 0 where the compiler
// flushes them.
#pragma once

#include "common.cuh"

// +1 for a value above 0, 0 for NaN, -1 for the rest.
template <typename Bits>
__device__ __forceinline__ int sign_of(Bits bits, Bits infinity) {
  constexpr Bits SIGN = static_cast<Bits>(static_cast<Bits>(1) << (8 * sizeof(Bits) - 1));
  if (static_cast<Bits>(bits & ~SIGN) > infinity) return 0;
  return bits != 0 && !(bits & SIGN) ? 1 : -1;
}
__device__ __forceinline__ int sign_of(half16 value) {
  return sign_of(value.bits, static_cast<unsigned short>(0x7C00));
}
__device__ __forceinline__ int sign_of(bfloat16 value) {
  return sign_of(value.bits, static_cast<unsigned short>(0x7F80));
}
__device__ __forceinline__ int sign_of(float value) { return sign_of(__float_as_uint(value), 0x7F800000u); }
__device__ __forceinline__ int sign_of(double value) {
  return sign_of(static_cast<unsigned long long>(__double_as_longlong(value)), 0x7FF0000000000000ull);
}
