// A launch, in the launch server or divided among workers that it forks: blocks run one after another.
#pragma once

namespace emulate {

std::vector<const Kernel*>& kernels() {
  static std::vector<const Kernel*> all;
  return all;
}

void register_kernel(const Kernel* k) { kernels().push_back(k); }

// What a fiber runs.
void run_thread() {
  kernel->call(arguments);
  check_copies_at_return();
  check_hopper_at_return();
  thread_returns();
}

// What run_thread finds on its stack when it is switched to for the first time.
void* fresh_stack(int thread) {
  auto* top = (uint64_t*)(stacks + (size_t)(thread + 1) * stack_bytes) - 1;
#if defined(__x86_64__)
  *top = 0;
  *--top = (uint64_t)run_thread;
  return top - 6;
#else
  top -= 20;
  top[11] = (uint64_t)run_thread;
  return top;
#endif
}

// Fresh shared memory is undefined: NaN.
constexpr uint64_t CANARY_BYTES = 256;
void fill_shared() {
  uint8_t* const dynamic = emulate_dynamic_shared;
  memset(shared_low, 0xff, dynamic - shared_low);
  memset(dynamic, 0xff, std::min(launch->shared_bytes + CANARY_BYTES, DYNAMIC_SHARED_BYTES));
  uint8_t* const behind = dynamic + DYNAMIC_SHARED_BYTES;
  memset(behind, 0xff, shared_high - behind);
}

bool dynamic_shared_overrun() {
  const uint64_t end = std::min(launch->shared_bytes + CANARY_BYTES, DYNAMIC_SHARED_BYTES);
  for (uint64_t i = launch->shared_bytes; i < end; i++) {
    if (emulate_dynamic_shared[i] == 0xff) continue;
    report(
        "OUT OF BOUNDS: block (%u,%u,%u) wrote past the %llu bytes of dynamic shared memory (at byte %llu); mode check "
        "names the line",
        blockIdx.x, blockIdx.y, blockIdx.z, (Printed)launch->shared_bytes, (Printed)i);
    return true;
  }
  return false;
}

// Return false if something went wrong.
bool run_block(uint64_t number) {
  block_number = number;
  blockIdx = {(unsigned)(number % gridDim.x), (unsigned)(number / gridDim.x % gridDim.y),
              (unsigned)(number / gridDim.x / gridDim.y)};
  fill_shared();
  block_serial++;
  block_epoch++;
  ready_first = ready_end = 1u << 20;  // far from 0: threads are put before the first, too
  waiting_at_barrier = 0;
  live_count = thread_count;
  Fiber* all[MAX_THREADS];
  for (int i = 0; i < thread_count; i++) {
    Fiber& f = fibers[i];
    f.copies.clear();
    f.log.clear();
    f.copy_group = 0;
    f.stack_pointer = fresh_stack(i);
    all[i] = &f;
  }
  reset_hopper();
  make_ready(all, thread_count);
  run_next();
  return !dynamic_shared_overrun();
}

// Find this library's code, data and thread-local block.
int find_module(struct dl_phdr_info* info, size_t, void*) {
  const uint64_t here = (uint64_t)&find_module;
  uint64_t low = ~0ull, high = 0, shared = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type == PT_LOAD) {
      low = std::min<uint64_t>(low, info->dlpi_addr + header.p_vaddr);
      high = std::max<uint64_t>(high, info->dlpi_addr + header.p_vaddr + header.p_memsz);
    }
    if (header.p_type == PT_TLS) shared = header.p_memsz;
  }
  if (here < low || here >= high) return 0;
  module_low = (uint8_t*)info->dlpi_addr;
  module_high = (uint8_t*)high;
  shared_low = (uint8_t*)info->dlpi_tls_data;
  shared_high = shared_low + shared;
  return 1;
}

void prepare(const Launch* l) {
  launch = l;
  kernel = kernels()[l->kernel];
  arguments = l->parameters;
  tracking = (l->flags & TRACK) != 0;
  current = nullptr;
  gridDim = {l->grid[0], l->grid[1], l->grid[2]};
  blockDim = {l->block[0], l->block[1], l->block[2]};
  thread_count = blockDim.x * blockDim.y * blockDim.z;
  warp_count = (thread_count + 31) / 32;
  block_epoch = 1;
  launch_serial++;
  std::fill(std::begin(warp_epoch), std::end(warp_epoch), 0);
  std::fill(std::begin(counters), std::end(counters), 0);
  switches = 0;
  random_state = l->seed * 2654435761u + 88172645463325252ull;
  const volatile uint8_t touched = emulate_dynamic_shared[0];  // the thread-local block exists from its first use
  (void)touched;
  dl_iterate_phdr(find_module, nullptr);
  shared_base = (char*)shared_low;
  basic_blocks = l->statistics->basic_blocks;
  stack_bytes = l->stack_bytes;
  stacks = l->stacks;
  for (int i = 0; i < thread_count; i++) {
    Fiber& f = fibers[i];
    f.number = i;
    f.warp = i / 32;
    f.lane = i % 32;
    f.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    f.state = DONE;
  }
  reset_sites();
  reset_access();
}

