// Optimiser steps on flat vectors, in place: each vector is read and written once.
//
//   g = dw + weight_decay w
//   sgd       velocity = momentum velocity + g;   w -= rate velocity, or with nesterov rate (g + momentum velocity)
//   rmsprop   square = smoothing square + (1 - smoothing) g^2;   w -= rate g / (sqrt(square) + eps)
//   adam      (decoupled: g = dw, and w is scaled by `shrink` first)
//             m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2;
//             w -= rate m / (sqrt(v / second) + eps),   rate = lr / (1 - beta1^step), second = 1 - beta2^step
//
// Vectors (n,), in packs of 16 bytes where DENSE, else of any strides.  Without a velocity sgd is plain.
// rate, second and shrink come by value or by their place (placed.cuh).  Where *go is 0, nothing is changed.
// copy: w once more in another type, which is C, dense as it is; without one it is a null pointer, and C is T.
//
//   kernel           | one thread per
//   sgd_update       | pack after pack, or element after element
//   rmsprop_update   | pack after pack, or element after element
//   adam_update      | pack after pack, or element after element
//
// Sources: Hinton, Neural Networks for Machine Learning, lecture 6e (2012); Kingma and Ba, arXiv 1412.6980;
// Loshchilov and Hutter, arXiv 1711.05101.
// Launchers: gpuconv/cuda/update.py.
#include "pack.cuh"
#include "placed.cuh"

// Steps between elements.
struct UpdateSteps {
  long long w, dw, first, second;
};

// Elements i ... i + N - 1 of a vector; N is 1 where it is not dense.
template <int N, bool DENSE, typename T>
__device__ __forceinline__ Pack<T, N> update_load(const T* vector, long long i, long long total, long long step) {
  if (DENSE) return load_pack<N>(vector + i, is_aligned<N>(vector), total - i);
  return load_pack<N>(vector + i * step, false);
}
template <int N, bool DENSE, typename T>
__device__ __forceinline__ void update_store(
    T* vector, const Pack<T, N>& pack, long long i, long long total, long long step) {
  if (DENSE) {
    store_pack<N>(vector + i, pack, is_aligned<N>(vector), total - i);
  } else {
    store_pack<N>(vector + i * step, pack, false);
  }
}

template <int N, typename C, typename T>
__device__ __forceinline__ void update_copy(C* copy, const Pack<T, N>& weights, long long i, long long total) {
  Pack<C, N> copies;
#pragma unroll
  for (int k = 0; k < N; ++k) copies.at[k] = narrow<C>(widen(weights.at[k]));
  store_pack<N>(copy + i, copies, is_aligned<N>(copy), total - i);
}

__device__ __forceinline__ float update_sqrt(float x) { return sqrtf(x); }
__device__ __forceinline__ double update_sqrt(double x) { return sqrt(x); }

// The gradient with the penalty on the weights.  Without one, an infinite weight must not spoil it.
template <typename S>
__device__ __forceinline__ S update_gradient(S w, S dw, S weight_decay) {
  return weight_decay != 0 ? dw + weight_decay * w : dw;
}

template <typename T, typename C, bool DENSE>
__global__ void __launch_bounds__(256)
sgd_update(
    T* __restrict__ w, const T* __restrict__ dw, T* __restrict__ velocity, C* __restrict__ copy, UpdateSteps step,
    long long total, const unsigned long long* __restrict__ go, const double* __restrict__ rate_at, double rate, double momentum,
    bool nesterov, double weight_decay) {
  using S = Sum<T>;
  constexpr int N = DENSE ? pack_size<T>() : 1;
  if (!goes_ahead(go)) return;
  const S lr = static_cast<S>(placed_number(rate_at, rate));
  const S kept = static_cast<S>(momentum), decay = static_cast<S>(weight_decay);
  for (long long i = thread_index() * N; i < total; i += thread_count() * N) {
    Pack<T, N> weights = update_load<N, DENSE>(w, i, total, step.w), speeds = {};
    const Pack<T, N> gradients = update_load<N, DENSE>(dw, i, total, step.dw);
    if (velocity) speeds = update_load<N, DENSE>(velocity, i, total, step.first);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const S weight = widen(weights.at[k]);
      S g = update_gradient<S>(weight, widen(gradients.at[k]), decay);
      if (velocity) {
        const S speed = kept * widen(speeds.at[k]) + g;
        speeds.at[k] = narrow<T>(speed);
        g = nesterov ? g + kept * speed : speed;
      }
      weights.at[k] = narrow<T>(weight - lr * g);
    }
    update_store<N, DENSE>(w, weights, i, total, step.w);
    if (DENSE && copy) update_copy<N>(copy, weights, i, total);
    if (velocity) update_store<N, DENSE>(velocity, speeds, i, total, step.first);
  }
}

