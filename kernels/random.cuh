// Philox4x64-10, word for word as numpy.random.Philox and gpuconv.random: any word from its place alone.
//
// key (seed, stream), counter (block, step, 0, 0), four 64-bit words a block; NumPy's first block has block = 1.
// Source: Salmon, Moraes, Dror, Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
#pragma once

// Purposes that draw from one seed, as in gpuconv.random.Stream.
constexpr unsigned long long STREAM_DROPOUT = 4;

struct RandomWords {
  unsigned long long at[4];
};

// The four words of a block, counted from 0: words 4 block ... 4 block + 3 of (seed, stream, step).
__device__ __forceinline__ RandomWords random_words(
    unsigned long long seed, unsigned long long stream, unsigned long long step, unsigned long long block) {
  constexpr unsigned long long MULTIPLIER_0 = 0xD2E7470EE14C6C93ull, MULTIPLIER_1 = 0xCA5A826395121157ull;
  constexpr unsigned long long WEYL_0 = 0x9E3779B97F4A7C15ull, WEYL_1 = 0xBB67AE8584CAA73Bull;
  RandomWords word = {{block + 1, step, 0, 0}};
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned long long high_0 = __umul64hi(MULTIPLIER_0, word.at[0]), low_0 = MULTIPLIER_0 * word.at[0];
    const unsigned long long high_1 = __umul64hi(MULTIPLIER_1, word.at[2]), low_1 = MULTIPLIER_1 * word.at[2];
    word = {{high_1 ^ word.at[1] ^ seed, low_1, high_0 ^ word.at[3] ^ stream, low_0}};
    seed += WEYL_0;
    stream += WEYL_1;
  }
  return word;
}

// Half word number i of eight in a block, the low half of each word first.
__device__ __forceinline__ unsigned random_half(const RandomWords& words, int i) {
  // Chosen by comparisons: an index that is not known at compile time would move the words out of the registers.
  const unsigned long long word = i < 4 ? (i < 2 ? words.at[0] : words.at[1]) : (i < 6 ? words.at[2] : words.at[3]);
  return static_cast<unsigned>(i % 2 ? word >> 32 : word);
}
