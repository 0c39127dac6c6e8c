// The callbacks that g++ -fsanitize=thread puts before every load and store.  libtsan is never linked.
#pragma once

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define EMULATE_CALLBACK(NAME, BYTES, WRITE) \
  void __tsan_##NAME(void* address) { emulate::access((uint64_t)address, BYTES, WRITE, false, CALLER, emulate::PLAIN); }
#define EMULATE_CALLBACKS(BYTES)                        \
  EMULATE_CALLBACK(read##BYTES, BYTES, false)           \
  EMULATE_CALLBACK(write##BYTES, BYTES, true)           \
  EMULATE_CALLBACK(unaligned_read##BYTES, BYTES, false) \
  EMULATE_CALLBACK(unaligned_write##BYTES, BYTES, true) \
  EMULATE_CALLBACK(volatile_read##BYTES, BYTES, false)  \
  EMULATE_CALLBACK(volatile_write##BYTES, BYTES, true)
EMULATE_CALLBACKS(1)
EMULATE_CALLBACKS(2)
EMULATE_CALLBACKS(4)
EMULATE_CALLBACKS(8)
EMULATE_CALLBACKS(16)
void __tsan_read_range(void* address, unsigned long bytes) {
  emulate::access((uint64_t)address, bytes, false, false, CALLER, emulate::PLAIN);
}
void __tsan_write_range(void* address, unsigned long bytes) {
  emulate::access((uint64_t)address, bytes, true, false, CALLER, emulate::PLAIN);
}

// device/atomics.hpp has traced these already.
#define EMULATE_ATOMIC_CALLBACKS(BITS)                                                                    \
  uint##BITS##_t __tsan_atomic##BITS##_load(const volatile uint##BITS##_t* a, int) {                      \
    return __atomic_load_n(a, __ATOMIC_RELAXED);                                                          \
  }                                                                                                       \
  void __tsan_atomic##BITS##_store(volatile uint##BITS##_t* a, uint##BITS##_t v, int) {                   \
    __atomic_store_n(a, v, __ATOMIC_RELAXED);                                                             \
  }                                                                                                       \
  int __tsan_atomic##BITS##_compare_exchange_weak(volatile uint##BITS##_t* a, uint##BITS##_t* expected,   \
                                                  uint##BITS##_t v, int, int) {                           \
    return __atomic_compare_exchange_n(a, expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);        \
  }                                                                                                       \
  int __tsan_atomic##BITS##_compare_exchange_strong(volatile uint##BITS##_t* a, uint##BITS##_t* expected, \
                                                    uint##BITS##_t v, int, int) {                         \
    return __atomic_compare_exchange_n(a, expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);        \
  }
EMULATE_ATOMIC_CALLBACKS(8)
EMULATE_ATOMIC_CALLBACKS(16)
EMULATE_ATOMIC_CALLBACKS(32)
EMULATE_ATOMIC_CALLBACKS(64)
}
