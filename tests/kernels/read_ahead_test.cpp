// What products fetch for the attention after them: each block that a thread's rows will read,
// once, in the order of reading, and no more than can be fetched beside the arithmetic.
#include "kernels/cpu/read_ahead.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
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
    for (std::size_t i = 0; i <= positions.size(); ++i) {
      begins.push_back(static_cast<std::int32_t>(i));
    }
    batch.most_tokens = 1;
    batch.positions = positions.data();
    batch.row_begin = begins.data();
    batch.block_tables = tables.data();
  }
  const std::byte* block(int row, int index) const {
    return kv.data +
           static_cast<std::size_t>(tables[static_cast<std::size_t>(row * kWidth + index)]) *
               kv.block_bytes;
  }

  std::vector<std::int32_t> positions, begins;
  std::vector<BlockId> tables;
  Batch batch;
  std::array<std::byte, 1> arena{};  // only addresses are asked for
  KvLayer kv{arena.data(), 1 << 20, DType::kBf16, 3, 64, 16};
};

// All parts of `ahead` for these tokens, one after the other.
std::vector<const std::byte*> all_of(const ReadAhead& ahead, Range tokens,
                                     std::size_t most_bytes = std::size_t{1} << 30) {
  std::vector<const std::byte*> all;
  const std::size_t ends[] = {0, 7, 7, 60, 100};
  for (int part = 0; part < 4; ++part) {
    for (const std::byte* piece :
         ahead.pieces(tokens, ends[part], ends[part + 1], 100, most_bytes)) {
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

// Of five tokens in two sequences.
TEST(ReadAheadTest, ASequenceOfSeveralTokensIsReadOnce) {
  Rows r;
  r.positions = {14, 15, 16, 38, 39};
  r.begins = {0, 3, 5};
  r.batch.num_rows = 2;
  r.batch.positions = r.positions.data();
  const ReadAhead ahead(r.batch, r.kv, 0);
  EXPECT_EQ(all_of(ahead, {0, 3}), (std::vector{r.block(0, 0), r.block(0, 1)}));
  EXPECT_EQ(all_of(ahead, {3, 5}), (std::vector{r.block(1, 0), r.block(1, 1), r.block(1, 2)}));
  const ReadAhead last(r.batch, r.kv, 8);  // the first token of each sees most: 7 and 31
  EXPECT_EQ(all_of(last, {0, 5}),
            (std::vector{r.block(0, 0), r.block(0, 1), r.block(1, 1), r.block(1, 2)}));
}

TEST(ReadAheadTest, NoMoreThanItMay) {
  const Rows r;
  const ReadAhead ahead(r.batch, r.kv, 0);
  const std::vector<const std::byte*> all = all_of(ahead, {3, 4}, 16 * ahead.piece_bytes() + 1);
  ASSERT_EQ(all.size(), 16u);
  EXPECT_EQ(all.back(), r.block(3, 15));
}

// Products take parts by their weights, and fetch a byte in ten multiply-adds, 4 MB at most.
TEST(ReadAheadTest, ProductsShareTheWork) {
  const Rows r;
  const auto work = std::make_shared<AheadWork>();
  Weight weight;
  weight.rows = 1000;
  weight.columns = 240;
  const AheadPart first = take_part(work, weight);
  weight.rows = 3000;
  const AheadPart second = take_part(work, weight);
  const auto pieces = [&](const AheadPart& part, int rows) {
    return part.pieces(static_cast<int>(r.positions.size()), {3, 4}, rows).size();
  };
  EXPECT_EQ(pieces(first, 100), 0u);  // for no attention of this kind
  EXPECT_EQ(first.piece_bytes(), 0u);
  EXPECT_EQ(AheadPart().pieces(5, {3, 4}, 100).size(), 0u);
  work->read.emplace(r.batch, r.kv, 0);
  EXPECT_EQ(first.piece_bytes(), 12288u);
  EXPECT_EQ(pieces(first, 100), 17u);  // of the 69 that the row has
  EXPECT_EQ(pieces(second, 100), 52u);
  EXPECT_EQ(pieces(first, 5) + pieces(second, 5), 39u);  // 5 * 960,000 / 10 bytes
  EXPECT_EQ(first.pieces(7, {3, 4}, 100).size(), 0u);    // another batch
}

}  // namespace
}  // namespace quire::cpu
