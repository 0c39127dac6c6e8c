// 2-D convolution and its input gradient on tensor cores, compute capability 8.0 and later: float16, bfloat16, float32.
//
// The sums are those of conv.cu, which has the formulas, kept in float32.  How a block makes its tile: conv_tensor.cuh.
//
// Layout: images are (N, H, W, C) and filters the same, (K, R, S, C / groups), without gaps; for dx of float32 they are
// (groups, C / groups, R, S, K / groups), see conv_tensor.cuh.  The channels of a group that are added up are a multiple
// of 8, of float32 of 4; where there is one group, conv_pad_tensor makes them one by channels of zeros.  float32 takes PRODUCTS for each of its own: 1, of factors rounded to TF32, or 3: see tensor.cuh.
//
//   kernel                    | one thread (block) per                   | when
//   conv_forward_tensor       | (block) tile of pixels x filters         | windows of at most 15 x 15
//   conv_backward_data_tensor | (block) tile of pixels x channels, phase | the same
//   conv_pad_tensor           | 16 bytes of a pixel's channels           | channels that are no whole chunks; filters
//   conv_turn_tensor          | 16 bytes of a filter's channels          | all filters of a net, once a step
//
// Both products want 16 columns of their result or more, and places that 32 bits can count; else conv_tiled.cu runs.
// Launchers: gpuconv/cuda/conv_tensor.py and gpuconv/cuda/turned.py.
#include "conv_tensor.cuh"

// pooled: z.P and z.Q are even, and y has the maxima of 2 x 2 windows side by side.   places, partial: see Behind.
template <typename T, int PRODUCTS, bool RELU, int PIXELS, int FILTERS, int WARP_PIXELS, int WARP_FILTERS, int DEPTH,
          int STAGES>
__global__ void __launch_bounds__(128, BLOCKS_OF<PRODUCTS, WARP_PIXELS + WARP_FILTERS>)
conv_forward_tensor(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ y,
                    const ConvShape z, bool pooled, unsigned char* __restrict__ places, float* __restrict__ partial) {
  __shared__ Place<false> place;
  if (threadIdx.x == 0) place = find_tile<false>(z, PIXELS, FILTERS, 1, 1, 1);
  __syncthreads();
  tensor_tile<T, PRODUCTS, false, RELU, PIXELS, FILTERS, WARP_PIXELS, WARP_FILTERS, DEPTH, STAGES>(
      x, w, b, y, z, place, {}, {pooled, places, partial});
}

// blockIdx.y: phase of the stride.   plus, mask: see Plus; null for nothing.
template <typename T, int PRODUCTS, int PIXELS, int FILTERS, int WARP_PIXELS, int WARP_FILTERS, int DEPTH, int STAGES>
__global__ void __launch_bounds__(128, BLOCKS_OF<PRODUCTS, WARP_PIXELS + WARP_FILTERS>)
conv_backward_data_tensor(const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ b,
                          T* __restrict__ dx, const ConvShape z, int tap_step_v, int tap_step_h,
                          const T* __restrict__ plus, const unsigned char* __restrict__ mask) {
  __shared__ Place<false> place;
  if (threadIdx.x == 0) place = find_tile<true>(z, PIXELS, FILTERS, 1, tap_step_v, tap_step_h);
  __syncthreads();
  if (place.pixels <= 0) return;  // a phase smaller than the largest
  tensor_tile<T, PRODUCTS, true, false, PIXELS, FILTERS, WARP_PIXELS, WARP_FILTERS, DEPTH, STAGES>(
      dy, w, b, dx, z, place, {plus, mask}, {});
}

// images: (N, C, pixels) or, with CHANNELS_LAST, (N, pixels, C)   ->   padded: (N, pixels, C up to whole chunks)
template <typename T, bool CHANNELS_LAST>
__device__ __forceinline__ void pad_images(const T* __restrict__ images, T* __restrict__ padded, int N, int C,
                                           int pixels) {
  constexpr int CHUNK = CHUNK_OF<T>;
  const int chunks = ceil_div(C, CHUNK);
  const long long total = static_cast<long long>(N) * pixels * chunks;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const long long n = i / pixels / chunks, rest = i - n * pixels * chunks;  // threads run along what they read
    const int first = static_cast<int>(CHANNELS_LAST ? rest % chunks : rest / pixels) * CHUNK;
    const int pixel = static_cast<int>(CHANNELS_LAST ? rest / chunks : rest % pixels);
    const long long place = CHANNELS_LAST ? (n * pixels + pixel) * C + first : (n * C + first) * pixels + pixel;
    Pack<T, CHUNK> chunk = {};
#pragma unroll
    for (int v = 0; v < CHUNK; ++v) {
      if (first + v < C) chunk.at[v] = images[place + static_cast<long long>(v) * (CHANNELS_LAST ? 1 : pixels)];
    }
    *reinterpret_cast<Pack<T, CHUNK>*>(padded + ((n * pixels + pixel) * chunks) * CHUNK + first) = chunk;
  }
}

template <typename T, bool CHANNELS_LAST>
__global__ void __launch_bounds__(256, 4)
conv_pad_tensor(const T* __restrict__ images, T* __restrict__ padded, int N, int C, int pixels) {
  pad_images<T, CHANNELS_LAST>(images, padded, N, C, pixels);
}

// Filters of many layers, (K, C / groups, taps) of each   ->   (K, taps, C / groups), of whole chunks of channels.
//
// layers: (layers, 5): where a layer's filters begin in w, and in turned; K, C / groups, taps.   blockIdx.y: the layer.
template <typename T>
__global__ void __launch_bounds__(256, 4)
conv_turn_tensor(const T* __restrict__ w, T* __restrict__ turned, const long long* __restrict__ layers) {
  const long long* const layer = layers + blockIdx.y * 5;
  pad_images<T, false>(w + layer[0], turned + layer[1], static_cast<int>(layer[2]), static_cast<int>(layer[3]),
                       static_cast<int>(layer[4]));
}
