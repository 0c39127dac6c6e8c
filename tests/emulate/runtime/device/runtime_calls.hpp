// The functions of runtime.cpp that device code calls.
#pragma once
#include "../launch.hpp"

namespace emulate {

// Barriers.  `site` is unique for each place in the text, its low 20 bits are the line.
enum Reduction { ANY, ALL, COUNT_TRUE };
void barrier(const char* file, int site);
int barrier_reduce(const char* file, int site, int predicate, int reduction);
void sync_warp(const char* file, int site, unsigned mask);

// The lanes of a warp that `mask` names meet; the last to arrive runs `together` on the payloads of all
// (lanes[i] is null for a lane that does not take part).
typedef void (*WarpFunction)(void** lanes, unsigned present);
void warp_operation(const char* what, const char* file, int site, unsigned mask, void* payload, WarpFunction together);
unsigned active_mask();

// Accesses that the compiler's instrumentation does not see.  pc null: the caller's.
enum AccessKind { PLAIN, LDMATRIX, WMMA, CP_ASYNC };
void trace(const void* address, unsigned size, bool write, bool atomic, AccessKind kind, const void* pc);
void trace_as(int lane, const void* address, unsigned size, AccessKind kind, const void* pc);  // a read by another lane
extern int tracking;                                                                           // false in mode fast

void count(Counter counter, unsigned long long n);

// Shared memory as 32-bit addresses.
unsigned shared_address(const void* pointer);
void* shared_pointer(unsigned address);

// cp.async: `valid` bytes are copied, the rest up to `size` is zero.
void copy_async(void* target, const void* origin, unsigned size, unsigned valid);
void copy_async_commit();
void copy_async_wait(unsigned groups);

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
long long clock();

inline int lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31; }
inline int warp() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) >> 5; }

}  // namespace emulate

// Unique for each place in the text, even on one line.
#define EMULATE_SITE (int)(((unsigned)__COUNTER__ << 20) | (__LINE__ & 0xfffff))
