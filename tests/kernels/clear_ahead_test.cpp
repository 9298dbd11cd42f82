// Memory is touched while nothing runs, as far as the lead reaches, and keeps what it holds.
#include "kernels/cpu/clear_ahead.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <thread>

#include "tests/resident_pages.h"

namespace quire::cpu {
namespace {

constexpr std::size_t kPage = kHostPage;
constexpr std::size_t kPages = 2048;

class Mapping {
 public:
  Mapping()
      : data_(static_cast<std::byte*>(mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    madvise(data_, kPages * kPage, MADV_NOHUGEPAGE);
  }
  ~Mapping() { munmap(data_, kPages * kPage); }

  std::byte* page(std::size_t i) const { return data_ + i * kPage; }
  // In [begin, end).
  std::size_t num_resident(std::size_t begin, std::size_t end) const {
    return test::count_pages(page(begin), (end - begin) * kPage).resident;
  }
  bool becomes_resident(std::size_t begin, std::size_t end) const {
    return test::becomes_resident(page(begin), (end - begin) * kPage);
  }

 private:
  std::byte* const data_;
};

class ClearAheadTest : public testing::Test {
 protected:
  void SetUp() override {
    const Mapping memory;
    QUIRE_SKIP_WITHOUT_TOUCHING(memory.page(0));
  }
};

TEST_F(ClearAheadTest, TouchesTheLeadAndKeepsWhatIsThere) {
  const Mapping memory;
  *memory.page(10) = std::byte{42};
  ClearAhead ahead(600 * kPage);
  ahead.expect(memory.page(10), (kPages - 10) * kPage);
  EXPECT_TRUE(memory.becomes_resident(10, 610));
  EXPECT_EQ(memory.num_resident(0, 10), 0u);
  EXPECT_EQ(*memory.page(10), std::byte{42});
  ahead.expect(memory.page(100), (kPages - 100) * kPage);
  EXPECT_TRUE(memory.becomes_resident(610, 700));
  ahead.forget();
  EXPECT_EQ(memory.num_resident(700, kPages), 0u);
}

TEST_F(ClearAheadTest, TouchesWholePagesWhereverARangeBeginsAndEnds) {
  const Mapping memory;
  ClearAhead ahead(10 * kPage + 100);
  ahead.expect(memory.page(5) + 1, 1000 * kPage);
  EXPECT_TRUE(memory.becomes_resident(6, 15));
  ahead.expect(memory.page(8) + 1, 1000 * kPage);  // goes on where the other ended
  EXPECT_TRUE(memory.becomes_resident(6, 18));
  ahead.forget();
  EXPECT_EQ(memory.num_resident(0, 6), 0u);
  EXPECT_EQ(memory.num_resident(18, kPages), 0u);
}

TEST_F(ClearAheadTest, WaitsWhileSomethingRuns) {
  const Mapping memory;
  ClearAhead ahead(kPages * kPage);
  ahead.begin_run();
  ahead.expect(memory.page(0), kPages * kPage);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(memory.num_resident(0, kPages), 0u);
  ahead.end_run();
  EXPECT_TRUE(memory.becomes_resident(0, kPages));
}

TEST_F(ClearAheadTest, WhatIsForgottenMayGo) {
  ClearAhead ahead(kPages * kPage);
  for (int i = 0; i < 20; ++i) {
    const Mapping memory;
    ahead.expect(memory.page(0), kPages * kPage);
    std::this_thread::sleep_for(std::chrono::milliseconds(i));
    ahead.forget();
    const std::size_t touched = memory.num_resident(0, kPages);
    std::this_thread::sleep_for(std::chrono::milliseconds(12));
    EXPECT_EQ(memory.num_resident(0, kPages), touched);
  }
}

}  // namespace
}  // namespace quire::cpu
