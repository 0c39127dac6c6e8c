// A spread of CUDA's features, one small kernel each.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

struct Shape {
  int n, c, h, w;
  float scale;
  long long stride;
};
__constant__ float taps[4] = {0.25f, 0.5f, -1.0f, 2.0f};

__global__ void half_pairs(const __half2* a, const __half2* b, __half2* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = __hfma2(a[i], b[i], __hadd2(a[i], b[i]));
}
__global__ void halves(const __half* a, __half* y, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const __half v = a[i];
    y[i] = __float2half(__half2float(v) * 2.0f) + v * v;
  }
}
__device__ __forceinline__ float gelu(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}
__global__ void bfloats(const __nv_bfloat16* a, float* y, __nv_bfloat16* z, int n) {
  const int i = threadIdx.x;
  if (i >= n) return;
  const float v = __bfloat162float(a[i]);
  y[i] = gelu(v);
  z[i] = __float2bfloat16(v * 1.5f);
}

// A struct by value, 64-bit indices, bytes.
__global__ void max_pool(const float* __restrict__ x, float* __restrict__ y, unsigned char* __restrict__ where,
                         Shape s) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const int oh = s.h / 2, ow = s.w / 2;
  if (i >= (long long)s.n * s.c * oh * ow) return;
  const int ox = i % ow, oy = i / ow % oh;
  const long long plane = i / ((long long)ow * oh);
  float best = __int_as_float(0xff800000);
  int at = 0;
#pragma unroll
  for (int d = 0; d < 4; d++) {
    const float v = x[plane * s.stride + (oy * 2 + d / 2) * s.w + ox * 2 + d % 2];
    if (v > best) {
      best = v;
      at = d;
    }
  }
  y[i] = best * s.scale;
  where[i] = (unsigned char)at;
}
__global__ void bytes(const unsigned char* x, signed char* y, unsigned short* z, int n) {
  const int i = threadIdx.x;
  if (i >= n) return;
  y[i] = (signed char)(x[i] >> 1) - 64;
  z[i] = (unsigned short)(x[i] * 257);
}

__global__ void histogram(const int* x, int* counts, int n, int bins) {
  extern __shared__ int mine[];
  for (int i = threadIdx.x; i < bins; i += blockDim.x) mine[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&mine[x[i]], 1);
  __syncthreads();
  for (int i = threadIdx.x; i < bins; i += blockDim.x)
    if (mine[i]) atomicAdd(&counts[i], mine[i]);
}
__global__ void votes(const int* x, unsigned* ballots, int* counts, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned ballot = __ballot_sync(0xffffffffu, i < n && x[i] > 3);
  if ((threadIdx.x & 31) == 0) {
    ballots[i / 32] = ballot;
    counts[i / 32] = __popc(ballot) + 100 * __clz(ballot);
  }
}
__global__ void block_votes(const int* x, int* y) {
  const int v = x[threadIdx.x];
  const int trues = __syncthreads_count(v > 3), any = __syncthreads_or(v > 8), all = __syncthreads_and(v > -9);
  y[threadIdx.x] = trues * 4 + (any != 0) * 2 + (all != 0);
}
__global__ void warp_reductions(const int* x, int* y) {
  const int v = x[threadIdx.x];
  y[threadIdx.x] = __reduce_add_sync(0xffffffffu, v) * 100 + __reduce_max_sync(0xffffffffu, v) * 10 +
                   __reduce_min_sync(0xffffffffu, v);
}
// Inclusive sums within each block.
__global__ void scan(const int* x, int* y) {
  __shared__ int sums[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int v = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int d = 1; d < 32; d <<= 1) {
    const int before = __shfl_up_sync(0xffffffffu, v, d);
    if (lane >= d) v += before;
  }
  if (lane == 31) sums[warp] = v;
  __syncthreads();
  if (warp == 0) {
    int t = lane < blockDim.x / 32 ? sums[lane] : 0;
    for (int d = 1; d < 32; d <<= 1) {
      const int before = __shfl_up_sync(0xffffffffu, t, d);
      if (lane >= d) t += before;
    }
    sums[lane] = t;
  }
  __syncthreads();
  y[blockIdx.x * blockDim.x + threadIdx.x] = v + (warp ? sums[warp - 1] : 0);
}

// A local array that is indexed by a variable.
__global__ void local_array(const float* x, const int* order, float* y, int n) {
  float v[8];
  for (int k = 0; k < 8; k++) v[k] = x[threadIdx.x * 8 + k];
  for (int k = 0; k < n; k++) v[order[k] & 7] += v[(order[k] + 3) & 7];
  y[threadIdx.x] = v[order[0] & 7];
}
__global__ void functions(const int* which, const float* a, float* y) {
  const int i = threadIdx.x;
  float x = a[i];
  switch (which[i]) {
    case 0:
      x = x + 1;
      break;
    case 1:
      x = x * 3;
      break;
    case 2:
      x = expf(x);
      break;
    case 3:
      x = logf(fabsf(x) + 1);
      break;
    case 4:
      x = sqrtf(fabsf(x));
      break;
    case 5:
      x = floorf(x);
      break;
    case 6:
      x = (float)(int)x;
      break;
    case 7:
      x = taps[i & 3];
      break;
    case 8:
      x = __expf(x);
      break;
    default:
      x = 1.0f / x;
  }
  y[i] = x;
}
__global__ void doubles(const double* a, double* y, float* z, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += a[i] * a[(i + threadIdx.x) % n];
  y[threadIdx.x] = sum / n;
  z[threadIdx.x] = (float)sqrt(fabs(sum));
}
// 64-bit products, rotations, bit counts.
__global__ void wide_integers(const unsigned long long* x, unsigned long long* y) {
  const unsigned long long v = x[threadIdx.x], high = __umul64hi(v, 0xd2e7470ee14c6c93ull);
  const unsigned low = (unsigned)v;
  y[threadIdx.x] = (high ^ (v << 7 | v >> 57)) + __popcll(v) + __clzll(v) + __funnelshift_l(low, low, 5);
}

// The block that finishes last adds up what all have left, ordered by a fence and a counter.
__global__ void last_block(const float* x, float* parts, unsigned* finished, float* y, int n) {
  __shared__ float sums[128];
  __shared__ bool last;
  float v = 0;
  for (int i = blockIdx.x * 128 + threadIdx.x; i < n; i += gridDim.x * 128) v += x[i];
  sums[threadIdx.x] = v;
  __syncthreads();
  for (int half = 64; half > 0; half >>= 1) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = sums[0];
    __threadfence();
    last = atomicInc(finished, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float total = 0;
    for (int i = 0; i < (int)gridDim.x; i++) total += ((volatile float*)parts)[i];
    *y = total;
  }
}
