// __syncthreads and the operations of a warp: threads wait for each other, and must wait for the same thing.
#pragma once

namespace emulate {

// All threads that still live wait at a barrier: let them go on, if it is one and the same.
void release_barrier() {
  Fiber* released[MAX_THREADS] = {};
  int count = 0, trues = 0;
  for (int i = 0; i < thread_count; i++)
    if (fibers[i].state == AT_BARRIER) released[count++] = &fibers[i];
  const Fiber& first = *released[0];
  for (int i = 1; i < count; i++) {
    const Fiber& f = *released[i];
    if (f.site == first.site && !strcmp(f.file, first.file)) continue;
    report("DIVERGENT BARRIER: block (%u,%u,%u): thread (%u,%u,%u) is at %s:%d, thread (%u,%u,%u) at %s:%d", blockIdx.x,
           blockIdx.y, blockIdx.z, first.index.x, first.index.y, first.index.z, first.file, line_of(first.site),
           f.index.x, f.index.y, f.index.z, f.file, line_of(f.site));
    stop();
  }
  if (live_count < thread_count && !(launch->flags & EARLY_EXIT)) {
    report("DIVERGENT BARRIER: block (%u,%u,%u): %d thread(s) returned before the barrier at %s:%d", blockIdx.x,
           blockIdx.y, blockIdx.z, thread_count - live_count, first.file, line_of(first.site));
    stop();
  }
  for (int i = 0; i < count; i++) trues += released[i]->predicate != 0;
  for (int i = 0; i < count; i++) {
    Fiber& f = *released[i];
    f.reduced = f.reduction == ANY ? trues > 0 : f.reduction == ALL ? trues == count : trues;
  }
  waiting_at_barrier = 0;
  block_epoch++;
  count_transactions();
  counters[BARRIERS]++;
  join_clocks(0, thread_count);
  make_ready(released, count);
}

int barrier_reduce(const char* file, int site, int predicate, int reduction) {
  Fiber* me = current;
  me->state = AT_BARRIER;
  me->file = file;
  me->site = site;
  me->what = "__syncthreads";
  me->reduction = reduction;
  me->predicate = predicate;
  if (++waiting_at_barrier == live_count) release_barrier();
  run_next();
  return me->reduced;
}

void barrier(const char* file, int site) { barrier_reduce(file, site, 0, ANY); }

// Has every live lane that the fiber's mask names arrived at the same operation?
bool warp_complete(const Fiber& f) {
  const int base = f.warp * 32;
  for (int lane = 0; lane < 32 && base + lane < thread_count; lane++) {
    const Fiber& o = fibers[base + lane];
    if (!(f.mask >> lane & 1) || o.state == DONE) continue;
    if (o.state != IN_WARP_OPERATION || o.mask != f.mask || o.what != f.what || o.site != f.site) return false;
  }
  return true;
}

void finish_warp(const Fiber& f, WarpFunction together) {
  void* lanes[32] = {};
  Fiber* released[32];
  uint32_t present = 0;
  int count = 0;
  const int base = f.warp * 32;
  for (int lane = 0; lane < 32 && base + lane < thread_count; lane++) {
    Fiber& o = fibers[base + lane];
    if (!(f.mask >> lane & 1) || o.state != IN_WARP_OPERATION) continue;
    lanes[lane] = o.payload;
    present |= 1u << lane;
    released[count++] = &o;
  }
  if (together) together(lanes, present);
  make_ready(released, count, true);
}

void warp_operation(const char* what, const char* file, int site, unsigned mask, void* payload, WarpFunction together) {
  Fiber* me = current;
  if (!(mask >> me->lane & 1))
    fail("%s (%s:%d): mask %08x does not name the calling lane %d", what, file, line_of(site), mask, me->lane);
  counters[strcmp(what, "shfl") ? WARP_OPERATIONS : SHUFFLES]++;
  me->state = IN_WARP_OPERATION;
  me->what = what;
  me->file = file;
  me->site = site;
  me->mask = mask;
  me->payload = payload;
  if (warp_complete(*me)) finish_warp(*me, together);
  run_next();
}

unsigned active_mask() {
  unsigned mask = 0;
  const int base = current->warp * 32;
  for (int lane = 0; lane < 32 && base + lane < thread_count; lane++)
    if (fibers[base + lane].state != DONE) mask |= 1u << lane;
  return mask;
}

// Only a synchronisation of the whole warp is taken to order memory: careful, not exact.
void sync_warp(const char* file, int site, unsigned mask) {
  warp_operation("__syncwarp", file, site, mask, nullptr, [](void**, unsigned present) {
    if (present != active_mask()) return;
    warp_epoch[current->warp]++;
    join_warp_clocks(current->warp);
  });
}

void count(Counter counter, unsigned long long n) { counters[counter] += n; }

// A clock that goes forward; it measures nothing.
long long clock() { return (long long)switches; }

// The current thread returns: others may have waited for it, or must not.
void thread_returns() {
  Fiber* me = current;
  me->state = DONE;
  live_count--;
  if (live_count == 0) {
    count_transactions();
    return_to_main();
  }
  if (waiting_at_barrier && waiting_at_barrier == live_count) release_barrier();
  const int base = me->warp * 32;
  for (int i = base; i < base + 32 && i < thread_count; i++) {
    const Fiber& o = fibers[i];
    if (o.state != IN_WARP_OPERATION || !warp_complete(o)) continue;
    report("WARP OPERATION %s (%s:%d): lanes named in mask %08x returned before it", o.what, o.file, line_of(o.site),
           o.mask);
    stop();
  }
  run_next();
  __builtin_unreachable();
}

}  // namespace emulate
