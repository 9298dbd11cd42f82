// Which rows share leading blocks, on tables drawn from a tree of prefixes by seed.
#include "kernels/shared_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace quire {
namespace {

using testing::ElementsAre;

// Rows given as lists of block ids; each decodes one token in its last block.
class Tables {
 public:
  Tables(int block_size, const std::vector<std::vector<BlockId>>& rows) {
    for (const auto& row : rows) width_ = std::max(width_, static_cast<int>(row.size()));
    for (const auto& row : rows) {
      tables_.insert(tables_.end(), row.begin(), row.end());
      tables_.resize(tables_.size() + static_cast<std::size_t>(width_) - row.size(), -1000);
      begin_.push_back(begin_.back() + 1);
      context_.push_back(static_cast<int>(row.size()) * block_size);
    }
    batch.num_rows = static_cast<int>(rows.size());
    batch.block_size = block_size;
    batch.max_blocks = width_;
    batch.row_begin = begin_.data();
    batch.context = context_.data();
    batch.block_tables = tables_.data();
  }
  int context(int row) const { return context_[static_cast<std::size_t>(row)]; }
  BlockId at(int row, int block) const {
    return tables_[static_cast<std::size_t>(row * width_ + block)];
  }
  void grant(int row, int tokens) {
    for (std::size_t r = static_cast<std::size_t>(row) + 1; r < begin_.size(); ++r) {
      begin_[r] += tokens - 1;
    }
  }
  Batch batch;

 private:
  int width_ = 0;
  std::vector<std::int32_t> begin_ = {0}, context_;
  std::vector<BlockId> tables_;
};

// Blocks [first, first + count).
std::vector<BlockId> blocks(int first, int count) {
  std::vector<BlockId> ids;
  for (int i = 0; i < count; ++i) ids.push_back(first + i);
  return ids;
}
std::vector<BlockId> operator+(std::vector<BlockId> a, const std::vector<BlockId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(SharedRuns, NestsRunsAndLeavesTheRestAlone) {
  // Blocks of 64: four a split. Rows 0, 2 and 4 share two splits, 0 and 4 two more.
  const auto system = blocks(100, 8);
  const auto talk = blocks(200, 9);
  Tables tables(64, {system + talk + blocks(1, 1), blocks(300, 9), system + blocks(400, 3),
                     blocks(500, 4), system + talk + blocks(10, 5)});
  SharedRuns shared;
  shared.find(tables.batch);
  ASSERT_EQ(shared.count(), 2);
  EXPECT_THAT(shared.runs(), ElementsAre(testing::_, 3, 0, 512, testing::_, 2, 512, 1024));
  EXPECT_THAT(shared.of_row(), ElementsAre(1024, 0, 512, 0, 1024));
  const int first = shared.runs()[4];
  EXPECT_THAT(std::vector<int>(shared.rows().begin() + first, shared.rows().begin() + first + 2),
              testing::UnorderedElementsAre(0, 4));
}

TEST(SharedRuns, RowsOfSeveralTokensTakeNoPart) {
  const auto same = blocks(100, 16);
  Tables tables(16, {same + blocks(1, 1), same + blocks(2, 1), same + blocks(3, 1)});
  tables.grant(1, 3);
  SharedRuns shared;
  shared.find(tables.batch);
  EXPECT_THAT(shared.of_row(), ElementsAre(256, 0, 256));
  tables.grant(0, 2);
  shared.find(tables.batch);
  EXPECT_EQ(shared.count(), 0);
}

TEST(SharedRuns, ATokensOwnSplitIsNotShared) {
  // The last token of a context of 256 lies within the split: it is not before the token.
  Tables tables(16, {blocks(100, 16), blocks(100, 16)});
  SharedRuns shared;
  shared.find(tables.batch);
  EXPECT_EQ(shared.count(), 0);
}

TEST(SharedRuns, ADifferenceInsideASplitIsSeen) {
  auto other = blocks(100, 16);
  other[3] = 7;
  Tables tables(16, {blocks(100, 17), other + blocks(1, 1)});
  SharedRuns shared;
  shared.find(tables.batch);
  EXPECT_EQ(shared.count(), 0);
}

// Random trees: every pair of rows is in a common run for exactly the splits that it shares.
TEST(SharedRuns, CoverAllThatIsShared) {
  int runs = 0;
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const auto below = [&](std::uint32_t n) { return static_cast<int>(random() % n); };
    int next = 1;
    std::vector<std::vector<BlockId>> rows;
    for (int r = 0; r < 2 + below(30); ++r) {
      std::vector<BlockId> row;
      if (!rows.empty() && below(4) > 0) {
        const auto& from = rows[random() % rows.size()];
        row.assign(from.begin(), from.begin() + below(static_cast<std::uint32_t>(from.size())));
      }
      const int more = 1 + below(30);
      row = row + blocks(next, more);
      next += more;
      rows.push_back(row);
    }
    const Tables tables(32, rows);
    SharedRuns shared;
    shared.find(tables.batch);
    std::map<std::pair<int, int>, std::set<int>> together;  // rows -> splits
    for (int run = 0; run < shared.count(); ++run) {
      const std::int32_t* r = shared.runs().data() + 4 * run;
      for (int i = r[0]; i < r[0] + r[1]; ++i) {
        for (int j = r[0]; j < i; ++j) {
          const int a = shared.rows()[static_cast<std::size_t>(i)];
          const int b = shared.rows()[static_cast<std::size_t>(j)];
          for (int s = r[2] / 256; s < r[3] / 256; ++s) {
            EXPECT_TRUE(together[std::minmax(a, b)].insert(s).second);
          }
        }
      }
    }
    const int count = static_cast<int>(rows.size());
    EXPECT_LT(shared.count(), count);
    runs += shared.count();
    for (int a = 0; a < count; ++a) {
      int most = 0;
      for (int b = 0; b < count; ++b) {
        if (a == b) continue;
        int common = 0;
        const int whole = (std::min(tables.context(a), tables.context(b)) - 1) / 256 * 8;
        while (common < whole && tables.at(a, common) == tables.at(b, common)) ++common;
        std::set<int> expected;
        for (int s = 0; s < common / 8; ++s) expected.insert(s);
        EXPECT_EQ(together[std::minmax(a, b)], expected) << a << " and " << b;
        most = std::max(most, common / 8 * 256);
      }
      EXPECT_EQ(shared.of_row()[static_cast<std::size_t>(a)], most) << a;
    }
  }
  EXPECT_GT(runs, 20);
}

}  // namespace
}  // namespace quire
