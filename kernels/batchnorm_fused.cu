// Batch normalisation with what follows it in one pass: an activation, a sum with another array, a maximum of windows.
//
//   forward    z = (x - mean) gamma inv_std + beta              as in batchnorm.cu, whose moments these kernels take
//              y = f(z)    f(z + other)    f(z) + other         f: the identity, ReLU, GELU
//              y = f(the maximum of each 2 x 2 window of z, side by side from the first on)     f: the identity, ReLU
//   backward   the two passes of batchnorm.cu over dz, which is told from dy as it is needed and never stored:
//              masked   dz = dy where y was above 0             (ReLU; for `other`, too)
//              gelu     dz = dy f'(z), with z computed anew from x
//              pooled   dz = dy at the place of the window's maximum, 0 elsewhere
//
// What the plain operators would store between them is rounded here as there, so that the bits are the same.
// Layout as in channels.cuh.  mask: a byte for each pack of V values of y, bit v set where value v was above 0.
// places: a byte for each y, the place 2 r + s of its maximum in the window, 4 where ReLU cut it off.
//
//   kernel                           | one thread per             | when
//   batchnorm_forward_fused          | pack after pack            | no pooling
//   batchnorm_forward_pooled         | pack of outputs after pack | pooling; planes: V = 1 or V divides W
//   batchnorm_backward_sums_masked   | (block) as in              | ReLU
//   batchnorm_backward_sums_gelu     |   batchnorm_backward_sums  | GELU
//   batchnorm_backward_sums_pooled   |                            | pooling
//   batchnorm_backward_data_masked   | pack after pack            | ReLU
//   batchnorm_backward_data_gelu     | pack after pack            | GELU
//   batchnorm_backward_data_pooled   | pack after pack            | pooling
//   batchnorm_backward_joined        | pack after pack            | the gradient of `other` under ReLU, and a sum
//
// Launchers: gpuconv/cuda/batchnorm_fused.py.
#include "batchnorm.cuh"
#include "gelu.cuh"
#include "pool.cuh"
#include "sign.cuh"

enum Activation { IDENTITY, RELU, GELU, GELU_TANH };
enum Join { ALONE, BEFORE, AFTER };  // where `other` is added: nowhere, before the activation, after it
constexpr int CUT_OFF = 4;

template <int ACTIVATION, typename T>
__device__ __forceinline__ T activated(T value) {
  if (ACTIVATION == RELU) return sign_of(value) < 0 ? T{} : value;
  if (ACTIVATION == GELU || ACTIVATION == GELU_TANH) {
    const Sum<T> wide = widen(value);
    return narrow<T>(rounded_product(wide, gelu_factor<ACTIVATION == GELU_TANH, false>(wide)));
  }
  return value;
}

template <typename T>
__device__ __forceinline__ T joined(T value, T other) {
  return narrow<T>(widen(value) + widen(other));
}

// mask: filled where ReLU's backward will want it, else null.   channels and per_plane in packs: see ChannelOfPack.
template <typename T, typename P, int V, bool CHANNELS_LAST, int ACTIVATION, int JOIN, typename Index>
__global__ void __launch_bounds__(256)
batchnorm_forward_fused(
    const T* __restrict__ x, const Sum<T>* __restrict__ mean, const Sum<T>* __restrict__ inv_std,
    const P* __restrict__ gamma, const P* __restrict__ beta, const T* __restrict__ other, T* __restrict__ y,
    unsigned char* __restrict__ mask, Index packs, Index channels, Index per_plane) {
  static_assert(JOIN != BEFORE || ACTIVATION <= RELU, "the backward of GELU finds z from x alone");
  constexpr int WIDTH = CHANNELS_LAST ? V : 1;
  const bool aligned = is_aligned<V>(x) && is_aligned<V>(y) && is_aligned<V>(other);
  const Index first = static_cast<Index>(thread_index()), step = static_cast<Index>(thread_count());
  ChannelOfPack<Index> of(first, step, channels, per_plane);
  Normalisation<Sum<T>, WIDTH> normalised;
  Index loaded = -1;
  for (Index i = first; i < packs; i += step, of.next()) {
    if (of.channel != loaded) {
      loaded = of.channel;
      normalised.load(mean, inv_std, gamma, beta, loaded);
    }
    Pack<T, V> pack = load_pack<V>(x + i * V, aligned), others;
    if (JOIN != ALONE) others = load_pack<V>(other + i * V, aligned);
    unsigned above = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      T value = narrow<T>(normalised(widen(pack.at[v]), v % WIDTH));
      if (JOIN == BEFORE) value = joined(value, others.at[v]);
      value = activated<ACTIVATION>(value);
      if (ACTIVATION == RELU && sign_of(value) > 0) above |= 1u << v;
      if (JOIN == AFTER) value = joined(value, others.at[v]);
      pack.at[v] = value;
    }
    store_pack<V>(y + i * V, pack, aligned);
    if (ACTIVATION == RELU && mask != nullptr) mask[i] = static_cast<unsigned char>(above);
  }
}

