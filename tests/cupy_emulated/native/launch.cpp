// Launches: each device has a launch server, a process that sees device memory and runs kernels (server.cpp).
#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "memory.hpp"

extern char** environ;

namespace standin {

namespace {

struct Server {
  int socket = -1, file = -1;
  pid_t process = 0;
  Control* control = nullptr;
  std::vector<Change> changes;  // that it does not know of yet
};
Server servers[MAX_DEVICES];
std::string program;

// Signals may come at any time; Python looks at them later.
bool answered(int socket) {
  char answer;
  for (;;) {
    const ssize_t got = recv(socket, &answer, 1, 0);
    if (got >= 0 || errno != EINTR) return got == 1;
  }
}

bool sent(int socket, const void* bytes, size_t count) {
  for (;;) {
    const ssize_t done = send(socket, bytes, count, MSG_NOSIGNAL);
    if (done >= 0 || errno != EINTR) return done == (ssize_t)count;
  }
}

bool send_files(int socket, const Hello& hello, const std::vector<int>& files) {
  iovec part{(void*)&hello, sizeof hello};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int) * (MAX_DEVICES + 1))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = CMSG_SPACE(sizeof(int) * files.size());
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int) * files.size());
  memcpy(CMSG_DATA(head), files.data(), sizeof(int) * files.size());
  for (;;) {
    const ssize_t done = sendmsg(socket, &message, MSG_NOSIGNAL);
    if (done >= 0 || errno != EINTR) return done == (ssize_t)sizeof hello;
  }
}

bool spawned(Server& s, int end) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, end, 0);
  char name[] = "launch-server";
  char* arguments[] = {name, nullptr};
  // Not of ours: what Python preloads or profiles.
  const int failed = posix_spawn(&s.process, program.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  return !failed;
}

bool start(int device) {
  Server& s = servers[device];
  if (s.socket >= 0) return true;
  s.file = memfd_create("cupy-emulated-control", MFD_CLOEXEC);
  if (s.file < 0 || ftruncate(s.file, sizeof(Control))) return false;
  s.control = (Control*)mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, s.file, 0);
  int pair[2];
  if (s.control == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) return false;
  const bool made = spawned(s, pair[1]);
  close(pair[1]);  // it ends when our end is closed
  std::vector<int> files{s.file};
  for (int i = 0; i < settings.devices; i++) files.push_back(file_of(i));
  const Hello hello{(uint64_t)settings.devices, range_of(device)};
  if (!made || !send_files(pair[0], hello, files) || !answered(pair[0])) {
    fprintf(stderr, "cupy-emulated: the launch server %s did not start\n", program.c_str());
    close(pair[0]);
    return false;
  }
  s.socket = pair[0];
  for (int i = 0; i < settings.devices; i++) {
    if (i != device && !peer_enabled(device, i)) continue;
    for (const auto& [address, a] : memories[i].taken)
      open_for(device, address - a.before, a.before + a.bytes + a.behind, true);
  }
  return true;
}

// Tell the server which memory may be used; it looks at all of `changes` before it answers or launches.
bool tell_changes(Server& s) {
  size_t told = 0;
  while (s.changes.size() - told > MAX_CHANGES) {
    std::copy_n(s.changes.begin() + told, MAX_CHANGES, s.control->changes);
    s.control->change_count = MAX_CHANGES;
    if (!sent(s.socket, "", 1) || !answered(s.socket)) return false;
    told += MAX_CHANGES;
  }
  std::copy(s.changes.begin() + told, s.changes.end(), s.control->changes);
  s.control->change_count = s.changes.size() - told;
  s.changes.clear();
  return true;
}

struct Prepared {
  const Function* function;
  emulate::Launch launch;
  std::vector<std::string> values;
};

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return text;
  char part[512];
  while (fgets(part, sizeof part, pipe)) text += part;
  pclose(pipe);
  return text;
}

// The source lines of a code address of a library: where the runtime was called from, if it is the runtime's own.
std::string line_of(const std::string& library, uint64_t address) {
  char number[32];
  snprintf(number, sizeof number, " 0x%llx", (unsigned long long)(address ? address - 1 : 0));
  const std::string frames = output_of("addr2line -i -e '" + library + "'" + number + " 2>/dev/null");
  size_t at = 0;
  while (at < frames.size()) {
    const size_t end = std::min(frames.find('\n', at), frames.size());
    const std::string frame = frames.substr(at, end - at);
    at = end + 1;
    if (frame.find("/runtime/") == std::string::npos && frame[0] != '?') return frame.substr(0, frame.find(" ("));
  }
  return "a place without a name";
}

// What went wrong, in words for people: numbers of the runtime become names.
std::string explained(int device, const Prepared& p, std::string report) {
  for (size_t at; (at = report.find("pc=+0x")) != std::string::npos;) {
    char* end;
    const uint64_t address = strtoull(report.c_str() + at + 4, &end, 16);
    report.replace(at, end - (report.c_str() + at), "at " + line_of(p.function->library, address));
  }
  const char* const marker = "at address 0x";
  if (const size_t at = report.find(marker); at != std::string::npos) {
    const uint64_t address = strtoull(report.c_str() + at + strlen(marker), nullptr, 16);
    report += "  that is " + nearest_allocation(device, address) + "\n";
    // Which argument it came from is a guess, and a good one.
    uint64_t best = ~0ull, start = 0;
    int argument = -1;
    for (size_t i = 0; i < p.values.size(); i++) {
      uint64_t value;
      if (p.values[i].size() != 8) continue;
      memcpy(&value, p.values[i].data(), 8);
      if (!allocation_of((void*)value, &start)) continue;
      const uint64_t distance = address > value ? address - value : value - address;
      if (distance >= best) continue;
      best = distance;
      argument = (int)i;
    }
    if (argument >= 0) {
      uint64_t value;
      memcpy(&value, p.values[argument].data(), 8);
      allocation_of((void*)value, &start);
      report += "  nearest is argument " + std::to_string(argument) + ", in allocation " +
                std::to_string(allocation_of((void*)value)->number) + "\n";
    }
  }
  return report;
}

