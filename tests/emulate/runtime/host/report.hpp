// Reports: text that Python shows after a launch.  "pc=+0x.." and "smem=+0x.." are replaced by lines and names there.
#pragma once

namespace emulate {

typedef unsigned long long Printed;  // what %llx and %llu print

void append_report(const char* format, va_list values) {
  size_t used = strlen(launch->report);
  if (used + 2 >= launch->report_bytes) return;
  used += vsnprintf(launch->report + used, launch->report_bytes - used, format, values);
  if (used + 1 < launch->report_bytes) {
    launch->report[used] = '\n';
    launch->report[used + 1] = 0;
  }
}

void report(const char* format, ...) __attribute__((format(printf, 1, 2)));
void report(const char* format, ...) {
  va_list values;
  va_start(values, format);
  append_report(format, values);
  va_end(values);
}

// The block and thread that run, as text.
struct Here {
  char text[128];
  Here() {
    snprintf(text, sizeof text, "block (%u,%u,%u) thread (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
             threadIdx.y, threadIdx.z);
  }
};

// A code address as Python looks it up.
inline Printed relative(uint64_t pc) { return pc - (uint64_t)module_low; }

// End the launch, and the process that runs it.
[[noreturn]] void stop() { _exit(3); }

// Report, with the place, and end the launch.
[[noreturn]] void fail_at(uint64_t pc, const char* format, ...) __attribute__((format(printf, 2, 3)));
void fail_at(uint64_t pc, const char* format, ...) {
  va_list values;
  va_start(values, format);
  append_report(format, values);
  va_end(values);
  report("  at %s, pc=+0x%llx", Here().text, relative(pc));
  stop();
}

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  append_report(format, values);
  va_end(values);
  report("  at %s", Here().text);
  stop();
}

}  // namespace emulate