// Where pack number i of the outputs lies, and the 2 x 2 windows of x that it is made of.  In planes a pack of V values
// in each of two rows of x makes V / 2 outputs, in rows a pack of V channels in each of four pixels makes V.
template <int V, bool CHANNELS_LAST, typename Index>
struct Windows {
  static constexpr int OUT = CHANNELS_LAST || V == 1 ? V : V / 2;
  Index channel_pack, top_left, right, down;

  __device__ __forceinline__ Windows(Index i, Index channels, Index H, Index W) {
    const Index packs = CHANNELS_LAST ? channels / V : 1, row_packs = W / 2 / (CHANNELS_LAST ? 1 : OUT), P = H / 2;
    channel_pack = i % packs, i /= packs;
    const Index q = i % row_packs;
    i /= row_packs;
    const Index p = i % P, outer = i / P;
    if (!CHANNELS_LAST) channel_pack = outer % channels;
    right = CHANNELS_LAST ? channels : 1;
    down = W * right;
    top_left = CHANNELS_LAST ? (outer * H + 2 * p) * down + 2 * q * right + channel_pack * V
                             : (outer * H + 2 * p) * W + 2 * q * OUT;
  }

  // The four values of each output's window, in row order, turned by `convert`, which is told the channel.
  template <typename T, typename Convert>
  __device__ __forceinline__ void read(const T* x, bool aligned, T (&values)[OUT][4], Convert convert) const {
    if (CHANNELS_LAST || V == 1) {
#pragma unroll
      for (int tap = 0; tap < 4; ++tap) {
        const Pack<T, V> pack = load_pack<V>(x + top_left + tap / 2 * down + tap % 2 * right, aligned);
#pragma unroll
        for (int v = 0; v < OUT; ++v) values[v][tap] = convert(pack.at[v], v);
      }
      return;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Pack<T, V> row = load_pack<V>(x + top_left + r * down, aligned);
#pragma unroll
      for (int v = 0; v < V; ++v) values[v / 2][2 * r + v % 2] = convert(row.at[v], 0);
    }
  }
};

// places: filled where the backward will want them, else null.
template <typename T, typename P, int V, bool CHANNELS_LAST, int ACTIVATION, typename Index>
__global__ void __launch_bounds__(256)
batchnorm_forward_pooled(
    const T* __restrict__ x, const Sum<T>* __restrict__ mean, const Sum<T>* __restrict__ inv_std,
    const P* __restrict__ gamma, const P* __restrict__ beta, T* __restrict__ y, unsigned char* __restrict__ places,
    Index total, Index channels, Index H, Index W) {
  static_assert(ACTIVATION <= RELU, "only ReLU commutes with the maximum");
  using Window = Windows<V, CHANNELS_LAST, Index>;
  constexpr int OUT = Window::OUT, WIDTH = CHANNELS_LAST ? V : 1;
  const bool aligned = is_aligned<V>(x), aligned_out = is_aligned<OUT>(y) && is_aligned<OUT>(places);
  Normalisation<Sum<T>, WIDTH> normalised;
  Index loaded = -1;
  for (Index i = static_cast<Index>(thread_index()); i < total; i += static_cast<Index>(thread_count())) {
    const Window window(i, channels, H, W);
    if (window.channel_pack != loaded) {
      loaded = window.channel_pack;
      normalised.load(mean, inv_std, gamma, beta, loaded);
    }
    T values[OUT][4];
    window.read(x, aligned, values, [&](T value, int w) { return narrow<T>(normalised(widen(value), w)); });
    Pack<T, OUT> winners;
    Pack<unsigned char, OUT> winning;
#pragma unroll
    for (int v = 0; v < OUT; ++v) {
      T best = values[v][0];
      int place = 0;
#pragma unroll
      for (int tap = 1; tap < 4; ++tap) {
        if (wins(widen(values[v][tap]), widen(best))) best = values[v][tap], place = tap;
      }
      const T value = activated<ACTIVATION>(best);
      if (ACTIVATION == RELU && sign_of(value) <= 0) place = CUT_OFF;
      winners.at[v] = value;
      winning.at[v] = static_cast<unsigned char>(place);
    }
    store_pack<OUT>(y + i * OUT, winners, aligned_out);
    if (places != nullptr) store_pack<OUT>(places + i * OUT, winning, aligned_out);
  }
}

// dy where its bit is set, else 0.
template <typename T, int V>
__device__ __forceinline__ Pack<T, V> where_set(Pack<T, V> gradient, unsigned bits) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (!(bits >> v & 1u)) gradient.at[v] = T{};
  }
  return gradient;
}

