// 3-D convolution and its gradients as products of matrices: the kernels of conv_tiled.cuh for volumes.
//
// The sums are those of conv_volume.cu, which has the formulas.  conv.cu packs the filters, whose T R rows of S taps it
// takes for those of images, and adds the slices of dw in order.
//
// Layout: volumes are (N, C, D, H, W) or, with CHANNELS_LAST, (N, D, H, W, C), without gaps; w is
// (K, C / groups, T, R, S).  Sums are kept in Sum<T>.
//
//   kernel                              | one block per                      | when
//   conv_volume_forward_tiled           | tile of voxels x filters           | 8 channels a group or more
//   conv_volume_forward_few             | the same                           | fewer channels: taps and channels mixed
//   conv_volume_backward_data_tiled     | tile of voxels x channels          | 8 filters a group or more
//   conv_volume_backward_weight_tiled   | tile of dw and slice of the voxels | 16 filters a group or more
//
// WIDE, WIDE_DY, WIDE_X: packs of 4 channels are aligned, and steps hold whole ones; the launcher knows address and sizes.
//
// Each of them wants 16 columns of its result or more, and volumes that 32 bits can count; else the plain kernel runs.
// Launchers: gpuconv/cuda/conv_volume.py.
#include "conv_tiled.cuh"

template <typename T, bool CHANNELS_LAST, bool WIDE, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_volume_forward_tiled(const T* __restrict__ x, const Sum<T>* __restrict__ packed, const T* __restrict__ b,
                          T* __restrict__ y, const VolumeConvShape z) {
  forward_tile<false, CHANNELS_LAST, WIDE, false, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>(x, packed, b, y, z);
}

template <typename T, bool CHANNELS_LAST, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_volume_forward_few(const T* __restrict__ x, const Sum<T>* __restrict__ packed, const T* __restrict__ b,
                        T* __restrict__ y, const VolumeConvShape z) {
  forward_tile<true, CHANNELS_LAST, false, false, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>(x, packed, b, y, z);
}

// blockIdx.y: phase of the stride in rows and columns, blockIdx.z: in depth.  special: what conv_pack_filters found.
template <typename T, bool CHANNELS_LAST, bool WIDE, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_volume_backward_data_tiled(const T* __restrict__ dy, const Sum<T>* __restrict__ packed, const T* __restrict__ b,
                                T* __restrict__ dx,
                                const VolumeConvShape z, const T* __restrict__ w, const int* __restrict__ special,
                                int specials, int tap_step_d, int tap_step_v, int tap_step_h) {
  data_tile<CHANNELS_LAST, WIDE, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>(dy, packed, b, dx, z, w, special, specials, tap_step_d,
                                                                  tap_step_v, tap_step_h);
}

// partial: (slices, K, T R S, C / groups), slice = blockIdx.y over the voxels [slice length, (slice + 1) length) of all
// volumes
template <typename T, bool CHANNELS_LAST, bool WIDE_DY, bool WIDE_X, int FILTERS, int COLUMNS, int HEIGHT, int WIDTH,
          int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_volume_backward_weight_tiled(const T* __restrict__ dy, const T* __restrict__ x, Sum<T>* __restrict__ partial,
                                  const VolumeConvShape z, long long length) {
  weight_tile<CHANNELS_LAST, WIDE_DY, WIDE_X, FILTERS, COLUMNS, HEIGHT, WIDTH, DEPTH>(dy, x, partial, z, length);
}
