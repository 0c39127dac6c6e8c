// 2-D max-pooling and its gradient.
//
//   y[n,c,p,q]   = the first NaN of the window, or else its first maximum in row order; padding takes no part
//   argmax       = its place r S + s in the window
//   dx[n,c,i,j]  = sum over the windows (p,q) whose winner is (i,j) of dy[n,c,p,q]: gathered, so nothing is cleared
//                  (where equal maxima share it: max_pool_ties.cu)
//
// Layout: (N, C, H, W) or, with CHANNELS_LAST, (N, H, W, C), without gaps.  A window of up to 256 places has argmax in
// one byte, a larger one in an int.
//
//   kernel                     | one thread per                                  | when
//   max_pool_forward_direct    | V outputs side by side, channels of one pixel   | every case; V > 1: channels-last, V divides C
//   max_pool_backward_direct   | V entries of dx, likewise                       | every case; V likewise
//   max_pool_forward_halving   | 16 bytes in each of two rows of x               | NCHW, whole 2 x 2 windows side by side,
//   max_pool_backward_halving  | 16 bytes in each of two rows of dx              |   no padding, rows of whole 16 bytes
//
// Launchers: gpuconv/cuda/max_pool.py.
#include "pack.cuh"
#include "pool.cuh"

// WINDOW: R = S = WINDOW, known to the compiler, without dilation; 0: any.
template <typename T, typename Place, bool CHANNELS_LAST, int V, int WINDOW, typename Index>
__global__ void __launch_bounds__(256, 4)
max_pool_forward_direct(const T* __restrict__ x, T* __restrict__ y, Place* __restrict__ argmax, const PoolShape z) {
  static_assert(CHANNELS_LAST || V == 1, "neighbours in memory share a window only if they are channels");
  const Index H = z.H, W = z.W;
  const Index step = CHANNELS_LAST ? z.C : 1;
  const int R = WINDOW > 0 ? WINDOW : z.R, S = WINDOW > 0 ? WINDOW : z.S;
  const Index down = WINDOW > 0 ? 1 : z.dilation_v, across = WINDOW > 0 ? 1 : z.dilation_h;
  const long long total = static_cast<long long>(z.N) * z.C * z.P * z.Q / V;
  const bool aligned = is_aligned<V>(x), aligned_out = is_aligned<V>(y) && is_aligned<V>(argmax);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Spot<CHANNELS_LAST, Index> out = spot_of<CHANNELS_LAST, V, Index>(static_cast<Index>(i), z.C, z.P, z.Q);
    const T* image = x + out.start(z.C, H, W);
    const Index top = out.h * z.stride_v - z.pad_v, left = out.w * z.stride_h - z.pad_h;
    const int first = static_cast<int>(taps_inside<Index>(top, R, down, H).first) * S +
                      static_cast<int>(taps_inside<Index>(left, S, across, W).first);
    Sum<T> best[V];
    int place[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      best[v] = -infinity<Sum<T>>();
      place[v] = first;
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const Index h = top + r * down;
      if (h < 0 || h >= H) continue;
#pragma unroll
      for (int s = 0; s < S; ++s) {
        const Index w = left + s * across;
        if (w < 0 || w >= W) continue;
        const Pack<T, V> pixel = load_pack<V>(image + (h * W + w) * step, aligned);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const Sum<T> value = widen(pixel.at[v]);
          if (wins(value, best[v])) {
            best[v] = value;
            place[v] = r * S + s;
          }
        }
      }
    }
    Pack<T, V> winners;
    Pack<Place, V> places;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      winners.at[v] = narrow<T>(best[v]);
      places.at[v] = static_cast<Place>(place[v]);
    }
    store_pack<V>(y + i * V, winners, aligned_out);
    store_pack<V>(argmax + i * V, places, aligned_out);
  }
}

// Bounds of 2 blocks a multiprocessor where windows are dilated, or ptxas spills some values.
template <typename T, typename Place, bool CHANNELS_LAST, bool DILATED, int V, typename Index>
__global__ void __launch_bounds__(256, DILATED ? 2 : 4)
max_pool_backward_direct(const T* __restrict__ dy, const Place* __restrict__ argmax, T* __restrict__ dx,
                         const PoolShape z) {
  static_assert(CHANNELS_LAST || V == 1, "neighbours in memory share windows only if they are channels");
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.H * z.W / V;
  const bool aligned = is_aligned<V>(dy) && is_aligned<V>(argmax), aligned_out = is_aligned<V>(dx);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Spot<CHANNELS_LAST, Index> in = spot_of<CHANNELS_LAST, V, Index>(static_cast<Index>(i), z.C, z.H, z.W);
    const Index start = in.start(z.C, z.P, z.Q);
    const Range<Index> rows = windows_over<DILATED, Index>(in.h, z.R, z.dilation_v, z.stride_v, z.pad_v, z.P);
    const Range<Index> columns = windows_over<DILATED, Index>(in.w, z.S, z.dilation_h, z.stride_h, z.pad_h, z.Q);
    Sum<T> sum[V] = {};
    for (Index p = rows.first; p < rows.end; ++p) {
      const int r = tap_at<DILATED, Index>(in.h + z.pad_v - p * z.stride_v, z.dilation_v);
      if (DILATED && r < 0) continue;
      for (Index q = columns.first; q < columns.end; ++q) {
        const int s = tap_at<DILATED, Index>(in.w + z.pad_h - q * z.stride_h, z.dilation_h);
        if (DILATED && s < 0) continue;
        const int place = r * z.S + s;
        const Index at = start + (p * z.Q + q) * step;
        const Pack<Place, V> winners = load_pack<V>(argmax + at, aligned);
        const Pack<T, V> gradient = load_pack<V>(dy + at, aligned);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if (static_cast<int>(winners.at[v]) == place) sum[v] += widen(gradient.at[v]);
        }
      }
    }
    Pack<T, V> total_gradient;
