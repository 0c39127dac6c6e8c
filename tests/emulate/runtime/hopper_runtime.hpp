// hopper_runtime.hpp -- sm_90a on the host: mbarrier, TMA, wgmma, named barriers.  Part of runtime.cpp.
//
// Time: a bulk copy lands only when no thread can run, oldest first among those somebody waits for (orders reverse and
// depth-reverse: newest first; random: any).  Its destination is NaN from issue to landing.  A wgmma reads shared
// memory and writes its accumulators at the wait_group that retires it; until then the accumulators are NaN. Order
// (mode check): a vector clock per thread, joined by mbarriers, named barriers, __syncthreads and __syncwarp.

struct TMap {  // 128 bytes, written by tensor_map.py
  uint32_t magic;
  uint8_t mode, rank, esz, swizzle;
  uint64_t base;
  uint32_t dims[5];
  uint16_t box[5];
  uint16_t channels, pixels;
  uint8_t es[5], pad0;
  int16_t lower[3], upper[3];
  uint32_t pad1;
  uint64_t strides[4];
};
static_assert(sizeof(TMap) <= 128 && offsetof(TMap, strides) == 72, "layout shared with tensor_map.py");
const uint32_t TMAP_MAGIC = 0x50414d54;
struct WgArgs {
  float* d;
  const unsigned* areg;
  uint64_t a, b;
  int n, scale_d;
  uint8_t ty, ta, tb, na, nb;
};  // ty: 0 bf16, 1 f16, 2 tf32
struct Acc {
  float* d;
  int n, inflight;
  uint32_t fence_at;
  bool need_hold;
  std::vector<float> v;
};
struct WOp {
  WgArgs w;
  uint32_t a[4], group, acc;
  uint64_t pc, vers;
};
struct Bulk {
  bool store;
  TMap map;
  bool tensor, im2col;
  int c[5], o[3];
  uint32_t smem, bytes, bar, group;
  uint64_t gptr, pc, vers;
  uint16_t tid;
};
struct HopF {
  std::vector<Acc> acc;
  std::vector<WOp> ops;
  std::vector<Bulk> stores;
  uint32_t group, fence_seq, fence_commit, pfence, ifence, bgroup, bwaited, wpar;
  int wbar, waitn;
  bool ok;
  uint64_t pc;
};
struct Mbar {
  uint32_t off, count, pending, phase;
  int64_t tx;
  bool live;
  uint16_t init_tid;
  uint32_t init_ep, init_wep, init_clk, init_fence;
  std::vector<uint32_t> vc, done;
  std::vector<uint16_t> wait;
};
struct Chunk {
  uint8_t st, gw, mb, sw;
  uint16_t bar, gw_tid;
  uint32_t phase, ver, gw_clk, gw_ep, gw_wep, gw_fence, rd[8];
};  // 16 bytes of shared memory
struct NBar {
  uint32_t need, cnt;
  std::vector<uint16_t> wait;
  std::vector<uint32_t> vc;
};
enum { CH_NONE = 0, CH_INFLIGHT = 1, CH_LANDED = 2, MAXBAR = 64 };
bool hop_on;
HopF hf[MAXT];
std::vector<Mbar> mbars;
std::vector<Chunk> chunks;
std::vector<Bulk> bulks;
std::vector<uint16_t> spins;
NBar nbars[16];
int wg_arrived[8], spin_rounds;
std::vector<uint32_t> vclk;
uint32_t nv;
struct RdEv {
  uint32_t clk[4];
};
std::vector<RdEv> rdev;
inline bool vc_on() { return hop_on && (L->flags & F_RACE); }
inline uint32_t* vc_of(int t) { return &vclk[(size_t)t * nv]; }
uint32_t vc_now() { return vc_on() ? vc_of(cur->lin)[cur->lin] : 0; }
bool vc_ordered(uint16_t tid, uint32_t clk) { return vc_on() && clk && vc_of(cur->lin)[tid] >= clk; }
void vc_max(uint32_t* a, const uint32_t* b) {
  for (uint32_t i = 0; i < nv; i++) a[i] = std::max(a[i], b[i]);
}
void vc_release(std::vector<uint32_t>& to) {
  if (!vc_on()) return;
  to.resize(nv);
  uint32_t* v = vc_of(cur->lin);
  vc_max(to.data(), v);
  v[cur->lin]++;
}
void vc_join(const uint16_t* t, int n) {  // everything before is ordered before everything after, among these threads
  if (!vc_on() || !n) return;
  static std::vector<uint32_t> m;
  m.assign(nv, 0);
  for (int i = 0; i < n; i++) vc_max(m.data(), vc_of(t[i]));
  for (int i = 0; i < n; i++) {
    uint32_t* v = vc_of(t[i]);
    memcpy(v, m.data(), nv * 4);
    v[t[i]]++;
  }
}
void vc_join_all() {
  if (!vc_on()) return;
  static uint16_t t[MAXT];
  for (int i = 0; i < nthr; i++) t[i] = i;
  vc_join(t, nthr);
}
void vc_join_warp(int w) {
  uint16_t t[32];
  int n = 0;
  for (int l = 0; l < 32 && w * 32 + l < nthr; l++) t[n++] = w * 32 + l;
  vc_join(t, n);
}

