// 2-D convolution (cross-correlation) and its gradients: the plain kernels, right for every case.
//
//   y[n,k,p,q]  = b[k] + sum over c,r,s of x[n,c,i,j] w[k,c,r,s]      i = p stride - pad + r dilation, j likewise
//   dx[n,c,i,j] = sum over the k,r,s and whole p,q that reach (i,j) of dy[n,k,p,q] w[k,c,r,s]
//   dw[k,c,r,s] = sum over n,p,q of dy[n,k,p,q] x[n,c,i,j]            db[k] = sum over n,p,q of dy[n,k,p,q]
//
// In y and dw the padding is the number 0 and takes part in the sums (0 * inf is NaN); dx sums over real outputs only.
// c runs over the C / groups channels of filter k's group.
//
// Layout: images are (N, C, H, W) or, with CHANNELS_LAST, (N, H, W, C), without gaps; w is (K, C / groups, R, S).
// Sums are kept in Sum<T>; Index counts the elements of every array.
//
//   kernel                        | one thread (block) per                     | when
//   conv_forward_direct           | output                                     | every case
//   conv_backward_data_direct     | pixel and channel of dx                    | every case
//   conv_backward_weight_direct   | element of dw and slice of the pixels      | every case
//   conv_backward_sum             | element of dw or db                        | adds the slices in order
//   conv_backward_bias_planar     | (block) filter and slice of the pixels     | dy is NCHW
//   conv_backward_bias_last       | (block) 32 filters and slice of the pixels | dy is channels-last
//   conv_pack_filters             | number of the packed filters               | before a kernel of conv_tiled.cuh
//
// Where there are channels enough, conv_tiled.cu does the same by products of matrices.
// Launchers: gpuconv/cuda/conv.py.
#include "conv.cuh"

template <typename T, bool CHANNELS_LAST, bool RELU, typename Index>
__global__ void __launch_bounds__(256, 4)
conv_forward_direct(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ y,
                    const ConvShape z) {
  const Index C = z.C, H = z.H, W = z.W, channels = z.C / z.groups, filters = z.K / z.groups;
  const long long total = static_cast<long long>(z.N) * z.K * z.P * z.Q;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Pixel<Index> out = pixel_at<CHANNELS_LAST, Index>(static_cast<Index>(i), z.K, z.P, z.Q);
    const Index first = out.c / filters * channels;
    const Index top = out.h * z.stride_v - z.pad_v, left = out.w * z.stride_h - z.pad_h;
    const T* filter = w + out.c * channels * z.R * z.S;
    Sum<T> sum = 0;
    for (Index c = 0; c < channels; ++c) {
      for (int r = 0; r < z.R; ++r) {
        const Index h = top + static_cast<Index>(r) * z.dilation_v;
        for (int s = 0; s < z.S; ++s) {
          const Index v = left + static_cast<Index>(s) * z.dilation_h;
          const bool inside = h >= 0 && h < H && v >= 0 && v < W;
          const Sum<T> pixel = inside ? widen(x[place_of<CHANNELS_LAST, Index>(out.n, first + c, h, v, C, H, W)]) : 0;
          sum += pixel * widen(filter[(c * z.R + r) * z.S + s]);
        }
      }
    }
    if (b != nullptr) sum += widen(b[out.c]);
    if (RELU) sum = sum < 0 ? 0 : sum;
    y[i] = narrow<T>(sum);
  }
}

// b: what a transposed convolution adds to each channel; null for a gradient
template <typename T, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 4)
conv_backward_data_direct(const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ dx,
                          const ConvShape z) {
  const long long total = static_cast<long long>(z.N) * z.C * z.H * z.W;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const Pixel<Index> in = pixel_at<CHANNELS_LAST, Index>(static_cast<Index>(i), z.C, z.H, z.W);
    dx[i] = data_gradient<T, CHANNELS_LAST, Index>(dy, w, b, z, in);
  }
}

// partial: (slices, K, C / groups, R, S), slice i over the pixels [i length, (i + 1) length) of all images
template <typename T, bool CHANNELS_LAST, typename Index>
__global__ void __launch_bounds__(256, 4)
conv_backward_weight_direct(const T* __restrict__ dy, const T* __restrict__ x, Sum<T>* __restrict__ partial,
                            const ConvShape z, int slices, long long length) {
  const Index C = z.C, H = z.H, W = z.W, K = z.K, P = z.P, Q = z.Q;
  const Index channels = z.C / z.groups, filters = z.K / z.groups;
  const long long size = static_cast<long long>(z.K) * channels * z.R * z.S;
  const long long pixels = static_cast<long long>(z.N) * z.P * z.Q;
  for (long long i = thread_index(); i < size * slices; i += thread_count()) {
    const long long slice = i / size, begin = slice * length;
    const Index count = static_cast<Index>(max(0LL, min(length, pixels - begin)));
    Index rest = static_cast<Index>(i % size);
    const Index s = rest % z.S;
    rest /= z.S;
    const Index r = rest % z.R;
    rest /= z.R;
    const Index k = rest / channels, c = k / filters * channels + rest % channels;
    const Index down = r * z.dilation_v - z.pad_v, right = s * z.dilation_h - z.pad_h;
    Index q = static_cast<Index>(begin % Q), p = static_cast<Index>(begin / Q % P), n = static_cast<Index>(begin / Q / P);
    Sum<T> sum = 0;
    for (Index j = 0; j < count; ++j) {
      const Index h = p * z.stride_v + down, v = q * z.stride_h + right;
      const bool inside = h >= 0 && h < H && v >= 0 && v < W;
      const Sum<T> pixel = inside ? widen(x[place_of<CHANNELS_LAST, Index>(n, c, h, v, C, H, W)]) : 0;
      sum += widen(dy[place_of<CHANNELS_LAST, Index>(n, k, p, q, K, P, Q)]) * pixel;
      if (++q == Q) {
        q = 0;
        if (++p == P) {
          p = 0;
          ++n;
        }
      }
    }
    partial[i] = sum;
  }
}

