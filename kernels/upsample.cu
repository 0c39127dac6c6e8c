// Upsampling of images and volumes by whole factors, and the gradients.
//
//   nearest   y[n,c,o,p,q] = x[n,c,o / factor,p / factor,q / factor]
//             dx[n,c,d,i,j] = sum of dy[n,c,o,p,q] over the copies (o,p,q) of (d,i,j)
//   linear    y[n,c,o,p,q] = sum over the up to 2 x 2 x 2 pixels around it of x[n,c,d,i,j] a(o,d) b(p,i) c(q,j)
//             dx[n,c,d,i,j] = sum over the outputs around it of dy[n,c,o,p,q] a(o,d) b(p,i) c(q,j)
//             with the weights of an axis a(p,i) = max(0, 1 - |s(p) - i|), where s(p) = (start + p step) / span, but no
//             further out than the first and the last pixel; what has weight 0 is not read
//
// Layout: (N, C, D, H, W) or, with CHANNELS_LAST, (N, D, H, W, C), without gaps; images have D = 1 and no depth to walk
// through (VOLUMES = false).  Gradients are gathered, so nothing is cleared, and added in a fixed order: those of a row,
// of rows those of a plane, and then plane by plane, so that no sum is one long run and weights are not multiplied.
//
//   kernel                    | one thread per                                                   | when
//   upsample_forward_nearest  | V outputs side by side: of one row or, channels-last, one pixel  | V divides W factor, or C
//   upsample_backward_nearest | entry of dx, or V channels of a pixel                            | V divides C
//   upsample_forward_linear   | V outputs, as nearest                                            | V likewise
//   upsample_backward_linear  | entry of dx, or V channels of a pixel                            | V divides C
//
// Launchers: gpuconv/cuda/upsample.py.
#include "pack.cuh"

// Along depth, height and width: pixels of x, how many times as many y has, and where results of the linear one lie.
struct UpsampleShape {
  int N, C;
  int size[3], factor[3], start[3], step[3], span[3];
};

// Neighbours in memory that a thread makes: V channels of a pixel, or V columns of a row.
template <bool CHANNELS_LAST, typename Index>
struct Cell {
  Index outer;    // batch if CHANNELS_LAST, else n C + c
  Index channel;  // the first of V if CHANNELS_LAST, else 0
  Index d, h, w;

  // Where its channel begins in volumes of so many pixels.
  __device__ __forceinline__ Index start(Index C, Index pixels) const {
    return CHANNELS_LAST ? outer * pixels * C + channel : outer * pixels;
  }
};

// Cell number i of a batch of volumes, D x H x W pixels of C channels.
template <bool CHANNELS_LAST, bool VOLUMES, int V, typename Index>
__device__ __forceinline__ Cell<CHANNELS_LAST, Index> cell_of(Index i, Index C, Index D, Index H, Index W) {
  Cell<CHANNELS_LAST, Index> cell;
  cell.channel = 0;
  if (CHANNELS_LAST) {
    const Index packs = C / V;
    cell.channel = i % packs * V;
    i /= packs;
  } else {
    W /= V;
  }
  cell.w = i % W * (CHANNELS_LAST ? 1 : V);
  i /= W;
  cell.h = i % H;
  i /= H;
  cell.d = VOLUMES ? i % D : 0;
  cell.outer = VOLUMES ? i / D : i;
  return cell;
}

// The pixel before a result along an axis, and how far behind it the result lies, in parts of the span.
template <typename Index>
struct Between {
  Index pixel, rest;
};

template <typename Index>
__device__ __forceinline__ Between<Index> between(const UpsampleShape& z, int axis, Index at) {
  const Index span = z.span[axis];
  const Index place = z.start[axis] + at * z.step[axis] + span;  // one pixel further: not below 0
  return {place / span - 1, place % span};
}

// The next result's.
template <typename Index>
__device__ __forceinline__ void advance(const UpsampleShape& z, int axis, Between<Index>& at) {
  at.rest += z.step[axis];
  if (at.rest >= z.span[axis]) {
    at.rest -= z.span[axis];
    ++at.pixel;
  }
}

// The one or two pixels that a result is made of, and their weights.
template <typename S, typename Index>
struct Ends {
  Index first;
  int count;
  S near, far;
  __device__ __forceinline__ S weight(int i) const { return i == 0 ? near : far; }
};

template <typename S, typename Index>
__device__ __forceinline__ Ends<S, Index> ends_of(const UpsampleShape& z, int axis, Between<Index> at, S part) {
  const Index last = z.size[axis] - 1;
  if (at.pixel < 0) return {0, 1, S(1), S(0)};
  if (at.pixel >= last || at.rest == 0) return {at.pixel, 1, S(1), S(0)};
  return {at.pixel, 2, static_cast<S>(z.span[axis] - at.rest) * part, static_cast<S>(at.rest) * part};
}

// One part of the span, in pixels.
template <typename S>
__device__ __forceinline__ S part_of(const UpsampleShape& z, int axis) {
  return S(1) / static_cast<S>(z.span[axis]);
}