[[noreturn]] void hop_fail(uint64_t pc, const char* fmt, ...) __attribute__((format(printf, 2, 3)));
void hop_fail(uint64_t pc, const char* fmt, ...) {
  char m[700], b[128];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(m, sizeof m, fmt, ap);
  va_end(ap);
  where(b, sizeof b);
  report("%s\n  at %s, pc=+0x%llx", m, b, (unsigned long long)rel(pc));
  die();
}
void hop_reset() {
  if (!hop_on) return;
  mbars.clear();
  bulks.clear();
  spins.clear();
  rdev.assign(1, RdEv{});
  spin_rounds = 0;
  memset(wg_arrived, 0, sizeof wg_arrived);
  for (auto& b : nbars) b = NBar{};
  chunks.assign((tls_hi - tls_lo + 15) / 16, Chunk{});
  for (int i = 0; i < nthr; i++) {
    HopF& h = hf[i];
    h.acc.clear();
    h.ops.clear();
    h.stores.clear();
    h.group = h.fence_seq = h.fence_commit = h.pfence = h.ifence = h.bgroup = 0;
    h.bwaited = 0;
    h.ok = false;
  }
  if (L->flags & F_RACE) {
    nv = (nthr + MAXBAR + 7) / 8 * 8;
    vclk.assign((size_t)nthr * nv, 0);
    for (int i = 0; i < nthr; i++) vc_of(i)[i] = 1;
  }
}
uint32_t soff(const void* p, uint64_t pc, const char* what) {
  uint64_t a = (uint64_t)p;
  if (a < (uint64_t)tls_lo || a >= (uint64_t)tls_hi) hop_fail(pc, "%s: address is not in shared memory", what);
  return (uint32_t)(a - (uint64_t)tls_lo);
}
bool smem_ok(uint64_t o, uint64_t n) {  // inside the launch's dynamic shared memory or a static array
  if (o + n > (uint64_t)(tls_hi - tls_lo)) return false;
  uint64_t d = o - (uint64_t)(emulate_dynamic_shared - tls_lo);
  if (d < DYNAMIC_SHARED_BYTES) return d + n <= L->shared_bytes;
  return sh_valid.empty() || (sh_valid[o] && sh_valid[o + n - 1]);
}

// ---------------------------------------------------------------- mbarrier
Mbar& mb_find(const void* p, uint64_t pc, const char* what) {
  uint32_t o = soff(p, pc, what);
  for (auto& b : mbars)
    if (b.off == o && b.live) {
      uint64_t v;
      memcpy(&v, tls_lo + o, 8);
      if (v != (0x6d62617200000000ull | o))
        hop_fail(pc, "%s: the mbarrier object at smem=+0x%x was overwritten", what, o);
      if ((L->flags & F_RACE) && b.init_tid != cur->lin && b.init_ep == blk_epoch &&
          !vc_ordered(b.init_tid, b.init_clk) &&
          !((b.init_tid >> 5) == cur->warp && b.init_wep < warp_epoch[cur->warp]))
        hop_fail(pc, "RACE: %s on an mbarrier (smem=+0x%x) that thread %d initialised without a barrier between", what,
                 o, b.init_tid);
      return b;
    }
  hop_fail(pc, "%s: no mbarrier was initialised at smem=+0x%x", what, o);
}
void wake(Fiber** v, int n) {
  spin_rounds = 0;
  shuffle_push(v, n);
}
void mb_check(Mbar& b) {
  if (b.pending || b.tx) return;
  uint32_t old = b.phase & 1;
  b.phase++;
  b.pending = b.count;
  if (vc_on()) {
    b.done.resize(nv);
    b.vc.resize(nv);
    vc_max(b.done.data(), b.vc.data());
    b.done[nthr + (&b - mbars.data())] = b.phase;
  }
  Fiber* v[MAXT];
  int n = 0;
  size_t k = 0;
  for (uint16_t t : b.wait) {
    if (hf[t].wpar == old) {
      hf[t].ok = true;
      v[n++] = &fib[t];
    } else
      b.wait[k++] = t;
  }
  b.wait.resize(k);
  if (n) wake(v, n);
}
void mb_arrive(const void* p, unsigned n, int64_t tx, bool arrive, uint64_t pc) {
  const char* what = tx ? (arrive ? "mbarrier.arrive.expect_tx" : "mbarrier.expect_tx") : "mbarrier.arrive";
  Mbar& b = mb_find(p, pc, what);
  b.tx += tx;
  if (b.tx > 0xfffff) hop_fail(pc, "%s: tx-count %lld exceeds 2^20-1", what, (long long)b.tx);
  if (!arrive) return;
  if (n > b.pending)
    hop_fail(pc, "%s: %u arrival(s), but only %u of %u are outstanding in phase %u (tx-count %lld)", what, n, b.pending,
             b.count, b.phase, (long long)b.tx);
  b.pending -= n;
  vc_release(b.vc);
  mb_check(b);
}

