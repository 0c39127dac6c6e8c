// How a library tells its kernels to Python: EMULATE_KERNEL lines that build.py puts behind the kernel file.
#pragma once

namespace emulate {

void register_kernel(const Kernel* kernel);

template <class T>
constexpr char kind_of() {
  using U = std::remove_cv_t<T>;
  if (std::is_same_v<U, __half>) return 'h';
  if (std::is_same_v<U, __nv_bfloat16>) return 'b';
  if (std::is_void_v<U>) return 'v';
  if (std::is_same_v<U, bool>) return '?';
  if (std::is_floating_point_v<U>) return 'f';
  if (std::is_integral_v<U>) return std::is_signed_v<U> ? 'i' : 'u';
  return 'V';
}

// c: pointer to const, m: pointer to what may be written, s: by value.
template <class T>
constexpr char access_of() {
  if (!std::is_pointer_v<T>) return 's';
  return std::is_const_v<std::remove_pointer_t<T>> ? 'c' : 'm';
}

template <class T>
constexpr int32_t size_of() {
  using E = std::remove_pointer_t<T>;
  if constexpr (std::is_void_v<E>)
    return 1;
  else
    return (int32_t)sizeof(E);
}

template <class... P>
struct Parameters {
  static constexpr char signature[] = {access_of<P>()..., '/', kind_of<std::remove_pointer_t<P>>()..., 0};
  static constexpr int32_t sizes[] = {size_of<P>()..., 0};
  static constexpr int32_t count = sizeof...(P);

  template <void (*F)(P...), size_t... I>
  EMULATE_UNTRACED static void spread(void** arguments, std::index_sequence<I...>) {
    F(*(std::remove_cv_t<P>*)arguments[I]...);
  }
  template <void (*F)(P...)>
  EMULATE_UNTRACED static void call(void** arguments) {
    spread<F>(arguments, std::index_sequence_for<P...>{});
  }
};
template <class... P>
Parameters<P...> parameters_of(void (*)(P...));

}  // namespace emulate

#define EMULATE_KERNEL(ID, NAME, ...)                                                                                \
  namespace {                                                                                                        \
  using EmulateParameters##ID = decltype(emulate::parameters_of(&__VA_ARGS__));                                      \
  const emulate::Kernel emulate_kernel_##ID = {NAME, EmulateParameters##ID::count, EmulateParameters##ID::signature, \
                                               EmulateParameters##ID::sizes,                                         \
                                               EmulateParameters##ID::template call<&__VA_ARGS__>};                  \
  __attribute__((constructor)) void emulate_register_##ID() { emulate::register_kernel(&emulate_kernel_##ID); }      \
  }
