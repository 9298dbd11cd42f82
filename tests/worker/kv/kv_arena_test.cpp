// Blocks that leave for host memory and come back, over all layers.
#include "worker/kv/kv_arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tests/resident_pages.h"

namespace quire {
namespace {

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
    return test::becomes_resident(
        blocks.data + static_cast<std::size_t>(begin) * blocks.block_bytes,
        static_cast<std::size_t>(end - begin) * blocks.block_bytes);
  };
  QUIRE_SKIP_WITHOUT_TOUCHING(blocks.data);
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
