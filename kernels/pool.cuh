// What both kinds of pooling share: windows, and how threads walk images in either memory format.
#pragma once

#include "common.cuh"

// Window (p, q) begins at row p stride - pad and column q stride - pad, and has R x S taps, dilation apart.  Windows may
// stick out of the image behind, and of its padding, which goes up to H + behind.  Each has a tap in the image.
struct PoolShape {
  int N, C, H, W, R, S, P, Q;
  int stride_v, stride_h, pad_v, pad_h, behind_v, behind_h, dilation_v, dilation_h;
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

template <typename Index>
struct Range {
  Index first, end;
};

// The windows along one axis that lie over pixel `at`: first <= p < end.  DILATED: the pixel may lie between their taps.
template <bool DILATED, typename Index>
__device__ __forceinline__ Range<Index> windows_over(Index at, Index taps, Index dilation, Index stride, Index pad,
                                                     Index count) {
  const Index span = DILATED ? (taps - 1) * dilation + 1 : taps;
  const Index before = at + pad - span;  // last place of a window that ends before the pixel
  return {before < 0 ? 0 : before / stride + 1, min((at + pad) / stride + 1, count)};
}

// The tap of a window that lies so far behind its beginning, or -1 where none does.
template <bool DILATED, typename Index>
__device__ __forceinline__ int tap_at(Index distance, Index dilation) {
  if (!DILATED) return static_cast<int>(distance);
  return distance % dilation == 0 ? static_cast<int>(distance / dilation) : -1;
}

// How many of a window's taps along one axis lie before `size`, the first of them at `start`, which may be negative.
template <typename Index>
__device__ __forceinline__ Index taps_before(Index start, Index taps, Index dilation, Index size) {
  return start + (taps - 1) * dilation < size ? taps : (size - start - 1) / dilation + 1;
}

// The taps of such a window that lie in an image of `size`: first <= r < end.
template <typename Index>
__device__ __forceinline__ Range<Index> taps_inside(Index start, Index taps, Index dilation, Index size) {
  return {start < 0 ? ceil_div(-start, dilation) : 0, taps_before(start, taps, dilation, size)};
}

// The pixels of the image from its first to its last tap there: each `dilation`-th of first <= h < end.
template <bool DILATED, typename Index>
__device__ __forceinline__ Range<Index> pixels_under(Index start, Index taps, Index dilation, Index size) {
  if (!DILATED) return {max(start, Index(0)), min(start + taps, size)};
  const Index end = min(start + (taps - 1) * dilation + 1, size);
  return {start < 0 ? start + ceil_div(-start, dilation) * dilation : start, end};
}

// What a window is divided by, as it counts along one axis: its taps in the image, or in the padded one.
template <bool DILATED, bool COUNT_PAD, typename Index>
__device__ __forceinline__ Index counted(Index start, Index taps, Index dilation, Index size, Index behind) {
  if (!DILATED) dilation = 1;
  if (COUNT_PAD) return taps_before<Index>(start, taps, dilation, size + behind);
  const Range<Index> inside = taps_inside<Index>(start, taps, dilation, size);
  return inside.end - inside.first;
}
