// CUDA C++ for g++: included before every kernel file, so that the file compiles and runs on the CPU as it is.
// The other half, which schedules threads and checks accesses, is runtime.cpp.
#pragma once
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>
#include <utility>

// In this order: each uses the ones before it.
#include "device/keywords.hpp"
#include "device/runtime_calls.hpp"
#include "device/math.hpp"
#include "device/half.hpp"
#include "device/warp.hpp"
#include "device/atomics.hpp"
#include "device/tensor_sums.hpp"
#include "device/wmma.hpp"
#include "device/registration.hpp"

// Only now: the C++ library spells attributes with this word.
#define __noinline__ __attribute__((noinline))
