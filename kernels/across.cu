// What processes that train one net together make of each other's numbers, once these are gathered on each GPU.
//
//   sums           own = sum over processes of their stretches of a vector
//   moments        mean = sum of n_r mean_r / n,   variance = sum of n_r (variance_r + (mean_r - mean)^2) / n
//   coefficients   those of batchnorm_backward_data, from the sums of all; dgamma and dbeta of this process's share
//
// Everything is added up in the order of the processes: the same bits on each of them, and every time.
// n_r is how many of `images` pictures process r has: from r images / ranks to (r + 1) images / ranks.
//
//   kernel                | one thread per   | when
//   across_sum            | element          | gradients, running statistics
//   across_moments        | channel          | batch norm in training, forward
//   across_coefficients   | channel          | batch norm in training, backward
//
// Launchers: gpuconv/cuda/across.py.
#include "common.cuh"

// own (count,): this process's stretch, and then the sum   pieces (ranks, count): those of the others, and nothing of its own.
template <typename T>
__global__ void __launch_bounds__(256)
across_sum(T* __restrict__ own, const T* __restrict__ pieces, long long count, int ranks, int rank) {
  for (long long i = thread_index(); i < count; i += thread_count()) {
    const T here = own[i];
    Sum<T> sum = widen(rank == 0 ? here : pieces[i]);
    for (int r = 1; r < ranks; ++r) sum += widen(r == rank ? here : pieces[r * count + i]);
    own[i] = narrow<T>(sum);
  }
}

// gathered (ranks, 2, C): mean and (biased) variance of each process's share   ->   mean, inv_std, and the running ones.
template <typename S, typename P>
__global__ void __launch_bounds__(256)
across_moments(
    const S* __restrict__ gathered, S* __restrict__ mean, S* __restrict__ inv_std, P* __restrict__ running_mean,
    P* __restrict__ running_var, long long running_mean_step, long long running_var_step, long long channels,
    long long images, int ranks, double momentum, double eps) {
  const long long channel = thread_index();
  if (channel >= channels) return;
  const S* entry = gathered + channel;
  const auto share = [&](int r) { return static_cast<double>((r + 1) * images / ranks - r * images / ranks) / images; };
  // From the distance to the first, so that a channel of one constant value has exactly that mean.
  const double origin = entry[0];
  double offset = 0, variance = 0;
  for (int r = 1; r < ranks; ++r) offset += share(r) * (entry[2 * r * channels] - origin);
  const double centre = origin + offset;
  for (int r = 0; r < ranks; ++r) {
    const double distance = entry[2 * r * channels] - centre;
    variance += share(r) * (entry[(2 * r + 1) * channels] + distance * distance);
  }
  mean[channel] = static_cast<S>(centre);
  inv_std[channel] = static_cast<S>(1.0 / sqrt(variance + eps));
  P& old_mean = running_mean[channel * running_mean_step];
  P& old_var = running_var[channel * running_var_step];
  const double new_mean = momentum * widen(old_mean) + (1 - momentum) * centre;
  const double new_var = momentum * widen(old_var) + (1 - momentum) * variance;
  old_mean = narrow<P>(static_cast<Sum<P>>(new_mean));
  old_var = narrow<P>(static_cast<Sum<P>>(new_var));
}

// gathered (ranks, 2, C): each share's sums of dy and of dy (x - mean); count: values of a channel in all of them.
template <typename S, typename P>
__global__ void __launch_bounds__(256)
across_coefficients(
    const S* __restrict__ gathered, const P* __restrict__ gamma, const S* __restrict__ inv_std, P* __restrict__ dgamma,
    P* __restrict__ dbeta, S* __restrict__ coefficients, long long channels, long long count, int ranks, int rank) {
  const long long channel = thread_index();
  if (channel >= channels) return;
  const S* entry = gathered + channel;
  double level = 0, weighted = 0;
  for (int r = 0; r < ranks; ++r) {
    level += entry[2 * r * channels];
    weighted += entry[(2 * r + 1) * channels];
  }
  const double scale = inv_std[channel];
  dbeta[channel] = narrow<P>(static_cast<Sum<P>>(entry[2 * rank * channels]));
  dgamma[channel] = narrow<P>(static_cast<Sum<P>>(entry[(2 * rank + 1) * channels] * scale));
  coefficients[channel] = static_cast<S>(widen(gamma[channel]) * scale);
  coefficients[channels + channel] = static_cast<S>(level / count);
  coefficients[2 * channels + channel] = static_cast<S>(weighted * scale / count * scale);
}
