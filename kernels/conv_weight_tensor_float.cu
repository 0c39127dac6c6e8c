// The gradient of a convolution's weights in float32 on tensor cores: mma.sync m16n8k8 of TF32, sm_80 and later.
//
//   dw[k,r,s,c] = sum over n,p,q of dy[n,p,q,k] x[n,i,j,c]            i = p stride - pad + r dilation, j likewise
//
// Layout: x is (N, H, W, C), dy (N, P, Q, K), channels-last and aligned to 16 bytes, channels in chunks of 4: C / groups
// and K / groups are multiples of 4, or there is one group and zeros fill the last chunk of a pixel.
// partial: (slices, K, R S, C / groups), slice blockIdx.y over the pixels [slice length, (slice + 1) length) of all
// images; conv_backward_sum of kernels/conv.cu adds them in order.
//
//   kernel                            | one block per                     | when
//   conv_backward_weight_tensor_float | FILTERS x COLUMNS of dw and slice | PRODUCTS 1: factors may be rounded to TF32
//                                     |                                   | PRODUCTS 3: float32, where the GPU gains
//
// The inner dimension is that of the pixels, which lie below each other in both factors.  ldmatrix turns over numbers of
// 16 bits only: a lane reads 4 neighbouring filters, or columns, of a pixel at once and is given those rows of the
// fragments that belong to them.  A pixel's line in shared memory is 4 numbers longer than whole rounds of the banks, and
// lane rows 2 t and 2 t + 1 lie 16 numbers apart: eight lanes meet 32 different banks, and four that write results write
// 64 bytes in a row.
//
// A thread copies the same chunk of a tap of every pixel it meets, so it knows tap and channel once and for all; where
// the windows of a step's pixels lie, DEPTH threads work out a step ahead, for all.
//
// PRODUCTS 3 keeps float32: see kernels/tensor.cuh.  Tensor cores cut off what does not fit into the sum, so each step of
// DEPTH pixels is added up by itself and then to the total, rounded to nearest.  PRODUCTS 1, of factors that are
// rounded, has no such need in slices of at most 2^13 pixels.  What comes out infinite or NaN is added up again by the formula, in float32.
//
// Launchers: gpuconv/cuda/conv_weight_tensor_float.py.
#include "conv.cuh"
#include "tensor.cuh"

// A pixel: where the corner of its window lies in x, in chunks; its row and column; whether there is such a pixel.
struct alignas(16) WindowCorner {
  int place, top, left, real;
};

// Where, among 32 neighbours, the four numbers begin that a lane has for row t of a fragment.
__device__ __forceinline__ int four_of(int t) { return t % 2 * 16 + t / 2 * 4; }

