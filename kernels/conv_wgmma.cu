// 2-D convolution and its input gradient by warpgroups, compute capability 9.0 alone (sm_90a): float16 and bfloat16.
//
// The sums are those of conv.cu, which has the formulas, kept in float32.  How a block makes its tile: conv_wgmma.cuh.
//
// Layout: images are (N, H, W, C) and filters the same, (K, R, S, C), without gaps and aligned to 16 bytes; channels are
// whole chunks of 16 bytes, where necessary by zeros, but for those of y and dx.  There is one group.
//
//   kernel                   | one block per                    | when
//   conv_forward_wgmma       | tile of pixels x filters         | strides, dilations and windows that the box allows
//   conv_backward_data_wgmma | tile of pixels x channels, phase | the same
//
// Else conv_tensor.cu runs, and on every other GPU.
// Launchers: gpuconv/cuda/conv_wgmma.py.
#include "conv_wgmma.cuh"

// What lies behind the stages, made ready by thread 0; all threads wait for it.
template <bool DATA, int PIXELS, int FILTERS, int DEPTH, int STAGES>
__device__ __forceinline__ Beside<STAGES>& begin_tile(const ConvShape& z, int tap_step_v, int tap_step_h, int lower_v,
                                                      int lower_h) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Beside<STAGES>& beside = *reinterpret_cast<Beside<STAGES>*>(shared + STAGES * (PIXELS + FILTERS) * DEPTH * 2);
  if (threadIdx.x == 0) {
    beside.ring.begin();
    beside.walk = find_walk<DATA>(z, PIXELS, FILTERS, tap_step_v, tap_step_h, lower_v, lower_h);
  }
  __syncthreads();
  return beside;
}

// partial: see Behind of conv_tensor.cuh, without the maxima; null where nobody asks.
template <typename T, bool RELU, int PIXELS, int FILTERS, int DEPTH, int STAGES>
__global__ void __launch_bounds__(288, BLOCKS_OF_WGMMA<PIXELS * FILTERS>)
conv_forward_wgmma(const __grid_constant__ ptx::TensorMap x, const __grid_constant__ ptx::TensorMap w,
                   const T* __restrict__ b, T* __restrict__ y, const ConvShape z, float* __restrict__ partial) {
  Beside<STAGES>& beside = begin_tile<false, PIXELS, FILTERS, DEPTH, STAGES>(z, 1, 1, -z.pad_v, -z.pad_h);
  wgmma_tile<T, false, RELU, PIXELS, FILTERS, DEPTH, STAGES>(x, w, nullptr, nullptr, b, y, z, beside, {},
                                                             partial);
}

// blockIdx.y: phase of the stride.   map_dy, map_w: of dy and w.   b: (C), added to dx; plus, mask: see Plus; null for
// nothing.
template <typename T, int PIXELS, int FILTERS, int DEPTH, int STAGES>
__global__ void __launch_bounds__(288, BLOCKS_OF_WGMMA<PIXELS * FILTERS>)
conv_backward_data_wgmma(const __grid_constant__ ptx::TensorMap map_dy, const __grid_constant__ ptx::TensorMap map_w,
                         const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ b,
                         T* __restrict__ dx, const ConvShape z, int tap_step_v, int tap_step_h, int lower_v, int lower_h,
                         const T* __restrict__ plus, const unsigned char* __restrict__ mask) {
  Beside<STAGES>& beside = begin_tile<true, PIXELS, FILTERS, DEPTH, STAGES>(z, tap_step_v, tap_step_h, lower_v, lower_h);
  wgmma_tile<T, true, false, PIXELS, FILTERS, DEPTH, STAGES>(map_dy, map_w, dy, w, b, dx, z, beside,
                                                             Plus<T>{plus, mask}, nullptr);
}