std::vector<uint64_t> blocks_of_worker(unsigned worker) {
  const uint64_t total = (uint64_t)gridDim.x * gridDim.y * gridDim.z, first = launch->first_block;
  const uint64_t end = launch->block_count ? std::min(total, first + launch->block_count) : total;
  std::vector<uint64_t> blocks;
  for (uint64_t b = first + worker; b < end; b += launch->workers) blocks.push_back(b);
  if (launch->block_order == REVERSE) std::reverse(blocks.begin(), blocks.end());
  if (launch->block_order == RANDOM)
    for (size_t i = blocks.size(); i > 1; i--) std::swap(blocks[i - 1], blocks[random_number() % i]);
  return blocks;
}

void add_statistics(uint64_t blocks) {
  Statistics& s = *launch->statistics;
  const auto add = [](uint64_t& total, uint64_t n) { __atomic_fetch_add(&total, n, __ATOMIC_RELAXED); };
  for (int i = 0; i < COUNTERS; i++) add(s.counters[i], counters[i]);
  add(s.blocks, blocks);
  add(s.threads, blocks * thread_count);
  add(s.switches, switches);
  if (!(launch->flags & COUNT)) return;
  s.site_count = std::min<size_t>(sites.size(), MAX_SITES);
  for (size_t i = 0; i < s.site_count; i++) {
    s.sites[i] = sites[i];
    s.sites[i].pc = relative(sites[i].pc);
  }
}

// Return false if something went wrong.
bool run_worker(const Launch* l, unsigned worker) {
  prepare(l);
  const std::vector<uint64_t> blocks = blocks_of_worker(worker);
  for (uint64_t b : blocks)
    if (!run_block(b)) return false;
  add_statistics(blocks.size());
  return races.empty() && !uninitialised_reads;
}

const char* signal_name(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "invalid memory access";
    case SIGBUS:
      return "bus error";
    case SIGFPE:
      return "arithmetic exception";
    default:
      return "illegal instruction (an array index, a shift or an integer out of range)";
  }
}

void on_signal(int signal, siginfo_t* info, void* context) {
  uint64_t pc = 0;
#if defined(__x86_64__)
  pc = ((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
#else
  pc = ((ucontext_t*)context)->uc_mcontext.pc;
#endif
  if (signal == SIGALRM) {
    report("TIMEOUT: kernel ran longer than %u s (%s)", launch->timeout_seconds, Here().text);
    _exit(4);
  }
  const uint64_t address = (uint64_t)info->si_addr;
  report("CRASH: %s at address 0x%llx, %s, pc=+0x%llx", signal_name(signal), (Printed)address, Here().text,
         relative(pc));
  if (signal == SIGSEGV) {
    if (address >= (uint64_t)stacks && address < (uint64_t)stacks + stack_bytes * MAX_THREADS)
      report("  that is a thread's stack: raise stack_bytes");
    else
      report_nearest(address);
  }
  _exit(4);
}

// Crashes and endless loops become reports.
void catch_signals(unsigned timeout) {
  static uint8_t stack[65536];
  stack_t alternate{};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof stack;
  sigaltstack(&alternate, nullptr);
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) sigaction(signal, &action, nullptr);
  alarm(timeout);
}

// Run a worker's share; return the code of the launch.
int run(const Launch* l, unsigned worker) {
  launch = l;
  catch_signals(l->timeout_seconds);
  const bool ok = run_worker(l, worker);
  fflush(stdout);
  return ok ? 0 : 3;
}

}  // namespace emulate

extern "C" {
__attribute__((visibility("default"))) int emulate_kernel_count() { return (int)emulate::kernels().size(); }

__attribute__((visibility("default"))) const emulate::Kernel* emulate_kernel(int i) { return emulate::kernels()[i]; }

// Run a launch; return 0 if all is well, else a code and a report, if this process does not end with a report.
__attribute__((visibility("default"))) int emulate_launch(emulate::Launch* launch) {
  if (launch->workers == 1) {
    const int code = emulate::run(launch, 0);
    alarm(0);
    return code;
  }
  std::vector<pid_t> workers;
  for (unsigned i = 0; i < launch->workers; i++) {
    const pid_t pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      _exit(emulate::run(launch, i));
    }
    if (pid < 0) {
      emulate::launch = launch;
      emulate::report("fork: %s", strerror(errno));
      return 5;
    }
    workers.push_back(pid);
  }
  int result = 0;
  for (pid_t pid : workers) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status))
      result = 128 + WTERMSIG(status);
    else if (WEXITSTATUS(status))
      result = WEXITSTATUS(status);
  }
  return result;
}
}
