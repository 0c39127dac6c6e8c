// CUDA's keywords, vector types and built-in variables.
#pragma once

#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __constant__
// Legal in a block (where it implies static), in templates, and after extern.  __constinit: no guard, no wrapper.
// All shared memory of a block is thus the thread-local block of its library.
#define __shared__ __constinit thread_local
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __cluster_dims__(...) _Pragma("GCC error \"thread-block clusters are not emulated\"")

// For functions whose accesses are not the kernel's.  noinline: sanitizer attributes do not survive inlining.
#define EMULATE_UNTRACED __attribute__((no_sanitize("thread"), noinline))

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;

#define EMULATE_VECTOR2(NAME, T)                     \
  struct alignas(2 * sizeof(T)) NAME##2 { T x, y; }; \
  static inline NAME##2 make_##NAME##2(T x, T y) { return NAME##2 {x, y}; }
#define EMULATE_VECTOR3(NAME, T) \
  struct NAME##3 { T x, y, z; }; \
  static inline NAME##3 make_##NAME##3(T x, T y, T z) { return NAME##3 {x, y, z}; }
#define EMULATE_VECTOR4(NAME, T)                                                     \
  struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) NAME##4 { T x, y, z, w; }; \
  static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return NAME##4 {x, y, z, w}; }
#define EMULATE_VECTORS(NAME, T) \
  EMULATE_VECTOR2(NAME, T)       \
  EMULATE_VECTOR3(NAME, T)       \
  EMULATE_VECTOR4(NAME, T)

EMULATE_VECTORS(char, signed char)
EMULATE_VECTORS(uchar, unsigned char)
EMULATE_VECTORS(short, short)
EMULATE_VECTORS(ushort, unsigned short)
EMULATE_VECTORS(int, int)
EMULATE_VECTORS(uint, unsigned)
EMULATE_VECTORS(longlong, long long)
EMULATE_VECTORS(ulonglong, unsigned long long)
EMULATE_VECTORS(float, float)
EMULATE_VECTORS(double, double)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static constexpr int warpSize = 32;
