// What the runtime knows: the launch, the threads of the block that runs, where shared memory and code lie.
#pragma once

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
};
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// Dynamic shared memory: thread-local, in the assembler stub that build.py writes.
extern "C" __thread unsigned char emulate_dynamic_shared[];
constexpr uint64_t DYNAMIC_SHARED_BYTES = 232448;

namespace emulate {

// As in device/runtime_calls.hpp and ptx_hopper.hpp, whose functions are defined here.
enum Reduction { ANY, ALL, COUNT_TRUE };
enum AccessKind { PLAIN, LDMATRIX, WMMA, CP_ASYNC };
typedef void (*WarpFunction)(void** lanes, unsigned present);
int tracking;
uint64_t* basic_blocks;
char* shared_base;

// What a thread waits for.
enum State : uint8_t {
  READY,
  AT_BARRIER,
  IN_WARP_OPERATION,
  DONE,
  AT_MBARRIER,
  AT_NAMED_BARRIER,
  AT_WGMMA_WAIT,
  POLLING
};

struct LoggedAccess {  // mode stats
  uint64_t address;
  uint32_t site;
  uint16_t size, lane = 0;
};

struct PendingCopy {  // a cp.async that has not landed
  void* target;
  const void* origin;
  uint32_t size, valid, group;
  uint64_t pc;
};

// One CUDA thread.
struct Fiber {
  void* stack_pointer;
  uint3 index;
  uint16_t number, warp;
  uint8_t lane;
  State state;
  // Where and for what it waits.
  const char* file;
  int site;
  const char* what;
  // Of a warp operation.
  uint32_t mask;
  void* payload;
  // Of a barrier with a reduction.
  int reduction, predicate, reduced;
  uint32_t copy_group;
  std::vector<PendingCopy> copies;
  std::vector<LoggedAccess> log;
};

const Launch* launch;
const Kernel* kernel;
void** arguments;

Fiber fibers[MAX_THREADS];
Fiber* current;
int thread_count, live_count, warp_count, waiting_at_barrier;

// The block that runs: its number in the grid, how often any barrier released it, how often each warp synchronised.
uint64_t block_number;
uint32_t block_epoch, warp_epoch[32];

uint8_t *shared_low, *shared_high;  // all shared memory: the library's thread-local block
uint8_t *module_low, *module_high;  // code and data of the library
uint8_t* stacks;
size_t stack_bytes;

uint64_t counters[COUNTERS], switches;
uint32_t launch_serial;  // of this library: what remembers an earlier launch is out of date
uint64_t random_state;

inline uint64_t random_number() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

// A long array, zeros at first, of which only what is touched costs time and memory.  It stays for the next launches.
template <class T>
class Zeros {
 public:
  // Let there be `count` elements: those there were, or if they were fewer, zeros.
  void reserve(size_t count) {
    if (count <= count_) return;
    clear();
    void* pages =
        mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) _exit(6);
    values_ = (T*)pages;
    count_ = count;
  }
  void clear() {
    if (count_) munmap(values_, count_ * sizeof(T));
    count_ = 0;
  }
  T& operator[](size_t i) { return values_[i]; }
  size_t size() const { return count_; }

 private:
  T* values_ = nullptr;
  size_t count_ = 0;
};

inline int line_of(int site) { return site & 0xfffff; }

// The address a function returns to: the place in the kernel that called it.
#define CALLER ((uint64_t)__builtin_return_address(0))

}  // namespace emulate
