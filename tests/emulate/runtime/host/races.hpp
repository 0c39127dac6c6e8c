// Races: two accesses of one element, one of them a write, that nothing orders.
//
// What orders accesses of a block: its barriers (counted by block_epoch), __syncwarp of a whole warp (warp_epoch), and
// on Hopper what vector clocks see.  Shuffles do not.  Blocks are not ordered; atomics do not race with atomics.
#pragma once

namespace emulate {

// When and by whom an element was accessed.
struct Stamp {
  uint32_t epoch, warp_epoch, clock, site;
  uint16_t thread;
};

// The last write, and two readers: the latest, and one that the latest is not ordered after.
struct Shadow {
  Stamp write, read, other_read;
  uint64_t write_block, read_block;  // 1 + number of the block; 0: never
  bool write_atomic, reads_atomic;
  uint32_t launch_serial;  // of the launch that all this is about
};

Zeros<Shadow> shared_shadow;              // per byte
Zeros<Shadow> buffer_shadow;              // per element of each writable buffer, one after another
std::vector<uint64_t> first_of_buffer;    // where a buffer's elements begin
constexpr size_t KEPT_SHADOWS = 1 << 20;  // a large launch's go back to the system

std::map<std::pair<uint32_t, uint32_t>, int> races;  // by their two sites
constexpr size_t MAX_RACES = 12;

// What is remembered of an element in this launch.
inline Shadow& current_shadow(Zeros<Shadow>& all, uint64_t i) {
  Shadow& s = all[i];
  if (s.launch_serial != launch_serial) {
    s = Shadow{};
    s.launch_serial = launch_serial;
  }
  return s;
}

// True once for each pair of sites, for the first few pairs.
bool is_new_race(uint32_t a, uint32_t b) { return races[std::minmax(a, b)]++ == 0 && races.size() <= MAX_RACES; }

inline Stamp stamp_now(uint32_t site) {
  return {block_epoch, warp_epoch[current->warp], clock_now(), site, current->number};
}

// Could the current thread have done its access before the stamped one, or after?
inline bool unordered(const Stamp& s) {
  if (s.epoch != block_epoch || s.thread == current->number) return false;
  const bool warp_synchronised = s.thread >> 5 == current->warp && s.warp_epoch < warp_epoch[current->warp];
  return !warp_synchronised && !heard_of(s.thread, s.clock);
}

void report_race(const char* kind, const Stamp& other, uint32_t site, uint64_t address, bool shared) {
  if (!is_new_race(other.site, site)) return;
  const uint3 a = fibers[other.thread].index, b = current->index;
  report(
      "RACE (%s, %s memory): block (%u,%u,%u) thread (%u,%u,%u) pc=+0x%llx and thread (%u,%u,%u) pc=+0x%llx touch the "
      "same address without a barrier between (%s=+0x%llx)",
      kind, shared ? "shared" : "global", blockIdx.x, blockIdx.y, blockIdx.z, a.x, a.y, a.z,
      relative(sites[other.site].pc), b.x, b.y, b.z, relative(sites[site].pc), shared ? "smem" : "address",
      (Printed)(shared ? address - (uint64_t)shared_low : address));
}

void report_race_between_blocks(const char* kind, uint64_t block, uint32_t other_site, uint32_t site,
                                uint64_t address) {
  if (!(launch->flags & BETWEEN_BLOCKS) || !is_new_race(other_site, site)) return;
  report("RACE (%s, between blocks %llu and %llu): pc=+0x%llx and pc=+0x%llx, address %llx", kind, (Printed)block,
         (Printed)block_number, relative(sites[other_site].pc), relative(sites[site].pc), (Printed)address);
}

void check_against_write(const Shadow& s, bool write, bool atomic, uint32_t site, uint64_t address, bool shared) {
  if (!s.write.epoch || (atomic && s.write_atomic)) return;
  const char* kind = write ? "write/write" : "write/read";
  if (!shared && s.write_block != block_number + 1)
    report_race_between_blocks(kind, s.write_block - 1, s.write.site, site, address);
  else if (unordered(s.write))
    report_race(kind, s.write, site, address, shared);
}

void check_against_reads(const Shadow& s, bool atomic, uint32_t site, uint64_t address, bool shared) {
  if (!s.read.epoch || (atomic && s.reads_atomic)) return;
  if (!shared && s.read_block != block_number + 1)
    report_race_between_blocks("read/write", s.read_block - 1, s.read.site, site, address);
  else if (unordered(s.read))
    report_race("read/write", s.read, site, address, shared);
  else if (unordered(s.other_read))
    report_race("read/write", s.other_read, site, address, shared);
}

// Look at one access, then remember it.
void check_races(Shadow& s, bool write, bool atomic, uint32_t site, uint64_t address, bool shared) {
  check_against_write(s, write, atomic, site, address, shared);
  if (write) {
    check_against_reads(s, atomic, site, address, shared);
    s.write = stamp_now(site);
    s.write_atomic = atomic;
    s.write_block = block_number + 1;
    return;
  }
  const Stamp now = stamp_now(site);
  const bool ordered_after_last =
      s.read.thread == current->number || (s.read.thread >> 5 == current->warp && s.read.warp_epoch < now.warp_epoch);
  if (s.read.epoch != block_epoch || s.read_block != block_number + 1) {
    s.read = s.other_read = now;
    s.read_block = block_number + 1;
    s.reads_atomic = atomic;
    return;
  }
  (ordered_after_last ? s.read : s.other_read) = now;
  s.reads_atomic &= atomic;
}

}  // namespace emulate
