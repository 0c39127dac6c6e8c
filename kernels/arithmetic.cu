// Sums and multiples of whole arrays: what nets compute between operators.
//
//   add     out = a + b                     scale   out = factor in,   in and out may be one array
//                                           cast    out = factor in,   in another type
//
// Flat arrays in one order of elements.  Each element is calculated in Sum<T> and rounded once.
//
//   kernel             | one thread per
//   arithmetic_add     | 16 bytes after 16 bytes
//   arithmetic_scale   | 16 bytes after 16 bytes
//   arithmetic_cast    | 16 bytes of the wider type after 16 bytes
//
// Launchers: gpuconv/cuda/arithmetic.py.
#include "pointwise.cuh"
#include "placed.cuh"

template <typename T>
__global__ void __launch_bounds__(256)
arithmetic_add(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ out, long long total) {
  pointwise(a, b, out, total, [](T left, T right) { return narrow<T>(widen(left) + widen(right)); });
}

template <typename T>
__global__ void __launch_bounds__(256)
arithmetic_scale(const T* in, T* out, long long total, const double* __restrict__ factor_at, double factor) {
  constexpr int V = pack_size<T>();
  const bool aligned = is_aligned<V>(in) && is_aligned<V>(out);
  const Sum<T> times = static_cast<Sum<T>>(placed_number(factor_at, factor));
  for (long long i = thread_index() * V; i < total; i += thread_count() * V) {
    Pack<T, V> pack = load_pack<V>(in + i, aligned, total - i);
#pragma unroll
    for (int v = 0; v < V; ++v) pack.at[v] = narrow<T>(times * widen(pack.at[v]));
    store_pack<V>(out + i, pack, aligned, total - i);
  }
}

template <typename From, typename To>
__global__ void __launch_bounds__(256)
arithmetic_cast(
    const From* __restrict__ in, To* __restrict__ out, long long total, const double* __restrict__ factor_at,
    double factor) {
  constexpr int V = sizeof(From) > sizeof(To) ? pack_size<From>() : pack_size<To>();
  const bool aligned = is_aligned<V>(in) && is_aligned<V>(out);
  const Sum<To> times = static_cast<Sum<To>>(placed_number(factor_at, factor));
  for (long long i = thread_index() * V; i < total; i += thread_count() * V) {
    const Pack<From, V> pack = load_pack<V>(in + i, aligned, total - i);
    Pack<To, V> made;
#pragma unroll
    for (int v = 0; v < V; ++v) made.at[v] = narrow<To>(times * widen(pack.at[v]));
    store_pack<V>(out + i, made, aligned, total - i);
  }
}
