// Small kernels for one Hopper feature each.
#include "ptx_hopper.cuh"

struct Coordinates {
  int c[5], offsets[3];
};

// Load one box and write out shared memory as it is.
template <int RANK, bool IM2COL, bool POLL>
__global__ void __launch_bounds__(128)
tensor_load(const __grid_constant__ ptx::TensorMap map, unsigned* __restrict__ out, Coordinates at, int bytes) {
  extern __shared__ __align__(1024) unsigned char shared[];
  unsigned long long* barrier = reinterpret_cast<unsigned long long*>(shared + bytes);
  const int t = threadIdx.x, *c = at.c, *o = at.offsets;
  if (t == 0) {
    ptx::mbarrier_init(barrier, 1);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  if (t == 0) {
    ptx::mbarrier_arrive_expect_tx(barrier, bytes);
    if constexpr (IM2COL) {
      if constexpr (RANK == 3) ptx::tma_load_im2col_3d(shared, &map, barrier, c[0], c[1], c[2], o[0]);
      if constexpr (RANK == 4) ptx::tma_load_im2col_4d(shared, &map, barrier, c[0], c[1], c[2], c[3], o[0], o[1]);
      if constexpr (RANK == 5)
        ptx::tma_load_im2col_5d(shared, &map, barrier, c[0], c[1], c[2], c[3], c[4], o[0], o[1], o[2]);
    } else {
      if constexpr (RANK == 1) ptx::tma_load_1d(shared, &map, barrier, c[0]);
      if constexpr (RANK == 2) ptx::tma_load_2d(shared, &map, barrier, c[0], c[1]);
      if constexpr (RANK == 3) ptx::tma_load_3d(shared, &map, barrier, c[0], c[1], c[2]);
      if constexpr (RANK == 4) ptx::tma_load_4d(shared, &map, barrier, c[0], c[1], c[2], c[3]);
      if constexpr (RANK == 5) ptx::tma_load_5d(shared, &map, barrier, c[0], c[1], c[2], c[3], c[4]);
    }
  }
  if (POLL) {
    while (!ptx::mbarrier_test_wait(barrier, 0)) {
    }
  } else {
    ptx::mbarrier_wait(barrier, 0);
  }
  for (int i = t; i < bytes / 4; i += 128) out[i] = reinterpret_cast<const unsigned*>(shared)[i];
}

// Store a box from shared memory as it is.
__global__ void __launch_bounds__(128)
tensor_store(const __grid_constant__ ptx::TensorMap map, const unsigned* __restrict__ in, int c0, int c1, int bytes) {
  extern __shared__ __align__(1024) unsigned char shared[];
  for (int i = threadIdx.x; i < bytes / 4; i += 128) reinterpret_cast<unsigned*>(shared)[i] = in[i];
  ptx::fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::tma_store_2d(&map, shared, c0, c1);
    ptx::bulk_commit();
    ptx::bulk_wait<0>();
  }
}

// Plain bulk copies there and back.
__global__ void __launch_bounds__(64) bulk_copies(const unsigned* __restrict__ in, unsigned* __restrict__ out, int bytes) {
  __shared__ __align__(128) unsigned char room[1024];
  __shared__ unsigned long long barrier;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&barrier, 1);
    ptx::fence_proxy_async();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::mbarrier_arrive_expect_tx(&barrier, bytes);
    ptx::bulk_load(room, in, bytes, &barrier);
  }
  ptx::mbarrier_wait(&barrier, 0);
  if (threadIdx.x == 0) {
    ptx::bulk_store(out, room, bytes);
    ptx::bulk_commit();
    ptx::bulk_wait_read<0>();
  }
}

// Operands written by ordinary stores, without swizzle: 64 x 16 and 8 x 16.
__global__ void __launch_bounds__(128)
stored_operands(const unsigned short* __restrict__ a, const unsigned short* __restrict__ b, float* __restrict__ out) {
  __shared__ __align__(128) unsigned short tile_a[64 * 16];
  __shared__ __align__(128) unsigned short tile_b[8 * 16];
  const int t = threadIdx.x;
  for (int i = t; i < 1024; i += 128) tile_a[(i & 15) / 8 * 512 + (i >> 4) * 8 + (i & 7)] = a[i];
  tile_b[(t & 15) / 8 * 64 + (t >> 4) * 8 + (t & 7)] = b[t];
  ptx::fence_proxy_async();
  __syncthreads();
  float d[4];
  if (t < 128) {  // the whole warpgroup
    ptx::wgmma_fence();
    ptx::wgmma_m64k16_bf16(d, ptx::wgmma_desc(tile_a, 1024, 128, ptx::swizzle_none),
                           ptx::wgmma_desc(tile_b, 128, 128, ptx::swizzle_none), 0);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>(d);
  }
  const int row = (t >> 5) * 16 + ((t & 31) >> 2);
  for (int i = 0; i < 4; i++) out[(row + (i >> 1) * 8) * 8 + (t & 3) * 2 + (i & 1)] = d[i];
}

// Two groups take turns through named barriers; those who only hand over do not wait.
__global__ void __launch_bounds__(128) named_barriers(const float* __restrict__ x, float* __restrict__ y, int rounds) {
  __shared__ float room[64];
  const int t = threadIdx.x & 63;
  for (int round = 0; round < rounds; round++) {
    if (threadIdx.x < 64) {
      ptx::named_barrier_sync(1, 128);
      room[t] = x[round * 64 + t];
      ptx::named_barrier_arrive(2, 128);
    } else {
      ptx::named_barrier_arrive(1, 128);
      ptx::named_barrier_sync(2, 128);
      y[round * 64 + t] = room[t ^ 1];
    }
  }
}

// An mbarrier for ordinary data: one warp writes, the others wait.
__global__ void __launch_bounds__(96) mbarrier_for_stores(const float* __restrict__ x, float* __restrict__ y) {
  __shared__ float room[32];
  __shared__ unsigned long long barrier;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  if (threadIdx.x == 0) ptx::mbarrier_init(&barrier, 32);
  __syncthreads();  // the mbarrier is there
  if (warp == 0) {
    room[lane] = x[lane];
    ptx::mbarrier_arrive(&barrier);
  } else {
    ptx::mbarrier_wait(&barrier, 0);
    y[(warp - 1) * 32 + lane] = room[31 - lane];
  }
}
