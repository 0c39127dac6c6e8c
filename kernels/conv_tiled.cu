// 2-D convolution and its gradients as products of matrices: the kernels of conv_tiled.cuh for images.
//
// The sums are those of conv.cu, which has the formulas, packs the filters and adds the slices of dw in order.
//
// Layout: images are (N, C, H, W) or, with CHANNELS_LAST, (N, H, W, C), without gaps; w is (K, C / groups, R, S).
// Sums are kept in Sum<T>.
//
//   kernel                       | one block per                      | when
//   conv_forward_tiled           | tile of pixels x filters           | 8 channels a group or more
//   conv_forward_few             | the same                           | fewer channels: taps and channels mixed
//   conv_backward_data_tiled     | tile of pixels x channels          | 8 filters a group or more
//   conv_backward_weight_tiled   | tile of dw and slice of the pixels | 16 filters a group or more
//
// WIDE, WIDE_DY, WIDE_X: packs of 4 channels are aligned, and steps hold whole ones; the launcher knows address and sizes.
//
// Each of them wants 16 columns of its result or more, and images that 32 bits can count; else the plain kernel runs.
// Launchers: gpuconv/cuda/conv.py.
#include "conv_tiled.cuh"

template <typename T, bool CHANNELS_LAST, bool WIDE, bool RELU, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_forward_tiled(const T* __restrict__ x, const Sum<T>* __restrict__ packed, const T* __restrict__ b,
                   T* __restrict__ y, const ConvShape z) {
  forward_tile<false, CHANNELS_LAST, WIDE, RELU, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>(x, packed, b, y, z);
}

template <typename T, bool CHANNELS_LAST, bool RELU, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_forward_few(const T* __restrict__ x, const Sum<T>* __restrict__ packed, const T* __restrict__ b, T* __restrict__ y,
                 const ConvShape z) {
  forward_tile<true, CHANNELS_LAST, false, RELU, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>(x, packed, b, y, z);
}

// blockIdx.y: phase of the stride.  special: what conv_pack_filters found.
template <typename T, bool CHANNELS_LAST, bool WIDE, int PIXELS, int FILTERS, int HEIGHT, int WIDTH, int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_backward_data_tiled(const T* __restrict__ dy, const Sum<T>* __restrict__ packed, const T* __restrict__ b,
                         T* __restrict__ dx,
                         const ConvShape z, const T* __restrict__ w, const int* __restrict__ special, int specials,
                         int tap_step_v, int tap_step_h) {
  data_tile<CHANNELS_LAST, WIDE, PIXELS, FILTERS, HEIGHT, WIDTH, DEPTH>(dy, packed, b, dx, z, w, special, specials, 1, tap_step_v,
                                                                  tap_step_h);
}

// partial: (slices, K, R S, C / groups), slice = blockIdx.y over the pixels [slice length, (slice + 1) length) of all images
template <typename T, bool CHANNELS_LAST, bool WIDE_DY, bool WIDE_X, int FILTERS, int COLUMNS, int HEIGHT, int WIDTH,
          int DEPTH>
__global__ void __launch_bounds__(256, 2)
conv_backward_weight_tiled(const T* __restrict__ dy, const T* __restrict__ x, Sum<T>* __restrict__ partial,
                           const ConvShape z, long long length) {
  weight_tile<CHANNELS_LAST, WIDE_DY, WIDE_X, FILTERS, COLUMNS, HEIGHT, WIDTH, DEPTH>(dy, x, partial, z, length);
}
