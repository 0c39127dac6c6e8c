// Batch normalisation of rows (N, C) and of images (N, C, H, W), forward and backward.
//
//   forward    y = (x - mean) gamma inv_std + beta,   inv_std = 1 / sqrt(variance + eps), per channel
//   training   mean and (biased) variance of the batch;   running = momentum running + (1 - momentum) batch
//   backward   dbeta = sum dy     dgamma = inv_std sum dy (x - mean)
//              dx = gamma inv_std (dy - dbeta / count - (x - mean) inv_std dgamma / count),
//              without training dx = gamma inv_std dy
//
// Layout as in channels.cuh: planes (NCHW) or rows (channels-last, and (N, C)).  Vectors of one entry per channel.
//
//   kernel                             | one block per                    | when
//   batchnorm_forward_moments          | chunk of a channel, or of        | training: x is read once
//                                      | `lanes` packs of channels        |
//   batchnorm_forward_moments_merge    | `lanes` channels                 | training: chunks to mean and variance
//   batchnorm_forward_moments_stored   | 256 channels                     | evaluation: from the running statistics
//   batchnorm_forward_normalise        | (thread) pack after pack         | always: x once more, y
//   batchnorm_backward_sums            | as forward_moments               | always: dy and x are read once
//   batchnorm_backward_sums_merge      | `lanes` channels                 | always: chunks to dgamma and dbeta
//   batchnorm_backward_data            | (thread) pack after pack         | always: dy and (training) x, dx
//
// Variance without cancellation: a chunk's first part stays in registers while its mean is found, and then the deviations
// of the whole chunk from that and their squares are added up: the chunk's mean is no further from it than the spread of
// the chunk times the root of its parts.  Chunks are merged by their distance from the mean of all.  A part's mean is
// found from deviations from its first value, so a channel of one constant value has exactly that mean, and gives beta.
// Source of the merge: Chan, Golub, LeVeque, Algorithms for computing the sample variance (1983).
// With what follows in one pass: batchnorm_fused.cu.
// Launchers: gpuconv/cuda/batchnorm.py.
#include "batchnorm.cuh"

// x   ->   partial (3, chunks, C) of each chunk: a centre c, near its mean; mean of x - c; sum of (x - c)^2.
//
// Bounds of 2 blocks a multiprocessor leave room for the values; without them ptxas spills some for a block more.
template <typename T, int V, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 2)
batchnorm_forward_moments(
    const T* __restrict__ x, Sum<T>* __restrict__ partial, Index images, Index channels, Index pixels, int lanes,
    int parts, int chunks) {
  using S = Sum<T>;
  using Share = ChannelShare<T, V, CHANNELS_LAST, Index>;
  constexpr int WIDTH = Share::WIDTH;
  __shared__ S shared[2 * WIDTH * CHANNEL_BLOCK];
  const Share share(images, channels, pixels, lanes, parts);
  const bool aligned = is_aligned<V>(x);

  S pivot[WIDTH] = {}, sum[WIDTH] = {}, centre[WIDTH], moment[2 * WIDTH] = {};
  if (share.active) {
    const T* first = x + share.first();
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) pivot[w] = widen(first[w]);
  }
  Pack<T, V> values[Share::ITEMS] = {};
  share.each_of_part(0, [&](int j, Index offset) {
    values[j] = load_pack<V>(x + offset, aligned);
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v % WIDTH] += widen(values[j].at[v]) - pivot[v % WIDTH];
  });
  lane_sums(sum, shared, lanes);

  const S first_count = static_cast<S>(share.first_count()), count = static_cast<S>(share.count());
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) centre[w] = pivot[w] + sum[w] / first_count;
  const auto take = [&](const Pack<T, V>& pack) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const S deviation = widen(pack.at[v]) - centre[v % WIDTH];
      moment[v % WIDTH] += deviation;
      moment[WIDTH + v % WIDTH] = multiply_add(deviation, deviation, moment[WIDTH + v % WIDTH]);
    }
  };
  share.each_of_part(0, [&](int j, Index) { take(values[j]); });
  for (int part = 1; part < share.parts; ++part) {
    share.each_of_part(part, [&](int, Index offset) { take(load_pack<V>(x + offset, aligned)); });
  }
  lane_sums(moment, shared, lanes);

  if (!share.writes) return;
  const long long size = static_cast<long long>(chunks) * channels;
  S* entry = partial + static_cast<long long>(share.chunk) * channels + share.channel;
  Pack<S, WIDTH> centres, means, squares;
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) {
    centres.at[w] = centre[w];
    means.at[w] = moment[w] / count;
    squares.at[w] = moment[WIDTH + w];
  }
  store_channels<WIDTH>(entry, centres);
  store_channels<WIDTH>(entry + size, means);
  store_channels<WIDTH>(entry + 2 * size, squares);
}

