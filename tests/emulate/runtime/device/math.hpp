// Loads with cache hints, casts, integer and floating-point functions.
#pragma once

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
inline unsigned __cvta_generic_to_shared(const void* p) { return emulate::shared_address(p); }

#define EMULATE_BIT_CAST(NAME, TO, FROM)            \
  inline TO NAME(FROM value) {                      \
    TO bits;                                        \
    static_assert(sizeof bits == sizeof value, ""); \
    memcpy(&bits, &value, sizeof bits);             \
    return bits;                                    \
  }
EMULATE_BIT_CAST(__float_as_int, int, float)
EMULATE_BIT_CAST(__int_as_float, float, int)
EMULATE_BIT_CAST(__float_as_uint, unsigned, float)
EMULATE_BIT_CAST(__uint_as_float, float, unsigned)
EMULATE_BIT_CAST(__double_as_longlong, long long, double)
EMULATE_BIT_CAST(__longlong_as_double, double, long long)

// Integers -----------------------------------------------------------------------------------------------------------

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll(v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned __brev(unsigned v) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; i++) reversed |= ((v >> i) & 1u) << (31 - i);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
inline int __mulhi(int a, int b) { return (int)(((int64_t)a * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
inline long long __mul64hi(long long a, long long b) { return (long long)(((__int128)a * b) >> 64); }
inline int __mul24(int a, int b) { return a * b; }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selectors) {
  const uint64_t bytes = ((uint64_t)high << 32) | low;
  unsigned chosen = 0;
  for (int i = 0; i < 4; i++) chosen |= (unsigned)((bytes >> (8 * ((selectors >> (4 * i)) & 7))) & 255) << (8 * i);
  return chosen;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n) {
  n &= 31;
  return n ? (high << n) | (low >> (32 - n)) : high;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n) {
  n &= 31;
  return n ? (high << (32 - n)) | (low >> n) : low;
}

#define EMULATE_MIN_MAX(T)                         \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
EMULATE_MIN_MAX(int)
EMULATE_MIN_MAX(unsigned)
EMULATE_MIN_MAX(long)
EMULATE_MIN_MAX(unsigned long)
EMULATE_MIN_MAX(long long)
EMULATE_MIN_MAX(unsigned long long)
inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }

// Floating point -----------------------------------------------------------------------------------------------------

inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline float min(float a, double b) { return fminf(a, (float)b); }
inline float max(float a, double b) { return fmaxf(a, (float)b); }
using std::isfinite;
using std::isinf;
using std::isnan;

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x < 0 ? 0.0f : x > 1 ? 1.0f : x; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

// These must stay single operations: nothing may be fused into a multiply-add.
#define EMULATE_SINGLE_OPERATION(NAME, T, OPERATOR) \
  __attribute__((optimize("fp-contract=off"), noinline)) inline T NAME(T x, T y) { return x OPERATOR y; }
EMULATE_SINGLE_OPERATION(__fadd_rn, float, +)
EMULATE_SINGLE_OPERATION(__fsub_rn, float, -)
EMULATE_SINGLE_OPERATION(__fmul_rn, float, *)
EMULATE_SINGLE_OPERATION(__dadd_rn, double, +)
EMULATE_SINGLE_OPERATION(__dsub_rn, double, -)
EMULATE_SINGLE_OPERATION(__dmul_rn, double, *)

inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline int __float2int_rd(float x) { return (int)floorf(x); }
inline int __float2int_ru(float x) { return (int)ceilf(x); }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
