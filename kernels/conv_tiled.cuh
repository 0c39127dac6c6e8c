// Convolution and its gradients as products of matrices that are never written down: of images and of volumes.
//
//   y     (pixels) x (taps and channels)  times  (taps and channels) x (filters)
//   dx    the correlation of dy with the filters turned round, one for each phase of the stride: no zero is multiplied
//   dw    (filters) x (pixels)  times  (pixels) x (taps and channels), the pixels cut in slices
//
// Places inside one padded image are counted in 32 bits, images in 64.  Written for volumes, whose pixels are voxels:
// an image is a volume of one plane, which the compiler knows, so that nothing of the depth is left in its kernels.
//
// Source: Chetlur et al., cuDNN: efficient primitives for deep learning (arXiv 1410.0759), for the implicit product.
#pragma once

#include "conv.cuh"
#include "conv_volume.cuh"
#include "tile.cuh"

template <typename Shape>
constexpr bool IS_VOLUME = false;
template <>
constexpr bool IS_VOLUME<VolumeConvShape> = true;

// What a call has along the depth.
struct Depth {
  int inputs, taps, outputs, stride, pad, dilation;
};
__device__ __forceinline__ Depth depth_of(const ConvShape&) { return {1, 1, 1, 1, 0, 1}; }
__device__ __forceinline__ Depth depth_of(const VolumeConvShape& z) {
  return {z.D, z.T, z.Z, z.stride_d, z.pad_d, z.dilation_d};
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool ROOM_FOR_PLACES = false;
#else
constexpr bool ROOM_FOR_PLACES = true;
#endif

// Far outside every image, but not so far that adding a pixel's place would overflow.
constexpr int NOWHERE = -(1 << 30);

// One axis of a correlation: output i meets input  i stride + first + t apart  with tap  tap0 + t tap_step, t < taps, and
// lies in its image at  place + i spread, i < count.
struct Axis {
  int stride, first, apart;
  int taps, tap0, tap_step;
  int place, spread, count;
};

__device__ __forceinline__ Axis forward_axis(int outputs, int taps, int stride, int pad, int dilation) {
  return {stride, -pad, dilation, taps, 0, 1, 0, 1, outputs};
}

// The pixels phase, phase + stride, ... of dx.  Tap r of output p reads pixel p stride - pad + r dilation: pixel h lies
// under  p = (h + pad - r dilation) / stride  where that is whole, which it is for every tap_step-th tap or for none.
__device__ __forceinline__ Axis data_axis(int phase, int pixels, int taps, int stride, int pad, int dilation,
                                          int tap_step) {
  int tap0 = 0;
  while (tap0 < min(tap_step, taps) && (phase + pad - tap0 * dilation) % stride != 0) ++tap0;
  const int count = tap0 < min(tap_step, taps) ? (taps - 1 - tap0) / tap_step + 1 : 0;
  const int first = count > 0 ? (phase + pad - tap0 * dilation) / stride : 0;
  const int apart = count > 1 ? -(tap_step * dilation / stride) : 0;
  return {1, first, apart, count, tap0, tap_step, phase, stride, ceil_div(pixels - phase, stride)};
}

// What all threads of a block need to know about their tile.  Kept in shared memory: registers are for the product.
template <bool VOLUME>
struct Place {
  Axis down, across;
  int area;               // outputs of an image: those of its axes, multiplied
  long long image;        // of the tile's first pixel,
  int start;              // and its number among those of the image
  long long pixels;       // from the tile's first on, to the end of all images
  int group, column;      // first filter of the tile (DATA: channel of dx), counted in its group
};
template <>
struct Place<true> : Place<false> {
  Axis deep;
};
__device__ __forceinline__ Axis deep_axis(const Place<false>&) { return {1, 0, 0, 1, 0, 1, 0, 1, 1}; }
__device__ __forceinline__ Axis deep_axis(const Place<true>& at) { return at.deep; }

// The output of an image with this number, below at.area.
struct Spot {
  int o, p, q;
};
template <bool VOLUME>
__device__ __forceinline__ Spot spot_at(const Place<VOLUME>& at, int number) {
  const int row = number / at.across.count, o = VOLUME ? row / at.down.count : 0;
  return {o, row - o * at.down.count, number % at.across.count};
}

// Tile number blockIdx.x, phases blockIdx.y in rows and columns and blockIdx.z in depth.  Tiles side by side read the
// same pixels, so they come first.
template <bool DATA, typename Shape>
__device__ __forceinline__ Place<IS_VOLUME<Shape>> find_tile(const Shape& z, int height, int width, int tap_step_d,
                                                             int tap_step_v, int tap_step_h) {
  Place<IS_VOLUME<Shape>> at;
  if constexpr (IS_VOLUME<Shape>) {
    at.deep = DATA ? data_axis(blockIdx.z, z.D, z.T, z.stride_d, z.pad_d, z.dilation_d, tap_step_d)
                   : forward_axis(z.Z, z.T, z.stride_d, z.pad_d, z.dilation_d);
  }
  if (DATA) {
    const int phase_v = blockIdx.y / z.stride_h, phase_h = blockIdx.y % z.stride_h;
    at.down = data_axis(phase_v, z.H, z.R, z.stride_v, z.pad_v, z.dilation_v, tap_step_v);
    at.across = data_axis(phase_h, z.W, z.S, z.stride_h, z.pad_h, z.dilation_h, tap_step_h);
  } else {
    at.down = forward_axis(z.P, z.R, z.stride_v, z.pad_v, z.dilation_v);
    at.across = forward_axis(z.Q, z.S, z.stride_h, z.pad_h, z.dilation_h);
  }
  const int tiles = ceil_div((DATA ? z.C : z.K) / z.groups, width);
  const long long first = static_cast<long long>(blockIdx.x / tiles / z.groups) * height;
  at.column = blockIdx.x % tiles * width;
  at.group = blockIdx.x / tiles % z.groups;
  at.area = deep_axis(at).count * at.down.count * at.across.count;
  at.pixels = static_cast<long long>(z.N) * at.area - first;
  at.image = at.pixels > 0 ? first / at.area : 0;
  at.start = at.pixels > 0 ? static_cast<int>(first % at.area) : 0;
  return at;
}

// Where a tap of a channel lies, from the pixel at the window's corner: (place, row, column, plane).  Without a real
// one, outside every image.
template <bool CHANNELS_LAST, typename Shape>
__device__ __forceinline__ int4 table_row(const Shape& z, int tap, int c, bool real) {
  const Depth depth = depth_of(z);
  const int line = tap / z.S, t = IS_VOLUME<Shape> ? line / z.R : 0;
  const int d = t * depth.dilation, h = (line - t * z.R) * z.dilation_v, v = tap % z.S * z.dilation_h;
  const int place =
      CHANNELS_LAST ? ((d * z.H + h) * z.W + v) * z.C + c : ((c * depth.inputs + d) * z.H + h) * z.W + v;
  return real ? make_int4(place, h, v, d) : make_int4(0, NOWHERE, NOWHERE, 0);
}

// How a block walks through the inner dimension: tap by tap, and DEPTH channels at a time.
struct Step {
  int t, r, s, c;
};

// A block's share of a correlation of images with packed filters: PIXELS x FILTERS outputs, HEIGHT x WIDTH for a thread.
//
// FEW: the inner dimension is not cut at taps, which would be mostly padding with few channels; a table in shared memory
// says where each of its rows lies.
//
// WIDE: packs of 4 channels are aligned, and a tap has whole steps of them.
template <typename Shape, typename T, bool DATA, bool FEW, bool CHANNELS_LAST, bool WIDE, int PIXELS, int FILTERS,
          int HEIGHT, int WIDTH, int DEPTH>
struct Correlation {
  using S = Sum<T>;
  static constexpr bool VOLUME = IS_VOLUME<Shape>;
  // Stores of a warp run along the axis that is contiguous in memory.
  using Result = Tile<S, PIXELS, FILTERS, DEPTH, HEIGHT, WIDTH, CHANNELS_LAST ? 4 : 8>;
  static constexpr bool PACKS = CHANNELS_LAST && !FEW;  // a thread reads 4 channels of a pixel, else single numbers
  static constexpr int SPOTS = PACKS ? PIXELS * DEPTH / 4 / TILE_THREADS : 1;  // pixels that a thread reads
  static constexpr int NUMBERS = PACKS ? 4 : PIXELS * DEPTH / TILE_THREADS;             // and numbers of each
  static constexpr int STRIPE = PACKS ? 1 : TILE_THREADS / PIXELS;  // distance of those numbers in the inner dimension
  // Places in shared memory to write to are kept from step to step, unless 64 sums take the registers: beside single
  // numbers, and on compute capability 7.5, whose compiler needs some more.
  static constexpr bool KEEPS_PLACES = (WIDE && ROOM_FOR_PLACES) || HEIGHT * WIDTH < 64;
  static constexpr bool EACH_READS = FILTERS * DEPTH == 4 * TILE_THREADS;  // a pack of filters
  static constexpr int TABLE = FEW ? 512 : 1;
  static_assert(PIXELS * DEPTH % (4 * TILE_THREADS) == 0, "threads must share the pixels evenly");
  static_assert(PACKS || TILE_THREADS % PIXELS == 0, "a thread must keep to one pixel");
  static_assert(FILTERS * DEPTH <= 4 * TILE_THREADS, "a thread reads at most one pack of filters");

  const Shape& z;
  const Place<VOLUME>& place;
  const int4* table;  // FEW: of each inner row, place and tap, from the pixel at the window's corner
  const T* images[SPOTS];  // at this thread's channel
  int front[SPOTS], top[SPOTS], left[SPOTS];
  const T* at[SPOTS];  // the pixel under the current tap, at the channel that is read next
  bool real[SPOTS];    // it lies inside its image
  Pack<S, NUMBERS> pixels[SPOTS];
  Pack<S, 4> filters;

  // Sizes of the input images.
  __device__ __forceinline__ int channels() const { return DATA ? z.K : z.C; }
  __device__ __forceinline__ int planes() const { return DATA ? depth_of(z).outputs : depth_of(z).inputs; }
  __device__ __forceinline__ int rows() const { return DATA ? z.P : z.H; }
  __device__ __forceinline__ int columns() const { return DATA ? z.Q : z.W; }
  __device__ __forceinline__ int inner() const { return channels() / z.groups; }

  __device__ __forceinline__ static int spot_pixel(int spot) {
    return PACKS ? (threadIdx.x + spot * TILE_THREADS) / (DEPTH / 4) : threadIdx.x % PIXELS;
  }
  __device__ __forceinline__ static int spot_channel(int spot) {
    return PACKS ? (threadIdx.x + spot * TILE_THREADS) % (DEPTH / 4) * 4 : threadIdx.x / PIXELS;
  }

  // Find this thread's pixels.
  __device__ __forceinline__ Correlation(const T* input, const Shape& z, const Place<VOLUME>& place, const int4* table)
      : z(z), place(place), table(table) {
#pragma unroll
    for (int i = 0; i < SPOTS; ++i) {
      const int pixel = spot_pixel(i), number = place.start + pixel;
      const Spot spot = spot_at(place, number % place.area);
      const long long before = (place.image + number / place.area) * channels(), first = place.group * inner();
      const long long area = static_cast<long long>(planes()) * rows() * columns();
      images[i] = input + (CHANNELS_LAST ? before * area + first : (before + first) * area);
      if (!FEW) images[i] += CHANNELS_LAST ? spot_channel(i) : spot_channel(i) * area;
      front[i] = spot.o * deep_axis(place).stride + deep_axis(place).first;
      top[i] = pixel < place.pixels ? spot.p * place.down.stride + place.down.first : NOWHERE;
      left[i] = spot.q * place.across.stride + place.across.first;
      if (FEW && top[i] != NOWHERE) {  // at the window's corner, which may lie outside
        const int corner = (front[i] * rows() + top[i]) * columns() + left[i];
        images[i] += CHANNELS_LAST ? corner * channels() : corner;
      }
    }
  }

  __device__ __forceinline__ bool inside(int d, int h, int v) const {
    return d >= 0 && d < planes() && h >= 0 && h < rows() && v >= 0 && v < columns();
  }

  __device__ __forceinline__ void seek(const Step& step) {
#pragma unroll
    for (int i = 0; i < SPOTS; ++i) {
      const int d = front[i] + step.t * deep_axis(place).apart;
      const int h = top[i] + step.r * place.down.apart, v = left[i] + step.s * place.across.apart;
      real[i] = inside(d, h, v);
      at[i] = images[i] + (real[i] ? ((d * rows() + h) * columns() + v) * (CHANNELS_LAST ? channels() : 1) : 0);
    }
  }

  __device__ __forceinline__ void read_pixels(const Step& step) {
#pragma unroll
    for (int i = 0; i < SPOTS; ++i) {
      const int c = step.c + spot_channel(i);
      if (WIDE) {
        Pack<T, 4> pack = {};
        if (real[i]) pack = *reinterpret_cast<const Pack<T, 4>*>(at[i]);
#pragma unroll
        for (int v = 0; v < NUMBERS; ++v) pixels[i].at[v] = widen(pack.at[v % 4]);
      } else if (FEW) {
#pragma unroll
        for (int v = 0; v < NUMBERS; ++v) {
          const int4 row = table[c + v * STRIPE];
          const bool there = inside(front[i] + (VOLUME ? row.w : 0), top[i] + row.y, left[i] + row.z);
          pixels[i].at[v] = there ? widen(images[i][row.x]) : 0;
        }
      } else {
        const int apart = CHANNELS_LAST ? 1 : planes() * rows() * columns();
#pragma unroll
        for (int v = 0; v < NUMBERS; ++v) {
          const bool there = real[i] && c + v * STRIPE < inner();
          pixels[i].at[v] = there ? widen(at[i][v * STRIPE * apart]) : 0;
        }
      }
    }
  }

  // This thread's pack of filters in a step, if it has one: rows of FILTERS / 4 packs.
  __device__ __forceinline__ static int filter_row() { return threadIdx.x / (FILTERS / 4); }
  __device__ __forceinline__ static int filter_column() { return threadIdx.x % (FILTERS / 4) * 4; }

  // to_left, to_right: where this thread's first numbers of a step lie.
  __device__ __forceinline__ void write(S* to_left, S* to_right) const {
#pragma unroll
    for (int i = 0; i < SPOTS; ++i) {
#pragma unroll
      for (int v = 0; v < NUMBERS; ++v) {
        to_left[v * STRIPE * Result::LEFT_PITCH + (spot_pixel(i) - spot_pixel(0))] = pixels[i].at[v];
      }
    }
    if (EACH_READS || filter_row() < DEPTH) *reinterpret_cast<Pack<S, 4>*>(to_right) = filters;
  }

  __device__ __forceinline__ void read(const Step& step, const S* from) {
    read_pixels(step);
    if (EACH_READS || filter_row() < DEPTH) filters = *reinterpret_cast<const Pack<S, 4>*>(from);
  }

  // Go on to the next DEPTH rows of the inner dimension; true if they belong to another tap.
  __device__ __forceinline__ bool advance(Step& step) {
    step.c += DEPTH;
#pragma unroll
    for (int i = 0; i < SPOTS; ++i) {
      if (!FEW) at[i] += CHANNELS_LAST ? DEPTH : DEPTH * planes() * rows() * columns();
    }
    if (FEW || step.c < inner()) return false;
    step.c = 0;
    if (++step.s == place.across.taps) {
      step.s = 0;
      ++step.r;
      if (VOLUME && step.r == place.down.taps) {
        step.r = 0;
        ++step.t;
      }
    }
    return true;
  }

  // Where this thread's pack of a tap's first filters lies; `rows` of `width` for each group, `depth` for each tap.
  __device__ __forceinline__ const S* filters_of(const S* packed, const Step& step, int rows, int depth, int width) const {
    const int t = deep_axis(place).tap0 + step.t * deep_axis(place).tap_step;
    const int r = place.down.tap0 + step.r * place.down.tap_step, s = place.across.tap0 + step.s * place.across.tap_step;
    const int row = (FEW ? 0 : ((t * z.R + r) * z.S + s) * depth) + filter_row();
    const long long first = static_cast<long long>(place.group) * rows + row;
    return packed + first * width + place.column + filter_column();
  }

  // Add up the whole inner dimension in `steps`.
  __device__ __forceinline__ void run(Result& result, const S* packed, int rows, int depth, int width, int steps) {
    __shared__ typename Result::Sides sides[2];
    if (steps == 0) return;
    const S *down = &sides[0].left[0][result.top], *across = &sides[0].right[0][result.left];
    S *to_left = &sides[0].left[spot_channel(0)][spot_pixel(0)], *to_right;
    to_right = &sides[0].right[EACH_READS ? filter_row() : min(filter_row(), DEPTH - 1)][filter_column()];
    Step step = {0, 0, 0, 0};
    seek(step);
    const S* from = filters_of(packed, step, rows, depth, width);
    read(step, from);
    write(to_left, to_right);
    for (int i = 1; i < steps; ++i) {
      __syncthreads();
      from += DEPTH * width;
      if (advance(step)) {
        seek(step);
        if (DATA) from = filters_of(packed, step, rows, depth, width);  // forward, the next tap comes next
      }
      read(step, from);  // on its way while the numbers of the step before are added up
      result.add(down, across);
      const int other = i % 2 == 1 ? Result::OTHER : -Result::OTHER;
      if (KEEPS_PLACES) {
        to_left += other;
        to_right += other;
      } else {
        to_left = &sides[i & 1].left[spot_channel(0)][spot_pixel(0)];
        to_right = &sides[i & 1].right[filter_row()][filter_column()];
      }
      write(to_left, to_right);
      down += other;
      across += other;
    }
    __syncthreads();
    result.add(down, across);
  }
};

// Write a tile of outputs, images of `outputs` channels and D x H x W pixels.
template <typename T, bool CHANNELS_LAST, bool RELU, int HEIGHT, int WIDTH, typename Result, bool VOLUME>
__device__ __forceinline__ void write_tile(Result& result, const T* __restrict__ b, T* __restrict__ output,
                                           const Place<VOLUME>& place, int outputs, int outer, int D, int H, int W) {
  const int first = place.group * outer;
#pragma unroll
  for (int j = 0; j < WIDTH; ++j) {
    const int column = place.column + result.column(j);
    const auto bias = b != nullptr && column < outer ? widen(b[first + column]) : 0;
#pragma unroll
    for (int i = 0; i < HEIGHT; ++i) {
      result.sum[i][j] += bias;
      if (RELU) result.sum[i][j] = result.sum[i][j] < 0 ? 0 : result.sum[i][j];
    }
  }

  // 4 pixels of a filter at once, unless they are the pixels of one phase of a stride.
  if (!CHANNELS_LAST && place.area == D * H * W && place.area % 4 == 0 && is_aligned<4>(output)) {
#pragma unroll
    for (int i = 0; i < HEIGHT; i += 4) {
      if (result.row(i) >= place.pixels) continue;
      const int pixel = place.start + result.row(i);
      T* plane = output + ((place.image + pixel / place.area) * outputs + first) * place.area + pixel % place.area;
#pragma unroll
      for (int j = 0; j < WIDTH; ++j) {
        const int column = place.column + result.column(j);
        if (column >= outer) continue;
        Pack<T, 4> pack;
#pragma unroll
        for (int v = 0; v < 4; ++v) pack.at[v] = narrow<T>(result.sum[i + v][j]);
        *reinterpret_cast<Pack<T, 4>*>(plane + static_cast<long long>(column) * place.area) = pack;
      }
    }
    return;
  }

  const bool wide = CHANNELS_LAST && outer % 4 == 0 && is_aligned<4>(output);  // 4 filters of a pixel at once
#pragma unroll
  for (int i = 0; i < HEIGHT; ++i) {
    if (result.row(i) >= place.pixels) continue;
    const int pixel = place.start + result.row(i);
    const Spot spot = spot_at(place, pixel % place.area);
    const long long n = place.image + pixel / place.area;
    const int d = deep_axis(place).place + spot.o * deep_axis(place).spread;
    const int h = place.down.place + spot.p * place.down.spread;
    const int v = place.across.place + spot.q * place.across.spread;
#pragma unroll
    for (int j = 0; j < WIDTH; j += 4) {
      const int column = place.column + result.column(j);
      T* to = output + voxel_place<CHANNELS_LAST, long long>(n, first + column, d, h, v, outputs, D, H, W);
      if (wide) {
        if (column >= outer) continue;
        Pack<T, 4> pack;
#pragma unroll
        for (int u = 0; u < 4; ++u) pack.at[u] = narrow<T>(result.sum[i][j + u]);
        *reinterpret_cast<Pack<T, 4>*>(to) = pack;
      } else {
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          const long long far = CHANNELS_LAST ? u : static_cast<long long>(u) * D * H * W;
          if (column + u < outer) to[far] = narrow<T>(result.sum[i][j + u]);
        }
      }
    }
  }
}

