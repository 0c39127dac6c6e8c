// A block's product of two matrices in shared memory, each thread with a rectangle of the result in its registers.
#pragma once

#include "pack.cuh"

constexpr int TILE_THREADS = 256;
constexpr int TILE_PAD = 4;  // numbers at the end of a row: columns written one below the other meet different banks

// ROWS x COLUMNS of the result: sum over d < DEPTH of left[d][row] right[d][column].
//
// A thread has HEIGHT x WIDTH of them, in squares of 4 x 4 spread over the tile, so that the lanes of a warp read
// neighbouring packs of 4 numbers.  LANES of the 32 lanes lie below each other, the others beside each other: lanes t and
// t ^ 1 in the same columns, lanes t and t ^ 2 in the same rows.  A pack that such pairs have in common takes half the
// passes over shared memory (said of compute capability 7.0 to 7.5: forums.developer.nvidia.com/t/77228).
template <typename S, int ROWS, int COLUMNS, int DEPTH, int HEIGHT, int WIDTH, int LANES>
struct Tile {
  static_assert(HEIGHT % 4 == 0 && WIDTH % 4 == 0, "threads read packs of 4 numbers");
  static_assert(ROWS / HEIGHT * (COLUMNS / WIDTH) == TILE_THREADS, "the threads must make up the tile");
  static_assert(COLUMNS / WIDTH % (32 / LANES) == 0, "a warp must not be wider than the tile");
  static_assert(ROWS / HEIGHT % LANES == 0, "nor taller");
  static_assert(LANES % 2 == 0 && 32 / LANES % 2 == 0, "lanes must pair up in both directions");

  static constexpr int LEFT_PITCH = ROWS + TILE_PAD, RIGHT_PITCH = COLUMNS + TILE_PAD;
  // What shared memory holds of a step, twice: one is read while the other is written.
  struct alignas(4 * sizeof(S)) Sides {
    S left[DEPTH][LEFT_PITCH];
    S right[DEPTH][RIGHT_PITCH];
  };
  static constexpr int OTHER = sizeof(Sides) / sizeof(S);  // numbers from a place in one to the same in the other

  S sum[HEIGHT][WIDTH];
  int top, left;  // of this thread's first square

  __device__ __forceinline__ Tile() {
    constexpr unsigned beside = 32 / LANES, pairs_down = ROWS / HEIGHT / 2;
    const unsigned thread = threadIdx.x;
    top = (thread / (2 * beside) % pairs_down * 2 + thread % 2) * 4;
    left = (thread / (2 * beside) / pairs_down * beside + thread / 2 % beside) * 4;
#pragma unroll
    for (int i = 0; i < HEIGHT; ++i) {
#pragma unroll
      for (int j = 0; j < WIDTH; ++j) sum[i][j] = 0;
    }
  }

  // Where sum[i][j] lies in the tile.
  __device__ __forceinline__ int row(int i) const { return i / 4 * (ROWS * 4 / HEIGHT) + top + i % 4; }
  __device__ __forceinline__ int column(int j) const { return j / 4 * (COLUMNS * 4 / WIDTH) + left + j % 4; }

  // down, across: this thread's first numbers, sides.left[0][top] and sides.right[0][left].
  __device__ __forceinline__ void add(const S* down, const S* across) {
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) {
      Pack<S, 4> rows[HEIGHT / 4], columns[WIDTH / 4];
#pragma unroll
      for (int i = 0; i < HEIGHT / 4; ++i) {
        rows[i] = *reinterpret_cast<const Pack<S, 4>*>(down + d * LEFT_PITCH + i * (ROWS * 4 / HEIGHT));
      }
#pragma unroll
      for (int j = 0; j < WIDTH / 4; ++j) {
        columns[j] = *reinterpret_cast<const Pack<S, 4>*>(across + d * RIGHT_PITCH + j * (COLUMNS * 4 / WIDTH));
      }
#pragma unroll
      for (int i = 0; i < HEIGHT; ++i) {
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) sum[i][j] += rows[i / 4].at[i % 4] * columns[j / 4].at[j % 4];
      }
    }
  }
};