template <int PRODUCTS, int FILTERS, int COLUMNS, int WARP_FILTERS, int WARP_COLUMNS, int DEPTH, int STAGES>
__global__ void __launch_bounds__(128)
conv_backward_weight_tensor_float(const float* __restrict__ dy, const float* __restrict__ x,
                                  float* __restrict__ partial, const ConvShape z, int length) {
  constexpr int THREADS = FILTERS / WARP_FILTERS * COLUMNS / WARP_COLUMNS * 32;
  constexpr int A_CHUNKS = FILTERS / 4, B_CHUNKS = COLUMNS / 4, A_LINE = FILTERS + 4, B_LINE = COLUMNS + 4;
  constexpr int A_LINES = THREADS / A_CHUNKS, B_LINES = THREADS / B_CHUNKS;  // lines that the threads write at once
  constexpr int A_STAGE = DEPTH * A_LINE, STAGE = A_STAGE + DEPTH * B_LINE;
  constexpr int DOWN = WARP_FILTERS / 16, ACROSS = WARP_COLUMNS / 8;
  static_assert(PRODUCTS == 1 || PRODUCTS == 3, "a factor is rounded, or taken apart in two");
  static_assert(WARP_FILTERS % 32 == 0 && WARP_COLUMNS % 32 == 0, "a line is whole rounds of the banks and 4 numbers");
  static_assert(DEPTH % A_LINES == 0 && DEPTH % B_LINES == 0, "threads must share the lines evenly");
  static_assert(THREADS == 128, "the warps make up the tile");
  static_assert(DEPTH % 8 == 0 && DEPTH <= THREADS, "a product takes 8 pixels, a thread places one");
  extern __shared__ __align__(16) unsigned char shared[];
  float* const stages = reinterpret_cast<float*>(shared);
  __shared__ WindowCorner corners[2][DEPTH];

  const int channels = z.C / z.groups, filters = z.K / z.groups, taps = z.R * z.S;
  const int per_tap = ceil_div(channels, 4), chunks = taps * per_tap;  // of the columns
  const int x_pitch = ceil_div(z.C, 4), dy_pitch = ceil_div(z.K, 4);
  const int tiles = ceil_div(chunks, B_CHUNKS), tiles_down = ceil_div(filters, FILTERS);
  const int chunk0 = blockIdx.x % tiles * B_CHUNKS, filter0 = blockIdx.x / tiles % tiles_down * FILTERS;
  const int group = blockIdx.x / tiles / tiles_down, thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int pixels = z.N * z.P * z.Q, begin = blockIdx.y * length, end = min(begin + length, pixels);
  const int steps = ceil_div(end - begin, DEPTH);

  // The pixel that this thread places next, and how far it is to the one after that.
  int pixel = begin + thread, q = pixel % z.Q, p = pixel / z.Q % z.P, n = pixel / z.Q / z.P;
  const int on_q = DEPTH % z.Q, on_p = DEPTH / z.Q % z.P, on_n = DEPTH / z.Q / z.P;
  const auto place = [&](int step) {
    if (thread < DEPTH) {
      const int top = p * z.stride_v - z.pad_v, left = q * z.stride_h - z.pad_h;
      corners[step % 2][thread] = {((n * z.H + top) * z.W + left) * x_pitch, top, left, pixel < end};
      pixel += DEPTH;
      q += on_q;
      p += on_p;
      n += on_n;
      if (q >= z.Q) q -= z.Q, ++p;
      if (p >= z.P) p -= z.P, ++n;
    }
  };

  // This thread's chunk of filters, and its chunk of columns with their tap.
  const int a_own = thread % A_CHUNKS, a_line = thread / A_CHUNKS, b_own = thread % B_CHUNKS, b_line = thread / B_CHUNKS;
  const int column = chunk0 + b_own, tap = column / per_tap;
  const int down = tap / z.S * z.dilation_v, right = tap % z.S * z.dilation_h;
  const float* const from_x =
      x + ((static_cast<long long>(down) * z.W + right) * x_pitch + group * per_tap + column % per_tap) * 4;
  const float* from_dy = dy + (static_cast<long long>(begin + a_line) * dy_pitch) * 4 + group * filters + filter0 + a_own * 4;
  const int first = filter0 + a_own * 4 < filters ? begin + a_line : end;  // behind the last filter nothing is read
  int loaded = 0, stage = 0;
  const auto load = [&] {
    if (loaded < steps) {
      float* const to = stages + stage * STAGE;
#pragma unroll
      for (int i = 0; i < DEPTH; i += A_LINES) {
        ptx::cp_async16(to + (a_line + i) * A_LINE + a_own * 4, from_dy + static_cast<long long>(i) * dy_pitch * 4,
                        first + loaded * DEPTH + i < end);
      }
#pragma unroll
      for (int i = 0; i < DEPTH; i += B_LINES) {
        const WindowCorner at = corners[loaded % 2][b_line + i];
        const bool inside = at.real && static_cast<unsigned>(at.top + down) < static_cast<unsigned>(z.H) &&
                            static_cast<unsigned>(at.left + right) < static_cast<unsigned>(z.W) && column < chunks;
        ptx::cp_async16(to + A_STAGE + (b_line + i) * B_LINE + b_own * 4,
                        from_x + static_cast<long long>(at.place) * 4, inside);
      }
      from_dy += static_cast<long long>(DEPTH) * dy_pitch * 4;
      stage = stage + 1 == STAGES ? 0 : stage + 1;
      ++loaded;
    }
    ptx::cp_async_commit();
  };

  float sum[DOWN][ACROSS][4] = {}, total[DOWN][ACROSS][4] = {};
  const int top = warp % (FILTERS / WARP_FILTERS) * WARP_FILTERS, left = warp / (FILTERS / WARP_FILTERS) * WARP_COLUMNS;
  const int a_place = lane % 4 * A_LINE + top + four_of(lane / 4);
  const int b_place = A_STAGE + lane % 4 * B_LINE + left + four_of(lane / 4);

  for (int i = 0; i < STAGES - 1; ++i) {
    place(i);
    __syncthreads();
    load();
  }
  place(STAGES - 1);
  for (int step = 0, current = 0; step < steps; ++step) {
    ptx::cp_async_wait<STAGES - 2>();
    __syncthreads();  // the slice is there, so are the next windows, and the stage that is loaded next has been read
    load();
    place(step + STAGES);
    const float* const slice = stages + current * STAGE;
    current = current + 1 == STAGES ? 0 : current + 1;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 8) {
      unsigned a[DOWN][4], d[ACROSS][2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < DOWN; i += 2) {
          const auto four =
              *reinterpret_cast<const Pack<float, 4>*>(slice + a_place + (k + 4 * half) * A_LINE + 16 * i);
#pragma unroll
          for (int v = 0; v < 4; ++v) a[i + v / 2][v % 2 + 2 * half] = __float_as_uint(four.at[v]);
        }
#pragma unroll
        for (int j = 0; j < ACROSS; j += 4) {
          const auto four = *reinterpret_cast<const Pack<float, 4>*>(slice + b_place + (k + 4 * half) * B_LINE + 8 * j);
#pragma unroll
          for (int v = 0; v < 4; ++v) d[j + v][half] = __float_as_uint(four.at[v]);
        }
      }
      add_float_products<PRODUCTS>(sum, a, d);
    }
    if constexpr (PRODUCTS == 3) add_to_total(total, sum);
  }
  ptx::cp_async_wait<0>();

  // Row `half` of product i is filter `row_of` of the tile; the products j to j + 3 have the columns of a chunk.
  const auto row_of = [&](int i, int half) { return top + i / 2 * 32 + four_of(lane / 4) + i % 2 * 2 + half; };
  const auto chunk_of = [&](int j, int v) { return chunk0 + (left + 8 * j + four_of(lane % 4 * 2 + v)) / 4; };
  const auto place_of_chunk = [&](int row, int chunk) {
    const long long k = static_cast<long long>(blockIdx.y) * z.K + group * filters + filter0 + row;
    return (k * taps + chunk / per_tap) * channels + chunk % per_tap * 4;
  };
  const float(&result)[DOWN][ACROSS][4] = PRODUCTS == 3 ? total : sum;
  bool odd = false;
