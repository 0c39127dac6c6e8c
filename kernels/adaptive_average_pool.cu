// Average pooling to a size, of signals, images and volumes, and the gradient.
//
//   y[n,c,o,p,q]  = mean of x[n,c,d,i,j] over floor(p H / P) <= i < ceil((p + 1) H / P), and d, j likewise
//   dx[n,c,d,i,j] = sum over the windows (o,p,q) over (d,i,j) of dy[n,c,o,p,q] / the number of their pixels
//
// Layout: (N, C, D, H, W) or, with CHANNELS_LAST, (N, D, H, W, C), without gaps; images have D = Z = 1.  The rows of a window
// are added up one by one, then together, in a fixed order, in Sum<T>.
//
// Window p has pixel i where p H < (i + 1) P and i P < (p + 1) H.  With H and P exchanged that is when window i of H over
// P pixels has pixel p: so the windows over a pixel are a range, found as a window's pixels are.
//
//   kernel                                 | one thread per                                      | when
//   adaptive_average_pool_forward_direct   | V outputs side by side, channels of one pixel       | V > 1: channels-last, V divides C
//   adaptive_average_pool_backward_direct  | V entries of dx, likewise                           | V likewise
//
// Where all windows are of one size and side by side the operator takes the kernels of average_pool.cu.
//
// Launchers: gpuconv/cuda/adaptive_average_pool.py.
#include "pack.cuh"
#include "pool.cuh"

struct AdaptivePoolShape {
  int N, C, D, H, W, Z, P, Q;
};

// The pixels of window `at` of so many over `size` pixels along one axis; or the windows over pixel `at`.
template <typename Index>
__device__ __forceinline__ Range<Index> adaptive_window(Index at, Index size, Index windows) {
  return {at * size / windows, ceil_div((at + 1) * size, windows)};
}

// How many pixels that window has.
template <typename Index>
__device__ __forceinline__ Index adaptive_count(Index at, Index size, Index windows) {
  const Range<Index> window = adaptive_window<Index>(at, size, windows);
  return window.end - window.first;
}

template <typename T, bool CHANNELS_LAST, int V, typename Index>
__global__ void __launch_bounds__(256, 3)
adaptive_average_pool_forward_direct(const T* __restrict__ x, T* __restrict__ y, const AdaptivePoolShape z) {
  static_assert(CHANNELS_LAST || V == 1, "neighbours in memory share a window only if they are channels");
  const Index D = z.D, H = z.H, W = z.W, P = z.P;
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.Z * z.P * z.Q / V;
  const bool aligned = is_aligned<V>(x), aligned_out = is_aligned<V>(y);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Spot<CHANNELS_LAST, Index> out = spot_of<CHANNELS_LAST, V, Index>(static_cast<Index>(i), z.C, z.Z * P, z.Q);
    const T* volume = x + out.start(z.C, D * H, W);
    const Range<Index> deep = adaptive_window<Index>(out.h / P, D, z.Z);
    const Range<Index> high = adaptive_window<Index>(out.h % P, H, P);
    const Range<Index> wide = adaptive_window<Index>(out.w, W, z.Q);
    Sum<T> sum[V] = {};
    for (Index d = deep.first; d < deep.end; ++d) {
      for (Index h = high.first; h < high.end; ++h) {
        Sum<T> row[V] = {};
        for (Index w = wide.first; w < wide.end; ++w) {
          const Pack<T, V> pixel = load_pack<V>(volume + ((d * H + h) * W + w) * step, aligned);
#pragma unroll
          for (int v = 0; v < V; ++v) row[v] += widen(pixel.at[v]);
        }
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += row[v];
      }
    }
    const Sum<T> count = static_cast<Sum<T>>(deep.end - deep.first) * static_cast<Sum<T>>(high.end - high.first) *
                         static_cast<Sum<T>>(wide.end - wide.first);
    Pack<T, V> mean;
#pragma unroll
    for (int v = 0; v < V; ++v) mean.at[v] = narrow<T>(sum[v] / count);
    store_pack<V>(y + i * V, mean, aligned_out);
  }
}

template <typename T, bool CHANNELS_LAST, int V, typename Index>
__global__ void __launch_bounds__(256, 3)
adaptive_average_pool_backward_direct(const T* __restrict__ dy, T* __restrict__ dx, const AdaptivePoolShape z) {
  static_assert(CHANNELS_LAST || V == 1, "neighbours in memory share windows only if they are channels");
  const Index D = z.D, H = z.H, W = z.W, Z = z.Z, P = z.P, Q = z.Q;
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.D * z.H * z.W / V;
  const bool aligned = is_aligned<V>(dy), aligned_out = is_aligned<V>(dx);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Spot<CHANNELS_LAST, Index> in = spot_of<CHANNELS_LAST, V, Index>(static_cast<Index>(i), z.C, D * H, W);
    const T* gradients = dy + in.start(z.C, Z * P, Q);
    const Range<Index> planes = adaptive_window<Index>(in.h / H, Z, D);
    const Range<Index> rows = adaptive_window<Index>(in.h % H, P, H);
    const Range<Index> columns = adaptive_window<Index>(in.w, Q, W);
    Sum<T> sum[V] = {};
    for (Index o = planes.first; o < planes.end; ++o) {
      const Sum<T> far = static_cast<Sum<T>>(adaptive_count<Index>(o, D, Z));
      for (Index p = rows.first; p < rows.end; ++p) {
        const Sum<T> high = far * static_cast<Sum<T>>(adaptive_count<Index>(p, H, P));
        Sum<T> row[V] = {};
        for (Index q = columns.first; q < columns.end; ++q) {
          const Sum<T> share = 1 / (high * static_cast<Sum<T>>(adaptive_count<Index>(q, W, Q)));
          const Pack<T, V> gradient = load_pack<V>(gradients + ((o * P + p) * Q + q) * step, aligned);
#pragma unroll
          for (int v = 0; v < V; ++v) row[v] += widen(gradient.at[v]) * share;
        }
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += row[v];
      }
    }
    Pack<T, V> total_gradient;
#pragma unroll
    for (int v = 0; v < V; ++v) total_gradient.at[v] = narrow<T>(sum[v]);
    store_pack<V>(dx + i * V, total_gradient, aligned_out);
  }
}
