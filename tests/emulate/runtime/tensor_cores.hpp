// tensor_cores.hpp -- tensor-core and asynchronous-copy equivalents for the host.
// Part 1: nvcuda::wmma.  Part 2: the wrappers that kernels/ptx.cuh declares around inline PTX.
#pragma once

// ================================================================ 1. wmma
namespace cu {
template <int M, int N, int K>
__attribute__((no_sanitize("thread"), noinline, optimize("O3"))) inline void mac(const float (&A)[M][K],
                                                                                 const float (&B)[K][N],
                                                                                 float (&C)[M][N]) {
  for (int m = 0; m < M; m++) {
    float s[N] = {};
    for (int k = 0; k < K; k++)
      for (int n = 0; n < N; n++) s[n] += A[m][k] * B[k][n];
    for (int n = 0; n < N; n++) C[m][n] += s[n];
  }
}
}  // namespace cu
namespace nvcuda {
namespace wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
namespace precision {
struct tf32 {};
}  // namespace precision
enum layout_t { mem_row_major, mem_col_major };

template <class T>
struct store_of {
  typedef T t;
};
template <>
struct store_of<precision::tf32> {
  typedef float t;
};
template <class Use, int M, int N, int K>
struct dims;
template <int M, int N, int K>
struct dims<matrix_a, M, N, K> {
  enum { R = M, C = K };
};
template <int M, int N, int K>
struct dims<matrix_b, M, N, K> {
  enum { R = K, C = N };
};
template <int M, int N, int K>
struct dims<accumulator, M, N, K> {
  enum { R = M, C = N };
};
template <int M, int N, int K, class T>
struct shape_ok {
  enum {
    v = std::is_same<T, precision::tf32>::value ? (M == 16 && N == 16 && K == 8)
    : (std::is_same<T, __half>::value || std::is_same<T, __nv_bfloat16>::value)
        ? (K == 16 && ((M == 16 && N == 16) || (M == 32 && N == 8) || (M == 8 && N == 32)))
        : true
  };
};

template <class Use, int M, int N, int K, class T, class L = void>
struct fragment {
  static_assert(std::is_same<Use, accumulator>::value || shape_ok<M, N, K, T>::v, "no such wmma shape for this type");
  typedef typename store_of<T>::t element_type;
  typedef typename store_of<T>::t storage_element_type;
  enum { R = dims<Use, M, N, K>::R, C = dims<Use, M, N, K>::C, num_elements = R * C / 32 };
  element_type x[num_elements];
  // The element-to-lane map is unspecified by CUDA; this one is arbitrary on purpose.
  static constexpr int row(int lane, int e) { return (e * 32 + lane) / C; }
  static constexpr int col(int lane, int e) { return (e * 32 + lane) % C; }
  fragment() { memset(x, 0xff, sizeof x); }  // NaN: a missing fill or load shows up
  fragment(const fragment&) = default;
  fragment& operator=(const fragment&) = default;
};
template <class F>
inline void fill_fragment(F& f, typename F::element_type v) {
  for (int i = 0; i < F::num_elements; i++) f.x[i] = v;
}

inline float __float_to_tf32(float f) { return __cu_tf32_rna(f); }

struct MemOp {
  const void* p;
  unsigned ldm;
};
CU_NOTSAN inline void mem_check(const char* what, const void* p, unsigned ldm, int esz) {
  if ((uintptr_t)p % 32) cu::cu_fail("%s: pointer %p is not 32-byte aligned", what, p);
  if ((ldm * esz) % 16) cu::cu_fail("%s: ldm=%u elements of %d bytes is not a multiple of 16 bytes", what, ldm, esz);
  MemOp m{p, ldm};
  cu::cu_warp(what, "wmma", 0, 0xffffffffu, &m, [](void** ln, unsigned mask) CU_NOTSAN {
    if (mask != 0xffffffffu) cu::cu_fail("wmma load/store with only lanes %08x of the warp", mask);
    for (int i = 1; i < 32; i++)
      if (ln[i] && (((MemOp*)ln[i])->p != ((MemOp*)ln[0])->p || ((MemOp*)ln[i])->ldm != ((MemOp*)ln[0])->ldm))
        cu::cu_fail("wmma load/store: lanes 0 and %d pass different pointers or ldm", i);
  });
}
template <class T>
__attribute__((always_inline)) inline T ld(const T* p, const void* pc) {
  if (cu::cu_tracking) cu::cu_trace(p, sizeof(T), 0, 0, cu::K_WMMA, pc);
  return *p;
}
template <class Use, int M, int N, int K, class T, class L, class P>
CU_NOTSAN inline void load_matrix_sync(fragment<Use, M, N, K, T, L>& f, const P* p, unsigned ldm) {
  typedef fragment<Use, M, N, K, T, L> F;
  static_assert(!std::is_same<Use, accumulator>::value, "accumulator load needs a layout");
  mem_check("load_matrix_sync", p, ldm, sizeof(P));
  int l = cu::lane();
  const void* pc = __builtin_return_address(0);
  for (int e = 0; e < F::num_elements; e++) {
    int r = F::row(l, e), c = F::col(l, e);
    f.x[e] = ld(p + (std::is_same<L, row_major>::value ? (size_t)r * ldm + c : (size_t)c * ldm + r), pc);
  }
}
template <int M, int N, int K, class T>
CU_NOTSAN inline void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const T* p, unsigned ldm, layout_t lay) {
  typedef fragment<accumulator, M, N, K, T> F;
  mem_check("load_matrix_sync", p, ldm, sizeof(T));
  int l = cu::lane();
  const void* pc = __builtin_return_address(0);
  for (int e = 0; e < F::num_elements; e++) {
    int r = F::row(l, e), c = F::col(l, e);
    f.x[e] = ld(p + (lay == mem_row_major ? (size_t)r * ldm + c : (size_t)c * ldm + r), pc);
  }
}
template <int M, int N, int K, class T>
CU_NOTSAN inline void store_matrix_sync(T* p, const fragment<accumulator, M, N, K, T>& f, unsigned ldm, layout_t lay) {
  typedef fragment<accumulator, M, N, K, T> F;
  mem_check("store_matrix_sync", p, ldm, sizeof(T));
  int l = cu::lane();
  const void* pc = __builtin_return_address(0);
  for (int e = 0; e < F::num_elements; e++) {
    int r = F::row(l, e), c = F::col(l, e);
    T* q = p + (lay == mem_row_major ? (size_t)r * ldm + c : (size_t)c * ldm + r);
    if (cu::cu_tracking) cu::cu_trace(q, sizeof(T), 1, 0, cu::K_WMMA, pc);
    *q = f.x[e];
  }
}
template <class T>
inline float operand(typename store_of<T>::t v) {
  if constexpr (std::is_same<T, precision::tf32>::value)
    return __cu_tf32_cut(v);
  else
    return (float)v;
}  // hardware ignores the low 13 bits
template <class D, class A, class B, class Cc>
struct MmaOp {
  D* d;
  const A* a;
  const B* b;
  const Cc* c;
};
template <int M, int N, int K, class TA, class LA, class LB, class TD, class TC>
CU_NOTSAN inline void mma_sync(fragment<accumulator, M, N, K, TD>& d, const fragment<matrix_a, M, N, K, TA, LA>& a,
                               const fragment<matrix_b, M, N, K, TA, LB>& b,
                               const fragment<accumulator, M, N, K, TC>& c, bool = false) {
  typedef fragment<matrix_a, M, N, K, TA, LA> FA;
  typedef fragment<matrix_b, M, N, K, TA, LB> FB;
  typedef fragment<accumulator, M, N, K, TD> FD;
  typedef fragment<accumulator, M, N, K, TC> FC;
  typedef MmaOp<FD, FA, FB, FC> Op;
  Op op{&d, &a, &b, &c};
  cu::cu_warp("wmma::mma_sync", "wmma", M * 10000 + N * 100 + K, 0xffffffffu, &op,
              [](void** ln, unsigned mask) CU_NOTSAN {
                if (mask != 0xffffffffu) {
                  cu::cu_fail("mma_sync with only lanes %08x of the warp", mask);
                  return;
                }
                float A[M][K], B[K][N], C[M][N];
                for (int l = 0; l < 32; l++) {
                  Op* o = (Op*)ln[l];
                  for (int e = 0; e < FA::num_elements; e++) A[FA::row(l, e)][FA::col(l, e)] = operand<TA>(o->a->x[e]);
                  for (int e = 0; e < FB::num_elements; e++) B[FB::row(l, e)][FB::col(l, e)] = operand<TA>(o->b->x[e]);
                  for (int e = 0; e < FC::num_elements; e++) C[FC::row(l, e)][FC::col(l, e)] = (float)o->c->x[e];
                }
                cu::mac<M, N, K>(A, B, C);
                for (int l = 0; l < 32; l++) {
                  Op* o = (Op*)ln[l];
                  for (int e = 0; e < FD::num_elements; e++) o->d->x[e] = (TD)C[FD::row(l, e)][FD::col(l, e)];
                }
                cu::cu_count(cu::C_MMA_FLOP, 2ull * M * N * K);
              });
}
}  // namespace wmma
}  // namespace nvcuda

