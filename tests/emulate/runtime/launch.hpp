// What Python (library.py) and the runtime tell each other about kernels and launches, field for field.
#pragma once
#include <cstdint>

namespace emulate {

struct Kernel {
  const char* name;
  int32_t parameter_count;
  const char* signature;  // "cms/ffi": how and what each parameter is, see device/registration.hpp
  const int32_t* sizes;
  void (*call)(void** arguments);
};

// Memory that a kernel was given: one array, or arrays that overlap.
struct Buffer {
  uint8_t* base;
  uint64_t size, element;
  const uint8_t* valid;  // per byte, whether an element lies there; null: everywhere
  int32_t argument, read_only;
};

// The accesses of one instruction (mode stats).
struct Site {
  uint64_t pc;
  uint32_t kind, padding;
  uint64_t requests, lanes, bytes, units, ideal;
};

// The first bytes of the memory shared with the launch server: everything below, and what it points to.
constexpr uint64_t HEAD_BYTES = 1 << 20;

constexpr int MAX_THREADS = 1024;  // of a block

constexpr int COUNTERS = 8, MAX_SITES = 4096, MAX_BASIC_BLOCKS = 8192;

struct Statistics {
  uint64_t counters[COUNTERS], blocks, threads, switches, site_count;
  Site sites[MAX_SITES];
  uint64_t basic_blocks[MAX_BASIC_BLOCKS];
};

enum Flag : uint32_t {
  TRACK = 1,            // look at every access
  COUNT = 2,            // mode stats
  LATE_COPIES = 4,      // cp.async data arrives as late as its wait allows
  EARLY_EXIT = 8,       // threads may return before a barrier
  BETWEEN_BLOCKS = 16,  // report races between blocks
  RACES = 32            // mode check
};

enum Order : uint32_t { FORWARD, REVERSE, RANDOM, DEPTH, DEPTH_REVERSE };

struct Launch {
  int32_t kernel;
  uint32_t grid[3], block[3];
  uint32_t flags, thread_order, block_order, workers, timeout_seconds;
  uint64_t seed, shared_bytes, stack_bytes, first_block, block_count;
  void** parameters;
  const Buffer* buffers;
  uint64_t buffer_count;
  const uint64_t* shared_symbols;  // offset and size of every static __shared__ array
  uint64_t shared_symbol_count;
  char* report;
  uint64_t report_bytes;
  Statistics* statistics;
  uint8_t* stacks;  // the server's: stack_bytes for each of MAX_THREADS
};

// Indices of Statistics::counters.
enum Counter { MMA_FLOP, ATOMICS, SHUFFLES, BARRIERS, WARP_OPERATIONS };

}  // namespace emulate
