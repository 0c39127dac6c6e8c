// Packs: neighbouring values of one array that a thread reads or writes in one access of up to 16 bytes.
#pragma once

#include "common.cuh"

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};

// Values of T in 16 bytes, the widest access there is.
template <typename T>
__device__ constexpr int pack_size() {
  return 16 / static_cast<int>(sizeof(T));
}

// True if packs of N may be read or written at once from this address on.  A view may start anywhere.
template <int N, typename T>
__device__ __forceinline__ bool is_aligned(const T* address) {
  return reinterpret_cast<unsigned long long>(address) % sizeof(Pack<T, N>) == 0;
}

// The N values from `address` on.
template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* address, bool aligned) {
  if (aligned) return *reinterpret_cast<const Pack<T, N>*>(address);
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.at[i] = address[i];
  return pack;
}

template <int N, typename T>
__device__ __forceinline__ void store_pack(T* address, const Pack<T, N>& pack, bool aligned) {
  if (aligned) {
    *reinterpret_cast<Pack<T, N>*>(address) = pack;
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) address[i] = pack.at[i];
}

// The same where only `left` values are there, which may be more or fewer than N.  The others are 0 bits.
template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* address, bool aligned, long long left) {
  if (left >= N) return load_pack<N>(address, aligned);
  Pack<T, N> pack = {};
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (i < left) pack.at[i] = address[i];
  }
  return pack;
}

template <int N, typename T>
__device__ __forceinline__ void store_pack(T* address, const Pack<T, N>& pack, bool aligned, long long left) {
  if (left >= N) {
    store_pack<N>(address, pack, aligned);
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (i < left) address[i] = pack.at[i];
  }
}
