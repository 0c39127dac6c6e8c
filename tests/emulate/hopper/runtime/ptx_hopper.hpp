// Host functions of the wrappers in ptx_hopper.cuh: mbarriers, bulk copies (TMA), wgmma, named barriers of sm_90a.
// What they do is in the other files of this folder.
#pragma once
#include "ptx.hpp"

namespace emulate {

struct Wgmma {
  float* accumulators;
  const unsigned* a_registers;  // null: A lies in shared memory
  uint64_t a, b;                // descriptors
  int n, scale_d;
  enum Type : uint8_t { BF16, F16, TF32 } type;
  bool transpose_a, transpose_b, negate_a, negate_b;
};

void hopper_enable();
void mbarrier_init(void* barrier, unsigned arrivals);
void mbarrier_inval(void* barrier);
void mbarrier_arrive(void* barrier, unsigned arrivals, long long bytes);
void mbarrier_expect(void* barrier, long long bytes);
bool mbarrier_wait(void* barrier, unsigned parity, bool blocking);
void fence_mbarrier_init();
void fence_async_proxy();
bool elect_one();
void named_barrier(unsigned id, unsigned threads, bool wait);
void tensor_load(void* target, const void* map, void* barrier, std::initializer_list<int> coordinates);
void tensor_load_im2col(void* target, const void* map, void* barrier, std::initializer_list<int> coordinates,
                        std::initializer_list<int> offsets);
void tensor_store(const void* map, const void* origin, std::initializer_list<int> coordinates);
void bulk_load(void* target, const void* origin, unsigned bytes, void* barrier);
void bulk_store(void* target, const void* origin, unsigned bytes);
void bulk_commit();
void bulk_wait(unsigned groups);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(unsigned groups);
void wgmma_hold(const float* accumulators);
void wgmma(const Wgmma& operation, const void* pc);

__attribute__((constructor)) static void enable_hopper() { hopper_enable(); }

}  // namespace emulate

namespace ptx {

struct alignas(64) TensorMap {
  unsigned long long opaque[16];
};
enum Swizzle { swizzle_none = 0, swizzle_128 = 1, swizzle_64 = 2, swizzle_32 = 3 };

__forceinline__ unsigned smem_u32(const void* p) { return emulate::shared_address(p); }

// mbarriers, fences ---------------------------------------------------------------------------------------------------

__forceinline__ void mbarrier_init(void* barrier, unsigned count) { emulate::mbarrier_init(barrier, count); }
__forceinline__ void mbarrier_inval(void* barrier) { emulate::mbarrier_inval(barrier); }
__forceinline__ void mbarrier_arrive(void* barrier) { emulate::mbarrier_arrive(barrier, 1, 0); }
__forceinline__ void mbarrier_arrive_n(void* barrier, unsigned n) { emulate::mbarrier_arrive(barrier, n, 0); }
__forceinline__ void mbarrier_arrive_expect_tx(void* barrier, unsigned bytes) {
  emulate::mbarrier_arrive(barrier, 1, bytes);
}
__forceinline__ void mbarrier_expect_tx(void* barrier, unsigned bytes) { emulate::mbarrier_expect(barrier, bytes); }
__forceinline__ bool mbarrier_try_wait(void* barrier, unsigned parity) {
  return emulate::mbarrier_wait(barrier, parity, true);
}
__forceinline__ bool mbarrier_test_wait(void* barrier, unsigned parity) {
  return emulate::mbarrier_wait(barrier, parity, false);
}
__forceinline__ void mbarrier_wait(void* barrier, unsigned parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}
__forceinline__ void fence_mbarrier_init() { emulate::fence_mbarrier_init(); }
__forceinline__ void fence_proxy_async() { emulate::fence_async_proxy(); }

// Warps with roles ----------------------------------------------------------------------------------------------------

__forceinline__ bool elect_one() { return emulate::elect_one(); }
__forceinline__ void named_barrier_sync(unsigned id, unsigned threads) { emulate::named_barrier(id, threads, true); }
__forceinline__ void named_barrier_arrive(unsigned id, unsigned threads) { emulate::named_barrier(id, threads, false); }
template <int N>
__forceinline__ void setmaxnreg_inc() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0, "24..256, a multiple of 8");
}
template <int N>
__forceinline__ void setmaxnreg_dec() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0, "24..256, a multiple of 8");
}
__forceinline__ unsigned pack_bf16(float low, float high) {
  return (unsigned)__nv_bfloat16(low).u | (unsigned)__nv_bfloat16(high).u << 16;
}

// Bulk copies ---------------------------------------------------------------------------------------------------------

__forceinline__ void tma_prefetch(const TensorMap*) {}
__forceinline__ void bulk_load(void* target, const void* origin, unsigned bytes, void* barrier) {
  emulate::bulk_load(target, origin, bytes, barrier);
}
__forceinline__ void bulk_store(void* target, const void* origin, unsigned bytes) {
  emulate::bulk_store(target, origin, bytes);
}
__forceinline__ void bulk_commit() { emulate::bulk_commit(); }
template <int N>
__forceinline__ void bulk_wait() {
  emulate::bulk_wait(N);
}
template <int N>
__forceinline__ void bulk_wait_read() {
  emulate::bulk_wait(N);
}

