// Convolution, NCHW, stride 1, "same" padding.  A block computes 16 x 16 output pixels, a thread KB channels of one;
// the input's tile with its halo lies in static shared memory, the weights in dynamic shared memory.
template <int R, int S, int KB>
__global__ void conv_direct(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ bias,
                            float* __restrict__ y, int C, int H, int W, int K) {
  constexpr int T = 16, TH = T + R - 1, TW = T + S - 1;
  __shared__ float tile[TH][TW + 1];
  extern __shared__ float weights[];  // KB R S
  const int tx = threadIdx.x, ty = threadIdx.y, t = ty * T + tx;
  const int tiles_x = (W + T - 1) / T;
  const int left = blockIdx.x % tiles_x * T, top = blockIdx.x / tiles_x * T;
  const int k0 = blockIdx.y * KB, n = blockIdx.z;
  float sums[KB];
#pragma unroll
  for (int k = 0; k < KB; k++) sums[k] = bias && k0 + k < K ? __ldg(&bias[k0 + k]) : 0.0f;
  for (int c = 0; c < C; c++) {
    for (int i = t; i < TH * TW; i += T * T) {
      const int r = i / TW, s = i % TW, iy = top + r - R / 2, ix = left + s - S / 2;
      const bool inside = iy >= 0 && iy < H && ix >= 0 && ix < W;
      tile[r][s] = inside ? x[((n * C + c) * H + iy) * W + ix] : 0.0f;
    }
    for (int i = t; i < KB * R * S; i += T * T) {
      const int k = k0 + i / (R * S);
      weights[i] = k < K ? w[(k * C + c) * R * S + i % (R * S)] : 0.0f;
    }
    __syncthreads();  // tile and weights are complete
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
      for (int s = 0; s < S; s++) {
        const float v = tile[ty + r][tx + s];
#pragma unroll
        for (int k = 0; k < KB; k++) sums[k] = fmaf(v, weights[(k * R + r) * S + s], sums[k]);
      }
    __syncthreads();  // tile and weights have been read
  }
  const int oy = top + ty, ox = left + tx;
  if (oy < H && ox < W)
#pragma unroll
    for (int k = 0; k < KB; k++)
      if (k0 + k < K) y[((n * K + k0 + k) * H + oy) * W + ox] = sums[k];
}
