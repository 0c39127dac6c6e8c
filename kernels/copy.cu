// Copies of views: what a kernel that wants its array without gaps is given instead, and gradients where a net keeps them.
//
//   out[i] = in[i] for every index i; out is C-contiguous, in has any strides (0 and negative ones, too).
//
//   kernel           | one thread (block) per                | when
//   copy_dense       | 16 bytes after 16 bytes               | in has no gaps
//   copy_strided     | element of out                        | any view
//   copy_transposed  | 32 x 32 tile of one matrix of a batch | in is a batch of transposed matrices: NCHW <-> channels-last
//
// All write whole lines; copy_dense and copy_transposed read whole lines as well.
// Source of the tile with a spare column: Ruetsch and Micikevicius, Optimizing matrix transpose in CUDA (2009).
// Launchers: gpuconv/cuda/copy.py.
#include "pointwise.cuh"

struct CopyView {
  int axes;
  long long size[6];
  long long step[6];  // of the input, in elements
};

template <typename T>
__global__ void __launch_bounds__(256)
copy_dense(const T* __restrict__ in, T* __restrict__ out, long long total) {
  pointwise(in, out, total, [](T value) { return value; });
}

template <typename T, typename Index>
__global__ void __launch_bounds__(256)
copy_strided(const T* __restrict__ in, T* __restrict__ out, const CopyView view, long long total) {
  for (long long i = thread_index(); i < total; i += thread_count()) {
    Index rest = static_cast<Index>(i);
    long long place = 0;
#pragma unroll
    for (int axis = 5; axis >= 0; --axis) {
      if (axis < view.axes) {
        const Index size = static_cast<Index>(view.size[axis]);
        place += rest % size * view.step[axis];
        rest /= size;
      }
    }
    out[i] = in[place];
  }
}

// in: batch matrices (columns, rows)   ->   out: batch matrices (rows, columns)
template <typename T>
__global__ void __launch_bounds__(256)
copy_transposed(const T* __restrict__ in, T* __restrict__ out, long long rows, long long columns) {
  __shared__ T tile[32][33];
  const int lane = threadIdx.x % 32, line = threadIdx.x / 32;
  const long long across = ceil_div(columns, 32LL), down = ceil_div(rows, 32LL);
  const long long matrix = blockIdx.x / (across * down), corner = blockIdx.x % (across * down);
  const long long row0 = corner / across * 32, column0 = corner % across * 32;
  const long long start = matrix * rows * columns;
  for (int i = line; i < 32; i += 8) {
    if (column0 + i < columns && row0 + lane < rows) tile[i][lane] = in[start + (column0 + i) * rows + row0 + lane];
  }
  __syncthreads();
  for (int i = line; i < 32; i += 8) {
    if (row0 + i < rows && column0 + lane < columns) out[start + (row0 + i) * columns + column0 + lane] = tile[lane][i];
  }
}
