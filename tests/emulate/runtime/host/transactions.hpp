// Memory transactions (mode stats): the k-th access of every lane at one site is taken as one request of the warp.
//
// Global memory: a request costs the 32-byte sectors it touches.  Shared memory has 32 banks of 4 bytes: a request
// costs the most words that any bank must deliver; 8-byte accesses go by half warps, 16-byte ones by quarter warps.  A
// load goes by twice as many lanes where lanes t and t ^ 1, or t and t ^ 2, read the same address, whichever t: NVIDIA says
// so of compute capability 7.0 to 7.5 (forums.developer.nvidia.com/t/77228); of later ones nothing is published.
#pragma once

namespace emulate {

typedef std::vector<const LoggedAccess*> Request;

size_t count_distinct(std::vector<uint64_t>& values) {
  std::sort(values.begin(), values.end());
  return std::unique(values.begin(), values.end()) - values.begin();
}

// Append the numbers of all units of `bytes` that an access touches.
void append_units(std::vector<uint64_t>& units, const LoggedAccess& a, unsigned bytes) {
  for (uint64_t u = a.address / bytes; u <= (a.address + a.size - 1) / bytes; u++) units.push_back(u);
}

// The most distinct words of one bank among these accesses.
size_t wavefronts(const Request& request, size_t first, size_t end) {
  static std::vector<uint64_t> banks[32];
  for (auto& bank : banks) bank.clear();
  std::vector<uint64_t> words;
  for (size_t i = first; i < end; i++) append_units(words, *request[i], 4);
  for (uint64_t word : words) {
    auto& bank = banks[word & 31];
    if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
  }
  size_t most = 0;
  for (const auto& bank : banks) most = std::max(most, bank.size());
  return most;
}

// True if all lanes whose numbers differ in one bit alone read the same address.
bool in_pairs(const Request& request, unsigned bit) {
  uint64_t address[32] = {};
  for (const auto* a : request) address[a->lane] = a->address;
  for (const auto* a : request) {
    const uint64_t other = address[a->lane ^ bit];
    if (other != 0 && other != a->address) return false;
  }
  return true;
}

void count_request(Site& site, const Request& request) {
  site.requests++;
  site.lanes += request.size();
  std::vector<uint64_t> words, sectors;
  for (const auto* a : request) {
    site.bytes += a->size;
    append_units(words, *a, 4);
    append_units(sectors, *a, 32);
  }
  const bool shared =
      site.kind == SHARED_LOAD || site.kind == SHARED_STORE || site.kind == LDMATRIX_LOAD || site.kind == WMMA_ACCESS;
  if (!shared) {
    site.units += count_distinct(sectors);
    site.ideal += (count_distinct(words) * 4 + 31) / 32;
    return;
  }
  const unsigned size = request[0]->size;
  size_t together = size >= 16 ? 8 : size == 8 ? 16 : 32;
  if (site.kind == SHARED_LOAD && together < 32 && (in_pairs(request, 1) || in_pairs(request, 2))) together *= 2;
  for (size_t i = 0; i < request.size(); i += together)
    site.units += wavefronts(request, i, std::min(i + together, request.size()));
  site.ideal += (count_distinct(words) + 31) / 32;
}

// Count what the lanes of a warp logged since the last barrier.
void count_warp(int warp) {
  std::unordered_map<uint32_t, std::vector<Request>> requests;  // by site
  const int end = std::min(warp * 32 + 32, thread_count);
  for (int t = warp * 32; t < end; t++) {
    std::unordered_map<uint32_t, size_t> seen;
    for (auto& a : fibers[t].log) {
      a.lane = t % 32;
      auto& of_site = requests[a.site];
      const size_t k = seen[a.site]++;
      if (of_site.size() <= k) of_site.resize(k + 1);
      of_site[k].push_back(&a);
    }
  }
  for (const auto& [site, all] : requests)
    for (const auto& request : all) count_request(sites[site], request);
  for (int t = warp * 32; t < end; t++) fibers[t].log.clear();
}

void count_transactions() {
  if (launch->flags & COUNT)
    for (int w = 0; w < warp_count; w++) count_warp(w);
}

}  // namespace emulate
