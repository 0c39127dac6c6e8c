// Convolution of images and its input gradient on tensor cores: a block's tile of a product that is never written down.
//
// Layout: images are channels-last and aligned to 16 bytes; those that are read have channels in chunks of 16 bytes.  A
// slice is DEPTH rows of the inner dimension, row = tap * channels + channel: it may hold several taps.  A block keeps
// STAGES slices under way by cp.async, which also writes the zeros of the padding.
//
// Filters (K, R, S, C / groups), their channels in whole chunks, are what y and dx are made from.  For dx the inner
// dimension, the filters, lies downwards in them, and ldmatrix turns it over: of 16 bits, for it cannot turn float32, whose
// filters are (groups, C / groups, R, S, K / groups) then.
//
// In shared memory a line is a pixel's, or a column's, share of a slice.  Chunk c of line l lies in place
// c ^ (l's number among lines of 128 bytes): eight lanes that read a chunk of eight lines (ldmatrix) meet 32 different
// banks, and so do eight that write two lines.  Where ldmatrix turns filters over, a line is a row of the slice: all its
// columns, chunk c of row l in place c ^ l % 8.
//
// float32: tensor cores cut off what does not fit into the sum, so three products add up each slice by itself and then to
// the total, rounded to nearest.  What comes out infinite or NaN is added up again by the formula, in float32.
//
// Sources: PTX ISA, "Matrix Fragments for mma.m16n8k16"; CUTLASS for one bit of each tap row and column.
#pragma once

#include "conv_tiled.cuh"
#include "tensor.cuh"

constexpr int TENSOR_THREADS = 128;

// Place of a chunk among lines of CHUNKS chunks.
template <int CHUNKS>
__device__ __forceinline__ int swizzled(int line, int chunk) {
  return line * CHUNKS + (chunk ^ line / (8 / CHUNKS) % CHUNKS);
}

// A pixel of a tile: where the corner of its window lies in the images that are read, in chunks, and which taps are
// outside, bit r for row r and bit 16 + s for column s: that a tap has none of these is one instruction to ask.
struct Window {
  int corner;
  unsigned outside;
};
constexpr unsigned NO_TAP = 0x8000;  // always outside: windows have at most 15 rows and columns

__device__ __forceinline__ unsigned taps_inside(int at, const Axis& axis, int size) {
  unsigned inside = 0;
  for (int tap = 0; tap < axis.taps; ++tap, at += axis.apart) inside |= at >= 0 && at < size ? 1u << tap : 0;
  return inside;
}

// What is added to dx, rounded as dx is: values where their bits of the mask are set, all without one; null for nothing.
//
// In the layout of dx, of whole chunks.  mask: a byte for each chunk, bit v for its value v.
template <typename T>
struct Plus {
  static constexpr int CHUNK = CHUNK_OF<T>;
  const T* values;
  const unsigned char* mask;

  __device__ __forceinline__ void add_to(Pack<T, CHUNK>& chunk, long long place) const {
    if (values == nullptr) return;
    const Pack<T, CHUNK> more = *reinterpret_cast<const Pack<T, CHUNK>*>(values + place);
    const unsigned set = mask == nullptr ? ~0u : mask[place / CHUNK];
#pragma unroll
    for (int v = 0; v < CHUNK; ++v) {
      chunk.at[v] = narrow<T>(widen(chunk.at[v]) + (set >> v & 1 ? widen(more.at[v]) : 0));
    }
  }
};

// What follows y in the same pass, where its channels are whole chunks.
//
// pooled: maxima of 2 x 2 windows side by side; places: which of each, 0 to 3 in row order, null where nobody asks.
// partial: (3, tiles of pixels, K) of each tile's values of y, pooled ones with `pooled`: a centre c, near their mean;
// mean of y - c; sum of (y - c)^2.  Null where nobody asks.
struct Behind {
  bool pooled;
  unsigned char* places;
  float* partial;
};

