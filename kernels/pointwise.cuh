// Functions of single elements: each thread takes 16 bytes after 16 bytes of flat arrays, all in one order of elements.
#pragma once

#include "pack.cuh"

// out[i] = f(a[i])
template <typename T, typename F>
__device__ __forceinline__ void pointwise(const T* __restrict__ a, T* __restrict__ out, long long total, F f) {
  constexpr int V = pack_size<T>();
  const bool aligned = is_aligned<V>(a) && is_aligned<V>(out);
  for (long long i = thread_index() * V; i < total; i += thread_count() * V) {
    Pack<T, V> pack = load_pack<V>(a + i, aligned, total - i);
#pragma unroll
    for (int v = 0; v < V; ++v) pack.at[v] = f(pack.at[v]);
    store_pack<V>(out + i, pack, aligned, total - i);
  }
}

// out[i] = f(a[i], b[i])
template <typename T, typename U, typename F>
__device__ __forceinline__ void pointwise(
    const T* __restrict__ a, const U* __restrict__ b, T* __restrict__ out, long long total, F f) {
  constexpr int V = pack_size<T>();
  const bool aligned = is_aligned<V>(a) && is_aligned<V>(b) && is_aligned<V>(out);
  for (long long i = thread_index() * V; i < total; i += thread_count() * V) {
    Pack<T, V> pack = load_pack<V>(a + i, aligned, total - i);
    const Pack<U, V> other = load_pack<V>(b + i, aligned, total - i);
#pragma unroll
    for (int v = 0; v < V; ++v) pack.at[v] = f(pack.at[v], other.at[v]);
    store_pack<V>(out + i, pack, aligned, total - i);
  }
}
