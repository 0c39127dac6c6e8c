// wgmma: D[64 x n] += A[64 x k] B[k x n] by the 128 threads of a warpgroup, carried out when it is waited for.
#pragma once

namespace emulate {

// An operand in shared memory, as its descriptor says.
struct Operand {
  uint32_t start, leading_bytes, stride_bytes;
  int width;  // 16-byte units of a swizzled row: 1 (no swizzle), 2, 4, 8
  int base_offset;

  static Operand decode(uint64_t descriptor) {
    static constexpr int widths[4] = {1, 8, 4, 2};
    const auto bytes = [&](int bit) { return (uint32_t)(descriptor >> bit & 0x3fff) << 4; };
    return {bytes(0), bytes(16), bytes(32), widths[descriptor >> 62], (int)(descriptor >> 49 & 7)};
  }

  uint32_t swizzled(uint32_t address) const { return address ^ ((((address >> 7) - base_offset) & (width - 1)) << 4); }
  // K-major: the 16-byte unit u of row mn.
  uint32_t k_major(int mn, int u) const {
    const uint32_t row = start + (mn >> 3) * stride_bytes;
    return swizzled(width == 1 ? row + (mn & 7) * 16 + u * leading_bytes : row + (mn & 7) * width * 16 + u * 16);
  }
  // MN-major: the unit of 8 values of mn, group g, at k.
  uint32_t mn_major(int g, int k) const {
    if (width == 1) return start + g * stride_bytes + (k & 7) * 16 + (k >> 3) * leading_bytes;
    return swizzled(start + g % width * 16 + g / width * leading_bytes + (k & 7) * width * 16 +
                    (k >> 3) * stride_bytes);
  }
};

Operand checked_operand(uint64_t descriptor, uint64_t pc, char name) {
  const Operand o = Operand::decode(descriptor);
  if (descriptor & 0x3ff1c000c000c000ull)
    fail_at(pc, "wgmma: reserved bits of descriptor %c are set (%016llx)", name, (Printed)descriptor);
  if (o.width == 1 && o.base_offset) fail_at(pc, "wgmma: base offset in descriptor %c without swizzle", name);
  if (o.width > 1 && (((o.start >> 7) - o.base_offset) & (o.width - 1)))
    fail_at(pc,
            "wgmma: descriptor %c starts inside the swizzle pattern (address %#x, pattern repeats every %d bytes, base "
            "offset %d): align the tile",
            name, o.start, o.width * 128, o.base_offset);
  return o;
}

// function(address of a 16-byte unit, row mn and unit; transposed: group of 8 mn and k).
template <class Function>
void for_each_unit(const Operand& o, int size, bool transposed, Function function) {
  if (transposed) {
    for (int g = 0; g < size / 8; g++)
      for (int k = 0; k < 16; k++) function(o.mn_major(g, k), g, k);
  } else {
    for (int mn = 0; mn < size; mn++)
      for (int u = 0; u < 2; u++) function(o.k_major(mn, u), mn, u);
  }
}

// function(address of a unit, swizzle as a tensor map numbers it) for all units in shared memory that a wgmma reads.
template <class Function>
void for_each_operand_unit(const Wgmma& w, uint64_t pc, Function function) {
  static constexpr int map_swizzle[4] = {0, 3, 2, 1};
  if (!w.a_registers)
    for_each_unit(checked_operand(w.a, pc, 'A'), 64, w.transpose_a,
                  [&](uint32_t at, int, int) { function(at, map_swizzle[w.a >> 62]); });
  for_each_unit(checked_operand(w.b, pc, 'B'), w.n, w.transpose_b,
                [&](uint32_t at, int, int) { function(at, map_swizzle[w.b >> 62]); });
}

uint64_t versions_of(const Wgmma& w, uint64_t pc, bool check) {
  uint64_t sum = 0;
  for_each_operand_unit(w, pc, [&](uint32_t at, int swizzle) {
    sum += check ? async_read(at, pc, "wgmma", swizzle) : chunks[at >> 4].version;
  });
  return sum;
}

// The product ---------------------------------------------------------------------------------------------------------

alignas(64) float tile_a[64][16], tile_b[16][256], tile_c[64][256];

inline float element(const uint8_t* bytes, Wgmma::Type type) {
  uint32_t bits = 0;
  memcpy(&bits, bytes, type == Wgmma::TF32 ? 4 : 2);
  if (type == Wgmma::F16) {
    _Float16 half;
    memcpy(&half, bytes, 2);
    return (float)half;
  }
  bits = type == Wgmma::BF16 ? bits << 16 : bits & ~0x1fffu;  // the tensor cores ignore the low 13 bits
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

typedef float Eight __attribute__((vector_size(32), aligned(32)));

// Columns [n, n + 8 vectors) of tile_c += tile_a tile_b; four rows at a time, accumulators in registers.
template <int vectors>
void multiply_columns(int n, int depth) {
  for (int m = 0; m < 64; m += 4) {
    Eight sums[4][vectors];
#pragma GCC unroll 8
    for (int i = 0; i < 4 * vectors; i++)
      sums[i / vectors][i % vectors] = *(const Eight*)&tile_c[m + i / vectors][n + 8 * (i % vectors)];
    for (int k = 0; k < depth; k++) {
#pragma GCC unroll 8
      for (int i = 0; i < 4 * vectors; i++)
        sums[i / vectors][i % vectors] += *(const Eight*)&tile_b[k][n + 8 * (i % vectors)] * tile_a[m + i / vectors][k];
    }
#pragma GCC unroll 8
    for (int i = 0; i < 4 * vectors; i++)
      *(Eight*)&tile_c[m + i / vectors][n + 8 * (i % vectors)] = sums[i / vectors][i % vectors];
  }
}

void multiply(int n, int depth) {
  int column = 0;
  for (; column + 16 <= n; column += 16) multiply_columns<2>(column, depth);
  if (column < n) multiply_columns<1>(column, depth);
}

// Accumulator register i of thread t of the warpgroup.
inline int accumulator_row(int t, int i) { return (t >> 5) * 16 + ((t & 31) >> 2) + ((i >> 1) & 1) * 8; }
inline int accumulator_column(int t, int i) { return (i >> 2) * 8 + (t & 3) * 2 + (i & 1); }

// A from the registers of the warpgroup's threads.
void gather_a(int first_thread, size_t number, Wgmma::Type type, float sign) {
  for (int t = 0; t < WARPGROUP; t++) {
    const auto* bytes = (const uint8_t*)hopper_threads[first_thread + t].wgmmas[number].a_registers;
    const int row = (t >> 5) * 16 + ((t & 31) >> 2);
    if (type == Wgmma::TF32)
      for (int i = 0; i < 4; i++)
        tile_a[row + (i & 1) * 8][(t & 3) + (i >> 1) * 4] = sign * element(bytes + 4 * i, type);
    else
      for (int i = 0; i < 8; i++)
        tile_a[row + ((i >> 1) & 1) * 8][(t & 3) * 2 + (i & 1) + (i >> 2) * 8] = sign * element(bytes + 2 * i, type);
  }
}

// tile_c += A B, or = A B if the operation says so.
void carry_out(int first_thread, const PendingWgmma& pending, size_t number) {
  const Wgmma& w = pending.operation;
  const int bytes = w.type == Wgmma::TF32 ? 4 : 2, depth = 32 / bytes, per_unit = 16 / bytes;
  const float sign_a = w.negate_a ? -1.0f : 1.0f, sign_b = w.negate_b ? -1.0f : 1.0f;
  if (w.a_registers)
    gather_a(first_thread, number, w.type, sign_a);
  else
    for_each_unit(checked_operand(w.a, pending.pc, 'A'), 64, w.transpose_a, [&](uint32_t at, int x, int y) {
      for (int i = 0; i < per_unit; i++) {
        const float value = sign_a * element(shared_low + at + i * bytes, w.type);
        (w.transpose_a ? tile_a[x * 8 + i][y] : tile_a[x][y * per_unit + i]) = value;
      }
    });
  for_each_unit(checked_operand(w.b, pending.pc, 'B'), w.n, w.transpose_b, [&](uint32_t at, int x, int y) {
    for (int i = 0; i < per_unit; i++) {
      const float value = sign_b * element(shared_low + at + i * bytes, w.type);
      (w.transpose_b ? tile_b[y][x * 8 + i] : tile_b[y * per_unit + i][x]) = value;
    }
  });
  if (!w.scale_d)
    for (auto& row : tile_c) memset(row, 0, w.n * sizeof(float));
  multiply(w.n, depth);
  counters[MMA_FLOP] += 2ull * 64 * w.n * depth;
}

// Issue, commit, wait -------------------------------------------------------------------------------------------------

bool same_operation(const PendingWgmma& p, const PendingWgmma& q) {
  const Wgmma &x = p.operation, &y = q.operation;
  return p.group == q.group && p.accumulators == q.accumulators && x.a == y.a && x.b == y.b && x.n == y.n &&
         !x.scale_d == !y.scale_d && x.type == y.type && x.transpose_a == y.transpose_a &&
         x.transpose_b == y.transpose_b && x.negate_a == y.negate_a && x.negate_b == y.negate_b &&
         !x.a_registers == !y.a_registers;
}

void check_same_sequence(int first_thread) {
  const HopperThread& first = hopper_threads[first_thread];
  for (int t = first_thread + 1; t < first_thread + WARPGROUP; t++) {
    const HopperThread& other = hopper_threads[t];
    if (other.wait_groups == first.wait_groups && other.wgmma_group == first.wgmma_group &&
        std::equal(first.wgmmas.begin(), first.wgmmas.end(), other.wgmmas.begin(), other.wgmmas.end(), same_operation))
      continue;
    fail_at(other.pc,
            "wgmma: threads %d and %d of one warpgroup issued different wgmma sequences (descriptors, shapes, groups "
            "or waits)",
            first_thread, t);
  }
}

// Note that the warpgroup has read these operands: who overwrites them must have heard of it.
void remember_reads(int group, size_t count) {
  if (!clocks_run()) return;
  const int first_thread = group * WARPGROUP;
  WgmmaRead read;
  for (int w = 0; w < 4; w++) {
    join_warp_clocks(group * 4 + w);
    const int thread = first_thread + w * 32;
    read.clock[w] = clock_of(thread)[thread] - 1;
  }
  wgmma_reads.push_back(read);
  const auto& wgmmas = hopper_threads[first_thread].wgmmas;
  for (size_t i = 0; i < count; i++)
    for_each_operand_unit(wgmmas[i].operation, wgmmas[i].pc,
                          [&](uint32_t at, int) { chunks[at >> 4].reads[group] = wgmma_reads.size() - 1; });
}

// All threads of a warpgroup wait: carry out the wgmmas they wait for.
void retire(int group) {
  const int first_thread = group * WARPGROUP;
  check_same_sequence(first_thread);
  const HopperThread& first = hopper_threads[first_thread];
  size_t count = 0;
  while (count < first.wgmmas.size() && first.wgmmas[count].group + first.wait_groups < first.wgmma_group) count++;

  int loaded = -1, columns = 0;  // which accumulators tile_c holds
  const auto for_each_register = [&](auto function) {
    for (int t = 0; t < WARPGROUP; t++)
      for (int i = 0; i < columns / 2; i++)
        function(hopper_threads[first_thread + t].accumulators[loaded].values[i],
                 tile_c[accumulator_row(t, i)][accumulator_column(t, i)]);
  };
  const auto store = [&] {
    if (loaded >= 0) for_each_register([](float& in_register, float& in_tile) { in_register = in_tile; });
  };
  for (size_t i = 0; i < count; i++) {
    const PendingWgmma& pending = first.wgmmas[i];
    if ((int)pending.accumulators != loaded) {
      store();
      loaded = pending.accumulators;
      columns = pending.operation.n;
      for_each_register([](float& in_register, float& in_tile) { in_tile = in_register; });
    }
    if (versions_of(pending.operation, pending.pc, false) != pending.versions)
      fail_at(pending.pc,
              "RACE: shared memory read by this wgmma was overwritten before wgmma.wait_group (the stage was released "
              "too early)");
    carry_out(first_thread, pending, i);
  }
  store();
  for (int t = first_thread; t < first_thread + WARPGROUP; t++) {
    HopperThread& h = hopper_threads[t];
    for (size_t i = 0; i < count; i++) {
      Accumulators& a = h.accumulators[h.wgmmas[i].accumulators];
      if (--a.in_flight) continue;
      memcpy(a.registers, a.values.data(), a.count * sizeof(float));
      a.need_hold = true;
      a.retired_at_fence = h.wgmma_fences;
    }
  }
  remember_reads(group, count);
  for (int t = first_thread; t < first_thread + WARPGROUP; t++) {
    auto& wgmmas = hopper_threads[t].wgmmas;
    wgmmas.erase(wgmmas.begin(), wgmmas.begin() + count);
  }
}

// The entry of these registers among the thread's accumulators.
size_t accumulators_of(HopperThread& me, const Wgmma& w, uint64_t pc) {
  const float *low = w.accumulators, *high = low + w.n / 2;
  for (size_t i = 0; i < me.accumulators.size(); i++) {
    const Accumulators& a = me.accumulators[i];
    if (a.registers == low) return i;
    if (a.in_flight && low < a.registers + a.count && high > a.registers)
      fail_at(pc, "wgmma: accumulators overlap those of a wgmma in flight");
  }
  me.accumulators.push_back(Accumulators{w.accumulators, w.n / 2, 0, 0, false, {}});
  return me.accumulators.size() - 1;
}

void wgmma(const Wgmma& w, const void* caller) {
  const uint64_t pc = (uint64_t)caller;
  HopperThread& me = hopper_thread();
  if ((current->number / WARPGROUP + 1) * WARPGROUP > thread_count)
    fail_at(pc, "wgmma in an incomplete warpgroup (%d threads in the block)", thread_count);
  const size_t number = accumulators_of(me, w, pc);
  Accumulators& a = me.accumulators[number];
  if (a.in_flight && a.count != w.n / 2) fail_at(pc, "wgmma of another shape on accumulators in flight");
  if (!a.in_flight && me.wgmma_fences <= a.retired_at_fence)
    fail_at(pc, "MISSING wgmma.fence before the first wgmma on these accumulators (register accesses are unordered)");
  if (w.a_registers && me.wgmma_fences <= me.fences_at_commit)
    fail_at(pc, "MISSING wgmma.fence before a wgmma with A in registers");
  if (!a.in_flight) {
    a.count = w.n / 2;
    a.values.assign(w.accumulators, w.accumulators + a.count);
    memset(w.accumulators, 0xff, a.count * sizeof(float));
    a.need_hold = false;
  }
  a.in_flight++;
  PendingWgmma pending{w, {}, me.wgmma_group, (uint32_t)number, pc, 0};
  if (w.a_registers) memcpy(pending.a_registers, w.a_registers, sizeof pending.a_registers);
  // The operands are looked at for the warpgroup, in mode check for each warp.
  const bool looks = current->number % WARPGROUP == 0 || ((launch->flags & RACES) && current->lane == 0);
  if (looks) pending.versions = versions_of(w, pc, true);
  me.wgmmas.push_back(pending);
}

void wgmma_fence() { hopper_thread().wgmma_fences++; }

void wgmma_commit() {
  HopperThread& me = hopper_thread();
  me.wgmma_group++;
  me.fences_at_commit = me.wgmma_fences;
}

void wgmma_wait(unsigned groups) {
  HopperThread& me = hopper_thread();
  me.wait_groups = groups;
  me.pc = CALLER;
  const bool any = std::any_of(me.wgmmas.begin(), me.wgmmas.end(),
                               [&](const PendingWgmma& p) { return p.group + groups < me.wgmma_group; });
  if (!any) return;
  const int group = current->number / WARPGROUP;
  if (++wgmma_waiting[group] < WARPGROUP) return park(AT_WGMMA_WAIT, "wgmma.wait_group", CALLER);
  wgmma_waiting[group] = 0;
  retire(group);
  Fiber* released[WARPGROUP];
  for (int i = 0; i < WARPGROUP; i++) released[i] = &fibers[group * WARPGROUP + i];
  make_ready(released, WARPGROUP, true);
  run_next();
}

void wgmma_hold(const float* accumulators) {
  for (auto& a : hopper_thread().accumulators) {
    if (a.registers != accumulators) continue;
    if (a.in_flight) fail_at(CALLER, "wgmma_hold: the accumulators are still in flight");
    a.need_hold = false;
  }
}

// An access of a local variable: accumulators must not be touched while a wgmma writes them.
void hopper_stack_access(uint64_t address, unsigned size, bool write, uint64_t pc) {
  for (const auto& a : hopper_thread().accumulators) {
    if (address + size <= (uint64_t)a.registers || address >= (uint64_t)(a.registers + a.count)) continue;
    if (a.in_flight)
      fail_at(pc, "ACCUMULATOR %s (register %d) while its wgmma is in flight: wgmma.wait_group missing",
              write ? "written" : "read", (int)((address - (uint64_t)a.registers) / sizeof(float)));
    if (a.need_hold && !write)
      fail_at(pc,
              "ACCUMULATOR read after wgmma_wait without wgmma_hold(d): the device compiler may move the read above "
              "the wait");
  }
}

void check_hopper_at_return() {
  if (!hopper) return;
  const HopperThread& me = hopper_thread();
  if (!me.wgmmas.empty())
    fail_at(me.wgmmas[0].pc, "wgmma: the thread returns with %zu wgmma never waited for", me.wgmmas.size());
  if (!me.stores.empty())
    fail_at(me.stores[0].pc, "bulk store: the thread returns before cp.async.bulk.wait_group(.read)");
  if (live_count == 1 && !bulk_copies.empty())
    fail_at(bulk_copies[0].pc, "bulk copy: the block ends with %zu copies nobody waited for", bulk_copies.size());
}

}  // namespace emulate

// For tests: the shared-memory offset of element (mn, k) of an operand, and which element an accumulator register is.
extern "C" {
__attribute__((visibility("default"))) unsigned emulate_wgmma_address(unsigned long long descriptor, int mn_major,
                                                                      int element_bytes, int mn, int k) {
  const emulate::Operand o = emulate::Operand::decode(descriptor);
  const int per_unit = 16 / element_bytes;
  if (mn_major) return o.mn_major(mn / 8, k) + mn % 8 * element_bytes;
  return o.k_major(mn, k / per_unit) + k % per_unit * element_bytes;
}
__attribute__((visibility("default"))) int emulate_accumulator_index(int thread, int i) {
  return emulate::accumulator_row(thread, i) + 64 * emulate::accumulator_column(thread, i);
}
}
