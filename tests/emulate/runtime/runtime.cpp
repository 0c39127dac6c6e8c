// runtime.cpp -- runtime of the CUDA-on-CPU shim: fibers, barriers, warp rendezvous,
// memory checking, race detection, access statistics.  Compiled once, without sanitizers,
// and linked into every kernel library.  The kernel unit may be built with
// -fsanitize=thread: the callbacks it then emits (__tsan_read4 ...) are implemented HERE,
// libtsan is never linked.
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>
#include <link.h>
#include <ucontext.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
};
extern "C" {
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
}
extern "C" __thread unsigned char emulate_dynamic_shared[];  // defined by the assembler stub that emu.py emits
constexpr uint64_t DYNAMIC_SHARED_BYTES = 232448;  // as in build.py
extern "C" {
int cu_tracking;
char* cu_smem_base_;
unsigned long long* cu_bb_;
}

namespace {
enum { F_TRACK = 1, F_STATS = 2, F_CPLATE = 4, F_ALLOW_EXIT = 8, F_INTERBLOCK = 16, F_RACE = 32 };
enum { NCOUNT = 8, MAXT = 1024, MAXSITE = 4096 };
struct Kernel {
  const char* name;
  int nparam;
  const char* sig;
  const int* sizes;
  void (*call)(void**);
};
struct Buf {
  uint8_t* base;
  uint64_t size, elem;
  const uint8_t* valid;  // per byte, whether an element lies there; null: everywhere
  int32_t arg, ro;
};
struct Site {
  uint64_t pc;
  uint32_t kind, pad;
  uint64_t req, lanes, bytes, units, ideal;
};  // one source access site
struct Stats {
  uint64_t count[NCOUNT], blocks, threads, switches, nsite;
  Site site[MAXSITE];
  unsigned long long bb[8192];
};
struct Launch {
  int32_t kernel;
  uint32_t grid[3], block[3];
  uint32_t flags, thread_order, block_order, workers, timeout_seconds;
  uint64_t seed, shared_bytes, stack_bytes, first_block, block_count;
  void** parameters;
  Buf* buffers;
  uint64_t buffer_count;
  const uint64_t* shared_symbols;
  uint64_t shared_symbol_count;
  char* report;
  uint64_t report_bytes;
  Stats* statistics;
};
enum St : uint8_t { READY, BAR, WARP, DONE, MBAR, NBAR, WGRP, SPIN };
struct Rec {
  uint64_t addr;
  uint32_t site;
  uint16_t size;
  uint16_t seq;
};
struct Pend {
  void* dst;
  const void* src;
  uint32_t size, src_size, group;
  uint64_t pc;
};
struct Fiber {
  void* sp;
  uint3 tid;
  uint16_t lin, warp;
  uint8_t lane;
  St st;
  const char* file;
  int line;
  const char* what;
  uint32_t mask;
  void* payload;
  int bar_id;
  int pred, redres;
  uint32_t nbar, cp_group;
  std::vector<Pend> pend;
  std::vector<Rec> log;
};
std::vector<const Kernel*>& kernels() {
  static std::vector<const Kernel*> k;
  return k;
}

Launch* L;
Fiber fib[MAXT];
Fiber* cur;
void* main_sp;
int nthr, nlive, nwarp, failed;
uint16_t ring[2 * MAXT];
unsigned rh, rt;
uint8_t* stacks;
size_t stack_sz;
uint64_t rng;
uint32_t blk_epoch;
uint64_t blk_lin;
uint32_t warp_epoch[32];
uint8_t *tls_lo, *tls_hi, *mod_lo, *mod_hi;
void** args;
const Kernel* kern;
bool forked;
uint64_t cnt[NCOUNT], nswitch;

uint64_t rnd() {
  rng ^= rng << 13;
  rng ^= rng >> 7;
  rng ^= rng << 17;
  return rng;
}
#define RA ((uint64_t)__builtin_return_address(0))

// ---------------------------------------------------------------- context switch
extern "C" void cu_switch(void** save, void* load);
#if defined(__x86_64__)
asm(".text\n.globl cu_switch\n.hidden cu_switch\n.type cu_switch,@function\ncu_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp,(%rdi)\n  movq %rsi,%rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n.size "
    "cu_switch,.-cu_switch\n");
#elif defined(__aarch64__)
asm(".text\n.globl cu_switch\n.hidden cu_switch\ncu_switch:\n"
    "  sub sp,sp,#160\n  stp x19,x20,[sp,#0]\n  stp x21,x22,[sp,#16]\n  stp x23,x24,[sp,#32]\n  stp x25,x26,[sp,#48]\n "
    " stp x27,x28,[sp,#64]\n  stp x29,x30,[sp,#80]\n"
    "  stp d8,d9,[sp,#96]\n  stp d10,d11,[sp,#112]\n  stp d12,d13,[sp,#128]\n  stp d14,d15,[sp,#144]\n  mov x9,sp\n  "
    "str x9,[x0]\n  mov sp,x1\n"
    "  ldp x19,x20,[sp,#0]\n  ldp x21,x22,[sp,#16]\n  ldp x23,x24,[sp,#32]\n  ldp x25,x26,[sp,#48]\n  ldp "
    "x27,x28,[sp,#64]\n  ldp x29,x30,[sp,#80]\n"
    "  ldp d8,d9,[sp,#96]\n  ldp d10,d11,[sp,#112]\n  ldp d12,d13,[sp,#128]\n  ldp d14,d15,[sp,#144]\n  add "
    "sp,sp,#160\n  ret\n");
#endif

void vreport(const char* fmt, va_list ap) {
  size_t n = strlen(L->report);
  if (n + 2 >= L->report_bytes) return;
  n += vsnprintf(L->report + n, L->report_bytes - n, fmt, ap);
  if (n + 1 < L->report_bytes) {
    L->report[n] = '\n';
    L->report[n + 1] = 0;
  }
}
void report(const char* fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vreport(fmt, ap);
  va_end(ap);
}
void where(char* b, size_t n) {
  snprintf(b, n, "block (%u,%u,%u) thread (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y,
           threadIdx.z);
}

void resume(Fiber* f) {
  Fiber* p = cur;
  cur = f;
  threadIdx = f->tid;
  nswitch++;
  cu_switch(p ? &p->sp : &main_sp, f->sp);
}
void to_main() {
  Fiber* p = cur;
  cur = nullptr;
  static void* dummy;
  cu_switch(p ? &p->sp : &dummy, main_sp);
}

[[noreturn]] void die() {
  failed = 1;
  if (forked) _exit(3);
  to_main();
  __builtin_unreachable();
}

void push(Fiber* f) {
  f->st = READY;
  ring[rt++ % (2 * MAXT)] = f->lin;
}
// Orders 3 and 4 ("depth", "depth-reverse"): a warp that completes a warp operation runs on before any other warp does.
void shuffle_push(Fiber** v, int n, bool warp = false) {
  if (L->thread_order >= 3 && warp) {
    for (int i = 0; i < n; i++) {
      Fiber* f = L->thread_order == 3 ? v[n - 1 - i] : v[i];
      f->st = READY;
      ring[--rh % (2 * MAXT)] = f->lin;
    }
    return;
  }
  if (L->thread_order == 2)
    for (int i = n - 1; i > 0; i--) std::swap(v[i], v[rnd() % (i + 1)]);
  if (L->thread_order == 1 || L->thread_order == 4)
    for (int i = n - 1; i >= 0; i--) push(v[i]);
  else
    for (int i = 0; i < n; i++) push(v[i]);
}
void deadlock();
bool hop_idle();
void hop_deadlock();
void hop_touch(uint32_t, unsigned, bool, uint64_t);
void hop_stack(uint64_t, unsigned, bool, uint64_t);
void hop_reset();
void hop_exit(Fiber*);
uint32_t vc_now();
bool vc_ordered(uint16_t, uint32_t);
void vc_join_all();
void vc_join_warp(int);
extern bool hop_on;
void yield_next() {
  while (rh == rt && hop_idle()) {
  }
  if (rh == rt) {
    deadlock();
    die();
  }
  Fiber* f = &fib[ring[rh++ % (2 * MAXT)]];
  if (f != cur) resume(f);
}

void deadlock() {
  report("DIVERGENCE: no thread can continue (block %u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z);
  std::map<std::pair<std::string, int>, std::pair<int, int>> g;
  int done = 0;
  for (int i = 0; i < nthr; i++) {
    Fiber& f = fib[i];
    if (f.st == DONE) {
      done++;
      continue;
    }
    auto& e = g[{std::string(f.what) + " " + (f.file ? f.file : "?"), f.line}];
    if (!e.first++) e.second = i;
  }
  for (auto& k : g)
    report("  %d thread(s) wait at %s:%d (first: thread %d)", k.second.first, k.first.first.c_str(),
           k.first.second & 0xfffff, k.second.second);
  if (done) report("  %d thread(s) have returned", done);
  hop_deadlock();
}

// ---------------------------------------------------------------- memory tracking
struct Sh {
  uint32_t w_ep, r_ep;
  uint32_t w_wep, r_wep, r2_wep, w_clk, r_clk, r2_clk;
  uint64_t w_blk, r_blk;
  uint32_t w_site, r_site, r2_site;
  uint16_t w_tid, r_tid, r2_tid;
  uint8_t w_at, r_at;
};
std::vector<Sh> sh_shared;
std::vector<std::vector<Sh>> sh_buf;
std::vector<uint32_t> sh_init;
std::vector<uint8_t> sh_valid;
uint32_t blk_serial;
const uint32_t INFLIGHT = ~0u;
std::unordered_map<uint64_t, uint32_t> site_id;
std::vector<Site> sites;
std::map<std::pair<uint32_t, uint32_t>, int> races;
int nuninit;
uint64_t last_pc;
uint32_t last_site;
uint32_t site_of(uint64_t pc, uint32_t kind) {
  uint64_t key = pc * 16 + kind;
  if (key == last_pc) return last_site;
  auto it = site_id.find(key);
  if (it == site_id.end()) {
    it = site_id.emplace(key, sites.size()).first;
    sites.push_back(Site{pc, kind, 0, 0, 0, 0, 0, 0});
  }
  last_pc = key;
  return last_site = it->second;
}
enum { SK_GLD = 0, SK_GST, SK_SLD, SK_SST, SK_ATOM, SK_LDM, SK_WMMA, SK_CPA };
uint64_t rel(uint64_t pc) { return pc - (uint64_t)mod_lo; }

const Buf* find_buf(uint64_t a, const Buf** nearest) {
  const Buf* best = nullptr;
  uint64_t bd = ~0ull;
  for (int i = 0; i < L->buffer_count; i++) {
    const Buf& b = L->buffers[i];
    uint64_t lo = (uint64_t)b.base, hi = lo + b.size;
    if (a >= lo && a < hi) return &b;
    uint64_t d = a < lo ? lo - a : a - hi + 1;
    if (d < bd) bd = d, best = &b;
  }
  if (nearest) *nearest = best;
  return nullptr;
}
void oob(uint64_t a, unsigned size, bool w, uint64_t pc, const char* extra) {
  const Buf* n = nullptr;
  char b[128];
  where(b, sizeof b);
  find_buf(a, &n);
  report("OUT OF BOUNDS: %s of %u bytes, %s, pc=+0x%llx%s", w ? "write" : "read", size, b, (unsigned long long)rel(pc),
         extra);
  if (n && !strstr(extra, "shared")) {
    long long off = (long long)(a - (uint64_t)n->base);
    long long past = off < 0 ? off : off - (long long)n->size;
    report("  nearest buffer: argument %d, %llu elements of %llu bytes; address is element %lld (%lld bytes %s)",
           n->arg, (unsigned long long)(n->size / n->elem), (unsigned long long)n->elem, off / (long long)n->elem,
           past < 0 ? -past : past, off < 0 ? "before its start" : "past its end");
  }
  die();
}
void race(const char* kind, Sh&, uint32_t osite, uint16_t otid, uint32_t site, uint64_t a, const char* space) {
  auto key = std::make_pair(std::min(osite, site), std::max(osite, site));
  if (races[key]++ || races.size() > 12) return;
  const Fiber& o = fib[otid];
  report(
      "RACE (%s, %s memory): block (%u,%u,%u) thread (%u,%u,%u) pc=+0x%llx and thread (%u,%u,%u) pc=+0x%llx touch the "
      "same address without a barrier between (%s=+0x%llx)",
      kind, space, blockIdx.x, blockIdx.y, blockIdx.z, o.tid.x, o.tid.y, o.tid.z,
      (unsigned long long)rel(sites[osite].pc), cur->tid.x, cur->tid.y, cur->tid.z,
      (unsigned long long)rel(sites[site].pc), space[0] == 's' ? "smem" : "address",
      (unsigned long long)(space[0] == 's' ? a - (uint64_t)tls_lo : a));
}
// Same block, different thread, no block barrier since, and not (same warp with a __syncwarp since): unordered.
inline bool unordered(uint32_t ep, uint32_t wep, uint16_t tid, uint32_t clk) {
  return ep == blk_epoch && tid != cur->lin && !((tid >> 5) == cur->warp && wep < warp_epoch[cur->warp]) &&
         !vc_ordered(tid, clk);
}
inline void shadow(Sh& s, bool w, bool at, uint32_t site, uint64_t a, bool shared) {
  const char* sp = shared ? "shared" : "global";
  bool same = shared || s.w_blk == blk_lin + 1;
  if (s.w_ep) {
    if (same) {
      if (!(at && s.w_at) && unordered(s.w_ep, s.w_wep, s.w_tid, s.w_clk))
        race(w ? "write/write" : "write/read", s, s.w_site, s.w_tid, site, a, sp);
    } else if ((L->flags & F_INTERBLOCK) && !(at && s.w_at)) {
      auto k = std::make_pair(std::min(s.w_site, site), std::max(s.w_site, site));
      if (!races[k]++ && races.size() <= 12)
        report("RACE (%s, between blocks %llu and %llu): pc=+0x%llx and pc=+0x%llx, address %llx",
               w ? "write/write" : "write/read", (unsigned long long)s.w_blk - 1, (unsigned long long)blk_lin,
               (unsigned long long)rel(sites[s.w_site].pc), (unsigned long long)rel(sites[site].pc),
               (unsigned long long)a);
    }
  }
  if (w && s.r_ep) {
    if (shared || s.r_blk == blk_lin + 1) {
      if (!(at && s.r_at)) {
        if (unordered(s.r_ep, s.r_wep, s.r_tid, s.r_clk))
          race("read/write", s, s.r_site, s.r_tid, site, a, sp);
        else if (unordered(s.r_ep, s.r2_wep, s.r2_tid, s.r2_clk))
          race("read/write", s, s.r2_site, s.r2_tid, site, a, sp);
      }
    } else if ((L->flags & F_INTERBLOCK) && !(at && s.r_at)) {
      auto k = std::make_pair(std::min(s.r_site, site), std::max(s.r_site, site));
      if (!races[k]++ && races.size() <= 12)
        report("RACE (read/write, between blocks %llu and %llu): pc=+0x%llx and pc=+0x%llx, address %llx",
               (unsigned long long)s.r_blk - 1, (unsigned long long)blk_lin,
               (unsigned long long)rel(sites[s.r_site].pc), (unsigned long long)rel(sites[site].pc),
               (unsigned long long)a);
    }
  }
  if (w) {
    s.w_ep = blk_epoch;
    s.w_wep = warp_epoch[cur->warp];
    s.w_tid = cur->lin;
    s.w_clk = vc_now();
    s.w_site = site;
    s.w_at = at;
    s.w_blk = blk_lin + 1;
  } else {
    uint32_t now = warp_epoch[cur->warp];
    if (s.r_ep != blk_epoch || s.r_blk != blk_lin + 1) {
      s.r_ep = blk_epoch;
      s.r_blk = blk_lin + 1;
      s.r_wep = s.r2_wep = now;
      s.r_clk = s.r2_clk = vc_now();
      s.r_tid = s.r2_tid = cur->lin;
      s.r_site = s.r2_site = site;
      s.r_at = at;
    } else if (s.r_tid == cur->lin || ((s.r_tid >> 5) == cur->warp && s.r_wep < now)) {
      s.r_tid = cur->lin;
      s.r_wep = now;
      s.r_clk = vc_now();
      s.r_site = site;
      s.r_at &= at;
    } else {
      s.r2_tid = cur->lin;
      s.r2_wep = now;
      s.r2_clk = vc_now();
      s.r2_site = site;
      s.r_at &= at;
    }
  }
}
void access(uint64_t a, unsigned size, bool w, bool at, uint64_t pc, int kind) {
  if (!cur || failed) return;
  if (a >= (uint64_t)stacks && a < (uint64_t)stacks + stack_sz * MAXT) {
    if (hop_on) hop_stack(a, size, w, pc);
    return;
  }                                                     // a fiber's own stack
  if (a >= (uint64_t)tls_lo && a < (uint64_t)tls_hi) {  // shared memory
    uint64_t d = a - (uint64_t)emulate_dynamic_shared;
    if (d < DYNAMIC_SHARED_BYTES) {
      if (d + size > L->shared_bytes) {
        char x[96];
        snprintf(x, sizeof x, " (dynamic shared memory: offset %llu, launch gave %llu bytes)", (unsigned long long)d,
                 (unsigned long long)L->shared_bytes);
        oob(a, size, w, pc, x);
      }
    } else if (!sh_valid.empty() && (!sh_valid[a - (uint64_t)tls_lo] || !sh_valid[a - (uint64_t)tls_lo + size - 1])) {
      char x[96];
      snprintf(x, sizeof x, " (static shared memory, between arrays: smem=+0x%llx)",
               (unsigned long long)(a - (uint64_t)tls_lo));
      oob(a, size, w, pc, x);
    }
    uint32_t site = site_of(pc, at ? SK_ATOM : kind == 1 ? SK_LDM : kind == 2 ? SK_WMMA : w ? SK_SST : SK_SLD);
    uint64_t o = a - (uint64_t)tls_lo;
    if (size > 1 && a % size && size <= 16) {
      char b[128];
      where(b, sizeof b);
      report("MISALIGNED: %u-byte shared access at pc=+0x%llx, %s", size, (unsigned long long)rel(pc), b);
      die();
    }
    if (L->flags & F_RACE) {
      if (hop_on) hop_touch((uint32_t)o, size, w, pc);
      for (unsigned i = 0; i < size; i++) {
        Sh& s = sh_shared[o + i];
        if (!w && i == 0 && sh_init[o] != blk_serial) {
          if (nuninit++ < 3) {
            char b[128];
            where(b, sizeof b);
            report("%s: %s, pc=+0x%llx, smem=+0x%llx",
                   sh_init[o] == INFLIGHT ? "READ OF AN UNFINISHED cp.async (no wait before it)"
                                          : "UNINITIALISED shared read",
                   b, (unsigned long long)rel(pc), (unsigned long long)o);
          }
        }
        if (w) sh_init[o + i] = blk_serial;
        shadow(s, w, at, site, a + i, true);
      }
    }
    if (L->flags & F_STATS) cur->log.push_back({a, site, (uint16_t)size, 0});
    return;
  }
  if (a - (uint64_t)L->statistics < sizeof(Stats)) return;
  const Buf* b = find_buf(a, nullptr);
  if (b) {
    if (a + size > (uint64_t)b->base + b->size) oob(a, size, w, pc, " (straddles the end)");
    if (b->valid && (!b->valid[a - (uint64_t)b->base] || !b->valid[a - (uint64_t)b->base + size - 1]))
      oob(a, size, w, pc, " (between the elements of a strided array)");
    if (w && b->ro) {
      report("WRITE to read-only (const) argument %d at pc=+0x%llx", b->arg, (unsigned long long)rel(pc));
      die();
    }
    if (size > 1 && a % size && size <= 16) {
      char x[128];
      where(x, sizeof x);
      report("MISALIGNED: %u-byte global access at pc=+0x%llx, %s", size, (unsigned long long)rel(pc), x);
      die();
    }
    uint32_t site = site_of(pc, at ? SK_ATOM : kind == 2 ? SK_WMMA : kind == 3 ? SK_CPA : w ? SK_GST : SK_GLD);
    if ((L->flags & F_RACE) && !b->ro) {
      auto& v = sh_buf[b - L->buffers];
      uint64_t e0 = (a - (uint64_t)b->base) / b->elem, e1 = (a + size - 1 - (uint64_t)b->base) / b->elem;
      for (uint64_t e = e0; e <= e1; e++) shadow(v[e], w, at, site, a, false);
    }
    if (L->flags & F_STATS) cur->log.push_back({a, site, (uint16_t)size, 0});
    return;
  }
  if (a >= (uint64_t)mod_lo && a < (uint64_t)mod_hi) return;  // __device__/__constant__ data, literals
  oob(a, size, w, pc, "");
}
// The k-th access of every lane at one site is taken as one warp instruction.
void flush_warp(int w) {
  static std::unordered_map<uint32_t, std::vector<std::vector<Rec*>>> g;
  g.clear();
  for (int l = 0; l < 32 && w * 32 + l < nthr; l++) {
    Fiber& f = fib[w * 32 + l];
    std::unordered_map<uint32_t, uint32_t> seq;
    for (auto& r : f.log) {
      auto& v = g[r.site];
      uint32_t k = seq[r.site]++;
      if (v.size() <= k) v.resize(k + 1);
      v[k].push_back(&r);
    }
  }
  for (auto& kv : g) {
    Site& s = sites[kv.first];
    for (auto& req : kv.second) {
      s.req++;
      s.lanes += req.size();
      unsigned size = req[0]->size;
      uint64_t bytes = 0, units = 0, ideal = 0;
      if (s.kind == SK_SLD || s.kind == SK_SST || s.kind == SK_LDM || s.kind == SK_WMMA) {
        // bank conflicts: 32 banks x 4 bytes; 8-byte accesses go by half warps, 16-byte ones by quarter warps
        size_t per = size >= 16 ? 8 : size == 8 ? 16 : 32;
        for (size_t i = 0; i < req.size(); i += per) {
          static std::vector<uint64_t> words[32];
          for (auto& x : words) x.clear();
          for (size_t j = i; j < std::min(i + per, req.size()); j++)
            for (unsigned o = 0; o < std::max(4u, size); o += 4) {
              uint64_t wd = (req[j]->addr + o) / 4;
              auto& bk = words[wd & 31];
              if (std::find(bk.begin(), bk.end(), wd) == bk.end()) bk.push_back(wd);
            }
          size_t mx = 0;
          for (auto& x : words) mx = std::max(mx, x.size());
          units += mx;
        }
        std::vector<uint64_t> all;
        for (auto* x : req)
          for (unsigned o = 0; o < std::max(4u, size); o += 4) all.push_back((x->addr + o) / 4);
        std::sort(all.begin(), all.end());
        ideal = (std::unique(all.begin(), all.end()) - all.begin() + 31) / 32;  // every distinct word once
        bytes = (uint64_t)size * req.size();
      } else {
        std::vector<uint64_t> sec, by;
        for (auto* r : req) {
          bytes += r->size;
          for (uint64_t q = r->addr / 32; q <= (r->addr + r->size - 1) / 32; q++) sec.push_back(q);
          for (uint64_t q = r->addr / 4; q <= (r->addr + r->size - 1) / 4; q++) by.push_back(q);
        }
        std::sort(sec.begin(), sec.end());
        units = std::unique(sec.begin(), sec.end()) - sec.begin();
        std::sort(by.begin(), by.end());
        uint64_t u = (std::unique(by.begin(), by.end()) - by.begin()) * 4;
        ideal = (u + 31) / 32;
      }
      s.bytes += bytes;
      s.units += units;
      s.ideal += ideal;
    }
  }
  for (int l = 0; l < 32 && w * 32 + l < nthr; l++) fib[w * 32 + l].log.clear();
}
void flush_all() {
  if (L->flags & F_STATS)
    for (int w = 0; w < nwarp; w++) flush_warp(w);
}

// ---------------------------------------------------------------- barriers and warp rendezvous
int n_at_bar;
void release_barrier() {
  Fiber* v[MAXT];
  int n = 0;
  const Fiber* first = nullptr;
  for (int i = 0; i < nthr; i++)
    if (fib[i].st == BAR) {
      if (!first)
        first = &fib[i];
      else if (fib[i].line != first->line || strcmp(fib[i].file, first->file)) {
        report("DIVERGENT BARRIER: block (%u,%u,%u): thread (%u,%u,%u) is at %s:%d, thread (%u,%u,%u) at %s:%d",
               blockIdx.x, blockIdx.y, blockIdx.z, first->tid.x, first->tid.y, first->tid.z, first->file,
               first->line & 0xfffff, fib[i].tid.x, fib[i].tid.y, fib[i].tid.z, fib[i].file, fib[i].line & 0xfffff);
        die();
      }
      v[n++] = &fib[i];
    }
  if (nlive < nthr && !(L->flags & F_ALLOW_EXIT)) {
    report("DIVERGENT BARRIER: block (%u,%u,%u): %d thread(s) returned before the barrier at %s:%d", blockIdx.x,
           blockIdx.y, blockIdx.z, nthr - nlive, first->file, first->line & 0xfffff);
    die();
  }
  int any = 0, all = 1, c = 0;
  for (int i = 0; i < n; i++) {
    any |= v[i]->pred != 0;
    all &= v[i]->pred != 0;
    c += v[i]->pred != 0;
  }
  for (int i = 0; i < n; i++) v[i]->redres = v[i]->bar_id == 0 ? any : v[i]->bar_id == 1 ? all : c;
  n_at_bar = 0;
  blk_epoch++;
  flush_all();
  cnt[3]++;
  vc_join_all();
  shuffle_push(v, n);
}
bool try_warp(int w, Fiber* f) {  // has every live lane named in f->mask arrived at the same operation?
  uint32_t need = 0;
  int base = w * 32;
  for (int l = 0; l < 32 && base + l < nthr; l++)
    if ((f->mask >> l & 1) && fib[base + l].st != DONE) need |= 1u << l;
  for (int l = 0; l < 32; l++)
    if (need >> l & 1) {
      Fiber& o = fib[base + l];
      if (o.st != WARP || o.mask != f->mask || o.what != f->what || o.line != f->line) return false;
    }
  return true;
}
typedef void (*WarpFn)(void**, unsigned);
void finish_warp(int w, Fiber* f, WarpFn fn) {
  void* ln[32] = {};
  uint32_t m = 0;
  Fiber* v[32];
  int n = 0;
  int base = w * 32;
  uint32_t mask = f->mask;
  for (int l = 0; l < 32 && base + l < nthr; l++)
    if (mask >> l & 1) {
      Fiber& o = fib[base + l];
      if (o.st == WARP) {
        ln[l] = o.payload;
        m |= 1u << l;
        v[n++] = &o;
      }
    }
  if (fn) fn(ln, m);
  shuffle_push(v, n, true);
}
#include "hopper_runtime.hpp"
}  // namespace

extern "C" {
void cu_fail(const char* fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vreport(fmt, ap);
  va_end(ap);
  char b[128];
  where(b, sizeof b);
  report("  at %s", b);
  die();
}
void cu_barrier(const char* file, int line, int id, int) {
  Fiber* f = cur;
  f->st = BAR;
  f->file = file;
  f->line = line;
  f->what = "__syncthreads";
  f->bar_id = id;
  f->nbar++;
  if (++n_at_bar == nlive) release_barrier();
  yield_next();
}
int cu_barrier_red(const char* file, int line, int pred, int op) {
  cur->pred = pred;
  cu_barrier(file, line, op, 0);
  return cur->redres;
}
void cu_warp(const char* what, const char* file, int line, unsigned mask, void* payload, WarpFn fn) {
  Fiber* f = cur;
  if (!(mask >> f->lane & 1)) {
    cu_fail("%s (%s:%d): mask %08x does not name the calling lane %d", what, file, line & 0xfffff, mask, f->lane);
  }
  cnt[what[0] == 's' && what[1] == 'h' ? 2 : 4]++;
  f->st = WARP;
  f->what = what;
  f->file = file;
  f->line = line;
  f->mask = mask;
  f->payload = payload;
  if (try_warp(f->warp, f)) finish_warp(f->warp, f, fn);
  yield_next();
}
unsigned cu_activemask() {
  unsigned m = 0;
  for (int l = 0; l < 32 && cur->warp * 32 + l < nthr; l++)
    if (fib[cur->warp * 32 + l].st != DONE) m |= 1u << l;
  return m;
}
void cu_syncwarp(const char* file, int line, unsigned mask) {
  cu_warp("__syncwarp", file, line, mask, nullptr, [](void**, unsigned m) {
    if (m == cu_activemask()) {
      warp_epoch[cur->warp]++;
      vc_join_warp(cur->warp);
    }
  });  // only a full-warp sync orders memory here (conservative)
}
void cu_trace(const void* p, unsigned size, int w, int at, int kind, const void* pc) {
  if (L->flags & F_TRACK) access((uint64_t)p, size, w, at, pc ? (uint64_t)pc : RA, kind);
}
void cu_trace_as(int lane, const void* p, unsigned size, int w, int kind, const void* pc) {
  if (!(L->flags & F_TRACK)) return;
  Fiber* s = cur;
  uint3 t = threadIdx;
  cur = &fib[s->warp * 32 + lane];
  threadIdx = cur->tid;
  access((uint64_t)p, size, w, 0, (uint64_t)pc, kind);
  cur = s;
  threadIdx = t;
}
void cu_count(int what, unsigned long long n) { cnt[what] += n; }
void cu_fence() {}
long long cu_clock() { return (long long)nswitch; }
unsigned cu_smem_addr(const void* p) {
  uint64_t a = (uint64_t)p;
  if (a < (uint64_t)tls_lo || a >= (uint64_t)tls_hi)
    cu_fail("__cvta_generic_to_shared of an address outside shared memory");
  return (unsigned)(a - (uint64_t)tls_lo);
}
void* cu_smem_ptr(unsigned a) { return tls_lo + a; }
static void cp_do(Pend& p) {  // the copy lands: a write by the issuing thread, now
  memset(p.dst, 0, p.size);
  if (p.src_size) memcpy(p.dst, p.src, p.src_size);
  if (L->flags & F_TRACK) {
    uint32_t f = L->flags;
    L->flags &= ~F_STATS;
    access((uint64_t)p.dst, p.size, true, false, p.pc, 0);
    L->flags = f;
  }
}
void cu_cp_async(void* dst, const void* src, unsigned size, unsigned ss) {
  if ((uint64_t)dst % size || (ss && (uint64_t)src % size)) cu_fail("cp.async: address not aligned to %u bytes", size);
  uint64_t a = (uint64_t)dst;
  if (a < (uint64_t)tls_lo || a >= (uint64_t)tls_hi) cu_fail("cp.async: destination is not shared memory");
  if (L->flags & F_TRACK) {
    if (ss) access((uint64_t)src, ss, false, false, RA, 3);
    access(a, size, true, false, RA, 0);
  }
  Pend p{dst, src, size, ss, cur->cp_group, RA};
  if (L->flags & F_CPLATE) {
    memset(dst, 0xff, size);
    if (L->flags & F_RACE) std::fill_n(&sh_init[a - (uint64_t)tls_lo], size, INFLIGHT);
    cur->pend.push_back(p);
  } else
    cp_do(p);  // late: as late as the waits allow; stale bytes become NaN
}
void cu_cp_commit() { cur->cp_group++; }
void cu_cp_wait(unsigned n) {
  auto& v = cur->pend;
  size_t k = 0;
  for (auto& p : v)
    if (p.group + n < cur->cp_group)
      cp_do(p);
    else
      v[k++] = p;
  v.resize(k);
}
#include "hopper_entry.hpp"
void cu_register(const Kernel* k) { kernels().push_back(k); }

// ---- callbacks emitted by g++ -fsanitize=thread
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define T(N)                                                                              \
  void __tsan_read##N(void* a) { access((uint64_t)a, N, false, false, RA, 0); }           \
  void __tsan_write##N(void* a) { access((uint64_t)a, N, true, false, RA, 0); }           \
  void __tsan_unaligned_read##N(void* a) { access((uint64_t)a, N, false, false, RA, 0); } \
  void __tsan_unaligned_write##N(void* a) { access((uint64_t)a, N, true, false, RA, 0); } \
  void __tsan_volatile_read##N(void* a) { access((uint64_t)a, N, false, false, RA, 0); }  \
  void __tsan_volatile_write##N(void* a) { access((uint64_t)a, N, true, false, RA, 0); }
T(1) T(2) T(4) T(8) T(16) void __tsan_read_range(void* a, unsigned long n) {
  access((uint64_t)a, n, false, false, RA, 0);
}
void __tsan_write_range(void* a, unsigned long n) { access((uint64_t)a, n, true, false, RA, 0); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define TA(N, U)                                                                        \
  U __tsan_atomic##N##_load(const volatile U* a, int) { return __atomic_load_n(a, 0); } \
  void __tsan_atomic##N##_store(volatile U* a, U v, int) { __atomic_store_n(a, v, 0); } \
  int __tsan_atomic##N##_compare_exchange_weak(volatile U* a, U* c, U v, int, int) {    \
    return __atomic_compare_exchange_n(a, c, v, false, 0, 0);                           \
  }                                                                                     \
  int __tsan_atomic##N##_compare_exchange_strong(volatile U* a, U* c, U v, int, int) {  \
    return __atomic_compare_exchange_n(a, c, v, false, 0, 0);                           \
  }
TA(8, uint8_t)
TA(16, uint16_t) TA(32, uint32_t) TA(64, uint64_t) __attribute__((visibility("default"))) int emulate_kernel_count() {
  return (int)kernels().size();
}
__attribute__((visibility("default"))) const Kernel* emulate_kernel(int i) { return kernels()[i]; }
}

