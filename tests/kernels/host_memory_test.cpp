// Memory of a device that computes on the host: every piece is zero and its own, whichever way it
// was made, and what is freed goes back to the system.
#include "kernels/host_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <vector>

namespace quire {
namespace {

constexpr std::size_t kSizes[] = {0, 1, 4096, 65535, 65536, 300'000, 2'000'000, 5'000'000};

TEST(HostMemoryTest, PiecesAreZeroAlignedAndTheirOwn) {
  HostMemory memory;
  std::vector<std::pair<unsigned char*, std::size_t>> pieces;
  for (int round = 0; round < 20; ++round) {
    for (const std::size_t bytes : kSizes) {
      auto* piece = static_cast<unsigned char*>(memory.allocate(bytes, "a test").value());
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(piece) % 64, 0u);
      ASSERT_TRUE(std::all_of(piece, piece + bytes, [](unsigned char x) { return x == 0; }));
      std::fill_n(piece, bytes, static_cast<unsigned char>(pieces.size() % 251 + 1));
      pieces.emplace_back(piece, bytes);
      if (pieces.size() % 3 == 0) {  // in no order of their making
        memory.free(pieces[pieces.size() / 2].first);
        pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(pieces.size() / 2));
      }
    }
  }
  for (const auto& [piece, bytes] : pieces) {
    ASSERT_TRUE(std::all_of(piece, piece + bytes, [first = *piece](unsigned char x) {
      return x == first && x != 0;
    })) << bytes;
  }
}

TEST(HostMemoryTest, FreedPiecesGoBackToTheSystem) {
  HostMemory memory;
  for (const std::size_t bytes : {std::size_t{65536}, std::size_t{5'000'000}}) {
    std::vector<void*> pieces;
    for (int i = 0; i < 500; ++i) pieces.push_back(memory.allocate(bytes, "a test").value());
    for (void* piece : pieces) memory.free(piece);
    // msync of what is not mapped says so.
    EXPECT_TRUE(std::all_of(pieces.begin(), pieces.end(), [](void* piece) {
      return msync(piece, 4096, MS_ASYNC) == -1 && errno == ENOMEM;
    })) << bytes;
  }
}

TEST(HostMemoryTest, SmallMatricesLieSideBySide) {
  HostMemory memory;
  const auto* first = static_cast<std::byte*>(memory.allocate(300'000, "a test").value());
  const auto* second = static_cast<std::byte*>(memory.allocate(300'000, "a test").value());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % (std::size_t{2} << 20), 0u);
  EXPECT_GT(second, first);
  EXPECT_LT(second - first, 310'000);
}

TEST(HostMemoryTest, RefusesWhatCannotBeHad) {
  HostMemory memory;
  for (const std::size_t bytes : {~std::size_t{0}, std::size_t{1} << 60}) {
    const auto piece = memory.allocate(bytes, "the KV cache");
    ASSERT_EQ(piece.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(piece.status().message().find("the KV cache"), absl::string_view::npos);
  }
}

}  // namespace
}  // namespace quire
