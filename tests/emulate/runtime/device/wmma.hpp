// nvcuda::wmma: tensor-core products of whole tiles.
#pragma once

namespace nvcuda {
namespace wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32 {};
}  // namespace precision

template <class T>
using Stored = std::conditional_t<std::is_same_v<T, precision::tf32>, float, T>;

template <class Use, int M, int N, int K>
struct TileSize;
template <int M, int N, int K>
struct TileSize<matrix_a, M, N, K> {
  static constexpr int rows = M, columns = K;
};
template <int M, int N, int K>
struct TileSize<matrix_b, M, N, K> {
  static constexpr int rows = K, columns = N;
};
template <int M, int N, int K>
struct TileSize<accumulator, M, N, K> {
  static constexpr int rows = M, columns = N;
};

template <int M, int N, int K, class T>
constexpr bool shape_exists() {
  if (std::is_same_v<T, precision::tf32>) return M == 16 && N == 16 && K == 8;
  if (std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>)
    return K == 16 && ((M == 16 && N == 16) || (M == 32 && N == 8) || (M == 8 && N == 32));
  return true;
}

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment : TileSize<Use, M, N, K> {
  static_assert(std::is_same_v<Use, accumulator> || shape_exists<M, N, K, T>(), "no such wmma shape for this type");
  using Size = TileSize<Use, M, N, K>;
  using element_type = Stored<T>;
  using storage_element_type = Stored<T>;
  static constexpr int num_elements = Size::rows * Size::columns / 32;
  element_type x[num_elements];

  // CUDA does not say which lane holds which element; this map is arbitrary on purpose.
  static constexpr int row(int lane, int element) { return (element * 32 + lane) / Size::columns; }
  static constexpr int column(int lane, int element) { return (element * 32 + lane) % Size::columns; }

  fragment() { memset(x, 0xff, sizeof x); }  // NaN: a missing fill or load shows
  fragment(const fragment&) = default;
  fragment& operator=(const fragment&) = default;
};

template <class Fragment>
inline void fill_fragment(Fragment& f, typename Fragment::element_type value) {
  for (int i = 0; i < Fragment::num_elements; i++) f.x[i] = value;
}

inline float __float_to_tf32(float value) { return emulate::tf32_rounded(value); }

struct TileAccess {
  const void* pointer;
  unsigned stride;
};

// Check that the whole warp loads or stores one tile, and that the tile lies as the hardware wants it.
EMULATE_UNTRACED inline void check_tile(const char* what, const void* pointer, unsigned stride, int element_bytes) {
  if ((uintptr_t)pointer % 32) emulate::fail("%s: pointer %p is not 32-byte aligned", what, pointer);
  if (stride * element_bytes % 16)
    emulate::fail("%s: ldm=%u elements of %d bytes is not a multiple of 16 bytes", what, stride, element_bytes);
  TileAccess mine{pointer, stride};
  emulate::warp_operation(what, "wmma", 0, 0xffffffffu, &mine, [](void** lanes, unsigned present) EMULATE_UNTRACED {
    if (present != 0xffffffffu) emulate::fail("wmma load or store with only lanes %08x of the warp", present);
    const auto* first = (TileAccess*)lanes[0];
    for (int i = 1; i < 32; i++) {
      const auto* other = (TileAccess*)lanes[i];
      if (other && (other->pointer != first->pointer || other->stride != first->stride))
        emulate::fail("wmma load or store: lanes 0 and %d pass different pointers or ldm", i);
    }
  });
}

template <class T>
__attribute__((always_inline)) inline void trace_element(const T* p, bool write, const void* pc) {
  if (emulate::tracking) emulate::trace(p, sizeof(T), write, false, emulate::WMMA, pc);
}

template <class Fragment>
inline size_t place(int lane, int element, unsigned stride, bool by_rows) {
  const size_t row = Fragment::row(lane, element), column = Fragment::column(lane, element);
  return by_rows ? row * stride + column : column * stride + row;
}

