// The gradient of a convolution's filters on tensor cores, sums in float32, compute capability 8.0 and later.
//
//   dw[k,c,r,s] = sum over n,p,q of dy[n,k,p,q] x[n,c,i,j]        i = p stride - pad + r dilation, j likewise
//
// Layout: x is (N, H, W, C), dy (N, P, Q, K), without gaps and aligned to 16 bytes; C / groups and K / groups are
// multiples of 8.  conv_backward_sum of conv.cu adds the slices of `partial` in order.
//
//   kernel                      | one block per                               | when
//   conv_backward_weight_tensor | FILTERS x COLUMNS of dw and slice of pixels | 16-bit types, whole chunks of channels
//
// A column is a tap and a channel.  A warp makes 64 x 64 sums, which is what keeps tensor cores busy rather than shared
// memory; where a block has fewer than four of these, several warps make the same ones, each of its SHARE of pixels.  The inner dimension, the pixels, lies downwards in both factors: a block keeps STAGES
// slices of DEPTH pixels in flight by cp.async, which also writes the zeros of the padding, and ldmatrix turns them over.
// A thread copies the same channels of the same tap of every pixel that it meets.  Where the pixels' windows lie, the
// first DEPTH threads work out a step ahead for all, in a table.  Chunk c of line l stands in place c ^ l % 8, so eight
// lanes that write or read one chunk of eight lines meet 32 different banks.
//
// Tensor cores cut sums off, so a long one drifts towards zero: after each `run` of pixels the sums are added to those in
// memory, rounded to nearest.
//
// Source of the layout of fragments: PTX ISA, matrix fragments for mma.m16n8k16.
// Launchers: gpuconv/cuda/conv_weight_tensor.py.
#include "conv.cuh"
#include "tensor.cuh"

// Rows and columns of images in one register, the row in the upper half: both are added and compared at once.
__device__ __forceinline__ unsigned row_and_column(int row, int column) {
  return static_cast<unsigned>(row) * 65536u + static_cast<unsigned>(column);
}
constexpr int OUTSIDE = -32768;  // row of a window that is all zeros

