// Mean and inverse standard deviation of each channel of an NCHW array; one block per channel.
// Warp shuffles, then one value per warp through shared memory.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_down_sync(0xffffffffu, v, offset);
  return v;
}

__global__ void batchnorm_statistics(const float* __restrict__ x, float* __restrict__ mean, float* __restrict__ invstd,
                                     int N, int C, int HW, float eps) {
  __shared__ float sums[32], squares[32];
  const int c = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  float a = 0.0f, b = 0.0f;
  for (int i = threadIdx.x; i < N * HW; i += blockDim.x) {
    const float v = x[(i / HW * C + c) * HW + i % HW];
    a += v;
    b += v * v;
  }
  a = warp_sum(a);
  b = warp_sum(b);
  if (lane == 0) {
    sums[warp] = a;
    squares[warp] = b;
  }
  __syncthreads();  // every warp's sums are there
  if (warp == 0) {
    a = lane < warps ? sums[lane] : 0.0f;
    b = lane < warps ? squares[lane] : 0.0f;
    a = warp_sum(a);
    b = warp_sum(b);
    if (lane == 0) {
      const float m = a / (N * HW), variance = b / (N * HW) - m * m;
      mean[c] = m;
      invstd[c] = rsqrtf(max(variance, 0.0f) + eps);
    }
  }
}
