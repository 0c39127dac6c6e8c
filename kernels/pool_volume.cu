// Max and average pooling of volumes, and the gradients.
//
//   y[n,c,o,p,q]   = the first NaN of the window, or else its first maximum, plane by plane in row order; padding takes no
//                    part          argmax = its place (t R + r) S + s in the window
//   dx[n,c,d,i,j]  = sum over the windows (o,p,q) whose winner is (d,i,j) of dy[n,c,o,p,q]; ties: over those with
//                    x[n,c,d,i,j] = y[n,c,o,p,q], with SPLIT divided by the number of such pixels in the window
//   average:  y    = sum of the real pixels under the window / their number, or with COUNT_PAD / (T R S)
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

// Window (o, p, q) begins at plane o stride - pad, and at row and column likewise, and is T x R x S.
struct VolumePoolShape {
  int N, C, D, H, W, T, R, S, Z, P, Q;
  int stride_d, stride_v, stride_h, pad_d, pad_v, pad_h;
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

// The pixels of the image that lie under a window along one axis, which begins at `start`.
template <typename Index>
__device__ __forceinline__ Range<Index> pixels_under(Index start, Index window, Index size) {
  return {max(start, Index(0)), min(start + window, size)};
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
    const Range<Index> planes = pixels_under<Index>(deep, z.T, D), rows = pixels_under<Index>(top, z.R, H);
    const Range<Index> columns = pixels_under<Index>(left, z.S, W);
    Sum<T> best = 0;
    int place = -1;  // nothing seen yet
    for (Index d = planes.first; d < planes.end; ++d) {
      for (Index h = rows.first; h < rows.end; ++h) {
        const int row = (static_cast<int>(d - deep) * z.R + static_cast<int>(h - top)) * z.S;
        for (Index w = columns.first; w < columns.end; ++w) {
          const Sum<T> value = widen(volume[((d * H + h) * W + w) * step]);
          if (place < 0 || wins(value, best)) {
            best = value;
            place = row + static_cast<int>(w - left);
          }
        }
      }
    }
    y[i] = narrow<T>(best);
    argmax[i] = static_cast<Place>(place);
  }
}

template <typename T, typename Place, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 3)
max_pool_volume_backward_direct(const T* __restrict__ dy, const Place* __restrict__ argmax, T* __restrict__ dx,
                                const VolumePoolShape z) {
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.D * z.H * z.W;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto in = voxel_of<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, z.D, z.H, z.W);
    const Index start = in.start(z.C, static_cast<Index>(z.Z) * z.P * z.Q);
    const Range<Index> planes = windows_over<Index>(in.d, z.T, z.stride_d, z.pad_d, z.Z);
    const Range<Index> rows = windows_over<Index>(in.h, z.R, z.stride_v, z.pad_v, z.P);
    const Range<Index> columns = windows_over<Index>(in.w, z.S, z.stride_h, z.pad_h, z.Q);
    Sum<T> sum = 0;
    for (Index o = planes.first; o < planes.end; ++o) {
      const int plane = static_cast<int>(in.d + z.pad_d - o * z.stride_d) * z.R;
      for (Index p = rows.first; p < rows.end; ++p) {
        const int row = (plane + static_cast<int>(in.h + z.pad_v - p * z.stride_v)) * z.S;
        for (Index q = columns.first; q < columns.end; ++q) {
          const int place = row + static_cast<int>(in.w + z.pad_h - q * z.stride_h);
          const Index at = start + ((o * z.P + p) * z.Q + q) * step;
          if (static_cast<int>(argmax[at]) == place) sum += widen(dy[at]);
        }
      }
    }
    dx[i] = narrow<T>(sum);
  }
}

