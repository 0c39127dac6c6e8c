// device.hpp -- lets an unmodified CUDA C++ kernel file be compiled by g++ and
// executed on the CPU, one fiber per CUDA thread.  Pre-included with -include.
// Companion: runtime.cpp (scheduler, checks), emu.py (build + launch).
#pragma once
#define CUDA_HOST_SHIM 1
#define CU_NOTSAN \
  __attribute__((no_sanitize("thread"), noinline)) /* noinline: sanitizer attributes do not survive inlining */
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>
#include <algorithm>

// ---------------------------------------------------------------- keywords
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __global__ __attribute__((cu_kernel)) __attribute__((noinline)) /* marker, found again by emu.py after g++ -E \
                                                                         */
#define __device__
#define __host__
#define __constant__
#define __shared__ \
  __constinit thread_local /* block scope: implies static; legal after extern; constinit: no guard, no wrapper */
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
// __noinline__ is defined at the very end: libstdc++ spells attributes with that word.

// ---------------------------------------------------------------- vector types
#define CU_V2(T, N, A)                \
  struct alignas(A) N##2 { T x, y; }; \
  static inline N##2 make_##N##2(T x, T y) { return N##2 {x, y}; }
#define CU_V3(T, N)           \
  struct N##3 { T x, y, z; }; \
  static inline N##3 make_##N##3(T x, T y, T z) { return N##3 {x, y, z}; }
#define CU_V4(T, N, A)                      \
  struct alignas(A) N##4 { T x, y, z, w; }; \
  static inline N##4 make_##N##4(T x, T y, T z, T w) { return N##4 {x, y, z, w}; }
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
CU_V2(float, float, 8)
CU_V3(float, float) CU_V4(float, float, 16) CU_V2(int, int, 8) CU_V3(int, int) CU_V4(int, int, 16)
    CU_V2(unsigned, uint, 8) CU_V3(unsigned, uint) CU_V4(unsigned, uint, 16) CU_V2(double, double, 16)
        CU_V2(short, short, 4) CU_V4(short, short, 8) CU_V2(unsigned short, ushort, 4) CU_V4(unsigned short, ushort, 8)
            CU_V2(signed char, char, 2) CU_V4(signed char, char, 4) CU_V2(unsigned char, uchar, 2)
                CU_V4(unsigned char, uchar, 4) CU_V2(long long, longlong, 16) struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

extern "C" {
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
}
static constexpr int warpSize = 32;

// ---------------------------------------------------------------- runtime entry points
namespace cu {
typedef void (*WarpFn)(void** lanes, unsigned mask);  // lanes[i] = payload of lane i, null if absent
extern "C" {
void cu_barrier(const char* file, int line, int id, int count);
int cu_barrier_red(const char* file, int line, int pred, int op);
void cu_warp(const char* what, const char* file, int line, unsigned mask, void* payload, WarpFn fn);
void cu_syncwarp(const char* file, int line, unsigned mask);
unsigned cu_activemask();
void cu_trace(const void* p, unsigned size, int is_write, int atomic, int kind, const void* pc);  // pc 0: the caller
// explicit access (atomics, ldmatrix, ...)
void cu_trace_as(int lane, const void* p, unsigned size, int is_write, int kind,
                 const void* pc);  // same, attributed to another lane of this warp
extern int cu_tracking;            // false in mode "fast": skip the call
void cu_count(int what, unsigned long long n);
void cu_cp_async(void* dst, const void* src, unsigned size, unsigned src_size);  // attributed to the caller
void cu_cp_commit();
void cu_cp_wait(unsigned n);
unsigned cu_smem_addr(const void* p);
void* cu_smem_ptr(unsigned a);
void cu_fail(const char* fmt, ...) __attribute__((format(printf, 1, 2)));
void cu_fence();
long long cu_clock();
}
enum { K_PLAIN = 0, K_LDMATRIX = 1, K_WMMA = 2, K_CPASYNC = 3 };
enum { C_MMA_FLOP = 0, C_ATOMIC, C_SHFL, C_BARRIER, C_WARPSYNC, C_USER };
}  // namespace cu

