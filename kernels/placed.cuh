// Numbers that change from step to step: told by value, or read where they lie on the device.
//
// A launch that is recorded once and run again and again has its arguments in it.  What another kernel computes or
// reads from a table between two steps therefore comes by its place: a null pointer says that it came by value.
#pragma once

// at ? value *at : value.  The product is rounded as on the host: nothing is added to it before it is stored.
__device__ __forceinline__ double placed_number(const double* at, double value) { return at ? value * *at : value; }

// times *at + value modulo 2^64, or the value alone.
__device__ __forceinline__ unsigned long long placed_count(
    const unsigned long long* at, unsigned long long times, unsigned long long value) {
  return at ? times * *at + value : value;
}

// Whether the step goes ahead: it does not where what `go` points to is 0.
__device__ __forceinline__ bool goes_ahead(const unsigned long long* go) { return !go || *go != 0; }
