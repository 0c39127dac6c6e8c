// Hopper (sm_90a): mbarriers, bulk copies (TMA), wgmma, named barriers, and what shared memory looks like to them.
//
// Time: a bulk copy lands only when no thread can run, oldest first among those somebody waits for (orders reverse and
// depth-reverse: newest first; random: any).  Its destination is NaN from issue to landing.  A wgmma reads shared
// memory and writes its accumulators at the wait_group that retires it; until then the accumulators are NaN.
#pragma once

namespace emulate {

constexpr int MAX_WARPGROUPS = 8, WARPGROUP = 128;

// A tensor map as tensor_map.py packs it.
struct TensorMap {
  uint32_t magic;
  uint8_t im2col, rank, element_bytes, swizzle;  // swizzle as in CUtensorMapSwizzle: 1, 2, 3 for 32, 64, 128 bytes
  uint64_t base;
  uint32_t sizes[5];
  uint16_t box[5];
  uint16_t channels, pixels;
  uint8_t steps[5], padding0;
  int16_t lower[3], upper[3];
  uint32_t padding1;
  uint64_t strides[4];
};
static_assert(sizeof(TensorMap) <= 128 && offsetof(TensorMap, strides) == 72, "layout shared with tensor_map.py");
constexpr uint32_t TENSOR_MAP_MAGIC = 0x50414d54;

// As in ptx_hopper.hpp.
struct Wgmma {
  float* accumulators;
  const unsigned* a_registers;
  uint64_t a, b;
  int n, scale_d;
  enum Type : uint8_t { BF16, F16, TF32 } type;
  bool transpose_a, transpose_b, negate_a, negate_b;
};

// The accumulators of one thread that wgmmas write, while they do.
struct Accumulators {
  float* registers;
  int count, in_flight;
  uint32_t retired_at_fence;  // fences before it have no effect on the next use
  bool need_hold;             // read only after wgmma_hold
  std::vector<float> values;
};

struct PendingWgmma {
  Wgmma operation;
  uint32_t a_registers[4], group, accumulators;
  uint64_t pc, versions;  // versions: sum over the operands' chunks, to see a write
};

// A bulk copy, to or from shared memory.
struct BulkCopy {
  TensorMap map;
  bool tensor, im2col;
  int coordinates[5], offsets[3];
  uint32_t shared_offset, bytes, mbarrier, group;
  uint64_t global, pc, versions;
  uint16_t thread;
};

// What a thread has under way beyond what every GPU has.
struct HopperThread {
  std::vector<Accumulators> accumulators;
  std::vector<PendingWgmma> wgmmas;
  std::vector<BulkCopy> stores;
  uint32_t wgmma_group, wgmma_fences, fences_at_commit;
  uint32_t proxy_fences, init_fences;
  uint32_t bulk_group;
  // While it waits for an mbarrier or for wgmmas.
  uint32_t awaited_parity, wait_groups;
  int awaited_mbarrier;
  bool phase_done;
  uint64_t pc;
};

struct Mbarrier {
  uint32_t offset, arrivals, pending, phase;
  int64_t bytes;  // the transaction count
  bool live;
  Stamp initialised;
  uint32_t init_fences;  // of the thread that initialised it, then
  Clock arriving, done;  // of this phase, of all phases before
  std::vector<uint16_t> waiting;
};

// 16 bytes of shared memory: how they were last written, and who has read them by wgmma.
struct Chunk {
  enum : uint8_t { UNTOUCHED, IN_FLIGHT, LANDED } copy;
  uint8_t stored, holds_mbarrier, swizzle;  // stored: written by ordinary stores since the copy
  uint16_t mbarrier;
  uint32_t phase, version;
  Stamp store;
  uint32_t store_fences;           // proxy fences of the storing thread, then
  uint32_t reads[MAX_WARPGROUPS];  // index in wgmma_reads, 0: none
};

struct NamedBarrier {
  uint32_t needed, arrived;
  std::vector<uint16_t> waiting;
  Clock clock;
};

// The clocks of a warpgroup's four warps when its wgmma had read its operands.
struct WgmmaRead {
  uint32_t clock[4];
};

HopperThread hopper_threads[MAX_THREADS];
std::vector<Mbarrier> mbarriers;
std::vector<Chunk> chunks;
std::vector<BulkCopy> bulk_copies;  // loads under way
std::vector<uint16_t> polling;      // threads that test an mbarrier again and again
int polling_rounds;
NamedBarrier named_barriers[16];
int wgmma_waiting[MAX_WARPGROUPS];
std::vector<WgmmaRead> wgmma_reads;

inline HopperThread& hopper_thread() { return hopper_threads[current->number]; }

void hopper_enable() { hopper = true; }

void reset_hopper() {
  if (!hopper) return;
  mbarriers.clear();
  bulk_copies.clear();
  polling.clear();
  wgmma_reads.assign(1, WgmmaRead{});
  polling_rounds = 0;
  std::fill(std::begin(wgmma_waiting), std::end(wgmma_waiting), 0);
  for (auto& b : named_barriers) b = NamedBarrier{};
  chunks.assign((shared_high - shared_low + 15) / 16, Chunk{});
  for (int i = 0; i < thread_count; i++) hopper_threads[i] = HopperThread{};
  if (launch->flags & RACES) reset_clocks();
}

uint32_t shared_offset_of(const void* pointer, uint64_t pc, const char* what) {
  if (!is_shared((uint64_t)pointer)) fail_at(pc, "%s: address is not in shared memory", what);
  return (uint32_t)shared_offset((uint64_t)pointer);
}

// Do these bytes lie in the launch's dynamic shared memory, or in a static array?
bool shared_range_exists(uint64_t offset, uint64_t bytes) {
  if (offset + bytes > (uint64_t)(shared_high - shared_low)) return false;
  const uint64_t dynamic = offset - (uint64_t)(emulate_dynamic_shared - shared_low);
  if (dynamic < DYNAMIC_SHARED_BYTES) return dynamic + bytes <= launch->shared_bytes;
  return !launch->shared_symbol_count || (shared_valid[offset] && shared_valid[offset + bytes - 1]);
}

template <class Function>
void for_each_chunk(uint32_t offset, uint32_t bytes, Function function) {
  for (uint32_t o = offset; o < offset + bytes; o += 16) function(chunks[o >> 4], o);
}

// Wait, as the current thread, until somebody makes it ready again.
void park(State state, const char* what, uint64_t pc) {
  Fiber* me = current;
  me->state = state;
  me->what = what;
  me->file = nullptr;
  me->site = 0;
  hopper_threads[me->number].pc = pc;
  run_next();
}

}  // namespace emulate
