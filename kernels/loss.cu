// Losses, and their gradients in the same pass.
//
//   softmax cross-entropy   log p_j = s_j - top - log(sum over k of exp(s_k - top)),   top = the largest s_k
//                           row loss = -(1 - a) log p_label - a mean over j of log p_j,   a the label smoothing
//                           dscores_j = (p_j - a / classes - (1 - a) [j = label]) / N
//   weighted                t_j = w_j ((1 - a) [j = label] + a / classes)
//                           row loss = -sum over j of t_j log p_j,   dscores_j = (p_j sum over k of t_k - t_j) / total
//                           total = the sum of w_label over the rows that count, or 1; rows that are ignored get 0
//   sigmoid cross-entropy   loss = max(s, 0) - s t + log(1 + exp(-|s|)),   dscores = (1 / (1 + exp(-s)) - t) / total
//   svm                     e_j = s_j - s_label + margin for j other than the label
//                           row loss = sum over j of max(0, e_j)
//                           dscores_j = [e_j > 0] / N,   dscores_label = -(number of e_j > 0) / N
//   loss                    mean of the row losses, 0 for no rows, or their sum divided by a total
//
// scores (N, classes), labels (N,) of any integer type and stride.  A label out of range gives a loss and a row of
// gradients of NaN: the kernels cannot raise.
//
//   kernel                           | one warp per        | when
//   softmax_cross_entropy            | row                 | the mean of all rows, without weights
//   softmax_cross_entropy_weighted   | row                 | weights, rows that are ignored, other reductions
//   sigmoid_cross_entropy            | run of 1024         | always; a loss for each run, or for each element
//   svm_loss                         | row                 | always; differences of scores in float64, as on the CPU: they decide
//   loss_total                       | (one block)         | before a mean with weights or rows that are ignored
//   loss_mean                        | (one block)         | after any of them: adds in a fixed order, in float64
//
// Launchers: gpuconv/cuda/loss.py.
#include "common.cuh"

constexpr int LOSS_WARPS = 8;  // rows in flight in a block
constexpr int SIGMOID_RUN = 1024;  // elements whose losses a warp adds up

__device__ __forceinline__ float loss_exp(float x) { return expf(x); }
__device__ __forceinline__ double loss_exp(double x) { return exp(x); }
__device__ __forceinline__ float loss_log(float x) { return logf(x); }
__device__ __forceinline__ double loss_log(double x) { return log(x); }
__device__ __forceinline__ float loss_log1p(float x) { return log1pf(x); }
__device__ __forceinline__ double loss_log1p(double x) { return log1p(x); }
template <typename S>
__device__ __forceinline__ S loss_nan() {
  return static_cast<S>(__int_as_float(0x7FC00000));
}

