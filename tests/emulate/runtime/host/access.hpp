// One load or store of a kernel: is it inside what the kernel was given, aligned, written before it is read?
#pragma once

namespace emulate {

// Shared memory, per byte: the block that initialised it, or that a copy is under way; whether an array lies there.
constexpr uint32_t IN_FLIGHT = ~0u;
Zeros<uint32_t> shared_initialised;
Zeros<uint8_t> shared_valid;
uint32_t block_serial;  // never the same again
int uninitialised_reads;

inline bool is_shared(uint64_t address) { return address >= (uint64_t)shared_low && address < (uint64_t)shared_high; }
inline uint64_t shared_offset(uint64_t address) { return address - (uint64_t)shared_low; }

// Return the buffer that holds an address; else null, and the nearest one.
const Buffer* find_buffer(uint64_t address, const Buffer** nearest = nullptr) {
  uint64_t best = ~0ull;
  for (uint64_t i = 0; i < launch->buffer_count; i++) {
    const Buffer& b = launch->buffers[i];
    const uint64_t low = (uint64_t)b.base, high = low + b.size;
    if (address >= low && address < high) return &b;
    const uint64_t distance = address < low ? low - address : address - high + 1;
    if (nearest && distance < best) {
      best = distance;
      *nearest = &b;
    }
  }
  return nullptr;
}

void report_nearest(uint64_t address) {
  const Buffer* b = nullptr;
  find_buffer(address, &b);
  if (!b) return;
  const long long offset = address - (uint64_t)b->base, past = offset < 0 ? offset : offset - (long long)b->size;
  const char* where = offset < 0 ? "before its start" : past >= 0 ? "past its end" : "before its end";
  report("  nearest buffer: argument %d, %llu elements of %llu bytes; address is element %lld (%lld bytes %s)",
         b->argument, (Printed)(b->size / b->element), (Printed)b->element, offset / (long long)b->element,
         past < 0 ? -past : past, where);
}

[[noreturn]] void out_of_bounds(uint64_t address, unsigned size, bool write, uint64_t pc, const char* detail = "") {
  report("OUT OF BOUNDS: %s of %u bytes, %s, pc=+0x%llx%s", write ? "write" : "read", size, Here().text, relative(pc),
         detail);
  report_nearest(address);
  stop();
}

[[noreturn]] void out_of_shared_bounds(unsigned size, bool write, uint64_t pc, const char* detail) {
  report("OUT OF BOUNDS: %s of %u bytes, %s, pc=+0x%llx (%s)", write ? "write" : "read", size, Here().text,
         relative(pc), detail);
  stop();
}

void check_alignment(uint64_t address, unsigned size, const char* space, uint64_t pc) {
  if (size <= 1 || size > 16 || address % size == 0) return;
  report("MISALIGNED: %u-byte %s access at pc=+0x%llx, %s", size, space, relative(pc), Here().text);
  stop();
}

void hopper_shared_access(uint32_t offset, unsigned size, bool write, uint64_t pc);
void hopper_stack_access(uint64_t address, unsigned size, bool write, uint64_t pc);

void check_initialised(uint64_t offset, unsigned size, uint64_t pc) {
  for (uint64_t at = offset; at < offset + size; at++) {
    if (shared_initialised[at] == block_serial) continue;
    if (uninitialised_reads++ < 3)
      report("%s: %s, pc=+0x%llx, smem=+0x%llx",
             shared_initialised[at] == IN_FLIGHT ? "READ OF AN UNFINISHED cp.async (no wait before it)"
                                                 : "UNINITIALISED shared read",
             Here().text, relative(pc), (Printed)at);
    return;
  }
}

void shared_access(uint64_t address, unsigned size, bool write, bool atomic, uint64_t pc, AccessKind kind) {
  const uint64_t offset = shared_offset(address), dynamic = address - (uint64_t)emulate_dynamic_shared;
  char detail[128];
  if (dynamic < DYNAMIC_SHARED_BYTES) {
    if (dynamic + size > launch->shared_bytes) {
      snprintf(detail, sizeof detail, "dynamic shared memory: offset %llu, launch gave %llu bytes", (Printed)dynamic,
               (Printed)launch->shared_bytes);
      out_of_shared_bounds(size, write, pc, detail);
    }
  } else if (launch->shared_symbol_count && (!shared_valid[offset] || !shared_valid[offset + size - 1])) {
    snprintf(detail, sizeof detail, "static shared memory, between arrays: smem=+0x%llx", (Printed)offset);
    out_of_shared_bounds(size, write, pc, detail);
  }
  check_alignment(address, size, "shared", pc);
  const SiteKind plain = write ? SHARED_STORE : SHARED_LOAD;
  const uint32_t site = site_of(pc, atomic             ? ATOMIC
                                    : kind == LDMATRIX ? LDMATRIX_LOAD
                                    : kind == WMMA     ? WMMA_ACCESS
                                                       : plain);
  if (launch->flags & RACES) {
    if (hopper) hopper_shared_access(offset, size, write, pc);
    if (!write) check_initialised(offset, size, pc);
    for (unsigned i = 0; i < size; i++) {
      if (write) shared_initialised[offset + i] = block_serial;
      check_races(current_shadow(shared_shadow, offset + i), write, atomic, site, address + i, true);
    }
  }
  if (launch->flags & COUNT) current->log.push_back({address, site, (uint16_t)size});
}

void global_access(const Buffer& b, uint64_t address, unsigned size, bool write, bool atomic, uint64_t pc,
                   AccessKind kind) {
  const uint64_t offset = address - (uint64_t)b.base;
  if (offset + size > b.size) out_of_bounds(address, size, write, pc, " (straddles the end)");
  if (b.valid && (!b.valid[offset] || !b.valid[offset + size - 1]))
    out_of_bounds(address, size, write, pc, " (between the elements of a strided array)");
  if (write && b.read_only) {
    report("WRITE to read-only (const) argument %d at pc=+0x%llx, %s", b.argument, relative(pc), Here().text);
    stop();
  }
  check_alignment(address, size, "global", pc);
  const SiteKind plain = write ? GLOBAL_STORE : GLOBAL_LOAD;
  const uint32_t site = site_of(pc, atomic             ? ATOMIC
                                    : kind == WMMA     ? WMMA_ACCESS
                                    : kind == CP_ASYNC ? ASYNC_COPY
                                                       : plain);
  if ((launch->flags & RACES) && !b.read_only) {
    const uint64_t first = first_of_buffer[&b - launch->buffers], last = (offset + size - 1) / b.element;
    for (uint64_t e = offset / b.element; e <= last; e++)
      check_races(current_shadow(buffer_shadow, first + e), write, atomic, site, address, false);
  }
  if (launch->flags & COUNT) current->log.push_back({address, site, (uint16_t)size});
}

// Every access of a kernel comes here, in the modes that check or count.
void access(uint64_t address, unsigned size, bool write, bool atomic, uint64_t pc, AccessKind kind) {
  if (!current) return;
  if (address >= (uint64_t)stacks && address < (uint64_t)stacks + stack_bytes * MAX_THREADS) {  // a local variable
    if (hopper) hopper_stack_access(address, size, write, pc);
    return;
  }
  if (is_shared(address)) return shared_access(address, size, write, atomic, pc, kind);
  if (address - (uint64_t)launch->statistics < sizeof(Statistics)) return;
  if (const Buffer* b = find_buffer(address)) return global_access(*b, address, size, write, atomic, pc, kind);
  const bool in_module = address >= (uint64_t)module_low && address < (uint64_t)module_high;
  if (!in_module) out_of_bounds(address, size, write, pc);  // else __device__ or __constant__ data, or a literal
}

// The same, as if another thread of the block did it.
template <class Function>
void as_thread(int thread, Function function) {
  Fiber* const before = current;
  current = &fibers[thread];
  threadIdx = current->index;
  function();
  current = before;
  threadIdx = before ? before->index : threadIdx;
}

void trace(const void* address, unsigned size, bool write, bool atomic, AccessKind kind, const void* pc) {
  if (launch->flags & TRACK) access((uint64_t)address, size, write, atomic, pc ? (uint64_t)pc : CALLER, kind);
}

void trace_as(int lane, const void* address, unsigned size, AccessKind kind, const void* pc) {
  if (!(launch->flags & TRACK)) return;
  as_thread(current->warp * 32 + lane, [&] { access((uint64_t)address, size, false, false, (uint64_t)pc, kind); });
}

unsigned shared_address(const void* pointer) {
  if (!is_shared((uint64_t)pointer)) fail("__cvta_generic_to_shared of an address outside shared memory");
  return (unsigned)shared_offset((uint64_t)pointer);
}

void* shared_pointer(unsigned address) { return shared_low + address; }

void reset_access() {
  races.clear();
  uninitialised_reads = 0;
  const size_t bytes = shared_high - shared_low;
  shared_valid.reserve(bytes);
  for (uint64_t i = 0; i < launch->shared_symbol_count; i++)
    std::fill_n(&shared_valid[launch->shared_symbols[2 * i]], launch->shared_symbols[2 * i + 1], 1);
  if (!(launch->flags & RACES)) return;
  shared_shadow.reserve(bytes);
  shared_initialised.reserve(bytes);
  first_of_buffer.clear();
  uint64_t elements = 0;
  for (uint64_t i = 0; i < launch->buffer_count; i++) {
    const Buffer& b = launch->buffers[i];
    first_of_buffer.push_back(elements);
    if (!b.read_only) elements += (b.size + b.element - 1) / b.element;
  }
  if (buffer_shadow.size() > std::max(elements, KEPT_SHADOWS)) buffer_shadow.clear();
  buffer_shadow.reserve(elements);
}

}  // namespace emulate
