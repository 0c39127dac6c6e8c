// Traces, settings, and the lock.
#include <cxxabi.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core.hpp"
#include "streams.hpp"

namespace standin {

Settings settings;
thread_local int current_device;

namespace {

int trace_file = -1;
bool as_words;
pid_t owner;

// A forked child has neither the servers nor whoever held the lock.
void after_fork() {
  new (&engine) std::mutex;
  forget_servers();
}

std::string quoted(const std::string& text) {
  std::string made = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') made += '\\';
    if ((unsigned char)c >= ' ') made += c;
  }
  return made + '"';
}

}  // namespace

std::mutex engine;
thread_local bool in_host_function;

Call::Call() : held_(engine) {
  if (!owner) {
    owner = getpid();
    pthread_atfork(nullptr, nullptr, after_fork);
  }
  code = owner != getpid()     ? NOT_INITIALIZED
         : !settings.devices   ? NO_DEVICE
         : in_host_function    ? NOT_PERMITTED
                               : wrong_of(current_device);
}

bool tracing() { return trace_file >= 0; }

Trace::Trace(const char* event) {
  if (!tracing()) return;
  if (as_words)
    line_ = std::string("cupy-emulated: ") + event;
  else
    line_ = "{\"event\": " + quoted(event) + ", \"process\": " + std::to_string(getpid());
}

Trace& Trace::number(const char* name, long long value) {
  if (line_.empty()) return *this;
  line_ += as_words ? std::string(" ") + name + " " : ", " + quoted(name) + ": ";
  line_ += std::to_string(value);
  return *this;
}

Trace& Trace::text(const char* name, const std::string& value) {
  if (line_.empty()) return *this;
  line_ += as_words ? std::string(" ") + name + " " + value : ", " + quoted(name) + ": " + quoted(value);
  return *this;
}

Trace& Trace::numbers(const char* name, const std::vector<long long>& values) {
  if (line_.empty()) return *this;
  line_ += as_words ? std::string(" ") + name + " (" : ", " + quoted(name) + ": [";
  for (size_t i = 0; i < values.size(); i++) line_ += (i ? ", " : "") + std::to_string(values[i]);
  line_ += as_words ? ")" : "]";
  return *this;
}

Trace::~Trace() {
  if (line_.empty()) return;
  line_ += as_words ? "\n" : "}\n";
  if (write(trace_file, line_.data(), line_.size()) < 0) trace_file = -1;  // in one piece: other processes write, too
}

std::string kernel_name(const std::string& symbol) {
  int status = 0;
  char* whole = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  if (!whole) return symbol;
  std::string name = whole;
  free(whole);
  if (name.rfind("void ", 0) == 0) name.erase(0, 5);
  int depth = 0;
  for (size_t i = 0; i < name.size(); i++) {
    depth += (name[i] == '<') - (name[i] == '>');
    if (name[i] == '(' && depth == 0) return name.substr(0, i);
  }
  return name;
}

}  // namespace standin

extern "C" {

// From Python, before anything else: what settings.py has read.
__attribute__((visibility("default"))) void standin_settings(int arch, int multiprocessors, int devices, int timeout,
                                                             int lazy, int guard, unsigned long long memory,
                                                             const char* trace) {
  using namespace standin;
  settings.arch = arch;
  settings.multiprocessors = multiprocessors;
  settings.devices = devices;
  settings.timeout = timeout;
  settings.lazy = lazy;
  settings.guard = guard;
  settings.memory = memory;
  as_words = strcmp(trace, "1") == 0;
  if (as_words) trace_file = STDERR_FILENO;
  if (!as_words && *trace) trace_file = open(trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
}
}
