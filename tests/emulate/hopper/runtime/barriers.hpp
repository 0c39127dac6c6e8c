// mbarriers, named barriers, elect.sync, and what threads wait for when nobody can run.
#pragma once

namespace emulate {

constexpr uint64_t MBARRIER_MARK = 0x6d62617200000000ull;  // with its offset, what lies where a live mbarrier is

inline int number_of(const Mbarrier& b) { return &b - mbarriers.data(); }

Mbarrier& find_mbarrier(const void* pointer, uint64_t pc, const char* what) {
  const uint32_t offset = shared_offset_of(pointer, pc, what);
  for (auto& b : mbarriers) {
    if (b.offset != offset || !b.live) continue;
    uint64_t mark;
    memcpy(&mark, shared_low + offset, 8);
    if (mark != (MBARRIER_MARK | offset))
      fail_at(pc, "%s: the mbarrier object at smem=+0x%x was overwritten", what, offset);
    if ((launch->flags & RACES) && unordered(b.initialised))
      fail_at(pc, "RACE: %s on an mbarrier (smem=+0x%x) that thread %d initialised without a barrier between", what,
              offset, b.initialised.thread);
    return b;
  }
  fail_at(pc, "%s: no mbarrier was initialised at smem=+0x%x", what, offset);
}

void wake(Fiber** released, int count) {
  polling_rounds = 0;
  make_ready(released, count);
}

// A phase is done when nothing is pending: start the next, let those go on who waited for this one.
void check_phase(Mbarrier& b) {
  if (b.pending || b.bytes) return;
  const uint32_t parity = b.phase & 1;
  b.phase++;
  b.pending = b.arrivals;
  if (clocks_run()) {
    b.done.resize(clock_width);
    b.arriving.resize(clock_width);
    advance(b.done.data(), b.arriving.data());
    b.done[thread_count + number_of(b)] = b.phase;
  }
  Fiber* released[MAX_THREADS];
  int count = 0;
  std::vector<uint16_t> still;
  for (uint16_t t : b.waiting) {
    if (hopper_threads[t].awaited_parity != parity) {
      still.push_back(t);
      continue;
    }
    hopper_threads[t].phase_done = true;
    released[count++] = &fibers[t];
  }
  b.waiting = std::move(still);
  if (count) wake(released, count);
}

void mbarrier_init(void* barrier, unsigned arrivals) {
  const uint32_t offset = shared_offset_of(barrier, CALLER, "mbarrier.init");
  if (offset % 8) fail_at(CALLER, "mbarrier.init: smem=+0x%x is not 8-byte aligned", offset);
  if (!arrivals || arrivals > 0xfffff) fail_at(CALLER, "mbarrier.init: count %u", arrivals);
  for (const auto& b : mbarriers)
    if (b.offset == offset && b.live)
      fail_at(CALLER, "mbarrier.init: smem=+0x%x already holds a live mbarrier (mbarrier.inval first)", offset);
  if (mbarriers.size() >= MAX_MBARRIERS) fail_at(CALLER, "mbarrier.init: more than %d in one block", MAX_MBARRIERS);
  if (launch->flags & RACES) access((uint64_t)barrier, 8, true, false, CALLER, PLAIN);
  const uint64_t mark = MBARRIER_MARK | offset;
  memcpy(barrier, &mark, 8);
  Mbarrier b{};
  b.offset = offset;
  b.arrivals = b.pending = arrivals;
  b.live = true;
  b.initialised = stamp_now(0);
  b.init_fences = hopper_thread().init_fences;
  mbarriers.push_back(b);
  chunks[offset >> 4].holds_mbarrier = 1;
}

void mbarrier_inval(void* barrier) {
  Mbarrier& b = find_mbarrier(barrier, CALLER, "mbarrier.inval");
  for (const auto& copy : bulk_copies)
    if ((int)copy.mbarrier == number_of(b))
      fail_at(CALLER, "mbarrier.inval: a bulk copy still uses smem=+0x%x", b.offset);
  b.live = false;
  Chunk& chunk = chunks[b.offset >> 4];
  chunk.holds_mbarrier = 0;
  for (const auto& other : mbarriers)
    if (other.live && other.offset >> 4 == b.offset >> 4) chunk.holds_mbarrier = 1;
  memset(barrier, 0xff, 8);
}

void expect_bytes(Mbarrier& b, long long bytes, uint64_t pc, const char* what) {
  b.bytes += bytes;
  if (b.bytes > 0xfffff) fail_at(pc, "%s: tx-count %lld exceeds 2^20-1", what, (long long)b.bytes);
}

void mbarrier_arrive(void* barrier, unsigned arrivals, long long bytes) {
  const char* what = bytes ? "mbarrier.arrive.expect_tx" : "mbarrier.arrive";
  Mbarrier& b = find_mbarrier(barrier, CALLER, what);
  expect_bytes(b, bytes, CALLER, what);
  if (arrivals > b.pending)
    fail_at(CALLER, "%s: %u arrival(s), but only %u of %u are outstanding in phase %u (tx-count %lld)", what, arrivals,
            b.pending, b.arrivals, b.phase, (long long)b.bytes);
  b.pending -= arrivals;
  signal_clock(b.arriving);
  check_phase(b);
}

void mbarrier_expect(void* barrier, long long bytes) {
  expect_bytes(find_mbarrier(barrier, CALLER, "mbarrier.expect_tx"), bytes, CALLER, "mbarrier.expect_tx");
}

bool mbarrier_wait(void* barrier, unsigned parity, bool blocking) {
  const char* what = blocking ? "mbarrier.try_wait" : "mbarrier.test_wait";
  const int number = number_of(find_mbarrier(barrier, CALLER, what));
  if (parity > 1) fail_at(CALLER, "mbarrier wait: parity %u", parity);
  const auto done = [&] { return (mbarriers[number].phase & 1) != parity; };
  bool ok = done();
  if (!ok) {
    HopperThread& me = hopper_thread();
    me.awaited_mbarrier = number;
    me.awaited_parity = parity;
    me.phase_done = false;
    if (blocking) {
      mbarriers[number].waiting.push_back(current->number);
      park(AT_MBARRIER, what, CALLER);
      ok = me.phase_done;
    } else {
      polling.push_back(current->number);
      park(POLLING, what, CALLER);
      ok = done();
    }
  }
  if (ok && clocks_run()) {
    mbarriers[number].done.resize(clock_width);
    advance(clock_of(current->number), mbarriers[number].done.data());
  }
  return ok;
}

void fence_mbarrier_init() { hopper_thread().init_fences++; }

void fence_async_proxy() {
  hopper_thread().init_fences++;
  hopper_thread().proxy_fences++;
}

bool elect_one() {
  struct Lane {
    bool elected;
  } mine{false};
  warp_operation("elect.sync", "ptx", 0, 0xffffffffu, &mine,
                 [](void** lanes, unsigned present) { ((Lane*)lanes[__builtin_ctz(present)])->elected = true; });
  return mine.elected;
}

void named_barrier(unsigned id, unsigned threads, bool wait) {
  const uint64_t pc = CALLER;
  if (id > 15 || threads % 32 || !threads || (int)threads > thread_count)
    fail_at(pc, "named barrier %u with %u threads", id, threads);
  NamedBarrier& b = named_barriers[id];
  if (b.arrived && b.needed != threads)
    fail_at(pc, "named barrier %u: this thread says %u threads, an earlier one %u", id, threads, b.needed);
  b.needed = threads;
  b.arrived++;
  signal_clock(b.clock);
  if (wait) b.waiting.push_back(current->number);
  const bool last = b.arrived == threads;
  if (last) {
    Fiber* released[MAX_THREADS];
    int count = 0;
    for (uint16_t t : b.waiting) {
      released[count++] = &fibers[t];
      if (clocks_run()) advance(clock_of(t), b.clock.data());
    }
    b = NamedBarrier{};
    counters[BARRIERS]++;
    if (count) wake(released, count);
  }
  if (wait) park(last ? READY : AT_NAMED_BARRIER, "bar.sync", pc);
}

void land_one_copy();

// Nobody can run: let one copy land, or let those who poll poll again.  False if neither can help.
bool hopper_progress() {
  if (!hopper) return false;
  if (!bulk_copies.empty()) {
    land_one_copy();
    return true;
  }
  if (polling.empty() || ++polling_rounds > 200) return false;
  Fiber* released[MAX_THREADS];
  int count = 0;
  for (uint16_t t : polling) released[count++] = &fibers[t];
  polling.clear();
  make_ready(released, count);
  return true;
}

void hopper_report_waits() {
  if (!hopper) return;
  for (const auto& b : mbarriers) {
    if (!b.live) continue;
    int count = 0, first = -1;
    for (int t = 0; t < thread_count; t++) {
      const bool waits = fibers[t].state == AT_MBARRIER || fibers[t].state == POLLING;
      if (waits && hopper_threads[t].awaited_mbarrier == number_of(b) && !count++) first = t;
    }
    if (!count && !b.bytes) continue;
    report("  mbarrier smem=+0x%x: phase %u, %u of %u arrivals outstanding, tx-count %lld bytes%s", b.offset, b.phase,
           b.pending, b.arrivals, (long long)b.bytes,
           b.bytes > 0   ? " (expect_tx asks for more bytes than were copied)"
           : b.bytes < 0 ? " (more bytes were copied than expect_tx announced)"
                         : "");
    if (count)
      report("    %d thread(s) wait for parity %u, first: thread %d at pc=+0x%llx", count,
             hopper_threads[first].awaited_parity, first, relative(hopper_threads[first].pc));
  }
  for (int i = 0; i < 16; i++)
    if (named_barriers[i].arrived)
      report("  named barrier %d: %u of %u threads have arrived", i, named_barriers[i].arrived,
             named_barriers[i].needed);
  for (int g = 0; g < MAX_WARPGROUPS; g++)
    if (wgmma_waiting[g])
      report("  wgmma.wait_group: %d of %d threads of warpgroup %d have arrived", wgmma_waiting[g], WARPGROUP, g);
}

}  // namespace emulate
