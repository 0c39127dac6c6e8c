// A stand-in for NCCL: what passes between GPUs of several processes goes through sockets between these.
//
// As with NCCL, calls of a group are one piece of work of their stream, which can be captured, and all processes must
// make matching calls in one order.  A process that is gone leaves the work of the others unfinished until their
// communicator is aborted, and ncclCommGetAsyncError says so.  Two processes on one device are refused.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "core.hpp"

using namespace standin;

namespace {

enum Status { OK = 0, CUDA_ERROR = 1, SYSTEM_ERROR = 2, BAD_ARGUMENT = 4, BAD_USE = 5, REMOTE_ERROR = 6 };  // ncclResult_t

struct Id {
  char internal[128];
};

struct Comm {
  int device = 0, rank = 0, ranks = 0;
  std::vector<int> peers;  // sockets, by rank
  std::atomic<bool> aborted{false}, lost{false};
};

// A message that is sent or received: its length in eight bytes, then what it holds.
struct Message {
  bool sent;
  int peer;
  uint64_t bytes;
  const void* pointer;
};

struct Group {
  Comm* comm;
  uint64_t stream;
  std::vector<Message> messages;
};

thread_local int depth = 0;
thread_local std::vector<Group> groups;

void pause() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

// One direction of a socket, and the messages that go through it in turn.
struct Lane {
  bool sent;
  int socket;
  std::vector<Message> messages;
  size_t next = 0;
  uint64_t done = 0;  // bytes of the message in progress, its head included
  uint64_t head = 0;
  bool over() const { return next == messages.size(); }

  // Go on as far as the socket lets it; false: the other side is gone, or sends something else.
  bool go() {
    while (!over()) {
      Message& m = messages[next];
      if (sent) head = m.bytes;
      char* const body = (char*)host_view(m.pointer);
      const bool in_head = done < 8;
      char* const at = in_head ? (char*)&head + done : body + (done - 8);
      const uint64_t left = in_head ? 8 - done : m.bytes + 8 - done;
      if (left) {
        const ssize_t moved = sent ? send(socket, at, left, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(socket, at, left, MSG_DONTWAIT);
        if (moved < 0) return errno == EAGAIN || errno == EINTR;
        if (moved == 0) return false;
        done += moved;
      }
      if (!sent && done == 8 && head != m.bytes) {
        fprintf(stderr, "cupy-emulated: %llu bytes were received where %llu were expected\n", (unsigned long long)head,
                (unsigned long long)m.bytes);
        return false;
      }
      if (done == m.bytes + 8) next++, done = 0;
    }
    return true;
  }
};

bool reachable(const Comm& comm, const std::vector<Message>& messages) {
  Call call;  // for the lock
  return std::all_of(messages.begin(), messages.end(), [&](const Message& m) {
    return !m.bytes || (device_of(m.pointer) == comm.device && in_one_allocation(m.pointer, m.bytes));
  });
}

// Exchange the messages of a group; called without the lock.
int exchange(Comm* comm, const std::vector<Message>& messages) {
  if (!reachable(*comm, messages)) {
    fprintf(stderr, "cupy-emulated: a message of NCCL reaches outside of its arrays\n");
    comm->lost = true;
  }
  std::vector<Lane> lanes;
  for (const bool sent : {true, false})
    for (int peer = 0; peer < comm->ranks; peer++) {
      Lane lane{sent, comm->peers[peer], {}};
      for (const Message& m : messages)
        if (m.sent == sent && m.peer == peer) lane.messages.push_back(m);
      if (!lane.messages.empty()) lanes.push_back(std::move(lane));
    }
  while (!comm->aborted) {
    std::vector<pollfd> polled;
    for (Lane& lane : lanes) {
      if (!comm->lost && !lane.go()) comm->lost = true;
      if (!lane.over()) polled.push_back({lane.socket, (short)(lane.sent ? POLLOUT : POLLIN), 0});
    }
    if (polled.empty()) break;
    if (comm->lost)
      pause();
    else
      poll(polled.data(), polled.size(), 10);
  }
  return SUCCESS;
}

int flush() {
  std::vector<Group> all;
  all.swap(groups);
  for (Group& group : all) {
    Call call;
    if (call.code) return CUDA_ERROR;
    Comm* const comm = group.comm;
    if (device_of_stream(group.stream) != comm->device) return BAD_ARGUMENT;
    long long bytes = 0;
    for (const Message& m : group.messages) bytes += m.sent ? (long long)m.bytes : 0;
    if (tracing())
      Trace("nccl")
          .number("messages", (long long)group.messages.size())
          .number("bytes", bytes)
          .number("device", comm->device)
          .number("stream", (long long)group.stream)
          .number("captured", capture_status(group.stream) != 0);
    const auto messages = group.messages;
    if (enqueue(group.stream, {"nccl", [comm, messages] { return exchange(comm, messages); }, true})) return CUDA_ERROR;
  }
  return OK;
}

int add(Comm* comm, uint64_t stream, std::vector<Message> messages) {
  auto found = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.comm == comm && g.stream == stream; });
  if (found == groups.end()) found = groups.insert(groups.end(), {comm, stream, {}});
  found->messages.insert(found->messages.end(), messages.begin(), messages.end());
  return depth ? (int)OK : flush();
}

