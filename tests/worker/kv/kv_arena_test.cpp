// Blocks that leave for host memory and come back, over all layers.
#include "worker/kv/kv_arena.h"

#include <gtest/gtest.h>

#include <cstring>

namespace quire {
namespace {

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
    EXPECT_EQ(bytes, 3 * blocks.block_bytes);
    const std::size_t all = 3 * blocks.layer_bytes;
    for (std::size_t i = 0; i < all; ++i) blocks.data[i] = static_cast<std::byte>(i * 37 >> 3);
    const std::vector<std::byte> before(blocks.data, blocks.data + all);

    std::vector<std::byte> host(bytes);
    arena->swap_out(**device, 4, host.data());
    arena->swap_in(**device, host.data(), 1);
    ASSERT_TRUE((*device)->wait().ok());
    for (int l = 0; l < 3; ++l) {
      const std::byte* layer = before.data() + static_cast<std::size_t>(l) * blocks.layer_bytes;
      for (std::size_t b = 0; b < 5; ++b) {
        const std::byte* want = layer + (b == 1 ? 4 : b) * blocks.block_bytes;
        const std::byte* got = arena->layer(l).data + b * blocks.block_bytes;
        EXPECT_EQ(std::memcmp(got, want, blocks.block_bytes), 0) << kind << ", block " << b;
      }
    }
  }
}

}  // namespace
}  // namespace quire
