// What the kernels of batch norm alone and those that do what follows it, too, share: the normalisation of a value, and the
// two passes of the gradient over any gradient that can be told pack by pack.
#pragma once

#include "channels.cuh"

// The normalisation of WIDTH channels.
template <typename S, int WIDTH>
struct Normalisation {
  S centre[WIDTH], scale[WIDTH], shift[WIDTH];

  // Pack number `pack` of the vectors.
  template <typename P, typename Index>
  __device__ __forceinline__ void load(const S* mean, const S* inv_std, const P* gamma, const P* beta, Index pack) {
    const auto means = load_channels<WIDTH>(mean, pack), inverses = load_channels<WIDTH>(inv_std, pack);
    const auto gammas = load_channels<WIDTH>(gamma, pack), betas = load_channels<WIDTH>(beta, pack);
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) {
      centre[w] = means.at[w];
      scale[w] = static_cast<S>(widen(gammas.at[w])) * inverses.at[w];
      shift[w] = static_cast<S>(widen(betas.at[w]));
    }
  }

  // Centred before it is scaled: a channel of one constant value becomes beta exactly.
  __device__ __forceinline__ S operator()(S value, int w) const {
    return multiply_add(value - centre[w], scale[w], shift[w]);
  }
};

// A gradient of batch norm's output, pack by pack: what the two passes below ask for.
//
//   at_channels(pack)      from here on packs are of these channels, pack number `pack` of the vectors
//   (offset, value)        the gradient where x has the pack `value`, which starts `offset` values into the array
//   aligned                its packs may be read at once
//
// This one is an array.
template <typename T, int V, typename Index>
struct GradientAsGiven {
  const T* dy;
  bool aligned;

  __device__ __forceinline__ explicit GradientAsGiven(const T* dy) : dy(dy), aligned(is_aligned<V>(dy)) {}
  __device__ __forceinline__ void at_channels(Index) {}
  __device__ __forceinline__ Pack<T, V> operator()(Index offset, const Pack<T, V>&) const {
    return load_pack<V>(dy + offset, aligned);
  }
};

// gradient, x   ->   partial (2, chunks, C): each chunk's sums of dy and of dy (x - mean).
template <typename T, int V, bool CHANNELS_LAST, typename Index, typename Gradient>
__device__ __forceinline__ void batchnorm_gradient_sums(
    Gradient& gradient, const T* x, const Sum<T>* mean, Sum<T>* partial, Index images, Index channels, Index pixels,
    int lanes, int parts, int chunks) {
  using S = Sum<T>;
  using Share = ChannelShare<T, V, CHANNELS_LAST, Index>;
  constexpr int WIDTH = Share::WIDTH;
  __shared__ S shared[2 * WIDTH * CHANNEL_BLOCK];
  const Share share(images, channels, pixels, lanes, parts);
  const bool aligned = is_aligned<V>(x);

  S centre[WIDTH] = {}, sum[2 * WIDTH] = {};
  if (share.active) {
    gradient.at_channels(share.channel / WIDTH);
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) centre[w] = mean[share.channel + w];
  }
  share.each([&](int, Index offset) {
    const Pack<T, V> value = load_pack<V>(x + offset, aligned), gradients = gradient(offset, value);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const S here = widen(gradients.at[v]);
      sum[v % WIDTH] += here;
      S& product_sum = sum[WIDTH + v % WIDTH];
      product_sum = multiply_add(here, widen(value.at[v]) - centre[v % WIDTH], product_sum);
    }
  });
  lane_sums(sum, shared, lanes);

  if (!share.writes) return;
  const long long size = static_cast<long long>(chunks) * channels;
  S* entry = partial + static_cast<long long>(share.chunk) * channels + share.channel;
  Pack<S, WIDTH> gradients, products;
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) {
    gradients.at[w] = sum[w];
    products.at[w] = sum[WIDTH + w];
  }
  store_channels<WIDTH>(entry, gradients);
  store_channels<WIDTH>(entry + size, products);
}

// gradient, x   ->   dx.   channels and per_plane in packs: see ChannelOfPack.
template <typename T, int V, bool CHANNELS_LAST, bool TRAINING, typename Index, typename Gradient>
__device__ __forceinline__ void batchnorm_gradient_data(
    Gradient& gradient, const T* x, const Sum<T>* mean, const Sum<T>* coefficients, T* dx, Index packs, Index channels,
    Index per_plane) {
  using S = Sum<T>;
  constexpr int WIDTH = CHANNELS_LAST ? V : 1;
  const bool aligned = is_aligned<V>(x) && is_aligned<V>(dx);
  const Index first = static_cast<Index>(thread_index()), step = static_cast<Index>(thread_count());
  const long long vector = static_cast<long long>(channels) * WIDTH;
  ChannelOfPack<Index> of(first, step, channels, per_plane);
  Pack<S, WIDTH> centre, scale, level, slope;
  Index loaded = -1;
  for (Index i = first; i < packs; i += step, of.next()) {
    if (of.channel != loaded) {
      loaded = of.channel;
      gradient.at_channels(loaded);
      scale = load_channels<WIDTH>(coefficients, loaded);
      if (TRAINING) {
        centre = load_channels<WIDTH>(mean, loaded);
        level = load_channels<WIDTH>(coefficients + vector, loaded);
        slope = load_channels<WIDTH>(coefficients + 2 * vector, loaded);
      }
    }
    Pack<T, V> value = {};
    if (TRAINING) value = load_pack<V>(x + i * V, aligned);
    Pack<T, V> pack = gradient(i * V, value);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      S here = widen(pack.at[v]);
      if (TRAINING) {
        here = multiply_add(centre.at[v % WIDTH] - widen(value.at[v]), slope.at[v % WIDTH], here - level.at[v % WIDTH]);
      }
      pack.at[v] = narrow<T>(here * scale.at[v % WIDTH]);
    }
    store_pack<V>(dx + i * V, pack, aligned);
  }
}
