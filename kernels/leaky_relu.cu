// Leaky rectified linear unit.
//
//   forward    y = x where x > 0 or NaN, else slope x          backward   dx = dy where y > 0, else slope dy
//
// Any shape, without gaps; all arrays of a call in one order of elements.  slope > 0: 0 is relu.cu's.
//
//   kernel                | one thread per
//   leaky_relu_forward    | pack of 16 bytes after pack
//   leaky_relu_backward   | pack of 16 bytes after pack
//
// The type S of the slope is that of the products, at least Sum<T>.
// Source: Maas, Hannun and Ng, Rectifier Nonlinearities Improve Neural Network Acoustic Models (ICML 2013).
// Launchers: gpuconv/cuda/leaky_relu.py.
#include "pointwise.cuh"
#include "sign.cuh"

template <typename T, typename S>
__global__ void __launch_bounds__(256)
leaky_relu_forward(const T* __restrict__ x, T* __restrict__ y, long long total, S slope) {
  pointwise(x, y, total, [=](T value) {
    return sign_of(value) < 0 ? narrow<T>(static_cast<Sum<T>>(widen(value) * slope)) : value;
  });
}

template <typename T, typename S>
__global__ void __launch_bounds__(256)
leaky_relu_backward(
    const T* __restrict__ dy, const T* __restrict__ y, T* __restrict__ dx, long long total, S slope) {
  pointwise(dy, y, dx, total, [=](T gradient, T output) {
    return sign_of(output) > 0 ? gradient : narrow<T>(static_cast<Sum<T>>(widen(gradient) * slope));
  });
}