// ---------------------------------------------------------------- block execution
static void fiber_main() {
  kern->call(args);
  Fiber* f = cur;
  if (!f->pend.empty()) {
    report("cp.async: thread (%u,%u,%u) of block (%u,%u,%u) returns with %zu copies never waited for", f->tid.x,
           f->tid.y, f->tid.z, blockIdx.x, blockIdx.y, blockIdx.z, f->pend.size());
    die();
  }
  hop_exit(f);
  f->st = DONE;
  nlive--;
  if (nlive == 0) {
    flush_all();
    to_main();
  }
  if (n_at_bar && n_at_bar == nlive) release_barrier();
  for (int l = 0; l < 32 && f->warp * 32 + l < nthr; l++) {
    Fiber* o = &fib[f->warp * 32 + l];
    if (o->st == WARP && try_warp(f->warp, o)) {
      report("WARP OPERATION %s (%s:%d): lanes named in mask %08x returned before it", o->what, o->file,
             o->line & 0xfffff, o->mask);
      die();
    }
  }
  yield_next();
  __builtin_unreachable();
}
static void run_block(uint64_t b) {
  blk_lin = b;
  blockIdx = {(unsigned)(b % gridDim.x), (unsigned)(b / gridDim.x % gridDim.y), (unsigned)(b / gridDim.x / gridDim.y)};
  // fresh shared memory is undefined: fill with NaN
  for (uint8_t* p = tls_lo; p < tls_hi;) {
    if (p == emulate_dynamic_shared) {
      memset(p, 0xff, std::min<uint64_t>(L->shared_bytes + 256, DYNAMIC_SHARED_BYTES));
      p += DYNAMIC_SHARED_BYTES;
    } else {
      uint8_t* e = p < emulate_dynamic_shared ? std::min(tls_hi, (uint8_t*)emulate_dynamic_shared) : tls_hi;
      memset(p, 0xff, e - p);
      p = e;
    }
  }
  blk_serial++;
  rh = rt = 1u << 20;
  n_at_bar = 0;
  nlive = nthr;
  blk_epoch++;
  Fiber* v[MAXT];
  for (int i = 0; i < nthr; i++) {
    Fiber& f = fib[i];
    f.pend.clear();
    f.log.clear();
    f.cp_group = 0;
    f.nbar = 0;
    uint64_t* sp = (uint64_t*)(stacks + (size_t)(i + 1) * stack_sz) - 1;
#if defined(__x86_64__)
    *sp = 0;
    *--sp = (uint64_t)fiber_main;
    sp -= 6;
#else
    sp -= 20;
    sp[11] = (uint64_t)fiber_main;
#endif
    f.sp = sp;
    v[i] = &f;
  }
  hop_reset();
  shuffle_push(v, nthr);
  yield_next();
  if (!failed)
    for (uint64_t i = L->shared_bytes; i < std::min<uint64_t>(L->shared_bytes + 256, DYNAMIC_SHARED_BYTES); i++)
      if (emulate_dynamic_shared[i] != 0xff) {
        report(
            "OUT OF BOUNDS: block (%u,%u,%u) wrote past the %llu bytes of dynamic shared memory (at byte %llu); mode "
            "\"check\" names the line",
            blockIdx.x, blockIdx.y, blockIdx.z, (unsigned long long)L->shared_bytes, (unsigned long long)i);
        failed = 1;
        break;
      }
}
static int phdr_cb(struct dl_phdr_info* in, size_t, void*) {
  uint64_t me = (uint64_t)&phdr_cb;
  uint64_t lo = ~0ull, hi = 0, tsz = 0;
  for (int i = 0; i < in->dlpi_phnum; i++) {
    auto& p = in->dlpi_phdr[i];
    if (p.p_type == PT_LOAD) {
      lo = std::min<uint64_t>(lo, in->dlpi_addr + p.p_vaddr);
      hi = std::max<uint64_t>(hi, in->dlpi_addr + p.p_vaddr + p.p_memsz);
    }
    if (p.p_type == PT_TLS) tsz = p.p_memsz;
  }
  if (me < lo || me >= hi) return 0;
  mod_lo = (uint8_t*)in->dlpi_addr;
  mod_hi = (uint8_t*)hi;
  tls_lo = (uint8_t*)in->dlpi_tls_data;
  tls_hi = tls_lo + tsz;
  return 1;
}
static void on_signal(int sig, siginfo_t* si, void* uc_) {
  uint64_t pc = 0;
#if defined(__x86_64__)
  pc = ((ucontext_t*)uc_)->uc_mcontext.gregs[REG_RIP];
#endif
  uint64_t a = (uint64_t)si->si_addr;
  char b[128];
  where(b, sizeof b);
  if (sig == SIGALRM)
    report("TIMEOUT: kernel ran longer than %u s (%s)", L->timeout_seconds, b);
  else {
    const Buf* n = nullptr;
    find_buf(a, &n);
    report("CRASH: %s at address 0x%llx, %s, pc=+0x%llx",
           sig == SIGSEGV  ? "invalid memory access"
           : sig == SIGBUS ? "bus error"
           : sig == SIGFPE ? "arithmetic exception"
                           : "illegal instruction (UBSan trap: array index, shift or overflow)",
           (unsigned long long)a, b, (unsigned long long)rel(pc));
    if (sig == SIGSEGV && a >= (uint64_t)stacks && a < (uint64_t)stacks + stack_sz * MAXT)
      report("  that is a fiber stack: raise stack_bytes");
    else if (sig == SIGSEGV && n) {
      long long off = (long long)(a - (uint64_t)n->base);
      report("  nearest buffer: argument %d, %llu elements of %llu bytes; address is element %lld", n->arg,
             (unsigned long long)(n->size / n->elem), (unsigned long long)n->elem, off / (long long)n->elem);
    }
  }
  _exit(4);
}
static int run_part(Launch* l, unsigned part, unsigned nparts) {
  L = l;
  failed = 0;
  cur = nullptr;
  cu_tracking = (l->flags & F_TRACK) != 0;
  kern = kernels()[l->kernel];
  args = l->parameters;
  blk_epoch = 1;
  memset(warp_epoch, 0, sizeof warp_epoch);
  memset(cnt, 0, sizeof cnt);
  nswitch = 0;
  gridDim = {l->grid[0], l->grid[1], l->grid[2]};
  blockDim = {l->block[0], l->block[1], l->block[2]};
  nthr = blockDim.x * blockDim.y * blockDim.z;
  nwarp = (nthr + 31) / 32;
  rng = l->seed * 2654435761u + 88172645463325252ull;
  volatile uint8_t touch = emulate_dynamic_shared[0];
  (void)touch;
  dl_iterate_phdr(phdr_cb, nullptr);
  cu_smem_base_ = (char*)tls_lo;
  cu_bb_ = l->statistics->bb;
  if (stack_sz != l->stack_bytes) {
    if (stacks) munmap(stacks, stack_sz * MAXT);
    stack_sz = l->stack_bytes;
    stacks = (uint8_t*)mmap(nullptr, stack_sz * MAXT, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  for (int i = 0; i < nthr; i++) {
    Fiber& f = fib[i];
    f.lin = i;
    f.warp = i >> 5;
    f.lane = i & 31;
    f.tid = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    f.st = DONE;
  }
  sites.clear();
  site_id.clear();
  last_pc = ~0ull;
  races.clear();
  nuninit = 0;
  if (l->flags & F_RACE) {
    sh_shared.assign(tls_hi - tls_lo, Sh{});
    sh_init.assign(tls_hi - tls_lo, 0);
    blk_serial = 0;
    sh_valid.assign(l->shared_symbol_count ? tls_hi - tls_lo : 0, 0);
    for (uint64_t i = 0; i < l->shared_symbol_count; i++) std::fill_n(&sh_valid[l->shared_symbols[2 * i]], l->shared_symbols[2 * i + 1], 1);
    sh_buf.clear();
    for (int i = 0; i < l->buffer_count; i++) sh_buf.emplace_back(l->buffers[i].ro ? 0 : l->buffers[i].size / l->buffers[i].elem, Sh{});
  }
  uint64_t nb = (uint64_t)gridDim.x * gridDim.y * gridDim.z;
  uint64_t lo = l->first_block, hi = l->block_count ? std::min(nb, lo + l->block_count) : nb;
  std::vector<uint64_t> ord;
  for (uint64_t b = lo + part; b < hi; b += nparts) ord.push_back(b);
  if (l->block_order == 1) std::reverse(ord.begin(), ord.end());
  if (l->block_order == 2)
    for (size_t i = ord.size(); i > 1; i--) std::swap(ord[i - 1], ord[rnd() % i]);
  for (uint64_t b : ord) {
    run_block(b);
    if (failed) break;
  }
  if (!races.empty() || nuninit) failed = 1;
  if (l->statistics) {
    Stats* s = l->statistics;
    for (int i = 0; i < NCOUNT; i++) __atomic_fetch_add(&s->count[i], cnt[i], __ATOMIC_RELAXED);
    __atomic_fetch_add(&s->blocks, ord.size(), __ATOMIC_RELAXED);
    __atomic_fetch_add(&s->threads, ord.size() * nthr, __ATOMIC_RELAXED);
    __atomic_fetch_add(&s->switches, nswitch, __ATOMIC_RELAXED);
    if (l->flags & F_STATS) {
      s->nsite = std::min<size_t>(sites.size(), MAXSITE);
      for (size_t i = 0; i < s->nsite; i++) {
        s->site[i] = sites[i];
        s->site[i].pc = rel(sites[i].pc);
      }
    }
  }
  return failed;
}
// In-process (nworkers == 0) or in forked children: a crash, a failed check or an endless loop then never harms the
// caller.
extern "C" __attribute__((visibility("default"))) int emulate_launch(Launch* l) {
  if (l->workers == 0) {
    forked = false;
    return run_part(l, 0, 1);
  }
  std::vector<pid_t> pids;
  unsigned n = l->workers;
  for (unsigned p = 0; p < n; p++) {
    pid_t pid = fork();
    if (pid == 0) {
      forked = true;
      L = l;
      static uint8_t alt[65536];
      stack_t ss{};
      ss.ss_sp = alt;
      ss.ss_size = sizeof alt;
      sigaltstack(&ss, nullptr);
      struct sigaction sa{};
      sa.sa_sigaction = on_signal;
      sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
      for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) sigaction(s, &sa, nullptr);

      alarm(l->timeout_seconds);
      int r = run_part(l, p, n);
      fflush(stdout);
      _exit(r ? 3 : 0);
    }
    pids.push_back(pid);
  }
  int rc = 0;
  for (pid_t p : pids) {
    int st;
    waitpid(p, &st, 0);
    if (!WIFEXITED(st))
      rc = 128 + WTERMSIG(st);
    else if (WEXITSTATUS(st))
      rc = WEXITSTATUS(st);
  }
  return rc;
}
