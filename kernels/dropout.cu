// Inverted dropout.
//
//   forward    y = kept ? x scale : 0          backward   dx = kept ? dy scale : 0          scale = 1 / (1 - rate)
//
// Element i, counted in row order of the shape, is kept where half word i of the random words (low half first) is at
// least `threshold` = rate 2^32: the same elements as on the CPU, in either memory format.  x may be a part of a larger
// array: its first element is element `offset` of that.  The step that they are drawn for comes by value or by its place
// (placed.cuh).
//
//   kernel                          | one thread per                                    | when
//   dropout_forward                 | 8 elements: one block of random words, or two     | x is stored in row order
//                                   | where they lie across                             |
//   dropout_forward_channels_last   | 8 elements of a channel of an image: one block    | x is channels-last; the threads
//                                   | of random words, or two where they lie across     | of a warp are channels
//   dropout_backward                | pack of 16 bytes after pack                       | always
//
// Source of the generator: see random.cuh.
// Launchers: gpuconv/cuda/dropout.py.
#include "placed.cuh"
#include "pointwise.cuh"
#include "random.cuh"

constexpr int DROPOUT_RUN = 8;  // half words in a block of random words

// ACROSS: offset is no multiple of DROPOUT_RUN, so that the elements of a thread lie in two blocks
template <typename T, bool ACROSS>
__global__ void __launch_bounds__(256)
dropout_forward(
    const T* __restrict__ x, T* __restrict__ y, bool* __restrict__ kept, long long total, double scale,
    unsigned long long threshold, unsigned long long offset, unsigned long long seed,
    const unsigned long long* __restrict__ step_at, unsigned long long step_times, unsigned long long step) {
  const unsigned long long drawn = placed_count(step_at, step_times, step);
  constexpr int V = pack_size<T>(), PACKS = DROPOUT_RUN / V;
  const bool aligned = is_aligned<V>(x) && is_aligned<V>(y) && is_aligned<V>(kept);
  const Sum<T> factor = static_cast<Sum<T>>(scale);
  const int first = ACROSS ? static_cast<int>(offset % DROPOUT_RUN) : 0;  // half word of the first element of each run
  for (long long run = thread_index(); run * DROPOUT_RUN < total; run += thread_count()) {
    const RandomWords words = random_words(seed, STREAM_DROPOUT, drawn, offset / DROPOUT_RUN + run);
    const RandomWords next = ACROSS ? random_words(seed, STREAM_DROPOUT, drawn, offset / DROPOUT_RUN + run + 1) : words;
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      const long long i = run * DROPOUT_RUN + p * V;
      Pack<T, V> pack = load_pack<V>(x + i, aligned, total - i);
      Pack<bool, V> keep;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const int half = first + p * V + v;
        keep.at[v] = (half < DROPOUT_RUN ? random_half(words, half) : random_half(next, half - DROPOUT_RUN)) >= threshold;
        pack.at[v] = keep.at[v] ? narrow<T>(widen(pack.at[v]) * factor) : T{};
      }
      store_pack<V>(y + i, pack, aligned, total - i);
      store_pack<V>(kept + i, keep, aligned, total - i);
    }
  }
}

// x, y, kept: (images, pixels, channels)
template <typename T>
__global__ void __launch_bounds__(256)
dropout_forward_channels_last(
    const T* __restrict__ x, T* __restrict__ y, bool* __restrict__ kept, long long images, long long channels,
    long long pixels, double scale, unsigned long long threshold, unsigned long long offset, unsigned long long seed,
    const unsigned long long* __restrict__ step_at, unsigned long long step_times, unsigned long long step) {
  const unsigned long long drawn = placed_count(step_at, step_times, step);
  const Sum<T> factor = static_cast<Sum<T>>(scale);
  const long long runs = ceil_div(pixels, static_cast<long long>(DROPOUT_RUN));
  for (long long i = thread_index(); i < images * runs * channels; i += thread_count()) {
    const long long channel = i % channels, run = i / channels % runs, image = i / channels / runs;
    const long long first = run * DROPOUT_RUN, last = min(first + DROPOUT_RUN, pixels);
    unsigned long long place = offset + (image * channels + channel) * pixels + first;  // in row order of the shape
    RandomWords words = random_words(seed, STREAM_DROPOUT, drawn, place / DROPOUT_RUN);
    for (long long pixel = first; pixel < last; ++pixel, ++place) {
      const int half = static_cast<int>(place % DROPOUT_RUN);
      if (half == 0 && pixel > first) words = random_words(seed, STREAM_DROPOUT, drawn, place / DROPOUT_RUN);
      const long long stored = (image * pixels + pixel) * channels + channel;
      const T value = x[stored];  // by every thread: what is not kept is read with the rest of its sector
      const bool keep = random_half(words, half) >= threshold;
      kept[stored] = keep;
      y[stored] = keep ? narrow<T>(widen(value) * factor) : T{};
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(256)
dropout_backward(
    const T* __restrict__ dy, const bool* __restrict__ kept, T* __restrict__ dx, long long total, double scale) {
  const Sum<T> factor = static_cast<Sum<T>>(scale);
  pointwise(dy, kept, dx, total, [=](T gradient, bool keep) {
    return keep ? narrow<T>(widen(gradient) * factor) : T{};
  });
}
