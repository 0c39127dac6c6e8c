// The gradient of a convolution's filters by warpgroups, compute capability 9.0 alone (sm_90a): float16 and bfloat16.
//
//   dw[k,c,r,s] = sum over n,p,q of dy[n,k,p,q] x[n,c,i,j]        i = p stride - pad + r dilation, j likewise
//
// Layout: x is (N, H, W, C), dy (N, P, Q, K), without gaps and aligned to 16 bytes; C and K are multiples of 8, and there
// is one group.  conv_backward_sum of conv.cu adds the slices of `partial` in order.
//
//   kernel                     | one block per                               | when
//   conv_backward_weight_wgmma | FILTERS x COLUMNS of dw and slice of pixels | 16-bit types, windows that the box allows
//
// A column is a tap and a channel; 64 channels of a tap come together, as a box, zeros behind the last channel.  A step
// is DEPTH pixels: dy's by bulk copies of 64 filters, x's under the taps by others in im2col mode, see conv_wgmma.cuh.
// Both lie as they lie in memory, a line of 128 bytes a pixel, and wgmma reads them downwards.  A warpgroup makes 64
// filters and half of what is left of the tile.
//
// Tensor cores cut sums off, so a long one drifts towards zero: after each `run` of steps the sums are added to totals,
// rounded to nearest, in registers.
//
// Source: PTX ISA, wgmma.mma_async, canonical layouts of operands that lie downwards.
// Launchers: gpuconv/cuda/conv_weight_wgmma.py.
#include "conv.cuh"
#include "wgmma.cuh"

// partial: (slices, K, R S, C), slice = blockIdx.y over the pixels [slice length, (slice + 1) length) of all images
template <typename T, int FILTERS, int COLUMNS, int DEPTH, int STAGES>
__global__ void __launch_bounds__(288, FILTERS * COLUMNS > 128 * 64 ? 1 : 2)
conv_backward_weight_wgmma(const __grid_constant__ ptx::TensorMap dy, const __grid_constant__ ptx::TensorMap x,
                           float* __restrict__ partial, const ConvShape z, int length, int run) {
  constexpr int SIDE = 64, LINE = 128, BOX = DEPTH * LINE;  // filters, or channels, of a box; bytes of its lines, of it
  constexpr int DOWN = FILTERS / SIDE, BOXES = COLUMNS / SIDE, STAGE = (DOWN + BOXES) * BOX;
  constexpr int OWN = BOXES * DOWN / 2;  // boxes of columns of a warpgroup
  static_assert(DOWN == 1 || DOWN == 2, "each warpgroup makes 64 filters");
  static_assert(BOXES * DOWN % 2 == 0 && (OWN == 1 || OWN == 2), "a warpgroup makes 64 or 128 columns");
  static_assert(sizeof(T) * SIDE == LINE && DEPTH % 16 == 0, "a line of a box is a pattern of the swizzle");
  extern __shared__ __align__(1024) unsigned char shared[];
  Ring<STAGES>& ring = *reinterpret_cast<Ring<STAGES>*>(shared + STAGES * STAGE);
  if (threadIdx.x == 0) ring.begin();
  __syncthreads();

  const int slices = ceil_div(z.C, SIDE), boxes = z.R * z.S * slices, tiles = ceil_div(boxes, BOXES);
  const int box0 = blockIdx.x % tiles * BOXES, filter0 = blockIdx.x / tiles * FILTERS;
  const int begin = blockIdx.y * length, end = min(begin + length, z.N * z.P * z.Q);
  const int steps = ceil_div(end - begin, DEPTH), thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  Turn<STAGES> turn = {0, 0};

  if (warp == CONSUMERS / 32) {
    if (!ptx::elect_one()) return;
    ptx::tma_prefetch(&dy);
    ptx::tma_prefetch(&x);
    for (int step = 0; step < steps; ++step) {
      const int pixel = begin + step * DEPTH, row = pixel / z.Q, q = pixel - row * z.Q, n = row / z.P, p = row - n * z.P;
      ptx::mbarrier_wait(&ring.empty[turn.stage], turn.parity ^ 1);
      ptx::mbarrier_arrive_expect_tx(&ring.full[turn.stage], STAGE);
      unsigned char* const to = shared + turn.stage * STAGE;
#pragma unroll
      for (int i = 0; i < DOWN; ++i) {
        ptx::tma_load_2d(to + i * BOX, &dy, &ring.full[turn.stage], filter0 + i * SIDE, pixel);
      }
#pragma unroll
      for (int i = 0; i < BOXES; ++i) {
        const int box = min(box0 + i, boxes - 1), tap = box / slices, r = tap / z.S, s = tap - r * z.S;
        ptx::tma_load_im2col_4d(to + (DOWN + i) * BOX, &x, &ring.full[turn.stage], (box - tap * slices) * SIDE,
                                q * z.stride_h - z.pad_h, p * z.stride_v - z.pad_v, n,
                                static_cast<unsigned short>(s * z.dilation_h),
                                static_cast<unsigned short>(r * z.dilation_v));
      }
      turn.go_on();
    }
    return;
  }

  const int group = thread / WARPGROUP, below = group % DOWN, beside = group / DOWN * OWN;
  float sum[OWN * SIDE / 2], total[OWN * SIDE / 2] = {};
  for (int first = 0; first < steps; first += run) {
    const int last = min(first + run, steps);
    int before = 0;
    for (int step = first; step < last; ++step) {
      ptx::mbarrier_wait(&ring.full[turn.stage], turn.parity);
      const unsigned char* const a = shared + turn.stage * STAGE + below * BOX;
      const unsigned char* const b = shared + turn.stage * STAGE + (DOWN + beside) * BOX;
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < BOX; k += 16 * LINE) {
        add_warpgroup_product<1, 1>(T{}, sum, ptx::wgmma_desc(a + k, BOX, 8 * LINE, ptx::swizzle_128),
                                       ptx::wgmma_desc(b + k, BOX, 8 * LINE, ptx::swizzle_128), step - first + k > 0);
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();  // the step before has been multiplied, its stage is free
      if (step > first && lane == 0) ptx::mbarrier_arrive(&ring.empty[before]);
      before = turn.stage;
      turn.go_on();
    }
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(sum);
    if (lane == 0) ptx::mbarrier_arrive(&ring.empty[before]);
#pragma unroll
    for (int i = 0; i < OWN * SIDE / 2; ++i) total[i] += sum[i];
  }

  const int taps = z.R * z.S, filter = filter0 + below * SIDE + warp % 4 * 16 + lane / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float* const row = partial + (static_cast<long long>(blockIdx.y) * z.K + filter + 8 * half) * taps * z.C;
#pragma unroll
    for (int j = 0; j < OWN * SIDE / 8; ++j) {
      const int box = box0 + beside + j / 8, tap = box / slices;
      const int c = (box - tap * slices) * SIDE + j % 8 * 8 + lane % 4 * 2;
      if (filter + 8 * half >= z.K || box >= boxes || c >= z.C) continue;
      *reinterpret_cast<Pack<float, 2>*>(row + tap * z.C + c) = {total[4 * j + 2 * half], total[4 * j + 2 * half + 1]};
    }
  }
}
