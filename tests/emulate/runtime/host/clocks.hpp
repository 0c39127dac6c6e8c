// Vector clocks, for what orders threads besides block barriers: mbarriers, named barriers, warps of a warpgroup.
// Only libraries that use ptx_hopper.hpp have them, in mode check.
#pragma once

namespace emulate {

constexpr int MAX_MBARRIERS = 64;

bool hopper;                   // this library uses Hopper's instructions
uint32_t clock_width;          // entries of one clock: one per thread, then one per mbarrier
std::vector<uint32_t> clocks;  // of all threads

typedef std::vector<uint32_t> Clock;

inline bool clocks_run() { return hopper && (launch->flags & RACES); }
inline uint32_t* clock_of(int thread) { return &clocks[(size_t)thread * clock_width]; }
inline uint32_t clock_now() { return clocks_run() ? clock_of(current->number)[current->number] : 0; }

// Has the current thread heard of what `thread` did at its time `then`?
inline bool heard_of(int thread, uint32_t then) {
  return clocks_run() && then && clock_of(current->number)[thread] >= then;
}

void advance(uint32_t* clock, const uint32_t* other) {
  for (uint32_t i = 0; i < clock_width; i++) clock[i] = std::max(clock[i], other[i]);
}

void reset_clocks() {
  clock_width = (thread_count + MAX_MBARRIERS + 7) / 8 * 8;
  clocks.assign((size_t)thread_count * clock_width, 0);
  for (int i = 0; i < thread_count; i++) clock_of(i)[i] = 1;
}

// The current thread signals: whoever waits for `target` hears of all it did so far.
void signal_clock(Clock& target) {
  if (!clocks_run()) return;
  target.resize(clock_width);
  uint32_t* mine = clock_of(current->number);
  advance(target.data(), mine);
  mine[current->number]++;
}

// Threads [first, first + count) meet: all they did before is ordered before all they do from now on.
void join_clocks(int first, int count) {
  if (!clocks_run()) return;
  static Clock joint;
  joint.assign(clock_width, 0);
  for (int i = first; i < first + count; i++) advance(joint.data(), clock_of(i));
  for (int i = first; i < first + count; i++) {
    std::copy(joint.begin(), joint.end(), clock_of(i));
    clock_of(i)[i]++;
  }
}

void join_warp_clocks(int warp) { join_clocks(warp * 32, std::min(32, thread_count - warp * 32)); }

}  // namespace emulate
