// Group normalisation of images (N, C, H, W) and layer normalisation of rows (N, D = C), forward and backward.
//
//   forward    y = (x - mean) inv_std gamma + beta,   inv_std = 1 / sqrt(variance + eps), per image and group
//   backward   g = gamma dy   dx = inv_std (g - mean(g) - x_hat mean(g x_hat)),   x_hat = (x - mean) inv_std
//              dgamma = sum of dy x_hat     dbeta = sum of dy,   per channel
//
// A group is `channels / groups` neighbouring channels of one image.  Images are stored as (N, C, pixels) or, with
// CHANNELS_LAST, as (N, pixels, C), rows as the latter with one pixel.  gamma, beta: (C,); mean, inv_std: (N, groups).
//
//   kernel                        | one block per           | when
//   groupnorm_forward_direct      | image and group         | always: x is read three times, mostly from the cache
//   groupnorm_backward_data       | image and group         | always: dy and x are read twice
//   groupnorm_backward_weights    | chunk of a channel, as  | always: dy and x are read once more;
//                                 |   in channels.cuh       |   channel_sums_merge of reduce.cu adds up the chunks
//
// The mean is found from deviations from the group's first value, so that a group of one constant value has exactly
// that mean and gives beta; the variance from deviations from the mean, so that nothing cancels.
// Launchers: gpuconv/cuda/groupnorm.py.
#include "channels.cuh"

// Bounds of 4 blocks a multiprocessor leave room for the sums; without them ptxas spills some for a block more.
constexpr int GROUP_BLOCK = 256;
constexpr int GROUP_RUN = 16;  // values added up before the sum is carried on in float64

// A sum of any number of values, as accurate as one of a few.
template <typename S>
struct LongSum {
  double total = 0;
  S run = 0;
  int length = 0;

  __device__ __forceinline__ void add(S value) {
    run += value;
    if (++length == GROUP_RUN) carry();
  }
  __device__ __forceinline__ void carry() {
    total += run;
    run = 0;
    length = 0;
  }
  // The sum over the block, to every thread.
  __device__ __forceinline__ double of_block() {
    carry();
    return block_sum<GROUP_BLOCK>(total);
  }
};

// The values of the block's group, numbered from 0.
template <bool CHANNELS_LAST, typename Index>
struct Group {
  Index channels, pixels, members, size;
  Index first;    // channel
  Index start;    // where the group's image begins, or the group itself if not CHANNELS_LAST
  __device__ __forceinline__ Group(Index channels, Index pixels, int groups)
      : channels(channels), pixels(pixels), members(channels / groups) {
    size = members * pixels;
    const Index image = static_cast<Index>(blockIdx.x) / groups;
    first = static_cast<Index>(blockIdx.x) % groups * members;
    start = image * channels * pixels + (CHANNELS_LAST ? first : first * pixels);
  }
  __device__ __forceinline__ Index place(Index i) const {
    return CHANNELS_LAST ? start + i / members * channels + i % members : start + i;
  }
  __device__ __forceinline__ Index channel(Index i) const {
    return first + (CHANNELS_LAST ? i % members : i / pixels);
  }
};

template <typename T, typename P, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 4)
groupnorm_forward_direct(
    const T* __restrict__ x, const P* __restrict__ gamma, const P* __restrict__ beta, T* __restrict__ y,
    Sum<T>* __restrict__ mean, Sum<T>* __restrict__ inv_std, Index channels, Index pixels, int groups, double eps) {
  using S = Sum<T>;
  const Group<CHANNELS_LAST, Index> group(channels, pixels, groups);
  const S pivot = widen(x[group.place(0)]);
  LongSum<S> offset, rounded, square;
  for (Index i = threadIdx.x; i < group.size; i += GROUP_BLOCK) offset.add(widen(x[group.place(i)]) - pivot);
  const S centre = static_cast<S>(pivot + offset.of_block() / group.size);
  for (Index i = threadIdx.x; i < group.size; i += GROUP_BLOCK) {
    const S deviation = widen(x[group.place(i)]) - centre;
    rounded.add(deviation);
    square.add(deviation * deviation);
  }
  const double drift = rounded.of_block() / group.size;  // of the centre, which is rounded
  double variance = square.of_block() / group.size - drift * drift;
  if (variance < 0) variance = 0;
  const S factor = static_cast<S>(1.0 / sqrt(variance + eps));
  if (threadIdx.x == 0) {
    mean[blockIdx.x] = centre;
    inv_std[blockIdx.x] = factor;
  }
  for (Index i = threadIdx.x; i < group.size; i += GROUP_BLOCK) {
    const Index place = group.place(i), channel = group.channel(i);
    const S scale = static_cast<S>(widen(gamma[channel])) * factor;
    // Centred before it is scaled: a group of one constant value becomes beta exactly.
    y[place] = narrow<T>(multiply_add(widen(x[place]) - centre, scale, static_cast<S>(widen(beta[channel]))));
  }
}

