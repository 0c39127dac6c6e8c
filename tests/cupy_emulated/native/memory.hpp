// Of memory.cpp, for the other parts of the core.
#pragma once
#include <map>
#include <string>

#include "control.hpp"
#include "core.hpp"

namespace standin {

struct Memory {
  int file = -1;
  uint8_t* view = nullptr;
  uint64_t range = 0, in_use = 0, cursor = 0;
  std::map<uint64_t, uint64_t> gaps;      // offset -> bytes
  std::map<uint64_t, Allocation> taken;   // by address
  int wrong = 0;
  unsigned peers = 0;  // whose memory its kernels may use, one bit each
};
extern Memory memories[MAX_DEVICES];

int file_of(int device);
uint64_t range_of(int device);
void open_for(int device, uint64_t address, uint64_t bytes, bool open);
bool check_surroundings(int device, uint64_t start, const Allocation& a, const char* who);
bool check_all_surroundings(int device, const char* who);
std::string nearest_allocation(int device, uint64_t address);

}  // namespace standin