// partial: (slices, SHARES, K, R S, C / groups), slice = blockIdx.y over the pixels [slice length, (slice + 1) length) of
// all images
template <typename T, int FILTERS, int COLUMNS, int SHARES, int DEPTH, int STAGES>
__global__ void __launch_bounds__(128)
conv_backward_weight_tensor(const T* __restrict__ dy, const T* __restrict__ x, float* __restrict__ partial,
                            const ConvShape z, int length, int run) {
  constexpr int WARPS = FILTERS / 64 * COLUMNS / 64, THREADS = WARPS * SHARES * 32, CHUNK = CHUNK_OF<T>;
  constexpr int A_CHUNKS = FILTERS / CHUNK, B_CHUNKS = COLUMNS / CHUNK, STAGE = DEPTH * (FILTERS + COLUMNS);
  constexpr int A_LINES = THREADS / A_CHUNKS, B_LINES = THREADS / B_CHUNKS;  // that the threads write at once
  constexpr int DOWN = 64 / 16, ACROSS = 64 / 8;  // products of a warp
  static_assert(A_CHUNKS % 8 == 0 && B_CHUNKS % 8 == 0, "a line of 128 bytes or more is what the places are made for");
  static_assert(A_LINES % 8 == 0 && B_LINES % 8 == 0, "a thread's chunks must have the same place in their lines");
  static_assert(DEPTH % A_LINES == 0 && DEPTH % B_LINES == 0, "threads must share the lines evenly");
  static_assert(DEPTH % (16 * SHARES) == 0, "a product takes 16 pixels");
  static_assert(THREADS == 128 && DEPTH <= THREADS, "the warps make up the tile; a thread places one pixel");
  extern __shared__ __align__(16) unsigned char shared[];
  T* const stages = reinterpret_cast<T*>(shared);
  // Of the pixels of two slices: the place of the window's corner in x, in chunks; its row and column.
  __shared__ Pack<unsigned, 2> corners[2][DEPTH];

  const int channels = z.C / z.groups, filters = z.K / z.groups, columns = z.R * z.S * channels;
  const int tiles = ceil_div(columns, COLUMNS), tiles_down = ceil_div(filters, FILTERS);
  const int column0 = blockIdx.x % tiles * COLUMNS, filter0 = blockIdx.x / tiles % tiles_down * FILTERS;
  const int group = blockIdx.x / tiles / tiles_down, thread = threadIdx.x, lane = thread % 32;
  const int warp = thread / 32 % WARPS, share = thread / 32 / WARPS;
  const int begin = blockIdx.y * length, end = min(begin + length, z.N * z.P * z.Q);
  const int steps = max(ceil_div(end - begin, DEPTH), 1);  // one of zeros where there is no pixel

  // The pixel that this thread places next, and how far it is to the one after that.
  int pixel = begin + thread, q = pixel % z.Q, p = pixel / z.Q % z.P, n = pixel / z.Q / z.P;
  const int on_q = DEPTH % z.Q, on_p = DEPTH / z.Q % z.P, on_n = DEPTH / z.Q / z.P;
  const auto place = [&](int table) {
    if (thread < DEPTH) {
      const int top = p * z.stride_v - z.pad_v, left = q * z.stride_h - z.pad_h;
      corners[table][thread] = {static_cast<unsigned>(((n * z.H + top) * z.W + left) * (z.C / CHUNK)),
                                row_and_column(pixel < end ? top : OUTSIDE, left)};
      pixel += DEPTH;
      q += on_q;
      p += on_p;
      n += on_n;
      if (q >= z.Q) q -= z.Q, ++p;
      if (p >= z.P) p -= z.P, ++n;
    }
  };

  // This thread's chunk of filters, and its chunk of channels with their tap.
  const int a_own = thread % A_CHUNKS, a_line = thread / A_CHUNKS, b_own = thread % B_CHUNKS, b_line = thread / B_CHUNKS;
  const int column = column0 + b_own * CHUNK, tap = column / channels;
  const int down = tap / z.S * z.dilation_v, right = tap % z.S * z.dilation_h;
  const unsigned within = row_and_column(down, right);
  const unsigned last = column < columns ? row_and_column(z.H - 1, z.W - 1) : row_and_column(-1, 0);
  const unsigned long long from_x = reinterpret_cast<unsigned long long>(
      x + ((static_cast<long long>(down) * z.W + right) * z.C + group * channels + column % channels));
  const T* from_dy = dy + static_cast<long long>(begin + a_line) * z.K + group * filters + filter0 + a_own * CHUNK;
  int next = filter0 + a_own * CHUNK < filters ? begin + a_line : end;  // behind the last filter nothing is read
  T* to_a = stages + (a_line * A_CHUNKS + (a_own ^ a_line % 8)) * CHUNK;
  T* to_b = stages + DEPTH * FILTERS + (b_line * B_CHUNKS + (b_own ^ b_line % 8)) * CHUNK;
  const Pack<unsigned, 2>* windows = corners[0] + b_line;
  int to_table = DEPTH;  // and back
  const auto load = [&](int to_stage) {  // the next slice; then to where that after it goes
    Pack<unsigned, 2> at[DEPTH / B_LINES];
#pragma unroll
    for (int i = 0; i < DEPTH / B_LINES; ++i) at[i] = windows[i * B_LINES];
#pragma unroll
    for (int i = 0; i < DEPTH / A_LINES; ++i) {
      const T* const origin = from_dy + static_cast<long long>(i * A_LINES) * z.K;
      ptx::cp_async16(to_a + i * A_LINES * FILTERS, origin, next + i * A_LINES < end);
    }
#pragma unroll
    for (int i = 0; i < DEPTH / B_LINES; ++i) {
      // A half below 0 takes 1 from the other, which no longer matters.
      const unsigned here = at[i].at[1] + within, beyond = last - here;
      const T* const origin = reinterpret_cast<const T*>(from_x + static_cast<long long>(static_cast<int>(at[i].at[0])) * 16);
      ptx::cp_async16(to_b + i * B_LINES * COLUMNS, origin, ((here | beyond) & 0x80008000u) == 0);
    }
    from_dy += static_cast<long long>(DEPTH) * z.K;
    next += DEPTH;
    to_a += to_stage;
    to_b += to_stage;
    windows += to_table;
    to_table = -to_table;
    ptx::cp_async_commit();
  };

  float sum[DOWN][ACROSS][4] = {};
  const int top = warp % (FILTERS / 64) * 64, left = warp / (FILTERS / 64) * 64;
  // What this lane points ldmatrix to, in a stage.
  const int a_pixel = share * 16 + lane / 16 * 8 + lane % 8, b_pixel = share * 16 + lane % 16;
  int a_place[DOWN], b_place[ACROSS / 2];
#pragma unroll
  for (int i = 0; i < DOWN; ++i) {
    const int chunk = top / CHUNK + 2 * i + lane / 8 % 2;
    a_place[i] = (a_pixel * A_CHUNKS + (chunk ^ a_pixel % 8)) * CHUNK;
  }
#pragma unroll
  for (int j = 0; j < ACROSS / 2; ++j) {
    const int chunk = left / CHUNK + 2 * j + lane / 16;
    b_place[j] = DEPTH * FILTERS + (b_pixel * B_CHUNKS + (chunk ^ b_pixel % 8)) * CHUNK;
  }

  float* const sums = partial + (static_cast<long long>(blockIdx.y * SHARES + share) * z.K + group * filters) * columns;
  const auto store = [&](bool first) {
#pragma unroll
    for (int i = 0; i < 2 * DOWN; ++i) {
      const int filter = filter0 + top + 8 * i + lane / 4;
#pragma unroll
      for (int j = 0; j < ACROSS; ++j) {
        const int at = column0 + left + 8 * j + lane % 4 * 2;
        float(&own)[4] = sum[i / 2][j];
        if (filter < filters && at < columns) {
          Pack<float, 2>* const both = reinterpret_cast<Pack<float, 2>*>(sums + static_cast<long long>(filter) * columns + at);
          Pack<float, 2> value = first ? Pack<float, 2>{} : *both;
          value.at[0] += own[i % 2 * 2];
          value.at[1] += own[i % 2 * 2 + 1];
          *both = value;
        }
        own[i % 2 * 2] = own[i % 2 * 2 + 1] = 0;
      }
    }
  };

  for (int i = 0; i < STAGES - 1; ++i) {
    place(i % 2);
    __syncthreads();
    load(STAGE);
  }
  int table = (STAGES - 1) % 2, current = 0, to_stage = (1 - STAGES) * STAGE;
  const T* slice = stages;
  place(table);
  for (int step = 0, last_of_run = min(run / DEPTH, steps) - 1; step < steps; ++step) {
    ptx::cp_async_wait<STAGES - 2>();
    __syncthreads();  // the slice is there, so are the next windows, and everyone is done with the slice before
    load(to_stage);
    place(table ^= 1);
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16 * SHARES) {
      unsigned a[DOWN][4], d[ACROSS][2];
#pragma unroll
      for (int i = 0; i < DOWN; ++i) ptx::ldmatrix_x4_trans(a[i], slice + a_place[i] + k * FILTERS);
#pragma unroll
      for (int j = 0; j < ACROSS; j += 2) {
        unsigned both[4];
        ptx::ldmatrix_x4_trans(both, slice + b_place[j / 2] + k * COLUMNS);
        d[j][0] = both[0], d[j][1] = both[1], d[j + 1][0] = both[2], d[j + 1][1] = both[3];
      }
#pragma unroll
      for (int i = 0; i < DOWN; ++i)
#pragma unroll
        for (int j = 0; j < ACROSS; ++j) add_product<T>(sum[i][j], a[i], d[j]);
    }
    to_stage = current == (STAGES - 1) * STAGE ? (1 - STAGES) * STAGE : STAGE;
    current += to_stage;
    slice += to_stage;
    if (step == last_of_run) {
      store(step < run / DEPTH);
      last_of_run = min(step + run / DEPTH, steps - 1);
    }
  }
  ptx::cp_async_wait<0>();
}