template <typename Index>
struct Results {
  Index first, end;
};

// The results along an axis that have a pixel as one of their ends.
template <typename Index>
__device__ __forceinline__ Results<Index> results_around(const UpsampleShape& z, int axis, Index pixel) {
  const Index start = z.start[axis], step = z.step[axis], span = z.span[axis];
  const Index first = pixel == 0 ? 0 : ((pixel - 1) * span - start) / step + 1;
  const Index all = static_cast<Index>(z.size[axis]) * z.factor[axis];
  return {first, pixel == z.size[axis] - 1 ? all : ceil_div<Index>((pixel + 1) * span - start, step)};
}

// How far one of them lies from the pixel, in parts of the span.
template <typename Index>
__device__ __forceinline__ Index distance_of(const UpsampleShape& z, int axis, Index pixel, Index result) {
  const Index behind = z.start[axis] + result * z.step[axis] - pixel * z.span[axis];
  if (behind < 0) return pixel == 0 ? 0 : -behind;
  return pixel == z.size[axis] - 1 ? 0 : behind;
}

// The pixel's weight in it.
template <typename S, typename Index>
__device__ __forceinline__ S weight_of(const UpsampleShape& z, int axis, Index pixel, Index result) {
  return static_cast<S>(z.span[axis] - distance_of(z, axis, pixel, result)) / static_cast<S>(z.span[axis]);
}

template <typename T, bool CHANNELS_LAST, bool VOLUMES, int V, typename Index>
__global__ void __launch_bounds__(256, 4)
upsample_forward_nearest(const T* __restrict__ x, T* __restrict__ y, const UpsampleShape z) {
  const Index D = z.size[0], H = z.size[1], W = z.size[2], across = z.factor[2];
  const Index Z = D * z.factor[0], P = H * z.factor[1], Q = W * across;
  const long long total = static_cast<long long>(z.N) * z.C * Z * P * Q / V;
  const bool aligned = is_aligned<V>(x), aligned_out = is_aligned<V>(y);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto out = cell_of<CHANNELS_LAST, VOLUMES, V, Index>(static_cast<Index>(i), z.C, Z, P, Q);
    const Index plane = VOLUMES ? out.d / z.factor[0] : 0, row = plane * H + out.h / z.factor[1];
    const T* volume = x + out.start(z.C, D * H * W);
    Index column = out.w / across;
    Pack<T, V> copies;
    if (CHANNELS_LAST) {
      copies = load_pack<V>(volume + (row * W + column) * z.C, aligned);
    } else {
      Index left = across - out.w % across;  // copies of this column
#pragma unroll
      for (int v = 0; v < V; ++v) {
        copies.at[v] = volume[row * W + column];
        if (--left == 0) {
          left = across;
          ++column;
        }
      }
    }
    store_pack<V>(y + i * V, copies, aligned_out);
  }
}

template <typename T, bool CHANNELS_LAST, bool VOLUMES, int V, typename Index>
__global__ void __launch_bounds__(256, 4)
upsample_backward_nearest(const T* __restrict__ dy, T* __restrict__ dx, const UpsampleShape z) {
  static_assert(CHANNELS_LAST || V == 1, "neighbours in memory share copies only if they are channels");
  const Index D = z.size[0], H = z.size[1], W = z.size[2];
  const Index deep = VOLUMES ? z.factor[0] : 1, down = z.factor[1], across = z.factor[2];
  const Index P = H * down, Q = W * across, pixel = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * D * H * W / V;
  const bool aligned = is_aligned<V>(dy), aligned_out = is_aligned<V>(dx);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto in = cell_of<CHANNELS_LAST, VOLUMES, V, Index>(static_cast<Index>(i), z.C, D, H, W);
    const T* gradients = dy + in.start(z.C, D * deep * P * Q);
    Sum<T> sum[V] = {};
    for (Index o = in.d * deep; o < (in.d + 1) * deep; ++o) {
      Sum<T> of_plane[V] = {};
      for (Index p = in.h * down; p < (in.h + 1) * down; ++p) {
        const T* row = gradients + ((o * P + p) * Q + in.w * across) * pixel;
        Sum<T> of_row[V] = {};
        for (Index q = 0; q < across; ++q) {
          const Pack<T, V> gradient = load_pack<V>(row + q * pixel, aligned);
#pragma unroll
          for (int v = 0; v < V; ++v) of_row[v] += widen(gradient.at[v]);
        }
#pragma unroll
        for (int v = 0; v < V; ++v) of_plane[v] += of_row[v];
      }
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += of_plane[v];
    }
    Pack<T, V> gathered;
#pragma unroll
    for (int v = 0; v < V; ++v) gathered.at[v] = narrow<T>(sum[v]);
    store_pack<V>(dx + i * V, gathered, aligned_out);
  }
}