// ---------------------------------------------------------------- shared memory seen by the asynchronous proxy
void rd_check(Chunk& c, uint64_t pc, const char* what,
              uint32_t o) {  // may the current thread's copy overwrite what warpgroups have read?
  for (int g = 0; g < 8; g++)
    if (c.rd[g])
      for (int w = 0; w < 4; w++)
        if (!vc_ordered(g * 128 + w * 32, rdev[c.rd[g]].clk[w]) && g * 4 + w != cur->warp)
          hop_fail(pc,
                   "RACE: %s overwrites smem=+0x%x, which a wgmma of warpgroup %d read; warp %d has not signalled this "
                   "thread since",
                   what, o, g, g * 4 + w);
}
void gen_order(uint32_t o, uint32_t n, uint64_t pc, const char* what,
               bool reads_too) {  // generic accesses must be ordered before
  for (uint32_t i = 0; i < n; i += 2) {
    Sh& s = sh_shared[o + i];
    if (s.w_ep && unordered(s.w_ep, s.w_wep, s.w_tid, s.w_clk))
      hop_fail(pc, "RACE: %s and a write by thread %d at pc=+0x%llx touch smem=+0x%x without a barrier between", what,
               s.w_tid, (unsigned long long)rel(sites[s.w_site].pc), o + i);
    if (reads_too && s.r_ep &&
        (unordered(s.r_ep, s.r_wep, s.r_tid, s.r_clk) || unordered(s.r_ep, s.r2_wep, s.r2_tid, s.r2_clk)))
      hop_fail(pc, "RACE: %s and a read by thread %d at pc=+0x%llx touch smem=+0x%x without a barrier between", what,
               s.r_tid, (unsigned long long)rel(sites[s.r_site].pc), o + i);
  }
}
uint64_t async_read(uint32_t o, uint64_t pc, const char* what,
                    int sw = -1) {  // one 16-byte granule; returns its version
  if (!smem_ok(o, 16)) hop_fail(pc, "OUT OF BOUNDS: %s reads smem=+0x%x, outside the block's shared memory", what, o);
  Chunk& c = chunks[o >> 4];
  if (c.st == CH_INFLIGHT)
    hop_fail(pc,
             "%s reads smem=+0x%x while a bulk copy is still writing it (mbarrier wait missing, wrong parity or wrong "
             "expect_tx)",
             what, o);
  if (L->flags & F_RACE) {
    if (c.mb) hop_fail(pc, "%s reads smem=+0x%x, which holds an mbarrier", what, o);
    if (c.st == CH_LANDED) {
      if (vc_of(cur->lin)[nthr + c.bar] <= c.phase)
        hop_fail(pc,
                 "RACE: %s reads smem=+0x%x, written by a bulk copy for whose mbarrier (smem=+0x%x) this thread has "
                 "not waited",
                 what, o, mbars[c.bar].off);
    }
    if (c.st == CH_LANDED && !c.gw && sw >= 0 && sw != c.sw)
      hop_fail(pc, "SWIZZLE: the %s descriptor says %d bytes, the copy that wrote smem=+0x%x used %d", what,
               sw ? 16 << sw : 0, o, c.sw ? 16 << c.sw : 0);
    if (c.st != CH_LANDED && !c.gw)
      hop_fail(pc, "UNINITIALISED: %s reads smem=+0x%x, which nothing has written", what, o);
    if (c.gw) {
      if (unordered(c.gw_ep, c.gw_wep, c.gw_tid, c.gw_clk))
        hop_fail(pc, "RACE: %s reads smem=+0x%x, written by thread %d without a barrier between", what, o, c.gw_tid);
      if (hf[c.gw_tid].pfence == c.gw_fence)
        hop_fail(pc,
                 "MISSING fence.proxy.async: %s reads smem=+0x%x, which thread %d wrote with ordinary stores and did "
                 "not fence",
                 what, o, c.gw_tid);
    }
  }
  return c.ver;
}
void hop_touch(uint32_t o, unsigned size, bool w, uint64_t pc) {  // ordinary access (mode check)
  for (uint32_t i = o >> 4; i <= (o + size - 1) >> 4; i++) {
    Chunk& c = chunks[i];
    if (c.mb && (o & ~7u) < i * 16 + 16) {
      for (auto& b : mbars)
        if (b.live && o < b.off + 8 && b.off < o + size)
          hop_fail(pc, "ordinary %s of a live mbarrier object (smem=+0x%x)", w ? "write" : "read", b.off);
    }
    if (c.st == CH_INFLIGHT)
      hop_fail(pc,
               "%s of smem=+0x%x while a bulk copy is still writing it (mbarrier wait missing, wrong parity or wrong "
               "expect_tx)",
               w ? "write" : "read", o);
    if (c.st == CH_LANDED && vc_of(cur->lin)[nthr + c.bar] <= c.phase)
      hop_fail(
          pc,
          "RACE: %s of smem=+0x%x, written by a bulk copy for whose mbarrier (smem=+0x%x) this thread has not waited",
          w ? "write" : "read", o, mbars[c.bar].off);
    if (w) {
      rd_check(c, pc, "an ordinary store", o);
      c.ver++;
      c.gw = 1;
      c.gw_tid = cur->lin;
      c.gw_clk = vc_now();
      c.gw_ep = blk_epoch;
      c.gw_wep = warp_epoch[cur->warp];
      c.gw_fence = hf[cur->lin].pfence;
    }
  }
}
void hop_stack(uint64_t a, unsigned size, bool w, uint64_t pc) {
  for (auto& c : hf[cur->lin].acc)
    if (a + size > (uint64_t)c.d && a < (uint64_t)(c.d + c.n)) {
      if (c.inflight)
        hop_fail(pc, "ACCUMULATOR %s (register %d) while its wgmma is in flight: wgmma.wait_group missing",
                 w ? "written" : "read", (int)((a - (uint64_t)c.d) / 4));
      if (c.need_hold && !w)
        hop_fail(pc,
                 "ACCUMULATOR read after wgmma_wait without wgmma_hold(d): the device compiler may move the read above "
                 "the wait");
    }
}