#pragma unroll
    for (int v = 0; v < V; ++v) total_gradient.at[v] = narrow<T>(sum[v]);
    store_pack<V>(dx + i * V, total_gradient, aligned_out);
  }
}

// x: planes of H rows of W   ->   y, argmax: planes of P = H / 2 rows of W / 2
template <typename T, typename Index>
__global__ void __launch_bounds__(256, 4)
max_pool_forward_halving(const T* __restrict__ x, T* __restrict__ y, unsigned char* __restrict__ argmax,
                         long long planes, int H, int W) {
  constexpr int V = pack_size<T>(), HALF = V / 2;
  const Index packs = W / V, P = H / 2;
  const bool aligned = is_aligned<V>(x), aligned_out = is_aligned<HALF>(y) && is_aligned<HALF>(argmax);
  const long long total = planes * P * packs;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Index row = static_cast<Index>(i) / packs, column = static_cast<Index>(i) % packs * V;
    const Index top = row / P * H + row % P * 2;
    const Pack<T, V> upper = load_pack<V>(x + top * W + column, aligned);
    const Pack<T, V> lower = load_pack<V>(x + (top + 1) * W + column, aligned);
    Pack<T, HALF> winners;
    Pack<unsigned char, HALF> places;
#pragma unroll
    for (int v = 0; v < HALF; ++v) {
      const Sum<T> values[4] = {widen(upper.at[2 * v]), widen(upper.at[2 * v + 1]), widen(lower.at[2 * v]),
                                widen(lower.at[2 * v + 1])};
      Sum<T> best = values[0];
      int place = 0;
#pragma unroll
      for (int tap = 1; tap < 4; ++tap) {
        if (wins(values[tap], best)) {
          best = values[tap];
          place = tap;
        }
      }
      winners.at[v] = narrow<T>(best);
      places.at[v] = static_cast<unsigned char>(place);
    }
    store_pack<HALF>(y + i * HALF, winners, aligned_out);
    store_pack<HALF>(argmax + i * HALF, places, aligned_out);
  }
}

// dy, argmax: planes of H / 2 rows of W / 2   ->   dx: planes of H rows of W; an odd last row is 0
template <typename T, typename Index>
__global__ void __launch_bounds__(256, 4)
max_pool_backward_halving(const T* __restrict__ dy, const unsigned char* __restrict__ argmax, T* __restrict__ dx,
                          long long planes, int H, int W) {
  constexpr int V = pack_size<T>(), HALF = V / 2;
  const Index packs = W / V, P = H / 2, pairs = ceil_div(H, 2);
  const bool aligned = is_aligned<HALF>(dy) && is_aligned<HALF>(argmax), aligned_out = is_aligned<V>(dx);
  const long long total = planes * pairs * packs;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Index row = static_cast<Index>(i) / packs, pack = static_cast<Index>(i) % packs;
    const Index plane = row / pairs, p = row % pairs, top = (plane * H + 2 * p) * W + pack * V;
    Pack<T, V> upper = {}, lower = {};
    if (p < P) {
      const Index at = (plane * P + p) * (W / 2) + pack * HALF;
      const Pack<T, HALF> gradient = load_pack<HALF>(dy + at, aligned);
      const Pack<unsigned char, HALF> winners = load_pack<HALF>(argmax + at, aligned);
#pragma unroll
      for (int v = 0; v < HALF; ++v) {
        const int place = winners.at[v];
        if (place == 0) upper.at[2 * v] = gradient.at[v];
        if (place == 1) upper.at[2 * v + 1] = gradient.at[v];
        if (place == 2) lower.at[2 * v] = gradient.at[v];
        if (place == 3) lower.at[2 * v + 1] = gradient.at[v];
      }
      store_pack<V>(dx + top + W, lower, aligned_out);
    }
    store_pack<V>(dx + top, upper, aligned_out);
  }
}
