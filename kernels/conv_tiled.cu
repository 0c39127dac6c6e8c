// 2-D convolution and its gradients as products of matrices that are never written down.
//
//   y     (pixels) x (taps and channels)  times  (taps and channels) x (filters)
//   dx    the correlation of dy with the filters turned round, one for each phase of the stride: no zero is multiplied
//   dw    (filters) x (pixels)  times  (pixels) x (taps and channels), the pixels cut in slices
//
// The sums are those of conv.cu, which has the formulas, packs the filters and adds the slices of dw in order.
//
// Layout: images are (N, C, H, W) or, with CHANNELS_LAST, (N, H, W, C), without gaps; w is (K, C / groups, R, S).
// Sums are kept in Sum<T>.  Places inside one padded image are counted in 32 bits, images in 64.
//
//   kernel                       | one block per                      | when
//   conv_forward_tiled           | tile of pixels x filters           | 8 channels a group or more
//   conv_forward_few             | the same                           | fewer channels: taps and channels mixed
//   conv_backward_data_tiled     | tile of pixels x channels          | 8 filters a group or more
//   conv_backward_weight_tiled   | tile of dw and slice of the pixels | 16 filters a group or more
//
// Each of them wants 16 columns of its result or more, and images that 32 bits can count; else the plain kernel runs.
// Sources: Chetlur et al., cuDNN: efficient primitives for deep learning (arXiv 1410.0759), for the implicit product.
// Launchers: gpuconv/cuda/conv.py.
#include "conv.cuh"
#include "tile.cuh"

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
struct Place {
  Axis down, across;
  int area;               // outputs of an image: down.count across.count
  long long image;        // of the tile's first pixel,
  int start;              // and its number among those of the image
  long long pixels;       // from the tile's first on, to the end of all images
  int group, column;      // first filter of the tile (DATA: channel of dx), counted in its group
};

// Tile number blockIdx.x, phase number blockIdx.y.  Tiles side by side read the same pixels, so they come first.
template <bool DATA>
__device__ __forceinline__ Place find_tile(const ConvShape& z, int height, int width, int tap_step_v, int tap_step_h) {
  Place at;
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
  at.area = at.down.count * at.across.count;
  at.pixels = static_cast<long long>(z.N) * at.area - first;
  at.image = at.pixels > 0 ? first / at.area : 0;
  at.start = at.pixels > 0 ? static_cast<int>(first % at.area) : 0;
  return at;
}

// How a block walks through the inner dimension: tap by tap, and DEPTH channels at a time.
struct Step {
  int r, s, c;
};

// A block's share of a correlation of images with packed filters: PIXELS x FILTERS outputs, HEIGHT x WIDTH for a thread.
//
// FEW: the inner dimension is not cut at taps, which would be mostly padding with few channels; a table in shared memory
// says where each of its rows lies.
template <typename T, bool DATA, bool FEW, bool CHANNELS_LAST, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
struct Correlation {
  using S = Sum<T>;
  // Stores of a warp run along the axis that is contiguous in memory.
  using Result = Tile<S, PIXELS, FILTERS, DEPTH, HEIGHT, WIDTH, CHANNELS_LAST ? 4 : 8>;
  static constexpr bool PACKS = CHANNELS_LAST && !FEW;  // a thread reads 4 channels of a pixel, else single numbers
  static constexpr int SPOTS = PACKS ? ceil_div(PIXELS * DEPTH / 4, TILE_THREADS) : 1;  // pixels that a thread reads
  static constexpr int NUMBERS = PACKS ? 4 : PIXELS * DEPTH / TILE_THREADS;             // and numbers of each
  static constexpr int STRIPE = TILE_THREADS / PIXELS;  // distance of those numbers in the inner dimension
  static constexpr int TABLE = FEW ? 512 : 1;
  static_assert(PACKS || PIXELS * DEPTH % TILE_THREADS == 0, "threads must share the pixels evenly");
  static_assert(PACKS || TILE_THREADS % PIXELS == 0, "a thread must keep to one pixel");
  static_assert(FILTERS * DEPTH <= 4 * TILE_THREADS, "a thread reads at most one pack of filters");

