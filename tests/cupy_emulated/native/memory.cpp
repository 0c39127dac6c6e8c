// Device memory: what is allocated where, who may touch it, and the mapping through which this process does.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "memory.hpp"
#include "streams.hpp"

namespace standin {

namespace {

constexpr uint64_t FILLED_BYTES = 64 << 20;  // of one allocation, with NaN: more would take the machine's memory
constexpr uint64_t ACCOUNTED = 512;          // as a GPU rounds what is asked for
constexpr uint64_t GUARDED_ALIGNMENT = 16;   // the widest access of one thread

uint64_t up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

uint64_t next_number = 1;

Memory& opened(int device) {
  Memory& m = memories[device];
  if (m.file >= 0) return m;
  // Pages around what is allocated cost addresses only; with guards, addresses are used again as late as possible.
  m.range = settings.memory * (settings.guard ? 32 : 2) + (64 << 20);
  m.file = memfd_create("cupy-emulated", MFD_CLOEXEC);
  void* reserved = mmap((void*)base_of(device), m.range, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (m.file < 0 || ftruncate(m.file, (off_t)m.range) || reserved != (void*)base_of(device)) {
    fprintf(stderr, "cupy-emulated: the addresses of device memory are in use\n");
    abort();
  }
  m.view = (uint8_t*)mmap(nullptr, m.range, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m.file, 0);
  if (m.view == MAP_FAILED) {
    fprintf(stderr, "cupy-emulated: device memory cannot be mapped\n");
    abort();
  }
  m.gaps[PAGE] = m.range - 2 * PAGE;
  return m;
}

// Take `bytes` out of a gap; return their offset, or 0.
uint64_t take(Memory& m, uint64_t bytes) {
  const auto fitting = [&](uint64_t from, uint64_t to) {
    auto gap = m.gaps.lower_bound(from);
    while (gap != m.gaps.end() && gap->first < to && gap->second < bytes) ++gap;
    return gap != m.gaps.end() && gap->first < to ? gap : m.gaps.end();
  };
  auto gap = fitting(settings.guard ? m.cursor : 0, ~0ull);
  if (gap == m.gaps.end()) gap = fitting(0, ~0ull);
  if (gap == m.gaps.end()) return 0;
  const uint64_t start = gap->first, left = gap->second - bytes;
  m.gaps.erase(gap);
  if (left) m.gaps[start + bytes] = left;
  m.cursor = start + bytes;
  return start;
}

void put_back(Memory& m, uint64_t start, uint64_t bytes) {
  auto after = m.gaps.lower_bound(start);
  if (after != m.gaps.end() && after->first == start + bytes) {
    bytes += after->second;
    after = m.gaps.erase(after);
  }
  if (after != m.gaps.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == start) {
      before->second += bytes;
      return;
    }
  }
  m.gaps[start] = bytes;
}

}  // namespace

Memory memories[MAX_DEVICES];

int wrong_of(int device) { return memories[device].wrong; }

int fail(int device, int code) {
  if (!memories[device].wrong) memories[device].wrong = code;
  return code;
}

int file_of(int device) { return opened(device).file; }
uint64_t range_of(int device) { return opened(device).range; }

static int device_at(uint64_t address) {
  if (address < DEVICE_BASE) return -1;
  const uint64_t device = (address - DEVICE_BASE) / DEVICE_STEP;
  return device < (uint64_t)settings.devices && memories[device].file >= 0 ? (int)device : -1;
}

const Allocation* allocation_of(const void* pointer, uint64_t* start) {
  const uint64_t address = (uint64_t)pointer;
  const int device = device_at(address);
  if (device < 0) return nullptr;
  const Memory& m = memories[device];
  auto found = m.taken.upper_bound(address);
  if (found == m.taken.begin()) return nullptr;
  --found;
  if (address >= found->first + std::max<uint64_t>(found->second.bytes, 1)) return nullptr;
  if (start) *start = found->first;
  return &found->second;
}

int device_of(const void* pointer) { return allocation_of(pointer) ? device_at((uint64_t)pointer) : -1; }

bool in_one_allocation(const void* pointer, uint64_t bytes) {
  uint64_t start = 0;
  const Allocation* found = allocation_of(pointer, &start);
  return found && (uint64_t)pointer - start + bytes <= found->bytes;
}

void* host_view(const void* pointer) {
  const int device = device_at((uint64_t)pointer);
  return device < 0 ? (void*)pointer : memories[device].view + ((uint64_t)pointer - base_of(device));
}

int allocate(int device, void** pointer, size_t bytes, int64_t stream) {
  Memory& m = opened(device);
  *pointer = nullptr;
  if (!bytes) return SUCCESS;
  const uint64_t accounted = up(bytes, ACCOUNTED);
  if (bytes > settings.memory || accounted > settings.memory - m.in_use) return OUT_OF_MEMORY;
  const uint64_t pages = up(bytes, PAGE), guards = settings.guard ? PAGE : 0;
  const uint64_t at = take(m, pages + 2 * guards);
  if (!at) return OUT_OF_MEMORY;
  Allocation made{bytes, 0, pages - bytes, next_number++, stream};
  if (settings.guard) {
    made.behind = up(bytes, GUARDED_ALIGNMENT) - bytes;
    made.before = pages - bytes - made.behind;
  }
  m.in_use += accounted;
  const uint64_t first = base_of(device) + at + guards, start = first + made.before;
  memset(m.view + at + guards, 0xff, std::min(pages, FILLED_BYTES));  // NaN: nobody may count on zeros
  m.taken[start] = made;
  open_memory(device, first, pages, true);
  *pointer = (void*)start;
  if (tracing())
    Trace("allocate").number("bytes", bytes).number("number", made.number).number("device", device).number("address", start);
  return SUCCESS;
}

void give_back(void* pointer) {
  const int device = device_at((uint64_t)pointer);
  if (device < 0) return;
  Memory& m = memories[device];
  const auto found = m.taken.find((uint64_t)pointer);
  if (found == m.taken.end()) return;
  const Allocation a = found->second;
  check_surroundings(device, found->first, a, "something since");
  const uint64_t first = found->first - a.before, pages = a.before + a.bytes + a.behind;
  m.taken.erase(found);
  m.in_use -= up(a.bytes, ACCOUNTED);
  open_memory(device, first, pages, false);
  const uint64_t at = first - base_of(device), guards = settings.guard ? PAGE : 0;
  if (fallocate(m.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)pages)) memset(m.view + at, 0xff, pages);
  put_back(m, at - guards, pages + 2 * guards);
  if (tracing()) Trace("free").number("bytes", a.bytes).number("number", a.number).number("device", device);
}

