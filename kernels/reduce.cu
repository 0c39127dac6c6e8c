// Sums over everything but the channels: gradients of biases.  And whether all numbers of an array are finite, and what
// their squares add up to.
//
//   out[c] = sum over n, p of x[n, c, p]
//
// Layout as in channels.cuh: planes (NCHW) or rows (channels-last, and (N, C)).
//
//   kernel               | one block per
//   channel_sums         | chunk of a channel, or of `lanes` packs of channels
//   channel_sums_merge   | `lanes` channels: adds the chunks in a fixed order, in float64
//   all_finite           | packs of 16 bytes, one a thread after the other; says what it has seen
//   square_sums          | the same packs; adds up in float64, in a fixed order
//
// Launchers: gpuconv/cuda/reduce.py.
#include "channels.cuh"

// x   ->   partial (chunks, C)
template <typename T, int V, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256)
channel_sums(
    const T* __restrict__ x, Sum<T>* __restrict__ partial, Index images, Index channels, Index pixels, int lanes,
    int parts) {
  using Share = ChannelShare<T, V, CHANNELS_LAST, Index>;
  constexpr int WIDTH = Share::WIDTH;
  __shared__ Sum<T> shared[WIDTH * CHANNEL_BLOCK];
  const Share share(images, channels, pixels, lanes, parts);
  const bool aligned = is_aligned<V>(x);
  Sum<T> sum[WIDTH] = {};
  share.each([&](int, Index offset) {
    const Pack<T, V> pack = load_pack<V>(x + offset, aligned);
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v % WIDTH] += widen(pack.at[v]);
  });
  lane_sums(sum, shared, lanes);
  if (!share.writes) return;
  Pack<Sum<T>, WIDTH> sums;
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) sums.at[w] = sum[w];
  store_channels<WIDTH>(partial + static_cast<long long>(share.chunk) * channels + share.channel, sums);
}

template <typename T>
__global__ void __launch_bounds__(256)
channel_sums_merge(const Sum<T>* __restrict__ partial, T* __restrict__ out, long long channels, int chunks, int lanes) {
  __shared__ double shared[CHANNEL_BLOCK];
  const int lane = threadIdx.x % lanes, row = threadIdx.x / lanes, rows = CHANNEL_BLOCK / lanes;
  const long long channel = static_cast<long long>(blockIdx.x) * lanes + lane;
  double sum[1] = {};
#pragma unroll 4
  for (int chunk = row; channel < channels && chunk < chunks; chunk += rows) sum[0] += partial[chunk * channels + channel];
  lane_sums(sum, shared, lanes);
  if (channel < channels && row == 0) out[channel] = narrow<T>(static_cast<Sum<T>>(sum[0]));
}

// found[block]: every number that the block has looked at is finite.
template <typename T>
__global__ void __launch_bounds__(256) all_finite(const T* __restrict__ x, bool* __restrict__ found, long long total) {
  constexpr int V = pack_size<T>();
  const bool aligned = is_aligned<V>(x);
  bool finite = true;
  for (long long i = thread_index() * V; i < total; i += thread_count() * V) {
    const Pack<T, V> pack = load_pack<V>(x + i, aligned, total - i);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Sum<T> value = widen(pack.at[v]);
      finite = finite && value - value == 0;  // NaN for NaN and infinities
    }
  }
  finite = __syncthreads_and(finite);
  if (threadIdx.x == 0) found[blockIdx.x] = finite;
}

// partial[block]: the sum of the squares of what the block has looked at.
template <typename T>
__global__ void __launch_bounds__(256)
square_sums(const T* __restrict__ x, double* __restrict__ partial, long long total) {
  constexpr int V = pack_size<T>();
  const bool aligned = is_aligned<V>(x);
  double sum = 0;
  for (long long i = thread_index() * V; i < total; i += thread_count() * V) {
    const Pack<T, V> pack = load_pack<V>(x + i, aligned, total - i);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const double value = widen(pack.at[v]);
      sum += value * value;
    }
  }
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