// The tiled kernels of y (packed filters of z.C / z.groups channels).
template <bool FEW, bool CHANNELS_LAST, bool WIDE, bool RELU, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH,
          typename T, typename Shape>
__device__ __forceinline__ void forward_tile(const T* __restrict__ x, const Sum<T>* __restrict__ packed,
                                             const T* __restrict__ b, T* __restrict__ y, const Shape& z) {
  using Reader = Correlation<Shape, T, false, FEW, CHANNELS_LAST, WIDE, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>;
  const Depth deep = depth_of(z);
  const int inner = z.C / z.groups, outer = z.K / z.groups, taps = deep.taps * z.R * z.S;
  const int depth = FEW ? inner : ceil_div(inner, DEPTH) * DEPTH, rows = ceil_div(taps * depth, DEPTH) * DEPTH;
  const int width = ceil_div(outer, FILTERS) * FILTERS;
  __shared__ Place<IS_VOLUME<Shape>> place;
  __shared__ int4 table[Reader::TABLE];
  if (threadIdx.x == 0) place = find_tile<false>(z, PIXELS, FILTERS, 1, 1, 1);
  if (FEW) {
    for (int row = threadIdx.x; row < rows; row += TILE_THREADS) {
      table[row] = table_row<CHANNELS_LAST>(z, row / inner, row % inner, row / inner < taps);
    }
  }
  __syncthreads();
  Reader reader(x, z, place, table);
  typename Reader::Result result;
  reader.run(result, packed, rows, depth, width, rows / DEPTH);
  write_tile<T, CHANNELS_LAST, RELU, HEIGHT, WIDTH>(result, b, y, place, z.K, outer, deep.outputs, z.P, z.Q);
}

