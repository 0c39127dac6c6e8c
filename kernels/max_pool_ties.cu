// The gradient of 2-D max-pooling where all of a window's equal maxima have a part in it.
//
//   dx[n,c,i,j]  = sum over the windows (p,q) with x[n,c,i,j] = y[n,c,p,q] of dy[n,c,p,q], with SPLIT divided by the
//                  number of such pixels in the window; NaN equals nothing, so a window whose maximum it is gives none
//
// Layout: (N, C, H, W) or, with CHANNELS_LAST, (N, H, W, C), without gaps.
//
//   kernel                          | one thread per   | when
//   max_pool_backward_ties_direct   | entry of dx      | always: gathered, so nothing is cleared
//
// Launchers: gpuconv/cuda/max_pool.py.
#include "pool.cuh"

// Bounds of 3 blocks a multiprocessor, or ptxas spills some values for a block more.
template <typename T, bool SPLIT, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 3)
max_pool_backward_ties_direct(
    const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ dx, const PoolShape z) {
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.H * z.W;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Spot<CHANNELS_LAST, Index> in = spot_of<CHANNELS_LAST, 1, Index>(static_cast<Index>(i), z.C, z.H, z.W);
    const Index windows = in.start(z.C, z.P, z.Q), image = in.start(z.C, z.H, z.W);
    const Range<Index> rows = windows_over<Index>(in.h, z.R, z.stride_v, z.pad_v, z.P);
    const Range<Index> columns = windows_over<Index>(in.w, z.S, z.stride_h, z.pad_h, z.Q);
    const Sum<T> value = widen(x[i]);
    Sum<T> sum = 0;
    for (Index p = rows.first; p < rows.end; ++p) {
      for (Index q = columns.first; q < columns.end; ++q) {
        const Index at = windows + (p * z.Q + q) * step;
        if (widen(y[at]) != value) continue;
        Sum<T> share = widen(dy[at]);
        if (SPLIT) {
          const Index top = p * z.stride_v - z.pad_v, left = q * z.stride_h - z.pad_h;
          int count = 0;
          for (Index h = max(top, Index(0)); h < min(top + z.R, Index(z.H)); ++h) {
            for (Index w = max(left, Index(0)); w < min(left + z.S, Index(z.W)); ++w) {
              count += widen(x[image + (h * z.W + w) * step]) == value;
            }
          }
          share /= count;
        }
        sum += share;
      }
    }
    dx[i] = narrow<T>(sum);
  }
}
