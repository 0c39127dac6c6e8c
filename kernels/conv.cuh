// 2-D convolution: the sizes of a call, and what the readable and the tiled kernels share.
#pragma once

#include "common.cuh"

struct ConvShape {
  int N, C, H, W, K, R, S, P, Q;
  int stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h;
  int groups;
};

// dx[n,c,i,j], over real outputs only.
template <typename T, bool CHANNELS_LAST, typename Index>
__device__ __forceinline__ T data_gradient(const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ b,
                                           const ConvShape& z, const Pixel<Index>& in) {
  const Index P = z.P, Q = z.Q, channels = z.C / z.groups, filters = z.K / z.groups;
  const Index window = static_cast<Index>(z.R) * z.S, group = in.c / channels, first = group * filters;
  const T* taps = w + (first * channels + in.c - group * channels) * window;
  Sum<T> sum = 0;
  for (int r = 0; r < z.R; ++r) {
    const Index down = in.h + z.pad_v - static_cast<Index>(r) * z.dilation_v, p = down / z.stride_v;
    if (down < 0 || p >= P || down != p * z.stride_v) continue;
    for (int s = 0; s < z.S; ++s) {
      const Index right = in.w + z.pad_h - static_cast<Index>(s) * z.dilation_h, q = right / z.stride_h;
      if (right < 0 || q >= Q || right != q * z.stride_h) continue;
      for (Index k = 0; k < filters; ++k) {
        const Sum<T> gradient = widen(dy[place_of<CHANNELS_LAST, Index>(in.n, first + k, p, q, z.K, P, Q)]);
        sum += gradient * widen(taps[k * channels * window + static_cast<Index>(r) * z.S + s]);
      }
    }
  }
  if (b != nullptr) sum += widen(b[in.c]);
  return narrow<T>(sum);
}
