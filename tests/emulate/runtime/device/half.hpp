// float16 and bfloat16: storage, conversions that round to nearest even, arithmetic in float32.
#pragma once

struct __half {
  uint16_t u;
  __half() = default;
  __half(float value) {
    const _Float16 rounded = (_Float16)value;
    memcpy(&u, &rounded, 2);
  }
  __half(double value) : __half((float)value) {}
  __half(int value) : __half((float)value) {}
  operator float() const {
    _Float16 value;
    memcpy(&value, &u, 2);
    return (float)value;
  }
};

struct __nv_bfloat16 {
  uint16_t u;
  __nv_bfloat16() = default;
  __nv_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    u = nan ? 0x7fff : (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
  __nv_bfloat16(double value) : __nv_bfloat16((float)value) {}
  __nv_bfloat16(int value) : __nv_bfloat16((float)value) {}
  operator float() const {
    const uint32_t bits = (uint32_t)u << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
  }
};

typedef __half half;
typedef __nv_bfloat16 nv_bfloat16;

struct alignas(4) __half2 {
  __half x, y;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
typedef __half2 half2;
typedef __nv_bfloat162 nv_bfloat162;

#define EMULATE_HALF(H, H2)                                                                        \
  inline H operator+(H a, H b) { return H((float)a + (float)b); }                                  \
  inline H operator-(H a, H b) { return H((float)a - (float)b); }                                  \
  inline H operator*(H a, H b) { return H((float)a * (float)b); }                                  \
  inline H operator/(H a, H b) { return H((float)a / (float)b); }                                  \
  inline H operator-(H a) { return H(-(float)a); }                                                 \
  inline H& operator+=(H& a, H b) { return a = a + b; }                                            \
  inline H& operator-=(H& a, H b) { return a = a - b; }                                            \
  inline H& operator*=(H& a, H b) { return a = a * b; }                                            \
  inline bool operator<(H a, H b) { return (float)a < (float)b; }                                  \
  inline bool operator>(H a, H b) { return (float)a > (float)b; }                                  \
  inline bool operator==(H a, H b) { return (float)a == (float)b; }                                \
  inline bool operator!=(H a, H b) { return (float)a != (float)b; }                                \
  inline H __hadd(H a, H b) { return a + b; }                                                      \
  inline H __hsub(H a, H b) { return a - b; }                                                      \
  inline H __hmul(H a, H b) { return a * b; }                                                      \
  inline H __hdiv(H a, H b) { return a / b; }                                                      \
  inline H __hneg(H a) { return -a; }                                                              \
  inline H __hfma(H a, H b, H c) { return H(fmaf((float)a, (float)b, (float)c)); }                 \
  inline H __hmax(H a, H b) { return a > b ? a : b; }                                              \
  inline H __hmin(H a, H b) { return a < b ? a : b; }                                              \
  inline bool __hgt(H a, H b) { return a > b; }                                                    \
  inline H2 __hadd2(H2 a, H2 b) { return H2{a.x + b.x, a.y + b.y}; }                               \
  inline H2 __hmul2(H2 a, H2 b) { return H2{a.x * b.x, a.y * b.y}; }                               \
  inline H2 __hfma2(H2 a, H2 b, H2 c) { return H2{__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; } \
  inline H2 __hmax2(H2 a, H2 b) { return H2{__hmax(a.x, b.x), __hmax(a.y, b.y)}; }
EMULATE_HALF(__half, __half2)
EMULATE_HALF(__nv_bfloat16, __nv_bfloat162)

inline __half __float2half(float v) { return __half(v); }
inline __half __float2half_rn(float v) { return __half(v); }
inline float __half2float(__half v) { return (float)v; }
inline __nv_bfloat16 __float2bfloat16(float v) { return __nv_bfloat16(v); }
inline float __bfloat162float(__nv_bfloat16 v) { return (float)v; }
inline unsigned short __half_as_ushort(__half v) { return v.u; }
inline __half __ushort_as_half(unsigned short bits) {
  __half v;
  v.u = bits;
  return v;
}
inline __half2 __halves2half2(__half a, __half b) { return __half2{a, b}; }
inline __half2 __floats2half2_rn(float a, float b) { return __half2{__half(a), __half(b)}; }
inline __half2 __float22half2_rn(float2 v) { return __half2{__half(v.x), __half(v.y)}; }
inline __half2 __half2half2(__half v) { return __half2{v, v}; }
inline __half2 __float2half2_rn(float v) { return __half2{__half(v), __half(v)}; }
inline float2 __half22float2(__half2 v) { return float2{(float)v.x, (float)v.y}; }
inline __half __low2half(__half2 v) { return v.x; }
inline __half __high2half(__half2 v) { return v.y; }
inline float __low2float(__half2 v) { return (float)v.x; }
inline float __high2float(__half2 v) { return (float)v.y; }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
  return __nv_bfloat162{__nv_bfloat16(a), __nv_bfloat16(b)};
}

namespace emulate {

// TF32: float32 with 10 bits of mantissa.  cvt.rna rounds to nearest, away from zero at a tie.
inline float tf32_rounded(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & ~0x1fffu;
  memcpy(&value, &bits, 4);
  return value;
}
// The tensor cores ignore the low 13 bits of an operand.
inline float tf32_truncated(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  bits &= ~0x1fffu;
  memcpy(&value, &bits, 4);
  return value;
}

}  // namespace emulate
