// Shared by every kernel file: thread indices, the 16-bit storage types, the types that sums are kept in.
//
// Blocks have 256 threads.  __launch_bounds__(256, 4) grants a thread up to 64 registers: with 256 alone ptxas aims at
// more threads a multiprocessor, and some kernels then keep values in local memory, which is device memory.
#pragma once

#include "ptx.cuh"

// Index of this thread in a 1-D launch.  64 bits: arrays may have more than 2^31 elements.
__device__ __forceinline__ long long thread_index() {
  return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Number of threads in a 1-D launch: the step of a loop that lets each thread do several elements.
__device__ __forceinline__ long long thread_count() { return static_cast<long long>(gridDim.x) * blockDim.x; }

template <typename Integer>
__host__ __device__ constexpr Integer ceil_div(Integer a, Integer b) {
  return (a + b - 1) / b;
}

// float16 in memory.  It has no arithmetic: sums are kept in Accumulator<half16>::type.
struct half16 {
  unsigned short bits;
};

// bfloat16 in memory, the first half of a float32: no arithmetic either.
struct bfloat16 {
  unsigned short bits;
};

// Sums of T are kept in Accumulator<T>::type: float64 for float64, float32 for everything narrower.
template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <typename T>
using Sum = typename Accumulator<T>::type;

// A stored value as a number to calculate with, and back (rounding to nearest, ties to even).
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(half16 value) { return ptx::half_to_float(value.bits); }
__device__ __forceinline__ float widen(bfloat16 value) { return __int_as_float(static_cast<int>(value.bits) << 16); }

template <typename T>
__device__ __forceinline__ T narrow(Sum<T> value) {
  return static_cast<T>(value);
}
template <>
__device__ __forceinline__ half16 narrow<half16>(float value) {
  return half16{ptx::float_to_half(value)};
}
template <>
__device__ __forceinline__ bfloat16 narrow<bfloat16>(float value) {
  const unsigned bits = static_cast<unsigned>(__float_as_int(value));
  const unsigned rounded = bits + 0x7fff + (bits >> 16 & 1);  // half a unit more, less where that is a tie to even
  return bfloat16{static_cast<unsigned short>(value != value ? 0x7fff : rounded >> 16)};
}

__device__ __forceinline__ bool is_nan(float value) { return value != value; }
__device__ __forceinline__ bool is_nan(double value) { return value != value; }

// True if a value beats the winner of a maximum so far: it is greater, or the first NaN.
template <typename S>
__device__ __forceinline__ bool wins(S value, S best) {
  return !(value <= best) && !is_nan(best);
}

// a b + c, rounded once.  Left to itself a compiler may fuse in one instance of a kernel and not in another.
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }

// NVRTC has no INFINITY without a header.
template <typename S>
__device__ __forceinline__ S infinity() {
  return static_cast<S>(__int_as_float(0x7f800000));
}

// Sum of a value over a warp, and over a block of THREADS threads along x: in a fixed order, returned to every thread.
// Every thread of the block must call block_sum.
template <typename S>
__device__ __forceinline__ S warp_sum(S value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}
template <int THREADS, typename S>
__device__ __forceinline__ S block_sum(S value) {
  static_assert(THREADS % 32 == 0, "a block must be made of whole warps");
  __shared__ S warps[THREADS / 32];
  value = warp_sum(value);
  __syncthreads();  // the sums of an earlier call have been read
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
#pragma unroll
  for (int warp = 0; warp < THREADS / 32; ++warp) value += warps[warp];
  return value;
}

// One element of a batch of images, and its place in memory: (N, C, H, W) or, with CHANNELS_LAST, (N, H, W, C).
template <typename Index>
struct Pixel {
  Index n, c, h, w;
};
template <bool CHANNELS_LAST, typename Index>
__device__ __forceinline__ Pixel<Index> pixel_at(Index place, Index C, Index H, Index W) {
  Pixel<Index> at;
  if (CHANNELS_LAST) {
    at.c = place % C;
    place /= C;
  }
  at.w = place % W;
  place /= W;
  at.h = place % H;
  place /= H;
  if (!CHANNELS_LAST) {
    at.c = place % C;
    place /= C;
  }
  at.n = place;
  return at;
}
template <bool CHANNELS_LAST, typename Index>
__device__ __forceinline__ Index place_of(Index n, Index c, Index h, Index w, Index C, Index H, Index W) {
  return CHANNELS_LAST ? ((n * H + h) * W + w) * C + c : ((n * C + c) * H + h) * W + w;
}
