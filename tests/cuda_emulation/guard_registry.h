// The table of guarded memory, shared by guard.cpp and the fault handler.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <string>

#include "tests/cuda_emulation/guard.h"

namespace quire::cuda_emulation {

struct Registry {
  std::mutex mutex;
  std::map<const char*, Allocation> live;  // by the start of the mapping
  std::deque<Allocation> freed;            // the last ones, still inaccessible
  std::map<int, size_t> used;              // bytes per device
  uint64_t made = 0;

  // The live allocation whose mapping, inaccessible pages included, holds the address.
  Allocation* holding(const void* address) {
    const auto* at = static_cast<const char*>(address);
    auto after = live.upper_bound(at);
    if (after == live.begin()) return nullptr;
    Allocation& a = std::prev(after)->second;
    return at < a.base + a.mapped ? &a : nullptr;
  }
};

Registry& registry();
std::string describe(const Allocation& a);

}  // namespace quire::cuda_emulation