template <typename T, typename C, bool DENSE>
__global__ void __launch_bounds__(256)
rmsprop_update(
    T* __restrict__ w, const T* __restrict__ dw, T* __restrict__ square, C* __restrict__ copy, UpdateSteps step,
    long long total, const unsigned long long* __restrict__ go, const double* __restrict__ rate_at, double rate, double smoothing,
    double eps, double weight_decay) {
  using S = Sum<T>;
  constexpr int N = DENSE ? pack_size<T>() : 1;
  if (!goes_ahead(go)) return;
  const S lr = static_cast<S>(placed_number(rate_at, rate));
  const S kept = static_cast<S>(smoothing), fresh = static_cast<S>(1 - smoothing);
  const S floor = static_cast<S>(eps), decay = static_cast<S>(weight_decay);
  for (long long i = thread_index() * N; i < total; i += thread_count() * N) {
    Pack<T, N> weights = update_load<N, DENSE>(w, i, total, step.w);
    Pack<T, N> squares = update_load<N, DENSE>(square, i, total, step.first);
    const Pack<T, N> gradients = update_load<N, DENSE>(dw, i, total, step.dw);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const S weight = widen(weights.at[k]);
      const S g = update_gradient<S>(weight, widen(gradients.at[k]), decay);
      const S mean = kept * widen(squares.at[k]) + fresh * (g * g);
      squares.at[k] = narrow<T>(mean);
      weights.at[k] = narrow<T>(weight - lr * g / (update_sqrt(mean) + floor));
    }
    update_store<N, DENSE>(w, weights, i, total, step.w);
    if (DENSE && copy) update_copy<N>(copy, weights, i, total);
    update_store<N, DENSE>(square, squares, i, total, step.first);
  }
}

template <typename T, typename C, bool DENSE>
__global__ void __launch_bounds__(256)
adam_update(
    T* __restrict__ w, const T* __restrict__ dw, T* __restrict__ m, T* __restrict__ v, C* __restrict__ copy,
    UpdateSteps step, long long total, const unsigned long long* __restrict__ go, const double* __restrict__ rate_at, double rate,
    const double* __restrict__ second_at, double second, const double* __restrict__ shrink_at, double shrink,
    double beta1, double beta2, double eps, double weight_decay) {
  using S = Sum<T>;
  constexpr int N = DENSE ? pack_size<T>() : 1;
  if (!goes_ahead(go)) return;
  const S lr = static_cast<S>(placed_number(rate_at, rate)), floor = static_cast<S>(eps);
  const S correction = static_cast<S>(placed_number(second_at, second));
  const S kept_m = static_cast<S>(beta1), fresh_m = static_cast<S>(1 - beta1);
  const S kept_v = static_cast<S>(beta2), fresh_v = static_cast<S>(1 - beta2);
  const S factor = static_cast<S>(placed_number(shrink_at, shrink)), decay = static_cast<S>(weight_decay);
  for (long long i = thread_index() * N; i < total; i += thread_count() * N) {
    Pack<T, N> weights = update_load<N, DENSE>(w, i, total, step.w);
    Pack<T, N> means = update_load<N, DENSE>(m, i, total, step.first);
    Pack<T, N> squares = update_load<N, DENSE>(v, i, total, step.second);
    const Pack<T, N> gradients = update_load<N, DENSE>(dw, i, total, step.dw);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const S weight = widen(weights.at[k]);
      const S g = update_gradient<S>(weight, widen(gradients.at[k]), decay);
      const S mean = kept_m * widen(means.at[k]) + fresh_m * g;
      const S square = kept_v * widen(squares.at[k]) + fresh_v * (g * g);
      means.at[k] = narrow<T>(mean);
      squares.at[k] = narrow<T>(square);
      weights.at[k] = narrow<T>(weight * factor - lr * mean / (update_sqrt(square / correction) + floor));
    }
    update_store<N, DENSE>(w, weights, i, total, step.w);
    if (DENSE && copy) update_copy<N>(copy, weights, i, total);
    update_store<N, DENSE>(m, means, i, total, step.first);
    update_store<N, DENSE>(v, squares, i, total, step.second);
  }
}
