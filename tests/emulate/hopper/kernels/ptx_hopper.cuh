// Hopper (sm_90a): mbarriers, bulk copies (TMA), wgmma, named barriers, each instruction as one named function.
#pragma once
#include "ptx.cuh"

namespace ptx {

// 128 bytes that tensor_map.py fills in; a kernel takes it as const __grid_constant__ TensorMap.
struct alignas(64) TensorMap {
  unsigned long long opaque[16];
};

// mbarriers, fences ---------------------------------------------------------------------------------------------------

__device__ __forceinline__ void mbarrier_init(void* barrier, unsigned count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_u32(barrier)), "r"(count) : "memory");
}
__device__ __forceinline__ void mbarrier_inval(void* barrier) {
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(smem_u32(barrier)) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(void* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_u32(barrier)) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_n(void* barrier, unsigned n) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(smem_u32(barrier)), "r"(n) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_expect_tx(void* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_u32(barrier)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void mbarrier_expect_tx(void* barrier, unsigned bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(smem_u32(barrier)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ bool mbarrier_try_wait(void* barrier, unsigned parity) {
  unsigned done;
  asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
               : "=r"(done)
               : "r"(smem_u32(barrier)), "r"(parity)
               : "memory");
  return done != 0;
}
__device__ __forceinline__ bool mbarrier_test_wait(void* barrier, unsigned parity) {
  unsigned done;
  asm volatile("{.reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
               : "=r"(done)
               : "r"(smem_u32(barrier)), "r"(parity)
               : "memory");
  return done != 0;
}
__device__ __forceinline__ void mbarrier_wait(void* barrier, unsigned parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Warps with roles ----------------------------------------------------------------------------------------------------

__device__ __forceinline__ bool elect_one() {
  unsigned elected;
  asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p;}" : "=r"(elected)::"memory");
  return elected != 0;
}
__device__ __forceinline__ void named_barrier_sync(unsigned id, unsigned threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(unsigned id, unsigned threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
template <int N>
__device__ __forceinline__ void setmaxnreg_inc() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0, "24..256, a multiple of 8");
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void setmaxnreg_dec() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0, "24..256, a multiple of 8");
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
// Two floats to bfloat16, to nearest even; low is the even column of a fragment.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// Bulk copies ---------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void tma_prefetch(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
__device__ __forceinline__ void bulk_load(void* target, const void* origin, unsigned bytes, void* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(smem_u32(target)),
      "l"(origin), "r"(bytes), "r"(smem_u32(barrier))
      : "memory");
}
__device__ __forceinline__ void bulk_store(void* target, const void* origin, unsigned bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(target), "r"(smem_u32(origin)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}
template <int N>
__device__ __forceinline__ void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

#define LIST(...) __VA_ARGS__
#define TMA(RANK, PARAMETERS, LOAD_COORDINATES, STORE_COORDINATES, ...)                                               \
  __device__ __forceinline__ void tma_load_##RANK##d(void* target, const TensorMap* map, void* barrier, PARAMETERS) { \
    asm volatile("cp.async.bulk.tensor." #RANK                                                                        \
                 "d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {" LOAD_COORDINATES           \
                 "}], [%2];" ::"r"(smem_u32(target)),                                                                 \
                 "l"(map), "r"(smem_u32(barrier)), __VA_ARGS__                                                        \
                 : "memory");                                                                                         \
  }                                                                                                                   \
  __device__ __forceinline__ void tma_store_##RANK##d(const TensorMap* map, const void* origin, PARAMETERS) {         \
    asm volatile("cp.async.bulk.tensor." #RANK "d.global.shared::cta.tile.bulk_group [%0, {" STORE_COORDINATES        \
                 "}], [%1];" ::"l"(map),                                                                              \
                 "r"(smem_u32(origin)), __VA_ARGS__                                                                   \
                 : "memory");                                                                                         \
  }
TMA(1, LIST(int c0), "%3", "%2", "r"(c0))
TMA(2, LIST(int c0, int c1), "%3, %4", "%2, %3", "r"(c0), "r"(c1))
TMA(3, LIST(int c0, int c1, int c2), "%3, %4, %5", "%2, %3, %4", "r"(c0), "r"(c1), "r"(c2))
TMA(4, LIST(int c0, int c1, int c2, int c3), "%3, %4, %5, %6", "%2, %3, %4, %5", "r"(c0), "r"(c1), "r"(c2), "r"(c3))
TMA(5, LIST(int c0, int c1, int c2, int c3, int c4), "%3, %4, %5, %6, %7", "%2, %3, %4, %5, %6", "r"(c0), "r"(c1),
    "r"(c2), "r"(c3), "r"(c4))
#undef TMA

// im2col: the coordinates (c, w, [h, [d,]] n) of the first filter corner; the filter's tap (s, [r, [t]]), dilated.
#define TMA_IM2COL(RANK, PARAMETERS, COORDINATES, OFFSETS, ...)                                                \
  __device__ __forceinline__ void tma_load_im2col_##RANK##d(void* target, const TensorMap* map, void* barrier, \
                                                            PARAMETERS) {                                      \
    asm volatile("cp.async.bulk.tensor." #RANK                                                                 \
                 "d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {" COORDINATES       \
                 "}], [%2], {" OFFSETS "};" ::"r"(smem_u32(target)),                                           \
                 "l"(map), "r"(smem_u32(barrier)), __VA_ARGS__                                                 \
                 : "memory");                                                                                  \
  }
