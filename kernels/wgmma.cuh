// Products by warpgroups of what bulk copies bring, compute capability 9.0 alone (sm_90a): what the kernels share.
//
// Two warpgroups multiply, one warp more has tiles copied.  A ring of stages lies between: `full` of a stage tells that
// its copies have landed, `empty` that every warp is done with it.  wgmma reads shared memory by itself, asynchronously:
// a stage is given back when the products that read it have been waited for.
#pragma once

#include "pack.cuh"
#include "ptx_hopper.cuh"

constexpr int WARPGROUP = 128, CONSUMERS = 2 * WARPGROUP, WGMMA_THREADS = CONSUMERS + 32;

// sum (+)= a b: 64 x 2 R sums of a warpgroup, over 16 terms of a type.  add: else what was there is forgotten.
template <int TRANS_A, int TRANS_B, int R>
__device__ __forceinline__ void add_warpgroup_product(half16, float (&sum)[R], unsigned long long a,
                                                      unsigned long long b, bool add) {
  ptx::wgmma_m64k16_f16<TRANS_A, TRANS_B>(sum, a, b, add);
}
template <int TRANS_A, int TRANS_B, int R>
__device__ __forceinline__ void add_warpgroup_product(bfloat16, float (&sum)[R], unsigned long long a,
                                                      unsigned long long b, bool add) {
  ptx::wgmma_m64k16_bf16<TRANS_A, TRANS_B>(sum, a, b, add);
}

// The stages of a ring in turn, and the parity of the phase that its user waits for: 0 of what fills, 1 of what empties.
template <int STAGES>
struct Turn {
  int stage;
  unsigned parity;

  __device__ __forceinline__ void go_on() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// mbarriers of a ring: in shared memory behind the stages.
template <int STAGES>
struct Ring {
  unsigned long long full[STAGES], empty[STAGES];

  // By one thread, before a barrier of the block.
  __device__ __forceinline__ void begin() {
    for (int i = 0; i < STAGES; ++i) {
      ptx::mbarrier_init(&full[i], 1);
      ptx::mbarrier_init(&empty[i], CONSUMERS / 32);
    }
    ptx::fence_mbarrier_init();
  }
};