// What the normalisation of a channel needs of its mean and variance.
template <typename T>
__device__ __forceinline__ void batchnorm_keep_moments(
    Sum<T>* mean, Sum<T>* inv_std, long long channel, double mean_value, double variance, double eps) {
  mean[channel] = static_cast<Sum<T>>(mean_value);
  inv_std[channel] = static_cast<Sum<T>>(1.0 / sqrt(variance + eps));
}

template <typename T, typename P>
__global__ void __launch_bounds__(256)
batchnorm_forward_moments_merge(
    const Sum<T>* __restrict__ partial, Sum<T>* __restrict__ mean, Sum<T>* __restrict__ inv_std,
    P* __restrict__ running_mean, P* __restrict__ running_var, long long running_mean_step, long long running_var_step,
    long long channels, long long count, int chunks, int chunk_values, int lanes, double momentum, double eps) {
  __shared__ double shared[CHANNEL_BLOCK];
  const int lane = threadIdx.x % lanes, row = threadIdx.x / lanes, rows = CHANNEL_BLOCK / lanes;
  const long long channel = static_cast<long long>(blockIdx.x) * lanes + lane;
  const bool active = channel < channels;
  const long long size = chunks * channels;
  const Sum<T>* entry = partial + channel;
  const double origin = active ? static_cast<double>(entry[0]) + entry[size] : 0;

  double sum[1] = {}, square[1] = {};
#pragma unroll 4
  for (int chunk = row; active && chunk < chunks; chunk += rows) {
    const long long place = chunk * channels;
    const double here = static_cast<double>(entry[place]) + entry[size + place];
    const double n = min(static_cast<long long>(chunk_values), count - static_cast<long long>(chunk) * chunk_values);
    sum[0] += n * (here - origin);
  }
  lane_sums(sum, shared, lanes);
  const double centre = origin + sum[0] / count;
#pragma unroll 4
  for (int chunk = row; active && chunk < chunks; chunk += rows) {
    const long long place = chunk * channels;
    const double rounded = entry[size + place], here = static_cast<double>(entry[place]) + rounded;
    const double n = min(static_cast<long long>(chunk_values), count - static_cast<long long>(chunk) * chunk_values);
    square[0] += entry[2 * size + place] - n * rounded * rounded + n * (here - centre) * (here - centre);
  }
  lane_sums(square, shared, lanes);

  if (!active || row != 0) return;
  double variance = square[0] / count;
  if (variance < 0) variance = 0;
  batchnorm_keep_moments<T>(mean, inv_std, channel, centre, variance, eps);
  P& old_mean = running_mean[channel * running_mean_step];
  P& old_var = running_var[channel * running_var_step];
  const double new_mean = momentum * widen(old_mean) + (1 - momentum) * centre;
  const double new_var = momentum * widen(old_var) + (1 - momentum) * variance;
  old_mean = narrow<P>(static_cast<Sum<P>>(new_mean));
  old_var = narrow<P>(static_cast<Sum<P>>(new_var));
}

template <typename T, typename P>
__global__ void __launch_bounds__(256)
batchnorm_forward_moments_stored(
    const P* __restrict__ running_mean, const P* __restrict__ running_var, Sum<T>* __restrict__ mean,
    Sum<T>* __restrict__ inv_std, long long running_mean_step, long long running_var_step, long long channels,
    double eps) {
  const long long channel = thread_index();
  if (channel >= channels) return;
  const double stored_mean = widen(running_mean[channel * running_mean_step]);
  batchnorm_keep_moments<T>(mean, inv_std, channel, stored_mean, widen(running_var[channel * running_var_step]), eps);
}

