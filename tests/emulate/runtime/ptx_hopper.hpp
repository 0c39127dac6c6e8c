// hopper.hpp -- host side of kernels/ptx_hopper.cuh: same names and signatures, executed by hopper_runtime.hpp.
#pragma once
namespace cu {
struct WgArgs {
  float* d;
  const unsigned* areg;
  uint64_t a, b;
  int n, scale_d;
  uint8_t ty, ta, tb, na, nb;
};
extern "C" {
void cu_hop_enable();
void cu_mb_init(void*, unsigned);
void cu_mb_inval(void*);
void cu_mb_arrive(void*, unsigned, long long, int);
int cu_mb_wait(void*, unsigned, int);
void cu_fence_proxy(int);
int cu_elect();
void cu_named_bar(unsigned, unsigned, int);
void cu_tma_load(void*, const void*, void*, int, const int*, int, const int*);
void cu_bulk_load(void*, const void*, unsigned, void*);
void cu_tma_store(const void*, const void*, int, const int*);
void cu_bulk_store(void*, const void*, unsigned);
void cu_bulk_commit();
void cu_bulk_wait(unsigned);
void cu_wg_fence();
void cu_wg_commit();
void cu_wg_wait(unsigned);
void cu_wg_hold(const float*);
void cu_wgmma(const WgArgs*);
}
__attribute__((constructor)) static void hop_enable_() { cu_hop_enable(); }
}  // namespace cu
#define __cluster_dims__(...) _Pragma("GCC error \"thread-block clusters are not emulated\"")
namespace ptx {
struct alignas(64) TensorMap {
  unsigned long long opaque[16];
};
enum Swizzle { swizzle_none = 0, swizzle_128 = 1, swizzle_64 = 2, swizzle_32 = 3 };
#define CU_F __forceinline__
CU_F unsigned smem_u32(const void* p) { return cu::cu_smem_addr(p); }
CU_F unsigned long long wgmma_desc(const void* smem, unsigned leading_bytes, unsigned stride_bytes, int swizzle,
                                   unsigned base_offset = 0) {
  return ((unsigned long long)(cu::cu_smem_addr(smem) & 0x3ffff) >> 4) |
         (unsigned long long)((leading_bytes & 0x3ffff) >> 4) << 16 |
         (unsigned long long)((stride_bytes & 0x3ffff) >> 4) << 32 | (unsigned long long)(base_offset & 7) << 49 |
         (unsigned long long)swizzle << 62;
}
CU_F void mbarrier_init(void* b, unsigned n) { cu::cu_mb_init(b, n); }
CU_F void mbarrier_inval(void* b) { cu::cu_mb_inval(b); }
CU_F void mbarrier_arrive(void* b) { cu::cu_mb_arrive(b, 1, 0, 1); }
CU_F void mbarrier_arrive_n(void* b, unsigned n) { cu::cu_mb_arrive(b, n, 0, 1); }
CU_F void mbarrier_arrive_expect_tx(void* b, unsigned bytes) { cu::cu_mb_arrive(b, 1, bytes, 1); }
CU_F void mbarrier_expect_tx(void* b, unsigned bytes) { cu::cu_mb_arrive(b, 0, bytes, 0); }
CU_F bool mbarrier_try_wait(void* b, unsigned parity) { return cu::cu_mb_wait(b, parity, 1); }
CU_F bool mbarrier_test_wait(void* b, unsigned parity) { return cu::cu_mb_wait(b, parity, 0); }
CU_F void mbarrier_wait(void* b, unsigned parity) {
  while (!mbarrier_try_wait(b, parity)) {
  }
}
CU_F void fence_mbarrier_init() { cu::cu_fence_proxy(1); }
CU_F void fence_proxy_async() { cu::cu_fence_proxy(0); }
CU_F unsigned pack_bf16(float lo, float hi) {
  return (unsigned)__nv_bfloat16(lo).u | (unsigned)__nv_bfloat16(hi).u << 16;
}
CU_F bool elect_one() { return cu::cu_elect(); }
CU_F void named_barrier_sync(unsigned id, unsigned n) { cu::cu_named_bar(id, n, 1); }
CU_F void named_barrier_arrive(unsigned id, unsigned n) { cu::cu_named_bar(id, n, 0); }
template <int N>
CU_F void setmaxnreg_inc() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0, "24..256, a multiple of 8");
}
template <int N>
CU_F void setmaxnreg_dec() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0, "24..256, a multiple of 8");
}
CU_F void tma_prefetch(const TensorMap*) {}
CU_F void bulk_load(void* dst, const void* src, unsigned bytes, void* bar) { cu::cu_bulk_load(dst, src, bytes, bar); }
CU_F void bulk_store(void* dst, const void* src, unsigned bytes) { cu::cu_bulk_store(dst, src, bytes); }
CU_F void bulk_commit() { cu::cu_bulk_commit(); }
template <int N>
CU_F void bulk_wait() {
  cu::cu_bulk_wait(N);
}
template <int N>
CU_F void bulk_wait_read() {
  cu::cu_bulk_wait(N);
}
CU_NOTSAN inline void coords_(int* to, std::initializer_list<int> c) {
  int i = 0;
  for (int x : c) to[i++] = x;
}
#define CU_TMA(N, PAR, ...)                                                    \
  CU_F void tma_load_##N##d(void* dst, const TensorMap* map, void* bar, PAR) { \
    int c[5];                                                                  \
    coords_(c, {__VA_ARGS__});                                                 \
    cu::cu_tma_load(dst, map, bar, N, c, -1, nullptr);                         \
  }                                                                            \
  CU_F void tma_store_##N##d(const TensorMap* map, const void* src, PAR) {     \
    int c[5];                                                                  \
    coords_(c, {__VA_ARGS__});                                                 \
    cu::cu_tma_store(map, src, N, c);                                          \
  }
