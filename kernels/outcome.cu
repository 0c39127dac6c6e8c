// What a part of a training step came to: its loss, and how many of its rows score their label highest.
//
//   hits = number of n with argmax over j of scores[n, j] = labels[n],   of equal scores the first; the first NaN wins
//
// scores (N, classes), labels (N,) of any integer type and stride.  Both numbers go into the step's row of the outcomes,
// which step.cu begins: as entries 2 part and 2 part + 1.
//
//   kernel         | one thread (block) per
//   outcome_hits   | warp: row after row; block: its rows' hits
//   outcome_part   | (one block): adds the blocks' hits up
//
// Launchers: gpuconv/cuda/outcome.py.
#include "common.cuh"

constexpr int OUTCOME_WARPS = 8;  // rows in flight in a block

// A score and its place in a row; no place: there is none.
template <typename S>
struct OutcomeBest {
  S score;
  long long place;

  // Whether another one comes before this one.
  __device__ __forceinline__ bool yields_to(S other, long long other_place) const {
    if (other_place < 0) return false;
    if (place < 0) return true;
    if (is_nan(score) || is_nan(other)) return is_nan(other) && (!is_nan(score) || other_place < place);
    return other > score || (other == score && other_place < place);
  }
};

template <typename T, typename Label>
__global__ void __launch_bounds__(256)
outcome_hits(
    const T* __restrict__ scores, const Label* __restrict__ labels, long long* __restrict__ hits, long long N,
    long long classes, long long label_step) {
  using S = Sum<T>;
  const int lane = threadIdx.x % 32;
  long long count = 0;
  for (long long n = static_cast<long long>(blockIdx.x) * OUTCOME_WARPS + threadIdx.x / 32; n < N;
       n += static_cast<long long>(gridDim.x) * OUTCOME_WARPS) {
    const T* row = scores + n * classes;
    OutcomeBest<S> best = {0, -1};
    for (long long j = lane; j < classes; j += 32) {
      const S score = widen(row[j]);
      if (best.yields_to(score, j)) best = {score, j};
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const S score = __shfl_xor_sync(0xFFFFFFFFu, best.score, distance);
      const long long place = __shfl_xor_sync(0xFFFFFFFFu, best.place, distance);
      if (best.yields_to(score, place)) best = {score, place};
    }
    if (lane == 0 && best.place == static_cast<long long>(labels[n * label_step])) ++count;
  }
  count = block_sum<256>(count);
  if (threadIdx.x == 0) hits[blockIdx.x] = count;
}

// loss (), hits (blocks,); row_number: where the number of the step's row stands.  S is float or double.
template <typename S>
__global__ void __launch_bounds__(256)
outcome_part(
    const S* __restrict__ loss, const long long* __restrict__ hits, int blocks, double* __restrict__ outcomes,
    const unsigned long long* __restrict__ row_number, int width, int part) {
  long long count = 0;
  for (int i = threadIdx.x; i < blocks; i += 256) count += hits[i];
  count = block_sum<256>(count);
  if (threadIdx.x == 0) {
    double* row = outcomes + *row_number * width;
    row[2 * part] = *loss;
    row[2 * part + 1] = static_cast<double>(count);
  }
}
