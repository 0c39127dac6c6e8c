// 3-D convolution (cross-correlation) of volumes and its gradients: the plain kernels, right for every case.
//
//   y[n,k,o,p,q]  = b[k] + sum over c,t,r,s of x[n,c,d,i,j] w[k,c,t,r,s]      d = o stride - pad + t dilation, i, j likewise
//   dx[n,c,d,i,j] = sum over the k,t,r,s and whole o,p,q that reach (d,i,j) of dy[n,k,o,p,q] w[k,c,t,r,s]
//   dw[k,c,t,r,s] = sum over n,o,p,q of dy[n,k,o,p,q] x[n,c,d,i,j]
//
// In y and dw the padding is the number 0 and takes part in the sums (0 * inf is NaN); dx sums over real outputs only.
// c runs over the C / groups channels of filter k's group.
//
// Layout: volumes are (N, C, D, H, W) or, with CHANNELS_LAST, (N, D, H, W, C), without gaps; w is
// (K, C / groups, T, R, S).  Sums are kept in Sum<T>; Index counts the elements of every array.
//
//   kernel                             | one thread per                        | when
//   conv_volume_forward_direct         | output                                | every case
//   conv_volume_backward_data_direct   | voxel and channel of dx               | every case
//   conv_volume_backward_weight_direct | element of dw and slice of the voxels | every case
//
// db, and the sum over the slices, are those of conv.cu.
// Where there are channels enough, conv_volume_tiled.cu does the same by products of matrices.
// Launchers: gpuconv/cuda/conv_volume.py.
#include "conv_volume.cuh"

template <typename T, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 4)
conv_volume_forward_direct(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b,
                           T* __restrict__ y, const VolumeConvShape z) {
  const Index C = z.C, D = z.D, H = z.H, W = z.W, channels = z.C / z.groups, filters = z.K / z.groups;
  const long long total = static_cast<long long>(z.N) * z.K * z.Z * z.P * z.Q;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Voxel<Index> out = voxel_at<CHANNELS_LAST, Index>(static_cast<Index>(i), z.K, z.Z, z.P, z.Q);
    const Index first = out.c / filters * channels;
    const Index deep = out.d * z.stride_d - z.pad_d, top = out.h * z.stride_v - z.pad_v;
    const Index left = out.w * z.stride_h - z.pad_h;
    const T* tap = w + out.c * channels * z.T * z.R * z.S;
    Sum<T> sum = 0;
    for (Index c = 0; c < channels; ++c) {
      for (int t = 0; t < z.T; ++t) {
        const Index d = deep + static_cast<Index>(t) * z.dilation_d;
        for (int r = 0; r < z.R; ++r) {
          const Index h = top + static_cast<Index>(r) * z.dilation_v;
          const bool in_row = d >= 0 && d < D && h >= 0 && h < H;
          for (int s = 0; s < z.S; ++s) {
            const Index v = left + static_cast<Index>(s) * z.dilation_h;
            const bool inside = in_row && v >= 0 && v < W;
            const Sum<T> voxel =
                inside ? widen(x[voxel_place<CHANNELS_LAST, Index>(out.n, first + c, d, h, v, C, D, H, W)]) : 0;
            sum += voxel * widen(*tap++);
          }
        }
      }
    }
    if (b != nullptr) sum += widen(b[out.c]);
    y[i] = narrow<T>(sum);
  }
}

template <typename T, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 4)
conv_volume_backward_data_direct(const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ dx,
                                 const VolumeConvShape z) {
  const long long total = static_cast<long long>(z.N) * z.C * z.D * z.H * z.W;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Voxel<Index> in = voxel_at<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, z.D, z.H, z.W);
    dx[i] = data_gradient<T, CHANNELS_LAST, Index>(dy, w, b, z, in);
  }
}

// partial: (slices, K, C / groups, T, R, S), slice i over the voxels [i length, (i + 1) length) of all outputs
template <typename T, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 4)
conv_volume_backward_weight_direct(const T* __restrict__ dy, const T* __restrict__ x, Sum<T>* __restrict__ partial,
                                   const VolumeConvShape z, int slices, long long length) {
  const Index C = z.C, D = z.D, H = z.H, W = z.W, K = z.K, Z = z.Z, P = z.P, Q = z.Q;
  const Index channels = z.C / z.groups, filters = z.K / z.groups;
  const long long size = static_cast<long long>(z.K) * channels * z.T * z.R * z.S;
  const long long voxels = static_cast<long long>(z.N) * z.Z * z.P * z.Q;
  for (long long i = thread_index(); i < size * slices; i += thread_count()) {
    const long long begin = i / size * length;
    const Index count = static_cast<Index>(max(0LL, min(length, voxels - begin)));
    Index rest = static_cast<Index>(i % size);
    const Index s = rest % z.S;
    rest /= z.S;
    const Index r = rest % z.R;
    rest /= z.R;
    const Index t = rest % z.T;
    rest /= z.T;
    const Index k = rest / channels, c = k / filters * channels + rest % channels;
    const Index deep = t * z.dilation_d - z.pad_d, down = r * z.dilation_v - z.pad_v;
    const Index right = s * z.dilation_h - z.pad_h;
    Index q = static_cast<Index>(begin % Q), p = static_cast<Index>(begin / Q % P);
    Index o = static_cast<Index>(begin / Q / P % Z), n = static_cast<Index>(begin / Q / P / Z);
    Sum<T> sum = 0;
    for (Index j = 0; j < count; ++j) {
      const Index d = o * z.stride_d + deep, h = p * z.stride_v + down, v = q * z.stride_h + right;
      const bool inside = d >= 0 && d < D && h >= 0 && h < H && v >= 0 && v < W;
      const Sum<T> voxel = inside ? widen(x[voxel_place<CHANNELS_LAST, Index>(n, c, d, h, v, C, D, H, W)]) : 0;
      sum += widen(dy[voxel_place<CHANNELS_LAST, Index>(n, k, o, p, q, K, Z, P, Q)]) * voxel;
      if (++q == Q) {
        q = 0;
        if (++p == P) {
          p = 0;
          if (++o == Z) {
            o = 0;
            ++n;
          }
        }
      }
    }
    partial[i] = sum;
  }
}
