// 3-D convolution: the sizes of a call, and what the readable and the tiled kernels share.
#pragma once

#include "common.cuh"

struct VolumeConvShape {
  int N, C, D, H, W, K, T, R, S, Z, P, Q;
  int stride_d, stride_v, stride_h, pad_d, pad_v, pad_h, dilation_d, dilation_v, dilation_h;
  int groups;
};

// One element of a batch of volumes, and its place in memory.
template <typename Index>
struct Voxel {
  Index n, c, d, h, w;
};
template <bool CHANNELS_LAST, typename Index>
__device__ __forceinline__ Voxel<Index> voxel_at(Index place, Index C, Index D, Index H, Index W) {
  // The planes of a volume, one below the other, are an image of D H rows.
  const Pixel<Index> at = pixel_at<CHANNELS_LAST, Index>(place, C, D * H, W);
  return {at.n, at.c, at.h / H, at.h % H, at.w};
}
template <bool CHANNELS_LAST, typename Index>
__device__ __forceinline__ Index voxel_place(Index n, Index c, Index d, Index h, Index w, Index C, Index D, Index H,
                                             Index W) {
  return place_of<CHANNELS_LAST, Index>(n, c, d * H + h, w, C, D * H, W);
}

// dx[n,c,d,i,j], over real outputs only.
template <typename T, bool CHANNELS_LAST, typename Index>
__device__ __forceinline__ T data_gradient(const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ b,
                                           const VolumeConvShape& z, const Voxel<Index>& in) {
  const Index K = z.K, Z = z.Z, P = z.P, Q = z.Q, channels = z.C / z.groups, filters = z.K / z.groups;
  const Index window = static_cast<Index>(z.T) * z.R * z.S, group = in.c / channels, first = group * filters;
  const T* taps = w + (first * channels + in.c - group * channels) * window;
  Sum<T> sum = 0;
  for (int t = 0; t < z.T; ++t) {
    const Index deep = in.d + z.pad_d - static_cast<Index>(t) * z.dilation_d, o = deep / z.stride_d;
    if (deep < 0 || o >= Z || deep != o * z.stride_d) continue;
    for (int r = 0; r < z.R; ++r) {
      const Index down = in.h + z.pad_v - static_cast<Index>(r) * z.dilation_v, p = down / z.stride_v;
      if (down < 0 || p >= P || down != p * z.stride_v) continue;
      for (int s = 0; s < z.S; ++s) {
        const Index right = in.w + z.pad_h - static_cast<Index>(s) * z.dilation_h, q = right / z.stride_h;
        if (right < 0 || q >= Q || right != q * z.stride_h) continue;
        const T* tap = taps + (static_cast<Index>(t) * z.R + r) * z.S + s;
        for (Index k = 0; k < filters; ++k) {
          const Index place = voxel_place<CHANNELS_LAST, Index>(in.n, first + k, o, p, q, K, Z, P, Q);
          sum += widen(dy[place]) * widen(tap[k * channels * window]);
        }
      }
    }
  }
  if (b != nullptr) sum += widen(b[in.c]);
  return narrow<T>(sum);
}