  const ConvShape& z;
  const Place& place;
  const int4* table;  // FEW: of each inner row, place and tap, from the pixel at the window's corner
  const T* images[SPOTS];
  int top[SPOTS], left[SPOTS], at[SPOTS];  // at: place of the pixel under the current tap, or NOWHERE
  Pack<S, NUMBERS> pixels[SPOTS];
  Pack<S, 4> filters;

  // Sizes of the input images.
  __device__ __forceinline__ int channels() const { return DATA ? z.K : z.C; }
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
  __device__ __forceinline__ Correlation(const T* input, const ConvShape& z, const Place& place, const int4* table)
      : z(z), place(place), table(table) {
#pragma unroll
    for (int i = 0; i < SPOTS; ++i) {
      const int pixel = spot_pixel(i), spot = place.start + pixel;
      const int p = spot % place.area / place.across.count, q = spot % place.area % place.across.count;
      const long long planes = (place.image + spot / place.area) * channels(), first = place.group * inner();
      const long long area = static_cast<long long>(rows()) * columns();
      images[i] = input + (CHANNELS_LAST ? planes * area + first : (planes + first) * area);
      top[i] = pixel < PIXELS && pixel < place.pixels ? p * place.down.stride + place.down.first : NOWHERE;
      left[i] = q * place.across.stride + place.across.first;
    }
  }

  __device__ __forceinline__ bool inside(int h, int v) const {
    return h >= 0 && h < rows() && v >= 0 && v < columns();
  }

  __device__ __forceinline__ void seek(const Step& step) {
#pragma unroll
    for (int i = 0; i < SPOTS; ++i) {
      const int h = top[i] + step.r * place.down.apart, v = left[i] + step.s * place.across.apart;
      at[i] = inside(h, v) ? (h * columns() + v) * (CHANNELS_LAST ? channels() : 1) : NOWHERE;
    }
  }

  // wide: packs of 4 channels are aligned and whole.
  __device__ __forceinline__ void read_pixels(const Step& step, bool wide) {
#pragma unroll
    for (int i = 0; i < SPOTS; ++i) {
      const int c = step.c + spot_channel(i);
      if (PACKS && wide) {
        Pack<T, 4> pack = {};
        if (at[i] >= 0 && c < inner()) pack = *reinterpret_cast<const Pack<T, 4>*>(images[i] + at[i] + c);
#pragma unroll
        for (int v = 0; v < NUMBERS; ++v) pixels[i].at[v] = widen(pack.at[v % 4]);
      } else if (PACKS) {
#pragma unroll
        for (int v = 0; v < NUMBERS; ++v) {
          pixels[i].at[v] = at[i] >= 0 && c + v < inner() ? widen(images[i][at[i] + c + v]) : 0;
        }
      } else if (FEW) {
        const int corner = top[i] == NOWHERE ? 0 : (top[i] * columns() + left[i]) * (CHANNELS_LAST ? channels() : 1);
#pragma unroll
        for (int v = 0; v < NUMBERS; ++v) {
          const int4 row = table[c + v * STRIPE];
          pixels[i].at[v] = inside(top[i] + row.y, left[i] + row.z) ? widen(images[i][corner + row.x]) : 0;
        }
      } else {
#pragma unroll
        for (int v = 0; v < NUMBERS; ++v) {
          const bool real = at[i] >= 0 && c + v * STRIPE < inner();
          pixels[i].at[v] = real ? widen(images[i][at[i] + (c + v * STRIPE) * rows() * columns()]) : 0;
        }
      }
    }
  }

