// Which pages of a mapping have memory, for tests of what touches them.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "kernels/host_memory.h"

// Older systems cannot touch memory without writing to it: there is nothing to see then.
#define QUIRE_SKIP_WITHOUT_TOUCHING(memory)                                \
  if (madvise((memory), ::quire::kHostPage, MADV_POPULATE_WRITE) != 0) {   \
    GTEST_SKIP() << "this system has no MADV_POPULATE_WRITE (Linux 5.14)"; \
  }

namespace quire::test {

// Of those that lie whole in [begin, begin + bytes).
struct PageCount {
  std::size_t resident = 0;
  std::size_t all = 0;
};

inline PageCount count_pages(const std::byte* begin, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  const std::uintptr_t first = (address + kHostPage - 1) / kHostPage;
  const std::uintptr_t end = (address + bytes) / kHostPage;
  std::vector<unsigned char> resident(end - first);
  EXPECT_EQ(mincore(reinterpret_cast<void*>(first * kHostPage), (end - first) * kHostPage,
                    resident.data()),
            0);
  const auto count = std::count_if(resident.begin(), resident.end(),
                                   [](unsigned char page) { return (page & 1) != 0; });
  return {static_cast<std::size_t>(count), resident.size()};
}

inline bool becomes_resident(const std::byte* begin, std::size_t bytes) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (;;) {
    const PageCount pages = count_pages(begin, bytes);
    if (pages.resident == pages.all) return true;
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace quire::test
