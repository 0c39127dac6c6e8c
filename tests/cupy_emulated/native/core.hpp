// What the stand-ins for the CUDA runtime, the driver and cuBLAS share: device memory, streams, and the launch server.
//
// Device memory is one shared file.  Kernels see it at DEVICE_BASE in the launch server's process.  In this process
// nothing is mapped there: host code that touches a device address crashes, as it should; copies go through a second
// mapping elsewhere.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace standin {

constexpr uint64_t DEVICE_BASE = 0x200000000000ull;
constexpr uint64_t CONTROL_BYTES = 1 << 20;  // at its start: the description of a launch, for the server

// Numbers of cudaError_t and CUresult, which agree for all of these.
enum : int {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_PTX = 218,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  NOT_SUPPORTED = 801,
  CAPTURE_UNSUPPORTED = 900,
};

typedef std::function<int()> Work;

// Settings, read once from the environment.
struct Settings {
  uint64_t memory;     // CUPY_EMULATED_MEMORY, MiB
  int arch;            // CUPY_EMULATED_ARCH, such as 80
  int multiprocessors; // CUPY_EMULATED_SMS
  bool lazy;           // CUPY_EMULATED_LAZY=1: nothing runs before somebody waits for it
  bool trace;          // CUPY_EMULATED_TRACE=1: every call on stderr
};
const Settings& settings();
void trace(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Return 0, or what every call returns once something has gone wrong, or in a forked child.
int state();
int fail(int code);

// Memory
int allocate(void** pointer, size_t bytes);
int release(void* pointer);
void memory_left(size_t* free_bytes, size_t* total);
bool on_device(const void* pointer);
void* host_view(const void* pointer);  // where this process may touch a device address; any other one as it is

// Streams.  0, 1 (legacy) and 2 (per thread) are the default stream.
struct Graph {
  std::vector<Work> work;
};
uint64_t new_stream(bool blocking);
int end_stream(uint64_t stream);
bool known_stream(uint64_t stream);
int enqueue(uint64_t stream, Work work);
int wait_stream(uint64_t stream);
int wait_all();
bool stream_done(uint64_t stream);
int begin_capture(uint64_t stream);
int end_capture(uint64_t stream, Graph** graph);
bool capturing(uint64_t stream);

struct Event {
  uint64_t stream = 0, ticket = 0;  // what it waits for
  bool recorded = false;
  std::shared_ptr<double> seconds = std::make_shared<double>(0);
};
int record(Event* event, uint64_t stream);
int wait_event(Event* event);
int stream_waits(uint64_t stream, Event* event);
bool event_done(Event* event);

// Kernels
struct Function {
  std::string name, library;
  int index = 0, static_shared = 0, dynamic_shared = 48 * 1024;
  std::vector<int> sizes;  // of the parameters
};
int launch(const Function& function, const unsigned grid[3], const unsigned block[3], unsigned shared, uint64_t stream,
           void** parameters);

}  // namespace standin
#pragma GCC visibility pop
