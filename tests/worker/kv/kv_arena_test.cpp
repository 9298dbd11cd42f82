// Blocks that leave for host memory and come back, over all layers.
#include "worker/kv/kv_arena.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace quire {
namespace {

// Whole pages in [begin, begin + bytes) that have memory, as a share.
double resident_share(const std::byte* begin, std::size_t bytes) {
  constexpr std::uintptr_t kPage = 4096;
  const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(begin) + kPage - 1) / kPage;
  const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(begin) + bytes) / kPage;
  std::vector<unsigned char> resident(end - first);
  EXPECT_EQ(mincore(reinterpret_cast<void*>(first * kPage), (end - first) * kPage, resident.data()),
            0);
  const auto count = std::count_if(resident.begin(), resident.end(),
                                   [](unsigned char page) { return (page & 1) != 0; });
  return static_cast<double>(count) / static_cast<double>(resident.size());
}

TEST(KvArena, AnIdleHostDeviceGetsReadyWhatIsUsedNext) {
  DeviceOptions options;
  options.kind = "cpu";
  const auto device = open_device(options);
  ASSERT_TRUE(device.ok()) << device.status();
  const KvShape shape{DType::kF32, 4, 4, 64, 16};
  constexpr int kBlocks = 4096;  // of 128 KB: as much as is got ready at once
  auto arena = KvArena::create(shape, 2 * kBlocks, **device);
  ASSERT_TRUE(arena.ok()) << arena.status();
  const KvBlocks blocks = arena->blocks();
  const auto becomes_ready = [&](int begin, int end) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      if (resident_share(blocks.data + static_cast<std::size_t>(begin) * blocks.block_bytes,
                         static_cast<std::size_t>(end - begin) * blocks.block_bytes) == 1.0) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  };
  if (madvise(blocks.data, 4096, MADV_POPULATE_WRITE) != 0) {
    GTEST_SKIP() << "this system has no MADV_POPULATE_WRITE (Linux 5.14)";
  }
  EXPECT_TRUE(becomes_ready(0, kBlocks / 2));
  arena->reach(**device, kBlocks / 2);
  EXPECT_TRUE(becomes_ready(kBlocks, kBlocks + kBlocks / 2));
}

TEST(KvArena, SwappedBlocksComeBackWhole) {
  for (const char* kind : {"reference", "cpu"}) {
    DeviceOptions options;
    options.kind = kind;
    const auto device = open_device(options);
    ASSERT_TRUE(device.ok()) << device.status();
    const KvShape shape{DType::kF32, 3, 2, 32, 16};
    auto arena = KvArena::create(shape, 5, **device);
    ASSERT_TRUE(arena.ok()) << arena.status();
    const KvBlocks blocks = arena->blocks();
    const std::size_t bytes = kv_bytes_per_block(shape, (*device)->ops());
    EXPECT_EQ(bytes, blocks.block_bytes);
    const std::size_t all = 5 * bytes;
    for (std::size_t i = 0; i < all; ++i) blocks.data[i] = static_cast<std::byte>(i * 37 >> 3);
    const std::vector<std::byte> before(blocks.data, blocks.data + all);
    for (int l = 0; l < 3; ++l) {
      const KvLayer layer = arena->layer(l);
      EXPECT_EQ(layer.data, blocks.data + static_cast<std::size_t>(l) * (bytes / 3)) << kind;
      EXPECT_EQ(layer.block_bytes, bytes) << kind;
    }

    std::vector<std::byte> host(bytes);
    arena->swap_out(**device, 4, host.data());
    arena->swap_in(**device, host.data(), 1);
    ASSERT_TRUE((*device)->wait().ok());
    for (std::size_t b = 0; b < 5; ++b) {
      EXPECT_EQ(
          std::memcmp(blocks.data + b * bytes, before.data() + (b == 1 ? 4 : b) * bytes, bytes), 0)
          << kind << ", block " << b;
    }
  }
}

}  // namespace
}  // namespace quire