template <class Use, int M, int N, int K, class T, class Layout, class Memory>
EMULATE_UNTRACED inline void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& f, const Memory* p, unsigned ldm) {
  static_assert(!std::is_same_v<Use, accumulator>, "the load of an accumulator needs a layout");
  const void* pc = __builtin_return_address(0);
  check_tile("load_matrix_sync", p, ldm, sizeof(Memory));
  for (int i = 0; i < f.num_elements; i++) {
    const auto* at = p + place<std::decay_t<decltype(f)>>(emulate::lane(), i, ldm, std::is_same_v<Layout, row_major>);
    trace_element(at, false, pc);
    f.x[i] = *at;
  }
}

template <int M, int N, int K, class T>
EMULATE_UNTRACED inline void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const T* p, unsigned ldm,
                                              layout_t layout) {
  const void* pc = __builtin_return_address(0);
  check_tile("load_matrix_sync", p, ldm, sizeof(T));
  for (int i = 0; i < f.num_elements; i++) {
    const T* at = p + place<std::decay_t<decltype(f)>>(emulate::lane(), i, ldm, layout == mem_row_major);
    trace_element(at, false, pc);
    f.x[i] = *at;
  }
}

template <int M, int N, int K, class T>
EMULATE_UNTRACED inline void store_matrix_sync(T* p, const fragment<accumulator, M, N, K, T>& f, unsigned ldm,
                                               layout_t layout) {
  const void* pc = __builtin_return_address(0);
  check_tile("store_matrix_sync", p, ldm, sizeof(T));
  for (int i = 0; i < f.num_elements; i++) {
    T* at = p + place<std::decay_t<decltype(f)>>(emulate::lane(), i, ldm, layout == mem_row_major);
    trace_element(at, true, pc);
    *at = f.x[i];
  }
}

template <class T>
inline float operand(Stored<T> value) {
  if constexpr (std::is_same_v<T, precision::tf32>) return emulate::tf32_truncated(value);
  return (float)value;
}

template <int M, int N, int K, class T, class LayoutA, class LayoutB, class D, class C>
EMULATE_UNTRACED inline void mma_sync(fragment<accumulator, M, N, K, D>& d,
                                      const fragment<matrix_a, M, N, K, T, LayoutA>& a,
                                      const fragment<matrix_b, M, N, K, T, LayoutB>& b,
                                      const fragment<accumulator, M, N, K, C>& c, bool = false) {
  using FragmentA = fragment<matrix_a, M, N, K, T, LayoutA>;
  using FragmentB = fragment<matrix_b, M, N, K, T, LayoutB>;
  using FragmentC = fragment<accumulator, M, N, K, C>;
  using FragmentD = fragment<accumulator, M, N, K, D>;
  struct Lane {
    FragmentD* d;
    const FragmentA* a;
    const FragmentB* b;
    const FragmentC* c;
  } mine{&d, &a, &b, &c};
  const int site = M * 10000 + N * 100 + K;
  emulate::warp_operation("wmma::mma_sync", "wmma", site, 0xffffffffu, &mine,
                          [](void** lanes, unsigned present) EMULATE_UNTRACED {
                            if (present != 0xffffffffu)
                              emulate::fail("mma_sync with only lanes %08x of the warp", present);
                            float a[M][K], b[K][N], c[M][N];
                            for (int l = 0; l < 32; l++) {
                              const Lane* lane = (Lane*)lanes[l];
                              for (int i = 0; i < FragmentA::num_elements; i++)
                                a[FragmentA::row(l, i)][FragmentA::column(l, i)] = operand<T>(lane->a->x[i]);
                              for (int i = 0; i < FragmentB::num_elements; i++)
                                b[FragmentB::row(l, i)][FragmentB::column(l, i)] = operand<T>(lane->b->x[i]);
                              for (int i = 0; i < FragmentC::num_elements; i++)
                                c[FragmentC::row(l, i)][FragmentC::column(l, i)] = (float)lane->c->x[i];
                            }
                            emulate::multiply_add<emulate::BLOCK_OF<T>>(a, b, c);
                            for (int l = 0; l < 32; l++)
                              for (int i = 0; i < FragmentD::num_elements; i++)
                                ((Lane*)lanes[l])->d->x[i] = (D)c[FragmentD::row(l, i)][FragmentD::column(l, i)];
                            emulate::count(emulate::MMA_FLOP, 2ull * M * N * K);
                          });
}

}  // namespace wmma
}  // namespace nvcuda
