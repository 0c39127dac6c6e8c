// Muon's step on filter banks, all banks of a net in each launch.
//
//   velocity = momentum velocity + dw;   u = dw + momentum velocity with nesterov, else velocity
//   x = u / (|u| + 1e-7), transposed where it has more rows than columns;   then, a handful of times,
//     a = x x^T,   b = second a + third a a,   x = first x + b x
//   w = sqrt(rows) / |w| w with `renormalise`;   w -= rate x, transposed back
//
// w, dw and velocity are a net's flat vectors.  `banks` tells of each bank, in order: where it begins there, its rows and
// columns (K, C R S), where its x begins in the vectors of all x, where its a and b begin in those of theirs, how many of
// the n terms of an element of a are a slice, whole runs, and where the sums of its slices begin, (slices, m, m); x is
// (m, n) and a, b (m, m) in row order, with m the smaller and n the larger of rows and columns.  x, a and b are Sum<T>.
// Lengths that are 0 count as 1.  Where *go is 0, nothing is done.  copy: w once more in another type, C, or a null pointer.
//
//   kernel            | one block per (its x) and bank (its y)
//   muon_momentum     | 4096 elements: velocity, and what they add to |u|^2 and |w|^2
//   muon_lengths      | -: |u| and |w|, from all blocks of muon_momentum in a fixed order, in float64
//   muon_normalise    | element after element of x
//   muon_product      | 64 x 64 tile of the result; for a, and slice (its z)
//   muon_gram         | element after element of a: its slices, one after the other
//   muon_step         | element after element of w
//
// Blocks beyond what a smaller bank needs do nothing.  A product adds up 64 terms in a row, and then these sums.  a and b
// are symmetric: tiles below the diagonal are those above it.
// Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024).
// Launchers: gpuconv/cuda/muon.py.
#include "placed.cuh"
#include "tile.cuh"

constexpr int MUON_CHUNK = 4096;
constexpr int MUON_TILE = 64, MUON_DEPTH = 16, MUON_RUN = 64;
constexpr int MUON_GRAM = 0, MUON_SQUARE = 1, MUON_APPLY = 2;  // a, b and the next x

// What `banks` says of this block's bank.
struct MuonBank {
  long long start, rows, columns, matrix, square, slice, partial;
  __device__ __forceinline__ explicit MuonBank(const long long* banks) {
    const long long* row = banks + 7LL * blockIdx.y;
    start = row[0], rows = row[1], columns = row[2], matrix = row[3], square = row[4], slice = row[5], partial = row[6];
  }
  __device__ __forceinline__ long long size() const { return rows * columns; }
  __device__ __forceinline__ long long shorter() const { return rows < columns ? rows : columns; }
  __device__ __forceinline__ long long longer() const { return rows < columns ? columns : rows; }
};

__device__ __forceinline__ float muon_sqrt(float x) { return sqrtf(x); }
__device__ __forceinline__ double muon_sqrt(double x) { return sqrt(x); }

// An element of u, from what is stored.
template <typename S>
__device__ __forceinline__ S muon_direction(S gradient, S velocity, S momentum, bool nesterov) {
  return nesterov ? gradient + momentum * velocity : velocity;
}

// partial[bank][block] = this block's share of |u|^2, and of |w|^2.
template <typename T>
__global__ void __launch_bounds__(256, 4)
muon_momentum(
    const T* __restrict__ w, const T* __restrict__ dw, T* __restrict__ velocity, const long long* __restrict__ banks,
    Sum<T>* __restrict__ partial, const unsigned long long* __restrict__ go, double momentum, bool nesterov) {
  using S = Sum<T>;
  if (!goes_ahead(go)) return;
  const MuonBank bank(banks);
  const long long first = static_cast<long long>(blockIdx.x) * MUON_CHUNK;
  if (first >= bank.size()) return;
  const long long end = bank.size() - first < MUON_CHUNK ? bank.size() : first + MUON_CHUNK;
  const S kept = static_cast<S>(momentum);
  S of_u = 0, of_w = 0;
  for (long long i = first + threadIdx.x; i < end; i += 256) {
    const long long place = bank.start + i;
    const S gradient = widen(dw[place]), weight = widen(w[place]);
    const T speed = narrow<T>(kept * widen(velocity[place]) + gradient);
    velocity[place] = speed;
    const S u = muon_direction<S>(gradient, widen(speed), kept, nesterov);
    of_u += u * u;
    of_w += weight * weight;
  }
  of_u = block_sum<256>(of_u);
  of_w = block_sum<256>(of_w);
  if (threadIdx.x == 0) {
    Sum<T>* sums = partial + 2 * (static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x);
    sums[0] = of_u, sums[1] = of_w;
  }
}

