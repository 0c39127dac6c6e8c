// Streams, events, captures, graphs: what is done in which order.
//
// A stream is a queue.  Every piece of work has a ticket, and the tickets of other streams that it waits for: it is done
// when those are.  Usually work is done as soon as that is so; in lazy mode when somebody waits for it.  A host function
// is called by a thread of its own, without the lock.
#include "streams.hpp"

#include <algorithm>
#include <condition_variable>
#include <ctime>
#include <deque>

namespace standin {

struct Capture {
  uint64_t origin = 0;
  int device = 0, mode = 0;
  std::thread::id thread;
  bool spoiled = false;
  std::vector<Node> nodes;
  std::shared_ptr<std::vector<void*>> kept;
};

namespace {

enum { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };  // cudaStreamCaptureMode
constexpr unsigned NON_BLOCKING = 1;

struct Queued {
  uint64_t ticket;
  std::vector<std::pair<uint64_t, uint64_t>> first;  // streams, and how far they must have come
  Work work;
  bool host;
};

struct Stream {
  int device = 0;
  unsigned flags = 0;
  int priority = 0;
  bool legacy = false, ended = false;
  bool busy = false;  // its host function is being called
  std::deque<Queued> queue;
  std::shared_ptr<Capture> capture;
  std::vector<int> frontier;  // the nodes of the capture that the next one comes after
  bool blocking() const { return !(flags & NON_BLOCKING); }
};

// By what a handle stands for: those that programs make have their handle.
std::map<uint64_t, Stream> streams;
std::condition_variable_any changed;  // work was done
uint64_t next_stream = 1 << 16, next_ticket = 1;
thread_local std::map<int, uint64_t> streams_of_thread;  // device -> its default stream of this thread

uint64_t legacy_of(int device) { return 8 + device; }

uint64_t make(int device, unsigned flags, int priority) {
  const uint64_t id = next_stream++;
  Stream& s = streams[id];
  s.device = device;
  s.flags = flags;
  s.priority = priority;
  return id;
}

// The stream that a handle stands for in this thread; 0 if there is none.
uint64_t meant(uint64_t handle) {
  if (handle <= 1) {
    Stream& s = streams[legacy_of(current_device)];
    s.device = current_device;
    s.legacy = true;
    return legacy_of(current_device);
  }
  if (handle == 2) {
    uint64_t& own = streams_of_thread[current_device];
    if (!own) own = make(current_device, 0, 0);
    return own;
  }
  const auto found = streams.find(handle);
  return found == streams.end() || found->second.ended || found->second.legacy ? 0 : handle;
}

bool is_done(uint64_t stream, uint64_t ticket) {
  const auto found = streams.find(stream);
  return found == streams.end() || found->second.queue.empty() || found->second.queue.front().ticket > ticket;
}

uint64_t last_ticket(const Stream& s) { return s.queue.empty() ? 0 : s.queue.back().ticket; }

bool is_ready(const Queued& item) {
  return std::all_of(item.first.begin(), item.first.end(), [](const auto& p) { return is_done(p.first, p.second); });
}

void progress();

void pop(uint64_t id) {
  Stream& s = streams[id];
  s.queue.pop_front();
  if (s.ended && s.queue.empty()) streams.erase(id);
  changed.notify_all();
}

// Call the host function at the front of a stream, in a thread of its own.
void start_host_function(uint64_t id) {
  Stream& s = streams[id];
  s.busy = true;
  const Work work = s.queue.front().work;
  const bool skipped = wrong_of(s.device) != SUCCESS;
  std::thread([id, work, skipped] {
    in_host_function = true;
    if (!skipped) work();
    in_host_function = false;
    std::lock_guard<std::mutex> hold(engine);
    streams[id].busy = false;
    pop(id);
    if (!settings.lazy) progress();
  }).detach();
}

// Do what is at the front of a stream; what it waits for is done.
void do_front(uint64_t id) {
  Stream& s = streams[id];
  if (s.queue.front().host) return start_host_function(id);
  const int device = s.device;
  if (!wrong_of(device)) {
    const Work work = s.queue.front().work;
    if (const int code = work()) fail(device, code);
  }
  pop(id);
}

// Do all that can be done now.
void progress() {
  for (bool more = true; more;) {
    more = false;
    for (auto next = streams.begin(); next != streams.end();) {
      const uint64_t id = next->first;
      const Stream& s = next->second;
      ++next;  // the stream may end
      if (s.busy || s.queue.empty() || !is_ready(s.queue.front())) continue;
      do_front(id);
      more = true;
    }
  }
}

// Do the work of a stream up to a ticket, and what it waits for.
void drain(uint64_t id, uint64_t ticket) {
  while (!is_done(id, ticket)) {
    Stream& s = streams[id];
    if (s.busy) {
      changed.wait(engine);
      continue;
    }
    const uint64_t mine = s.queue.front().ticket;
    const auto first = s.queue.front().first;
    for (const auto& [other, other_ticket] : first) drain(other, other_ticket);
    const auto found = streams.find(id);  // while this thread waited, another one may have gone on
    if (found == streams.end() || found->second.busy) continue;
    if (!found->second.queue.empty() && found->second.queue.front().ticket == mine) do_front(id);
  }
}

// One step towards a ticket, for who asks again and again whether it is done.
void step(uint64_t id, uint64_t ticket) {
  const auto found = streams.find(id);
  if (found == streams.end() || is_done(id, ticket) || found->second.busy) return;
  for (const auto& [other, other_ticket] : found->second.queue.front().first)
    if (!is_done(other, other_ticket)) return step(other, other_ticket);
  do_front(id);
}

void push(uint64_t id, Work work, bool host, std::vector<std::pair<uint64_t, uint64_t>> first = {}) {
  Stream& s = streams[id];
  // The legacy stream waits for all blocking ones, and they for it.
  for (const auto& [other, found] : streams) {
    if (other == id || found.device != s.device || found.queue.empty()) continue;
    if ((s.legacy && found.blocking()) || (found.legacy && s.blocking())) first.emplace_back(other, last_ticket(found));
  }
  s.queue.push_back({next_ticket++, std::move(first), std::move(work), host});
  if (!settings.lazy) progress();
}

int spoil(const std::shared_ptr<Capture>& capture, int code) {
  capture->spoiled = true;
  return code;
}

// Work on the legacy stream would have to wait for blocking streams, and cannot while they are captured.
int spoiled_by_legacy(int device) {
  int code = SUCCESS;
  for (auto& [id, s] : streams)
    if (s.capture && s.device == device && s.blocking() && !s.legacy) code = spoil(s.capture, CAPTURE_IMPLICIT);
  return code;
}

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

}  // namespace

uint64_t new_stream(unsigned flags, int priority) { return make(current_device, flags, priority); }

int end_stream(uint64_t handle) {
  const uint64_t id = meant(handle);
  if (!id || handle <= 2) return INVALID_HANDLE;
  Stream& s = streams[id];
  if (s.capture) return spoil(s.capture, CAPTURE_UNSUPPORTED);
  s.ended = true;  // its work is done nevertheless
  if (s.queue.empty()) streams.erase(id);
  return SUCCESS;
}

int stream_flags(uint64_t handle, unsigned* flags, int* priority) {
  const uint64_t id = meant(handle);
  if (!id) return INVALID_HANDLE;
  *flags = streams[id].flags;
  *priority = streams[id].priority;
  return SUCCESS;
}

int device_of_stream(uint64_t handle) {
  const uint64_t id = meant(handle);
  return id ? streams[id].device : -1;
}

int64_t ordering_stream(uint64_t handle) {
  const uint64_t id = meant(handle);
  return id ? (int64_t)id : -1;
}

int enqueue(uint64_t handle, Node node) {
  const uint64_t id = meant(handle);
  if (!id) return INVALID_HANDLE;
  Stream& s = streams[id];
  if (s.capture) {
    if (s.capture->spoiled) return CAPTURE_INVALIDATED;
    node.after = s.frontier;
    s.frontier = {(int)s.capture->nodes.size()};
    s.capture->nodes.push_back(std::move(node));
    return SUCCESS;
  }
  if (s.legacy)
    if (const int code = spoiled_by_legacy(s.device)) return code;
  push(id, std::move(node.work), node.host);
  return SUCCESS;
}

int wait_stream(uint64_t handle) {
  const uint64_t id = meant(handle);
  if (!id) return INVALID_HANDLE;
  const int device = streams[id].device;
  if (streams[id].capture) return spoil(streams[id].capture, CAPTURE_UNSUPPORTED);
  if (streams[id].legacy) {
    if (const int code = spoiled_by_legacy(device)) return code;
    // What a waiter on this stream waits for: all that blocking streams were given so far.
    std::vector<std::pair<uint64_t, uint64_t>> first;
    for (const auto& [other, found] : streams)
      if (found.device == device && found.blocking() && !found.queue.empty())
        first.emplace_back(other, last_ticket(found));
    for (const auto& [other, ticket] : first) drain(other, ticket);
    return wrong_of(device);
  }
  drain(id, last_ticket(streams[id]));
  return wrong_of(device);
}

void drain_device(int device) {
  std::vector<std::pair<uint64_t, uint64_t>> all;
  for (const auto& [id, s] : streams)
    if (s.device == device && !s.queue.empty()) all.emplace_back(id, last_ticket(s));
  for (const auto& [id, ticket] : all) drain(id, ticket);
}

int wait_all(int device) {
  int code = SUCCESS;
  for (auto& [id, s] : streams)
    if (s.capture && s.device == device) code = spoil(s.capture, CAPTURE_UNSUPPORTED);
  if (code) return code;
  drain_device(device);
  return wrong_of(device);
}

int query_stream(uint64_t handle) {
  const uint64_t id = meant(handle);
  if (!id) return INVALID_HANDLE;
  Stream& s = streams[id];
  if (s.capture) return spoil(s.capture, CAPTURE_UNSUPPORTED);
  const int device = s.device;
  if (s.queue.empty()) return wrong_of(device);
  step(id, last_ticket(s));
  return wrong_of(device) ? wrong_of(device) : NOT_READY;
}

int release_after(uint64_t stream, void* pointer) {
  const auto found = streams.find(stream);
  if (found == streams.end()) return give_back(pointer), SUCCESS;
  if (found->second.capture) {
    found->second.capture->kept->push_back(pointer);
    return SUCCESS;
  }
  push(stream, [pointer] { return give_back(pointer), (int)SUCCESS; }, false);
  return SUCCESS;
}

// Captures -------------------------------------------------------------------------------------------------------------

int begin_capture(uint64_t handle, int mode) {
  const uint64_t id = meant(handle);
  if (!id) return INVALID_HANDLE;
  Stream& s = streams[id];
  if (s.legacy) return CAPTURE_UNSUPPORTED;
  if (s.capture) return ILLEGAL_STATE;
  s.capture = std::make_shared<Capture>();
  s.capture->origin = id;
  s.capture->device = s.device;
  s.capture->mode = mode;
  s.capture->thread = std::this_thread::get_id();
  // It goes with the last graph that was made of the capture.
  s.capture->kept = std::shared_ptr<std::vector<void*>>(new std::vector<void*>, [](std::vector<void*>* pointers) {
    for (void* pointer : *pointers) give_back(pointer);
    delete pointers;
  });
  s.frontier.clear();
  return SUCCESS;
}

int end_capture(uint64_t handle, Graph** graph) {
  *graph = nullptr;
  const uint64_t id = meant(handle);
  if (!id) return INVALID_HANDLE;
  const std::shared_ptr<Capture> capture = streams[id].capture;
  if (!capture) return ILLEGAL_STATE;
  if (capture->origin != id) return spoil(capture, CAPTURE_UNMATCHED);
  if (capture->mode != RELAXED && capture->thread != std::this_thread::get_id())
    return spoil(capture, CAPTURE_WRONG_THREAD);
  const std::vector<int> last = streams[id].frontier;
  for (auto& [other, s] : streams) {
    if (s.capture != capture) continue;
    s.capture = nullptr;
    s.frontier.clear();
  }
  if (capture->spoiled) return CAPTURE_INVALIDATED;
  // All that was captured must come before the end of the stream that the capture began in.
  std::vector<char> joined(capture->nodes.size());
  std::vector<int> open = last;
  while (!open.empty()) {
    const int i = open.back();
    open.pop_back();
    if (joined[i]) continue;
    joined[i] = 1;
    open.insert(open.end(), capture->nodes[i].after.begin(), capture->nodes[i].after.end());
  }
  if (std::find(joined.begin(), joined.end(), 0) != joined.end()) return CAPTURE_UNJOINED;
  *graph = new Graph{capture->device, std::move(capture->nodes), capture->kept};
  return SUCCESS;
}

int capture_status(uint64_t handle) {
  const uint64_t id = meant(handle);
  if (!id || !streams[id].capture) return 0;
  return streams[id].capture->spoiled ? 2 : 1;
}

int spoil_capture(uint64_t handle, int code) {
  const uint64_t id = meant(handle);
  return id && streams[id].capture ? spoil(streams[id].capture, code) : code;
}

int unsafe_in_capture() {
  int code = SUCCESS;
  for (auto& [id, s] : streams) {
    if (!s.capture || s.capture->mode == RELAXED) continue;
    if (s.capture->mode == GLOBAL || s.capture->thread == std::this_thread::get_id())
      code = spoil(s.capture, CAPTURE_UNSUPPORTED);
  }
  return code;
}

int launch_graph(const std::shared_ptr<Graph>& graph, uint64_t handle) {
  const uint64_t id = meant(handle);
  if (!id) return INVALID_HANDLE;
  if (streams[id].device != graph->device) return INVALID_VALUE;
  // Any order that respects the edges is right: usually that of the capture, in lazy mode the one farthest from it.
  const int count = (int)graph->nodes.size();
  std::vector<char> taken(count);
  for (int n = 0; n < count; n++) {
    int next = -1;
    for (int i = 0; i < count && (next < 0 || settings.lazy); i++) {
      const auto& after = graph->nodes[i].after;
      if (!taken[i] && std::all_of(after.begin(), after.end(), [&](int j) { return taken[j]; })) next = i;
    }
    taken[next] = 1;
    const Node& node = graph->nodes[next];
    const Work work = node.work;
    if (const int code = enqueue(handle, {node.kind, [graph, work] { return work(); }, node.host})) return code;
  }
  return SUCCESS;
}

// Events ---------------------------------------------------------------------------------------------------------------

int record(Event* event, uint64_t handle) {
  const uint64_t id = meant(handle);
  if (!id) return INVALID_HANDLE;
  Stream& s = streams[id];
  if (s.device != event->device) return INVALID_HANDLE;
  if (s.capture) {
    if (s.capture->spoiled) return CAPTURE_INVALIDATED;
    event->capture = s.capture;
    event->nodes = s.frontier;
    event->recorded = true;
    return SUCCESS;
  }
  const auto seconds = std::make_shared<double>(0);
  const uint64_t ticket = next_ticket;
  if (const int code = enqueue(handle, {"event", [seconds] { return *seconds = now(), (int)SUCCESS; }})) return code;
  event->capture = nullptr;
  event->nodes.clear();
  event->stream = id;
  event->ticket = ticket;
  event->recorded = true;
  event->seconds = seconds;
  return SUCCESS;
}

int wait_event(Event* event) {
  if (event->capture) return spoil(event->capture, CAPTURED_EVENT);
  if (event->recorded) drain(event->stream, event->ticket);
  return wrong_of(event->device);
}

int query_event(Event* event) {
  if (event->capture) return spoil(event->capture, CAPTURED_EVENT);
  if (!event->recorded || is_done(event->stream, event->ticket)) return wrong_of(event->device);
  step(event->stream, event->ticket);
  return wrong_of(event->device) ? wrong_of(event->device) : NOT_READY;
}

int stream_waits(uint64_t handle, Event* event) {
  const uint64_t id = meant(handle);
  if (!id) return INVALID_HANDLE;
  if (!event->recorded) return SUCCESS;
  Stream& s = streams[id];
  if (event->capture) {
    const auto& capture = event->capture;
    const bool over = std::none_of(streams.begin(), streams.end(), [&](const auto& p) { return p.second.capture == capture; });
    if (over) return CAPTURED_EVENT;
    if (s.legacy) return spoil(capture, CAPTURE_IMPLICIT);
    if (s.capture && s.capture != capture) return spoil(capture, spoil(s.capture, CAPTURE_MERGE));
    if (!s.capture) {  // it joins
      s.capture = capture;
      s.frontier.clear();
    }
    for (const int node : event->nodes)
      if (std::find(s.frontier.begin(), s.frontier.end(), node) == s.frontier.end()) s.frontier.push_back(node);
    return SUCCESS;
  }
  if (s.capture) return spoil(s.capture, CAPTURE_ISOLATION);
  if (s.legacy)
    if (const int code = spoiled_by_legacy(s.device)) return code;
  if (is_done(event->stream, event->ticket)) return SUCCESS;
  push(id, [] { return (int)SUCCESS; }, false, {{event->stream, event->ticket}});
  return SUCCESS;
}

}  // namespace standin