template <typename T, typename P, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 4)
groupnorm_backward_data(
    const T* __restrict__ dy, const T* __restrict__ x, const P* __restrict__ gamma, const Sum<T>* __restrict__ mean,
    const Sum<T>* __restrict__ inv_std, T* __restrict__ dx, Index channels, Index pixels, int groups) {
  using S = Sum<T>;
  const Group<CHANNELS_LAST, Index> group(channels, pixels, groups);
  const S centre = mean[blockIdx.x], factor = inv_std[blockIdx.x];
  LongSum<S> sum, weighted;
  for (Index i = threadIdx.x; i < group.size; i += GROUP_BLOCK) {
    const Index place = group.place(i);
    const S gradient = widen(dy[place]) * static_cast<S>(widen(gamma[group.channel(i)]));
    sum.add(gradient);
    weighted.add(gradient * ((widen(x[place]) - centre) * factor));
  }
  const S level = static_cast<S>(sum.of_block() / group.size);
  const S slope = static_cast<S>(weighted.of_block() / group.size);
  for (Index i = threadIdx.x; i < group.size; i += GROUP_BLOCK) {
    const Index place = group.place(i);
    const S gradient = widen(dy[place]) * static_cast<S>(widen(gamma[group.channel(i)]));
    const S x_hat = (widen(x[place]) - centre) * factor;
    dx[place] = narrow<T>(multiply_add(-x_hat, slope, gradient - level) * factor);
  }
}

// dy, x   ->   partial (2, chunks, C): each chunk's sums of dy x_hat and of dy.  image: values of one image.
template <typename T, int V, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 4)
groupnorm_backward_weights(
    const T* __restrict__ dy, const T* __restrict__ x, const Sum<T>* __restrict__ mean,
    const Sum<T>* __restrict__ inv_std, Sum<T>* __restrict__ partial, Index images, Index channels, Index pixels,
    Index image, int groups, int lanes, int parts, int chunks) {
  using S = Sum<T>;
  using Share = ChannelShare<T, V, CHANNELS_LAST, Index>;
  constexpr int WIDTH = Share::WIDTH;
  __shared__ S shared[2 * WIDTH * CHANNEL_BLOCK];
  const Share share(images, channels, pixels, lanes, parts);
  const bool aligned = is_aligned<V>(x) && is_aligned<V>(dy);
  const Index members = channels / groups;

  S sum[2 * WIDTH] = {};
  share.each([&](int, Index offset) {
    const Pack<T, V> gradient = load_pack<V>(dy + offset, aligned), value = load_pack<V>(x + offset, aligned);
    const Index row = offset / image * groups;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Index group = row + (share.channel + v % WIDTH) / members;
      const S here = widen(gradient.at[v]);
      const S x_hat = (widen(value.at[v]) - mean[group]) * inv_std[group];
      sum[v % WIDTH] = multiply_add(here, x_hat, sum[v % WIDTH]);
      sum[WIDTH + v % WIDTH] += here;
    }
  });
  lane_sums(sum, shared, lanes);

  if (!share.writes) return;
  const long long size = static_cast<long long>(chunks) * channels;
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) {
    S* entry = partial + static_cast<long long>(share.chunk) * channels + share.channel + w;
    entry[0] = sum[w];
    entry[size] = sum[WIDTH + w];
  }
}