// The output of an image with this number.  pooled: those of a window follow each other, in row order.
__device__ __forceinline__ Spot spot_at(const Place<false>& at, int number, bool pooled) {
  if (!pooled) return spot_at(at, number);
  const int window = number / 4, beside = at.across.count / 2, row = window / beside;
  return {0, 2 * row + number % 4 / 2, 2 * (window - row * beside) + number % 2};
}

// Blocks that a multiprocessor should have room for, by the sides of a warp's tile: three products keep two sums.
template <int PRODUCTS, int SIDES>
constexpr int BLOCKS_OF = PRODUCTS == 3 ? (SIDES > 64 ? 2 : 3) : (SIDES > 96 ? 2 : 4);

// The address so many chunks behind another, as a number of its own: what comes from a kernel's argument and an offset the
// compiler would add up again at each use.
template <typename T>
__device__ __forceinline__ const T* chunks_behind(const T* origin, long long chunks) {
  return reinterpret_cast<const T*>(reinterpret_cast<unsigned long long>(origin) + chunks * CHUNK_OF<T> * sizeof(T));
}

// True if the product reads filters whose inner dimension lies downwards.
template <typename T, bool DATA>
constexpr bool TURNED = DATA && sizeof(T) == 2;

// One sum of a tile again, in float32 and in order: pixel `number` of an image, column `column` of a group.
//
// Forward a pixel outside is 0, and 0 times an infinity NaN; of dx it has no part in the sum.
template <bool DATA, typename T>
__device__ __forceinline__ float formula_again(const T* __restrict__ input, const T* __restrict__ filters,
                                               const ConvShape& z, const Place<false>& place, int number, int column,
                                               bool pooled) {
  constexpr int CHUNK = CHUNK_OF<T>;
  const int channels = DATA ? z.K : z.C, rows = DATA ? z.P : z.H, columns = DATA ? z.Q : z.W;
  const int inner = channels / z.groups, outer = (DATA ? z.C : z.K) / z.groups, pitch = ceil_div(channels, CHUNK) * CHUNK;
  const int line = ceil_div(TURNED<T, DATA> ? outer : inner, CHUNK) * CHUNK, window = z.R * z.S;
  const long long n = place.image + number / place.area;
  const Spot spot = spot_at(place, number % place.area, pooled);
  const int top = spot.p * place.down.stride + place.down.first;
  const int left = spot.q * place.across.stride + place.across.first;
  float sum = 0;
  for (int r = 0; r < place.down.taps; ++r) {
    for (int s = 0; s < place.across.taps; ++s) {
      const int h = top + r * place.down.apart, v = left + s * place.across.apart;
      const bool inside = h >= 0 && h < rows && v >= 0 && v < columns;
      if (DATA && !inside) continue;
      const T* const pixel = input + ((n * rows + h) * columns + v) * pitch + place.group * inner;
      const int tap = (place.down.tap0 + r * place.down.tap_step) * z.S + place.across.tap0 + s * place.across.tap_step;
      for (int c = 0; c < inner; ++c) {
        const int own = TURNED<T, DATA> ? c : column, other = TURNED<T, DATA> ? column : c;
        const int first = place.group * (TURNED<T, DATA> ? inner : outer);
        const float filter = widen(filters[(static_cast<long long>(first + own) * window + tap) * line + other]);
        sum = multiply_add(inside ? widen(pixel[c]) : 0, filter, sum);
      }
    }
  }
  return sum;
}

// True if there is an infinity or NaN among what dx of a tile of so many columns is made from, for a whole block.
template <int COLUMNS, typename T>
__device__ __forceinline__ bool any_unbounded(const T* __restrict__ filters, const ConvShape& z, const Place<false>& place) {
  constexpr int CHUNK = CHUNK_OF<T>;
  const int inner = z.K / z.groups, outer = z.C / z.groups, lines = inner * z.R * z.S, line = ceil_div(outer, CHUNK) * CHUNK;
  bool found = false;
  for (int i = threadIdx.x; i < lines * (COLUMNS / CHUNK); i += TENSOR_THREADS) {
    const int column = place.column + i % (COLUMNS / CHUNK) * CHUNK;
    if (column >= outer) continue;
    const long long at = static_cast<long long>(place.group) * lines + i / (COLUMNS / CHUNK);
    const auto chunk = *reinterpret_cast<const Pack<T, CHUNK>*>(filters + at * line + column);
#pragma unroll
    for (int v = 0; v < CHUNK; ++v) {
      const float value = widen(chunk.at[v]);
      found = found || value - value != 0;
    }
  }
  return __syncthreads_or(found);
}

