// Convolution, NHWC bfloat16, implicit GEMM: y[pixel, k] = sum over r, s, c of x[pixel shifted by (r, s), c] w[k, r, s, c].
// TMA in im2col mode loads 128 output pixels x 64 channels of one filter tap, wgmma multiplies, and the tile leaves
// through shared memory and TMA.  C and K are multiples of 8; any stride 1..8, pad and dilation that fit the corners.
#include "ptx_hopper.cuh"

constexpr int STAGES = 3, BM = 128, BN = 64, BK = 64, BYTES_X = BM * BK * 2, BYTES_W = BN * BK * 2;

__global__ void __launch_bounds__(384, 1)
conv_wgmma(const __grid_constant__ ptx::TensorMap map_x, const __grid_constant__ ptx::TensorMap map_w,
           const __grid_constant__ ptx::TensorMap map_y, int P, int Q, int C, int R, int S, int stride, int pad,
           int dilation) {
  extern __shared__ __align__(1024) unsigned char shared[];
  unsigned char* results = shared + STAGES * (BYTES_X + BYTES_W);  // 2 x 64 x 64, swizzled
  unsigned long long* full = reinterpret_cast<unsigned long long*>(results + BM * BN * 2);
  unsigned long long* empty = full + STAGES;
  const int group = threadIdx.x >> 7, t = threadIdx.x & 127, m0 = blockIdx.x * BM, n0 = blockIdx.y * BN;
  const int slices = (C + BK - 1) / BK, steps = R * S * slices;
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
      const int q = m0 % Q, p = m0 / Q % P, n = m0 / (Q * P);
      for (int k = 0; k < steps; k++) {
        const int stage = k % STAGES, c = k % slices * BK, tap = k / slices, s = tap % S, r = tap / S;
        ptx::mbarrier_wait(&empty[stage], (k / STAGES & 1) ^ 1);
        ptx::mbarrier_arrive_expect_tx(&full[stage], BYTES_X + BYTES_W);
        unsigned char* tile = shared + stage * (BYTES_X + BYTES_W);
        const int left = q * stride - pad, top = p * stride - pad;
        ptx::tma_load_im2col_4d(tile, &map_x, &full[stage], c, left, top, n, s * dilation, r * dilation);
        ptx::tma_load_3d(tile + BYTES_X, &map_w, &full[stage], c, tap, n0);
      }
    }
  } else {
    ptx::setmaxnreg_inc<232>();
    float sums[BN / 2];
    for (int k = 0; k < steps; k++) {
      const int stage = k % STAGES;
      ptx::mbarrier_wait(&full[stage], k / STAGES & 1);
      const unsigned char* tile_x = shared + stage * (BYTES_X + BYTES_W) + (group - 1) * 64 * BK * 2;
      const unsigned char* tile_w = shared + stage * (BYTES_X + BYTES_W) + BYTES_X;
      ptx::wgmma_fence();
#pragma unroll
      for (int kk = 0; kk < BK; kk += 16)
        ptx::wgmma_m64k16_bf16(sums, ptx::wgmma_desc(tile_x + kk * 2, 16, 1024, ptx::swizzle_128),
                               ptx::wgmma_desc(tile_w + kk * 2, 16, 1024, ptx::swizzle_128), k + kk > 0);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>(sums);
      if ((t & 31) == 0) ptx::mbarrier_arrive(&empty[stage]);
    }
    unsigned char* mine = results + (group - 1) * 64 * BN * 2;
    const int row = (t >> 5) * 16 + ((t & 31) >> 2);
#pragma unroll
    for (int i = 0; i < BN / 2; i += 2) {  // 16-byte unit j of row r lies at unit j ^ (r & 7)
      const int r = row + ((i >> 1) & 1) * 8, j = i >> 2;
      *reinterpret_cast<unsigned*>(mine + r * 128 + ((j ^ (r & 7)) << 4) + (t & 3) * 4) =
          ptx::pack_bf16(sums[i], sums[i + 1]);
    }
    ptx::fence_proxy_async();
    if (group == 1)  // constant numbers: a variable one would reserve all 16
      ptx::named_barrier_sync(1, 128);
    else
      ptx::named_barrier_sync(2, 128);
    if (t == 0) {
      ptx::tma_store_2d(&map_y, mine, n0, m0 + (group - 1) * 64);
      ptx::bulk_commit();
      ptx::bulk_wait_read<0>();
    }
  }
}