uint64_t size_of(int kind) {
  static const uint64_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
  return kind >= 0 && kind < 12 ? sizes[kind] : 0;
}

sockaddr_un address(const Id& id, int rank, socklen_t* length) {
  sockaddr_un made{};
  made.sun_family = AF_UNIX;  // in the abstract name space: nothing is left behind
  const int written = snprintf(made.sun_path + 1, sizeof made.sun_path - 1, "%.60s-%d", id.internal, rank);
  *length = (socklen_t)(offsetof(sockaddr_un, sun_path) + 1 + written);
  return made;
}

bool all_of(int socket, void* data, size_t bytes, bool sent) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t moved = sent ? send(socket, (char*)data + done, bytes - done, MSG_NOSIGNAL) : recv(socket, (char*)data + done, bytes - done, 0);
    if (moved <= 0) return false;
    done += moved;
  }
  return true;
}

// Connect to the processes before this one, and let those behind it connect; each says its number and its device.
int connect_all(Comm* comm, const Id& id) {
  socklen_t length;
  const int door = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un own = address(id, comm->rank, &length);
  if (door < 0 || bind(door, (sockaddr*)&own, length) || listen(door, comm->ranks)) return SYSTEM_ERROR;
  const int said[2] = {comm->rank, comm->device};
  bool alike = false;
  for (int peer = 0; peer < comm->ranks; peer++) {
    int line = -1, heard[2];
    if (peer == comm->rank) continue;
    if (peer < comm->rank) {
      sockaddr_un there = address(id, peer, &length);
      for (int tries = 0; tries < 60000 && line < 0; tries++) {
        line = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(line, (sockaddr*)&there, length)) close(line), line = -1, pause();
      }
    } else {
      line = accept(door, nullptr, nullptr);
    }
    if (line < 0 || !all_of(line, (void*)said, sizeof said, true) || !all_of(line, heard, sizeof heard, false))
      return SYSTEM_ERROR;
    comm->peers[heard[0]] = line;
    alike = alike || heard[1] == comm->device;
  }
  close(door);
  return alike ? BAD_USE : OK;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {
int ncclGetVersion(int* version) { return *version = 22707, OK; }
const char* ncclGetErrorString(int code) {
  static const char* const texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
                                      "invalid argument", "invalid usage", "remote process exited or there was a network error"};
  return code >= 0 && code < 7 ? texts[code] : "unknown result code";
}
int ncclGetUniqueId(Id* id) {
  std::random_device random;
  memset(id->internal, 0, sizeof id->internal);
  snprintf(id->internal, sizeof id->internal, "nccl-%d-%08x%08x", (int)getpid(), random(), random());
  return OK;
}
int ncclCommInitRankConfig(void** made, int ranks, Id id, int rank, void*) {
  if (rank < 0 || rank >= ranks) return BAD_ARGUMENT;
  auto* comm = new Comm;
  {
    Call call;
    if (call.code) return CUDA_ERROR;
    comm->device = current_device;
  }
  comm->rank = rank;
  comm->ranks = ranks;
  comm->peers.assign(ranks, -1);
  *made = comm;
  return connect_all(comm, id);
}
int ncclCommAbort(void* handle) { return ((Comm*)handle)->aborted = true, OK; }
int ncclCommDestroy(void* handle) { return ncclCommAbort(handle); }
int ncclCommGetAsyncError(void* handle, int* code) {
  return *code = ((Comm*)handle)->lost ? REMOTE_ERROR : OK, OK;
}
int ncclCommCount(void* handle, int* count) { return *count = ((Comm*)handle)->ranks, OK; }
int ncclCommCuDevice(void* handle, int* device) { return *device = ((Comm*)handle)->device, OK; }
int ncclCommUserRank(void* handle, int* rank) { return *rank = ((Comm*)handle)->rank, OK; }
int ncclGroupStart() { return depth++, OK; }
int ncclGroupEnd() {
  if (!depth) return BAD_USE;
  return --depth ? (int)OK : flush();
}
int ncclSend(const void* from, size_t count, int kind, int peer, void* handle, uint64_t stream) {
  auto* comm = (Comm*)handle;
  if (peer < 0 || peer >= comm->ranks || peer == comm->rank || !size_of(kind)) return BAD_ARGUMENT;
  return add(comm, stream, {{true, peer, count * size_of(kind), from}});
}
int ncclRecv(void* to, size_t count, int kind, int peer, void* handle, uint64_t stream) {
  auto* comm = (Comm*)handle;
  if (peer < 0 || peer >= comm->ranks || peer == comm->rank || !size_of(kind)) return BAD_ARGUMENT;
  return add(comm, stream, {{false, peer, count * size_of(kind), to}});
}
}
#pragma GCC visibility pop