// Sums of each column of a tile over lines of threads: `own`, CHUNK columns of a thread, becomes those of the block.
template <int THREADS, int FILTERS, int CHUNK>
__device__ __forceinline__ void column_sums(float (&own)[CHUNK], float* area) {
  constexpr int BESIDE = FILTERS / CHUNK, BELOW = THREADS / BESIDE, TOGETHER = BELOW > 8 ? 4 : BELOW;
  const int column = threadIdx.x % BESIDE * CHUNK;
  __syncthreads();
#pragma unroll
  for (int v = 0; v < CHUNK; ++v) area[threadIdx.x / BESIDE * FILTERS + column + v] = own[v];
  __syncthreads();
#pragma unroll
  for (int v = 0; v < CHUNK; ++v) {
    own[v] = 0;
#pragma unroll TOGETHER
    for (int line = 0; line < BELOW; ++line) own[v] += area[line * FILTERS + column + v];
  }
}

// Writes a tile's share of partial, see Behind, from what its outputs went through: `values` lines, `apart` from each
// other.   entry: of the tile's first column; size: from one row of partial to the next; columns: that are there
template <int THREADS, int FILTERS, int CHUNK, typename T>
__device__ __forceinline__ void tile_moments(const T* stages, float* area, int line_size, int values, float* entry,
                                             long long size, int columns) {
  constexpr int BESIDE = FILTERS / CHUNK, BELOW = THREADS / BESIDE;
  static_assert(THREADS % BESIDE == 0, "each column has as many threads");
  const int below = threadIdx.x / BESIDE, column = threadIdx.x % BESIDE * CHUNK;
  const auto at = [&](int line) { return *reinterpret_cast<const Pack<T, CHUNK>*>(stages + line * line_size + column); };
  const Pack<T, CHUNK> pivot = at(0);
  float centre[CHUNK] = {}, mean[CHUNK] = {}, square[CHUNK] = {};
  for (int line = below; line < values; line += BELOW) {
    const Pack<T, CHUNK> pack = at(line);
#pragma unroll
    for (int v = 0; v < CHUNK; ++v) centre[v] += widen(pack.at[v]) - widen(pivot.at[v]);
  }
  column_sums<THREADS, FILTERS, CHUNK>(centre, area);
#pragma unroll
  for (int v = 0; v < CHUNK; ++v) centre[v] = widen(pivot.at[v]) + centre[v] / values;
  for (int line = below; line < values; line += BELOW) {
    const Pack<T, CHUNK> pack = at(line);
#pragma unroll
    for (int v = 0; v < CHUNK; ++v) {
      const float deviation = widen(pack.at[v]) - centre[v];
      mean[v] += deviation;
      square[v] = multiply_add(deviation, deviation, square[v]);
    }
  }
  column_sums<THREADS, FILTERS, CHUNK>(mean, area);
  column_sums<THREADS, FILTERS, CHUNK>(square, area);
  if (below != 0 || column >= columns) return;
#pragma unroll
  for (int v = 0; v < CHUNK; ++v) {
    entry[column + v] = centre[v];
    entry[size + column + v] = mean[v] / values;
    entry[2 * size + column + v] = square[v];
  }
}

// y of z, or dx with DATA: `outer` channels a group of the output from `inner` of the input.
//
// filters: see above; of dx those of a group are whole chunks, too.
template <typename T, int PRODUCTS, bool DATA, bool RELU, int PIXELS, int FILTERS, int WARP_PIXELS, int WARP_FILTERS,
          int DEPTH, int STAGES>
