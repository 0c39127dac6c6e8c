// What this process and a launch server write for each other, in memory that both share.
#pragma once
#include <cstdint>

#include "launch.hpp"  // of the emulator's runtime

namespace standin {

constexpr uint64_t CONTROL_BASE = 0x1f0000000000ull;  // in the server
constexpr int MAX_CHANGES = 2048, MAX_DEVICES = 8, MAX_VARIABLES = 1024;

// Device memory that may be used from now on, or no more.
struct Change {
  uint64_t address, bytes, open;
};

struct Control {
  emulate::Launch launch;
  uint64_t change_count;
  Change changes[MAX_CHANGES];
  uint64_t variable_count;
  char* variables[MAX_VARIABLES];
  uint8_t parameters[32 << 10];
  char report[64 << 10];
  emulate::Statistics statistics;
};

// The first message, with the files: control, then the memory of each device.
struct Hello {
  uint64_t devices, bytes;  // of one device
};

}  // namespace standin
