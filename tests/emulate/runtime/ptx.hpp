// Host functions of the wrappers in ptx.cuh: same names, same signatures.
//
// Register layouts are those of the PTX ISA: "Matrix Fragments for mma.m16n8k16", ".m16n8k8", "ldmatrix".
#pragma once

namespace emulate {

// Where element i of lane l lies in its matrix.
struct Place {
  int row, column;
};
constexpr Place a_16x16_half(int l, int i) {
  return {(l >> 2) + ((i & 2) ? 8 : 0), (l & 3) * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}
constexpr Place b_16x8_half(int l, int i) { return {(l & 3) * 2 + (i & 1) + (i >= 2 ? 8 : 0), l >> 2}; }
constexpr Place a_16x8_half(int l, int i) { return {(l >> 2) + (i >= 2 ? 8 : 0), (l & 3) * 2 + (i & 1)}; }
constexpr Place b_8x8_half(int l, int i) { return {(l & 3) * 2 + (i & 1), l >> 2}; }
constexpr Place a_16x8_tf32(int l, int i) { return {(l >> 2) + ((i & 1) ? 8 : 0), (l & 3) + (i >= 2 ? 4 : 0)}; }
constexpr Place b_8x8_tf32(int l, int i) { return {(l & 3) + (i ? 4 : 0), l >> 2}; }
constexpr Place c_16x8(int l, int i) { return {(l >> 2) + (i >= 2 ? 8 : 0), (l & 3) * 2 + (i & 1)}; }

// Element i of a lane's registers.
template <class T>
EMULATE_UNTRACED inline float element(const unsigned* registers, int i) {
  if constexpr (std::is_same_v<T, float>) {
    return tf32_truncated(__uint_as_float(registers[i]));
  } else {
    T value;
    value.u = (uint16_t)(registers[i >> 1] >> (16 * (i & 1)));
    return (float)value;
  }
}

struct MmaLane {
  float* d;
  const unsigned *a, *b;
  const float* c;
};

// D = A B + C of 16 x 8; a lane has `count_a` and `count_b` elements of A and B.
template <class T, int K, int count_a, int count_b, Place (*place_a)(int, int), Place (*place_b)(int, int)>
EMULATE_UNTRACED inline void mma_16x8(const char* what, float* d, const unsigned* a, const unsigned* b,
                                      const float* c) {
  MmaLane mine{d, a, b, c};
  warp_operation(what, "ptx", K, 0xffffffffu, &mine, [](void** lanes, unsigned present) EMULATE_UNTRACED {
    if (present != 0xffffffffu) fail("mma.sync with only lanes %08x of the warp", present);
    float a[16][K], b[K][8], c[16][8];
    for (int l = 0; l < 32; l++) {
      const auto* lane = (MmaLane*)lanes[l];
      for (int i = 0; i < count_a; i++) a[place_a(l, i).row][place_a(l, i).column] = element<T>(lane->a, i);
      for (int i = 0; i < count_b; i++) b[place_b(l, i).row][place_b(l, i).column] = element<T>(lane->b, i);
      for (int i = 0; i < 4; i++) c[c_16x8(l, i).row][c_16x8(l, i).column] = lane->c[i];
    }
    multiply_add<BLOCK_OF<T>>(a, b, c);
    for (int l = 0; l < 32; l++)
      for (int i = 0; i < 4; i++) ((MmaLane*)lanes[l])->d[i] = c[c_16x8(l, i).row][c_16x8(l, i).column];
    count(MMA_FLOP, 2ull * 16 * 8 * K);
  });
}

struct LdmatrixLane {
  unsigned* registers;
  const void *row, *pc;
};

// Load `matrices` 8 x 8 matrices of halves; lane 8 m + i gives the address of row i of matrix m.
template <int matrices, bool transposed>
EMULATE_UNTRACED inline void ldmatrix(unsigned* registers, const void* row) {
  LdmatrixLane mine{registers, row, __builtin_return_address(0)};
  const char* what = transposed ? "ldmatrix.trans" : "ldmatrix";
  warp_operation(what, "ptx", matrices, 0xffffffffu, &mine, [](void** lanes, unsigned present) EMULATE_UNTRACED {
    if (present != 0xffffffffu) fail("ldmatrix with only lanes %08x of the warp", present);
    for (int m = 0; m < matrices; m++) {
      const uint16_t* rows[8];
      for (int i = 0; i < 8; i++) {
        const auto* lane = (LdmatrixLane*)lanes[m * 8 + i];
        if ((uintptr_t)lane->row % 16) fail("ldmatrix: row address of lane %d is not 16-byte aligned", m * 8 + i);
        trace_as(m * 8 + i, lane->row, 16, LDMATRIX, lane->pc);
        rows[i] = (const uint16_t*)lane->row;
      }
      for (int l = 0; l < 32; l++) {
        const int r = l >> 2, c = (l & 3) * 2;
        const unsigned low = transposed ? rows[c][r] : rows[r][c], high = transposed ? rows[c + 1][r] : rows[r][c + 1];
        ((LdmatrixLane*)lanes[l])->registers[m] = low | (high << 16);
      }
    }
  });
}

}  // namespace emulate

namespace ptx {

__forceinline__ float half_to_float(unsigned short bits) { return __half2float(__ushort_as_half(bits)); }
__forceinline__ unsigned short float_to_half(float value) { return __half_as_ushort(__float2half_rn(value)); }
__forceinline__ unsigned cvt_tf32(float value) { return __float_as_uint(emulate::tf32_rounded(value)); }

__forceinline__ void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                      const float (&c)[4]) {
  emulate::mma_16x8<__half, 16, 8, 4, emulate::a_16x16_half, emulate::b_16x8_half>("mma.m16n8k16.f16", d, a, b, c);
}
__forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                       const float (&c)[4]) {
  emulate::mma_16x8<__nv_bfloat16, 16, 8, 4, emulate::a_16x16_half, emulate::b_16x8_half>("mma.m16n8k16.bf16", d, a, b,
                                                                                          c);
}
__forceinline__ void mma_m16n8k8_f16(float (&d)[4], const unsigned (&a)[2], const unsigned (&b)[1],
                                     const float (&c)[4]) {
  emulate::mma_16x8<__half, 8, 4, 2, emulate::a_16x8_half, emulate::b_8x8_half>("mma.m16n8k8.f16", d, a, b, c);
}
__forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                      const float (&c)[4]) {
  emulate::mma_16x8<float, 8, 4, 2, emulate::a_16x8_tf32, emulate::b_8x8_tf32>("mma.m16n8k8.tf32", d, a, b, c);
}

__forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) { emulate::ldmatrix<4, false>(r, row); }
__forceinline__ void ldmatrix_x2(unsigned (&r)[2], const void* row) { emulate::ldmatrix<2, false>(r, row); }
__forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) { emulate::ldmatrix<4, true>(r, row); }
__forceinline__ void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) { emulate::ldmatrix<2, true>(r, row); }

__forceinline__ void cp_async16(void* target, const void* origin, bool wanted = true) {
  emulate::copy_async(target, origin, 16, wanted ? 16 : 0);
}
__forceinline__ void cp_async4(void* target, const void* origin, bool wanted = true) {
  emulate::copy_async(target, origin, 4, wanted ? 4 : 0);
}
__forceinline__ void cp_async_commit() { emulate::copy_async_commit(); }
template <int N>
__forceinline__ void cp_async_wait() {
  emulate::copy_async_wait(N);
}

}  // namespace ptx