#pragma unroll
  for (int i = 0; i < DOWN; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_of(i, half);
      if (filter0 + row >= filters) continue;
#pragma unroll
      for (int j = 0; j < ACROSS; j += 4) {
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          const int chunk = chunk_of(j, v);
          if (chunk >= chunks) continue;
          Pack<float, 4> four;
#pragma unroll
          for (int m = 0; m < 4; ++m) {
            four.at[m] = result[i][j + m][2 * half + v];
            odd = odd || four.at[m] - four.at[m] != 0;
          }
          store_pack<4>(partial + place_of_chunk(row, chunk), four, channels % 4 == 0,
                        channels - chunk % per_tap * 4);
        }
      }
    }
  }
  if (!odd) return;
#pragma unroll 1
  for (int number = 0; number < DOWN * ACROSS * 4; ++number) {  // this thread's results, one by one
    const int m = number % 4, v = number / 4 % 2, half = number / 8 % 2, i = number / 16 % DOWN, j = number / 16 / DOWN * 4;
    const int row = row_of(i, half), chunk = chunk_of(j, v), c = chunk % per_tap * 4 + m;
    if (filter0 + row >= filters || chunk >= chunks || c >= channels) continue;
    float* const mine = partial + place_of_chunk(row, chunk) + m;
    if (*mine - *mine == 0) continue;
    float again = 0;
    const int its_tap = chunk / per_tap;
    for (int at = begin; at < end; ++at) {
      const int h = at / z.Q % z.P * z.stride_v - z.pad_v + its_tap / z.S * z.dilation_v;
      const int w = at % z.Q * z.stride_h - z.pad_h + its_tap % z.S * z.dilation_h;
      const long long line = (static_cast<long long>(at / z.Q / z.P) * z.H + h) * z.W + w;
      const bool inside = h >= 0 && h < z.H && w >= 0 && w < z.W;
      const float gradient = dy[static_cast<long long>(at) * dy_pitch * 4 + group * filters + filter0 + row];
      again = multiply_add(gradient, inside ? x[line * x_pitch * 4 + group * channels + c] : 0, again);
    }
    *mine = again;
  }
}