// The gradients that batchnorm.cuh asks for.
template <typename T, int V, typename Index>
struct GradientMasked {
  const T* dy;
  const unsigned char* mask;
  bool aligned;

  __device__ __forceinline__ GradientMasked(const T* dy, const unsigned char* mask)
      : dy(dy), mask(mask), aligned(is_aligned<V>(dy)) {}
  __device__ __forceinline__ void at_channels(Index) {}
  __device__ __forceinline__ Pack<T, V> operator()(Index offset, const Pack<T, V>&) const {
    return where_set(load_pack<V>(dy + offset, aligned), mask[offset / V]);
  }
};

template <typename T, typename P, int V, bool CHANNELS_LAST, bool TANH, typename Index>
struct GradientOfGelu {
  static constexpr int WIDTH = CHANNELS_LAST ? V : 1;
  const T* dy;
  const Sum<T>*mean, *inv_std;
  const P *gamma, *beta;
  bool aligned;
  Normalisation<Sum<T>, WIDTH> normalised;

  __device__ __forceinline__ GradientOfGelu(
      const T* dy, const Sum<T>* mean, const Sum<T>* inv_std, const P* gamma, const P* beta)
      : dy(dy), mean(mean), inv_std(inv_std), gamma(gamma), beta(beta), aligned(is_aligned<V>(dy)) {}
  __device__ __forceinline__ void at_channels(Index pack) { normalised.load(mean, inv_std, gamma, beta, pack); }
  __device__ __forceinline__ Pack<T, V> operator()(Index offset, const Pack<T, V>& value) const {
    Pack<T, V> gradient = load_pack<V>(dy + offset, aligned);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Sum<T> z = widen(narrow<T>(normalised(widen(value.at[v]), v % WIDTH)));
      gradient.at[v] = narrow<T>(rounded_product(widen(gradient.at[v]), gelu_factor<TANH, true>(z)));
    }
    return gradient;
  }
};

template <typename T, int V, bool CHANNELS_LAST, typename Index>
struct GradientPooled {
  static constexpr int HALF = V > 1 ? V / 2 : 1;
  const T* dy;
  const unsigned char* places;
  Index channels, H, W;
  bool aligned;

  __device__ __forceinline__ GradientPooled(const T* dy, const unsigned char* places, Index channels, Index H, Index W)
      : dy(dy), places(places), channels(channels), H(H), W(W), aligned(is_aligned<V>(dy) && is_aligned<V>(places)) {}
  __device__ __forceinline__ void at_channels(Index) {}
  __device__ __forceinline__ Pack<T, V> operator()(Index offset, const Pack<T, V>&) const {
    if (CHANNELS_LAST) return of_windows<V, 1>(offset / channels, offset % channels);
    if (V > 1 && W % V == 0) return of_windows<HALF, 2>(offset, 0);
    Pack<T, V> gradient;
#pragma unroll
    for (int v = 0; v < V; ++v) gradient.at[v] = of_windows<1, 1, 1>(offset + v, 0).at[0];
    return gradient;
  }

  // The gradient of `LENGTH` values from pixel number `pixel` on: each in a window of its own, or APART = 2 in one.
  template <int OUT, int APART, int LENGTH = V>
  __device__ __forceinline__ Pack<T, LENGTH> of_windows(Index pixel, Index channel) const {
    const Index w = pixel % W, row = pixel / W, h = row % H, outer = row / H, p = h / 2, q = w / 2, P = H / 2, Q = W / 2;
    Pack<T, LENGTH> gradient = {};
    if (p >= P || q >= Q) return gradient;  // an odd last row or column has no window
    const Index window = ((outer * P + p) * Q + q) * (CHANNELS_LAST ? channels : 1) + channel;
    const Pack<T, OUT> upstream = load_pack<OUT>(dy + window, aligned);
    const Pack<unsigned char, OUT> winners = load_pack<OUT>(places + window, aligned);
    const int here = static_cast<int>(h % 2 * 2 + (APART == 1 ? w % 2 : 0));
#pragma unroll
    for (int v = 0; v < LENGTH; ++v) {
      if (winners.at[v / APART] == here + v % APART) gradient.at[v] = upstream.at[v / APART];
    }
    return gradient;
  }
};

// dz, x   ->   partial (2, chunks, C): see batchnorm_backward_sums.
template <typename T, int V, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256)
batchnorm_backward_sums_masked(
    const T* __restrict__ dy, const unsigned char* __restrict__ mask, const T* __restrict__ x,
    const Sum<T>* __restrict__ mean, Sum<T>* __restrict__ partial, Index images, Index channels, Index pixels, int lanes,
    int parts, int chunks) {
  GradientMasked<T, V, Index> gradient(dy, mask);
  batchnorm_gradient_sums<T, V, CHANNELS_LAST>(gradient, x, mean, partial, images, channels, pixels, lanes, parts, chunks);
}

