// cp.async: copies that land when the thread waits for them, as late as it is allowed to be.
#pragma once

namespace emulate {

// The copy lands: a write by the issuing thread, now.
void land(const PendingCopy& copy) {
  memset(copy.target, 0, copy.size);
  if (copy.valid) memcpy(copy.target, copy.origin, copy.valid);
  // Counted when it was issued.
  if (launch->flags & RACES) access((uint64_t)copy.target, copy.size, true, false, copy.pc, PLAIN);
}

void copy_async(void* target, const void* origin, unsigned size, unsigned valid) {
  const uint64_t to = (uint64_t)target, from = (uint64_t)origin;
  if (to % size || (valid && from % size)) fail("cp.async: address not aligned to %u bytes", size);
  if (!is_shared(to)) fail("cp.async: destination is not shared memory");
  if (launch->flags & TRACK) {
    if (valid) access(from, valid, false, false, CALLER, CP_ASYNC);
    access(to, size, true, false, CALLER, PLAIN);
  }
  const PendingCopy copy{target, origin, size, valid, current->copy_group, CALLER};
  if (!(launch->flags & LATE_COPIES)) return land(copy);
  memset(target, 0xff, size);  // until it lands, what lies there is NaN
  if (launch->flags & RACES) std::fill_n(&shared_initialised[shared_offset(to)], size, IN_FLIGHT);
  current->copies.push_back(copy);
}

void copy_async_commit() { current->copy_group++; }

void copy_async_wait(unsigned groups) {
  std::vector<PendingCopy> later;
  for (const auto& copy : current->copies) {
    if (copy.group + groups < current->copy_group)
      land(copy);
    else
      later.push_back(copy);
  }
  current->copies = std::move(later);
}

void check_copies_at_return() {
  const Fiber& f = *current;
  if (f.copies.empty()) return;
  report("cp.async: thread (%u,%u,%u) of block (%u,%u,%u) returns with %zu copies never waited for", f.index.x,
         f.index.y, f.index.z, blockIdx.x, blockIdx.y, blockIdx.z, f.copies.size());
  stop();
}

}  // namespace emulate
