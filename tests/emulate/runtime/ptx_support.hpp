// What the C++ that ptx_to_cpp.py writes calls: PTX instructions that are not one C++ expression.
#pragma once
#include "ptx.hpp"

// A basic block of the PTX begins.
#ifdef EMULATE_COUNT_BASIC_BLOCKS
#define EMULATE_BASIC_BLOCK(i) (emulate::basic_blocks[i]++)
#else
#define EMULATE_BASIC_BLOCK(i) ((void)0)
#endif

namespace emulate {

extern uint64_t* basic_blocks;
extern char* shared_base;

template <int N, int alignment>
struct alignas(alignment) Bytes {
  unsigned char bytes[N];
};
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T e[N];
};

// The bits of a value as another type; a wider one is filled up with zeros.
template <class T, class S>
__forceinline__ T as(S value) {
  T bits;
  memset(&bits, 0, sizeof bits);
  memcpy(&bits, &value, sizeof bits < sizeof value ? sizeof bits : sizeof value);
  return bits;
}

// Store a value in a register, which may be wider: signed integers keep their sign.
template <class Register, class T>
__forceinline__ void put(Register& target, T value) {
  if constexpr (sizeof(T) < sizeof(Register) && std::is_signed_v<T> && std::is_integral_v<T>)
    target = (Register)(std::make_signed_t<Register>)value;
  else
    target = as<Register>(value);
}

__forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }
__forceinline__ __half fused(__half a, __half b, __half c) { return __hfma(a, b, c); }
__forceinline__ __nv_bfloat16 fused(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) { return __hfma(a, b, c); }

template <class T>
__forceinline__ T saturated(T x) {
  return x > (T)0 ? (x < (T)1 ? x : (T)1) : (T)0;
}
template <class T>
__forceinline__ T quotient(T a, T b) {
  if (b == 0) fail("integer division by zero");
  return a / b;
}
template <class T>
__forceinline__ T remainder(T a, T b) {
  if (b == 0) fail("integer division by zero");
  return a % b;
}

// min and max drop a NaN; with .NaN they return it.
template <class T>
__forceinline__ T smaller(T a, T b) {
  if (a != a) return b;
  return b != b || !(b < a) ? a : b;
}
template <class T>
__forceinline__ T larger(T a, T b) {
  if (a != a) return b;
  return b != b || !(a < b) ? a : b;
}
template <class T>
__forceinline__ T smaller_or_nan(T a, T b) {
  return a != a ? a : b != b ? b : smaller(a, b);
}
template <class T>
__forceinline__ T larger_or_nan(T a, T b) {
  return a != a ? a : b != b ? b : larger(a, b);
}
template <class T>
__forceinline__ T magnitude(T a) {
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) return std::fabs(a);
  return a < (T)0 ? (T)(-a) : a;
}

// Shifts by the width or more give zeros, or copies of the sign.
template <class T>
__forceinline__ T shift_left(T a, uint32_t n) {
  return n >= 8 * sizeof(T) ? 0 : (T)(a << n);
}
template <class T>
__forceinline__ T shift_right(T a, uint32_t n) {
  return n >= 8 * sizeof(T) ? (a < 0 ? (T)-1 : 0) : (T)(a >> n);
}
__forceinline__ uint32_t funnel_left(uint32_t low, uint32_t high, uint32_t n, bool clamp) {
  n = clamp ? (n > 32 ? 32 : n) : n & 31;
  return (uint32_t)((((uint64_t)high << 32 | low) << n) >> 32);
}
__forceinline__ uint32_t funnel_right(uint32_t low, uint32_t high, uint32_t n, bool clamp) {
  n = clamp ? (n > 32 ? 32 : n) : n & 31;
  return (uint32_t)(((uint64_t)high << 32 | low) >> n);
}

// A rounded number as an integer: the nearest there is, 0 for NaN.
template <class Integer>
__forceinline__ Integer to_integer(double value) {
  constexpr bool has_sign = std::is_signed_v<Integer>;
  constexpr int bits = 8 * sizeof(Integer);
  if (value != value) return 0;
  const double low = has_sign ? -ldexp(1.0, bits - 1) : 0.0, above = ldexp(1.0, bits - has_sign);
  if (value <= low) return (Integer)low;
  return value >= above ? std::numeric_limits<Integer>::max() : (Integer)value;
}

template <class H>
__forceinline__ uint32_t pack(float low, float high) {
  return (uint32_t)H(low).u | (uint32_t)H(high).u << 16;
}

// bfe, bfi: `length` bits at `position`.
template <class T>
__forceinline__ T bits_of(T a, uint32_t position, uint32_t length) {
  using U = std::make_unsigned_t<T>;
  position &= 255;
  length &= 255;
  if (!length) return 0;
  U value = position < 8 * sizeof(T) ? (U)((U)a >> position) : 0;
  if (length < 8 * sizeof(T)) {
    const U mask = ((U)1 << length) - 1;
    value &= mask;
    if (std::is_signed_v<T> && (value >> (length - 1) & 1)) value |= ~mask;
  }
  return (T)value;
}
template <class T>
__forceinline__ T with_bits(T a, T b, uint32_t position, uint32_t length) {
  const T ones = length >= 8 * sizeof(T) ? (T) ~(T)0 : (T)(((T)1 << length) - 1);
  const T mask = shift_left(ones, position);
  return (T)((b & ~mask) | (shift_left(a, position) & mask));
}

// Any function of three bits: bit 4 a + 2 b + c of the table is its value.
__forceinline__ uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t result = 0;
  for (int i = 0; i < 8; i++)
    if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  return result;
}

// shfl.sync as the PTX ISA defines it: c holds the clamp and the mask of a segment, in_range is the predicate.
__forceinline__ uint32_t shfl(const char* file, int site, char mode, uint32_t a, uint32_t b, uint32_t c, uint32_t mask,
                              bool& in_range) {
  const int me = lane(), delta = b & 31, clamp = c & 31, segment = c >> 8 & 31;
  const int last = (me & segment) | (clamp & ~segment), first = me & segment;
  int source = me;
  switch (mode) {
    case 'u':
      source = me - delta;
      in_range = source >= last;
      break;
    case 'd':
      source = me + delta;
      in_range = source <= last;
      break;
    case 'b':
      source = me ^ delta;
      in_range = source <= last;
      break;
    default:
      source = first | (delta & ~segment);
      in_range = source <= last;
  }
  return shuffle(file, site, mask, a, in_range ? source : me);
}

// wmma fragments in registers; which element lies where is ours to choose.
template <class Fragment, int N>
__forceinline__ void fragment_to_registers(const Fragment& f, uint32_t (&registers)[N]) {
  static_assert(sizeof f.x <= sizeof registers, "");
  memset(registers, 0, sizeof registers);
  memcpy(registers, f.x, sizeof f.x);
}
template <class Fragment, int N>
__forceinline__ void registers_to_fragment(Fragment& f, const uint32_t (&registers)[N]) {
  static_assert(sizeof f.x <= sizeof registers, "");
  memcpy(f.x, registers, sizeof f.x);
}

}  // namespace emulate