// channels and per_plane in packs: see ChannelOfPack.
template <typename T, typename P, int V, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256)
batchnorm_forward_normalise(
    const T* __restrict__ x, const Sum<T>* __restrict__ mean, const Sum<T>* __restrict__ inv_std,
    const P* __restrict__ gamma, const P* __restrict__ beta, T* __restrict__ y, Index packs, Index channels,
    Index per_plane) {
  constexpr int WIDTH = CHANNELS_LAST ? V : 1;
  const bool aligned = is_aligned<V>(x) && is_aligned<V>(y);
  const Index first = static_cast<Index>(thread_index()), step = static_cast<Index>(thread_count());
  ChannelOfPack<Index> of(first, step, channels, per_plane);
  Normalisation<Sum<T>, WIDTH> normalised;
  Index loaded = -1;
  for (Index i = first; i < packs; i += step, of.next()) {
    if (of.channel != loaded) {  // in rows, most often the same from pack to pack
      loaded = of.channel;
      normalised.load(mean, inv_std, gamma, beta, loaded);
    }
    Pack<T, V> pack = load_pack<V>(x + i * V, aligned);
#pragma unroll
    for (int v = 0; v < V; ++v) pack.at[v] = narrow<T>(normalised(widen(pack.at[v]), v % WIDTH));
    store_pack<V>(y + i * V, pack, aligned);
  }
}

// dy, x   ->   partial (2, chunks, C): each chunk's sums of dy and of dy (x - mean).
template <typename T, int V, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256)
batchnorm_backward_sums(
    const T* __restrict__ dy, const T* __restrict__ x, const Sum<T>* __restrict__ mean, Sum<T>* __restrict__ partial,
    Index images, Index channels, Index pixels, int lanes, int parts, int chunks) {
  GradientAsGiven<T, V, Index> gradient(dy);
  batchnorm_gradient_sums<T, V, CHANNELS_LAST>(gradient, x, mean, partial, images, channels, pixels, lanes, parts, chunks);
}

// partial   ->   dgamma, dbeta, and coefficients (3, C) of dx = scale (dy - level - slope (x - mean)).
template <typename T, typename P>
__global__ void __launch_bounds__(256)
batchnorm_backward_sums_merge(
    const Sum<T>* __restrict__ partial, const P* __restrict__ gamma, const Sum<T>* __restrict__ inv_std,
    P* __restrict__ dgamma, P* __restrict__ dbeta, Sum<T>* __restrict__ coefficients, long long channels,
    long long count, int chunks, int lanes) {
  __shared__ double shared[2 * CHANNEL_BLOCK];
  const int lane = threadIdx.x % lanes, row = threadIdx.x / lanes, rows = CHANNEL_BLOCK / lanes;
  const long long channel = static_cast<long long>(blockIdx.x) * lanes + lane;
  const bool active = channel < channels;
  const long long size = chunks * channels;
  double sum[2] = {};
#pragma unroll 4
  for (int chunk = row; active && chunk < chunks; chunk += rows) {
    const Sum<T>* entry = partial + chunk * channels + channel;
    sum[0] += entry[0];
    sum[1] += entry[size];
  }
  lane_sums(sum, shared, lanes);
  if (!active || row != 0) return;
  const double scale = inv_std[channel], n = count > 0 ? count : 1;
  dbeta[channel] = narrow<P>(static_cast<Sum<P>>(sum[0]));
  dgamma[channel] = narrow<P>(static_cast<Sum<P>>(sum[1] * scale));
  coefficients[channel] = static_cast<Sum<T>>(widen(gamma[channel]) * scale);
  coefficients[channels + channel] = static_cast<Sum<T>>(sum[0] / n);
  coefficients[2 * channels + channel] = static_cast<Sum<T>>(sum[1] * scale / n * scale);
}

// channels and per_plane in packs: see ChannelOfPack.
template <typename T, int V, bool CHANNELS_LAST, bool TRAINING, typename Index>
__global__ void __launch_bounds__(256)
batchnorm_backward_data(
    const T* __restrict__ dy, const T* __restrict__ x, const Sum<T>* __restrict__ mean,
    const Sum<T>* __restrict__ coefficients, T* __restrict__ dx, Index packs, Index channels, Index per_plane) {
  GradientAsGiven<T, V, Index> gradient(dy);
  batchnorm_gradient_data<T, V, CHANNELS_LAST, TRAINING>(gradient, x, mean, coefficients, dx, packs, channels, per_plane);
}