  // This thread's pack of filters in a step, if it has one: rows of FILTERS / 4 packs.
  __device__ __forceinline__ static int filter_row() { return threadIdx.x / (FILTERS / 4); }
  __device__ __forceinline__ static int filter_column() { return threadIdx.x % (FILTERS / 4) * 4; }

  __device__ __forceinline__ void write(typename Result::Left& a, typename Result::Right& b) const {
#pragma unroll
    for (int i = 0; i < SPOTS; ++i) {
      const int pixel = spot_pixel(i), c = spot_channel(i);
      if (pixel < PIXELS) {
#pragma unroll
        for (int v = 0; v < NUMBERS; ++v) a[c + v * (PACKS ? 1 : STRIPE)][pixel] = pixels[i].at[v];
      }
    }
    if (filter_row() < DEPTH) *reinterpret_cast<Pack<S, 4>*>(&b[filter_row()][filter_column()]) = filters;
  }

  // Go on to the next DEPTH rows of the inner dimension; true if they belong to another tap.
  __device__ __forceinline__ bool advance(Step& step) const {
    step.c += DEPTH;
    if (FEW || step.c < inner()) return false;
    step.c = 0;
    if (++step.s == place.across.taps) {
      step.s = 0;
      ++step.r;
    }
    return true;
  }

  // Where this thread's pack of a tap's first filters lies; `rows` of `width` for each group, `depth` for each tap.
  __device__ __forceinline__ const S* filters_of(const S* packed, const Step& step, int rows, int depth, int width) const {
    const int r = place.down.tap0 + step.r * place.down.tap_step, s = place.across.tap0 + step.s * place.across.tap_step;
    const int row = (FEW ? 0 : (r * z.S + s) * depth) + filter_row();
    const long long first = static_cast<long long>(place.group) * rows + row;
    return packed + first * width + place.column + filter_column();
  }

  // Add up the whole inner dimension in `steps`.
  __device__ __forceinline__ void run(Result& result, const S* packed, int rows, int depth, int width, int steps,
                                      bool wide) {
    __shared__ __align__(4 * sizeof(S)) typename Result::Left a[2];
    __shared__ __align__(4 * sizeof(S)) typename Result::Right b[2];
    Step step = {0, 0, 0};
    seek(step);
    const S* from = filters_of(packed, step, rows, depth, width);
    for (int i = 0; i <= steps; ++i) {
      if (i < steps) {
        read_pixels(step, wide);
        if (filter_row() < DEPTH) filters = *reinterpret_cast<const Pack<S, 4>*>(from);
        from += DEPTH * width;
        if (advance(step)) {
          seek(step);  // behind the last tap, of what is not read
          if (DATA) from = filters_of(packed, step, rows, depth, width);  // forward, the next tap comes next
        }
      }
      if (i > 0) result.add(a[(i - 1) % 2], b[(i - 1) % 2]);  // while the numbers of the next step are on their way
      if (i < steps) write(a[i % 2], b[i % 2]);
      __syncthreads();
    }
  }
};

// Write a tile of outputs, images of `outputs` channels and H x W pixels.
template <typename T, bool CHANNELS_LAST, bool RELU, int HEIGHT, int WIDTH, typename Result>
__device__ __forceinline__ void write_tile(Result& result, const T* __restrict__ b, T* __restrict__ output,
                                           const Place& place, int outputs, int outer, int H, int W) {
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
  if (!CHANNELS_LAST && place.area == H * W && place.area % 4 == 0 && is_aligned<4>(output)) {
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
    const int pixel = place.start + result.row(i), spot = pixel % place.area;
    const long long n = place.image + pixel / place.area;
    const int h = place.down.place + spot / place.across.count * place.down.spread;
    const int v = place.across.place + spot % place.across.count * place.across.spread;
#pragma unroll
    for (int j = 0; j < WIDTH; j += 4) {
      const int column = place.column + result.column(j);
      T* to = output + place_of<CHANNELS_LAST, long long>(n, first + column, h, v, outputs, H, W);
      if (wide) {
        if (column >= outer) continue;
        Pack<T, 4> pack;
#pragma unroll
        for (int u = 0; u < 4; ++u) pack.at[u] = narrow<T>(result.sum[i][j + u]);
        *reinterpret_cast<Pack<T, 4>*>(to) = pack;
      } else {
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          const long long far = CHANNELS_LAST ? u : static_cast<long long>(u) * H * W;
          if (column + u < outer) to[far] = narrow<T>(result.sum[i][j + u]);
        }
      }
    }
  }
}

