// What both kinds of pooling share: windows, and how threads walk images in either memory format.
#pragma once

#include "common.cuh"

// Window (p, q) begins at row p stride - pad and column q stride - pad, and is R x S.
struct PoolShape {
  int N, C, H, W, R, S, P, Q;
  int stride_v, stride_h, pad_v, pad_h;
};

// The pixel of a thread's V neighbours in memory, and the image or plane it lies in.
template <bool CHANNELS_LAST, typename Index>
struct Spot {
  Index outer;    // image if CHANNELS_LAST, else plane n C + c
  Index channel;  // the first of V if CHANNELS_LAST, else 0
  Index h, w;

  // Where the same channel of pixel (0, 0) lies in images of another size.
  __device__ __forceinline__ Index start(Index C, Index H, Index W) const {
    return CHANNELS_LAST ? outer * H * W * C + channel : outer * H * W;
  }
};

// Spot of pack number i of a batch of images, H x W pixels of C channels.
template <bool CHANNELS_LAST, int V, typename Index>
__device__ __forceinline__ Spot<CHANNELS_LAST, Index> spot_of(Index i, Index C, Index H, Index W) {
  Spot<CHANNELS_LAST, Index> spot;
  spot.channel = 0;
  if (CHANNELS_LAST) {
    const Index packs = C / V;
    spot.channel = i % packs * V;
    i /= packs;
  }
  spot.w = i % W;
  i /= W;
  spot.h = i % H;
  spot.outer = i / H;
  return spot;
}

// The windows along one axis that lie over pixel `at`: first <= p < end.
template <typename Index>
struct Range {
  Index first, end;
};
template <typename Index>
__device__ __forceinline__ Range<Index> windows_over(Index at, Index window, Index stride, Index pad, Index count) {
  const Index before = at + pad - window;  // last place of a window that ends before the pixel
  return {before < 0 ? 0 : before / stride + 1, min((at + pad) / stride + 1, count)};
}

