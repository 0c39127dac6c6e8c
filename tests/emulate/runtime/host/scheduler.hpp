// Fibers: switching between threads, and the order in which they go on.
#pragma once

extern "C" void emulate_switch(void** save_stack_pointer, void* load_stack_pointer);
#if defined(__x86_64__)
asm(R"(
.text
.globl emulate_switch
.hidden emulate_switch
.type emulate_switch,@function
emulate_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulate_switch,.-emulate_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl emulate_switch
.hidden emulate_switch
emulate_switch:
  sub sp,sp,#160
  stp x19,x20,[sp,#0]
  stp x21,x22,[sp,#16]
  stp x23,x24,[sp,#32]
  stp x25,x26,[sp,#48]
  stp x27,x28,[sp,#64]
  stp x29,x30,[sp,#80]
  stp d8,d9,[sp,#96]
  stp d10,d11,[sp,#112]
  stp d12,d13,[sp,#128]
  stp d14,d15,[sp,#144]
  mov x9,sp
  str x9,[x0]
  mov sp,x1
  ldp x19,x20,[sp,#0]
  ldp x21,x22,[sp,#16]
  ldp x23,x24,[sp,#32]
  ldp x25,x26,[sp,#48]
  ldp x27,x28,[sp,#64]
  ldp x29,x30,[sp,#80]
  ldp d8,d9,[sp,#96]
  ldp d10,d11,[sp,#112]
  ldp d12,d13,[sp,#128]
  ldp d14,d15,[sp,#144]
  add sp,sp,#160
  ret
)");
#else
#error "the emulator runs on x86-64 and aarch64"
#endif

namespace emulate {

void* main_stack_pointer;

// Threads that can run, first in first out.
uint16_t ready[2 * MAX_THREADS];
unsigned ready_first, ready_end;

inline bool nobody_ready() { return ready_first == ready_end; }

void resume(Fiber* next) {
  Fiber* previous = current;
  current = next;
  threadIdx = next->index;
  switches++;
  emulate_switch(previous ? &previous->stack_pointer : &main_stack_pointer, next->stack_pointer);
}

// The block is done: back to the loop over blocks.
void return_to_main() {
  static void* unused;
  current = nullptr;
  emulate_switch(&unused, main_stack_pointer);
}

void make_ready(Fiber* fiber) {
  fiber->state = READY;
  ready[ready_end++ % (2 * MAX_THREADS)] = fiber->number;
}

void make_ready_first(Fiber* fiber) {
  fiber->state = READY;
  ready[--ready_first % (2 * MAX_THREADS)] = fiber->number;
}

// Let threads go on, in the order of the launch.  In the depth orders a warp that completed an operation together
// runs on before any other warp does.
void make_ready(Fiber** released, int count, bool one_warp = false) {
  const uint32_t order = launch->thread_order;
  const bool backwards = order == REVERSE || order == DEPTH_REVERSE;
  if (one_warp && (order == DEPTH || order == DEPTH_REVERSE)) {
    for (int i = 0; i < count; i++) make_ready_first(released[backwards ? i : count - 1 - i]);
    return;
  }
  if (order == RANDOM)
    for (int i = count - 1; i > 0; i--) std::swap(released[i], released[random_number() % (i + 1)]);
  for (int i = 0; i < count; i++) make_ready(released[backwards ? count - 1 - i : i]);
}

bool hopper_progress();
[[noreturn]] void report_deadlock();

// The current thread waits or is done: run another.
void run_next() {
  while (nobody_ready() && hopper_progress()) {
  }
  if (nobody_ready()) report_deadlock();
  Fiber* next = &fibers[ready[ready_first++ % (2 * MAX_THREADS)]];
  if (next != current) resume(next);
}

void hopper_report_waits();

void report_deadlock() {
  report("DIVERGENCE: no thread can continue (block %u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z);
  struct Group {
    int count, first;
  };
  std::map<std::pair<std::string, int>, Group> groups;  // by what they wait for
  int done = 0;
  for (int i = 0; i < thread_count; i++) {
    const Fiber& f = fibers[i];
    if (f.state == DONE) {
      done++;
      continue;
    }
    const std::string what = std::string(f.what) + " " + (f.file ? f.file : "?");
    Group& group = groups.emplace(std::make_pair(what, f.site), Group{0, i}).first->second;
    group.count++;
  }
  for (const auto& [at, group] : groups)
    report("  %d thread(s) wait at %s:%d (first: thread %d)", group.count, at.first.c_str(), line_of(at.second),
           group.first);
  if (done) report("  %d thread(s) have returned", done);
  hopper_report_waits();
  stop();
}

}  // namespace emulate