#define EMULATE_LIST(...) __VA_ARGS__
#define EMULATE_TMA(RANK, PARAMETERS, ...)                                                                 \
  __forceinline__ void tma_load_##RANK##d(void* target, const TensorMap* map, void* barrier, PARAMETERS) { \
    emulate::tensor_load(target, map, barrier, {__VA_ARGS__});                                             \
  }                                                                                                        \
  __forceinline__ void tma_store_##RANK##d(const TensorMap* map, const void* origin, PARAMETERS) {         \
    emulate::tensor_store(map, origin, {__VA_ARGS__});                                                     \
  }
EMULATE_TMA(1, EMULATE_LIST(int c0), c0)
EMULATE_TMA(2, EMULATE_LIST(int c0, int c1), c0, c1)
EMULATE_TMA(3, EMULATE_LIST(int c0, int c1, int c2), c0, c1, c2)
EMULATE_TMA(4, EMULATE_LIST(int c0, int c1, int c2, int c3), c0, c1, c2, c3)
EMULATE_TMA(5, EMULATE_LIST(int c0, int c1, int c2, int c3, int c4), c0, c1, c2, c3, c4)

__forceinline__ void tma_load_im2col_3d(void* target, const TensorMap* map, void* barrier, int c, int w, int n,
                                        unsigned short s) {
  emulate::tensor_load_im2col(target, map, barrier, {c, w, n}, {s});
}
__forceinline__ void tma_load_im2col_4d(void* target, const TensorMap* map, void* barrier, int c, int w, int h, int n,
                                        unsigned short s, unsigned short r) {
  emulate::tensor_load_im2col(target, map, barrier, {c, w, h, n}, {s, r});
}
__forceinline__ void tma_load_im2col_5d(void* target, const TensorMap* map, void* barrier, int c, int w, int h, int d,
                                        int n, unsigned short s, unsigned short r, unsigned short t) {
  emulate::tensor_load_im2col(target, map, barrier, {c, w, h, d, n}, {s, r, t});
}

// wgmma ---------------------------------------------------------------------------------------------------------------

__forceinline__ unsigned long long wgmma_desc(const void* smem, unsigned leading_bytes, unsigned stride_bytes,
                                              int swizzle, unsigned base_offset = 0) {
  const auto field = [](unsigned bytes) { return (unsigned long long)((bytes & 0x3ffff) >> 4); };
  return field(smem_u32(smem)) | field(leading_bytes) << 16 | field(stride_bytes) << 32 |
         (unsigned long long)(base_offset & 7) << 49 | (unsigned long long)swizzle << 62;
}

__forceinline__ void wgmma_fence() { emulate::wgmma_fence(); }
__forceinline__ void wgmma_commit() { emulate::wgmma_commit(); }
template <int N>
__forceinline__ void wgmma_wait() {
  static_assert(N >= 0 && N <= 7, "0..7");
  emulate::wgmma_wait(N);
}
template <int R>
__forceinline__ void wgmma_hold(float (&d)[R]) {
  emulate::wgmma_hold(d);
}
template <int N, int R>
__forceinline__ void wgmma_wait(float (&d)[R]) {
  wgmma_wait<N>();
  wgmma_hold(d);
}

constexpr bool wgmma_n_exists(int n) {
  return n == 8 || n == 16 || n == 32 || n == 64 || n == 96 || n == 128 || n == 192 || n == 256;
}

// A call of wgmma is not an access of the kernel, so its arguments are put together untraced.
template <emulate::Wgmma::Type type, int transpose_a, int transpose_b, int negate_a, int negate_b, int R>
EMULATE_UNTRACED inline void wgmma_issue(float (&d)[R], const unsigned* a_registers, uint64_t a, uint64_t b,
                                         int scale_d) {
  static_assert(wgmma_n_exists(2 * R), "no wgmma for this number of accumulators");
  const emulate::Wgmma operation{
      d, a_registers, a, b, 2 * R, scale_d, type, transpose_a != 0, transpose_b != 0, negate_a != 0, negate_b != 0};
  emulate::wgmma(operation, __builtin_return_address(0));
}

#define EMULATE_WGMMA_16BIT(NAME, TYPE)                                                                      \
  template <int TransA = 0, int TransB = 0, int NegA = 0, int NegB = 0, int R>                               \
  __forceinline__ void NAME(float (&d)[R], unsigned long long a, unsigned long long b, int scale_d) {        \
    wgmma_issue<emulate::Wgmma::TYPE, TransA, TransB, NegA, NegB>(d, nullptr, a, b, scale_d);                \
  }                                                                                                          \
  template <int TransB = 0, int NegA = 0, int NegB = 0, int R>                                               \
  __forceinline__ void NAME##_rs(float (&d)[R], const unsigned (&a)[4], unsigned long long b, int scale_d) { \
    wgmma_issue<emulate::Wgmma::TYPE, 0, TransB, NegA, NegB>(d, a, 0, b, scale_d);                           \
  }
EMULATE_WGMMA_16BIT(wgmma_m64k16_bf16, BF16)
EMULATE_WGMMA_16BIT(wgmma_m64k16_f16, F16)

template <int NegA = 0, int NegB = 0, int R>
__forceinline__ void wgmma_m64k8_tf32(float (&d)[R], unsigned long long a, unsigned long long b, int scale_d) {
  wgmma_issue<emulate::Wgmma::TF32, 0, 0, NegA, NegB>(d, nullptr, a, b, scale_d);
}
template <int NegA = 0, int NegB = 0, int R>
__forceinline__ void wgmma_m64k8_tf32_rs(float (&d)[R], const unsigned (&a)[4], unsigned long long b, int scale_d) {
  wgmma_issue<emulate::Wgmma::TF32, 0, 0, NegA, NegB>(d, a, 0, b, scale_d);
}

}  // namespace ptx