// ---------------------------------------------------------------- barriers, warp intrinsics
#define CU_SITE \
  (int)(((unsigned)__COUNTER__ << 20) | (__LINE__ & 0xfffff)) /* unique per textual use, even on one line */
#define __syncthreads() cu::cu_barrier(__FILE__, CU_SITE, 0, 0)
#define __syncthreads_or(p) cu::cu_barrier_red(__FILE__, CU_SITE, (p), 0)
#define __syncthreads_and(p) cu::cu_barrier_red(__FILE__, CU_SITE, (p), 1)
#define __syncthreads_count(p) cu::cu_barrier_red(__FILE__, CU_SITE, (p), 2)
#define CU_FIRST_(a, ...) a
#define __syncwarp(...) cu::cu_syncwarp(__FILE__, CU_SITE, CU_FIRST_(__VA_ARGS__ __VA_OPT__(, ) 0xffffffffu))
#define __threadfence() cu::cu_fence()
#define __threadfence_block() cu::cu_fence()
#define __threadfence_system() cu::cu_fence()
#define __activemask() cu::cu_activemask()
#define __trap() cu::cu_fail("__trap() at %s:%d", __FILE__, __LINE__)
#define __nanosleep(n) ((void)0)
#define clock64() cu::cu_clock()

namespace cu {
template <class T>
struct Shfl {
  T v, r;
  int src;
};
// One shuffle for all variants: the caller computes its source lane; the last lane to arrive moves the data.
template <class T>
inline T shfl(const char* f, int l, unsigned mask, T v, int src) {
  static_assert(std::is_trivially_copyable<T>::value, "shuffle of a non-trivial type");
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 2, "CUDA shuffles 2-, 4- and 8-byte values only");
  Shfl<T> p{v, v, src};
  cu_warp("shfl", f, l, mask, &p, [](void** ln, unsigned) CU_NOTSAN {
    for (int i = 0; i < 32; i++)
      if (ln[i]) {
        Shfl<T>* me = (Shfl<T>*)ln[i];
        if (!ln[me->src])
          cu_fail("shuffle reads lane %d, which does not take part (undefined value)", me->src);
        else
          me->r = ((Shfl<T>*)ln[me->src])->v;
      }
  });
  return p.r;
}
inline int lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31; }
template <class T>
inline T shfl_idx(const char* f, int l, unsigned m, T v, int s, int w = 32) {
  int b = lane() & ~(w - 1);
  return shfl(f, l, m, v, b | (s & (w - 1)));
}
template <class T>
inline T shfl_up(const char* f, int l, unsigned m, T v, unsigned d, int w = 32) {
  int n = lane(), b = n & ~(w - 1);
  int s = n - (int)d;
  return shfl(f, l, m, v, s < b ? n : s);
}
template <class T>
inline T shfl_down(const char* f, int l, unsigned m, T v, unsigned d, int w = 32) {
  int n = lane(), b = n & ~(w - 1);
  int s = n + (int)d;
  return shfl(f, l, m, v, s >= b + w ? n : s);
}
template <class T>
inline T shfl_xor(const char* f, int l, unsigned m, T v, int x, int w = 32) {
  int n = lane(), b = n & ~(w - 1);
  int s = n ^ x;
  return shfl(f, l, m, v, s >= b + w ? n : s);
}
struct Vote {
  unsigned v, r;
};
inline unsigned ballot(const char* f, int l, unsigned mask, bool pr) {
  Vote p{pr, 0};
  cu_warp("ballot", f, l, mask, &p, [](void** ln, unsigned) CU_NOTSAN {
    unsigned b = 0;
    for (int i = 0; i < 32; i++)
      if (ln[i] && ((Vote*)ln[i])->v) b |= 1u << i;
    for (int i = 0; i < 32; i++)
      if (ln[i]) ((Vote*)ln[i])->r = b;
  });
  return p.r;
}
template <class T>
struct Red {
  T v, r;
};
template <class T, class F>
inline T reduce(const char* f, int l, unsigned mask, T v, F) {
  Red<T> p{v, v};
  cu_warp("reduce", f, l, mask, &p, [](void** ln, unsigned) CU_NOTSAN {
    bool first = true;
    T a{};
    for (int i = 0; i < 32; i++)
      if (ln[i]) {
        T x = ((Red<T>*)ln[i])->v;
        a = first ? x : F::op(a, x);
        first = false;
      }
    for (int i = 0; i < 32; i++)
      if (ln[i]) ((Red<T>*)ln[i])->r = a;
  });
  return p.r;
}
struct OpAdd {
  template <class T>
  static T op(T a, T b) {
    return a + b;
  }
};
struct OpMin {
  template <class T>
  static T op(T a, T b) {
    return a < b ? a : b;
  }
};
struct OpAnd {
  template <class T>
  static T op(T a, T b) {
    return a & b;
  }
};
struct OpOr {
  template <class T>
  static T op(T a, T b) {
    return a | b;
  }
};
struct OpXor {
  template <class T>
  static T op(T a, T b) {
    return a ^ b;
  }
};
struct OpMax {
  template <class T>
  static T op(T a, T b) {
    return a > b ? a : b;
  }
};
}  // namespace cu
#define __shfl_sync(m, ...) cu::shfl_idx(__FILE__, CU_SITE, m, __VA_ARGS__)
#define __shfl_up_sync(m, ...) cu::shfl_up(__FILE__, CU_SITE, m, __VA_ARGS__)
#define __shfl_down_sync(m, ...) cu::shfl_down(__FILE__, CU_SITE, m, __VA_ARGS__)
#define __shfl_xor_sync(m, ...) cu::shfl_xor(__FILE__, CU_SITE, m, __VA_ARGS__)
#define __ballot_sync(m, p) cu::ballot(__FILE__, CU_SITE, m, (p))
#define __any_sync(m, p) (cu::ballot(__FILE__, CU_SITE, m, (p)) != 0)
#define __all_sync(m, p) (cu::ballot(__FILE__, CU_SITE, m, !(p)) == 0)
#define __reduce_add_sync(m, v) cu::reduce(__FILE__, CU_SITE, m, v, cu::OpAdd{})
#define __reduce_min_sync(m, v) cu::reduce(__FILE__, CU_SITE, m, v, cu::OpMin{})
#define __reduce_max_sync(m, v) cu::reduce(__FILE__, CU_SITE, m, v, cu::OpMax{})