// NaN equals nothing, so a window whose maximum it is gives none.
template <typename T, bool SPLIT, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 2)
max_pool_volume_backward_ties_direct(const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ y,
                                     T* __restrict__ dx, const VolumePoolShape z) {
  const Index D = z.D, H = z.H, W = z.W;
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.D * z.H * z.W;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto in = voxel_of<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, D, H, W);
    const Index windows = in.start(z.C, static_cast<Index>(z.Z) * z.P * z.Q), volume = in.start(z.C, D * H * W);
    const Range<Index> planes = windows_over<Index>(in.d, z.T, z.stride_d, z.pad_d, z.Z);
    const Range<Index> rows = windows_over<Index>(in.h, z.R, z.stride_v, z.pad_v, z.P);
    const Range<Index> columns = windows_over<Index>(in.w, z.S, z.stride_h, z.pad_h, z.Q);
    const Sum<T> value = widen(x[i]);
    Sum<T> sum = 0;
    for (Index o = planes.first; o < planes.end; ++o) {
      for (Index p = rows.first; p < rows.end; ++p) {
        for (Index q = columns.first; q < columns.end; ++q) {
          const Index at = windows + ((o * z.P + p) * z.Q + q) * step;
          if (widen(y[at]) != value) continue;
          Sum<T> share = widen(dy[at]);
          if (SPLIT) {
            const Range<Index> deep = pixels_under<Index>(o * z.stride_d - z.pad_d, z.T, D);
            const Range<Index> down = pixels_under<Index>(p * z.stride_v - z.pad_v, z.R, H);
            const Range<Index> across = pixels_under<Index>(q * z.stride_h - z.pad_h, z.S, W);
            int count = 0;
            for (Index d = deep.first; d < deep.end; ++d) {
              for (Index h = down.first; h < down.end; ++h) {
                for (Index w = across.first; w < across.end; ++w) {
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
__global__ void __launch_bounds__(256, 4)
average_pool_volume_forward_direct(const T* __restrict__ x, T* __restrict__ y, const VolumePoolShape z) {
  const Index D = z.D, H = z.H, W = z.W;
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.Z * z.P * z.Q;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto out = voxel_of<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, z.Z, z.P, z.Q);
    const T* volume = x + out.start(z.C, D * H * W);
    const Range<Index> planes = pixels_under<Index>(out.d * z.stride_d - z.pad_d, z.T, D);
    const Range<Index> rows = pixels_under<Index>(out.h * z.stride_v - z.pad_v, z.R, H);
    const Range<Index> columns = pixels_under<Index>(out.w * z.stride_h - z.pad_h, z.S, W);
    Sum<T> sum = 0;
    for (Index d = planes.first; d < planes.end; ++d) {
      for (Index h = rows.first; h < rows.end; ++h) {
        for (Index w = columns.first; w < columns.end; ++w) sum += widen(volume[((d * H + h) * W + w) * step]);
      }
    }
    const Sum<T> count = COUNT_PAD ? static_cast<Sum<T>>(z.T) * z.R * z.S
                                   : static_cast<Sum<T>>(planes.end - planes.first) *
                                         static_cast<Sum<T>>(rows.end - rows.first) *
                                         static_cast<Sum<T>>(columns.end - columns.first);
    y[i] = narrow<T>(sum / count);
  }
}

template <typename T, bool CHANNELS_LAST, bool COUNT_PAD, typename Index>
__global__ void __launch_bounds__(256, 3)
average_pool_volume_backward_direct(const T* __restrict__ dy, T* __restrict__ dx, const VolumePoolShape z) {
  const Index step = CHANNELS_LAST ? z.C : 1;
  const long long total = static_cast<long long>(z.N) * z.C * z.D * z.H * z.W;
  const Sum<T> whole = 1 / (static_cast<Sum<T>>(z.T) * z.R * z.S);
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const auto in = voxel_of<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, z.D, z.H, z.W);
    const T* gradients = dy + in.start(z.C, static_cast<Index>(z.Z) * z.P * z.Q);
    const Range<Index> planes = windows_over<Index>(in.d, z.T, z.stride_d, z.pad_d, z.Z);
    const Range<Index> rows = windows_over<Index>(in.h, z.R, z.stride_v, z.pad_v, z.P);
    const Range<Index> columns = windows_over<Index>(in.w, z.S, z.stride_h, z.pad_h, z.Q);
    Sum<T> sum = 0;
    for (Index o = planes.first; o < planes.end; ++o) {
      const Range<Index> deep = pixels_under<Index>(o * z.stride_d - z.pad_d, z.T, z.D);
      for (Index p = rows.first; p < rows.end; ++p) {
        const Range<Index> down = pixels_under<Index>(p * z.stride_v - z.pad_v, z.R, z.H);
        for (Index q = columns.first; q < columns.end; ++q) {
          Sum<T> share = whole;
          if (!COUNT_PAD) {
            const Range<Index> across = pixels_under<Index>(q * z.stride_h - z.pad_h, z.S, z.W);
            share = 1 / (static_cast<Sum<T>>(deep.end - deep.first) * static_cast<Sum<T>>(down.end - down.first) *
                         static_cast<Sum<T>>(across.end - across.first));
          }
          sum += widen(gradients[((o * z.P + p) * z.Q + q) * step]) * share;
        }
      }
    }
    dx[i] = narrow<T>(sum);
  }
}
