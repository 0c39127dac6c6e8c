// Access patterns whose cost is known in advance.
__device__ __forceinline__ int thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void copy(const float* a, float* b) { b[thread()] = a[thread()]; }
__global__ void copy_float4(const float4* a, float4* b) { b[thread()] = a[thread()]; }
__global__ void copy_every(const float* a, float* b, int stride) { b[thread()] = a[thread() * stride]; }
__global__ void copy_shifted(const float* a, float* b) { b[thread()] = a[thread() + 1]; }
__global__ void broadcast(const float* a, float* b) { b[thread()] = a[blockIdx.x]; }

template <int PADDING>
__global__ void transpose(const float* a, float* b) {
  __shared__ float tile[32][32 + PADDING];
  for (int y = threadIdx.y; y < 32; y += 8) tile[y][threadIdx.x] = a[y * 32 + threadIdx.x];
  __syncthreads();
  for (int y = threadIdx.y; y < 32; y += 8) b[y * 32 + threadIdx.x] = tile[threadIdx.x][y];
}

__global__ void shared_every(float* b, int stride) {
  __shared__ float words[1024];
  for (int i = threadIdx.x; i < 1024; i += 32) words[i] = i;
  __syncthreads();
  b[threadIdx.x] = words[threadIdx.x * stride & 1023];
}
// Lanes t and t ^ bit, a power of 2, read the same pack; none do with bit = 32.
template <typename T>
__global__ void shared_pack(T* b, int bit) {
  __shared__ T words[32];
  words[threadIdx.x] = b[threadIdx.x];
  __syncthreads();
  b[threadIdx.x] = words[threadIdx.x % bit + threadIdx.x / (2 * bit) * bit];
}