// The tiled kernels of y (packed filters of z.C / z.groups channels).
template <typename T, bool FEW, bool CHANNELS_LAST, bool RELU, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
__device__ __forceinline__ void forward_tile(const T* __restrict__ x, const Sum<T>* __restrict__ packed,
                                             const T* __restrict__ b, T* __restrict__ y, const ConvShape& z) {
  using Reader = Correlation<T, false, FEW, CHANNELS_LAST, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>;
  const int inner = z.C / z.groups, outer = z.K / z.groups, taps = z.R * z.S;
  const int depth = FEW ? inner : ceil_div(inner, DEPTH) * DEPTH, rows = ceil_div(taps * depth, DEPTH) * DEPTH;
  const int width = ceil_div(outer, FILTERS) * FILTERS;
  __shared__ Place place;
  __shared__ int4 table[Reader::TABLE];
  if (threadIdx.x == 0) place = find_tile<false>(z, PIXELS, FILTERS, 1, 1);
  if (FEW) {
    for (int row = threadIdx.x; row < rows; row += TILE_THREADS) {
      const int tap = row / inner, c = row % inner, h = tap / z.S * z.dilation_v, v = tap % z.S * z.dilation_h;
      const int from = CHANNELS_LAST ? (h * z.W + v) * z.C + c : (c * z.H + h) * z.W + v;
      table[row] = tap < taps ? make_int4(from, h, v, 0) : make_int4(0, NOWHERE, NOWHERE, 0);
    }
  }
  __syncthreads();
  Reader reader(x, z, place, table);
  typename Reader::Result result;
  const bool wide = CHANNELS_LAST && inner % 4 == 0 && is_aligned<4>(x);
  reader.run(result, packed, rows, depth, width, rows / DEPTH, wide);
  write_tile<T, CHANNELS_LAST, RELU, HEIGHT, WIDTH>(result, b, y, place, z.K, outer, z.P, z.Q);
}

template <typename T, bool CHANNELS_LAST, bool RELU, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_forward_tiled(const T* __restrict__ x, const Sum<T>* __restrict__ packed, const T* __restrict__ b,
                   T* __restrict__ y, const ConvShape z) {
  forward_tile<T, false, CHANNELS_LAST, RELU, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>(x, packed, b, y, z);
}

template <typename T, bool CHANNELS_LAST, bool RELU, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_forward_few(const T* __restrict__ x, const Sum<T>* __restrict__ packed, const T* __restrict__ b, T* __restrict__ y,
                 const ConvShape z) {
  forward_tile<T, true, CHANNELS_LAST, RELU, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>(x, packed, b, y, z);
}