// ---------------------------------------------------------------- bulk copies
inline uint32_t swz(uint32_t a, int bits) { return a ^ (((a >> 7) & ((1u << bits) - 1)) << 4); }  // bits 7.. into 4..
int swz_bits(int tma_mode) {
  return tma_mode == 0 ? 0 : tma_mode;
}  // 32B: 1, 64B: 2, 128B: 3 (numbering of CUtensorMapSwizzle)
uint32_t tma_bytes(const TMap& m) {
  if (m.mode) return (uint32_t)m.channels * m.pixels * m.esz;
  uint32_t n = m.esz;
  for (int i = 0; i < m.rank; i++) n *= m.box[i];
  return n;
}
void gtrace(uint64_t a, uint32_t n, bool w, uint64_t pc,
            uint16_t tid) {  // the global side, attributed to the issuing thread
  if (!(L->flags & F_TRACK) || !n) return;
  Fiber* s = cur;
  uint3 t = threadIdx;
  cur = &fib[tid];
  threadIdx = cur->tid;
  uint32_t f = L->flags;
  L->flags &= ~F_STATS;
  access(a, n, w, false, pc, 0);
  L->flags = f;
  cur = s;
  threadIdx = t;
}
template <class F>
void tma_rows(const Bulk& k,
              F f) {  // f(smem byte offset within the tile, global address or 0, bytes in range, bytes of the row)
  const TMap& m = k.map;
  if (!m.mode) {
    uint32_t row = m.box[0] * m.esz, n = 1;
    for (int i = 1; i < m.rank; i++) n *= m.box[i];
    int64_t c0 = k.c[0], lo = std::max<int64_t>(0, -c0), hi = std::min<int64_t>(m.box[0], (int64_t)m.dims[0] - c0);
    for (uint32_t r = 0; r < n; r++) {
      uint32_t q = r;
      uint64_t g = m.base;
      bool in = hi > lo;
      for (int i = 1; i < m.rank; i++) {
        int64_t x = (int64_t)k.c[i] + q % m.box[i];
        q /= m.box[i];
        if (x < 0 || x >= m.dims[i]) in = false;
        g += x * m.strides[i - 1];
      }
      f(r * row, in ? g + (c0 + lo) * m.esz : 0, in ? (uint32_t)lo * m.esz : 0, in ? (uint32_t)(hi - lo) * m.esz : 0,
        row);
    }
  } else {
    int ns = m.rank - 2;
    uint32_t row = m.channels * m.esz;
    int64_t x[4];
    for (int i = 0; i <= ns; i++) x[i] = k.c[i + 1];
    int64_t c0 = k.c[0], lo = std::max<int64_t>(0, -c0), hi = std::min<int64_t>(m.channels, (int64_t)m.dims[0] - c0);
    for (uint32_t p = 0; p < m.pixels; p++) {
      uint64_t g = m.base;
      bool in = hi > lo;
      for (int i = 0; i <= ns; i++) {
        int64_t y = x[i] + (i < ns ? k.o[i] : 0);
        if (y < 0 || y >= m.dims[i + 1]) in = false;
        g += y * m.strides[i];
      }
      f(p * row, in ? g + (c0 + lo) * m.esz : 0, in ? (uint32_t)lo * m.esz : 0, in ? (uint32_t)(hi - lo) * m.esz : 0,
        row);
      int i = 0;
      for (; i < ns; i++) {
        x[i] += m.es[i + 1];
        if (x[i] < (int64_t)m.dims[i + 1] + m.upper[i]) break;
        x[i] = m.lower[i];
      }  // next pixel of the bounding box
      if (i == ns) x[ns]++;
    }
  }
}
void scopy(uint32_t base, uint32_t lin, uint8_t* buf, uint32_t n, int bits,
           bool to_smem) {  // n bytes from tile offset lin, 16-byte swizzled
  while (n) {
    uint32_t a = base + lin, p = swz(a & ~15u, bits) | (a & 15), c = std::min(n, 16 - (a & 15));
    if (to_smem)
      memcpy(tls_lo + p, buf, c);
    else
      memcpy(buf, tls_lo + p, c);
    lin += c;
    buf += c;
    n -= c;
  }
}
void bulk_land(size_t i) {
  Bulk k = bulks[i];
  bulks.erase(bulks.begin() + i);
  static std::vector<uint8_t> z;
  if (k.tensor) {
    int bits = swz_bits(k.map.swizzle);
    tma_rows(k, [&](uint32_t lin, uint64_t g, uint32_t lead, uint32_t n, uint32_t row) {
      z.assign(row, 0);
      if (g) {
        memcpy(&z[lead], (void*)g, n);
        gtrace(g, n, false, k.pc, k.tid);
      }
      scopy(k.smem, lin, z.data(), row, bits, true);
    });
  } else {
    memcpy(tls_lo + k.smem, (void*)k.gptr, k.bytes);
    gtrace(k.gptr, k.bytes, false, k.pc, k.tid);
  }
  Mbar& b = mbars[k.bar];
  for (uint32_t o = k.smem; o < k.smem + k.bytes; o += 16) {
    Chunk& c = chunks[o >> 4];
    c.st = CH_LANDED;
    c.bar = k.bar;
    c.phase = b.phase;
    c.sw = k.tensor ? k.map.swizzle : 0;
    c.gw = 0;
    memset(c.rd, 0, sizeof c.rd);
  }
  if (L->flags & F_RACE) std::fill_n(&sh_init[k.smem], k.bytes, blk_serial);
  spin_rounds = 0;
  b.tx -= k.bytes;
  mb_check(b);
}
void bulk_issue(Bulk& k, const void* dst, const void* bar, uint32_t align, uint64_t pc) {
  const char* what = k.tensor ? "cp.async.bulk.tensor" : "cp.async.bulk";
  k.smem = soff(dst, pc, what);
  k.pc = pc;
  k.tid = cur->lin;
  if (k.smem % align)
    hop_fail(pc, "%s: destination smem=+0x%x is not aligned to %u bytes%s", what, k.smem, align,
             align > 128 ? " (repeat of the swizzle pattern)" : "");
  if (!smem_ok(k.smem, k.bytes))
    hop_fail(pc,
             "OUT OF BOUNDS: %s writes %u bytes at smem=+0x%x, outside the block's shared memory (%llu dynamic bytes)",
             what, k.bytes, k.smem, (unsigned long long)L->shared_bytes);
  Mbar& b = mb_find(bar, pc, what);
  k.bar = &b - mbars.data();
  if ((L->flags & F_RACE) && hf[b.init_tid].ifence == b.init_fence)
    hop_fail(pc,
             "MISSING fence.mbarrier_init (or fence.proxy.async): %s uses an mbarrier (smem=+0x%x) whose "
             "initialisation was not fenced",
             what, b.off);
  for (uint32_t o = k.smem; o < k.smem + k.bytes; o += 16) {
    Chunk& c = chunks[o >> 4];
    if (c.st == CH_INFLIGHT)
      hop_fail(pc, "RACE: %s writes smem=+0x%x while an earlier bulk copy is still writing it", what, o);
    if (c.mb) hop_fail(pc, "%s overwrites smem=+0x%x, which holds an mbarrier", what, o);
    if (L->flags & F_RACE) {
      rd_check(c, pc, what, o);
      if (c.st == CH_LANDED && vc_of(cur->lin)[nthr + c.bar] <= c.phase &&
          !std::any_of(c.rd, c.rd + 8, [](uint32_t x) { return x != 0; }))
        hop_fail(pc,
                 "RACE: %s overwrites smem=+0x%x, which holds an earlier copy that nobody this thread has heard from "
                 "has consumed",
                 what, o);
    }
  }
  if (L->flags & F_RACE) {
    gen_order(k.smem, k.bytes, pc, what, true);
    std::fill_n(&sh_init[k.smem], k.bytes, INFLIGHT);
  }
  for (uint32_t o = k.smem; o < k.smem + k.bytes; o += 16) {
    Chunk& c = chunks[o >> 4];
    c.st = CH_INFLIGHT;
    c.bar = k.bar;
    c.ver++;
  }
  memset(tls_lo + k.smem, 0xff, k.bytes);
  bulks.push_back(k);
}
const TMap& tmap(const void* p, uint64_t pc) {
  const TMap* m = (const TMap*)p;
  if (m->magic != TMAP_MAGIC)
    hop_fail(pc, "cp.async.bulk.tensor: not a tensor map (pass it as const __grid_constant__ ptx::TensorMap)");
  return *m;
}
uint64_t store_vers(const Bulk& k, bool check) {
  uint64_t v = 0;
  for (uint32_t o = k.smem; o < k.smem + k.bytes; o += 16)
    v += check ? async_read(o, k.pc, "bulk store") : chunks[o >> 4].ver;
  return v;
}
void store_land(Bulk& k) {
  if (store_vers(k, false) != k.vers)
    hop_fail(k.pc, "RACE: the shared memory of a bulk store changed before cp.async.bulk.wait_group");
  if (!k.tensor) {
    gtrace(k.gptr, k.bytes, true, k.pc, k.tid);
    memcpy((void*)k.gptr, tls_lo + k.smem, k.bytes);
    return;
  }
  static std::vector<uint8_t> z;
  int bits = swz_bits(k.map.swizzle);
  tma_rows(k, [&](uint32_t lin, uint64_t g, uint32_t lead, uint32_t n, uint32_t row) {
    if (!g) return;
    z.resize(row);
    scopy(k.smem, lin, z.data(), row, bits, false);
    gtrace(g, n, true, k.pc, k.tid);
    memcpy((void*)g, &z[lead], n);
  });
}

