// Sites: the instructions that access memory, numbered.
#pragma once

namespace emulate {

// As _KINDS in emulator.py.
enum SiteKind : uint32_t {
  GLOBAL_LOAD,
  GLOBAL_STORE,
  SHARED_LOAD,
  SHARED_STORE,
  ATOMIC,
  LDMATRIX_LOAD,
  WMMA_ACCESS,
  ASYNC_COPY
};

std::vector<Site> sites;
std::unordered_map<uint64_t, uint32_t> site_numbers;
uint64_t last_site_key;
uint32_t last_site;

uint32_t site_of(uint64_t pc, SiteKind kind) {
  const uint64_t key = pc * 16 + kind;
  if (key == last_site_key) return last_site;
  const auto [found, is_new] = site_numbers.emplace(key, sites.size());
  if (is_new) sites.push_back(Site{pc, kind, 0, 0, 0, 0, 0, 0});
  last_site_key = key;
  return last_site = found->second;
}

void reset_sites() {
  sites.clear();
  site_numbers.clear();
  last_site_key = ~0ull;
}

}  // namespace emulate
