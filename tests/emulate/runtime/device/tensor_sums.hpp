// Sums of tensor cores: D = A B + C, cut off as hardware cuts them.
//
// Of a block of products and the sum before it each addend is exact; all are brought to the exponent of the largest and
// keep 23 bits and FURTHER_BITS behind its first one; what they lose by that is cut off.  Their sum is exact, and is cut
// off to float32.  So nothing is ever rounded up: sums drift towards zero.
//
// Blocks and bits are those of sm_80 and sm_89, the coarsest that are published for sm_80 and later: sm_90 has blocks
// twice as long and one bit more.
//
// Sources: M. Fasi, N. J. Higham, M. Mikaitis, S. Pranesh, Numerical behavior of NVIDIA tensor cores, PeerJ Computer
// Science 7:e330 (2021); F. A. Khattak, M. Mikaitis, Accurate models of NVIDIA tensor cores, arXiv:2512.07004 (2025), whose
// models agree with hardware bit for bit.  The extra bit of products that reach 2 is left out.
#pragma once

namespace emulate {

constexpr int FURTHER_BITS = 1;

template <class T>
constexpr int BLOCK_OF = sizeof(T) == 2 ? 8 : 4;  // 16-bit types, else TF32

// A double cut off to the bits of a float.
inline float cut_off(double value) {
  if (std::fabs(value) < std::numeric_limits<float>::min())
    return (float)std::ldexp(std::trunc(std::ldexp(value, 149)), -149);
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits &= ~((1ull << 29) - 1);
  memcpy(&value, &bits, sizeof bits);
  return (float)value;
}

inline double power_of_two(uint64_t biased) {
  double value;
  biased <<= 52;
  memcpy(&value, &biased, sizeof value);
  return value;
}

// C += A B, in blocks of BLOCK products.
template <int BLOCK, int M, int N, int K>
__attribute__((no_sanitize("thread"), noinline, optimize("O3"))) inline void multiply_add(const float (&a)[M][K],
                                                                                          const float (&b)[K][N],
                                                                                          float (&c)[M][N]) {
  static_assert(K % BLOCK == 0, "whole blocks");
  for (int m = 0; m < M; m++) {
    for (int first = 0; first < K; first += BLOCK) {
      double largest[N], plain[N], finer[N];
      uint32_t sums[N];  // which may wrap round where they are replaced below
      for (int n = 0; n < N; n++) {
        plain[n] = c[m][n];
        largest[n] = std::fabs(plain[n]);
      }
      for (int k = first; k < first + BLOCK; k++)
        for (int n = 0; n < N; n++) {
          const double product = (double)a[m][k] * b[k][n];
          plain[n] += product;
          largest[n] = std::max(largest[n], std::fabs(product));
        }
      for (int n = 0; n < N; n++) {
        uint64_t exponent;
        memcpy(&exponent, &largest[n], sizeof exponent);
        // Neither 0 nor infinite; what is not finite is replaced below.
        exponent = std::min(std::max<uint64_t>(exponent >> 52, 512), (uint64_t)1534);
        finer[n] = power_of_two(2046 + 23 + FURTHER_BITS - exponent);
        sums[n] = (uint32_t)(int)(c[m][n] * finer[n]);
      }
      for (int k = first; k < first + BLOCK; k++)
        for (int n = 0; n < N; n++) sums[n] += (uint32_t)(int)((double)a[m][k] * b[k][n] * finer[n]);
      for (int n = 0; n < N; n++)
        c[m][n] = std::isfinite(plain[n]) ? cut_off((int)sums[n] / finer[n]) : (float)plain[n];
    }
  }
}

}  // namespace emulate