// ---------------------------------------------------------------- wgmma
struct Opnd {
  uint32_t start, lbo, sbo;
  int w, base;
};  // w: 16-byte units per swizzled row (1, 2, 4, 8)
Opnd opnd(uint64_t d, uint64_t pc, char which) {
  static const int W[4] = {1, 8, 4, 2};
  Opnd o{(uint32_t)(d & 0x3fff) << 4, (uint32_t)(d >> 16 & 0x3fff) << 4, (uint32_t)(d >> 32 & 0x3fff) << 4, W[d >> 62],
         (int)(d >> 49 & 7)};
  if (d & 0x3ff1c000c000c000ull)
    hop_fail(pc, "wgmma: reserved bits of descriptor %c are set (%016llx)", which, (unsigned long long)d);
  if (o.w == 1 && o.base) hop_fail(pc, "wgmma: base offset in descriptor %c without swizzle", which);
  if (o.w > 1 && (((o.start >> 7) - o.base) & (o.w - 1)))
    hop_fail(pc,
             "wgmma: descriptor %c starts inside the swizzle pattern (address %#x, pattern repeats every %d bytes, "
             "base offset %d): align the tile",
             which, o.start, o.w * 128, o.base);
  return o;
}
// Address of the 16-byte unit holding (mn, k): K-major units hold 16/esz values of k, MN-major units 8 values of mn.
inline uint32_t unit_k(const Opnd& o, int mn, int u) {
  uint32_t a = o.w == 1 ? o.start + (mn & 7) * 16 + (mn >> 3) * o.sbo + u * o.lbo
                        : o.start + (mn & 7) * o.w * 16 + (mn >> 3) * o.sbo + u * 16;
  return a ^ ((((a >> 7) - o.base) & (o.w - 1)) << 4);
}
inline uint32_t unit_mn(const Opnd& o, int g, int k) {
  uint32_t a = o.w == 1 ? o.start + g * o.sbo + (k & 7) * 16 + (k >> 3) * o.lbo
                        : o.start + (g % o.w) * 16 + (g / o.w) * o.lbo + (k & 7) * o.w * 16 + (k >> 3) * o.sbo;
  return a ^ ((((a >> 7) - o.base) & (o.w - 1)) << 4);
}
template <class F>
inline void units(const Opnd& o, int mn, int tr, F f) {
  if (!tr) {
    for (int i = 0; i < mn; i++)
      for (int u = 0; u < 2; u++) f(unit_k(o, i, u), i, u);
  } else
    for (int g = 0; g < mn / 8; g++)
      for (int k = 0; k < 16; k++) f(unit_mn(o, g, k), g, k);
}
uint64_t wg_vers(const WgArgs& w, uint64_t pc, bool check) {
  static const int TM[4] = {0, 3, 2, 1};  // descriptor -> tensor map numbering
  uint64_t v = 0;
  int sw = TM[w.a >> 62];
  auto one = [&](uint32_t a, int, int) { v += check ? async_read(a, pc, "wgmma", sw) : chunks[a >> 4].ver; };
  if (!w.areg) units(opnd(w.a, pc, 'A'), 64, w.ta, one);
  sw = TM[w.b >> 62];
  units(opnd(w.b, pc, 'B'), w.n, w.tb, one);
  return v;
}
inline float cvt(const uint8_t* p, int ty) {
  if (ty == 0) {
    uint16_t h;
    memcpy(&h, p, 2);
    uint32_t b = (uint32_t)h << 16;
    float f;
    memcpy(&f, &b, 4);
    return f;
  }
  if (ty == 1) {
    _Float16 h;
    memcpy(&h, p, 2);
    return (float)h;
  }
  uint32_t b;
  memcpy(&b, p, 4);
  b &= ~0x1fffu;
  float f;
  memcpy(&f, &b, 4);
  return f;
}
alignas(64) float wa[64][16], wb[16][256], wc[64][256];
typedef float v8 __attribute__((vector_size(32), aligned(32)));
template <int V>
inline void wg_mac_cols(int j, int kk) {  // 4 rows x 8V columns at a time, accumulators in registers
  for (int m = 0; m < 64; m += 4) {
    v8 s0[V], s1[V], s2[V], s3[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      s0[v] = *(const v8*)&wc[m][j + 8 * v];
      s1[v] = *(const v8*)&wc[m + 1][j + 8 * v];
      s2[v] = *(const v8*)&wc[m + 2][j + 8 * v];
      s3[v] = *(const v8*)&wc[m + 3][j + 8 * v];
    }
    for (int k = 0; k < kk; k++) {
      const float a0 = wa[m][k], a1 = wa[m + 1][k], a2 = wa[m + 2][k], a3 = wa[m + 3][k];
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) {
        v8 b = *(const v8*)&wb[k][j + 8 * v];
        s0[v] += b * a0;
        s1[v] += b * a1;
        s2[v] += b * a2;
        s3[v] += b * a3;
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      *(v8*)&wc[m][j + 8 * v] = s0[v];
      *(v8*)&wc[m + 1][j + 8 * v] = s1[v];
      *(v8*)&wc[m + 2][j + 8 * v] = s2[v];
      *(v8*)&wc[m + 3][j + 8 * v] = s3[v];
    }
  }
}
void wg_mac(int n, int kk) {
  int j = 0;
  for (; j + 16 <= n; j += 16) wg_mac_cols<2>(j, kk);
  if (j < n) wg_mac_cols<1>(j, kk);
}
inline int c_row(int t, int i) {
  return (t >> 5) * 16 + ((t & 31) >> 2) + ((i >> 1) & 1) * 8;
}  // accumulator register i of thread t of the warpgroup
inline int c_col(int t, int i) { return (i >> 2) * 8 + (t & 3) * 2 + (i & 1); }
void wg_exec(int base, const WOp& op, size_t idx) {
  const WgArgs& w = op.w;
  int es = w.ty == 2 ? 4 : 2, kk = 32 / es, T = 16 / es;
  float sa = w.na ? -1.f : 1.f, sb = w.nb ? -1.f : 1.f;
  if (w.areg)
    for (int t = 0; t < 128; t++) {
      const uint8_t* r = (const uint8_t*)hf[base + t].ops[idx].a;
      int g = (t >> 5) * 16 + ((t & 31) >> 2);
      if (es == 2)
        for (int i = 0; i < 8; i++)
          wa[g + ((i >> 1) & 1) * 8][(t & 3) * 2 + (i & 1) + (i >> 2) * 8] = sa * cvt(r + 2 * i, w.ty);
      else
        for (int i = 0; i < 4; i++) wa[g + (i & 1) * 8][(t & 3) + (i >> 1) * 4] = sa * cvt(r + 4 * i, 2);
    }
  else
    units(opnd(w.a, op.pc, 'A'), 64, w.ta, [&](uint32_t a, int x, int y) {
      const uint8_t* p = tls_lo + a;
      if (!w.ta)
        for (int i = 0; i < T; i++) wa[x][y * T + i] = sa * cvt(p + i * es, w.ty);
      else
        for (int i = 0; i < 8; i++) wa[x * 8 + i][y] = sa * cvt(p + i * 2, w.ty);
    });
  units(opnd(w.b, op.pc, 'B'), w.n, w.tb, [&](uint32_t a, int x, int y) {
    const uint8_t* p = tls_lo + a;
    if (!w.tb)
      for (int i = 0; i < T; i++) wb[y * T + i][x] = sb * cvt(p + i * es, w.ty);
    else
      for (int i = 0; i < 8; i++) wb[y][x * 8 + i] = sb * cvt(p + i * 2, w.ty);
  });
  if (!w.scale_d)
    for (int m = 0; m < 64; m++) memset(wc[m], 0, w.n * 4);
  wg_mac(w.n, kk);
  cnt[0] += 2ull * 64 * w.n * kk;
}
void wg_retire(int wg) {
  int base = wg * 128;
  HopF& h0 = hf[base];
  int n = h0.waitn;
  size_t m = 0;
  while (m < h0.ops.size() && h0.ops[m].group + n < h0.group) m++;
  for (int t = 1; t < 128; t++) {
    HopF& h = hf[base + t];
    bool same = h.waitn == n && h.group == h0.group && h.ops.size() == h0.ops.size();
    for (size_t i = 0; same && i < h.ops.size(); i++) {
      const WgArgs &x = h.ops[i].w, &y = h0.ops[i].w;
      same = h.ops[i].group == h0.ops[i].group && h.ops[i].acc == h0.ops[i].acc && x.a == y.a && x.b == y.b &&
             x.n == y.n && !x.scale_d == !y.scale_d && x.ty == y.ty && x.ta == y.ta && x.tb == y.tb && x.na == y.na &&
             x.nb == y.nb && !x.areg == !y.areg;
    }
    if (!same)
      hop_fail(h.pc,
               "wgmma: threads %d and %d of one warpgroup issued different wgmma sequences (descriptors, shapes, "
               "groups or waits)",
               base, base + t);
  }
  int cacc = -1;
  int cn = 0;
  auto flush = [&] {
    if (cacc >= 0)
      for (int t = 0; t < 128; t++) {
        float* v = hf[base + t].acc[cacc].v.data();
        for (int i = 0; i < cn / 2; i++) v[i] = wc[c_row(t, i)][c_col(t, i)];
      }
  };
  for (size_t i = 0; i < m; i++) {
    const WOp& op = h0.ops[i];
    if ((int)op.acc != cacc) {
      flush();
      cacc = op.acc;
      cn = op.w.n;
      for (int t = 0; t < 128; t++) {
        const float* v = hf[base + t].acc[cacc].v.data();
        for (int j = 0; j < cn / 2; j++) wc[c_row(t, j)][c_col(t, j)] = v[j];
      }
    }
    if (wg_vers(op.w, op.pc, false) != op.vers)
      hop_fail(op.pc,
               "RACE: shared memory read by this wgmma was overwritten before wgmma.wait_group (the stage was released "
               "too early)");
    wg_exec(base, op, i);
  }
  flush();
  for (int t = 0; t < 128; t++) {
    HopF& h = hf[base + t];
    for (size_t i = 0; i < m; i++) {
      Acc& a = h.acc[h.ops[i].acc];
      if (!--a.inflight) {
        memcpy(a.d, a.v.data(), a.n * 4);
        a.need_hold = true;
        a.fence_at = h.fence_seq;
      }
    }
  }
  if (vc_on()) {
    RdEv e;
    for (int w = 0; w < 4; w++) {
      vc_join_warp(wg * 4 + w);
      e.clk[w] = vc_of(base + w * 32)[base + w * 32] - 1;
    }
    rdev.push_back(e);
    uint32_t id = rdev.size() - 1;
    for (size_t i = 0; i < m; i++) {
      const WgArgs& w = h0.ops[i].w;
      auto mark = [&](uint32_t a, int, int) { chunks[a >> 4].rd[wg] = id; };
      if (!w.areg) units(opnd(w.a, 0, 'A'), 64, w.ta, mark);
      units(opnd(w.b, 0, 'B'), w.n, w.tb, mark);
    }
  }
  for (int t = 0; t < 128; t++) hf[base + t].ops.erase(hf[base + t].ops.begin(), hf[base + t].ops.begin() + m);
}

