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
template <typename T, bool SPLIT, bool CHANNELS_LAST, bool DILATED, typename Index>
__global__ void __launch_bounds__(256, 3)
max_pool_backward_ties_direct(
    const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ dx, const PoolShape z) {
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.H * z.W;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Spot<CHANNELS_LAST, Index> in = spot_of<CHANNELS_LAST, 1, Index>(static_cast<Index>(i), z.C, z.H, z.W);
    const Index windows = in.start(z.C, z.P, z.Q), image = in.start(z.C, z.H, z.W);
    const Range<Index> rows = windows_over<DILATED, Index>(in.h, z.R, z.dilation_v, z.stride_v, z.pad_v, z.P);
    const Range<Index> columns = windows_over<DILATED, Index>(in.w, z.S, z.dilation_h, z.stride_h, z.pad_h, z.Q);
    const Sum<T> value = widen(x[i]);
    Sum<T> sum = 0;
    for (Index p = rows.first; p < rows.end; ++p) {
      if (DILATED && tap_at<DILATED, Index>(in.h + z.pad_v - p * z.stride_v, z.dilation_v) < 0) continue;
      for (Index q = columns.first; q < columns.end; ++q) {
        if (DILATED && tap_at<DILATED, Index>(in.w + z.pad_h - q * z.stride_h, z.dilation_h) < 0) continue;
        const Index at = windows + (p * z.Q + q) * step;
        if (widen(y[at]) != value) continue;
        Sum<T> share = widen(dy[at]);
        if (SPLIT) {
          const Index top = p * z.stride_v - z.pad_v, left = q * z.stride_h - z.pad_h;
          int count = 0;
          const Index down = DILATED ? z.dilation_v : 1, across = DILATED ? z.dilation_h : 1;
          const Range<Index> high = pixels_under<DILATED, Index>(top, z.R, down, z.H);
          const Range<Index> wide = pixels_under<DILATED, Index>(left, z.S, across, z.W);
          for (Index h = high.first; h < high.end; h += down) {
            for (Index w = wide.first; w < wide.end; w += across) {
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
