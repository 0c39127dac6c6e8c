// The __device__ and __constant__ variables of a PTX module that lie outside of its library: which there are, with their
// first values, and where those that its kernels use lie in the launches that follow.
#pragma once

extern "C" {
struct EmulateVariable {
  const char* name;
  uint64_t bytes;
  const void* first;
  uint64_t used;
};
}

#define EMULATE_VARIABLE(NAME, USED) {#NAME, sizeof NAME##_first, NAME##_first, USED}
#define EMULATE_VARIABLES(...)                                                            \
  extern "C" __attribute__((visibility("default"))) const EmulateVariable emulate_variables[] = {__VA_ARGS__, {}};
#define EMULATE_PLACE_VARIABLES extern "C" __attribute__((visibility("default"))) void emulate_place_variables
