// C[M, N] = A[M, K] B[K, N], half in, float out, row major: mma.m16n8k16, ldmatrix, cp.async, a pipeline of STAGES.
// Tiles of 64 x 64 x 32, 4 warps of 32 x 32; M and N are multiples of 64, K of 32.
#include <cuda_fp16.h>
#include "ptx.cuh"

template <int STAGES>
__global__ void __launch_bounds__(128)
gemm_mma(const __half* __restrict__ A, const __half* __restrict__ B, float* __restrict__ C, int M, int N, int K) {
  constexpr int BM = 64, BN = 64, BK = 32, LDA = BK + 8, LDB = BN + 8;
  extern __shared__ __align__(16) unsigned char shared[];
  __half* tiles_a = reinterpret_cast<__half*>(shared);  // [STAGES][BM][LDA]
  __half* tiles_b = tiles_a + STAGES * BM * LDA;        // [STAGES][BK][LDB]
  const int t = threadIdx.x, lane = t & 31, warp = t >> 5, warp_m = (warp & 1) * 32, warp_n = (warp >> 1) * 32;
  const int m0 = blockIdx.y * BM, n0 = blockIdx.x * BN, steps = K / BK;
  auto load = [&](int step) {
    if (step < steps) {
      const int stage = step % STAGES;
#pragma unroll
      for (int i = t; i < BM * BK / 8; i += 128) {
        const int r = i / (BK / 8), c = i % (BK / 8) * 8;
        ptx::cp_async16(&tiles_a[(stage * BM + r) * LDA + c], &A[(size_t)(m0 + r) * K + step * BK + c]);
      }
#pragma unroll
      for (int i = t; i < BK * BN / 8; i += 128) {
        const int r = i / (BN / 8), c = i % (BN / 8) * 8;
        ptx::cp_async16(&tiles_b[(stage * BK + r) * LDB + c], &B[(size_t)(step * BK + r) * N + n0 + c]);
      }
    }
    ptx::cp_async_commit();
  };
  float sums[2][4][4] = {};
  for (int step = 0; step < STAGES - 1; step++) load(step);
  for (int step = 0; step < steps; step++) {
    ptx::cp_async_wait<STAGES - 2>();
    __syncthreads();
    load(step + STAGES - 1);
    const __half* a_tile = tiles_a + step % STAGES * BM * LDA;
    const __half* b_tile = tiles_b + step % STAGES * BK * LDB;
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
      unsigned a[2][4], b[4][2];
#pragma unroll
      for (int i = 0; i < 2; i++)
        ptx::ldmatrix_x4(a[i], &a_tile[(warp_m + 16 * i + (lane & 15)) * LDA + k + (lane >> 4) * 8]);
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        unsigned both[4];
        ptx::ldmatrix_x4_trans(both, &b_tile[(k + (lane & 15)) * LDB + warp_n + 8 * j + (lane >> 4) * 8]);
        b[j][0] = both[0];
        b[j][1] = both[1];
        b[j + 1][0] = both[2];
        b[j + 1][1] = both[3];
      }
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) ptx::mma_m16n8k16_f16(sums[i][j], a[i], b[j], sums[i][j]);
    }
  }
  ptx::cp_async_wait<0>();
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int r = m0 + warp_m + 16 * i + (lane >> 2), c = n0 + warp_n + 8 * j + (lane & 3) * 2;
      *reinterpret_cast<float2*>(&C[(size_t)r * N + c]) = make_float2(sums[i][j][0], sums[i][j][1]);
      *reinterpret_cast<float2*>(&C[(size_t)(r + 8) * N + c]) = make_float2(sums[i][j][2], sums[i][j][3]);
    }
}
