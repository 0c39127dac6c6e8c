// Max and average pooling of volumes, and the gradients.
//
//   y[n,c,o,p,q]   = the first NaN of the window, or else its first maximum, plane by plane in row order; padding takes no
//                    part          argmax = its place (t R + r) S + s in the window
//   dx[n,c,d,i,j]  = sum over the windows (o,p,q) whose winner is (d,i,j) of dy[n,c,o,p,q]; ties: over those with
//                    x[n,c,d,i,j] = y[n,c,o,p,q], with SPLIT divided by the number of such pixels in the window
//   average:  y    = sum of the real pixels under the window / their number, with COUNT_PAD that of its taps in the padded volume
//             dx   = sum over the windows over (d,i,j) of dy[n,c,o,p,q] / what the window was divided by
//
// Layout: (N, C, D, H, W) or, with CHANNELS_LAST, (N, D, H, W, C), without gaps.  A window of up to 256 places has argmax
// in one byte, a larger one in an int.  Gradients are gathered, so nothing is cleared, and added in a fixed order.
//
// A box is pooled at once: to pool planes and then their depth would write and read all planes in between, in float32
// where T is float16, whose sums are rounded once.
//
//   kernel                                | one thread per   | when
//   max_pool_volume_forward_direct        | output           | every case
//   max_pool_volume_backward_direct       | entry of dx      | every case
//   max_pool_volume_backward_ties_direct  | entry of dx      | equal maxima share the gradient
//   average_pool_volume_forward_direct    | output           | every case
//   average_pool_volume_backward_direct   | entry of dx      | every case
//
// Launchers: gpuconv/cuda/pool_volume.py.
#include "pool.cuh"

// Window (o, p, q) begins at plane o stride - pad, and at row and column likewise, and has T x R x S taps, as those of
// images.
struct VolumePoolShape {
  int N, C, D, H, W, T, R, S, Z, P, Q;
  int stride_d, stride_v, stride_h, pad_d, pad_v, pad_h, behind_d, behind_v, behind_h;
  int dilation_d, dilation_v, dilation_h;
};

// A pixel of a volume, and where its channel of that volume lies.
template <bool CHANNELS_LAST, typename Index>
struct Voxel {
  Index outer;    // volume if CHANNELS_LAST, else n C + c
  Index channel;  // 0 if not CHANNELS_LAST
  Index d, h, w;

  // Where the same channel begins in volumes of so many pixels.
  __device__ __forceinline__ Index start(Index C, Index pixels) const {
    return CHANNELS_LAST ? outer * pixels * C + channel : outer * pixels;
  }
};

// Voxel number i of a batch of volumes, D x H x W pixels of C channels.
template <bool CHANNELS_LAST, typename Index>
__device__ __forceinline__ Voxel<CHANNELS_LAST, Index> voxel_of(Index i, Index C, Index D, Index H, Index W) {
  Voxel<CHANNELS_LAST, Index> voxel;
  voxel.channel = 0;
  if (CHANNELS_LAST) {
    voxel.channel = i % C;
    i /= C;
  }
  voxel.w = i % W;
  i /= W;
  voxel.h = i % H;
  i /= H;
  voxel.d = i % D;
  voxel.outer = i / D;
  return voxel;
}

// Bounds of 3 blocks a multiprocessor, and of 2 for ties, or ptxas spills some values for a block more.
template <typename T, typename Place, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 3)
max_pool_volume_forward_direct(const T* __restrict__ x, T* __restrict__ y, Place* __restrict__ argmax,
                               const VolumePoolShape z) {
  const Index D = z.D, H = z.H, W = z.W;
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.Z * z.P * z.Q;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto out = voxel_of<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, z.Z, z.P, z.Q);
    const T* volume = x + out.start(z.C, D * H * W);
    const Index deep = out.d * z.stride_d - z.pad_d, top = out.h * z.stride_v - z.pad_v;
    const Index left = out.w * z.stride_h - z.pad_h;
    const Range<Index> planes = taps_inside<Index>(deep, z.T, z.dilation_d, D);
    const Range<Index> rows = taps_inside<Index>(top, z.R, z.dilation_v, H);
    const Range<Index> columns = taps_inside<Index>(left, z.S, z.dilation_h, W);
    Sum<T> best = 0;
    int place = -1;  // nothing seen yet
    for (Index t = planes.first; t < planes.end; ++t) {
      for (Index r = rows.first; r < rows.end; ++r) {
        const Index row = ((deep + t * z.dilation_d) * H + top + r * z.dilation_v) * W + left;
        const int first = (static_cast<int>(t) * z.R + static_cast<int>(r)) * z.S;
        for (Index s = columns.first; s < columns.end; ++s) {
          const Sum<T> value = widen(volume[(row + s * z.dilation_h) * step]);
          if (place < 0 || wins(value, best)) {
            best = value;
            place = first + static_cast<int>(s);
          }
        }
      }
    }
    y[i] = narrow<T>(best);
    argmax[i] = static_cast<Place>(place);
  }
}

