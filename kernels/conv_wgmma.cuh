// Convolution of images and its input gradient by warpgroups: the tile of conv_tensor.cuh, on Hopper's own instructions.
//
// A step is DEPTH channels of one tap.  Its pixels come by one bulk copy in im2col mode, which walks the windows' corners
// in all images, shifted by the tap, and writes the zeros of the padding; its filters, (K, R S, C), by others.  Channels,
// filters and images beyond the last are zeros, too.
//
// In shared memory a line is a pixel's, or a filter's, share of a step, 128 or 64 bytes, swizzled as wgmma reads it.  For
// dx filters are added up: a line is 64 channels of one of them, and wgmma reads lines downwards.
//
// The walk of dx: pixel i of phase f lies at  f + i stride  and meets  first(f) + i + t apart  with tap t, apart <= 0.  All
// phases walk the same box, as far as the largest of them needs, from its `lower` corner on: what a phase and a tap are
// further on is in the shift, which must not be negative.
//
// Source: PTX ISA, tensor copies in im2col mode, swizzling modes, wgmma.mma_async; CUTLASS for the bounding box.
#pragma once

#include "conv_tensor.cuh"
#include "wgmma.cuh"

// What all threads of a block need to know about their tile.
struct Walk {
  Axis down, across;
  int rows, columns;  // of outputs of an image, in the box that is walked
  int first;          // pixel of the tile, counted in them
  int column;         // first filter of the tile (DATA: channel of dx)
  int top, left;      // from the box's corner to the phase's tap 0
};

// Tile number blockIdx.x, phase blockIdx.y.   lower_v, lower_h: the box's corner
template <bool DATA>
__device__ __forceinline__ Walk find_walk(const ConvShape& z, int height, int width, int tap_step_v, int tap_step_h,
                                          int lower_v, int lower_h) {
  Walk at;
  if (DATA) {
    at.down = data_axis(blockIdx.y / z.stride_h, z.H, z.R, z.stride_v, z.pad_v, z.dilation_v, tap_step_v);
    at.across = data_axis(blockIdx.y % z.stride_h, z.W, z.S, z.stride_h, z.pad_h, z.dilation_h, tap_step_h);
    at.rows = ceil_div(z.H, z.stride_v);
    at.columns = ceil_div(z.W, z.stride_h);
  } else {
    at.down = forward_axis(z.P, z.R, z.stride_v, z.pad_v, z.dilation_v);
    at.across = forward_axis(z.Q, z.S, z.stride_h, z.pad_h, z.dilation_h);
    at.rows = z.P;
    at.columns = z.Q;
  }
  const int tiles = ceil_div(DATA ? z.C : z.K, width);
  at.first = blockIdx.x / tiles * height;
  at.column = blockIdx.x % tiles * width;
  at.top = at.down.first - lower_v;
  at.left = at.across.first - lower_h;
  return at;
}

// Where output `number` of all images, counted as the box is walked, lies among the pixels of the output; -1 for nowhere.
template <bool DATA>
__device__ __forceinline__ int pixel_of(const ConvShape& z, const Walk& at, int number) {
  const int row = number / at.columns, q = number - row * at.columns, n = row / at.rows, p = row - n * at.rows;
  if (n >= z.N || p >= at.down.count || q >= at.across.count) return -1;
  const int h = at.down.place + p * at.down.spread, v = at.across.place + q * at.across.spread;
  return (n * (DATA ? z.H : z.P) + h) * (DATA ? z.W : z.Q) + v;
}

// Blocks that a multiprocessor should have room for, by the sums of a tile: they are in registers.
template <int SUMS>
constexpr int BLOCKS_OF_WGMMA = SUMS > 128 * 128 ? 1 : 2;

// What a block keeps in shared memory behind its stages.
template <int STAGES>
struct Beside {
  Ring<STAGES> ring;
  Walk walk;
};

// The sum of dx for a pixel (n, h, v) and a channel by its formula, from dy and w with channels in whole chunks.
template <typename T>
__device__ __forceinline__ float data_by_formula(const T* __restrict__ dy, const T* __restrict__ w, const ConvShape& z,
                                                 int pixel, int c) {
  constexpr int CHUNK = CHUNK_OF<T>;
  const long long channels = ceil_div(z.C, CHUNK) * CHUNK, filters = ceil_div(z.K, CHUNK) * CHUNK;
  const int row = pixel / z.W, n = row / z.H;
  float sum = 0;
  for (int r = 0; r < z.R; ++r) {
    const int down = row - n * z.H + z.pad_v - r * z.dilation_v, p = down / z.stride_v;
    if (down < 0 || p >= z.P || down != p * z.stride_v) continue;
    for (int s = 0; s < z.S; ++s) {
      const int right = pixel - row * z.W + z.pad_h - s * z.dilation_h, q = right / z.stride_h;
      if (right < 0 || q >= z.Q || right != q * z.stride_h) continue;
      const T* const gradients = dy + ((static_cast<long long>(n) * z.P + p) * z.Q + q) * filters;
      const T* const taps = w + (r * z.S + s) * channels + c;
      for (int k = 0; k < z.K; ++k) sum += widen(gradients[k]) * widen(taps[k * z.R * z.S * channels]);
    }
  }
  return sum;
}

