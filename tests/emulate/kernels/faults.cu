// One small kernel per class of fault.
__global__ void local_array(const float* x, float* y, int n) {
  float a[4];
  for (int i = 0; i <= n; i++) a[i] = x[i];
  y[threadIdx.x] = a[threadIdx.x & 3];
}
__global__ void shared_index(float* y, int n) {
  __shared__ float a[8][33];
  __shared__ float b[64];
  b[threadIdx.x & 63] = 0.0f;
  a[threadIdx.x & 7][n] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = a[0][0];
}
__global__ void shared_pointer(float* y, int n) {
  __shared__ float a[64];
  __shared__ float b[64];
  float* p = a;
  b[threadIdx.x & 63] = 0.0f;
  __syncthreads();
  if (threadIdx.x == 0) p[n] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = b[0];
}
__global__ void dynamic_shared(float* y, int n) {
  extern __shared__ float a[];
  a[threadIdx.x] = 1.0f;
  if (threadIdx.x == 0) a[n] = 2.0f;
  __syncthreads();
  y[threadIdx.x] = a[threadIdx.x ^ 1];
}
__global__ void misaligned(const float* x, float4* y, int offset) {
  y[threadIdx.x] = *reinterpret_cast<const float4*>(x + offset + 4 * threadIdx.x);
}
__global__ void write_to_const(const float* x, float* y) {
  const_cast<float*>(x)[threadIdx.x] = 1.0f;
  y[threadIdx.x] = 0.0f;
}
__global__ void read_at(const float* x, float* y, int n) { y[threadIdx.x] = threadIdx.x == 0 ? x[n] * 0.0f : x[0]; }
__global__ void write_at(float* y, int n) {
  if (threadIdx.x == 0) y[n] = 3.0f;
}
// Code that relies on the threads of a warp running in step.
template <bool SYNCHRONISED>
__global__ void reverse_in_warp(const float* x, float* y) {
  __shared__ float a[32];
  a[threadIdx.x] = x[threadIdx.x];
  if (SYNCHRONISED) __syncwarp();
  y[threadIdx.x] = a[31 - threadIdx.x];
}
__global__ void endless(int* y) {
  volatile int* flag = y;
  while (flag[0] == 0) {
  }
}
__global__ void early_exit(const float* x, float* y, int n) {
  __shared__ float a[64];
  const int i = threadIdx.x;
  if (i >= n) return;
  a[i] = x[i];
  __syncthreads();
  y[i] = a[(i + 1) % n];
}
__global__ void shift(const int* by, int* y) { y[threadIdx.x] = 1 << by[threadIdx.x]; }
__global__ void divide(const int* by, int* y) { y[threadIdx.x] = 7 / by[threadIdx.x]; }
__global__ void two_barriers(float* y) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  y[threadIdx.x] = 1.0f;
}
__global__ void two_shuffles(float* y) {
  float v = threadIdx.x;
  if (threadIdx.x & 1)
    v = __shfl_xor_sync(0xffffffffu, v, 1);
  else
    v = __shfl_xor_sync(0xffffffffu, v, 1);
  y[threadIdx.x] = v;
}
__global__ void half_a_pair(float2* y) {
  __shared__ float2 a[32];
  a[threadIdx.x].x = 1.0f;
  __syncthreads();
  y[threadIdx.x] = a[31 - threadIdx.x];
}
