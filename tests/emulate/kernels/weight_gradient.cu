// Weight gradient of a convolution, NCHW, stride 1, "same" padding:
//   dw[k, c, r, s] += sum over n, p, q of dy[n, k, p, q] x[n, c, p + r - R/2, q + s - S/2]
// One warp per weight; images are divided among blockIdx.z, whose sums meet in dw by atomics.  dw is zero on entry.
__global__ void weight_gradient(const float* __restrict__ x, const float* __restrict__ dy, float* __restrict__ dw, int N,
                                int C, int H, int W, int K, int R, int S, int images) {
  const int weight = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
  if (weight >= K * C * R * S) return;  // whole warps leave
  const int s = weight % S, r = weight / S % R, c = weight / (S * R) % C, k = weight / (S * R * C);
  const int first = blockIdx.z * images, end = min(N, first + images);
  float sum = 0.0f;
  for (int n = first; n < end; n++)
    for (int i = lane; i < H * W; i += 32) {
      const int p = i / W, q = i % W, iy = p + r - R / 2, ix = q + s - S / 2;
      if (iy >= 0 && iy < H && ix >= 0 && ix < W)
        sum += dy[((n * K + k) * H + p) * W + q] * x[((n * C + c) * H + iy) * W + ix];
    }
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (lane == 0) atomicAdd(&dw[weight], sum);
}