// ---------------------------------------------------------------- atomics (real ones: blocks may run in several
// processes)
namespace cu {
template <class T>
struct raw {
  typedef typename std::conditional<sizeof(T) == 4, uint32_t,
                                    typename std::conditional<sizeof(T) == 8, uint64_t, uint16_t>::type>::type t;
};
template <class T, class F>
__forceinline__ T atomic_rmw(T* p, F f) {
  typedef typename raw<T>::t U;
  cu_trace(p, sizeof(T), 1, 1, K_PLAIN, nullptr);
  cu_count(C_ATOMIC, 1);
  U old = __atomic_load_n((U*)p, __ATOMIC_RELAXED);
  for (;;) {
    T o;
    memcpy(&o, &old, sizeof o);
    T n = f(o);
    U nu;
    memcpy(&nu, &n, sizeof nu);
    if (__atomic_compare_exchange_n((U*)p, &old, nu, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return o;
  }
}
}  // namespace cu
#define CU_AT(NAME, EXPR)                    \
  template <class T, class V>                \
  __forceinline__ T NAME(T* p, V v_) {       \
    T v = (T)v_;                             \
    return cu::atomic_rmw(p, [=](T o) -> T { \
      (void)o;                               \
      return EXPR;                           \
    });                                      \
  }
CU_AT(atomicAdd, o + v)
CU_AT(atomicSub, o - v) CU_AT(atomicExch, v) CU_AT(atomicMin, v < o ? v : o) CU_AT(atomicMax, v > o ? v : o)
    CU_AT(atomicAnd, o& v) CU_AT(atomicOr, o | v) CU_AT(atomicXor, o ^ v) CU_AT(atomicInc, (o >= v ? T(0) : T(o + 1)))
        CU_AT(atomicDec, ((o == 0 || o > v) ? v : T(o - 1))) template <class T>
        inline T atomicCAS(T* p, T c, T v) {
  return cu::atomic_rmw(p, [=](T o) -> T { return memcmp(&o, &c, sizeof o) ? o : v; });
}

// ---------------------------------------------------------------- loads, casts, maths
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline T __ldca(const T* p) {
  return *p;
}
template <class T>
inline T __ldcg(const T* p) {
  return *p;
}
template <class T>
inline void __stcs(T* p, T v) {
  *p = v;
}
template <class T>
inline void __stcg(T* p, T v) {
  *p = v;
}
inline unsigned __cvta_generic_to_shared(const void* p) { return cu::cu_smem_addr(p); }
#define CU_BITCAST(NAME, TO, FROM)           \
  inline TO NAME(FROM v) {                   \
    TO r;                                    \
    static_assert(sizeof r == sizeof v, ""); \
    memcpy(&r, &v, sizeof r);                \
    return r;                                \
  }
CU_BITCAST(__float_as_int, int, float)
CU_BITCAST(__int_as_float, float, int) CU_BITCAST(__float_as_uint, unsigned, float)
    CU_BITCAST(__uint_as_float, float, unsigned) CU_BITCAST(__double_as_longlong, long long, double)
        CU_BITCAST(__longlong_as_double, double, long long) inline int __popc(unsigned v) {
  return __builtin_popcount(v);
}
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clzll(long long v) { return v ? __builtin_clzll(v) : 64; }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __brev(unsigned v) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++) r |= ((v >> i) & 1u) << (31 - i);
  return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
inline int __mulhi(int a, int b) { return (int)(((int64_t)a * b) >> 32); }
inline int __mul24(int a, int b) { return a * b; }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s) {
  uint64_t v = ((uint64_t)y << 32) | x;
  unsigned r = 0;
  for (int i = 0; i < 4; i++) r |= (unsigned)((v >> (8 * ((s >> (4 * i)) & 7))) & 255) << (8 * i);
  return r;
}
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned s) {
  s &= 31;
  return s ? (hi << s) | (lo >> (32 - s)) : hi;
}
#define CU_M1(N, E) \
  inline float N(float x) { return E; }