template <typename T, typename Place, bool CHANNELS_LAST, bool DILATED, typename Index>
__global__ void __launch_bounds__(256, 3)
max_pool_volume_backward_direct(const T* __restrict__ dy, const Place* __restrict__ argmax, T* __restrict__ dx,
                                const VolumePoolShape z) {
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.D * z.H * z.W;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto in = voxel_of<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, z.D, z.H, z.W);
    const Index start = in.start(z.C, static_cast<Index>(z.Z) * z.P * z.Q);
    const Range<Index> planes = windows_over<DILATED, Index>(in.d, z.T, z.dilation_d, z.stride_d, z.pad_d, z.Z);
    const Range<Index> rows = windows_over<DILATED, Index>(in.h, z.R, z.dilation_v, z.stride_v, z.pad_v, z.P);
    const Range<Index> columns = windows_over<DILATED, Index>(in.w, z.S, z.dilation_h, z.stride_h, z.pad_h, z.Q);
    Sum<T> sum = 0;
    for (Index o = planes.first; o < planes.end; ++o) {
      const int t = tap_at<DILATED, Index>(in.d + z.pad_d - o * z.stride_d, z.dilation_d);
      if (DILATED && t < 0) continue;
      for (Index p = rows.first; p < rows.end; ++p) {
        const int r = tap_at<DILATED, Index>(in.h + z.pad_v - p * z.stride_v, z.dilation_v);
        if (DILATED && r < 0) continue;
        for (Index q = columns.first; q < columns.end; ++q) {
          const int s = tap_at<DILATED, Index>(in.w + z.pad_h - q * z.stride_h, z.dilation_h);
          if (DILATED && s < 0) continue;
          const int place = (t * z.R + r) * z.S + s;
          const Index at = start + ((o * z.P + p) * z.Q + q) * step;
          if (static_cast<int>(argmax[at]) == place) sum += widen(dy[at]);
        }
      }
    }
    dx[i] = narrow<T>(sum);
  }
}

// NaN equals nothing, so a window whose maximum it is gives none.
template <typename T, bool SPLIT, bool CHANNELS_LAST, bool DILATED, typename Index>
__global__ void __launch_bounds__(256, 2)
max_pool_volume_backward_ties_direct(const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ y,
                                     T* __restrict__ dx, const VolumePoolShape z) {
  const Index D = z.D, H = z.H, W = z.W;
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.D * z.H * z.W;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto in = voxel_of<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, D, H, W);
    const Index windows = in.start(z.C, static_cast<Index>(z.Z) * z.P * z.Q), volume = in.start(z.C, D * H * W);
    const Range<Index> planes = windows_over<DILATED, Index>(in.d, z.T, z.dilation_d, z.stride_d, z.pad_d, z.Z);
    const Range<Index> rows = windows_over<DILATED, Index>(in.h, z.R, z.dilation_v, z.stride_v, z.pad_v, z.P);
    const Range<Index> columns = windows_over<DILATED, Index>(in.w, z.S, z.dilation_h, z.stride_h, z.pad_h, z.Q);
    const Sum<T> value = widen(x[i]);
    Sum<T> sum = 0;
    for (Index o = planes.first; o < planes.end; ++o) {
      if (DILATED && tap_at<DILATED, Index>(in.d + z.pad_d - o * z.stride_d, z.dilation_d) < 0) continue;
      for (Index p = rows.first; p < rows.end; ++p) {
        if (DILATED && tap_at<DILATED, Index>(in.h + z.pad_v - p * z.stride_v, z.dilation_v) < 0) continue;
        for (Index q = columns.first; q < columns.end; ++q) {
          if (DILATED && tap_at<DILATED, Index>(in.w + z.pad_h - q * z.stride_h, z.dilation_h) < 0) continue;
          const Index at = windows + ((o * z.P + p) * z.Q + q) * step;
          if (widen(y[at]) != value) continue;
          Sum<T> share = widen(dy[at]);
          if (SPLIT) {
            const Index deep = o * z.stride_d - z.pad_d, top = p * z.stride_v - z.pad_v;
            const Index left = q * z.stride_h - z.pad_h, back = DILATED ? z.dilation_d : 1;
            const Index down = DILATED ? z.dilation_v : 1, across = DILATED ? z.dilation_h : 1;
            const Range<Index> far = pixels_under<DILATED, Index>(deep, z.T, back, D);
            const Range<Index> high = pixels_under<DILATED, Index>(top, z.R, down, H);
            const Range<Index> wide = pixels_under<DILATED, Index>(left, z.S, across, W);
            int count = 0;
            for (Index d = far.first; d < far.end; d += back) {
              for (Index h = high.first; h < high.end; h += down) {
                for (Index w = wide.first; w < wide.end; w += across) {
                  count += widen(x[volume + ((d * H + h) * W + w) * step]) == value;
                }
              }
            }
            share /= count;
          }
          sum += share;
        }
      }
    }
    dx[i] = narrow<T>(sum);
  }
}

