// What the stand-ins for the CUDA runtime, the driver and cuBLAS share: devices, their memory, streams, launches.
//
// The memory of a device is one shared file.  Kernels see it at the device's addresses, in the device's launch server,
// a process of its own.  In this process nothing is mapped there: host code that touches a device address crashes, as
// it should; copies go through a second mapping elsewhere.
//
// One lock guards all of it.  A call of CUDA takes it as its first step (struct Call); everything else here expects it
// to be held.  Kernels run while it is held; host functions of streams, which may need Python's lock, do not.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#pragma GCC visibility push(default)

namespace standin {

// Numbers of cudaError_t and CUresult, which agree for all of these.
enum : int {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_PTX = 218,
  INVALID_HANDLE = 400,
  ILLEGAL_STATE = 401,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_TIMEOUT = 702,
  PEER_ACCESS_ALREADY_ENABLED = 704,
  PEER_ACCESS_NOT_ENABLED = 705,
  LAUNCH_FAILURE = 719,
  NOT_PERMITTED = 800,
  NOT_SUPPORTED = 801,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_MERGE = 902,
  CAPTURE_UNMATCHED = 903,
  CAPTURE_UNJOINED = 904,
  CAPTURE_ISOLATION = 905,
  CAPTURE_IMPLICIT = 906,
  CAPTURED_EVENT = 907,
  CAPTURE_WRONG_THREAD = 908,
};

// What settings.py reads from the environment.
struct Settings {
  int arch = 80, multiprocessors = 4, devices = 1, timeout = 600;
  uint64_t memory = 0;  // bytes of one device
  bool lazy = false;    // nothing runs before somebody waits for it
  bool guard = false;   // a guard page on both sides of every allocation
};
extern Settings settings;

// The calling thread's device, as cudaSetDevice sets it.
extern thread_local int current_device;

// A call of CUDA: holds the lock.  `code` is what it must return if it is not 0: in a forked child, in a host function
// of a stream, and once something has gone wrong on the calling thread's device.
struct Call {
  Call();
  int code;

 private:
  std::unique_lock<std::mutex> held_;
};

// Traces: one line of JSON per event in a file, or of words on stderr.  Nothing is made unless somebody asked for it.
class Trace {
 public:
  explicit Trace(const char* event);
  Trace& number(const char* name, long long value);
  Trace& text(const char* name, const std::string& value);
  Trace& numbers(const char* name, const std::vector<long long>& values);
  ~Trace();

 private:
  std::string line_;
};
bool tracing();
std::string kernel_name(const std::string& symbol);  // scale<float, 3>

// Devices --------------------------------------------------------------------------------------------------------------

constexpr uint64_t DEVICE_BASE = 0x200000000000ull, DEVICE_STEP = 1ull << 40, PAGE = 4096;
inline uint64_t base_of(int device) { return DEVICE_BASE + device * DEVICE_STEP; }

// Something that was allocated.  Around it lie `before` and `behind` bytes that nobody may use, up to whole pages.
struct Allocation {
  uint64_t bytes, before, behind, number;
  int64_t stream;  // whose order its release follows; -1: it is released when all work is done (cudaFree)
};

int wrong_of(int device);           // what every call returns there, once something has gone wrong
int fail(int device, int code);     // from now on; return it
int device_of(const void* pointer); // -1: not allocated on any
const Allocation* allocation_of(const void* pointer, uint64_t* start = nullptr);
bool in_one_allocation(const void* pointer, uint64_t bytes);
void* host_view(const void* pointer);  // where this process may touch a device address; any other one as it is

int allocate(int device, void** pointer, size_t bytes, int64_t stream = -1);
int release(void* pointer);                        // when all work of its device is done
int release_in_order(void* pointer);               // when the stream of its allocation has come so far
void give_back(void* pointer);                     // now
void memory_left(int device, size_t* free_bytes, size_t* total);
int enable_peer(int device, int peer, bool enable);
bool peer_enabled(int device, int peer);

// Streams --------------------------------------------------------------------------------------------------------------

// Something to do, with the lock held; returns an error of CUDA.
typedef std::function<int()> Work;

struct Node {
  std::string kind;  // launch, copy, memset, product, host, event: for traces
  Work work;
  bool host = false;  // a host function, called without the lock
  std::vector<int> after = {};
};

// Captured work.
struct Graph {
  int device = 0;
  std::vector<Node> nodes;
  std::shared_ptr<void> kept;  // memory that was released during the capture
};

struct Capture;

// A stream handle of CUDA: 0 and 1 are the default stream, 2 is that of the thread.
uint64_t new_stream(unsigned flags, int priority);
int end_stream(uint64_t handle);
int stream_flags(uint64_t handle, unsigned* flags, int* priority);
int device_of_stream(uint64_t handle);     // -1: there is no such stream
int64_t ordering_stream(uint64_t handle);  // of an allocation; -1: there is no such stream
void drain_device(int device);             // do all that it was given and that is not being captured
int release_after(uint64_t ordering_stream, void* pointer);
int enqueue(uint64_t handle, Node node);
int wait_stream(uint64_t handle);
int wait_all(int device);
int query_stream(uint64_t handle);  // NOT_READY or what a wait would return

int begin_capture(uint64_t handle, int mode);
int end_capture(uint64_t handle, Graph** graph);
int capture_status(uint64_t handle);  // 0 no, 1 yes, 2 yes but something went wrong
int unsafe_in_capture();              // for calls that a capture in a strict mode forbids
int spoil_capture(uint64_t handle, int code);
int launch_graph(const std::shared_ptr<Graph>& graph, uint64_t handle);

struct Event {
  int device = 0;
  bool timed = true, recorded = false;
  uint64_t stream = 0, ticket = 0;  // what it waits for
  std::shared_ptr<double> seconds;
  std::shared_ptr<Capture> capture;  // if it was recorded in one
  std::vector<int> nodes;
};
int record(Event* event, uint64_t handle);
int wait_event(Event* event);
int stream_waits(uint64_t handle, Event* event);
int query_event(Event* event);

// Kernels --------------------------------------------------------------------------------------------------------------

struct Function {
  int device = 0;
  std::string name, library;
  int index = 0, static_shared = 0, dynamic_shared = 48 * 1024;
  std::vector<int> sizes;         // of the parameters
  std::vector<void*> variables;   // of the module, where they lie on the device
};
int launch(const Function& function, const unsigned grid[3], const unsigned block[3], unsigned shared, uint64_t handle,
           void** parameters);

// For the launch servers: let device memory be used, or not, from the next launch on.
void open_memory(int device, uint64_t address, uint64_t bytes, bool open);
void forget_servers();  // in a forked child

}  // namespace standin
#pragma GCC visibility pop
