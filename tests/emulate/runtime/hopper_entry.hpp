// hopper_entry.hpp -- entry points of hopper_runtime.hpp.  Included inside extern "C" of runtime.cpp.
void cu_hop_enable() { hop_on = true; }
void cu_mb_init(void* p, unsigned count) {
  uint32_t o = soff(p, RA, "mbarrier.init");
  if (o % 8) hop_fail(RA, "mbarrier.init: smem=+0x%x is not 8-byte aligned", o);
  if (!count || count > 0xfffff) hop_fail(RA, "mbarrier.init: count %u", count);
  for (auto& b : mbars)
    if (b.off == o && b.live)
      hop_fail(RA, "mbarrier.init: smem=+0x%x already holds a live mbarrier (mbarrier.inval first)", o);
  if (L->flags & F_RACE) access((uint64_t)p, 8, true, false, RA, 0);
  uint64_t v = 0x6d62617200000000ull | o;
  memcpy(p, &v, 8);
  Mbar b{};
  b.off = o;
  b.count = b.pending = count;
  b.live = true;
  b.init_tid = cur->lin;
  b.init_ep = blk_epoch;
  b.init_wep = warp_epoch[cur->warp];
  b.init_clk = vc_now();
  b.init_fence = hf[cur->lin].ifence;
  if (mbars.size() >= MAXBAR) hop_fail(RA, "mbarrier.init: more than %d in one block", MAXBAR);
  mbars.push_back(b);
  chunks[o >> 4].mb = 1;
}
void cu_mb_inval(void* p) {
  Mbar& b = mb_find(p, RA, "mbarrier.inval");
  for (auto& k : bulks)
    if (k.bar == &b - mbars.data()) hop_fail(RA, "mbarrier.inval: a bulk copy still uses smem=+0x%x", b.off);
  b.live = false;
  chunks[b.off >> 4].mb = 0;
  for (auto& x : mbars)
    if (x.live && x.off >> 4 == b.off >> 4) chunks[b.off >> 4].mb = 1;
  memset(p, 0xff, 8);
}
void cu_mb_arrive(void* p, unsigned n, long long tx, int arrive) { mb_arrive(p, n, tx, arrive, RA); }
int cu_mb_wait(void* p, unsigned parity, int block) {
  uint64_t pc = RA;
  Mbar& b = mb_find(p, pc, block ? "mbarrier.try_wait" : "mbarrier.test_wait");
  size_t i = &b - mbars.data();
  HopF& h = hf[cur->lin];
  bool ok = (b.phase & 1) != (parity & 1);
  if (parity > 1) hop_fail(pc, "mbarrier wait: parity %u", parity);
  if (!ok) {
    h.wbar = i;
    h.wpar = parity;
    h.ok = false;
    if (block) {
      b.wait.push_back(cur->lin);
      hop_park(MBAR, "mbarrier.try_wait", pc);
      ok = h.ok;
    } else {
      spins.push_back(cur->lin);
      hop_park(SPIN, "mbarrier.test_wait", pc);
      ok = (mbars[i].phase & 1) != parity;
    }
  }
  if (ok && vc_on()) {
    mbars[i].done.resize(nv);
    vc_max(vc_of(cur->lin), mbars[i].done.data());
  }
  return ok;
}
void cu_fence_proxy(int kind) {
  HopF& h = hf[cur->lin];
  h.ifence++;
  if (kind == 0) h.pfence++;
}  // 1: fence.mbarrier_init only
int cu_elect() {
  struct P {
    int r;
  } p{0};
  cu_warp("elect.sync", "ptx", 0, 0xffffffffu, &p, [](void** ln, unsigned) {
    for (int i = 0; i < 32; i++)
      if (ln[i]) {
        ((P*)ln[i])->r = 1;
        break;
      }
  });
  return p.r;
}
void cu_named_bar(unsigned id, unsigned n, int sync) {
  uint64_t pc = RA;
  if (id > 15 || n % 32 || !n || (int)n > nthr) hop_fail(pc, "named barrier %u with %u threads", id, n);
  NBar& b = nbars[id];
  if (b.cnt && b.need != n)
    hop_fail(pc, "named barrier %u: this thread says %u threads, an earlier one %u", id, n, b.need);
  b.need = n;
  b.cnt++;
  vc_release(b.vc);
  if (sync) b.wait.push_back(cur->lin);
  bool last = b.cnt == n;
  if (last) {
    Fiber* v[MAXT];
    int k = 0;
    for (uint16_t t : b.wait) {
      v[k++] = &fib[t];
      if (vc_on()) vc_max(vc_of(t), b.vc.data());
    }
    b = NBar{};
    cnt[3]++;
    if (k) wake(v, k);
  }
  if (sync) hop_park(last ? READY : NBAR, "bar.sync", pc);
}
static int map_of(Bulk& k, const void* map, int nc, const int* c, int no, const int* o, uint64_t pc) {
  k.tensor = true;
  k.map = tmap(map, pc);
  k.im2col = no >= 0;
  for (int i = 0; i < nc; i++) k.c[i] = c[i];
  for (int i = 0; i < no; i++) k.o[i] = o[i];
  if (k.map.rank != nc || (k.map.mode != 0) != k.im2col)
    hop_fail(pc, "cp.async.bulk.tensor.%dd%s with a tensor map of rank %d%s", nc, k.im2col ? ".im2col" : ".tile",
             k.map.rank, k.map.mode ? " (im2col)" : " (tiled)");
  if (k.im2col)
    for (int i = 0; i < nc - 2; i++) {
      int lo = k.map.lower[i], hi = (int)k.map.dims[i + 1] + k.map.upper[i];
      if (c[i + 1] < lo || c[i + 1] >= hi)
        hop_fail(pc, "im2col: coordinate %d (%d) is outside the bounding box [%d, %d)", i + 1, c[i + 1], lo, hi);
      if ((c[i + 1] - lo) % k.map.es[i + 1])
        hop_fail(pc, "im2col: coordinate %d (%d) is not on the traversal grid (lower corner %d, stride %d)", i + 1,
                 c[i + 1], lo, k.map.es[i + 1]);
      if (o[i] > (nc == 3 ? 65535 : nc == 4 ? 255 : 31)) hop_fail(pc, "im2col: offset %d out of range", o[i]);
    }
  k.bytes = tma_bytes(k.map);
  return k.map.swizzle ? 128 << k.map.swizzle : 128;
}
void cu_tma_load(void* dst, const void* map, void* bar, int nc, const int* c, int no, const int* o) {
  Bulk k{};
  int al = map_of(k, map, nc, c, no, o, RA);
  bulk_issue(k, dst, bar, al, RA);
}
void cu_bulk_load(void* dst, const void* src, unsigned bytes, void* bar) {
  if ((uint64_t)src % 16 || bytes % 16 || !bytes)
    hop_fail(RA, "cp.async.bulk: source and size (%u) must be multiples of 16 bytes", bytes);
  const Buf* b = find_buf((uint64_t)src, nullptr);
  if (!b || (uint64_t)src + bytes > (uint64_t)b->base + b->size)
    oob((uint64_t)src, bytes, false, RA, " (cp.async.bulk)");
  Bulk k{};
  k.gptr = (uint64_t)src;
  k.bytes = bytes;
  bulk_issue(k, dst, bar, 16, RA);
}
void cu_tma_store(const void* map, const void* src, int nc, const int* c) {
  Bulk k{};
  k.pc = RA;
  k.tid = cur->lin;
  int al = map_of(k, map, nc, c, -1, nullptr, RA);
  k.smem = soff(src, RA, "bulk store");
  if (k.smem % al) hop_fail(RA, "bulk store: source is not aligned to %d bytes", al);
  HopF& h = hf[cur->lin];
  k.group = h.bgroup;
  k.vers = store_vers(k, true);
  h.stores.push_back(k);
}
void cu_bulk_store(void* dst, const void* src, unsigned bytes) {
  if ((uint64_t)dst % 16 || bytes % 16 || !bytes)
    hop_fail(RA, "cp.async.bulk: destination and size (%u) must be multiples of 16 bytes", bytes);
  const Buf* b = find_buf((uint64_t)dst, nullptr);
  if (!b || b->ro || (uint64_t)dst + bytes > (uint64_t)b->base + b->size)
    oob((uint64_t)dst, bytes, true, RA, " (cp.async.bulk)");
  Bulk k{};
  k.pc = RA;
  k.tid = cur->lin;
  k.gptr = (uint64_t)dst;
  k.bytes = bytes;
  k.smem = soff(src, RA, "bulk store");
  HopF& h = hf[cur->lin];
  k.group = h.bgroup;
  k.vers = store_vers(k, true);
  h.stores.push_back(k);
}
void cu_bulk_commit() { hf[cur->lin].bgroup++; }
void cu_bulk_wait(unsigned n) {
  HopF& h = hf[cur->lin];
  size_t j = 0;
  for (size_t i = 0; i < h.stores.size(); i++)
    if (h.stores[i].group + n < h.bgroup)
      store_land(h.stores[i]);
    else
      h.stores[j++] = h.stores[i];
  h.stores.resize(j);
}
void cu_wg_fence() { hf[cur->lin].fence_seq++; }
void cu_wg_commit() {
  HopF& h = hf[cur->lin];
  h.group++;
  h.fence_commit = h.fence_seq;
}
void cu_wg_hold(const float* d) {
  for (auto& a : hf[cur->lin].acc)
    if (a.d == d) {
      if (a.inflight) hop_fail(RA, "wgmma_hold: the accumulators are still in flight");
      a.need_hold = false;
    }
}
void cu_wgmma(const WgArgs* w) {
  uint64_t pc = RA;
  HopF& h = hf[cur->lin];
  int wg = cur->lin >> 7;
  if ((wg + 1) * 128 > nthr) hop_fail(pc, "wgmma in an incomplete warpgroup (%d threads in the block)", nthr);
  size_t i = 0;
  while (i < h.acc.size() && h.acc[i].d != w->d) {
    if (h.acc[i].inflight && w->d < h.acc[i].d + h.acc[i].n && w->d + w->n / 2 > h.acc[i].d)
      hop_fail(pc, "wgmma: accumulators overlap those of a wgmma in flight");
    i++;
  }
  if (i == h.acc.size()) h.acc.push_back(Acc{w->d, w->n / 2, 0, 0, false, {}});
  Acc& a = h.acc[i];
  if (a.inflight && a.n != w->n / 2) hop_fail(pc, "wgmma of another shape on accumulators in flight");
  if (!a.inflight && h.fence_seq <= a.fence_at)
    hop_fail(pc, "MISSING wgmma.fence before the first wgmma on these accumulators (register accesses are unordered)");
  if (w->areg && h.fence_seq <= h.fence_commit) hop_fail(pc, "MISSING wgmma.fence before a wgmma with A in registers");
  if (!a.inflight) {
    a.n = w->n / 2;
    a.v.assign(w->d, w->d + a.n);
    memset(w->d, 0xff, a.n * 4);
    a.need_hold = false;
  }
  a.inflight++;
  WOp op{*w, {}, h.group, (uint32_t)i, pc, 0};
  if (w->areg) memcpy(op.a, w->areg, 16);
  if (!(cur->lin & 127) || ((L->flags & F_RACE) && !(cur->lin & 31))) op.vers = wg_vers(*w, pc, true);
  h.ops.push_back(op);
}
void cu_wg_wait(unsigned n) {
  HopF& h = hf[cur->lin];
  int wg = cur->lin >> 7;
  bool any = false;
  for (auto& o : h.ops) any |= o.group + n < h.group;
  h.waitn = n;
  if (!any) return;
  h.pc = RA;
  if (++wg_arrived[wg] < 128) {
    hop_park(WGRP, "wgmma.wait_group", RA);
    return;
  }
  wg_arrived[wg] = 0;
  wg_retire(wg);
  Fiber* v[128];
  for (int i = 0; i < 128; i++) v[i] = &fib[wg * 128 + i];
  shuffle_push(v, 128, true);
  yield_next();
}
// For tests: shared-memory offset of element (mn, k) of an operand, and of byte lin of a TMA tile.
__attribute__((visibility("default"))) unsigned cu_wgmma_addr(unsigned long long desc, int major, int esz, int mn,
                                                              int k) {
  Opnd o{(uint32_t)(desc & 0x3fff) << 4, (uint32_t)(desc >> 16 & 0x3fff) << 4, (uint32_t)(desc >> 32 & 0x3fff) << 4,
         (const int[]){1, 8, 4, 2}[desc >> 62], (int)(desc >> 49 & 7)};
  return major ? unit_mn(o, mn / 8, k) + mn % 8 * esz : unit_k(o, mn, k / (16 / esz)) + k % (16 / esz) * esz;
}
__attribute__((visibility("default"))) unsigned cu_tma_addr(unsigned base, int mode, unsigned lin) {
  return swz((base + lin) & ~15u, mode) | (lin & 15);
}
__attribute__((visibility("default"))) int cu_acc_index(int t, int i) { return c_row(t, i) + 64 * c_col(t, i); }
