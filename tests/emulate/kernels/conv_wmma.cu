// Convolution on tensor cores through nvcuda::wmma: implicit GEMM of N H W pixels x K filters x R S C.
// x NHWC and w KRSC half, y NHWC float.  A block computes 64 pixels x 64 filters with 4 warps; C is a multiple of 16.
#include <cuda_fp16.h>
#include <mma.h>
using namespace nvcuda;

__global__ void __launch_bounds__(128)
conv_wmma(const __half* __restrict__ x, const __half* __restrict__ w, float* __restrict__ y, int N, int H, int W, int C,
          int K, int R, int S) {
  constexpr int BM = 64, BN = 64, BK = 16, LD = BK + 8;
  __shared__ __align__(32) __half tile_x[BM][LD];
  __shared__ __align__(32) __half tile_w[BN][LD];
  __shared__ __align__(32) float tile_y[BM][BN + 4];
  const int t = threadIdx.x, warp = t / 32, warp_m = (warp & 1) * 32, warp_n = (warp >> 1) * 32;
  const int m0 = blockIdx.x * BM, n0 = blockIdx.y * BN, M = N * H * W;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[2][2];
#pragma unroll
  for (int i = 0; i < 4; i++) wmma::fill_fragment(sums[i / 2][i % 2], 0.0f);
  const int row = t / 2, channel = t % 2 * 8;  // a thread stages 8 halves of x and of w
  const int pixel = m0 + row, q = pixel % W, p = pixel / W % H, n = pixel / (W * H);
  for (int r = 0; r < R; r++)
    for (int s = 0; s < S; s++) {
      const int iy = p + r - R / 2, ix = q + s - S / 2;
      const bool inside = pixel < M && iy >= 0 && iy < H && ix >= 0 && ix < W;
      for (int c0 = 0; c0 < C; c0 += BK) {
        uint4 a = make_uint4(0, 0, 0, 0), b = make_uint4(0, 0, 0, 0);
        if (inside) a = *reinterpret_cast<const uint4*>(&x[((n * H + iy) * W + ix) * C + c0 + channel]);
        if (n0 + row < K) b = *reinterpret_cast<const uint4*>(&w[(((n0 + row) * R + r) * S + s) * C + c0 + channel]);
        *reinterpret_cast<uint4*>(&tile_x[row][channel]) = a;
        *reinterpret_cast<uint4*>(&tile_w[row][channel]) = b;
        __syncthreads();
        wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> fa[2];
        wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> fb[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
          wmma::load_matrix_sync(fa[i], &tile_x[warp_m + 16 * i][0], LD);
          wmma::load_matrix_sync(fb[i], &tile_w[warp_n + 16 * i][0], LD);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) wmma::mma_sync(sums[i / 2][i % 2], fa[i / 2], fb[i % 2], sums[i / 2][i % 2]);
        __syncthreads();
      }
    }
#pragma unroll
  for (int i = 0; i < 4; i++)
    wmma::store_matrix_sync(&tile_y[warp_m + 16 * (i / 2)][warp_n + 16 * (i % 2)], sums[i / 2][i % 2], BN + 4,
                            wmma::mem_row_major);
  __syncthreads();  // y's tile is complete
  for (int i = t; i < BM * BN; i += 128) {
    const int r = i / BN, c = i % BN;
    if (m0 + r < M && n0 + c < K) y[(m0 + r) * K + n0 + c] = tile_y[r][c];
  }
}

// C[M, N] = A[M, K] B[K, N] in TF32; one warp per 16 x 16 tile; M and N are multiples of 16, K of 8.
__global__ void gemm_tf32(const float* __restrict__ A, const float* __restrict__ B, float* __restrict__ C, int M, int N,
                          int K) {
  const int m0 = blockIdx.y * 16, n0 = blockIdx.x * 16;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> sums;
  wmma::fill_fragment(sums, 0.0f);
  for (int k = 0; k < K; k += 8) {
    wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> a;
    wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::row_major> b;
    wmma::load_matrix_sync(a, A + m0 * K + k, K);
    wmma::load_matrix_sync(b, B + k * N + n0, N);
#pragma unroll
    for (int i = 0; i < a.num_elements; i++) a.x[i] = wmma::__float_to_tf32(a.x[i]);
#pragma unroll
    for (int i = 0; i < b.num_elements; i++) b.x[i] = wmma::__float_to_tf32(b.x[i]);
    wmma::mma_sync(sums, a, b, sums);
  }
  wmma::store_matrix_sync(C + m0 * N + n0, sums, N, wmma::mem_row_major);
}