#define CU_C(...) __VA_ARGS__
CU_TMA(1, CU_C(int c0), c0)
CU_TMA(2, CU_C(int c0, int c1), c0, c1) CU_TMA(3, CU_C(int c0, int c1, int c2), c0, c1, c2)
    CU_TMA(4, CU_C(int c0, int c1, int c2, int c3), c0, c1, c2, c3)
        CU_TMA(5, CU_C(int c0, int c1, int c2, int c3, int c4), c0, c1, c2, c3, c4) CU_F
    void tma_load_im2col_3d(void* dst, const TensorMap* map, void* bar, int c, int w, int n, unsigned short ow) {
  int x[5], o[3];
  coords_(x, {c, w, n});
  coords_(o, {ow});
  cu::cu_tma_load(dst, map, bar, 3, x, 1, o);
}
CU_F void tma_load_im2col_4d(void* dst, const TensorMap* map, void* bar, int c, int w, int h, int n, unsigned short ow,
                             unsigned short oh) {
  int x[5], o[3];
  coords_(x, {c, w, h, n});
  coords_(o, {ow, oh});
  cu::cu_tma_load(dst, map, bar, 4, x, 2, o);
}
CU_F void tma_load_im2col_5d(void* dst, const TensorMap* map, void* bar, int c, int w, int h, int d, int n,
                             unsigned short ow, unsigned short oh, unsigned short od) {
  int x[5], o[3];
  coords_(x, {c, w, h, d, n});
  coords_(o, {ow, oh, od});
  cu::cu_tma_load(dst, map, bar, 5, x, 3, o);
}
CU_F void wgmma_fence() { cu::cu_wg_fence(); }
CU_F void wgmma_commit() { cu::cu_wg_commit(); }
template <int N>
CU_F void wgmma_wait() {
  static_assert(N >= 0 && N <= 7, "0..7");
  cu::cu_wg_wait(N);
}
template <int R>
CU_F void wgmma_hold(float (&d)[R]) {
  cu::cu_wg_hold(d);
}
template <int N, int R>
CU_F void wgmma_wait(float (&d)[R]) {
  wgmma_wait<N>();
  wgmma_hold(d);
}
constexpr bool wgmma_n_ok(int n) {
  return n == 8 || n == 16 || n == 32 || n == 64 || n == 96 || n == 128 || n == 192 || n == 256;
}
CU_NOTSAN inline void wgmma_args_(cu::WgArgs& w, float* d, const unsigned* r, uint64_t a, uint64_t b, int n, int sd,
                                  int ty, int ta, int tb, int na, int nb) {
  w = {d, r, a, b, n, sd, (uint8_t)ty, (uint8_t)ta, (uint8_t)tb, (uint8_t)na, (uint8_t)nb};
}
#define CU_WG16(NAME, TY)                                                                         \
  template <int TransA = 0, int TransB = 0, int NegA = 0, int NegB = 0, int R>                    \
  CU_F void NAME(float (&d)[R], unsigned long long a, unsigned long long b, int scale_d) {        \
    static_assert(wgmma_n_ok(2 * R), "N");                                                        \
    cu::WgArgs w;                                                                                 \
    wgmma_args_(w, d, nullptr, a, b, 2 * R, scale_d, TY, TransA, TransB, NegA, NegB);             \
    cu::cu_wgmma(&w);                                                                             \
  }                                                                                               \
  template <int TransB = 0, int NegA = 0, int NegB = 0, int R>                                    \
  CU_F void NAME##_rs(float (&d)[R], const unsigned (&a)[4], unsigned long long b, int scale_d) { \
    static_assert(wgmma_n_ok(2 * R), "N");                                                        \
    cu::WgArgs w;                                                                                 \
    wgmma_args_(w, d, a, 0, b, 2 * R, scale_d, TY, 0, TransB, NegA, NegB);                        \
    cu::cu_wgmma(&w);                                                                             \
  }
CU_WG16(wgmma_m64k16_bf16, 0)
CU_WG16(wgmma_m64k16_f16, 1) template <int NegA = 0, int NegB = 0, int R>
CU_F void wgmma_m64k8_tf32(float (&d)[R], unsigned long long a, unsigned long long b, int scale_d) {
  static_assert(wgmma_n_ok(2 * R), "N");
  cu::WgArgs w;
  wgmma_args_(w, d, nullptr, a, b, 2 * R, scale_d, 2, 0, 0, NegA, NegB);
  cu::cu_wgmma(&w);
}
template <int NegA = 0, int NegB = 0, int R>
CU_F void wgmma_m64k8_tf32_rs(float (&d)[R], const unsigned (&a)[4], unsigned long long b, int scale_d) {
  static_assert(wgmma_n_ok(2 * R), "N");
  cu::WgArgs w;
  wgmma_args_(w, d, a, 0, b, 2 * R, scale_d, 2, 0, 0, NegA, NegB);
  cu::cu_wgmma(&w);
}
}  // namespace ptx
