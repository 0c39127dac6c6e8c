// One tile, D[64, N] = C + A[64, K] B[K, N], with operands in every form that wgmma takes.  TMA fills shared memory.
// A is stored as [64][K], or [K][64] if A_BY_MN; B as [N][K], or [K][N] if B_BY_MN.
#include "ptx_hopper.cuh"

enum Type { BF16, F16, TF32 };

// The operand lies in boxes of [rows][ROW]: rows along mn and boxes along k, or the other way round if BY_MN.
template <int MN, int K, int BYTES, int SWIZZLE, bool BY_MN>
__device__ __forceinline__ unsigned long long descriptor(const unsigned char* tile, int k) {
  constexpr int mode = SWIZZLE == 128  ? ptx::swizzle_128
                       : SWIZZLE == 64 ? ptx::swizzle_64
                       : SWIZZLE == 32 ? ptx::swizzle_32
                                       : ptx::swizzle_none;
  constexpr int row_bytes = SWIZZLE ? SWIZZLE : 16;
  if (!BY_MN) {  // in a box the next instruction begins 32 bytes further; without swizzle a box is 16 bytes wide
    const int box = k * BYTES / row_bytes, within = SWIZZLE ? k * BYTES % row_bytes : 0;
    return ptx::wgmma_desc(tile + box * MN * row_bytes + within, SWIZZLE ? 16 : MN * 16, 8 * row_bytes, mode);
  }
  // 8 rows of k are 8 row_bytes; the next box along mn is K rows further.
  if (SWIZZLE) return ptx::wgmma_desc(tile + k * row_bytes, K * row_bytes, 8 * row_bytes, mode);
  return ptx::wgmma_desc(tile + k * 16, 8 * 16, K * 16, mode);
}

template <Type TYPE, int N, int K, int SWIZZLE, bool A_BY_MN, bool B_BY_MN, bool A_IN_REGISTERS, bool NEGATE_A>
__global__ void __launch_bounds__(128)
wgmma_tile(const __grid_constant__ ptx::TensorMap map_a, const __grid_constant__ ptx::TensorMap map_b,
           const unsigned* __restrict__ a_registers, const float* __restrict__ c_in, float* __restrict__ d_out) {
  constexpr int bytes = TYPE == TF32 ? 4 : 2, depth = 32 / bytes;  // of an element; k of one instruction
  constexpr int row = (SWIZZLE ? SWIZZLE : 16) / bytes;            // elements of a box along the contiguous axis
  extern __shared__ __align__(1024) unsigned char shared[];
  unsigned char *tile_a = shared, *tile_b = shared + 64 * K * bytes;
  unsigned long long* barrier = reinterpret_cast<unsigned long long*>(tile_b + N * K * bytes);
  const int t = threadIdx.x;
  if (t == 0) {
    ptx::mbarrier_init(barrier, 1);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  if (t == 0) {
    ptx::mbarrier_arrive_expect_tx(barrier, (64 + N) * K * bytes);
    constexpr int width_a = A_BY_MN ? 64 : K, height_a = A_BY_MN ? K : 64;
    constexpr int width_b = B_BY_MN ? N : K, height_b = B_BY_MN ? K : N;
    for (int i = 0; i < width_a; i += row) ptx::tma_load_2d(tile_a + i * height_a * bytes, &map_a, barrier, i, 0);
    for (int i = 0; i < width_b; i += row) ptx::tma_load_2d(tile_b + i * height_b * bytes, &map_b, barrier, i, 0);
  }
  const int first_row = (t >> 5) * 16 + ((t & 31) >> 2), first_column = (t & 3) * 2;
  const auto place = [&](int i) {
    return (first_row + ((i >> 1) & 1) * 8) * N + (i >> 2) * 8 + first_column + (i & 1);
  };
  float d[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; i++) d[i] = c_in[place(i)];
  unsigned a[K / depth][4];
#pragma unroll
  for (int k = 0; k < K / depth; k++)
#pragma unroll
    for (int i = 0; i < 4; i++) a[k][i] = A_IN_REGISTERS ? a_registers[(k * 128 + t) * 4 + i] : 0;
  ptx::mbarrier_wait(barrier, 0);
  ptx::wgmma_fence();
#pragma unroll
  for (int k = 0; k < K / depth; k++) {
    const unsigned long long b = descriptor<N, K, bytes, SWIZZLE, B_BY_MN>(tile_b, k * depth);
    if constexpr (A_IN_REGISTERS) {
      if constexpr (TYPE == BF16) ptx::wgmma_m64k16_bf16_rs<B_BY_MN, NEGATE_A, 0>(d, a[k], b, 1);
      if constexpr (TYPE == F16) ptx::wgmma_m64k16_f16_rs<B_BY_MN, NEGATE_A, 0>(d, a[k], b, 1);
      if constexpr (TYPE == TF32) ptx::wgmma_m64k8_tf32_rs<NEGATE_A, 0>(d, a[k], b, 1);
    } else {
      const unsigned long long by_tile = descriptor<64, K, bytes, SWIZZLE, A_BY_MN>(tile_a, k * depth);
      if constexpr (TYPE == BF16) ptx::wgmma_m64k16_bf16<A_BY_MN, B_BY_MN, NEGATE_A, 0>(d, by_tile, b, 1);
      if constexpr (TYPE == F16) ptx::wgmma_m64k16_f16<A_BY_MN, B_BY_MN, NEGATE_A, 0>(d, by_tile, b, 1);
      if constexpr (TYPE == TF32) ptx::wgmma_m64k8_tf32<NEGATE_A, 0>(d, by_tile, b, 1);
    }
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>(d);
#pragma unroll
  for (int i = 0; i < N / 2; i++) d_out[place(i)] = d[i];
}
