// 2-D average pooling, over windows and over whole images, and the gradients.
//
//   y[n,c,p,q]  = sum of the real pixels under the window / their number, with COUNT_PAD that of its taps in the padded image
//   dx[n,c,i,j] = sum over the windows (p,q) over (i,j) of dy[n,c,p,q] / what the window was divided by
//   global:  y[n,c] = sum over i,j of x[n,c,i,j] / (H W)     dx[n,c,i,j] = dy[n,c] / (H W)
//
// Layout: (N, C, H, W) or, with CHANNELS_LAST, (N, H, W, C), without gaps.  Sums are kept in Sum<T> and added in a fixed
// order.
//
//   kernel                               | one thread (block) per                            | when
//   average_pool_forward_direct          | V outputs side by side, channels of one pixel     | V > 1: channels-last, V divides C
//   average_pool_backward_direct         | V entries of dx, likewise                         | V likewise
//   global_average_pool_forward_planar   | warp, or block, per plane                         | NCHW; blocks: large planes
//   global_average_pool_forward_last     | (block) 32 channels of an image                   | channels-last
//   global_average_pool_backward_direct  | V entries of dx, of one plane or one pixel        | V divides H W, or C
//
// Launchers: gpuconv/cuda/average_pool.py.
#include "pack.cuh"
#include "pool.cuh"

template <typename T, bool CHANNELS_LAST, bool COUNT_PAD, int V, typename Index>
__global__ void __launch_bounds__(256, 3)
average_pool_forward_direct(const T* __restrict__ x, T* __restrict__ y, const PoolShape z) {
  static_assert(CHANNELS_LAST || V == 1, "neighbours in memory share a window only if they are channels");
  const Index H = z.H, W = z.W;
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.P * z.Q / V;
  const bool aligned = is_aligned<V>(x), aligned_out = is_aligned<V>(y);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Spot<CHANNELS_LAST, Index> out = spot_of<CHANNELS_LAST, V, Index>(static_cast<Index>(i), z.C, z.P, z.Q);
    const T* image = x + out.start(z.C, H, W);
    const Index top = out.h * z.stride_v - z.pad_v, left = out.w * z.stride_h - z.pad_h;
    const Range<Index> high = taps_inside<Index>(top, z.R, z.dilation_v, H);
    const Range<Index> wide = taps_inside<Index>(left, z.S, z.dilation_h, W);
    Sum<T> sum[V] = {};
    for (Index r = high.first; r < high.end; ++r) {
      const Index row = (top + r * z.dilation_v) * W + left;
      for (Index s = wide.first; s < wide.end; ++s) {
        const Pack<T, V> pixel = load_pack<V>(image + (row + s * z.dilation_h) * step, aligned);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += widen(pixel.at[v]);
      }
    }
    const Index rows = COUNT_PAD ? taps_before<Index>(top, z.R, z.dilation_v, H + z.behind_v) : high.end - high.first;
    const Index columns = COUNT_PAD ? taps_before<Index>(left, z.S, z.dilation_h, W + z.behind_h) : wide.end - wide.first;
    const Sum<T> count = static_cast<Sum<T>>(rows) * static_cast<Sum<T>>(columns);
    Pack<T, V> mean;
#pragma unroll
    for (int v = 0; v < V; ++v) mean.at[v] = narrow<T>(sum[v] / count);
    store_pack<V>(y + i * V, mean, aligned_out);
  }
}