// The tiled kernels of dx.  special: what conv_pack_filters found.
template <bool CHANNELS_LAST, bool WIDE, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH, typename T,
          typename Shape>
__device__ __forceinline__ void data_tile(const T* __restrict__ dy, const Sum<T>* __restrict__ packed,
                                          const T* __restrict__ b, T* __restrict__ dx, const Shape& z, const T* __restrict__ w,
                                          const int* __restrict__ special, int specials, int tap_step_d,
                                          int tap_step_v, int tap_step_h) {
  using Reader = Correlation<Shape, T, true, false, CHANNELS_LAST, WIDE, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>;
  const Depth deep = depth_of(z);
  const int inner = z.K / z.groups, outer = z.C / z.groups, depth = ceil_div(inner, DEPTH) * DEPTH;
  const int width = ceil_div(outer, FILTERS) * FILTERS;
  __shared__ Place<IS_VOLUME<Shape>> place;
  if (threadIdx.x == 0) place = find_tile<true>(z, PIXELS, FILTERS, tap_step_d, tap_step_v, tap_step_h);
  bool unbounded = false;
  for (int i = threadIdx.x; i < specials; i += TILE_THREADS) unbounded = unbounded || special[i] != 0;
  unbounded = __syncthreads_or(unbounded);
  if (place.pixels <= 0) return;  // a phase smaller than the largest

  // A pixel outside dy is the number 0, and 0 times infinity is NaN: with such filters, only real outputs may be summed.
  if (unbounded) {
#pragma unroll 1
    for (int i = threadIdx.x; i < PIXELS * FILTERS; i += TILE_THREADS) {
      const int column = place.column + i / PIXELS, pixel = place.start + i % PIXELS;
      if (i % PIXELS >= place.pixels || column >= outer) continue;
      const Spot spot = spot_at(place, pixel % place.area);
      const long long n = place.image + pixel / place.area, c = place.group * outer + column;
      const long long d = deep_axis(place).place + spot.o * deep_axis(place).spread;
      const long long h = place.down.place + spot.p * place.down.spread;
      const long long v = place.across.place + spot.q * place.across.spread;
      T gradient;
      if constexpr (IS_VOLUME<Shape>) {
        gradient = data_gradient<T, CHANNELS_LAST, long long>(dy, w, b, z, {n, c, d, h, v});
      } else {
        gradient = data_gradient<T, CHANNELS_LAST, long long>(dy, w, b, z, {n, c, h, v});
      }
      dx[voxel_place<CHANNELS_LAST, long long>(n, c, d, h, v, z.C, deep.inputs, z.H, z.W)] = gradient;
    }
    return;
  }

  Reader reader(dy, z, place, nullptr);
  typename Reader::Result result;
  const int steps = deep_axis(place).taps * place.down.taps * place.across.taps * (depth / DEPTH);
  reader.run(result, packed, deep.taps * z.R * z.S * depth, depth, width, steps);
  write_tile<T, CHANNELS_LAST, false, HEIGHT, WIDTH>(result, b, dx, place, z.C, outer, deep.inputs, z.H, z.W);
}