__device__ __forceinline__ void tensor_tile(const T* __restrict__ input, const T* __restrict__ filters,
                                            const T* __restrict__ b, T* __restrict__ output, const ConvShape& z,
                                            const Place<false>& place, const Plus<T>& plus, const Behind& behind) {
  constexpr int THREADS = TENSOR_THREADS;
  constexpr int CHUNK = CHUNK_OF<T>, CHUNKS = DEPTH / CHUNK, LINES = THREADS / CHUNKS;  // lines written at once
  constexpr int A_LINES = PIXELS / LINES, B_LINES = FILTERS / LINES, STAGE = (PIXELS + FILTERS) * DEPTH;
  constexpr int DOWN = WARP_PIXELS / 16, ACROSS = WARP_FILTERS / 8, OUT_LINE = FILTERS + CHUNK;
  constexpr bool WIDE = sizeof(T) == 4, DOWNWARDS = TURNED<T, DATA>;
  constexpr int B_CHUNKS = FILTERS / CHUNK, B_ROWS = THREADS / B_CHUNKS;  // of a row of the slice; rows written at once
  static_assert(PIXELS / WARP_PIXELS * (FILTERS / WARP_FILTERS) * 32 == THREADS, "the warps must make up the tile");
  static_assert(CHUNKS == 4 || CHUNKS == 8, "a line is 64 or 128 bytes: what the places of chunks are made for");
  static_assert(PIXELS % LINES == 0 && FILTERS % LINES == 0, "threads must share the lines evenly");
  static_assert(LINES % 8 == 0, "a thread's chunks must lie in the same place of their lines");
  static_assert(WARP_PIXELS % 16 == 0 && WARP_FILTERS % 16 == 0, "ldmatrix brings 16 pixels, or 16 filters");
  static_assert(!DOWNWARDS || (B_CHUNKS % 8 == 0 && B_ROWS % 8 == 0), "a row is 128 bytes or more, for the places of chunks");
  static_assert(PRODUCTS == 1 || (WIDE && PRODUCTS == 3), "a factor of float32 is rounded, or taken apart in two");
  static_assert(PIXELS * sizeof(Window) <= STAGE * sizeof(T), "windows come by the first stage");
  extern __shared__ __align__(16) unsigned char shared[];
  T* const stages = reinterpret_cast<T*>(shared);

  const int channels = DATA ? z.K : z.C, rows = DATA ? z.P : z.H, columns = DATA ? z.Q : z.W;
  const int outputs = DATA ? z.C : z.K, outer = outputs / z.groups;
  const int pitch = ceil_div(channels, CHUNK), per_tap = ceil_div(channels / z.groups, CHUNK);  // in chunks
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const bool pooled = !DATA && behind.pooled;

  Window* const windows = reinterpret_cast<Window*>(shared);
  for (int line = thread; line < PIXELS; line += THREADS) {
    windows[line] = {0, ~0u};
    if (line >= place.pixels) continue;
    const int number = place.start + line, n = static_cast<int>(place.image) + number / place.area;
    const Spot spot = spot_at(place, number % place.area, pooled);
    const int top = spot.p * place.down.stride + place.down.first;
    const int left = spot.q * place.across.stride + place.across.first;
    windows[line] = {((n * rows + top) * columns + left) * pitch + place.group * per_tap,
                     ~(taps_inside(top, place.down, rows) | taps_inside(left, place.across, columns) << 16)};
  }
  __syncthreads();
  const int line0 = thread / CHUNKS, own = thread % CHUNKS;  // this thread's lines, and its chunk of each
  Window window[A_LINES];
#pragma unroll
  for (int i = 0; i < A_LINES; ++i) window[i] = windows[line0 + i * LINES];
  __syncthreads();

  const int tiles = ceil_div(outer, FILTERS), window_size = z.R * z.S;
  T* const to_a = stages + swizzled<CHUNKS>(line0, own) * CHUNK;
  const int steps = ceil_div(place.down.taps * place.across.taps * per_tap, CHUNKS);

  // Tap and channel (in chunks) of this thread's chunk in the slice that is loaded next.
  const int down = place.down.apart * columns * pitch, across = place.across.apart * pitch;
  // The same of the filters, and where this thread begins to read them: at its lines, or at its chunk of a row.
  const int line_pitch = DOWNWARDS ? ceil_div(outer, CHUNK) : per_tap, tap0 = place.down.tap0 * z.S + place.across.tap0;
  const int filters_down = place.down.tap_step * z.S * line_pitch, filters_across = place.across.tap_step * line_pitch;
  const int column_chunk = min(place.column / CHUNK + thread % B_CHUNKS, line_pitch - 1), row = thread / B_CHUNKS;
  T* const to_b = DOWNWARDS ? stages + PIXELS * DEPTH + (row * B_CHUNKS + ((thread % B_CHUNKS) ^ row % 8)) * CHUNK
                            : to_a + PIXELS * DEPTH;
  const T* from = filters + static_cast<long long>(tap0 * line_pitch) * CHUNK;
  int lines[B_LINES];
  if constexpr (DOWNWARDS) {
    const int first = place.group * (channels / z.groups) + row % CHUNK;
    from = chunks_behind(from, static_cast<long long>(first) * window_size * line_pitch + column_chunk);
  } else {
    from += (static_cast<long long>(place.group * outer) * window_size * per_tap + (DATA ? 0 : own)) * CHUNK;
#pragma unroll
    for (int i = 0; i < B_LINES; ++i) lines[i] = min(place.column + line0 + i * LINES, outer - 1) * window_size * per_tap;
  }
  const int taps_down = place.down.taps, taps_across = place.across.taps;
  int r = 0, s = 0, c = own, loaded = 0, stage = 0;
  const auto settle = [&] {
    while (c >= per_tap) {
      c -= per_tap;
      if (++s == taps_across) s = 0, ++r;
    }
  };
  settle();
  const auto load = [&] {
    if (loaded < steps) {
      T* const to = to_a + stage * STAGE;
      const int tap = r * down + s * across + c;
      const bool real = r < taps_down;  // behind the last tap, filters are multiplied by nothing but zeros
      const unsigned needed = real ? 1u << r | 0x10000u << s : NO_TAP;
#pragma unroll
      for (int i = 0; i < A_LINES; ++i) {
        const T* const origin = input + static_cast<long long>(window[i].corner + tap) * CHUNK;
        ptx::cp_async16(to + i * LINES * DEPTH, origin, (window[i].outside & needed) == 0);
      }
      T* const to_filters = to_b + stage * STAGE;
      const int of_tap = r * filters_down + s * filters_across;
      if constexpr (DOWNWARDS) {  // lane l of a warp has looked where chunk l % CHUNKS of the slice lies
        const int mine = real ? of_tap + c * CHUNK * window_size * line_pitch : 0;
#pragma unroll
        for (int i = 0; i < DEPTH / B_ROWS; ++i) {
          const int at = __shfl_sync(~0u, mine, (row + i * B_ROWS) / CHUNK);
          ptx::cp_async16(to_filters + i * B_ROWS * FILTERS, from + static_cast<long long>(at) * CHUNK);
        }
      } else {
        const T* const origin = from + (DATA ? static_cast<long long>(of_tap + c) * CHUNK : 0);
#pragma unroll
        for (int i = 0; i < B_LINES; ++i) {
          ptx::cp_async16(to_filters + i * LINES * DEPTH, origin + static_cast<long long>(lines[i]) * CHUNK, real);
        }
        if (!DATA) from += DEPTH;
      }
      stage = stage + 1 == STAGES ? 0 : stage + 1;
      c += CHUNKS;
      settle();
      ++loaded;
    }
    ptx::cp_async_commit();
  };

  float sum[DOWN][ACROSS][4] = {}, total[DOWN][ACROSS][4] = {};
  const int top = warp % (PIXELS / WARP_PIXELS) * WARP_PIXELS, left = warp / (PIXELS / WARP_PIXELS) * WARP_FILTERS;
  // What this lane points ldmatrix to, in a stage: of filters by their chunk, or by their columns.
  int a_place[CHUNKS / 2], b_place[DOWNWARDS ? ACROSS / 2 : CHUNKS / 2];
#pragma unroll
  for (int k = 0; k < CHUNKS; k += 2) {
    a_place[k / 2] = swizzled<CHUNKS>(top + lane % 16, k + lane / 16) * CHUNK;
    if (DOWNWARDS) continue;
    b_place[k / 2] = PIXELS * DEPTH + swizzled<CHUNKS>(left + lane / 16 * 8 + lane % 8, k + lane / 8 % 2) * CHUNK;
  }
#pragma unroll
  for (int j = 0; DOWNWARDS && j < ACROSS; j += 2) {
    const int chunk = left / CHUNK + j + lane / 16;
    b_place[j / 2] = PIXELS * DEPTH + (lane % 16 * B_CHUNKS + (chunk ^ lane % 8)) * CHUNK;
  }
#pragma unroll
  for (int i = 0; i < STAGES - 1; ++i) load();
  for (int step = 0, current = 0; step < steps; ++step) {
    ptx::cp_async_wait<STAGES - 2>();
    __syncthreads();  // this slice is there, and everyone is done with the one that the next load overwrites
    load();
    const T* const slice = stages + current * STAGE;
    current = current + 1 == STAGES ? 0 : current + 1;
#pragma unroll
    for (int k = 0; k < CHUNKS / 2; ++k) {
      unsigned left_factor[DOWN][4], right_factor[ACROSS][2];
#pragma unroll
      for (int i = 0; i < DOWN; ++i) ptx::ldmatrix_x4(left_factor[i], slice + a_place[k] + 16 * i * DEPTH);
#pragma unroll
      for (int j = 0; j < ACROSS; j += 2) {
        unsigned both[4];
        if constexpr (DOWNWARDS) {
          ptx::ldmatrix_x4_trans(both, slice + b_place[j / 2] + 16 * k * FILTERS);
        } else {
          ptx::ldmatrix_x4(both, slice + b_place[k] + 8 * j * DEPTH);
        }
        right_factor[j][0] = both[0], right_factor[j][1] = both[1];
        right_factor[j + 1][0] = both[2], right_factor[j + 1][1] = both[3];
      }
      if constexpr (WIDE) {
        add_float_products<PRODUCTS>(sum, left_factor, right_factor);
      } else {
#pragma unroll
        for (int i = 0; i < DOWN; ++i)
#pragma unroll
          for (int j = 0; j < ACROSS; ++j) add_product<T>(sum[i][j], left_factor[i], right_factor[j]);
      }
    }
    if constexpr (PRODUCTS == 3) add_to_total(total, sum);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();  // the stages are free: outputs go through them, so that whole lines reach memory

  int* const pixels = reinterpret_cast<int*>(stages + PIXELS * OUT_LINE);  // of the output, or -1
  for (int line = thread; line < PIXELS; line += THREADS) {
    pixels[line] = -1;
    if (line >= place.pixels) continue;
    const int number = place.start + line, n = static_cast<int>(place.image) + number / place.area;
    const Spot spot = spot_at(place, number % place.area, pooled);
    const int h = place.down.place + spot.p * place.down.spread, v = place.across.place + spot.q * place.across.spread;
    const int across_all = DATA ? z.W : z.Q, half = pooled ? 2 : 1;
    pixels[line] = (n * ((DATA ? z.H : z.P) / half) + h / half) * (across_all / half) + v / half;
  }
  const int first = place.group * outer + place.column;
  const float(&result)[DOWN][ACROSS][4] = PRODUCTS == 3 ? total : sum;
  bool odd = false;
#pragma unroll
  for (int j = 0; j < ACROSS; ++j) {
    const int column = left + 8 * j + lane % 4 * 2;
    float bias[2];
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      bias[v] = b != nullptr && place.column + column + v < outer ? widen(b[first + column + v]) : 0;
    }
#pragma unroll
    for (int i = 0; i < DOWN; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Pack<T, 2> pair;
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          float value = result[i][j][2 * half + v] + bias[v];
          odd = odd || value - value != 0;
          if (RELU) value = value < 0 ? 0 : value;
          pair.at[v] = narrow<T>(value);
        }
        *reinterpret_cast<Pack<T, 2>*>(stages + (top + 16 * i + lane / 4 + 8 * half) * OUT_LINE + column) = pair;
      }
    }
  }
  bool again = __syncthreads_or(odd);
  if constexpr (DOWNWARDS) again = again && any_unbounded<FILTERS>(filters, z, place);  // else zeros did no harm
  if (again && (WIDE || DATA)) {
#pragma unroll 1
    for (int i = thread; i < PIXELS * FILTERS; i += THREADS) {
      const int line = i / FILTERS, column = i % FILTERS;
      T& value = stages[line * OUT_LINE + column];
      if (pixels[line] < 0 || place.column + column >= outer || widen(value) - widen(value) == 0) continue;
      const float sum = formula_again<DATA>(input, filters, z, place, place.start + line, place.column + column, pooled) +
                        (b != nullptr ? widen(b[first + column]) : 0);
      value = narrow<T>(RELU && sum < 0 ? 0 : sum);
    }
    __syncthreads();
  }
  const bool wide = outer % CHUNK == 0;
  if (pooled) {
    for (int i = thread; i < PIXELS / 4 * (FILTERS / CHUNK); i += THREADS) {
      const int line = i / (FILTERS / CHUNK) * 4, column = i % (FILTERS / CHUNK) * CHUNK;
      if (pixels[line] < 0 || place.column + column >= outer) continue;
      const long long target = static_cast<long long>(pixels[line]) * outputs + first + column;
      Pack<T, CHUNK>& best = *reinterpret_cast<Pack<T, CHUNK>*>(stages + line * OUT_LINE + column);
      Pack<T, CHUNK> winners = best;
      Pack<unsigned char, CHUNK> winning = {};
#pragma unroll
      for (int tap = 1; tap < 4; ++tap) {
        const Pack<T, CHUNK> other =
            *reinterpret_cast<const Pack<T, CHUNK>*>(stages + (line + tap) * OUT_LINE + column);
#pragma unroll
        for (int v = 0; v < CHUNK; ++v) {
          if (!wins(widen(other.at[v]), widen(winners.at[v]))) continue;
          winners.at[v] = other.at[v];
          winning.at[v] = static_cast<unsigned char>(tap);
        }
      }
      best = winners;
      *reinterpret_cast<Pack<T, CHUNK>*>(output + target) = winners;
      if (behind.places) *reinterpret_cast<Pack<unsigned char, CHUNK>*>(behind.places + target) = winning;
    }
  }
  for (int i = thread; !pooled && i < PIXELS * (FILTERS / CHUNK); i += THREADS) {
    const int line = i / (FILTERS / CHUNK), column = i % (FILTERS / CHUNK) * CHUNK;
    const int left_over = outer - place.column - column;
    if (pixels[line] < 0 || left_over <= 0) continue;
    const long long target = static_cast<long long>(pixels[line]) * outputs + first + column;
    Pack<T, CHUNK> chunk = *reinterpret_cast<const Pack<T, CHUNK>*>(stages + line * OUT_LINE + column);
    if (DATA) plus.add_to(chunk, target);
    store_pack<CHUNK>(output + target, chunk, wide, left_over);
  }
  if (DATA || behind.partial == nullptr) return;
  __syncthreads();
  const int chunk = blockIdx.x / tiles / z.groups, apart = pooled ? 4 : 1;
  const long long chunks = ceil_div(static_cast<long long>(z.N) * place.area, static_cast<long long>(PIXELS));
  float* const entry = behind.partial + static_cast<long long>(chunk) * outputs + first;
  const int values = static_cast<int>(min(place.pixels, static_cast<long long>(PIXELS))) / apart;
  tile_moments<THREADS, FILTERS, CHUNK>(stages, reinterpret_cast<float*>(pixels + PIXELS), OUT_LINE * apart, values,
                                        entry, chunks * outputs, outer - place.column);
}