#define CU_M2(N, E) \
  inline float N(float x, float y) { return E; }
CU_M1(__expf, expf(x))
CU_M1(__logf, logf(x)) CU_M1(__log2f, log2f(x)) CU_M1(__sinf, sinf(x)) CU_M1(__cosf, cosf(x)) CU_M1(__tanf, tanf(x))
    CU_M1(rsqrtf, 1.0f / sqrtf(x)) CU_M1(__frsqrt_rn, 1.0f / sqrtf(x)) CU_M1(__frcp_rn, 1.0f / x)
        CU_M1(__fsqrt_rn, sqrtf(x)) CU_M1(__saturatef, x < 0   ? 0.f
                                                       : x > 1 ? 1.f
                                                               : x) CU_M2(__powf, powf(x, y)) CU_M2(__fdividef, x / y)
            CU_M2(__fdiv_rn, x / y) CU_M2(__fadd_rn, x + y) CU_M2(__fmul_rn, x* y)
                CU_M2(__fsub_rn, x - y) inline float __fmaf_rn(float a, float b, float c) {
  return fmaf(a, b, c);
}
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline int __float2int_rd(float x) { return (int)floorf(x); }
inline int __float2int_ru(float x) { return (int)ceilf(x); }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
#define CU_MM(T)                                   \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
CU_MM(int)
CU_MM(unsigned) CU_MM(long) CU_MM(unsigned long) CU_MM(long long)
    CU_MM(unsigned long long) inline float min(float a, float b) {
  return fminf(a, b);
}
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }
inline float min(float a, double b) { return fminf(a, (float)b); }
inline float max(float a, double b) { return fmaxf(a, (float)b); }
using std::isfinite;
using std::isinf;
using std::isnan;