// Pixels of a slice as a block of dw walks through them: DEPTH in each step, of which this thread reads one.
//
// Of that pixel it reads 4 filters of dy and RIGHTS packs of 4 taps and channels of x.  WIDE_DY, WIDE_X:
// these packs lie side by side in memory, aligned and whole.
template <typename Shape, typename T, bool CHANNELS_LAST, bool WIDE_DY, bool WIDE_X, int FILTERS, int COLUMNS, int DEPTH>
struct Slice {
  using S = Sum<T>;
  static constexpr bool VOLUME = IS_VOLUME<Shape>;
  static constexpr int RIGHTS = COLUMNS * DEPTH / (4 * TILE_THREADS);
  static constexpr int APART = 4 * TILE_THREADS / DEPTH;  // numbers from one pack of a thread to the next
  static_assert(APART == FILTERS && RIGHTS * APART == COLUMNS, "threads must share the numbers evenly");

  const Shape& z;
  const int4* table;  // of each column: place and tap, from the pixel at the window's corner
  const int4& stride;
  const T *gradients, *image;  // of this thread's pixel: its first filter, and the image it lies in
  int filters, pixels;         // left from this thread's first on; steps in which its pixel lies in the slice
  int o, p, q;
  Pack<S, 4> left, right[RIGHTS];

