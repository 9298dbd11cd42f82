// What products fetch for the attention after them: each block that a thread's rows will read,
// once, in the order of reading, and no more than a thread's share of the cache holds.
#include "kernels/cpu/read_ahead.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace quire::cpu {
namespace {

constexpr int kWidth = 70;  // blocks in a row's table

struct Rows {
  Rows() {
    for (const std::int32_t position : {0, 40, 15, 1100, 16}) positions.push_back(position);
    for (std::size_t i = 0; i < positions.size() * kWidth; ++i) {
      tables.push_back(static_cast<BlockId>((i * 37) % 350));
    }
    batch.num_tokens = batch.num_rows = static_cast<int>(positions.size());
    batch.max_blocks = kWidth;
    batch.decodes = true;
    batch.positions = positions.data();
    batch.block_tables = tables.data();
  }
  const std::byte* block(int row, int index) const {
    return kv.data +
           static_cast<std::size_t>(tables[static_cast<std::size_t>(row * kWidth + index)]) *
               kv.block_bytes;
  }

  std::vector<std::int32_t> positions;
  std::vector<BlockId> tables;
  Batch batch;
  std::array<std::byte, 1> arena{};  // only addresses are asked for
  KvLayer kv{arena.data(), 1 << 20, DType::kBf16, 3, 64, 16};
};

// All parts of `ahead` for these rows, one after the other.
std::vector<const std::byte*> all_of(const ReadAhead& ahead, Range rows) {
  std::vector<const std::byte*> all;
  const std::size_t ends[] = {0, 7, 7, 60, 100};
  for (int part = 0; part < 4; ++part) {
    for (const std::byte* piece : ahead.pieces(rows, ends[part], ends[part + 1], 100)) {
      all.push_back(piece);
    }
  }
  return all;
}

TEST(ReadAheadTest, PartsAreTheBlocksOfTheRowsInOrder) {
  const Rows r;
  const ReadAhead ahead(r.batch, r.kv, 0);
  EXPECT_EQ(ahead.piece_bytes(), 3u * 2 * 64 * 2 * 16);
  std::vector<const std::byte*> expected = {r.block(1, 0), r.block(1, 1), r.block(1, 2),
                                            r.block(2, 0)};
  EXPECT_EQ(all_of(ahead, {1, 3}), expected);
  EXPECT_EQ(all_of(ahead, {4, 5}), (std::vector{r.block(4, 0), r.block(4, 1)}));
  EXPECT_TRUE(all_of(ahead, {2, 2}).empty());
}

TEST(ReadAheadTest, BlocksBeforeAWindowAreNotRead) {
  const Rows r;
  const ReadAhead ahead(r.batch, r.kv, 20);  // position 1100 sees 1081 and later
  EXPECT_EQ(all_of(ahead, {3, 4}), (std::vector{r.block(3, 67), r.block(3, 68)}));
}

TEST(ReadAheadTest, NoMoreThanThreeMegabytes) {
  Rows r;
  r.kv.head_dim = 1024;  // 196,608 bytes a block
  const ReadAhead ahead(r.batch, r.kv, 0);
  const std::vector<const std::byte*> all = all_of(ahead, {3, 4});
  ASSERT_EQ(all.size(), 16u);
  EXPECT_EQ(all.back(), r.block(3, 15));
}

}  // namespace
}  // namespace quire::cpu