// blockIdx.y: phase of the stride.  special: what conv_pack_filters found.
template <typename T, bool CHANNELS_LAST, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_backward_data_tiled(const T* __restrict__ dy, const Sum<T>* __restrict__ packed, T* __restrict__ dx,
                         const ConvShape z, const T* __restrict__ w, const int* __restrict__ special, int specials,
                         int tap_step_v, int tap_step_h) {
  using Reader = Correlation<T, true, false, CHANNELS_LAST, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>;
  const int inner = z.K / z.groups, outer = z.C / z.groups, depth = ceil_div(inner, DEPTH) * DEPTH;
  const int width = ceil_div(outer, FILTERS) * FILTERS;
  __shared__ Place place;
  if (threadIdx.x == 0) place = find_tile<true>(z, PIXELS, FILTERS, tap_step_v, tap_step_h);
  bool unbounded = false;
  for (int i = threadIdx.x; i < specials; i += TILE_THREADS) unbounded = unbounded || special[i] != 0;
  unbounded = __syncthreads_or(unbounded);
  if (place.pixels <= 0) return;  // a phase smaller than the largest

  // A pixel outside dy is the number 0, and 0 times infinity is NaN: with such filters, only real outputs may be summed.
  if (unbounded) {
#pragma unroll 1
    for (int i = threadIdx.x; i < PIXELS * FILTERS; i += TILE_THREADS) {
      const int column = place.column + i / PIXELS, pixel = place.start + i % PIXELS, spot = pixel % place.area;
      if (i % PIXELS >= place.pixels || column >= outer) continue;
      const Pixel<long long> in = {place.image + pixel / place.area, place.group * outer + column,
                                   place.down.place + spot / place.across.count * place.down.spread,
                                   place.across.place + spot % place.across.count * place.across.spread};
      dx[place_of<CHANNELS_LAST, long long>(in.n, in.c, in.h, in.w, z.C, z.H, z.W)] =
          data_gradient<T, CHANNELS_LAST, long long>(dy, w, z, in);
    }
    return;
  }

  Reader reader(dy, z, place, nullptr);
  typename Reader::Result result;
  const bool wide = CHANNELS_LAST && inner % 4 == 0 && is_aligned<4>(dy);
  const int steps = place.down.taps * place.across.taps * (depth / DEPTH);
  reader.run(result, packed, z.R * z.S * depth, depth, width, steps, wide);
  write_tile<T, CHANNELS_LAST, false, HEIGHT, WIDTH>(result, static_cast<const T*>(nullptr), dx, place, z.C, outer,
                                                          z.H, z.W);
}

