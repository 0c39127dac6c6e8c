// Atomic operations.  They are real ones: blocks may run in several processes.
#pragma once

namespace emulate {

template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;

// Replace *target by change(*target); return the old value.
template <class T, class Change>
__forceinline__ T atomic_change(T* target, Change change) {
  trace(target, sizeof(T), true, true, PLAIN, nullptr);
  count(ATOMICS, 1);
  Bits<T> seen = __atomic_load_n((Bits<T>*)target, __ATOMIC_RELAXED);
  for (;;) {
    T before;
    memcpy(&before, &seen, sizeof before);
    const T after = change(before);
    Bits<T> wanted;
    memcpy(&wanted, &after, sizeof wanted);
    if (__atomic_compare_exchange_n((Bits<T>*)target, &seen, wanted, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return before;
  }
}

}  // namespace emulate

#define EMULATE_ATOMIC(NAME, EXPRESSION)                    \
  template <class T, class V>                               \
  __forceinline__ T NAME(T* target, V operand) {            \
    const T v = (T)operand;                                 \
    return emulate::atomic_change(target, [=](T old) -> T { \
      (void)old;                                            \
      return EXPRESSION;                                    \
    });                                                     \
  }
EMULATE_ATOMIC(atomicAdd, old + v)
EMULATE_ATOMIC(atomicSub, old - v)
EMULATE_ATOMIC(atomicExch, v)
EMULATE_ATOMIC(atomicMin, v < old ? v : old)
EMULATE_ATOMIC(atomicMax, v > old ? v : old)
EMULATE_ATOMIC(atomicAnd, (old & v))
EMULATE_ATOMIC(atomicOr, old | v)
EMULATE_ATOMIC(atomicXor, old ^ v)
EMULATE_ATOMIC(atomicInc, old >= v ? T(0) : T(old + 1))
EMULATE_ATOMIC(atomicDec, old == 0 || old > v ? v : T(old - 1))

template <class T>
__forceinline__ T atomicCAS(T* target, T expected, T v) {
  return emulate::atomic_change(target, [=](T old) -> T { return memcmp(&old, &expected, sizeof old) ? old : v; });
}