// partial: (slices, K); the pixels of a filter are those of all images, one image after the other
template <typename T>
__global__ void __launch_bounds__(256, 4)
conv_backward_bias_planar(const T* __restrict__ dy, Sum<T>* __restrict__ partial, int images, int K, int pixels,
                          long long length) {
  const long long slice = blockIdx.x / K, k = blockIdx.x % K, begin = slice * length;
  const long long end = min(begin + length, static_cast<long long>(images) * pixels);
  const int whole = 256 / pixels, left = 256 % pixels;
  long long n = (begin + threadIdx.x) / pixels;
  int pixel = static_cast<int>((begin + threadIdx.x) % pixels);
  Sum<T> sum = 0;
  for (long long i = begin + threadIdx.x; i < end; i += 256) {
    sum += widen(dy[(n * K + k) * pixels + pixel]);
    n += whole;
    pixel += left;
    if (pixel >= pixels) {
      pixel -= pixels;
      ++n;
    }
  }
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial: (slices, K); a block is 32 filters wide and 8 pixels high
template <typename T>
__global__ void __launch_bounds__(256, 4)
conv_backward_bias_last(const T* __restrict__ dy, Sum<T>* __restrict__ partial, long long pixels, int K,
                        long long length) {
  __shared__ Sum<T> sums[8][33];
  const int lane = threadIdx.x % 32, line = threadIdx.x / 32;
  const unsigned across = (static_cast<unsigned>(K) + 31) / 32;
  const long long slice = blockIdx.x / across, begin = slice * length, end = min(begin + length, pixels);
  const long long k = static_cast<long long>(blockIdx.x % across) * 32 + lane;
  Sum<T> sum = 0;
  if (k < K) {
    for (long long i = begin + line; i < end; i += 8) sum += widen(dy[i * K + k]);
  }
  sums[line][lane] = sum;
  __syncthreads();
  if (line == 0 && k < K) {
#pragma unroll
    for (int other = 1; other < 8; ++other) sum += sums[other][lane];
    partial[slice * K + k] = sum;
  }
}

// partial: slices of `length` sums, of which the first are (K, taps, stored)   ->   out: (K, channels, taps)
template <typename T>
__global__ void __launch_bounds__(256, 4)
conv_backward_sum(const Sum<T>* __restrict__ partial, T* __restrict__ out, int slices, long long size, long long length,
                  long long taps, long long channels, long long stored) {
  for (long long i = thread_index(); i < size; i += thread_count()) {
    const long long c = i % channels, tap = i / channels % taps, k = i / channels / taps;
    const long long place = (k * taps + tap) * stored + c;
    Sum<T> sum = 0;
    for (int slice = 0; slice < slices; ++slice) sum += partial[slice * length + place];
    out[(k * channels + c) * taps + tap] = narrow<T>(sum);
  }
}

// w: (groups, filters, channels, taps)   ->   packed: (groups, rows, width), row = tap depth + inner channel, and 0 where there is no such filter or channel.
//
// Forward the inner channels are those of x and the columns filters; DATA, for dx, the other way round.
// special[block]: DATA only, whether an infinity or NaN is among the block's filters.
template <typename T, bool DATA>
__global__ void __launch_bounds__(256, 4)
conv_pack_filters(const T* __restrict__ w, Sum<T>* __restrict__ packed, int* __restrict__ special, int groups,
                  int filters, int channels, int taps, int depth, int rows, int width) {
  const int inner = DATA ? filters : channels, outer = DATA ? channels : filters;
  const long long total = static_cast<long long>(groups) * rows * width;
  bool odd = false;
  for (long long i = thread_index(); i < total; i += thread_count()) {
    const int column = static_cast<int>(i % width), row = static_cast<int>(i / width % rows);
    const int tap = row / depth, c = row % depth;
    Sum<T> value = 0;
    if (tap < taps && c < inner && column < outer) {
      const long long filter = i / width / rows * filters + (DATA ? c : column);
      value = widen(w[(filter * channels + (DATA ? column : c)) * taps + tap]);
    }
    packed[i] = value;
    odd = odd || value - value != 0;
  }
  if (DATA) {
    odd = __syncthreads_or(odd);
    if (threadIdx.x == 0) special[blockIdx.x] = odd;
  }
}
