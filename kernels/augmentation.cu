// From stored pictures to a training batch: crop, flip, normalise and cut out in one pass.
//
//   out[n, c, h, w] = levels[c, v],   v = images[n, c, h + top - pad, w' + left - pad];  out = 0 in the square cut out
//   draw = draws[n]:   top  = (draw bits  0-15) (2 pad + 1) / 2^16      w' = W - 1 - w where mirrored (bit 32), else w
//                      left = (draw bits 16-31) (2 pad + 1) / 2^16
//   square:  cutout rows from (draw bits 33-47) H / 2^15 - cutout / 2, as many columns from (bits 48-62) W / 2^15 - ...
//
// Outside the picture v is 0 or, with `reflect`, the pixel that the border mirrors (pad < H, W: mirrored once).
// images (pictures, C, H, W) uint8 and draws (pictures,) of any strides; out (N, C, H, W) in either memory format; levels
// (C, 256) hold the normalised value of every pixel value, computed on the host as the CPU does, so results are the
// CPU's bit for bit.
//
// With an order, a batch is gathered in the same pass: its number n is picture order[place + n], images and draw alike,
// and out_labels[n] = labels[order[place + n]].  Without one, number n is picture n.
//
//   kernel    | one thread per
//   augment   | element of out after element, in order of storage
//
// Launchers: gpuconv/cuda/augmentation.py.
#include "common.cuh"
#include "placed.cuh"

// Steps in elements.
struct AugmentView {
  long long image, channel, row, column, draw;
};

template <typename T, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 4)
augment(
    const unsigned char* __restrict__ images, const unsigned long long* __restrict__ draws,
    const T* __restrict__ levels, const long long* __restrict__ order, const unsigned long long* __restrict__ place_at,
    unsigned long long place_times, unsigned long long place, const long long* __restrict__ labels,
    T* __restrict__ out, long long* __restrict__ out_labels,
    AugmentView step, Index N, Index C, Index H, Index W, long long pad, bool reflect, bool flip, long long cutout) {
  const Index total = N * C * H * W;
  const long long* chosen = order ? order + placed_count(place_at, place_times, place) : nullptr;
  const unsigned long long places = 2 * static_cast<unsigned long long>(pad) + 1;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    Index rest = static_cast<Index>(i), c = 0;
    if (CHANNELS_LAST) c = rest % C, rest /= C;
    const Index w = rest % W;
    rest /= W;
    const Index h = rest % H;
    rest /= H;
    if (!CHANNELS_LAST) c = rest % C, rest /= C;
    const long long picture = chosen ? chosen[rest] : rest;
    if (labels && i < N) out_labels[i] = labels[chosen[i]];
    long long row = h, column = w;
    bool hidden = false;
    if (draws) {
      const unsigned long long draw = draws[picture * step.draw];
      if (flip && (draw >> 32 & 1)) column = W - 1 - column;
      row += static_cast<long long>((draw & 0xFFFF) * places >> 16) - pad;
      column += static_cast<long long>((draw >> 16 & 0xFFFF) * places >> 16) - pad;
      // Places in the square, counted from its first row and column: negative before it.
      const long long in_row = h + cutout / 2 - static_cast<long long>((draw >> 33 & 0x7FFF) * H >> 15);
      const long long in_column = w + cutout / 2 - static_cast<long long>((draw >> 48 & 0x7FFF) * W >> 15);
      hidden = 0 <= in_row && in_row < cutout && 0 <= in_column && in_column < cutout;
    }
    if (reflect) {
      row = row < 0 ? -row : row >= H ? 2 * (static_cast<long long>(H) - 1) - row : row;
      column = column < 0 ? -column : column >= W ? 2 * (static_cast<long long>(W) - 1) - column : column;
    }
    const bool inside = 0 <= row && row < H && 0 <= column && column < W;
    const long long pixel = picture * step.image + c * step.channel + row * step.row + column * step.column;
    const int value = inside ? images[pixel] : 0;
    out[i] = hidden ? narrow<T>(0) : levels[c * 256 + value];
  }
}