template <typename T, bool CHANNELS_LAST, bool COUNT_PAD, bool DILATED, int V, typename Index>
__global__ void __launch_bounds__(256, 3)
average_pool_backward_direct(const T* __restrict__ dy, T* __restrict__ dx, const PoolShape z) {
  static_assert(CHANNELS_LAST || V == 1, "neighbours in memory share windows only if they are channels");
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.H * z.W / V;
  const bool aligned = is_aligned<V>(dy), aligned_out = is_aligned<V>(dx);
  const Sum<T> whole = 1 / (static_cast<Sum<T>>(z.R) * z.S);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Spot<CHANNELS_LAST, Index> in = spot_of<CHANNELS_LAST, V, Index>(static_cast<Index>(i), z.C, z.H, z.W);
    const T* gradients = dy + in.start(z.C, z.P, z.Q);
    const Range<Index> rows = windows_over<DILATED, Index>(in.h, z.R, z.dilation_v, z.stride_v, z.pad_v, z.P);
    const Range<Index> columns = windows_over<DILATED, Index>(in.w, z.S, z.dilation_h, z.stride_h, z.pad_h, z.Q);
    Sum<T> sum[V] = {};
    for (Index p = rows.first; p < rows.end; ++p) {
      const Index top = p * z.stride_v - z.pad_v;
      if (DILATED && tap_at<DILATED, Index>(in.h - top, z.dilation_v) < 0) continue;
      const Index down = counted<DILATED, COUNT_PAD, Index>(top, z.R, z.dilation_v, z.H, z.behind_v);
      for (Index q = columns.first; q < columns.end; ++q) {
        const Index left = q * z.stride_h - z.pad_h;
        if (DILATED && tap_at<DILATED, Index>(in.w - left, z.dilation_h) < 0) continue;
        const Index across = counted<DILATED, COUNT_PAD, Index>(left, z.S, z.dilation_h, z.W, z.behind_h);
        Sum<T> share = whole;
        if (!COUNT_PAD || down != z.R || across != z.S) {
          share = 1 / (static_cast<Sum<T>>(down) * static_cast<Sum<T>>(across));
        }
        const Pack<T, V> gradient = load_pack<V>(gradients + (p * z.Q + q) * step, aligned);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += widen(gradient.at[v]) * share;
      }
    }
    Pack<T, V> total_gradient;
#pragma unroll
    for (int v = 0; v < V; ++v) total_gradient.at[v] = narrow<T>(sum[v]);
    store_pack<V>(dx + i * V, total_gradient, aligned_out);
  }
}

// THREADS work on a plane: a warp, or the whole block.
template <typename T, int THREADS>
__global__ void __launch_bounds__(256, 4)
global_average_pool_forward_planar(const T* __restrict__ x, T* __restrict__ y, long long planes, long long pixels) {
  static_assert(THREADS == 32 || THREADS == 256, "a plane is read by a warp or by a block");
  const int thread = threadIdx.x % THREADS;
  const long long plane = static_cast<long long>(blockIdx.x) * (256 / THREADS) + threadIdx.x / THREADS;
  Sum<T> sum = 0;
  if (plane < planes) {
    for (long long i = thread; i < pixels; i += THREADS) sum += widen(x[plane * pixels + i]);
  }
  sum = THREADS == 32 ? warp_sum(sum) : block_sum<256>(sum);
  if (plane < planes && thread == 0) y[plane] = narrow<T>(sum / static_cast<Sum<T>>(pixels));
}

// A block is 32 channels wide and 8 pixels high.
template <typename T>
__global__ void __launch_bounds__(256, 4)
global_average_pool_forward_last(const T* __restrict__ x, T* __restrict__ y, long long pixels, int C) {
  __shared__ Sum<T> sums[8][33];
  const int lane = threadIdx.x % 32, line = threadIdx.x / 32;
  const unsigned across = (static_cast<unsigned>(C) + 31) / 32;
  const long long image = blockIdx.x / across, c = static_cast<long long>(blockIdx.x % across) * 32 + lane;
  Sum<T> sum = 0;
  if (c < C) {
    for (long long i = line; i < pixels; i += 8) sum += widen(x[(image * pixels + i) * C + c]);
  }
  sums[line][lane] = sum;
  __syncthreads();
  if (line == 0 && c < C) {
#pragma unroll
    for (int other = 1; other < 8; ++other) sum += sums[other][lane];
    y[image * C + c] = narrow<T>(sum / static_cast<Sum<T>>(pixels));
  }
}

template <typename T, bool CHANNELS_LAST, int V, typename Index>
__global__ void __launch_bounds__(256, 4)
global_average_pool_backward_direct(const T* __restrict__ dy, T* __restrict__ dx, long long images, int C,
                                    long long pixels) {
  const bool aligned = is_aligned<V>(dy), aligned_out = is_aligned<V>(dx);
  const Index per_plane = static_cast<Index>(pixels / V), per_pixel = C / V;
  const long long total = images * C * pixels / V;
  const Sum<T> count = static_cast<Sum<T>>(pixels);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    Pack<T, V> share;
    if (CHANNELS_LAST) {
      const Index at = static_cast<Index>(i), image = at / per_pixel / static_cast<Index>(pixels);
      const Pack<T, V> gradient = load_pack<V>(dy + image * C + at % per_pixel * V, aligned);
#pragma unroll
      for (int v = 0; v < V; ++v) share.at[v] = narrow<T>(widen(gradient.at[v]) / count);
    } else {
      const T value = narrow<T>(widen(dy[static_cast<Index>(i) / per_plane]) / count);
#pragma unroll
      for (int v = 0; v < V; ++v) share.at[v] = value;
    }
    store_pack<V>(dx + i * V, share, aligned_out);
  }
}
