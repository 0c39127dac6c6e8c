// 2-D convolution and its input gradient on tensor cores, compute capability 8.0 and later: float16, bfloat16, float32.
//
// The sums are those of conv.cu, which has the formulas, kept in float32.  How a block makes its tile: conv_tensor.cuh.
//
// Layout: images are (N, H, W, C), w is (K, C / groups, R, S); both without gaps.  The channels of a group that are
// added up are a multiple of 8, of float32 of 4; where there is one group, conv_pad_tensor makes them one by channels
// of zeros.  float32 takes PRODUCTS for each of its own: 1, of factors rounded to TF32, or 3: see tensor.cuh.
//
//   kernel                    | one thread (block) per                   | when
//   conv_forward_tensor       | (block) tile of pixels x filters         | windows of at most 15 x 15
//   conv_backward_data_tensor | (block) tile of pixels x channels, phase | the same
//   conv_pack_tensor          | 16 bytes of a filter's channels, phase   | before either of them
//   conv_pad_tensor           | 16 bytes of a pixel's channels           | channels that are no whole chunks
//
// Both products want 16 columns of their result or more, and places that 32 bits can count; else conv_tiled.cu runs.
// Launchers: gpuconv/cuda/conv_tensor.py.
#include "conv_tensor.cuh"

// pooled: z.P and z.Q are even, and y has the maxima of 2 x 2 windows side by side.   places, partial: see Behind.
template <typename T, int PRODUCTS, bool RELU, int PIXELS, int FILTERS, int WARP_PIXELS, int WARP_FILTERS, int DEPTH,
          int STAGES>
__global__ void __launch_bounds__(128, BLOCKS_OF<PRODUCTS, WARP_PIXELS + WARP_FILTERS>)
conv_forward_tensor(const T* __restrict__ x, const T* __restrict__ packed, const T* __restrict__ b, T* __restrict__ y,
                    const ConvShape z, int steps, bool pooled, unsigned char* __restrict__ places,
                    float* __restrict__ partial) {
  __shared__ Place<false> place;
  if (threadIdx.x == 0) place = find_tile<false>(z, PIXELS, FILTERS, 1, 1, 1);
  __syncthreads();
  tensor_tile<T, PRODUCTS, false, RELU, PIXELS, FILTERS, WARP_PIXELS, WARP_FILTERS, DEPTH, STAGES>(x, packed, b, y, z,
                                                                                                   place, steps, 1, {},
                                                                                                   {pooled, places, partial});
}

// blockIdx.y: phase of the stride.  special: what conv_pack_tensor found.   plus, mask: see Plus; null for nothing.
template <typename T, int PRODUCTS, int PIXELS, int FILTERS, int WARP_PIXELS, int WARP_FILTERS, int DEPTH, int STAGES>
__global__ void __launch_bounds__(128, BLOCKS_OF<PRODUCTS, WARP_PIXELS + WARP_FILTERS>)
conv_backward_data_tensor(const T* __restrict__ dy, const T* __restrict__ packed, const T* __restrict__ b,
                          T* __restrict__ dx, const ConvShape z, const T* __restrict__ w, const int* __restrict__ special, int specials, int steps,
                          int tap_step_v, int tap_step_h, const T* __restrict__ plus,
                          const unsigned char* __restrict__ mask) {
  __shared__ Place<false> place;
  if (threadIdx.x == 0) place = find_tile<true>(z, PIXELS, FILTERS, 1, tap_step_v, tap_step_h);
  bool unbounded = false;
  for (int i = threadIdx.x; i < specials; i += TENSOR_THREADS) unbounded = unbounded || special[i] != 0;
  unbounded = __syncthreads_or(unbounded);
  if (place.pixels <= 0) return;  // a phase smaller than the largest
  if (unbounded) {
    data_by_formula<PIXELS, FILTERS>(dy, w, b, dx, z, place, Plus<T>{plus, mask});
    return;
  }
  tensor_tile<T, PRODUCTS, true, false, PIXELS, FILTERS, WARP_PIXELS, WARP_FILTERS, DEPTH, STAGES>(
      dy, packed, b, dx, z, place, steps, tap_step_h, Plus<T>{plus, mask}, {});
}

// w   ->   packed: (phases with taps, groups, tiles, steps, breadth, depth), 0 where there is no such filter or row.
//
// Row tap * channels + channel, the taps of the phase in order, channels in whole chunks; step i has rows from i depth.
// Forward there is one phase.  special[block]: DATA only, whether an infinity or NaN is among the block's filters.
template <typename T, bool DATA>
__global__ void __launch_bounds__(256, 4)
conv_pack_tensor(const T* __restrict__ w, T* __restrict__ packed, int* __restrict__ special, const ConvShape z,
                 int tiles, int steps, int breadth, int depth, int tap_step_v, int tap_step_h) {
  constexpr int CHUNK = CHUNK_OF<T>;
  const int channels = z.C / z.groups, filters = z.K / z.groups, window = z.R * z.S;
  const int inner = DATA ? filters : channels, outer = DATA ? channels : filters;
  const int per_tap = ceil_div(inner, CHUNK), chunks = depth / CHUNK, width = tiles * breadth;
  const int apart = (DATA ? channels : 1) * window;  // numbers of w that a chunk brings together
  const int phases_h = min(tap_step_h, z.S), phases = min(tap_step_v, z.R) * phases_h;
  const long long total = static_cast<long long>(phases) * z.groups * width * per_tap;
  bool odd = false;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const int first = static_cast<int>(i % per_tap) * CHUNK, column = static_cast<int>(i / per_tap % width);
    const int rest = static_cast<int>(i / per_tap / width), group = rest % z.groups, phase = rest / z.groups;
    const int r0 = phase / phases_h, s0 = phase % phases_h;
    const int taps_h = (z.S - 1 - s0) / tap_step_h + 1, taps = ((z.R - 1 - r0) / tap_step_v + 1) * taps_h;
    const int real = min(column, outer - 1), count = column < outer ? min(inner - first, CHUNK) : 0;
    const int filter = group * filters + (DATA ? first : real), channel = DATA ? real : first;
    T* const line = packed + (static_cast<long long>(rest) * tiles + column / breadth) * steps * breadth * depth +
                    column % breadth * depth;
    for (int row = first / CHUNK, tap = 0; row < steps * chunks; row += per_tap, ++tap) {
      const int r = r0 + tap / taps_h * tap_step_v, s = s0 + tap % taps_h * tap_step_h;
      const int place = (filter * channels + channel) * window + r * z.S + s;
      Pack<T, CHUNK> chunk = {};
#pragma unroll
      for (int v = 0; v < CHUNK; ++v) {
        if (tap >= taps || v >= count) continue;
        chunk.at[v] = w[place + v * apart];
        const float value = widen(chunk.at[v]);
        odd = odd || value - value != 0;
      }
      *reinterpret_cast<Pack<T, CHUNK>*>(line + static_cast<long long>(row / chunks) * breadth * depth +
                                         row % chunks * CHUNK) = chunk;
    }
  }
  if (DATA) {
    odd = __syncthreads_or(odd);
    if (threadIdx.x == 0) special[blockIdx.x] = odd;
  }
}

// images: (N, C, pixels) or, with CHANNELS_LAST, (N, pixels, C)   ->   padded: (N, pixels, C up to whole chunks)
template <typename T, bool CHANNELS_LAST>
__global__ void __launch_bounds__(256, 4)
conv_pad_tensor(const T* __restrict__ images, T* __restrict__ padded, int N, int C, int pixels) {
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
