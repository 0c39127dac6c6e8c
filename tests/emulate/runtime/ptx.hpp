// Host functions of the wrappers in kernels/ptx.cuh: same names, same signatures.
#pragma once

namespace ptx {
__forceinline__ float half_to_float(unsigned short bits) { return __half2float(__ushort_as_half(bits)); }
__forceinline__ unsigned short float_to_half(float value) { return __half_as_ushort(__float2half_rn(value)); }
__forceinline__ void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                      const float (&c)[4]) {
  cu::mma_16x8<__half, 16, 8, 4, cu::a_16816, cu::b_16816>("mma.m16n8k16.f16", d, a, b, c);
}
__forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                       const float (&c)[4]) {
  cu::mma_16x8<__nv_bfloat16, 16, 8, 4, cu::a_16816, cu::b_16816>("mma.m16n8k16.bf16", d, a, b, c);
}
__forceinline__ void mma_m16n8k8_f16(float (&d)[4], const unsigned (&a)[2], const unsigned (&b)[1],
                                     const float (&c)[4]) {
  cu::mma_16x8<__half, 8, 4, 2, cu::a_1688h, cu::b_1688h>("mma.m16n8k8.f16", d, a, b, c);
}
__forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                      const float (&c)[4]) {
  cu::mma_16x8<float, 8, 4, 2, cu::a_1688t, cu::b_1688t>("mma.m16n8k8.tf32", d, a, b, c);
}
__forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) { cu::ldmatrix<4, false>(r, row); }
__forceinline__ void ldmatrix_x2(unsigned (&r)[2], const void* row) { cu::ldmatrix<2, false>(r, row); }
__forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) { cu::ldmatrix<4, true>(r, row); }
__forceinline__ void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) { cu::ldmatrix<2, true>(r, row); }
__forceinline__ unsigned cvt_tf32(float f) { return __float_as_uint(__cu_tf32_rna(f)); }
__forceinline__ void cp_async16(void* dst, const void* src, bool pred = true) {
  cu::cu_cp_async(dst, src, 16, pred ? 16 : 0);
}
__forceinline__ void cp_async4(void* dst, const void* src, bool pred = true) {
  cu::cu_cp_async(dst, src, 4, pred ? 4 : 0);
}
__forceinline__ void cp_async_commit() { cu::cu_cp_commit(); }
template <int N>
__forceinline__ void cp_async_wait() {
  cu::cu_cp_wait(N);
}
}  // namespace ptx