// lengths[bank] = |u|, |w|, from the shares of up to `chunks` blocks.
template <typename S>
__global__ void __launch_bounds__(256, 4)
muon_lengths(
    const S* __restrict__ partial, const long long* __restrict__ banks, S* __restrict__ lengths,
    const unsigned long long* __restrict__ go, int chunks) {
  if (!goes_ahead(go)) return;
  const MuonBank bank(banks);
  const S* sums = partial + 2LL * blockIdx.y * chunks;
  const int count = static_cast<int>(ceil_div(bank.size(), static_cast<long long>(MUON_CHUNK)));
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    double sum = 0;
    for (int chunk = threadIdx.x; chunk < count; chunk += 256) sum += sums[2 * chunk + which];
    const S length = muon_sqrt(static_cast<S>(block_sum<256>(sum)));
    if (threadIdx.x == 0) lengths[2 * blockIdx.y + which] = length == 0 ? 1 : length;
  }
}

template <typename T>
__global__ void __launch_bounds__(256, 4)
muon_normalise(
    const T* __restrict__ dw, const T* __restrict__ velocity, const long long* __restrict__ banks,
    const Sum<T>* __restrict__ lengths, Sum<T>* __restrict__ x, const unsigned long long* __restrict__ go,
    double momentum, bool nesterov) {
  using S = Sum<T>;
  if (!goes_ahead(go)) return;
  const MuonBank bank(banks);
  const S kept = static_cast<S>(momentum), length = lengths[2 * blockIdx.y] + static_cast<S>(1e-7);
  const bool turned = bank.rows > bank.columns;
  for (long long i = thread_index(); i < bank.size(); i += thread_count()) {
    const long long of_u = turned ? i % bank.rows * bank.columns + i / bank.rows : i;
    const long long place = bank.start + of_u;
    x[bank.matrix + i] = muon_direction<S>(widen(dw[place]), widen(velocity[place]), kept, nesterov) / length;
  }
}