TMA_IM2COL(3, LIST(int c, int w, int n, unsigned short s), "%3, %4, %5", "%6", "r"(c), "r"(w), "r"(n), "h"(s))
TMA_IM2COL(4, LIST(int c, int w, int h, int n, unsigned short s, unsigned short r), "%3, %4, %5, %6", "%7, %8", "r"(c),
           "r"(w), "r"(h), "r"(n), "h"(s), "h"(r))
TMA_IM2COL(5, LIST(int c, int w, int h, int d, int n, unsigned short s, unsigned short r, unsigned short t),
           "%3, %4, %5, %6, %7", "%8, %9, %10", "r"(c), "r"(w), "r"(h), "r"(d), "r"(n), "h"(s), "h"(r), "h"(t))
#undef TMA_IM2COL
#undef LIST

// wgmma: D[64 x N] (+)= A[64 x K] B[K x N] with N / 2 accumulators per thread; _rs: A in registers
// ---------------------

enum Swizzle { swizzle_none = 0, swizzle_128 = 1, swizzle_64 = 2, swizzle_32 = 3 };  // as a descriptor numbers them

// The descriptor of an operand: start, leading and stride byte offsets in units of 16 bytes, base offset, swizzle.
__device__ __forceinline__ unsigned long long wgmma_desc(const void* smem, unsigned leading_bytes,
                                                         unsigned stride_bytes, int swizzle, unsigned base_offset = 0) {
  return (unsigned long long)((smem_u32(smem) & 0x3ffff) >> 4) |
         (unsigned long long)((leading_bytes & 0x3ffff) >> 4) << 16 |
         (unsigned long long)((stride_bytes & 0x3ffff) >> 4) << 32 | (unsigned long long)(base_offset & 7) << 49 |
         (unsigned long long)swizzle << 62;
}
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// The compiler does not see that the wait makes d valid: pin d behind it before reading it.
template <int R>
__device__ __forceinline__ void wgmma_hold(float (&d)[R]) {
#pragma unroll
  for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int N, int R>
__device__ __forceinline__ void wgmma_wait(float (&d)[R]) {
  wgmma_wait<N>();
  wgmma_hold(d);
}

// Operand lists: the accumulators are operands %0 to %(R - 1).
#define REGISTERS_0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define REGISTERS_8 "%8, %9, %10, %11, %12, %13, %14, %15"
#define REGISTERS_16 "%16, %17, %18, %19, %20, %21, %22, %23"
#define REGISTERS_24 "%24, %25, %26, %27, %28, %29, %30, %31"
#define REGISTERS_32 "%32, %33, %34, %35, %36, %37, %38, %39"
#define REGISTERS_40 "%40, %41, %42, %43, %44, %45, %46, %47"
#define REGISTERS_48 "%48, %49, %50, %51, %52, %53, %54, %55"
#define REGISTERS_56 "%56, %57, %58, %59, %60, %61, %62, %63"
#define REGISTERS_64 "%64, %65, %66, %67, %68, %69, %70, %71"
#define REGISTERS_72 "%72, %73, %74, %75, %76, %77, %78, %79"
#define REGISTERS_80 "%80, %81, %82, %83, %84, %85, %86, %87"
#define REGISTERS_88 "%88, %89, %90, %91, %92, %93, %94, %95"
#define REGISTERS_96 "%96, %97, %98, %99, %100, %101, %102, %103"
#define REGISTERS_104 "%104, %105, %106, %107, %108, %109, %110, %111"
#define REGISTERS_112 "%112, %113, %114, %115, %116, %117, %118, %119"
#define REGISTERS_120 "%120, %121, %122, %123, %124, %125, %126, %127"
#define FORMAT_4 "%0, %1, %2, %3"
#define FORMAT_8 REGISTERS_0
#define FORMAT_16 REGISTERS_0 ", " REGISTERS_8
#define FORMAT_32 REGISTERS_0 ", " REGISTERS_8 ", " REGISTERS_16 ", " REGISTERS_24
#define FORMAT_48 REGISTERS_0 ", " REGISTERS_8 ", " REGISTERS_16 ", " REGISTERS_24 ", " REGISTERS_32 ", " REGISTERS_40
#define FORMAT_64                                                                                      \
  REGISTERS_0 ", " REGISTERS_8 ", " REGISTERS_16 ", " REGISTERS_24 ", " REGISTERS_32 ", " REGISTERS_40 \
              ", " REGISTERS_48 ", " REGISTERS_56
#define FORMAT_96                                                                                       \
  REGISTERS_0 ", " REGISTERS_8 ", " REGISTERS_16 ", " REGISTERS_24 ", " REGISTERS_32 ", " REGISTERS_40  \
              ", " REGISTERS_48 ", " REGISTERS_56 ", " REGISTERS_64 ", " REGISTERS_72 ", " REGISTERS_80 \
              ", " REGISTERS_88
#define FORMAT_128                                                                                      \
  REGISTERS_0 ", " REGISTERS_8 ", " REGISTERS_16 ", " REGISTERS_24 ", " REGISTERS_32 ", " REGISTERS_40  \
              ", " REGISTERS_48 ", " REGISTERS_56 ", " REGISTERS_64 ", " REGISTERS_72 ", " REGISTERS_80 \
              ", " REGISTERS_88 ", " REGISTERS_96 ", " REGISTERS_104 ", " REGISTERS_112 ", " REGISTERS_120
#define USE_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define USE_8(d, i) USE_4(d, i), USE_4(d, i + 4)
#define USE_16(d, i) USE_8(d, i), USE_8(d, i + 8)
#define USE_32(d, i) USE_16(d, i), USE_16(d, i + 16)
#define USE_48(d, i) USE_32(d, i), USE_16(d, i + 32)
#define USE_64(d, i) USE_32(d, i), USE_32(d, i + 32)
#define USE_96(d, i) USE_64(d, i), USE_32(d, i + 64)
#define USE_128(d, i) USE_64(d, i), USE_64(d, i + 64)
#define FOUR(P0, P1, P2, P3) "{" P0 ", " P1 ", " P2 ", " P3 "}"
#define SIGNS "n"(NegA ? -1 : 1), "n"(NegB ? -1 : 1)
#define A_REGISTERS "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
#define INSTRUCTION(N, K, TYPE, SCALE) \
  "{.reg .pred p; setp.ne.b32 p, " SCALE ", 0; wgmma.mma_async.sync.aligned.m64n" #N K ".f32." TYPE "." TYPE " "

// P0, P1, ... are the operands behind the R accumulators.
#define WGMMA_16BIT(NAME, TYPE, N, R, P0, P1, P2, P3, P4, P5, P6, P7, P8)                                             \
  template <int TransA = 0, int TransB = 0, int NegA = 0, int NegB = 0>                                               \
  __device__ __forceinline__ void NAME(float (&d)[R], unsigned long long a, unsigned long long b, int scale_d) {      \
    asm volatile(INSTRUCTION(N, "k16", TYPE, P2) "{" FORMAT_##R "}, " P0 ", " P1 ", p, " P3 ", " P4 ", " P5 ", " P6   \
                                                                ";}"                                                  \
                 : USE_##R(d, 0)                                                                                      \
                 : "l"(a), "l"(b), "r"(scale_d), SIGNS, "n"(TransA), "n"(TransB));                                    \
  }                                                                                                                   \
  template <int TransB = 0, int NegA = 0, int NegB = 0>                                                               \
  __device__ __forceinline__ void NAME##_rs(float (&d)[R], const unsigned (&a)[4], unsigned long long b,              \
                                            int scale_d) {                                                            \
    asm volatile(INSTRUCTION(N, "k16", TYPE, P5) "{" FORMAT_##R "}, " FOUR(P0, P1, P2, P3) ", " P4 ", p, " P6 ", " P7 \
                                                                                           ", " P8 ";}"               \
                 : USE_##R(d, 0)                                                                                      \
                 : A_REGISTERS, "l"(b), "r"(scale_d), SIGNS, "n"(TransB));                                            \
  }
