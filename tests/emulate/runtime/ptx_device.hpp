// What every translation of PTX includes, in one header that g++ parses once.
#pragma once
#include "device.hpp"
#include "ptx_support.hpp"