// Largest value of a warp, for every lane.
template <typename S>
__device__ __forceinline__ S warp_max(S value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const S other = __shfl_xor_sync(0xFFFFFFFFu, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// The label of a row, or -1 if there is no such class.
template <typename Label>
__device__ __forceinline__ long long loss_label(Label label, long long classes) {
  const bool there = label >= 0 && static_cast<unsigned long long>(label) < static_cast<unsigned long long>(classes);
  return there ? static_cast<long long>(label) : -1;
}

template <typename Label>
__device__ __forceinline__ bool loss_ignores(Label label, bool ignores, long long ignored) {
  return ignores && (label < 0 ? ignored < 0 && static_cast<long long>(label) == ignored
                               : ignored >= 0 && static_cast<unsigned long long>(label) == static_cast<unsigned long long>(ignored));
}

template <typename T>
__device__ __forceinline__ Sum<T> loss_weight(const T* __restrict__ weights, long long j) {
  return weights == nullptr ? Sum<T>(1) : widen(weights[j]);
}

// Without the bound of 4 blocks ptxas spills a register for a block more.
template <typename T, typename Label>
__global__ void __launch_bounds__(256, 4)
softmax_cross_entropy(
    const T* __restrict__ scores, const Label* __restrict__ labels, Sum<T>* __restrict__ row_losses,
    T* __restrict__ dscores, long long N, long long classes, long long label_step, double label_smoothing) {
  using S = Sum<T>;
  const int lane = threadIdx.x % 32;
  const S smoothing = static_cast<S>(label_smoothing), rest = static_cast<S>(1.0 - label_smoothing);
  for (long long n = static_cast<long long>(blockIdx.x) * LOSS_WARPS + threadIdx.x / 32; n < N;
       n += static_cast<long long>(gridDim.x) * LOSS_WARPS) {
    const T* row = scores + n * classes;
    const long long label = loss_label(labels[n * label_step], classes);

    S top = widen(row[lane < classes ? lane : 0]);
    for (long long j = lane; j < classes; j += 32) {
      const S score = widen(row[j]);
      top = score > top ? score : top;
    }
    top = warp_max(top);  // NaN may be lost here, and comes back with exp(NaN - top)

    S total = 0, distance = 0;
    for (long long j = lane; j < classes; j += 32) {
      const S shifted = widen(row[j]) - top;
      total += loss_exp(shifted);
      distance += shifted;
    }
    total = warp_sum(total);
    distance = warp_sum(distance);

    for (long long j = lane; j < classes; j += 32) {
      S gradient = loss_exp(widen(row[j]) - top) / total - smoothing / static_cast<S>(classes);
      if (j == label) gradient -= rest;
      if (label < 0) gradient = loss_nan<S>();
      dscores[n * classes + j] = narrow<T>(gradient / static_cast<S>(N));
    }
    if (lane == 0) {
      S loss = loss_nan<S>();
      if (label >= 0) {
        const S log_total = loss_log(total);
        loss = -rest * (widen(row[label]) - top - log_total);
        // Not a product with 0: a class ruled out by a score of minus infinity has an infinite mean distance.
        if (label_smoothing != 0) loss -= smoothing * (distance / static_cast<S>(classes) - log_total);
      }
      row_losses[n] = loss;
    }
  }
}

template <typename T, typename Label>
__global__ void __launch_bounds__(256)
svm_loss(
    const T* __restrict__ scores, const Label* __restrict__ labels, Sum<T>* __restrict__ row_losses,
    T* __restrict__ dscores, long long N, long long classes, long long label_step, double margin) {
  const int lane = threadIdx.x % 32;
  const double share = 1.0 / static_cast<double>(N);
  for (long long n = static_cast<long long>(blockIdx.x) * LOSS_WARPS + threadIdx.x / 32; n < N;
       n += static_cast<long long>(gridDim.x) * LOSS_WARPS) {
    const T* row = scores + n * classes;
    const long long label = loss_label(labels[n * label_step], classes);
    const double own = label < 0 ? loss_nan<double>() : static_cast<double>(widen(row[label]));
    double loss = label < 0 ? own : 0;
    long long above = 0;
    for (long long j = lane; j < classes; j += 32) {
      if (j == label) continue;
      const double excess = widen(row[j]) - own + margin;
      loss += excess <= 0 ? 0 : excess;  // NaN is not at most 0
      if (excess > 0) ++above;
      const double gradient = label < 0 ? own : excess > 0 ? share : 0.0;
      dscores[n * classes + j] = narrow<T>(static_cast<Sum<T>>(gradient));
    }
    loss = warp_sum(loss);
    above = warp_sum(above);
    if (lane == 0) {
      if (label >= 0) {
        dscores[n * classes + label] = narrow<T>(static_cast<Sum<T>>(-static_cast<double>(above) / static_cast<double>(N)));
      }
      row_losses[n] = static_cast<Sum<T>>(loss);
    }
  }
}

// weights: (classes,), null for 1.   total: what losses are divided by, null for 1; 0 where nothing counts
template <typename T, typename Label>
__global__ void __launch_bounds__(256, 4)
softmax_cross_entropy_weighted(
    const T* __restrict__ scores, const Label* __restrict__ labels, const T* __restrict__ weights,
    Sum<T>* __restrict__ row_losses, T* __restrict__ dscores, long long N, long long classes, long long label_step,
    double label_smoothing, bool ignores, long long ignored, const double* __restrict__ total) {
  using S = Sum<T>;
  const int lane = threadIdx.x % 32;
  const S smoothing = static_cast<S>(label_smoothing), rest = static_cast<S>(1.0 - label_smoothing);
  const S even = smoothing / static_cast<S>(classes);
  const double divisor = total == nullptr || *total == 0 ? 1 : *total;
  for (long long n = static_cast<long long>(blockIdx.x) * LOSS_WARPS + threadIdx.x / 32; n < N;
       n += static_cast<long long>(gridDim.x) * LOSS_WARPS) {
    const T* row = scores + n * classes;
    if (loss_ignores(labels[n * label_step], ignores, ignored)) {
      for (long long j = lane; j < classes; j += 32) dscores[n * classes + j] = T{};
      if (lane == 0) row_losses[n] = 0;
      continue;
    }
    const long long label = loss_label(labels[n * label_step], classes);

    S top = widen(row[lane < classes ? lane : 0]);
    for (long long j = lane; j < classes; j += 32) {
      const S score = widen(row[j]);
      top = score > top ? score : top;
    }
    top = warp_max(top);  // NaN may be lost here, and comes back with exp(NaN - top)

    S sum = 0, asked = 0;
    for (long long j = lane; j < classes; j += 32) {
      sum += loss_exp(widen(row[j]) - top);
      asked += loss_weight(weights, j) * (even + (j == label ? rest : S(0)));
    }
    sum = warp_sum(sum);
    asked = warp_sum(asked);

    const S log_sum = loss_log(sum);
    S loss = 0;
    for (long long j = lane; j < classes; j += 32) {
      const S shifted = widen(row[j]) - top, target = loss_weight(weights, j) * (even + (j == label ? rest : S(0)));
      if (target != 0) loss -= target * (shifted - log_sum);  // what is not asked for may be infinite
      S gradient = loss_exp(shifted) / sum * asked - target;
      if (label < 0) gradient = loss_nan<S>();
      dscores[n * classes + j] = narrow<T>(static_cast<S>(gradient / static_cast<S>(divisor)));
    }
    loss = warp_sum(loss);
    if (lane == 0) row_losses[n] = label < 0 ? loss_nan<S>() : loss;
  }
}

// EACH: losses of single elements; else sums of runs of SIGMOID_RUN
template <typename T, bool EACH>
__global__ void __launch_bounds__(256)
sigmoid_cross_entropy(
    const T* __restrict__ scores, const T* __restrict__ targets, Sum<T>* __restrict__ losses, T* __restrict__ dscores,
    long long count, double total) {
  using S = Sum<T>;
  const int lane = threadIdx.x % 32;
  const S divisor = static_cast<S>(total);
  for (long long run = static_cast<long long>(blockIdx.x) * LOSS_WARPS + threadIdx.x / 32; run * SIGMOID_RUN < count;
       run += static_cast<long long>(gridDim.x) * LOSS_WARPS) {
    double loss = 0;
    for (long long i = run * SIGMOID_RUN + lane; i < min((run + 1) * SIGMOID_RUN, count); i += 32) {
      const S score = widen(scores[i]), target = widen(targets[i]), small = loss_exp(score < 0 ? score : -score);
      const S own = (score <= 0 ? 0 : score) - score * target + loss_log1p(small);
      const S likely = (score >= 0 ? S(1) : small) / (1 + small);
      dscores[i] = narrow<T>((likely - target) / divisor);
      if (EACH) losses[i] = own;
      loss += own;
    }
    if (EACH) continue;
    loss = warp_sum(loss);
    if (lane == 0) losses[run] = static_cast<S>(loss);
  }
}

// The sum of the labels' weights over the rows that count.
template <typename T, typename Label>
__global__ void __launch_bounds__(256)
loss_total(
    const Label* __restrict__ labels, const T* __restrict__ weights, double* __restrict__ total, long long N,
    long long classes, long long label_step, bool ignores, long long ignored) {
  double sum = 0;
  for (long long n = threadIdx.x; n < N; n += 256) {
    if (loss_ignores(labels[n * label_step], ignores, ignored)) continue;
    const long long label = loss_label(labels[n * label_step], classes);
    sum += label < 0 ? loss_nan<double>() : static_cast<double>(loss_weight(weights, label));
  }
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) *total = sum;
}

// S is float or double.   total: what the sum is divided by, where it is not null and not 0, else divisor
template <typename S>
__global__ void __launch_bounds__(256)
loss_mean(const S* __restrict__ losses, S* __restrict__ loss, long long count, const double* __restrict__ total,
          double divisor) {
  double sum = 0;
  for (long long i = threadIdx.x; i < count; i += 256) sum += losses[i];
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) *loss = static_cast<S>(sum / (total == nullptr || *total == 0 ? divisor : *total));
}