#define WGMMA(N, R, P0, P1, P2, P3, P4, P5, P6, P7, P8)                                                                \
  WGMMA_16BIT(wgmma_m64k16_bf16, "bf16", N, R, P0, P1, P2, P3, P4, P5, P6, P7, P8)                                     \
  WGMMA_16BIT(wgmma_m64k16_f16, "f16", N, R, P0, P1, P2, P3, P4, P5, P6, P7, P8)                                       \
  template <int NegA = 0, int NegB = 0>                                                                                \
  __device__ __forceinline__ void wgmma_m64k8_tf32(float (&d)[R], unsigned long long a, unsigned long long b,          \
                                                   int scale_d) {                                                      \
    asm volatile(INSTRUCTION(N, "k8", "tf32", P2) "{" FORMAT_##R "}, " P0 ", " P1 ", p, " P3 ", " P4 ";}"              \
                 : USE_##R(d, 0)                                                                                       \
                 : "l"(a), "l"(b), "r"(scale_d), SIGNS);                                                               \
  }                                                                                                                    \
  template <int NegA = 0, int NegB = 0>                                                                                \
  __device__ __forceinline__ void wgmma_m64k8_tf32_rs(float (&d)[R], const unsigned (&a)[4], unsigned long long b,     \
                                                      int scale_d) {                                                   \
    asm volatile(INSTRUCTION(N, "k8", "tf32", P5) "{" FORMAT_##R "}, " FOUR(P0, P1, P2, P3) ", " P4 ", p, " P6 ", " P7 \
                                                                                            ";}"                       \
                 : USE_##R(d, 0)                                                                                       \
                 : A_REGISTERS, "l"(b), "r"(scale_d), SIGNS);                                                          \
  }
WGMMA(8, 4, "%4", "%5", "%6", "%7", "%8", "%9", "%10", "%11", "%12")
WGMMA(16, 8, "%8", "%9", "%10", "%11", "%12", "%13", "%14", "%15", "%16")
WGMMA(32, 16, "%16", "%17", "%18", "%19", "%20", "%21", "%22", "%23", "%24")
WGMMA(64, 32, "%32", "%33", "%34", "%35", "%36", "%37", "%38", "%39", "%40")
WGMMA(96, 48, "%48", "%49", "%50", "%51", "%52", "%53", "%54", "%55", "%56")
WGMMA(128, 64, "%64", "%65", "%66", "%67", "%68", "%69", "%70", "%71", "%72")
WGMMA(192, 96, "%96", "%97", "%98", "%99", "%100", "%101", "%102", "%103", "%104")
WGMMA(256, 128, "%128", "%129", "%130", "%131", "%132", "%133", "%134", "%135", "%136")

}  // namespace ptx
