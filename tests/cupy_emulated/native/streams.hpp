// Of streams.cpp, for the other parts of the core.
#pragma once
#include <mutex>

#include "core.hpp"

namespace standin {

extern std::mutex engine;                    // the lock
extern thread_local bool in_host_function;  // this thread runs a host function of a stream

}  // namespace standin
