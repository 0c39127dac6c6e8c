// What changes from step to step of a training run, kept on the device: which step it is, its rates, the scale of its
// loss, whether it changes the weights.  Other kernels read these numbers by their place (placed.cuh).
//
//   begin   numbers = row `step` of the table;   drawn = step parts;   unscale = 1 / (scale parts)
//           number = step - first step of the epoch, which is `epoch`
//   judge   finite = no gradient is NaN or infinite;   go = finite, and all losses are finite
//           with a loss scale   finite: doubled after `grow_after` good steps in a row;   else halved, and the step is
//                               skipped, unless the scale is 1 already
//           clip = longest / norm where norm = sqrt(sum of squares) is above `longest`, else 1
//           rate[k] /= first;   first, second = row `updates` of the corrections;   updates += go;   step += 1
//
// Both are what the host would do, operation by operation in float64, so that a step has the same bits wherever it is
// judged.  Integers are unsigned, 64 bits; where they and the float64 numbers stand say the constants below, of which
// gpuconv/cuda/step.py has a twin.
//
//   table        (steps, 1 + 2 rates)   from step `first_step` on: share of an average, rates, factors that shrink weights
//   corrections  (updates, 2)           from update `first_update` on: first, second
//   outcomes     (rows, 2 parts + 6)    one row after the other, round and round: loss and hits of each part; finite,
//                                       skipped, updates, good, skips, scale after the step
//
//   kernel          | one thread per                                      | when
//   step_begin      | number of the step (one block)                      | first of all in a step
//   step_judge      | share of flags and sums (one block)                 | when the gradients of a step are there
//   step_clip       | pack of 16 bytes after pack                         | gradients of limited length: times clip
//
// Launchers: gpuconv/cuda/step.py.
#include "pack.cuh"
#include "placed.cuh"

constexpr int STEP = 0, STEP_DRAWN = 1, STEP_UPDATES = 2, STEP_GOOD = 3, STEP_SKIPS = 4, STEP_GO = 5, STEP_ROW = 6;
constexpr int STEP_FIRST_STEP = 7, STEP_FIRST_UPDATE = 8, STEP_EPOCH = 9, STEP_NUMBER = 10;
constexpr int STEP_SCALE = 0, STEP_UNSCALE = 1, STEP_CLIP = 2, STEP_SECOND = 3, STEP_SHARE = 4, STEP_RATES = 5;

__device__ __forceinline__ bool step_is_finite(double value) { return value - value == 0; }

__global__ void __launch_bounds__(256)
step_begin(
    unsigned long long* __restrict__ counts, double* __restrict__ numbers, const double* __restrict__ table,
    int rates, int parts, int rows) {
  const unsigned long long step = counts[STEP];
  const int width = 1 + 2 * rates;
  const double* row = table + (step - counts[STEP_FIRST_STEP]) * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) numbers[STEP_SHARE + i] = row[i];
  if (threadIdx.x == 0) {
    counts[STEP_DRAWN] = step * parts;
    counts[STEP_NUMBER] = step - counts[STEP_EPOCH];
    counts[STEP_ROW] = (counts[STEP_ROW] + 1) % rows;
    numbers[STEP_UNSCALE] = 1 / (numbers[STEP_SCALE] * parts);
  }
}

// flags (blocks,), squares (square_blocks,) or null: what all_finite and square_sums of reduce.cu have said.
__global__ void __launch_bounds__(256)
step_judge(
    unsigned long long* __restrict__ counts, double* __restrict__ numbers, const double* __restrict__ corrections,
    double* __restrict__ outcomes, const bool* __restrict__ flags, int blocks, const double* __restrict__ squares,
    int square_blocks, int rates, int parts, bool scaled, int grow_after, double longest) {
  bool finite = true;
  for (int i = threadIdx.x; i < blocks; i += 256) finite = finite && flags[i];
  finite = __syncthreads_and(finite);
  double sum = 0;
  if (squares) {
    for (int i = threadIdx.x; i < square_blocks; i += 256) sum += squares[i];
    sum = block_sum<256>(sum);
  }
  if (threadIdx.x != 0) return;

  double* row = outcomes + counts[STEP_ROW] * (2 * parts + 6);
  bool known = true;
  for (int part = 0; part < parts; ++part) known = known && step_is_finite(row[2 * part]);

  bool skipped = false;
  if (scaled && known) {
    if (!finite) {
      skipped = numbers[STEP_SCALE] > 1;
      if (skipped) numbers[STEP_SCALE] /= 2, counts[STEP_GOOD] = 0, ++counts[STEP_SKIPS];
    } else if (++counts[STEP_GOOD] == grow_after) {
      numbers[STEP_SCALE] *= 2, counts[STEP_GOOD] = 0;
    }
  }
  const bool go = finite && known;
  const double norm = sqrt(sum);
  numbers[STEP_CLIP] = go && longest < norm && step_is_finite(norm) ? longest / norm : 1;
  const double* correction = corrections + (counts[STEP_UPDATES] - counts[STEP_FIRST_UPDATE]) * 2;
  for (int k = 0; k < rates; ++k) numbers[STEP_RATES + k] /= correction[0];
  numbers[STEP_SECOND] = correction[1];
  counts[STEP_GO] = go;
  counts[STEP_UPDATES] += go;
  counts[STEP] += 1;

  row += 2 * parts;
  row[0] = finite, row[1] = skipped;
  row[2] = static_cast<double>(counts[STEP_UPDATES]), row[3] = static_cast<double>(counts[STEP_GOOD]);
  row[4] = static_cast<double>(counts[STEP_SKIPS]), row[5] = numbers[STEP_SCALE];
}

template <typename T>
__global__ void __launch_bounds__(256)
step_clip(T* __restrict__ x, const double* __restrict__ clip, long long total) {
  constexpr int N = pack_size<T>();
  if (*clip == 1) return;
  const Sum<T> factor = static_cast<Sum<T>>(*clip);
  const bool aligned = is_aligned<N>(x);
  for (long long i = thread_index() * N; i < total; i += thread_count() * N) {
    Pack<T, N> pack = load_pack<N>(x + i, aligned, total - i);
#pragma unroll
    for (int k = 0; k < N; ++k) pack.at[k] = narrow<T>(widen(pack.at[k]) * factor);
    store_pack<N>(x + i, pack, aligned, total - i);
  }
}