  // Lanes run along what is contiguous in memory.
  __device__ __forceinline__ static int row() {
    return CHANNELS_LAST ? threadIdx.x / (TILE_THREADS / DEPTH) : threadIdx.x % DEPTH;
  }
  __device__ __forceinline__ static int pack() {
    return (CHANNELS_LAST ? threadIdx.x % (TILE_THREADS / DEPTH) : threadIdx.x / DEPTH) * 4;
  }

  __device__ __forceinline__ int area() const { return depth_of(z).outputs * z.P * z.Q; }
  __device__ __forceinline__ int image_size() const { return z.C * depth_of(z).inputs * z.H * z.W; }

  // DEPTH pixels in columns, rows, planes and images.
  __device__ __forceinline__ static int4 stride_of(const Shape& z) {
    const int planes = DEPTH / z.Q / z.P, outputs = depth_of(z).outputs;
    return make_int4(DEPTH % z.Q, DEPTH / z.Q % z.P, planes % outputs, planes / outputs);
  }

  __device__ __forceinline__ Slice(const T* dy, const T* x, const Shape& z, const int4* table, const int4& stride,
                                   int group, int filter0, long long begin, long long end)
      : z(z), table(table), stride(stride) {
    filters = z.K / z.groups - filter0 - pack();
    // Filters beyond the last are the first ones in packs, whose sums nobody keeps.
    const int filter = group * (z.K / z.groups) + (WIDE_DY && filters <= 0 ? 0 : filter0 + pack());
    const long long pixel = begin + row(), n = pixel / area();
    const int number = static_cast<int>(pixel % area()), line = number / z.Q;
    o = VOLUME ? line / z.P : 0;
    p = line - o * z.P;
    q = number % z.Q;
    pixels = static_cast<int>(ceil_div(max(end - pixel, 0LL), static_cast<long long>(DEPTH)));
    gradients = dy + (CHANNELS_LAST ? pixel * z.K + filter : (n * z.K + filter) * area() + number);
    image = x + n * image_size() + group * (z.C / z.groups) * (CHANNELS_LAST ? 1LL : image_size() / z.C);
  }

