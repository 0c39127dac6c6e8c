// C[M, N] = A[M, K] B[K, N], row major.  Tiles of 64 x 64 x 16, 256 threads, 4 x 4 outputs per thread, float4 loads.
// K and N are multiples of 4.
__global__ void __launch_bounds__(256)
gemm_tiled(const float* __restrict__ A, const float* __restrict__ B, float* __restrict__ C, int M, int N, int K) {
  constexpr int BM = 64, BN = 64, BK = 16;
  __shared__ __align__(16) float tile_a[BK][BM + 4];
  __shared__ __align__(16) float tile_b[BK][BN];
  const int t = threadIdx.x, tx = t % 16, ty = t / 16;
  const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
  const int row_a = t / 4, column_a = t % 4 * 4;    // of A's tile: 64 rows of 4 float4
  const int row_b = t / 16, column_b = t % 16 * 4;  // of B's tile: 16 rows of 16 float4
  float sums[4][4] = {};
  for (int k0 = 0; k0 < K; k0 += BK) {
    float4 a = make_float4(0, 0, 0, 0), b = make_float4(0, 0, 0, 0);
    if (row0 + row_a < M && k0 + column_a < K)
      a = *reinterpret_cast<const float4*>(&A[(row0 + row_a) * K + k0 + column_a]);
    if (k0 + row_b < K && column0 + column_b < N)
      b = *reinterpret_cast<const float4*>(&B[(k0 + row_b) * N + column0 + column_b]);
    tile_a[column_a + 0][row_a] = a.x;
    tile_a[column_a + 1][row_a] = a.y;
    tile_a[column_a + 2][row_a] = a.z;
    tile_a[column_a + 3][row_a] = a.w;
    *reinterpret_cast<float4*>(&tile_b[row_b][column_b]) = b;
    __syncthreads();  // the tiles are complete
#pragma unroll
    for (int k = 0; k < BK; k++) {
      const float4 va = *reinterpret_cast<const float4*>(&tile_a[k][ty * 4]);
      const float4 vb = *reinterpret_cast<const float4*>(&tile_b[k][tx * 4]);
      const float ra[4] = {va.x, va.y, va.z, va.w}, rb[4] = {vb.x, vb.y, vb.z, vb.w};
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] += ra[i] * rb[j];
    }
    __syncthreads();  // the tiles have been read
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int r = row0 + ty * 4 + i, c = column0 + tx * 4;
    if (r < M && c < N)
      *reinterpret_cast<float4*>(&C[r * N + c]) = make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
  }
}