// ---------------------------------------------------------------- half / bfloat16
struct __half {
  uint16_t u;
  __half() = default;
  __half(float f) {
    _Float16 h = (_Float16)f;
    memcpy(&u, &h, 2);
  }
  __half(double f) : __half((float)f) {}
  __half(int f) : __half((float)f) {}
  operator float() const {
    _Float16 h;
    memcpy(&h, &u, 2);
    return (float)h;
  }
  __half& operator+=(__half o) { return *this = __half((float)*this + (float)o); }
  __half& operator-=(__half o) { return *this = __half((float)*this - (float)o); }
  __half& operator*=(__half o) { return *this = __half((float)*this * (float)o); }
};
struct __nv_bfloat16 {
  uint16_t u;
  __nv_bfloat16() = default;
  __nv_bfloat16(float f) {
    uint32_t b;
    memcpy(&b, &f, 4);
    if ((b & 0x7fffffffu) > 0x7f800000u)
      u = 0x7fff;
    else
      u = (uint16_t)((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
  }
  __nv_bfloat16(double f) : __nv_bfloat16((float)f) {}
  __nv_bfloat16(int f) : __nv_bfloat16((float)f) {}
  operator float() const {
    uint32_t b = (uint32_t)u << 16;
    float f;
    memcpy(&f, &b, 4);
    return f;
  }
  __nv_bfloat16& operator+=(__nv_bfloat16 o) { return *this = __nv_bfloat16((float)*this + (float)o); }
};
typedef __half half;
typedef __nv_bfloat16 nv_bfloat16;
#define CU_HALF_OPS(H)                                                             \
  inline H operator+(H a, H b) { return H((float)a + (float)b); }                  \
  inline H operator-(H a, H b) { return H((float)a - (float)b); }                  \
  inline H operator*(H a, H b) { return H((float)a * (float)b); }                  \
  inline H operator/(H a, H b) { return H((float)a / (float)b); }                  \
  inline H operator-(H a) { return H(-(float)a); }                                 \
  inline bool operator<(H a, H b) { return (float)a < (float)b; }                  \
  inline bool operator>(H a, H b) { return (float)a > (float)b; }                  \
  inline bool operator==(H a, H b) { return (float)a == (float)b; }                \
  inline bool operator!=(H a, H b) { return (float)a != (float)b; }                \
  inline H __hadd(H a, H b) { return a + b; }                                      \
  inline H __hsub(H a, H b) { return a - b; }                                      \
  inline H __hmul(H a, H b) { return a * b; }                                      \
  inline H __hdiv(H a, H b) { return a / b; }                                      \
  inline H __hfma(H a, H b, H c) { return H(fmaf((float)a, (float)b, (float)c)); } \
  inline H __hmax(H a, H b) { return (float)a > (float)b ? a : b; }                \
  inline H __hmin(H a, H b) { return (float)a < (float)b ? a : b; }                \
  inline bool __hgt(H a, H b) { return a > b; }                                    \
  inline H __hneg(H a) { return -a; }
CU_HALF_OPS(__half) CU_HALF_OPS(__nv_bfloat16) inline __half __float2half(float f) { return __half(f); }
inline __half __float2half_rn(float f) { return __half(f); }
inline float __half2float(__half h) { return (float)h; }
inline __nv_bfloat16 __float2bfloat16(float f) { return __nv_bfloat16(f); }
inline float __bfloat162float(__nv_bfloat16 h) { return (float)h; }
inline unsigned short __half_as_ushort(__half h) { return h.u; }
inline __half __ushort_as_half(unsigned short u) {
  __half h;
  h.u = u;
  return h;
}
struct alignas(4) __half2 {
  __half x, y;
};
typedef __half2 half2;
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
#define CU_HALF2_OPS(H, H2)                                                                        \
  inline H2 __hadd2(H2 a, H2 b) { return H2{a.x + b.x, a.y + b.y}; }                               \
  inline H2 __hmul2(H2 a, H2 b) { return H2{a.x * b.x, a.y * b.y}; }                               \
  inline H2 __hfma2(H2 a, H2 b, H2 c) { return H2{__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; } \
  inline H2 __hmax2(H2 a, H2 b) { return H2{__hmax(a.x, b.x), __hmax(a.y, b.y)}; }
CU_HALF2_OPS(__half, __half2)
CU_HALF2_OPS(__nv_bfloat16, __nv_bfloat162) inline __half2 __halves2half2(__half a, __half b) {
  return __half2{a, b};
}
inline __half2 __floats2half2_rn(float a, float b) { return __half2{__half(a), __half(b)}; }
inline __half2 __float22half2_rn(float2 v) { return __half2{__half(v.x), __half(v.y)}; }
inline __half2 __half2half2(__half a) { return __half2{a, a}; }
inline __half2 __float2half2_rn(float a) { return __half2{__half(a), __half(a)}; }
inline float2 __half22float2(__half2 h) { return float2{(float)h.x, (float)h.y}; }
inline __half __low2half(__half2 h) { return h.x; }
inline __half __high2half(__half2 h) { return h.y; }
inline float __low2float(__half2 h) { return (float)h.x; }
inline float __high2float(__half2 h) { return (float)h.y; }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
  return __nv_bfloat162{__nv_bfloat16(a), __nv_bfloat16(b)};
}
inline float __cu_tf32_rna(float f) {
  uint32_t b;
  memcpy(&b, &f, 4);
  if ((b & 0x7f800000u) != 0x7f800000u) b = (b + 0x1000u) & ~0x1fffu;
  memcpy(&f, &b, 4);
  return f;
}
inline float __cu_tf32_cut(float f) {
  uint32_t b;
  memcpy(&b, &f, 4);
  b &= ~0x1fffu;
  memcpy(&f, &b, 4);
  return f;
}

#include "tensor_cores.hpp"

// ---------------------------------------------------------------- kernel registration (emitted by emu.py at the end of
// the unit)
namespace cu {
struct Kernel {
  const char* name;
  int nparam;
  const char* sig;
  const int* sizes;
  void (*call)(void** a);
};
extern "C" void cu_register(const Kernel* k);
template <class T>
constexpr char kind_of() {
  typedef typename std::remove_cv<T>::type U;
  return std::is_same<U, __half>::value          ? 'h'
         : std::is_same<U, __nv_bfloat16>::value ? 'b'
         : std::is_void<U>::value                ? 'v'
         : std::is_same<U, bool>::value          ? '?'
         : std::is_floating_point<U>::value      ? 'f'
         : std::is_integral<U>::value            ? (std::is_signed<U>::value ? 'i' : 'u')
                                                 : 'V';
}
template <class T>
struct Desc {  // two chars per parameter + size digit(s): "c" const / "m" mutable pointer or "s" scalar, then kind
  static constexpr char c0() {
    return std::is_pointer<T>::value ? (std::is_const<typename std::remove_pointer<T>::type>::value ? 'c' : 'm') : 's';
  }
  static constexpr char c1() { return kind_of<typename std::remove_pointer<T>::type>(); }
};
template <class T>
constexpr int elem_size() {
  typedef typename std::remove_pointer<T>::type E;
  if constexpr (std::is_void<E>::value)
    return 1;
  else
    return (int)sizeof(E);
}
template <class... P>
struct Thunk {
  static constexpr char sig[] = {Desc<P>::c0()..., '/', Desc<P>::c1()..., 0};
  static constexpr int sizes[] = {elem_size<P>()..., 0};
  template <void (*F)(P...), size_t... I>
  CU_NOTSAN static void call_(void** a, std::index_sequence<I...>) {
    F(*(typename std::remove_cv<P>::type*)a[I]...);
  }
  template <void (*F)(P...)>
  CU_NOTSAN static void call(void** a) {
    call_<F>(a, std::index_sequence_for<P...>{});
  }
};
template <class... P>
Thunk<P...> thunk_of(void (*)(P...));
template <class... P>
constexpr int count_of(void (*)(P...)) {
  return sizeof...(P);
}
}  // namespace cu
#define EMULATE_KERNEL(ID, NAME, ...)                                                                                  \
  static const cu::Kernel cu_k_##ID = {NAME, cu::count_of(&__VA_ARGS__), decltype(cu::thunk_of(&__VA_ARGS__))::sig, \
                                       decltype(cu::thunk_of(&__VA_ARGS__))::sizes,                                 \
                                       decltype(cu::thunk_of(&__VA_ARGS__))::template call<&__VA_ARGS__>};          \
  __attribute__((constructor)) static void cu_r_##ID() { cu::cu_register(&cu_k_##ID); }
#define __noinline__ __attribute__((noinline))
