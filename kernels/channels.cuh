// Sums and values per channel of an array in either memory format, seen as (images, channels, pixels): NCHW with
// pixels = H W, or channels-last storage as rows of one pixel each, images = N H W, channels, pixels = 1.
//
// A thread reads packs of V neighbours: V pixels of one channel (planes), or V channels of one pixel (CHANNELS_LAST).
// V divides the pixels, or the channels.
#pragma once

#include "pack.cuh"

// Threads of a block, and values that a thread of it reads in one part of a chunk.
constexpr int CHANNEL_BLOCK = 256;
constexpr int CHANNEL_VALUES = 16;

// The entries of pack number `pack` of a vector with one entry per channel, a pack holding those of WIDTH channels.
template <int WIDTH, typename T, typename Index>
__device__ __forceinline__ Pack<T, WIDTH> load_channels(const T* vector, Index pack) {
  return load_pack<WIDTH>(vector + pack * WIDTH, is_aligned<WIDTH>(vector));
}
template <int WIDTH, typename T>
__device__ __forceinline__ void store_channels(T* entries, const Pack<T, WIDTH>& pack) {
  store_pack<WIDTH>(entries, pack, is_aligned<WIDTH>(entries));
}

// Add up over the threads of a block whose number is equal modulo `lanes`, a power of 2: each gets its lane's sums.
// The order is fixed, so that equal inputs give equal bits.  shared: WIDTH * CHANNEL_BLOCK numbers.
template <int WIDTH, typename S>
__device__ __forceinline__ void lane_sums(S (&value)[WIDTH], S* shared, int lanes) {
  const int thread = threadIdx.x;
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) shared[w * CHANNEL_BLOCK + thread] = value[w];
  for (int half = CHANNEL_BLOCK / 2; half >= lanes; half /= 2) {
    __syncthreads();
    if (thread < half) {
#pragma unroll
      for (int w = 0; w < WIDTH; ++w) shared[w * CHANNEL_BLOCK + thread] += shared[w * CHANNEL_BLOCK + thread + half];
    }
  }
  __syncthreads();
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) value[w] = shared[w * CHANNEL_BLOCK + thread % lanes];
  __syncthreads();  // the next sum overwrites what has just been read
}

// What one thread adds up: its share of a chunk of the values of one channel (planes) or V channels (CHANNELS_LAST).
// A chunk has up to `most_parts` parts, of which the block reads one after the other, and meets once at the end: the
// parts are few where there are few blocks, and many where blocks would otherwise leave more sums than are soon merged.
//
// Blocks are numbered chunk by chunk, and in a chunk by groups of channels.  In planes a block has one channel; in
// rows it has `lanes` packs of channels side by side, a power of 2, so that its threads read whole lines.
template <typename T, int V, bool CHANNELS_LAST, typename Index>
struct ChannelShare {
  static constexpr int WIDTH = CHANNELS_LAST ? V : 1;          // channels of this thread
  static constexpr int ITEMS = ceil_div(CHANNEL_VALUES, V);    // packs of this thread in a part
  Index channels, pixels;
  Index channel;   // the first of this thread
  bool active;     // there are such channels
  Index start;     // first pack of the chunk
  Index items;     // packs of the chunk
  int chunk, parts, row, rows;
  bool writes;     // this thread writes the sums of its channels

  __device__ __forceinline__ ChannelShare(
      Index images, Index channels, Index pixels, int lanes, int most_parts)
      : channels(channels), pixels(pixels) {
    const Index groups = CHANNELS_LAST ? ceil_div(channels, static_cast<Index>(lanes * V)) : channels;
    const int lane = threadIdx.x % lanes;
    const Index group = static_cast<Index>(blockIdx.x) % groups;
    chunk = static_cast<int>(static_cast<Index>(blockIdx.x) / groups);
    row = threadIdx.x / lanes;
    rows = CHANNEL_BLOCK / lanes;
    channel = CHANNELS_LAST ? (group * lanes + lane) * V : group;
    active = channel < channels;
    const Index all = CHANNELS_LAST ? images : images * (pixels / V);
    start = static_cast<Index>(chunk) * most_parts * per_part();
    items = min(static_cast<Index>(most_parts) * per_part(), all - start);
    parts = static_cast<int>(ceil_div(items, per_part()));
    writes = active && row == 0;
  }

  // Packs of a whole part.
  __device__ __forceinline__ Index per_part() const { return static_cast<Index>(rows) * ITEMS; }

  // Number of values per channel in the chunk's first part.
  __device__ __forceinline__ Index first_count() const { return min(items, per_part()) * (CHANNELS_LAST ? 1 : V); }

  // Number of values per channel in the chunk.
  __device__ __forceinline__ Index count() const { return CHANNELS_LAST ? items : items * V; }

  // Where the chunk's first pack starts in the array.
  __device__ __forceinline__ Index first() const {
    if (CHANNELS_LAST) return start * channels + channel;
    const Index per_image = pixels / V, image = start / per_image, place = start % per_image;
    return (image * channels + channel) * pixels + place * V;
  }

  // Call take(j, offset) for each pack of this thread in one part, j counting from 0.
  template <typename Take>
  __device__ __forceinline__ void each_of_part(int part, Take take) const {
    // Divided once, then stepped: a division for each pack would cost as much as reading it.
    const Index per_image = pixels / V, before = static_cast<Index>(part) * per_part() + row;
    Index image = 0, place = 0, step_image = 0, step_place = 0;
    if (!CHANNELS_LAST) {
      image = (start + before) / per_image, place = (start + before) % per_image;
      step_image = rows / per_image, step_place = rows % per_image;
    }
#pragma unroll
    for (int j = 0; j < ITEMS; ++j) {
      const Index item = static_cast<Index>(j) * rows + before;
      if (active && item < items) {
        take(j, CHANNELS_LAST ? (start + item) * channels + channel : (image * channels + channel) * pixels + place * V);
      }
      if (!CHANNELS_LAST) {
        image += step_image, place += step_place;
        if (place >= per_image) place -= per_image, ++image;
      }
    }
  }

  // Call take(j, offset) for each pack of this thread, part after part.
  template <typename Take>
  __device__ __forceinline__ void each(Take take) const {
    for (int part = 0; part < parts; ++part) each_of_part(part, take);
  }
};

// The channel of a flat pack: stepped along with a loop over packs, without a division for each.
template <typename Index>
struct ChannelOfPack {
  Index channels, per_plane;
  Index channel, place, step_channel, step_place;

  // channels and per_plane are counted in packs: (C / V, 1) for rows, (C, pixels / V) for planes.
  __device__ __forceinline__ ChannelOfPack(Index first, Index step, Index channels, Index per_plane)
      : channels(channels), per_plane(per_plane) {
    place = first % per_plane, channel = first / per_plane % channels;
    step_place = step % per_plane, step_channel = step / per_plane % channels;
  }

  __device__ __forceinline__ void next() {
    place += step_place, channel += step_channel;
    if (place >= per_plane) place -= per_plane, ++channel;
    if (channel >= channels) channel -= channels;
  }
};