// MUON_GRAM     out (slices, m, m) = x x^T of each slice of the columns of x
// MUON_SQUARE   out (m, m) = own a + times a a            plus, left and right are a
// MUON_APPLY    out (m, n) = own x + times b x            plus and right are x, left is b
template <typename S, int KIND>
__global__ void __launch_bounds__(256, 1)
muon_product(
    const S* __restrict__ left, const S* __restrict__ right, const S* __restrict__ plus,
    const long long* __restrict__ banks, S* __restrict__ out, const unsigned long long* __restrict__ go, double own,
    double times) {
  constexpr int LOADS = MUON_TILE * MUON_DEPTH / TILE_THREADS, DEPTH = MUON_DEPTH;
  using Result = Tile<S, MUON_TILE, MUON_TILE, DEPTH, 4, 4, 8>;
  static_assert(MUON_RUN % DEPTH == 0, "a run must be made of whole slices");
  __shared__ typename Result::Sides sides;
  if (!goes_ahead(go)) return;
  const MuonBank bank(banks);
  const long long height = bank.shorter(), width = KIND == MUON_APPLY ? bank.longer() : height;
  const long long inner = KIND == MUON_GRAM ? bank.longer() : height;
  const long long beside = ceil_div(width, static_cast<long long>(MUON_TILE));
  const long long row0 = blockIdx.x / beside * MUON_TILE, column0 = blockIdx.x % beside * MUON_TILE;
  const long long first = KIND == MUON_GRAM ? blockIdx.z * bank.slice : 0;
  if (row0 >= height || first >= inner || (KIND != MUON_APPLY && column0 < row0)) return;
  const long long end = KIND == MUON_GRAM && inner - first > bank.slice ? first + bank.slice : inner;
  left += KIND == MUON_GRAM ? bank.matrix : bank.square;
  right += KIND == MUON_SQUARE ? bank.square : bank.matrix;
  const long long target = KIND == MUON_APPLY    ? bank.matrix
                           : KIND == MUON_SQUARE ? bank.square
                                                 : bank.partial + blockIdx.z * height * height;

  // A thread fetches LOADS numbers of each side: neighbours along rows in memory.
  const int d_down = threadIdx.x % DEPTH, line_down = threadIdx.x / DEPTH;
  const int d_across = KIND == MUON_GRAM ? d_down : threadIdx.x / MUON_TILE;
  const int line_across = KIND == MUON_GRAM ? line_down : threadIdx.x % MUON_TILE;
  S next_down[LOADS], next_across[LOADS];
  const auto fetch = [&](long long begin) {
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
      const long long row = row0 + line_down + i * (TILE_THREADS / DEPTH), d = begin + d_down;
      next_down[i] = row < height && d < end ? left[row * inner + d] : 0;
      if (KIND == MUON_GRAM) {
        const long long column = column0 + line_across + i * (TILE_THREADS / DEPTH);
        next_across[i] = column < width && d < end ? right[column * inner + d] : 0;
      } else {
        const long long column = column0 + line_across, below = begin + d_across + i * (TILE_THREADS / MUON_TILE);
        next_across[i] = column < width && below < end ? right[below * width + column] : 0;
      }
    }
  };

  Result run;
  S total[4][4] = {};
  fetch(first);
  for (long long begin = first; begin < end; begin += DEPTH) {
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
      sides.left[d_down][line_down + i * (TILE_THREADS / DEPTH)] = next_down[i];
      if (KIND == MUON_GRAM) {
        sides.right[d_across][line_across + i * (TILE_THREADS / DEPTH)] = next_across[i];
      } else {
        sides.right[d_across + i * (TILE_THREADS / MUON_TILE)][line_across] = next_across[i];
      }
    }
    __syncthreads();
    if (begin + DEPTH < end) fetch(begin + DEPTH);
    run.add(&sides.left[0][run.top], &sides.right[0][run.left]);
    if ((begin + DEPTH) % MUON_RUN == 0 || begin + DEPTH >= end) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) total[i][j] += run.sum[i][j], run.sum[i][j] = 0;
      }
    }
    __syncthreads();
  }
  const S kept = static_cast<S>(own), factor = static_cast<S>(times);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const long long row = row0 + run.row(i);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const long long column = column0 + run.column(j);
      if (row >= height || column >= width) continue;
      const long long place = target + row * width + column;
      const S value = KIND == MUON_GRAM ? total[i][j] : kept * plus[place] + factor * total[i][j];
      out[place] = value;
      if (KIND != MUON_APPLY && row0 != column0) out[target + column * width + row] = value;
    }
  }
}

template <typename S>
__global__ void __launch_bounds__(256, 4)
muon_gram(
    const S* __restrict__ partial, const long long* __restrict__ banks, S* __restrict__ a,
    const unsigned long long* __restrict__ go) {
  if (!goes_ahead(go)) return;
  const MuonBank bank(banks);
  const long long size = bank.shorter() * bank.shorter(), slices = ceil_div(bank.longer(), bank.slice);
  for (long long i = thread_index(); i < size; i += thread_count()) {
    S sum = 0;
    for (long long slice = 0; slice < slices; ++slice) sum += partial[bank.partial + slice * size + i];
    a[bank.square + i] = sum;
  }
}

template <typename T, typename C>
__global__ void __launch_bounds__(256, 4)
muon_step(
    T* __restrict__ w, C* __restrict__ copy, const long long* __restrict__ banks, const Sum<T>* __restrict__ lengths,
    const Sum<T>* __restrict__ x, const unsigned long long* __restrict__ go, const double* __restrict__ rate_at,
    double rate, bool renormalise) {
  using S = Sum<T>;
  if (!goes_ahead(go)) return;
  const MuonBank bank(banks);
  const S lr = static_cast<S>(placed_number(rate_at, rate));
  const S factor = renormalise ? muon_sqrt(static_cast<S>(bank.rows)) / lengths[2 * blockIdx.y + 1] : static_cast<S>(1);
  const bool turned = bank.rows > bank.columns;
  for (long long i = thread_index(); i < bank.size(); i += thread_count()) {
    const long long of_x = turned ? i % bank.columns * bank.rows + i / bank.columns : i;
    const long long place = bank.start + i;
    const T weight = narrow<T>(factor * widen(w[place]) - lr * x[bank.matrix + of_x]);
    w[place] = weight;
    if (copy) copy[place] = narrow<C>(widen(weight));
  }
}
