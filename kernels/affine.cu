// The fully connected layer, as far as it is not a matrix product (that is cuBLAS's: Device.matmul).
//
//   forward    y = product + b, rounded once to the type of y
//
// All arrays in row order, y (N, M).
//
//   kernel                | one thread per             | when
//   affine_forward_bias   | element after element      | there is a bias
//
// 16 bits are widened for a product, and its sums narrowed, by arithmetic.cu.
// The sum of dy over the batch is in reduce.cu.
// Launchers: gpuconv/cuda/affine.py.
#include "common.cuh"

// product and y may be one array.
template <typename T, typename Index>
__global__ void __launch_bounds__(256)
affine_forward_bias(const Sum<T>* product, const T* __restrict__ b, T* y, Index columns, long long total) {
  for (long long i = thread_index(); i < total; i += thread_count()) {
    y[i] = narrow<T>(product[i] + widen(b[static_cast<Index>(i) % columns]));
  }
}