template <typename T, bool CHANNELS_LAST, bool VOLUMES, int V, typename Index>
__global__ void __launch_bounds__(256, 4)
upsample_forward_linear(const T* __restrict__ x, T* __restrict__ y, const UpsampleShape z) {
  const Index D = z.size[0], H = z.size[1], W = z.size[2];
  const Index Z = D * z.factor[0], P = H * z.factor[1], Q = W * z.factor[2];
  const long long total = static_cast<long long>(z.N) * z.C * Z * P * Q / V;
  const bool aligned = is_aligned<V>(x), aligned_out = is_aligned<V>(y);
  const Sum<T> part_d = part_of<Sum<T>>(z, 0), part_v = part_of<Sum<T>>(z, 1), part_h = part_of<Sum<T>>(z, 2);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto out = cell_of<CHANNELS_LAST, VOLUMES, V, Index>(static_cast<Index>(i), z.C, Z, P, Q);
    const T* volume = x + out.start(z.C, D * H * W);
    Ends<Sum<T>, Index> deep = {0, 1, Sum<T>(1), Sum<T>(0)};
    if (VOLUMES) deep = ends_of(z, 0, between(z, 0, out.d), part_d);
    const auto down = ends_of(z, 1, between(z, 1, out.h), part_v);
    const Between<Index> left = between(z, 2, out.w);
    Sum<T> sum[V] = {};
    for (int a = 0; a < deep.count; ++a) {
      for (int b = 0; b < down.count; ++b) {
        const Index row = ((deep.first + a) * H + down.first + b) * W;
        const Sum<T> weight = deep.weight(a) * down.weight(b);
        if (CHANNELS_LAST) {
          const auto across = ends_of(z, 2, left, part_h);
          for (int c = 0; c < across.count; ++c) {
            const Pack<T, V> pixel = load_pack<V>(volume + (row + across.first + c) * z.C, aligned);
#pragma unroll
            for (int v = 0; v < V; ++v) {
              sum[v] = multiply_add(widen(pixel.at[v]), weight * across.weight(c), sum[v]);
            }
          }
        } else {
          Between<Index> at = left;
#pragma unroll
          for (int v = 0; v < V; ++v) {
            const auto across = ends_of(z, 2, at, part_h);
            for (int c = 0; c < across.count; ++c) {
              sum[v] = multiply_add(widen(volume[row + across.first + c]), weight * across.weight(c), sum[v]);
            }
            advance(z, 2, at);
          }
        }
      }
    }
    Pack<T, V> values;
#pragma unroll
    for (int v = 0; v < V; ++v) values.at[v] = narrow<T>(sum[v]);
    store_pack<V>(y + i * V, values, aligned_out);
  }
}

template <typename T, bool CHANNELS_LAST, bool VOLUMES, int V, typename Index>
__global__ void __launch_bounds__(256, 3)
upsample_backward_linear(const T* __restrict__ dy, T* __restrict__ dx, const UpsampleShape z) {
  static_assert(CHANNELS_LAST || V == 1, "neighbours in memory share weights only if they are channels");
  const Index D = z.size[0], H = z.size[1], W = z.size[2];
  const Index Z = D * z.factor[0], P = H * z.factor[1], Q = W * z.factor[2], pixel = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * D * H * W / V;
  const bool aligned = is_aligned<V>(dy), aligned_out = is_aligned<V>(dx);
  const Sum<T> part = part_of<Sum<T>>(z, 2);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto in = cell_of<CHANNELS_LAST, VOLUMES, V, Index>(static_cast<Index>(i), z.C, D, H, W);
    const T* gradients = dy + in.start(z.C, Z * P * Q);
    Results<Index> planes = {0, 1};
    if (VOLUMES) planes = results_around(z, 0, in.d);
    const auto rows = results_around(z, 1, in.h), columns = results_around(z, 2, in.w);
    Sum<T> sum[V] = {};
    for (Index o = planes.first; o < planes.end; ++o) {
      Sum<T> of_plane[V] = {};
      for (Index p = rows.first; p < rows.end; ++p) {
        const T* row = gradients + (o * P + p) * Q * pixel;
        Sum<T> of_row[V] = {};
        for (Index q = columns.first; q < columns.end; ++q) {
          const Index distance = distance_of(z, 2, in.w, q);
          const Sum<T> weight = distance == 0 ? Sum<T>(1) : static_cast<Sum<T>>(z.span[2] - distance) * part;
          const Pack<T, V> gradient = load_pack<V>(row + q * pixel, aligned);
#pragma unroll
          for (int v = 0; v < V; ++v) of_row[v] = multiply_add(widen(gradient.at[v]), weight, of_row[v]);
        }
        const Sum<T> weight = weight_of<Sum<T>>(z, 1, in.h, p);
#pragma unroll
        for (int v = 0; v < V; ++v) of_plane[v] = multiply_add(of_row[v], weight, of_plane[v]);
      }
      const Sum<T> weight = VOLUMES ? weight_of<Sum<T>>(z, 0, in.d, o) : Sum<T>(1);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] = multiply_add(of_plane[v], weight, sum[v]);
    }
    Pack<T, V> gathered;
#pragma unroll
    for (int v = 0; v < V; ++v) gathered.at[v] = narrow<T>(sum[v]);
    store_pack<V>(dx + i * V, gathered, aligned_out);
  }
}