// ================================================================ 2. inline-PTX wrappers (host side of ptx.cuh)
// Register layouts as in the PTX ISA, "Matrix Fragments for mma.m16n8k16 / m16n8k8" and "ldmatrix".
namespace cu {
// ---- fragment maps: lane, element -> (row, col)
struct Rc {
  int r, c;
};
constexpr Rc a_16816(int l, int i) {
  return {(l >> 2) + ((i & 2) ? 8 : 0), (l & 3) * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}                                                                                                  // A 16x16, 8 halves
constexpr Rc b_16816(int l, int i) { return {(l & 3) * 2 + (i & 1) + (i >= 2 ? 8 : 0), l >> 2}; }  // B 16x8,  4 halves
constexpr Rc a_1688h(int l, int i) {
  return {(l >> 2) + (i >= 2 ? 8 : 0), (l & 3) * 2 + (i & 1)};
}                                                                               // A 16x8,  4 halves
constexpr Rc b_1688h(int l, int i) { return {(l & 3) * 2 + (i & 1), l >> 2}; }  // B 8x8,   2 halves
constexpr Rc a_1688t(int l, int i) {
  return {(l >> 2) + ((i & 1) ? 8 : 0), (l & 3) + (i >= 2 ? 4 : 0)};
}                                                                                                   // A 16x8,  4 tf32
constexpr Rc b_1688t(int l, int i) { return {(l & 3) + (i ? 4 : 0), l >> 2}; }                      // B 8x8,   2 tf32
constexpr Rc c_1688(int l, int i) { return {(l >> 2) + (i >= 2 ? 8 : 0), (l & 3) * 2 + (i & 1)}; }  // C 16x8,  4 floats

template <class T>
CU_NOTSAN float elem(const unsigned* r, int i);
template <>
CU_NOTSAN inline float elem<__half>(const unsigned* r, int i) {
  __half h;
  h.u = (uint16_t)(r[i >> 1] >> (16 * (i & 1)));
  return (float)h;
}
template <>
CU_NOTSAN inline float elem<__nv_bfloat16>(const unsigned* r, int i) {
  __nv_bfloat16 h;
  h.u = (uint16_t)(r[i >> 1] >> (16 * (i & 1)));
  return (float)h;
}
template <>
CU_NOTSAN inline float elem<float>(const unsigned* r, int i) {
  return __cu_tf32_cut(__uint_as_float(r[i]));
}
struct MmaRegs {
  float* d;
  const unsigned *a, *b;
  const float* c;
};
template <class T, int K, int NA, int NB, Rc (*FA)(int, int), Rc (*FB)(int, int)>
CU_NOTSAN inline void mma_16x8(const char* what, float* d, const unsigned* a, const unsigned* b, const float* c) {
  MmaRegs op{d, a, b, c};
  cu_warp(what, "ptx", K, 0xffffffffu, &op, [](void** ln, unsigned mask) CU_NOTSAN {
    if (mask != 0xffffffffu) {
      cu_fail("mma.sync with only lanes %08x of the warp", mask);
      return;
    }
    float A[16][K], B[K][8], C[16][8];
    for (int l = 0; l < 32; l++) {
      MmaRegs* o = (MmaRegs*)ln[l];
      for (int i = 0; i < NA; i++) {
        Rc p = FA(l, i);
        A[p.r][p.c] = elem<T>(o->a, i);
      }
      for (int i = 0; i < NB; i++) {
        Rc p = FB(l, i);
        B[p.r][p.c] = elem<T>(o->b, i);
      }
      for (int i = 0; i < 4; i++) {
        Rc p = c_1688(l, i);
        C[p.r][p.c] = o->c[i];
      }
    }
    mac<16, 8, K>(A, B, C);
    for (int l = 0; l < 32; l++) {
      MmaRegs* o = (MmaRegs*)ln[l];
      for (int i = 0; i < 4; i++) {
        Rc p = c_1688(l, i);
        o->d[i] = C[p.r][p.c];
      }
    }
    cu_count(C_MMA_FLOP, 2ull * 16 * 8 * K);
  });
}
struct LdMat {
  unsigned* r;
  const void *row, *pc;
};
template <int X, bool T>
CU_NOTSAN inline void ldmatrix(unsigned* r, const void* row) {
  LdMat op{r, row, __builtin_return_address(0)};
  cu_warp(T ? "ldmatrix.trans" : "ldmatrix", "ptx", X, 0xffffffffu, &op, [](void** ln, unsigned mask) CU_NOTSAN {
    if (mask != 0xffffffffu) {
      cu_fail("ldmatrix with only lanes %08x of the warp", mask);
      return;
    }
    for (int m = 0; m < X; m++) {
      const uint16_t* rows[8];
      for (int i = 0; i < 8; i++) {
        const void* p = ((LdMat*)ln[m * 8 + i])->row;
        rows[i] = (const uint16_t*)p;
        if ((uintptr_t)p % 16) {
          cu_fail("ldmatrix: row address of lane %d is not 16-byte aligned", m * 8 + i);
          return;
        }
        cu_trace_as(m * 8 + i, p, 16, 0, K_LDMATRIX, ((LdMat*)ln[m * 8 + i])->pc);
      }
      for (int l = 0; l < 32; l++) {
        int r0 = l >> 2, c0 = (l & 3) * 2;
        unsigned lo = T ? rows[c0][r0] : rows[r0][c0], hi = T ? rows[c0 + 1][r0] : rows[r0][c0 + 1];
        ((LdMat*)ln[l])->r[m] = lo | (hi << 16);
      }
    }
  });
}
}  // namespace cu