template <typename T, bool CHANNELS_LAST, bool COUNT_PAD, typename Index>
__global__ void __launch_bounds__(256, 3)
average_pool_volume_forward_direct(const T* __restrict__ x, T* __restrict__ y, const VolumePoolShape z) {
  const Index D = z.D, H = z.H, W = z.W;
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.Z * z.P * z.Q;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto out = voxel_of<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, z.Z, z.P, z.Q);
    const T* volume = x + out.start(z.C, D * H * W);
    const Index deep = out.d * z.stride_d - z.pad_d, top = out.h * z.stride_v - z.pad_v;
    const Index left = out.w * z.stride_h - z.pad_h;
    const Range<Index> planes = taps_inside<Index>(deep, z.T, z.dilation_d, D);
    const Range<Index> rows = taps_inside<Index>(top, z.R, z.dilation_v, H);
    const Range<Index> columns = taps_inside<Index>(left, z.S, z.dilation_h, W);
    Sum<T> sum = 0;
    for (Index t = planes.first; t < planes.end; ++t) {
      for (Index r = rows.first; r < rows.end; ++r) {
        const Index row = ((deep + t * z.dilation_d) * H + top + r * z.dilation_v) * W + left;
        for (Index s = columns.first; s < columns.end; ++s) sum += widen(volume[(row + s * z.dilation_h) * step]);
      }
    }
    const Index far = COUNT_PAD ? taps_before<Index>(deep, z.T, z.dilation_d, D + z.behind_d) : planes.end - planes.first;
    const Index high = COUNT_PAD ? taps_before<Index>(top, z.R, z.dilation_v, H + z.behind_v) : rows.end - rows.first;
    const Index wide =
        COUNT_PAD ? taps_before<Index>(left, z.S, z.dilation_h, W + z.behind_h) : columns.end - columns.first;
    y[i] = narrow<T>(sum / (static_cast<Sum<T>>(far) * static_cast<Sum<T>>(high) * static_cast<Sum<T>>(wide)));
  }
}

template <typename T, bool CHANNELS_LAST, bool COUNT_PAD, bool DILATED, typename Index>
__global__ void __launch_bounds__(256, 3)
average_pool_volume_backward_direct(const T* __restrict__ dy, T* __restrict__ dx, const VolumePoolShape z) {
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.D * z.H * z.W;
  const Sum<T> whole = 1 / (static_cast<Sum<T>>(z.T) * z.R * z.S);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto in = voxel_of<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, z.D, z.H, z.W);
    const T* gradients = dy + in.start(z.C, static_cast<Index>(z.Z) * z.P * z.Q);
    const Range<Index> planes = windows_over<DILATED, Index>(in.d, z.T, z.dilation_d, z.stride_d, z.pad_d, z.Z);
    const Range<Index> rows = windows_over<DILATED, Index>(in.h, z.R, z.dilation_v, z.stride_v, z.pad_v, z.P);
    const Range<Index> columns = windows_over<DILATED, Index>(in.w, z.S, z.dilation_h, z.stride_h, z.pad_h, z.Q);
    Sum<T> sum = 0;
    for (Index o = planes.first; o < planes.end; ++o) {
      const Index deep = o * z.stride_d - z.pad_d;
      if (DILATED && tap_at<DILATED, Index>(in.d - deep, z.dilation_d) < 0) continue;
      const Index back = counted<DILATED, COUNT_PAD, Index>(deep, z.T, z.dilation_d, z.D, z.behind_d);
      for (Index p = rows.first; p < rows.end; ++p) {
        const Index top = p * z.stride_v - z.pad_v;
        if (DILATED && tap_at<DILATED, Index>(in.h - top, z.dilation_v) < 0) continue;
        const Index down = counted<DILATED, COUNT_PAD, Index>(top, z.R, z.dilation_v, z.H, z.behind_v);
        for (Index q = columns.first; q < columns.end; ++q) {
          const Index left = q * z.stride_h - z.pad_h;
          if (DILATED && tap_at<DILATED, Index>(in.w - left, z.dilation_h) < 0) continue;
          const Index across = counted<DILATED, COUNT_PAD, Index>(left, z.S, z.dilation_h, z.W, z.behind_h);
          Sum<T> share = whole;
          if (!COUNT_PAD || back != z.T || down != z.R || across != z.S) {
            share = 1 / (static_cast<Sum<T>>(back) * static_cast<Sum<T>>(down) * static_cast<Sum<T>>(across));
          }
          sum += widen(gradients[((o * z.P + p) * z.Q + q) * step]) * share;
        }
      }
    }
    dx[i] = narrow<T>(sum);
  }
}
