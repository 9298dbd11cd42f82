#include "coordinator/cache/kv_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TEST(KvManager, ReportsOnlyNewBlocks) {
  KvManager kv(/*num_groups=*/1, /*block_size=*/4);
  kv.reset(8);
  BlockTables tables;
  BlockLists fresh;
  ASSERT_TRUE(kv.reserve(5, &tables, &fresh));
  EXPECT_THAT(fresh, ElementsAre(SizeIs(2)));
  ASSERT_TRUE(kv.reserve(8, &tables, &fresh));
  EXPECT_THAT(fresh, ElementsAre(IsEmpty()));
  ASSERT_TRUE(kv.reserve(9, &tables, &fresh));
  EXPECT_THAT(fresh, ElementsAre(SizeIs(1)));
  EXPECT_EQ(tables.blocks[0].back(), fresh[0][0]);
  EXPECT_EQ(kv.num_used(), 3);
  EXPECT_TRUE(kv.verify({&tables}).ok());
  kv.release(&tables);
  EXPECT_EQ(kv.num_used(), 0);
  EXPECT_EQ(tables.num_blocks(), 0);
}

TEST(KvManager, NoRoomChangesNothing) {
  KvManager kv(1, 4);
  kv.reset(3);
  BlockTables first, second;
  BlockLists fresh;
  ASSERT_TRUE(kv.reserve(8, &first, &fresh));
  EXPECT_FALSE(kv.reserve(8, &second, &fresh));
  EXPECT_EQ(second.num_blocks(), 0);
  EXPECT_EQ(kv.num_free(), 1);
  EXPECT_EQ(kv.reachable_tokens(first), 12);
  EXPECT_EQ(kv.reachable_tokens(second), 4);
  EXPECT_TRUE(kv.verify({&first, &second}).ok());
}

TEST(KvManager, EveryGroupHasItsOwnTable) {
  KvManager kv(/*num_groups=*/2, 4);
  kv.reset(5);
  BlockTables tables;
  BlockLists fresh;
  ASSERT_TRUE(kv.reserve(7, &tables, &fresh));
  EXPECT_THAT(fresh, ElementsAre(SizeIs(2), SizeIs(2)));
  EXPECT_EQ(kv.num_free(), 1);
  EXPECT_EQ(kv.reachable_tokens(tables), 8) << "one free block is of no use to two groups";
  EXPECT_FALSE(kv.reserve(9, &tables, &fresh));
  EXPECT_TRUE(kv.verify({&tables}).ok());
}

TEST(KvManager, VerifySeesLostAndForeignBlocks) {
  KvManager kv(1, 4);
  kv.reset(4);
  BlockTables tables;
  BlockLists fresh;
  ASSERT_TRUE(kv.reserve(8, &tables, &fresh));
  EXPECT_FALSE(kv.verify({}).ok()) << "a table is missing";
  BlockTables forged = tables;
  EXPECT_FALSE(kv.verify({&tables, &forged}).ok()) << "a block is in two tables";
  forged.blocks[0] = {99};
  EXPECT_FALSE(kv.verify({&forged}).ok());
}

}  // namespace
}  // namespace quire