  __device__ __forceinline__ void read(int step) {
    const Depth deep = depth_of(z);
    const bool real = step < pixels;
    Pack<T, 4> four = {};
    if (WIDE_DY && real) four = *reinterpret_cast<const Pack<T, 4>*>(gradients);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (!WIDE_DY && real && k < filters) four.at[k] = gradients[CHANNELS_LAST ? k : static_cast<long long>(k) * area()];
      left.at[k] = widen(four.at[k]);
    }
    const int front = o * deep.stride - deep.pad, top = p * z.stride_v - z.pad_v, side = q * z.stride_h - z.pad_h;
    const int corner = ((front * z.H + top) * z.W + side) * (CHANNELS_LAST ? z.C : 1);
#pragma unroll
    for (int j = 0; j < RIGHTS; ++j) {
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        if (WIDE_X && v > 0) continue;
        const int4 tap = table[pack() + j * APART + v];
        const int plane = front + (VOLUME ? tap.w : 0), h = top + tap.y, u = side + tap.z;
        const bool there = real && plane >= 0 && plane < deep.inputs && h >= 0 && h < z.H && u >= 0 && u < z.W;
        if (WIDE_X) {  // 4 channels of one tap
          Pack<T, 4> four = {};
          if (there) four = *reinterpret_cast<const Pack<T, 4>*>(image + (corner + tap.x));
#pragma unroll
          for (int i = 0; i < 4; ++i) right[j].at[i] = widen(four.at[i]);
        } else {
          right[j].at[v] = there ? widen(image[corner + tap.x]) : 0;
        }
      }
    }
  }

  __device__ __forceinline__ void advance() {
    q += stride.x;
    p += stride.y;
    if (q >= z.Q) {
      q -= z.Q;
      ++p;
    }
    bool carry = p >= z.P;
    if (carry) p -= z.P;
    if (VOLUME) {
      o += stride.z + carry;
      carry = o >= depth_of(z).outputs;
      if (carry) o -= depth_of(z).outputs;
    }
    const int images = stride.w + carry;
    image += static_cast<long long>(images) * image_size();
    gradients += CHANNELS_LAST ? DEPTH * z.K : DEPTH + static_cast<long long>(images) * ((z.K - 1) * area());
  }

  // to_left, to_right: where this thread's first numbers of a step lie.
  __device__ __forceinline__ void write(S* to_left, S* to_right) const {
    *reinterpret_cast<Pack<S, 4>*>(to_left) = left;
#pragma unroll
    for (int j = 0; j < RIGHTS; ++j) *reinterpret_cast<Pack<S, 4>*>(to_right + j * APART) = right[j];
  }
};

