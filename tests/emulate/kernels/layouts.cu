// Raw registers in, raw registers out: a test places every element of a fragment itself.
#include "ptx.cuh"

template <int A, int B, void (*multiply)(float (&)[4], const unsigned (&)[A], const unsigned (&)[B], const float (&)[4])>
__device__ __forceinline__ void with_registers(const unsigned* a_in, const unsigned* b_in, const float* c_in,
                                               float* d_out) {
  const int lane = threadIdx.x;
  unsigned a[A], b[B];
  float c[4], d[4];
  for (int i = 0; i < A; i++) a[i] = a_in[lane * A + i];
  for (int i = 0; i < B; i++) b[i] = b_in[lane * B + i];
  for (int i = 0; i < 4; i++) c[i] = c_in[lane * 4 + i];
  multiply(d, a, b, c);
  for (int i = 0; i < 4; i++) d_out[lane * 4 + i] = d[i];
}

__global__ void mma_16x8x16_f16(const unsigned* a, const unsigned* b, const float* c, float* d) {
  with_registers<4, 2, ptx::mma_m16n8k16_f16>(a, b, c, d);
}
__global__ void mma_16x8x16_bf16(const unsigned* a, const unsigned* b, const float* c, float* d) {
  with_registers<4, 2, ptx::mma_m16n8k16_bf16>(a, b, c, d);
}
__global__ void mma_16x8x8_f16(const unsigned* a, const unsigned* b, const float* c, float* d) {
  with_registers<2, 1, ptx::mma_m16n8k8_f16>(a, b, c, d);
}
__global__ void mma_16x8x8_tf32(const unsigned* a, const unsigned* b, const float* c, float* d) {
  with_registers<4, 2, ptx::mma_m16n8k8_tf32>(a, b, c, d);
}

// Lane l gives the address of row rows[l] of a 32 x 8 array.
__global__ void ldmatrix(const unsigned short* matrix, const int* rows, unsigned* out, bool transposed) {
  __shared__ __align__(16) unsigned short in_shared[32][8];
  const int lane = threadIdx.x;
  for (int i = 0; i < 8; i++) in_shared[lane][i] = matrix[lane * 8 + i];
  __syncthreads();
  unsigned registers[4];
  if (transposed)
    ptx::ldmatrix_x4_trans(registers, in_shared[rows[lane]]);
  else
    ptx::ldmatrix_x4(registers, in_shared[rows[lane]]);
  for (int i = 0; i < 4; i++) out[lane * 4 + i] = registers[i];
}