// True in all threads if an infinity or NaN is among the filters' channels from `column` on.
template <int CHANNELS, typename T>
__device__ __forceinline__ bool any_unbounded(const T* __restrict__ w, const ConvShape& z, int column) {
  constexpr int CHUNK = CHUNK_OF<T>;
  const long long channels = ceil_div(z.C, CHUNK) * CHUNK;
  bool found = false;
  for (int i = threadIdx.x; i < z.K * z.R * z.S * (CHANNELS / CHUNK); i += WGMMA_THREADS) {
    const int c = column + i % (CHANNELS / CHUNK) * CHUNK;
    if (c >= z.C) continue;
    const Pack<T, CHUNK> chunk = *reinterpret_cast<const Pack<T, CHUNK>*>(w + i / (CHANNELS / CHUNK) * channels + c);
#pragma unroll
    for (int v = 0; v < CHUNK; ++v) found = found || widen(chunk.at[v]) - widen(chunk.at[v]) != 0;
  }
  return __syncthreads_or(found);
}

// y of z, or dx with DATA.   images, filters: maps of what is read, in boxes of a step; dy, w: what lies there, for DATA
template <typename T, bool DATA, bool RELU, int PIXELS, int FILTERS, int DEPTH, int STAGES>
__device__ __forceinline__ void wgmma_tile(const ptx::TensorMap& images, const ptx::TensorMap& filters,
                                           const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ b,
                                           T* __restrict__ output, const ConvShape& z, Beside<STAGES>& beside,
                                           const Plus<T>& plus, float* __restrict__ partial) {
  constexpr int THREADS = WGMMA_THREADS, CHUNK = CHUNK_OF<T>, LINE = DEPTH * static_cast<int>(sizeof(T));
  constexpr int DOWN = PIXELS / 128, OUT_LINE = FILTERS + CHUNK;  // products of a warpgroup below each other
  constexpr int BYTES_A = PIXELS * LINE, STAGE = BYTES_A + FILTERS * LINE;
  constexpr int ACROSS = 64, BOX = DEPTH * ACROSS * static_cast<int>(sizeof(T));  // DATA: channels and bytes of a box
  constexpr int SWIZZLE = LINE == 128 ? ptx::swizzle_128 : ptx::swizzle_64;
  static_assert(DOWN * 128 == PIXELS && CONSUMERS == 2 * WARPGROUP, "each warpgroup has as many times 64 pixels");
  static_assert(LINE == 128 || LINE == 64, "a line is as long as a pattern of the swizzle is wide");
  static_assert(STAGE % (8 * LINE) == 0 && BYTES_A % (8 * LINE) == 0, "a tile begins where the pattern does");
  static_assert(PIXELS * (OUT_LINE * sizeof(T) + sizeof(int)) + THREADS * CHUNK * sizeof(float) <= STAGES * STAGE,
                "outputs and their moments go through the stages");
  extern __shared__ __align__(1024) unsigned char shared[];

  const Walk& at = beside.walk;
  const int channels = DATA ? z.K : z.C, outer = DATA ? z.C : z.K;
  const int slices = ceil_div(channels, DEPTH), steps = at.down.taps * at.across.taps * slices;
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  Turn<STAGES> turn = {0, 0};

  float sum[DOWN][FILTERS / 2];
  if (warp == CONSUMERS / 32) {
    if (ptx::elect_one()) {
      ptx::tma_prefetch(&images);
      ptx::tma_prefetch(&filters);
      const int row = at.first / at.columns, q = at.first - row * at.columns, n = row / at.rows, p = row - n * at.rows;
      const int left = q * at.across.stride + at.across.first - at.left;
      const int top = p * at.down.stride + at.down.first - at.top;
      int r = 0, s = 0, slice = 0;
      for (int step = 0; step < steps; ++step) {
        ptx::mbarrier_wait(&beside.ring.empty[turn.stage], turn.parity ^ 1);
        ptx::mbarrier_arrive_expect_tx(&beside.ring.full[turn.stage], STAGE);
        unsigned char* const to = shared + turn.stage * STAGE;
        ptx::tma_load_im2col_4d(to, &images, &beside.ring.full[turn.stage], slice * DEPTH, left, top, n,
                                static_cast<unsigned short>(at.left + s * at.across.apart),
                                static_cast<unsigned short>(at.top + r * at.down.apart));
        const int tap = (at.down.tap0 + r * at.down.tap_step) * z.S + at.across.tap0 + s * at.across.tap_step;
        if (DATA) {
#pragma unroll
          for (int i = 0; i < FILTERS / ACROSS; ++i) {
            ptx::tma_load_3d(to + BYTES_A + i * BOX, &filters, &beside.ring.full[turn.stage], at.column + i * ACROSS, tap,
                             slice * DEPTH);
          }
        } else {
          ptx::tma_load_3d(to + BYTES_A, &filters, &beside.ring.full[turn.stage], slice * DEPTH, tap, at.column);
        }
        turn.go_on();
        if (++slice == slices) {
          slice = 0;
          if (++s == at.across.taps) s = 0, ++r;
        }
      }
    }
    __syncwarp();
  } else {
    const unsigned char* const mine = shared + thread / WARPGROUP * DOWN * 64 * LINE;
    int before = 0;
    for (int step = 0; step < steps; ++step) {
      ptx::mbarrier_wait(&beside.ring.full[turn.stage], turn.parity);
      const unsigned char* const a = mine + turn.stage * STAGE;
      const unsigned char* const d = shared + turn.stage * STAGE + BYTES_A;
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < LINE; k += 32) {
        const unsigned long long right = DATA ? ptx::wgmma_desc(d + k / 32 * 16 * 128, BOX, 8 * 128, ptx::swizzle_128)
                                              : ptx::wgmma_desc(d + k, 16, 8 * LINE, SWIZZLE);
#pragma unroll
        for (int i = 0; i < DOWN; ++i) {
          const unsigned long long factor = ptx::wgmma_desc(a + i * 64 * LINE + k, 16, 8 * LINE, SWIZZLE);
          add_warpgroup_product<0, DATA>(T{}, sum[i], factor, right, step + k > 0);
        }
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();  // the step before has been multiplied, its stage is free
      if (step > 0 && lane == 0) ptx::mbarrier_arrive(&beside.ring.empty[before]);
      before = turn.stage;
      turn.go_on();
    }
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < DOWN; ++i) ptx::wgmma_hold(sum[i]);
  }
  __syncthreads();  // the stages are free: outputs go through them, so that whole lines reach memory

  T* const stages = reinterpret_cast<T*>(shared);
  int* const pixels = reinterpret_cast<int*>(stages + PIXELS * OUT_LINE);
  for (int line = thread; line < PIXELS; line += THREADS) pixels[line] = pixel_of<DATA>(z, at, at.first + line);
  bool odd = false;
  if (warp < CONSUMERS / 32) {
    const int top = warp / 4 * DOWN * 64 + warp % 4 * 16 + lane / 4;
#pragma unroll
    for (int j = 0; j < FILTERS / 8; ++j) {
      const int column = 8 * j + lane % 4 * 2;
      float bias[2];
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        bias[v] = b != nullptr && at.column + column + v < outer ? widen(b[at.column + column + v]) : 0;
      }
#pragma unroll
      for (int i = 0; i < DOWN; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          Pack<T, 2> pair;
#pragma unroll
          for (int v = 0; v < 2; ++v) {
            float value = (steps > 0 ? sum[i][4 * j + 2 * half + v] : 0) + bias[v];
            odd = odd || value - value != 0;
            if (RELU) value = value < 0 ? 0 : value;
            pair.at[v] = narrow<T>(value);
          }
          *reinterpret_cast<Pack<T, 2>*>(stages + (top + 64 * i + 8 * half) * OUT_LINE + column) = pair;
        }
      }
    }
  }
  if constexpr (DATA) {
    // A pixel outside dy is the number 0, and 0 times an infinity of the filters is NaN, which the formula leaves out.
    if (__syncthreads_or(odd) && any_unbounded<FILTERS>(w, z, at.column)) {
#pragma unroll 1
      for (int i = thread; i < PIXELS * FILTERS; i += THREADS) {
        const int line = i / FILTERS, c = at.column + i % FILTERS;
        if (pixels[line] < 0 || c >= outer) continue;
        const float bias = b != nullptr ? widen(b[c]) : 0;
        stages[line * OUT_LINE + i % FILTERS] = narrow<T>(data_by_formula(dy, w, z, pixels[line], c) + bias);
      }
      __syncthreads();
    }
  } else {
    __syncthreads();
  }
  const bool wide = outer % CHUNK == 0;
  for (int i = thread; i < PIXELS * (FILTERS / CHUNK); i += THREADS) {
    const int line = i / (FILTERS / CHUNK), column = i % (FILTERS / CHUNK) * CHUNK;
    const int left_over = outer - at.column - column;
    if (pixels[line] < 0 || left_over <= 0) continue;
    const long long target = static_cast<long long>(pixels[line]) * outer + at.column + column;
    Pack<T, CHUNK> chunk = *reinterpret_cast<const Pack<T, CHUNK>*>(stages + line * OUT_LINE + column);
    if (DATA) plus.add_to(chunk, target);
    store_pack<CHUNK>(output + target, chunk, wide, left_over);
  }
  if (DATA || partial == nullptr) return;
  __syncthreads();
  const int all = z.N * z.P * z.Q, chunks = ceil_div(all, PIXELS);
  float* const entry = partial + static_cast<long long>(at.first / PIXELS) * outer + at.column;
  tile_moments<THREADS, FILTERS, CHUNK>(stages, reinterpret_cast<float*>(pixels + PIXELS), OUT_LINE,
                                        min(all - at.first, PIXELS), entry, static_cast<long long>(chunks) * outer,
                                        outer - at.column);
}