// The tiled kernels of dw.  partial: (slices, K, taps, C / groups).  A block makes FILTERS filters x COLUMNS taps and
// channels, of the pixels [slice length, (slice + 1) length) of all images, slice = blockIdx.y; a thread HEIGHT x WIDTH.
template <bool CHANNELS_LAST, bool WIDE_DY, bool WIDE_X, int FILTERS, int COLUMNS, int HEIGHT, int WIDTH, int DEPTH,
          typename T, typename Shape>
__device__ __forceinline__ void weight_tile(const T* __restrict__ dy, const T* __restrict__ x,
                                            Sum<T>* __restrict__ partial, const Shape& z, long long length) {
  using S = Sum<T>;
  using Result = Tile<S, FILTERS, COLUMNS, DEPTH, HEIGHT, WIDTH, 4>;
  using Reader = Slice<Shape, T, CHANNELS_LAST, WIDE_DY, WIDE_X, FILTERS, COLUMNS, DEPTH>;
  const Depth deep = depth_of(z);
  const int channels = z.C / z.groups, filters = z.K / z.groups, columns = deep.taps * z.R * z.S * channels;
  const int tiles = ceil_div(columns, COLUMNS), tiles_down = ceil_div(filters, FILTERS);
  const int column0 = blockIdx.x % tiles * COLUMNS, filter0 = blockIdx.x / tiles % tiles_down * FILTERS;
  const int group = blockIdx.x / tiles / tiles_down;
  const long long begin = blockIdx.y * length;
  const long long end = min(begin + length, static_cast<long long>(z.N) * deep.outputs * z.P * z.Q);

  __shared__ typename Result::Sides sides[2];
  __shared__ int4 table[COLUMNS];
  __shared__ int4 kept_stride;  // volumes have no registers for it
  const int4 stride = Reader::stride_of(z);
  if (IS_VOLUME<Shape> && threadIdx.x == 0) kept_stride = stride;
  for (int i = threadIdx.x; i < COLUMNS; i += TILE_THREADS) {
    const int column = column0 + i;
    table[i] = table_row<CHANNELS_LAST>(z, column / channels, column % channels, column < columns);
  }
  __syncthreads();

  Result result;
  Reader reader(dy, x, z, table, IS_VOLUME<Shape> ? kept_stride : stride, group, filter0, begin, end);
  const int steps = static_cast<int>(ceil_div(max(end - begin, 0LL), static_cast<long long>(DEPTH)));
  if (steps > 0) {
    const S *down = &sides[0].left[0][result.top], *across = &sides[0].right[0][result.left];
    // The places on both sides of a square tile are a constant apart.
    S* to_left = &sides[0].left[reader.row()][reader.pack()];
    const int right = DEPTH * Result::LEFT_PITCH + reader.row() * (Result::RIGHT_PITCH - Result::LEFT_PITCH);
    reader.read(0);
    reader.write(to_left, to_left + right);
    for (int i = 1; i < steps; ++i) {
      __syncthreads();
      reader.advance();
      reader.read(i);  // on its way while the numbers of the step before are added up
      result.add(down, across);
      const int other = i % 2 == 1 ? Result::OTHER : -Result::OTHER;
      to_left += other;
      reader.write(to_left, to_left + right);
      down += other;
      across += other;
    }
    __syncthreads();
    result.add(down, across);
  }

  const long long rows = static_cast<long long>(blockIdx.y) * z.K + group * filters;
#pragma unroll
  for (int i = 0; i < HEIGHT; ++i) {
    const int k = filter0 + result.row(i);
    if (k >= filters) continue;
#pragma unroll
    for (int j = 0; j < WIDTH; j += 4) {
      const int column = column0 + result.column(j);
      S* place = partial + (rows + k) * columns + column;
      if (columns % 4 == 0) {
        Pack<S, 4> four;
#pragma unroll
        for (int v = 0; v < 4; ++v) four.at[v] = result.sum[i][j + v];
        if (column < columns) *reinterpret_cast<Pack<S, 4>*>(place) = four;
      } else {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
          if (column + v < columns) place[v] = result.sum[i][j + v];
        }
      }
    }
  }
}
