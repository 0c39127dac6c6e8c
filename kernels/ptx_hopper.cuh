// Hopper's own instructions (sm_90a), as ptx.cuh has those of all: mbarriers, bulk copies by tensor maps, wgmma.
//
// The emulator of the tests puts functions of the same names in the place of this file.
#pragma once

#include "ptx.cuh"

namespace ptx {

// What the driver encodes of an array and of boxes in it; a kernel takes it as const __grid_constant__ TensorMap.
struct alignas(64) TensorMap {
  unsigned long long opaque[16];
};

// mbarriers, 8 bytes of shared memory each: a phase ends with the last of `count` arrivals and of the bytes expected.
//
// The parity of a phase is that of its number; a new mbarrier is in phase 0, and the phase before it has ended.
__device__ __forceinline__ void mbarrier_init(void* barrier, unsigned count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(void* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_expect_tx(void* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Wait until the phase of this parity has ended.
__device__ __forceinline__ void mbarrier_wait(void* barrier, unsigned parity) {
  unsigned done;
  do {
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                 : "=r"(done)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
  } while (done == 0);
}

// True in one lane of a whole warp.
__device__ __forceinline__ bool elect_one() {
  unsigned elected;
  asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p;}" : "=r"(elected)::"memory");
  return elected != 0;
}

// Bulk copies to shared memory, zeros where there is no array; the bytes of the whole box count at the mbarrier.
//
// Coordinates are those of the box's first element, innermost first.
__device__ __forceinline__ void tma_prefetch(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
__device__ __forceinline__ void tma_load_2d(void* target, const TensorMap* map, void* barrier, int c0, int c1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(target)),
      "l"(map), "r"(shared_address(barrier)), "r"(c0), "r"(c1)
      : "memory");
}
__device__ __forceinline__ void tma_load_3d(void* target, const TensorMap* map, void* barrier, int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(shared_address(target)),
      "l"(map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
// Pixels of the map's bounding box from (w, h, n) on, each shifted by (s, r): what lies under a tap of the window.
__device__ __forceinline__ void tma_load_im2col_4d(void* target, const TensorMap* map, void* barrier, int c, int w, int h,
                                                   int n, unsigned short s, unsigned short r) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6}], [%2], {%7, %8};" ::"r"(shared_address(target)),
      "l"(map), "r"(shared_address(barrier)), "r"(c), "r"(w), "r"(h), "r"(n), "h"(s), "h"(r)
      : "memory");
}

// wgmma: D[64 x N] (+)= A[64 x 16] B[16 x N] by the 128 threads of a warpgroup, which hold N / 2 sums each.
//
// Register i of thread t: row 16 (t / 32) + t % 32 / 4 + 8 (i / 2 % 2), column 8 (i / 4) + 2 (t % 4) + i % 2.
enum Swizzle { swizzle_none = 0, swizzle_128 = 1, swizzle_64 = 2, swizzle_32 = 3 };  // as a descriptor numbers them

// The descriptor of an operand: start, leading and stride byte offsets in units of 16 bytes, swizzle.
__device__ __forceinline__ unsigned long long wgmma_desc(const void* operand, unsigned leading_bytes,
                                                         unsigned stride_bytes, int swizzle) {
  return static_cast<unsigned long long>((shared_address(operand) & 0x3ffff) >> 4) |
         static_cast<unsigned long long>((leading_bytes & 0x3ffff) >> 4) << 16 |
         static_cast<unsigned long long>((stride_bytes & 0x3ffff) >> 4) << 32 |
         static_cast<unsigned long long>(swizzle) << 62;
}
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Wait until at most the N latest groups are under way.
template <int N>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// The compiler does not see that the wait makes sums valid: they are read behind this.
template <int R>
__device__ __forceinline__ void wgmma_hold(float (&d)[R]) {
#pragma unroll
  for (int i = 0; i < R; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Operand lists: the sums are operands %0 to %(R - 1), behind them a, b and scale_d.
#define EIGHT_0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define EIGHT_8 "%8, %9, %10, %11, %12, %13, %14, %15"
#define EIGHT_16 "%16, %17, %18, %19, %20, %21, %22, %23"
#define EIGHT_24 "%24, %25, %26, %27, %28, %29, %30, %31"
#define EIGHT_32 "%32, %33, %34, %35, %36, %37, %38, %39"
#define EIGHT_40 "%40, %41, %42, %43, %44, %45, %46, %47"
#define EIGHT_48 "%48, %49, %50, %51, %52, %53, %54, %55"
#define EIGHT_56 "%56, %57, %58, %59, %60, %61, %62, %63"
#define EIGHT_64 "%64, %65, %66, %67, %68, %69, %70, %71"
#define EIGHT_72 "%72, %73, %74, %75, %76, %77, %78, %79"
#define EIGHT_80 "%80, %81, %82, %83, %84, %85, %86, %87"
#define EIGHT_88 "%88, %89, %90, %91, %92, %93, %94, %95"
#define EIGHT_96 "%96, %97, %98, %99, %100, %101, %102, %103"
#define EIGHT_104 "%104, %105, %106, %107, %108, %109, %110, %111"
#define EIGHT_112 "%112, %113, %114, %115, %116, %117, %118, %119"
#define EIGHT_120 "%120, %121, %122, %123, %124, %125, %126, %127"
#define SUMS_32 EIGHT_0 ", " EIGHT_8 ", " EIGHT_16 ", " EIGHT_24
#define SUMS_64 SUMS_32 ", " EIGHT_32 ", " EIGHT_40 ", " EIGHT_48 ", " EIGHT_56
#define SUMS_128                                                                                                     \
  SUMS_64 ", " EIGHT_64 ", " EIGHT_72 ", " EIGHT_80 ", " EIGHT_88 ", " EIGHT_96 ", " EIGHT_104 ", " EIGHT_112 ", " \
      EIGHT_120
#define USE_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define USE_16(d, i) USE_4(d, i), USE_4(d, i + 4), USE_4(d, i + 8), USE_4(d, i + 12)
#define USE_32(d, i) USE_16(d, i), USE_16(d, i + 16)
#define USE_64(d, i) USE_32(d, i), USE_32(d, i + 32)
#define USE_128(d, i) USE_64(d, i), USE_64(d, i + 64)

// TransA, TransB: the operand lies by columns (A), by rows (B): along its 64, or N, and not along the 16.
#define WGMMA(NAME, TYPE, N, R, A, B, SCALE, TRANS_A, TRANS_B)                                                        \
  template <int TransA = 0, int TransB = 0>                                                                           \
  __device__ __forceinline__ void NAME(float (&d)[R], unsigned long long a, unsigned long long b, int scale_d) {      \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " SCALE ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE   \
                 "." TYPE " {" SUMS_##R "}, " A ", " B ", p, 1, 1, " TRANS_A ", " TRANS_B ";}"                        \
                 : USE_##R(d, 0)                                                                                      \
                 : "l"(a), "l"(b), "r"(scale_d), "n"(TransA), "n"(TransB));                                           \
  }
#define WGMMA_OF_16_BITS(N, R, ...)                 \
  WGMMA(wgmma_m64k16_f16, "f16", N, R, __VA_ARGS__) \
  WGMMA(wgmma_m64k16_bf16, "bf16", N, R, __VA_ARGS__)
WGMMA_OF_16_BITS(64, 32, "%32", "%33", "%34", "%35", "%36")
WGMMA_OF_16_BITS(128, 64, "%64", "%65", "%66", "%67", "%68")
WGMMA_OF_16_BITS(256, 128, "%128", "%129", "%130", "%131", "%132")

}  // namespace ptx