// The start of something allocated, and not an address inside.
static const Allocation* whole(const void* pointer) {
  uint64_t start = 0;
  const Allocation* found = allocation_of(pointer, &start);
  return found && start == (uint64_t)pointer ? found : nullptr;
}

int release(void* pointer) {
  if (!pointer) return SUCCESS;
  const Allocation* found = whole(pointer);
  if (!found) return INVALID_VALUE;
  const int device = device_of(pointer);
  drain_device(device);  // as cudaFree does
  give_back(pointer);
  return wrong_of(device);
}

int release_in_order(void* pointer) {
  if (!pointer) return SUCCESS;
  const Allocation* found = whole(pointer);
  if (!found) return INVALID_VALUE;
  if (found->stream < 0) return release(pointer);
  return release_after(found->stream, pointer);
}

void memory_left(int device, size_t* free_bytes, size_t* total) {
  *total = settings.memory;
  *free_bytes = settings.memory - memories[device].in_use;
}

bool peer_enabled(int device, int peer) { return memories[device].peers >> peer & 1; }

int enable_peer(int device, int peer, bool enable) {
  if (peer < 0 || peer >= settings.devices || peer == device) return INVALID_DEVICE;
  if (peer_enabled(device, peer) == enable) return enable ? PEER_ACCESS_ALREADY_ENABLED : PEER_ACCESS_NOT_ENABLED;
  opened(peer);
  if (!enable) drain_device(device);
  memories[device].peers ^= 1u << peer;
  for (const auto& [start, a] : memories[peer].taken)
    open_for(device, start - a.before, a.before + a.bytes + a.behind, enable);
  return SUCCESS;
}

// Is what lies around an allocation as it was made?  Else say so, and who did it.
bool check_surroundings(int device, uint64_t start, const Allocation& a, const char* who) {
  if (!settings.guard || wrong_of(device)) return true;
  const uint8_t* const array = (const uint8_t*)host_view((void*)start);
  const auto touched = [](const uint8_t* bytes, uint64_t count) -> int64_t {
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8) {
      uint64_t word;
      memcpy(&word, bytes + i, 8);
      if (word != ~0ull) break;
    }
    for (; i < count; i++)
      if (bytes[i] != 0xff) return (int64_t)i;
    return -1;
  };
  const int64_t before = touched(array - a.before, a.before), behind = touched(array + a.bytes, a.behind);
  if (before < 0 && behind < 0) return true;
  fprintf(stderr, "cupy-emulated: %s wrote outside of allocation %llu, %llu bytes: %lld bytes %s\n", who,
          (unsigned long long)a.number, (unsigned long long)a.bytes,
          behind >= 0 ? (long long)behind : (long long)a.before - (long long)before,
          behind >= 0 ? "past its end" : "before its start");
  fail(device, ILLEGAL_ADDRESS);
  return false;
}

bool check_all_surroundings(int device, const char* who) {
  if (!settings.guard) return true;
  for (const auto& [start, a] : memories[device].taken)
    if (!check_surroundings(device, start, a, who)) return false;
  return true;
}

// What an address that a kernel must not touch lies nearest to, in words.
std::string nearest_allocation(int device, uint64_t address) {
  const Memory* m = &memories[device];
  std::string prefix;
  const int other = device_at(address);
  if (other >= 0 && other != device) {
    m = &memories[other];
    prefix = "memory of device " + std::to_string(other) + (peer_enabled(device, other) ? ", " : ", to which there is no peer access, ");
  }
  const auto after = m->taken.upper_bound(address);
  const std::pair<const uint64_t, Allocation>* best = nullptr;
  uint64_t distance = ~0ull;
  if (after != m->taken.end()) {
    best = &*after;
    distance = after->first - address;
  }
  if (after != m->taken.begin()) {
    const auto& before = *std::prev(after);
    const uint64_t end = before.first + before.second.bytes;
    const uint64_t past = address < end ? 0 : address - end;
    if (past < distance) {
      best = &before;
      distance = past;
    }
  }
  if (!best || distance > (1ull << 30)) return prefix + "near nothing that is allocated";
  const uint64_t start = best->first, end = start + best->second.bytes;
  char text[200];
  if (address >= start && address < end)
    snprintf(text, sizeof text, "byte %llu of allocation %llu, %llu bytes", (unsigned long long)(address - start),
             (unsigned long long)best->second.number, (unsigned long long)best->second.bytes);
  else
    snprintf(text, sizeof text, "%llu bytes %s allocation %llu, %llu bytes",
             (unsigned long long)(address < start ? start - address : address - end),
             address < start ? "before the start of" : "past the end of", (unsigned long long)best->second.number,
             (unsigned long long)best->second.bytes);
  return prefix + text;
}

}  // namespace standin
