// C[M, N] = A[M, K] B[N, K]^T, or A[M, K] B[K, N] if B_BY_ROWS; bfloat16 in, float out; any M and N; K (and N, if
// B_BY_ROWS) a multiple of 8.  Tiles of 128 x 128 x 64; a block takes tiles blockIdx.x, blockIdx.x + gridDim.x, ...
// Warpgroup 0 loads (one thread), warpgroups 1 and 2 multiply 64 rows each, through a pipeline of STAGES:
//
//   full[s]   the producer arrives and expects bytes, the copies complete it; consumers wait
//   empty[s]  one thread of each of the 8 consumer warps arrives when its wgmmas are done; the producer waits
#include "ptx_hopper.cuh"

constexpr int STAGES = 3, BM = 128, BN = 128, BK = 64, BYTES_A = BM * BK * 2, BYTES_B = BN * BK * 2;

// PIPELINED: the wgmmas of one stage stay in flight while the next begin; each stage is released one later.
template <bool B_BY_ROWS, bool PIPELINED>
__global__ void __launch_bounds__(384, 1)
gemm_wgmma(const __grid_constant__ ptx::TensorMap map_a, const __grid_constant__ ptx::TensorMap map_b,
           float* __restrict__ C, int M, int N, int K) {
  extern __shared__ __align__(1024) unsigned char shared[];
  unsigned long long* full = reinterpret_cast<unsigned long long*>(shared + STAGES * (BYTES_A + BYTES_B));
  unsigned long long* empty = full + STAGES;
  const int group = threadIdx.x >> 7, t = threadIdx.x & 127;
  const int steps = (K + BK - 1) / BK, across = (N + BN - 1) / BN, tiles = (M + BM - 1) / BM * across;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      ptx::mbarrier_init(&full[s], 1);
      ptx::mbarrier_init(&empty[s], 8);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  if (group == 0) {
    ptx::setmaxnreg_dec<40>();
    if (t < 32 && ptx::elect_one()) {
      int used = 0;  // stages, over all tiles
      for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x)
        for (int k = 0; k < steps; k++, used++) {
          const int s = used % STAGES, m0 = tile / across * BM, n0 = tile % across * BN;
          ptx::mbarrier_wait(&empty[s], (used / STAGES & 1) ^ 1);
          unsigned char *tile_a = shared + s * (BYTES_A + BYTES_B), *tile_b = tile_a + BYTES_A;
          ptx::mbarrier_arrive_expect_tx(&full[s], BYTES_A + BYTES_B);
          ptx::tma_load_2d(tile_a, &map_a, &full[s], k * BK, m0);
          if (B_BY_ROWS)
            for (int j = 0; j < BN; j += 64) ptx::tma_load_2d(tile_b + j * BK * 2, &map_b, &full[s], n0 + j, k * BK);
          else
            ptx::tma_load_2d(tile_b, &map_b, &full[s], k * BK, n0);
        }
    }
  } else {
    ptx::setmaxnreg_inc<232>();
    float sums[BN / 2];  // first written by a wgmma with scale_d = 0: zeroing it would make ptxas serialise
    int used = 0;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      for (int k = 0; k < steps; k++, used++) {
        const int s = used % STAGES;
        ptx::mbarrier_wait(&full[s], used / STAGES & 1);
        const unsigned char* tile_a = shared + s * (BYTES_A + BYTES_B) + (group - 1) * 64 * BK * 2;
        const unsigned char* tile_b = shared + s * (BYTES_A + BYTES_B) + BYTES_A;
        ptx::wgmma_fence();
#pragma unroll
        for (int kk = 0; kk < BK; kk += 16) {
          const unsigned long long a = ptx::wgmma_desc(tile_a + kk * 2, 16, 1024, ptx::swizzle_128);
          if (B_BY_ROWS) {
            const unsigned long long b = ptx::wgmma_desc(tile_b + kk * 128, BK * 128, 1024, ptx::swizzle_128);
            ptx::wgmma_m64k16_bf16<0, 1>(sums, a, b, k + kk > 0);
          } else {
            const unsigned long long b = ptx::wgmma_desc(tile_b + kk * 2, 16, 1024, ptx::swizzle_128);
            ptx::wgmma_m64k16_bf16(sums, a, b, k + kk > 0);
          }
        }
        ptx::wgmma_commit();
        if (PIPELINED) {
          ptx::wgmma_wait<1>();
          if (k > 0 && (t & 31) == 0) ptx::mbarrier_arrive(&empty[(used - 1) % STAGES]);
        } else {
          ptx::wgmma_wait<0>(sums);
          if ((t & 31) == 0) ptx::mbarrier_arrive(&empty[s]);  // the stage has been read
        }
      }
      if (PIPELINED) {
        ptx::wgmma_wait<0>(sums);
        if ((t & 31) == 0) ptx::mbarrier_arrive(&empty[(used - 1) % STAGES]);
      }
      const int row = tile / across * BM + (group - 1) * 64 + (t >> 5) * 16 + ((t & 31) >> 2);
      const int column = tile % across * BN + (t & 3) * 2;
#pragma unroll
      for (int i = 0; i < BN / 2; i++) {
        const int r = row + ((i >> 1) & 1) * 8, c = column + (i >> 2) * 8 + (i & 1);
        if (r < M && c < N) C[(size_t)r * N + c] = sums[i];
      }
    }
  }
}
