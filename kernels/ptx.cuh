// Inline PTX as named one-line functions; nothing outside this file is written in PTX.
//
// The emulator of the tests puts functions of the same names in the place of this file.
#pragma once

namespace ptx {

// float16 by its bits, so that no toolkit header is needed.  To float16 rounds to nearest, ties to even.
__device__ __forceinline__ float half_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
__device__ __forceinline__ unsigned short float_to_half(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

}  // namespace ptx