template <typename T, typename P, int V, bool CHANNELS_LAST, bool TANH, typename Index>
// Bounds of 2 blocks a multiprocessor, here and below: without them ptxas spills some registers for a block more.
__global__ void __launch_bounds__(256, 2)
batchnorm_backward_sums_gelu(
    const T* __restrict__ dy, const Sum<T>* __restrict__ inv_std, const P* __restrict__ gamma,
    const P* __restrict__ beta, const T* __restrict__ x, const Sum<T>* __restrict__ mean, Sum<T>* __restrict__ partial,
    Index images, Index channels, Index pixels, int lanes, int parts, int chunks) {
  GradientOfGelu<T, P, V, CHANNELS_LAST, TANH, Index> gradient(dy, mean, inv_std, gamma, beta);
  batchnorm_gradient_sums<T, V, CHANNELS_LAST>(gradient, x, mean, partial, images, channels, pixels, lanes, parts, chunks);
}

template <typename T, int V, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 2)
batchnorm_backward_sums_pooled(
    const T* __restrict__ dy, const unsigned char* __restrict__ places, Index H, Index W, const T* __restrict__ x,
    const Sum<T>* __restrict__ mean, Sum<T>* __restrict__ partial, Index images, Index channels, Index pixels, int lanes,
    int parts, int chunks) {
  GradientPooled<T, V, CHANNELS_LAST, Index> gradient(dy, places, channels, H, W);
  batchnorm_gradient_sums<T, V, CHANNELS_LAST>(gradient, x, mean, partial, images, channels, pixels, lanes, parts, chunks);
}

// dz, x   ->   dx: see batchnorm_backward_data.
template <typename T, int V, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256)
batchnorm_backward_data_masked(
    const T* __restrict__ dy, const unsigned char* __restrict__ mask, const T* __restrict__ x,
    const Sum<T>* __restrict__ mean, const Sum<T>* __restrict__ coefficients, T* __restrict__ dx, Index packs,
    Index channels, Index per_plane) {
  GradientMasked<T, V, Index> gradient(dy, mask);
  batchnorm_gradient_data<T, V, CHANNELS_LAST, true>(gradient, x, mean, coefficients, dx, packs, channels, per_plane);
}

template <typename T, typename P, int V, bool CHANNELS_LAST, bool TANH, typename Index>
__global__ void __launch_bounds__(256, 2)
batchnorm_backward_data_gelu(
    const T* __restrict__ dy, const Sum<T>* __restrict__ inv_std, const P* __restrict__ gamma,
    const P* __restrict__ beta, const T* __restrict__ x, const Sum<T>* __restrict__ mean,
    const Sum<T>* __restrict__ coefficients, T* __restrict__ dx, Index packs, Index channels, Index per_plane) {
  GradientOfGelu<T, P, V, CHANNELS_LAST, TANH, Index> gradient(dy, mean, inv_std, gamma, beta);
  batchnorm_gradient_data<T, V, CHANNELS_LAST, true>(gradient, x, mean, coefficients, dx, packs, channels, per_plane);
}

template <typename T, int V, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 2)
batchnorm_backward_data_pooled(
    const T* __restrict__ dy, const unsigned char* __restrict__ places, Index H, Index W, const T* __restrict__ x,
    const Sum<T>* __restrict__ mean, const Sum<T>* __restrict__ coefficients, T* __restrict__ dx, Index packs,
    Index channels, Index per_plane) {
  GradientPooled<T, V, CHANNELS_LAST, Index> gradient(dy, places, CHANNELS_LAST ? channels * V : channels, H, W);
  batchnorm_gradient_data<T, V, CHANNELS_LAST, true>(gradient, x, mean, coefficients, dx, packs, channels, per_plane);
}

// out = dy where the mask is set, else 0, plus `other` unless that is null.
template <typename T, int V>
__global__ void __launch_bounds__(256)
batchnorm_backward_joined(
    const T* __restrict__ dy, const unsigned char* __restrict__ mask, const T* __restrict__ other, T* __restrict__ out,
    long long packs) {
  const bool aligned = is_aligned<V>(dy) && is_aligned<V>(other) && is_aligned<V>(out);
  for (long long i = thread_index(); i < packs; i += thread_count()) {
    Pack<T, V> gradient = where_set(load_pack<V>(dy + i * V, aligned), mask[i]);
    if (other != nullptr) {
      const Pack<T, V> others = load_pack<V>(other + i * V, aligned);
#pragma unroll
      for (int v = 0; v < V; ++v) gradient.at[v] = joined(others.at[v], gradient.at[v]);
    }
    store_pack<V>(out + i * V, gradient, aligned);
  }
}
