// The launch server: a small process that runs launches, one after another, for the process that started it.
//
//   server SOCKET MEMORY BYTES      (file descriptors; the size of the memory both share)
//
// A message on the socket is the path of a kernel library; the Launch lies at the start of the shared memory.  The
// answer is one byte.  A launch that goes wrong ends the server, with a report left in the shared memory: the next
// server knows nothing of it.  Of the shared memory a kernel can touch the arrays of its launch only.
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "launch.hpp"

namespace {

using emulate::Buffer;
using emulate::Launch;
typedef int LaunchFunction(Launch*);

int parent;  // the socket
const uint64_t PAGE = sysconf(_SC_PAGESIZE);

// Also while a kernel runs: nobody waits for it any more.
void on_socket(int) {
  pollfd state{parent, 0, 0};
  if (poll(&state, 1, 0) == 1 && (state.revents & POLLHUP)) _exit(0);
}

void end_with_parent() {
  struct sigaction action{};
  action.sa_handler = on_socket;
  action.sa_flags = SA_RESTART;
  sigaction(SIGIO, &action, nullptr);
  fcntl(parent, F_SETOWN, getpid());
  fcntl(parent, F_SETFL, fcntl(parent, F_GETFL) | O_ASYNC);
}

LaunchFunction* launcher(const std::string& path, Launch* launch) {
  static std::map<std::string, LaunchFunction*> known;
  LaunchFunction*& function = known[path];
  if (!function) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library) function = (LaunchFunction*)dlsym(library, "emulate_launch");
    if (!function) {
      snprintf(launch->report, launch->report_bytes, "the launch server cannot load a kernel library: %s", dlerror());
      _exit(6);
    }
  }
  return function;
}

// Let the whole pages of [address, address + bytes) be used so.
void protect(uint64_t address, uint64_t bytes, int protection) {
  const uint64_t low = address / PAGE * PAGE, high = (address + bytes + PAGE - 1) / PAGE * PAGE;
  if (high > low && mprotect((void*)low, high - low, protection)) _exit(7);
}

void protect_arrays(const Launch& launch, bool open) {
  for (uint64_t i = 0; i < launch.buffer_count; i++) {
    const Buffer& b = launch.buffers[i];
    protect((uint64_t)b.base, b.size, !open ? PROT_NONE : b.read_only ? PROT_READ : PROT_READ | PROT_WRITE);
    if (b.valid) protect((uint64_t)b.valid, b.size, open ? PROT_READ : PROT_NONE);
  }
}

// Stacks of the threads: kept, since the first use of a page costs more than a small launch.
uint8_t* stacks(uint64_t bytes) {
  static uint8_t* kept;
  static uint64_t size;
  if (size != bytes) {
    if (kept) munmap(kept, size);
    void* made = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made == MAP_FAILED) _exit(7);
    kept = (uint8_t*)made;
    size = bytes;
  }
  return kept;
}

}  // namespace

int main(int, char** arguments) {
  parent = atoi(arguments[1]);
  const int memory_file = atoi(arguments[2]);
  signal(SIGINT, SIG_IGN);  // the parent's affair
  end_with_parent();
  void* memory = mmap(nullptr, strtoull(arguments[3], nullptr, 10), PROT_NONE, MAP_SHARED, memory_file, 0);
  if (memory == MAP_FAILED) return 7;
  protect((uint64_t)memory, emulate::HEAD_BYTES, PROT_READ | PROT_WRITE);
  if (send(parent, &memory, sizeof memory, MSG_NOSIGNAL) < 0) return 0;
  char path[4096];
  for (;;) {
    const ssize_t length = recv(parent, path, sizeof path, 0);
    if (length <= 0) return 0;
    auto* launch = (Launch*)memory;
    LaunchFunction* run = launcher(std::string(path, length), launch);
    launch->stacks = stacks(launch->stack_bytes * emulate::MAX_THREADS);
    protect_arrays(*launch, true);
    if (const int code = run(launch)) _exit(code);
    protect_arrays(*launch, false);
    if (send(parent, "", 1, MSG_NOSIGNAL) < 0) return 0;
  }
}