int run(int device, const Prepared& p) {
  if (!start(device)) return NOT_INITIALIZED;
  Server& s = servers[device];
  Control& control = *s.control;
  if (!tell_changes(s)) return LAUNCH_FAILURE;
  emulate::Launch launch = p.launch;
  const auto there = [&](const void* here) { return CONTROL_BASE + ((uint8_t*)here - (uint8_t*)&control); };
  auto* addresses = (uint64_t*)control.parameters;
  uint64_t at = 8 * p.values.size();
  for (size_t i = 0; i < p.values.size(); i++) {
    at = (at + 127) / 128 * 128;
    memcpy(control.parameters + at, p.values[i].data(), p.values[i].size());
    addresses[i] = there(control.parameters + at);
    at += p.values[i].size();
  }
  launch.parameters = (void**)there(control.parameters);
  launch.report = (char*)there(control.report);
  launch.report_bytes = sizeof control.report;
  launch.statistics = (emulate::Statistics*)there(&control.statistics);
  control.report[0] = 0;
  control.launch = launch;
  control.variable_count = p.function->variables.size();
  memcpy(control.variables, p.function->variables.data(), sizeof(char*) * control.variable_count);
  const std::string& library = p.function->library;
  if (sent(s.socket, library.data(), library.size()) && answered(s.socket))
    return check_all_surroundings(device, ("kernel " + kernel_name(p.function->name)).c_str()) ? SUCCESS : ILLEGAL_ADDRESS;
  int status = 0;
  while (waitpid(s.process, &status, 0) < 0 && errno == EINTR) {
  }
  close(s.socket);
  s.socket = -1;
  control.report[sizeof control.report - 1] = 0;
  std::string report = control.report;
  if (report.empty()) report = "the launch server ended with status " + std::to_string(status) + "\n";
  const int code = report.rfind("CRASH: invalid memory access", 0) == 0 ? ILLEGAL_ADDRESS
                   : report.rfind("TIMEOUT", 0) == 0                    ? LAUNCH_TIMEOUT
                                                                        : LAUNCH_FAILURE;
  fprintf(stderr, "cupy-emulated: kernel %s, grid (%u,%u,%u), block (%u,%u,%u) failed\n%s",
          kernel_name(p.function->name).c_str(), launch.grid[0], launch.grid[1], launch.grid[2], launch.block[0],
          launch.block[1], launch.block[2], explained(device, p, report).c_str());
  return code;
}

}  // namespace

void open_for(int device, uint64_t address, uint64_t bytes, bool open) {
  Server& s = servers[device];
  if (s.socket >= 0) s.changes.push_back({address, (bytes + PAGE - 1) / PAGE * PAGE, open});
}

void open_memory(int device, uint64_t address, uint64_t bytes, bool open) {
  for (int i = 0; i < settings.devices; i++)
    if (i == device || peer_enabled(i, device)) open_for(i, address, bytes, open);
}

void forget_servers() {
  for (Server& s : servers) {
    if (s.socket >= 0) close(s.socket);
    s.socket = -1;
  }
}

int launch(const Function& f, const unsigned grid[3], const unsigned block[3], unsigned shared, uint64_t handle,
           void** parameters) {
  if (device_of_stream(handle) != f.device) return INVALID_HANDLE;
  const uint64_t threads = (uint64_t)block[0] * block[1] * block[2];
  if (!threads || threads > 1024 || block[2] > 64 || !grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffffu ||
      grid[1] > 65535 || grid[2] > 65535)
    return INVALID_VALUE;
  if (shared > (unsigned)f.dynamic_shared) return INVALID_VALUE;
  auto p = std::make_shared<Prepared>();
  p->function = &f;
  p->launch = {};
  p->launch.kernel = f.index;
  std::copy(grid, grid + 3, p->launch.grid);
  std::copy(block, block + 3, p->launch.block);
  p->launch.flags = emulate::LATE_COPIES | emulate::BETWEEN_BLOCKS | emulate::EARLY_EXIT;
  p->launch.workers = 1;
  p->launch.timeout_seconds = settings.timeout;
  p->launch.seed = 1;
  p->launch.shared_bytes = shared;
  p->launch.stack_bytes = 1 << 16;
  uint64_t bytes = 0;
  for (size_t i = 0; i < f.sizes.size(); i++) {
    p->values.emplace_back((const char*)parameters[i], f.sizes[i]);
    bytes += f.sizes[i] + 136;
  }
  if (bytes > sizeof Control::parameters) return INVALID_VALUE;
  if (tracing())
    Trace("launch")
        .text("kernel", kernel_name(f.name))
        .numbers("grid", {grid[0], grid[1], grid[2]})
        .numbers("block", {block[0], block[1], block[2]})
        .number("shared", shared)
        .number("device", f.device)
        .number("stream", handle)
        .number("captured", capture_status(handle) != 0);
  const int device = f.device;
  return enqueue(handle, {"launch", [device, p] { return run(device, *p); }});
}

}  // namespace standin

extern "C" __attribute__((visibility("default"))) void standin_server(const char* program) {
  standin::program = program;
}
