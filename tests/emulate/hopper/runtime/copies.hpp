// Bulk copies (TMA) between global and shared memory, and what shared memory looks like to the asynchronous proxy.
#pragma once

namespace emulate {

// Ordering ------------------------------------------------------------------------------------------------------------

// Has the current thread waited for the mbarrier of the copy that wrote a chunk?
inline bool waited_for(const Chunk& c) { return clock_of(current->number)[thread_count + c.mbarrier] > c.phase; }

// May the current thread overwrite what warpgroups have read by wgmma?
void check_wgmma_reads(const Chunk& c, uint64_t pc, const char* what, uint32_t offset) {
  for (int group = 0; group < MAX_WARPGROUPS; group++) {
    if (!c.reads[group]) continue;
    for (int w = 0; w < 4; w++) {
      const int warp = group * 4 + w;
      if (warp != current->warp && !heard_of(warp * 32, wgmma_reads[c.reads[group]].clock[w]))
        fail_at(pc,
                "RACE: %s overwrites smem=+0x%x, which a wgmma of warpgroup %d read; warp %d has not signalled this "
                "thread since",
                what, offset, group, warp);
    }
  }
}

// Ordinary accesses of these bytes must be ordered before the copy that overwrites them.
void check_ordinary_accesses(uint32_t offset, uint32_t bytes, uint64_t pc, const char* what) {
  for (uint32_t o = offset; o < offset + bytes; o += 2) {
    const Shadow& s = current_shadow(shared_shadow, o);
    const bool reads_unordered = s.read.epoch && (unordered(s.read) || unordered(s.other_read));
    if (s.write.epoch && unordered(s.write))
      fail_at(pc, "RACE: %s and a write by thread %d at pc=+0x%llx touch smem=+0x%x without a barrier between", what,
              s.write.thread, relative(sites[s.write.site].pc), o);
    if (reads_unordered)
      fail_at(pc, "RACE: %s and a read by thread %d at pc=+0x%llx touch smem=+0x%x without a barrier between", what,
              s.read.thread, relative(sites[s.read.site].pc), o);
  }
}

constexpr const char* UNFINISHED_COPY =
    "while a bulk copy is still writing it (mbarrier wait missing, wrong parity or wrong expect_tx)";

// The asynchronous proxy reads one chunk; return its version.  `swizzle` >= 0: what the reader thinks it is.
uint64_t async_read(uint32_t offset, uint64_t pc, const char* what, int swizzle = -1) {
  if (!shared_range_exists(offset, 16))
    fail_at(pc, "OUT OF BOUNDS: %s reads smem=+0x%x, outside the block's shared memory", what, offset);
  const Chunk& c = chunks[offset >> 4];
  if (c.copy == Chunk::IN_FLIGHT) fail_at(pc, "%s reads smem=+0x%x %s", what, offset, UNFINISHED_COPY);
  if (!(launch->flags & RACES)) return c.version;
  if (c.holds_mbarrier) fail_at(pc, "%s reads smem=+0x%x, which holds an mbarrier", what, offset);
  if (c.copy == Chunk::LANDED) {
    if (!waited_for(c))
      fail_at(pc,
              "RACE: %s reads smem=+0x%x, written by a bulk copy for whose mbarrier (smem=+0x%x) this thread has not "
              "waited",
              what, offset, mbarriers[c.mbarrier].offset);
    if (!c.stored && swizzle >= 0 && swizzle != c.swizzle)
      fail_at(pc, "SWIZZLE: the %s descriptor says %d bytes, the copy that wrote smem=+0x%x used %d", what,
              swizzle ? 16 << swizzle : 0, offset, c.swizzle ? 16 << c.swizzle : 0);
  } else if (!c.stored) {
    fail_at(pc, "UNINITIALISED: %s reads smem=+0x%x, which nothing has written", what, offset);
  }
  if (c.stored) {
    if (unordered(c.store))
      fail_at(pc, "RACE: %s reads smem=+0x%x, written by thread %d without a barrier between", what, offset,
              c.store.thread);
    if (hopper_threads[c.store.thread].proxy_fences == c.store_fences)
      fail_at(pc,
              "MISSING fence.proxy.async: %s reads smem=+0x%x, which thread %d wrote with ordinary stores and did not "
              "fence",
              what, offset, c.store.thread);
  }
  return c.version;
}

// An ordinary access of shared memory (mode check).
void hopper_shared_access(uint32_t offset, unsigned size, bool write, uint64_t pc) {
  const char* what = write ? "write" : "read";
  for (uint32_t i = offset >> 4; i <= (offset + size - 1) >> 4; i++) {
    Chunk& c = chunks[i];
    if (c.holds_mbarrier)
      for (const auto& b : mbarriers)
        if (b.live && offset < b.offset + 8 && b.offset < offset + size)
          fail_at(pc, "ordinary %s of a live mbarrier object (smem=+0x%x)", what, b.offset);
    if (c.copy == Chunk::IN_FLIGHT) fail_at(pc, "%s of smem=+0x%x %s", what, offset, UNFINISHED_COPY);
    if (c.copy == Chunk::LANDED && !waited_for(c))
      fail_at(pc,
              "RACE: %s of smem=+0x%x, written by a bulk copy for whose mbarrier (smem=+0x%x) this thread has not "
              "waited",
              what, offset, mbarriers[c.mbarrier].offset);
    if (!write) continue;
    check_wgmma_reads(c, pc, "an ordinary store", offset);
    c.version++;
    c.stored = 1;
    c.store = stamp_now(0);
    c.store_fences = hopper_thread().proxy_fences;
  }
}

// The rows of a tile -------------------------------------------------------------------------------------------------

inline uint32_t swizzled(uint32_t address, int bits) { return address ^ (((address >> 7) & ((1u << bits) - 1)) << 4); }

uint32_t tile_bytes(const TensorMap& m) {
  if (m.im2col) return (uint32_t)m.channels * m.pixels * m.element_bytes;
  uint32_t bytes = m.element_bytes;
  for (int i = 0; i < m.rank; i++) bytes *= m.box[i];
  return bytes;
}

// One row of a tile: where it begins in the tile, and which of its bytes lie in the array (global 0: none).
struct Row {
  uint32_t begin, bytes;
  uint64_t global;
  uint32_t lead, valid;
};

// The row of `length` elements whose first has the innermost coordinate c0; `base` is the address of c0 = 0.
Row clipped(const TensorMap& m, uint32_t number, uint32_t length, int64_t c0, uint64_t base, bool inside) {
  const int64_t low = std::max<int64_t>(0, -c0), high = std::min<int64_t>(length, (int64_t)m.sizes[0] - c0);
  Row row{number * length * m.element_bytes, length * m.element_bytes, 0, 0, 0};
  if (inside && high > low) {
    row.global = base + (c0 + low) * m.element_bytes;
    row.lead = (uint32_t)low * m.element_bytes;
    row.valid = (uint32_t)(high - low) * m.element_bytes;
  }
  return row;
}

template <class Function>
void for_each_row_tiled(const BulkCopy& copy, Function function) {
  const TensorMap& m = copy.map;
  uint32_t rows = 1;
  for (int i = 1; i < m.rank; i++) rows *= m.box[i];
  for (uint32_t r = 0; r < rows; r++) {
    uint32_t rest = r;
    uint64_t base = m.base;
    bool inside = true;
    for (int i = 1; i < m.rank; i++) {
      const int64_t at = (int64_t)copy.coordinates[i] + rest % m.box[i];
      rest /= m.box[i];
      inside = inside && at >= 0 && at < m.sizes[i];
      base += at * m.strides[i - 1];
    }
    function(clipped(m, r, m.box[0], copy.coordinates[0], base, inside));
  }
}

// A row per pixel: the pixels of the bounding box in order, image after image, each shifted by the offsets.
template <class Function>
void for_each_row_im2col(const BulkCopy& copy, Function function) {
  const TensorMap& m = copy.map;
  const int spatial = m.rank - 2;
  int64_t at[4];  // w, [h, [d,]] n
  for (int i = 0; i <= spatial; i++) at[i] = copy.coordinates[i + 1];
  for (uint32_t pixel = 0; pixel < m.pixels; pixel++) {
    uint64_t base = m.base;
    bool inside = true;
    for (int i = 0; i <= spatial; i++) {
      const int64_t shifted = at[i] + (i < spatial ? copy.offsets[i] : 0);
      inside = inside && shifted >= 0 && shifted < m.sizes[i + 1];
      base += shifted * m.strides[i];
    }
    function(clipped(m, pixel, m.channels, copy.coordinates[0], base, inside));
    int i = 0;
    for (; i < spatial; i++) {
      at[i] += m.steps[i + 1];
      if (at[i] < (int64_t)m.sizes[i + 1] + m.upper[i]) break;
      at[i] = m.lower[i];
    }
    if (i == spatial) at[spatial]++;
  }
}

template <class Function>
void for_each_row(const BulkCopy& copy, Function function) {
  if (copy.map.im2col)
    for_each_row_im2col(copy, function);
  else
    for_each_row_tiled(copy, function);
}

// Copy bytes from or to a tile in shared memory, whose 16-byte units are swizzled.
void copy_swizzled(uint32_t tile, uint32_t begin, uint8_t* bytes, uint32_t count, int bits, bool to_shared) {
  while (count) {
    const uint32_t linear = tile + begin, at = swizzled(linear & ~15u, bits) | (linear & 15);
    const uint32_t now = std::min(count, 16 - (linear & 15));
    if (to_shared)
      memcpy(shared_low + at, bytes, now);
    else
      memcpy(bytes, shared_low + at, now);
    begin += now;
    bytes += now;
    count -= now;
  }
}

// Loads ---------------------------------------------------------------------------------------------------------------

// The global side of a copy, as an access of the thread that issued it.
void global_side(const BulkCopy& copy, uint64_t address, uint32_t bytes, bool write) {
  if (launch->flags & RACES) as_thread(copy.thread, [&] { access(address, bytes, write, false, copy.pc, PLAIN); });
}

void land_copy(size_t number) {
  const BulkCopy copy = bulk_copies[number];
  bulk_copies.erase(bulk_copies.begin() + number);
  if (copy.tensor) {
    for_each_row(copy, [&](const Row& row) {
      std::vector<uint8_t> bytes(row.bytes);  // outside the array: zeros
      if (row.global) {
        memcpy(&bytes[row.lead], (void*)row.global, row.valid);
        global_side(copy, row.global, row.valid, false);
      }
      copy_swizzled(copy.shared_offset, row.begin, bytes.data(), row.bytes, copy.map.swizzle, true);
    });
  } else {
    memcpy(shared_low + copy.shared_offset, (void*)copy.global, copy.bytes);
    global_side(copy, copy.global, copy.bytes, false);
  }
  Mbarrier& b = mbarriers[copy.mbarrier];
  for_each_chunk(copy.shared_offset, copy.bytes, [&](Chunk& c, uint32_t) {
    c.copy = Chunk::LANDED;
    c.mbarrier = copy.mbarrier;
    c.phase = b.phase;
    c.swizzle = copy.tensor ? copy.map.swizzle : 0;
    c.stored = 0;
    std::fill(std::begin(c.reads), std::end(c.reads), 0);
  });
  if (launch->flags & RACES) std::fill_n(&shared_initialised[copy.shared_offset], copy.bytes, block_serial);
  polling_rounds = 0;
  b.bytes -= copy.bytes;
  check_phase(b);
}

// Choose by the thread order, among the copies that somebody waits for if there are any.
void land_one_copy() {
  std::vector<size_t> candidates;
  for (size_t i = 0; i < bulk_copies.size(); i++)
    if (!mbarriers[bulk_copies[i].mbarrier].waiting.empty()) candidates.push_back(i);
  if (candidates.empty())
    for (size_t i = 0; i < bulk_copies.size(); i++) candidates.push_back(i);
  const uint32_t order = launch->thread_order;
  if (order == RANDOM)
    land_copy(candidates[random_number() % candidates.size()]);
  else
    land_copy(order == REVERSE || order == DEPTH_REVERSE ? candidates.back() : candidates.front());
}

void issue_load(BulkCopy& copy, const void* target, const void* barrier, uint32_t alignment, uint64_t pc) {
  const char* what = copy.tensor ? "cp.async.bulk.tensor" : "cp.async.bulk";
  copy.shared_offset = shared_offset_of(target, pc, what);
  copy.pc = pc;
  copy.thread = current->number;
  if (copy.shared_offset % alignment)
    fail_at(pc, "%s: destination smem=+0x%x is not aligned to %u bytes%s", what, copy.shared_offset, alignment,
            alignment > 128 ? " (repeat of the swizzle pattern)" : "");
  if (!shared_range_exists(copy.shared_offset, copy.bytes))
    fail_at(pc,
            "OUT OF BOUNDS: %s writes %u bytes at smem=+0x%x, outside the block's shared memory (%llu dynamic bytes)",
            what, copy.bytes, copy.shared_offset, (Printed)launch->shared_bytes);
  Mbarrier& b = find_mbarrier(barrier, pc, what);
  copy.mbarrier = number_of(b);
  const bool checked = launch->flags & RACES;
  if (checked && hopper_threads[b.initialised.thread].init_fences == b.init_fences)
    fail_at(pc,
            "MISSING fence.mbarrier_init (or fence.proxy.async): %s uses an mbarrier (smem=+0x%x) whose initialisation "
            "was not fenced",
            what, b.offset);
  for_each_chunk(copy.shared_offset, copy.bytes, [&](Chunk& c, uint32_t o) {
    if (c.copy == Chunk::IN_FLIGHT)
      fail_at(pc, "RACE: %s writes smem=+0x%x while an earlier bulk copy is still writing it", what, o);
    if (c.holds_mbarrier) fail_at(pc, "%s overwrites smem=+0x%x, which holds an mbarrier", what, o);
    if (!checked) return;
    check_wgmma_reads(c, pc, what, o);
    const bool read = std::any_of(std::begin(c.reads), std::end(c.reads), [](uint32_t r) { return r != 0; });
    if (c.copy == Chunk::LANDED && !waited_for(c) && !read)
      fail_at(pc,
              "RACE: %s overwrites smem=+0x%x, which holds an earlier copy that nobody this thread has heard from has "
              "consumed",
              what, o);
  });
  if (checked) {
    check_ordinary_accesses(copy.shared_offset, copy.bytes, pc, what);
    std::fill_n(&shared_initialised[copy.shared_offset], copy.bytes, IN_FLIGHT);
  }
  for_each_chunk(copy.shared_offset, copy.bytes, [&](Chunk& c, uint32_t) {
    c.copy = Chunk::IN_FLIGHT;
    c.mbarrier = copy.mbarrier;
    c.version++;
  });
  memset(shared_low + copy.shared_offset, 0xff, copy.bytes);
  bulk_copies.push_back(copy);
}

// Im2col: the first pixel must be one of the bounding box's, the offsets small enough for their field.
void check_im2col(const BulkCopy& copy, uint64_t pc) {
  const TensorMap& m = copy.map;
  const int spatial = m.rank - 2, most = spatial == 1 ? 65535 : spatial == 2 ? 255 : 31;
  for (int i = 0; i < spatial; i++) {
    const int c = copy.coordinates[i + 1], low = m.lower[i], high = (int)m.sizes[i + 1] + m.upper[i];
    if (c < low || c >= high)
      fail_at(pc, "im2col: coordinate %d (%d) is outside the bounding box [%d, %d)", i + 1, c, low, high);
    if ((c - low) % m.steps[i + 1])
      fail_at(pc, "im2col: coordinate %d (%d) is not on the traversal grid (lower corner %d, stride %d)", i + 1, c, low,
              m.steps[i + 1]);
    if (copy.offsets[i] > most) fail_at(pc, "im2col: offset %d out of range", copy.offsets[i]);
  }
}

BulkCopy tensor_copy(const void* map, bool im2col, std::initializer_list<int> coordinates,
                     std::initializer_list<int> offsets, uint64_t pc) {
  BulkCopy copy{};
  memcpy(&copy.map, map, sizeof copy.map);
  if (copy.map.magic != TENSOR_MAP_MAGIC)
    fail_at(pc, "cp.async.bulk.tensor: not a tensor map (pass it as const __grid_constant__ ptx::TensorMap)");
  copy.tensor = true;
  copy.im2col = im2col;
  std::copy(coordinates.begin(), coordinates.end(), copy.coordinates);
  std::copy(offsets.begin(), offsets.end(), copy.offsets);
  if (copy.map.rank != coordinates.size() || (copy.map.im2col != 0) != im2col)
    fail_at(pc, "cp.async.bulk.tensor.%zud%s with a tensor map of rank %d%s", coordinates.size(),
            im2col ? ".im2col" : ".tile", copy.map.rank, copy.map.im2col ? " (im2col)" : " (tiled)");
  if (im2col) check_im2col(copy, pc);
  copy.bytes = tile_bytes(copy.map);
  return copy;
}

// A swizzled tile begins where the pattern does.
inline uint32_t tile_alignment(const TensorMap& m) { return 128u << m.swizzle; }

void tensor_load(void* target, const void* map, void* barrier, std::initializer_list<int> coordinates) {
  BulkCopy copy = tensor_copy(map, false, coordinates, {}, CALLER);
  issue_load(copy, target, barrier, tile_alignment(copy.map), CALLER);
}

void tensor_load_im2col(void* target, const void* map, void* barrier, std::initializer_list<int> coordinates,
                        std::initializer_list<int> offsets) {
  BulkCopy copy = tensor_copy(map, true, coordinates, offsets, CALLER);
  issue_load(copy, target, barrier, tile_alignment(copy.map), CALLER);
}

void check_bulk_range(uint64_t global, unsigned bytes, bool write, uint64_t pc) {
  if (global % 16 || bytes % 16 || !bytes)
    fail_at(pc, "cp.async.bulk: %s and size (%u) must be multiples of 16 bytes", write ? "destination" : "source",
            bytes);
  const Buffer* b = find_buffer(global);
  if (!b || (write && b->read_only) || global + bytes > (uint64_t)b->base + b->size)
    out_of_bounds(global, bytes, write, pc, " (cp.async.bulk)");
}

void bulk_load(void* target, const void* origin, unsigned bytes, void* barrier) {
  check_bulk_range((uint64_t)origin, bytes, false, CALLER);
  BulkCopy copy{};
  copy.global = (uint64_t)origin;
  copy.bytes = bytes;
  issue_load(copy, target, barrier, 16, CALLER);
}

// Stores --------------------------------------------------------------------------------------------------------------

// The sum of the versions of a store's chunks: it changes when shared memory does.
uint64_t versions_of(const BulkCopy& store, bool check) {
  uint64_t sum = 0;
  for_each_chunk(store.shared_offset, store.bytes,
                 [&](Chunk& c, uint32_t o) { sum += check ? async_read(o, store.pc, "bulk store") : c.version; });
  return sum;
}

void issue_store(BulkCopy& store, const void* origin, uint32_t alignment, uint64_t pc) {
  store.pc = pc;
  store.thread = current->number;
  store.shared_offset = shared_offset_of(origin, pc, "bulk store");
  if (store.shared_offset % alignment) fail_at(pc, "bulk store: source is not aligned to %u bytes", alignment);
  store.group = hopper_thread().bulk_group;
  store.versions = versions_of(store, true);
  hopper_thread().stores.push_back(store);
}

void tensor_store(const void* map, const void* origin, std::initializer_list<int> coordinates) {
  BulkCopy store = tensor_copy(map, false, coordinates, {}, CALLER);
  issue_store(store, origin, tile_alignment(store.map), CALLER);
}

void bulk_store(void* target, const void* origin, unsigned bytes) {
  check_bulk_range((uint64_t)target, bytes, true, CALLER);
  BulkCopy store{};
  store.global = (uint64_t)target;
  store.bytes = bytes;
  issue_store(store, origin, 1, CALLER);
}

void land_store(const BulkCopy& store) {
  if (versions_of(store, false) != store.versions)
    fail_at(store.pc, "RACE: the shared memory of a bulk store changed before cp.async.bulk.wait_group");
  if (!store.tensor) {
    global_side(store, store.global, store.bytes, true);
    memcpy((void*)store.global, shared_low + store.shared_offset, store.bytes);
    return;
  }
  for_each_row(store, [&](const Row& row) {
    if (!row.global) return;
    std::vector<uint8_t> bytes(row.bytes);
    copy_swizzled(store.shared_offset, row.begin, bytes.data(), row.bytes, store.map.swizzle, false);
    global_side(store, row.global, row.valid, true);
    memcpy((void*)row.global, &bytes[row.lead], row.valid);
  });
}

void bulk_commit() { hopper_thread().bulk_group++; }

void bulk_wait(unsigned groups) {
  HopperThread& me = hopper_thread();
  std::vector<BulkCopy> later;
  for (const auto& store : me.stores) {
    if (store.group + groups < me.bulk_group)
      land_store(store);
    else
      later.push_back(store);
  }
  me.stores = std::move(later);
}

}  // namespace emulate