// ---------------------------------------------------------------- scheduler hooks
bool hop_idle() {  // nobody can run: let one copy land, or let pollers poll again
  if (!hop_on || failed) return false;
  if (!bulks.empty()) {
    static std::vector<size_t> c;
    c.clear();
    for (size_t i = 0; i < bulks.size(); i++)
      if (!mbars[bulks[i].bar].wait.empty()) c.push_back(i);
    if (c.empty())
      for (size_t i = 0; i < bulks.size(); i++) c.push_back(i);
    bulk_land(L->thread_order == 2 ? c[rnd() % c.size()] : L->thread_order == 1 || L->thread_order == 4 ? c.back() : c[0]);
    return true;
  }
  if (!spins.empty()) {
    if (++spin_rounds > 200) return false;
    std::vector<uint16_t> s;
    s.swap(spins);
    Fiber* v[MAXT];
    int n = 0;
    for (uint16_t t : s) v[n++] = &fib[t];
    shuffle_push(v, n);
    return true;
  }
  return false;
}
void hop_deadlock() {
  if (!hop_on) return;
  for (size_t i = 0; i < mbars.size(); i++) {
    Mbar& b = mbars[i];
    if (!b.live) continue;
    int n = 0, first = -1;
    for (int t = 0; t < nthr; t++)
      if ((fib[t].st == MBAR || fib[t].st == SPIN) && hf[t].wbar == (int)i) {
        if (!n++) first = t;
      }
    if (!n && !b.tx) continue;
    report("  mbarrier smem=+0x%x: phase %u, %u of %u arrivals outstanding, tx-count %lld bytes%s", b.off, b.phase,
           b.pending, b.count, (long long)b.tx,
           b.tx > 0   ? " (expect_tx asks for more bytes than were copied)"
           : b.tx < 0 ? " (more bytes were copied than expect_tx announced)"
                      : "");
    if (n)
      report("    %d thread(s) wait for parity %u, first: thread %d at pc=+0x%llx", n, hf[first].wpar, first,
             (unsigned long long)rel(hf[first].pc));
  }
  for (int i = 0; i < 16; i++)
    if (nbars[i].cnt) report("  named barrier %d: %u of %u threads have arrived", i, nbars[i].cnt, nbars[i].need);
  for (int g = 0; g < 8; g++)
    if (wg_arrived[g]) report("  wgmma.wait_group: %d of 128 threads of warpgroup %d have arrived", wg_arrived[g], g);
}
void hop_exit(Fiber* f) {
  if (!hop_on) return;
  HopF& h = hf[f->lin];
  if (!h.ops.empty()) hop_fail(h.ops[0].pc, "wgmma: the thread returns with %zu wgmma never waited for", h.ops.size());
  if (!h.stores.empty())
    hop_fail(h.stores[0].pc, "bulk store: the thread returns before cp.async.bulk.wait_group(.read)");
  if (nlive == 1 && !bulks.empty())
    hop_fail(bulks[0].pc, "bulk copy: the block ends with %zu copies nobody waited for", bulks.size());
}
void hop_park(St st, const char* what, uint64_t pc) {
  Fiber* f = cur;
  f->st = st;
  f->what = what;
  f->file = nullptr;
  f->line = 0;
  hf[f->lin].pc = pc;
  yield_next();
}