// partial: (slices, K, R S, C / groups).  A block makes SIDE filters x SIDE taps and channels, of the pixels
// [slice length, (slice + 1) length) of all images, slice = blockIdx.y; a thread SPAN x SPAN of them.
template <typename T, bool CHANNELS_LAST, int SIDE, int SPAN, int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_backward_weight_tiled(const T* __restrict__ dy, const T* __restrict__ x, Sum<T>* __restrict__ partial,
                           const ConvShape z, long long length) {
  using S = Sum<T>;
  using Result = Tile<S, SIDE, SIDE, DEPTH, SPAN, SPAN, 4>;
  static_assert(SIDE * DEPTH == 4 * TILE_THREADS, "a thread reads 4 numbers of dy and 4 of x for each step");
  const int channels = z.C / z.groups, filters = z.K / z.groups, columns = z.R * z.S * channels;
  const int tiles = ceil_div(columns, SIDE), tiles_down = ceil_div(filters, SIDE);
  const int column0 = blockIdx.x % tiles * SIDE, filter0 = blockIdx.x / tiles % tiles_down * SIDE;
  const int group = blockIdx.x / tiles / tiles_down;
  const long long begin = blockIdx.y * length;
  const long long end = min(begin + length, static_cast<long long>(z.N) * z.P * z.Q);

  __shared__ __align__(4 * sizeof(S)) typename Result::Left a[2];
  __shared__ __align__(4 * sizeof(S)) typename Result::Right d[2];
  __shared__ int4 table[SIDE];  // of each column: place and tap, from the pixel at the window's corner
  for (int i = threadIdx.x; i < SIDE; i += TILE_THREADS) {
    const int column = column0 + i, tap = column / channels, c = column % channels;
    const int h = tap / z.S * z.dilation_v, v = tap % z.S * z.dilation_h;
    const int place = CHANNELS_LAST ? (h * z.W + v) * z.C + c : (c * z.H + h) * z.W + v;
    table[i] = column < columns ? make_int4(place, h, v, 0) : make_int4(0, NOWHERE, NOWHERE, 0);
  }
  __syncthreads();

  // This thread's pixel in each step, and its 4 filters and 4 columns; lanes run along what is contiguous in memory.
  const int row = CHANNELS_LAST ? threadIdx.x / (SIDE / 4) : threadIdx.x % DEPTH;
  const int pack = (CHANNELS_LAST ? threadIdx.x % (SIDE / 4) : threadIdx.x / DEPTH) * 4;
  const bool wide_dy = CHANNELS_LAST && filters % 4 == 0 && is_aligned<4>(dy);
  const bool wide_x = CHANNELS_LAST && channels % 4 == 0 && is_aligned<4>(x);
  const int filter = filter0 + pack, area = z.P * z.Q;
  const int step_q = DEPTH % z.Q, step_p = DEPTH / z.Q % z.P, step_n = DEPTH / z.Q / z.P;
  long long pixel = begin + row, n = pixel / area;
  int p = static_cast<int>(pixel % area) / z.Q, q = static_cast<int>(pixel % area) % z.Q;

  Result result;
  Pack<S, 4> gradients, pixels;
  const int steps = static_cast<int>(ceil_div(max(end - begin, 0LL), static_cast<long long>(DEPTH)));
  for (int i = 0; i <= steps; ++i) {
    if (i < steps) {
      const bool real = pixel < end;
      const T* from = dy + (CHANNELS_LAST ? pixel * z.K + group * filters + filter
                                          : (n * z.K + group * filters + filter) * area + p * z.Q + q);
      if (wide_dy && real && filter < filters) {
        const Pack<T, 4> four = *reinterpret_cast<const Pack<T, 4>*>(from);
#pragma unroll
        for (int v = 0; v < 4; ++v) gradients.at[v] = widen(four.at[v]);
      } else {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
          const bool there = !wide_dy && real && filter + v < filters;
          gradients.at[v] = there ? widen(from[CHANNELS_LAST ? v : static_cast<long long>(v) * area]) : 0;
        }
      }
      const int top = p * z.stride_v - z.pad_v, left = q * z.stride_h - z.pad_h;
      const T* image = x + (CHANNELS_LAST ? n * z.H * z.W * z.C + group * channels : (n * z.C + group * channels) * z.H * z.W);
      const int corner = (top * z.W + left) * (CHANNELS_LAST ? z.C : 1);
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        if (wide_x && v > 0) continue;
        const int4 tap = table[pack + v];
        const int h = top + tap.y, u = left + tap.z;
        const bool there = real && h >= 0 && h < z.H && u >= 0 && u < z.W;
        if (wide_x) {  // 4 channels of one tap
          Pack<T, 4> four = {};
          if (there) four = *reinterpret_cast<const Pack<T, 4>*>(image + corner + tap.x);
#pragma unroll
          for (int j = 0; j < 4; ++j) pixels.at[j] = widen(four.at[j]);
        } else {
          pixels.at[v] = there ? widen(image[corner + tap.x]) : 0;
        }
      }
      pixel += DEPTH;
      q += step_q;
      p += step_p;
      n += step_n;
      if (q >= z.Q) {
        q -= z.Q;
        ++p;
      }
      if (p >= z.P) {
        p -= z.P;
        ++n;
      }
    }
    if (i > 0) result.add(a[(i - 1) % 2], d[(i - 1) % 2]);  // while the numbers of the next step are on their way
    if (i < steps) {
      *reinterpret_cast<Pack<S, 4>*>(&a[i % 2][row][pack]) = gradients;
      *reinterpret_cast<Pack<S, 4>*>(&d[i % 2][row][pack]) = pixels;
    }
    __syncthreads();
  }

  const long long rows = static_cast<long long>(blockIdx.y) * z.K + group * filters;
#pragma unroll
  for (int i = 0; i < SPAN; ++i) {
    const int k = filter0 + result.row(i);
    if (k >= filters) continue;
#pragma unroll
    for (int j = 0; j < SPAN; j += 4) {
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
