// Barriers, shuffles, votes and reductions of a warp.
#pragma once

#define __syncthreads() emulate::barrier(__FILE__, EMULATE_SITE)
#define __syncthreads_or(p) emulate::barrier_reduce(__FILE__, EMULATE_SITE, (p), emulate::ANY)
#define __syncthreads_and(p) emulate::barrier_reduce(__FILE__, EMULATE_SITE, (p), emulate::ALL)
#define __syncthreads_count(p) emulate::barrier_reduce(__FILE__, EMULATE_SITE, (p), emulate::COUNT_TRUE)
#define EMULATE_FIRST(first, ...) first
#define __syncwarp(...) \
  emulate::sync_warp(__FILE__, EMULATE_SITE, EMULATE_FIRST(__VA_ARGS__ __VA_OPT__(, ) 0xffffffffu))
#define EMULATE_FENCE() asm volatile("" ::: "memory")
#define __threadfence() EMULATE_FENCE()
#define __threadfence_block() EMULATE_FENCE()
#define __threadfence_system() EMULATE_FENCE()
#define __activemask() emulate::active_mask()
#define __trap() emulate::fail("__trap() at %s:%d", __FILE__, __LINE__)
#define __nanosleep(n) ((void)0)
#define clock64() emulate::clock()

namespace emulate {

template <class T>
struct ShuffleLane {
  T value, result;
  int source;
};

// One shuffle for all variants: each lane computes the lane it reads, the last to arrive moves the data.
template <class T>
inline T shuffle(const char* file, int site, unsigned mask, T value, int source) {
  static_assert(std::is_trivially_copyable<T>::value, "shuffle of a type that cannot be copied byte by byte");
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles values of 2, 4 and 8 bytes only");
  ShuffleLane<T> mine{value, value, source};
  warp_operation("shfl", file, site, mask, &mine, [](void** lanes, unsigned) EMULATE_UNTRACED {
    for (int i = 0; i < 32; i++) {
      if (!lanes[i]) continue;
      auto* me = (ShuffleLane<T>*)lanes[i];
      if (lanes[me->source])
        me->result = ((ShuffleLane<T>*)lanes[me->source])->value;
      else
        fail("shuffle reads lane %d, which does not take part (undefined value)", me->source);
    }
  });
  return mine.result;
}

template <class T>
inline T shuffle_index(const char* file, int site, unsigned mask, T value, int source, int width = 32) {
  const int first = lane() & ~(width - 1);
  return shuffle(file, site, mask, value, first | (source & (width - 1)));
}
template <class T>
inline T shuffle_up(const char* file, int site, unsigned mask, T value, unsigned delta, int width = 32) {
  const int me = lane(), first = me & ~(width - 1), source = me - (int)delta;
  return shuffle(file, site, mask, value, source < first ? me : source);
}
template <class T>
inline T shuffle_down(const char* file, int site, unsigned mask, T value, unsigned delta, int width = 32) {
  const int me = lane(), first = me & ~(width - 1), source = me + (int)delta;
  return shuffle(file, site, mask, value, source >= first + width ? me : source);
}
template <class T>
inline T shuffle_xor(const char* file, int site, unsigned mask, T value, int bits, int width = 32) {
  const int me = lane(), first = me & ~(width - 1), source = me ^ bits;
  return shuffle(file, site, mask, value, source >= first + width ? me : source);
}

struct BallotLane {
  unsigned predicate, result;
};
inline unsigned ballot(const char* file, int site, unsigned mask, bool predicate) {
  BallotLane mine{predicate, 0};
  warp_operation("ballot", file, site, mask, &mine, [](void** lanes, unsigned) EMULATE_UNTRACED {
    unsigned votes = 0;
    for (int i = 0; i < 32; i++)
      if (lanes[i] && ((BallotLane*)lanes[i])->predicate) votes |= 1u << i;
    for (int i = 0; i < 32; i++)
      if (lanes[i]) ((BallotLane*)lanes[i])->result = votes;
  });
  return mine.result;
}

template <class T>
struct ReduceLane {
  T value, result;
};
template <class T, class Operation>
inline T reduce(const char* file, int site, unsigned mask, T value, Operation) {
  ReduceLane<T> mine{value, value};
  warp_operation("reduce", file, site, mask, &mine, [](void** lanes, unsigned) EMULATE_UNTRACED {
    bool first = true;
    T all{};
    for (int i = 0; i < 32; i++) {
      if (!lanes[i]) continue;
      const T next = ((ReduceLane<T>*)lanes[i])->value;
      all = first ? next : Operation::of(all, next);
      first = false;
    }
    for (int i = 0; i < 32; i++)
      if (lanes[i]) ((ReduceLane<T>*)lanes[i])->result = all;
  });
  return mine.result;
}

#define EMULATE_REDUCTION(NAME, EXPRESSION) \
  struct NAME {                             \
    template <class T>                      \
    static T of(T a, T b) {                 \
      return EXPRESSION;                    \
    }                                       \
  };
EMULATE_REDUCTION(Add, a + b)
EMULATE_REDUCTION(Min, a < b ? a : b)
EMULATE_REDUCTION(Max, a > b ? a : b)
EMULATE_REDUCTION(And, (a & b))
EMULATE_REDUCTION(Or, a | b)
EMULATE_REDUCTION(Xor, a ^ b)

}  // namespace emulate

#define __shfl_sync(m, ...) emulate::shuffle_index(__FILE__, EMULATE_SITE, m, __VA_ARGS__)
#define __shfl_up_sync(m, ...) emulate::shuffle_up(__FILE__, EMULATE_SITE, m, __VA_ARGS__)
#define __shfl_down_sync(m, ...) emulate::shuffle_down(__FILE__, EMULATE_SITE, m, __VA_ARGS__)
#define __shfl_xor_sync(m, ...) emulate::shuffle_xor(__FILE__, EMULATE_SITE, m, __VA_ARGS__)
#define __ballot_sync(m, p) emulate::ballot(__FILE__, EMULATE_SITE, m, (p))
#define __any_sync(m, p) (emulate::ballot(__FILE__, EMULATE_SITE, m, (p)) != 0)
#define __all_sync(m, p) (emulate::ballot(__FILE__, EMULATE_SITE, m, !(p)) == 0)
#define __reduce_add_sync(m, v) emulate::reduce(__FILE__, EMULATE_SITE, m, v, emulate::Add{})
#define __reduce_min_sync(m, v) emulate::reduce(__FILE__, EMULATE_SITE, m, v, emulate::Min{})
#define __reduce_max_sync(m, v) emulate::reduce(__FILE__, EMULATE_SITE, m, v, emulate::Max{})
#define __reduce_and_sync(m, v) emulate::reduce(__FILE__, EMULATE_SITE, m, v, emulate::And{})
#define __reduce_or_sync(m, v) emulate::reduce(__FILE__, EMULATE_SITE, m, v, emulate::Or{})
#define __reduce_xor_sync(m, v) emulate::reduce(__FILE__, EMULATE_SITE, m, v, emulate::Xor{})
