#include "coordinator/cache/kv_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/cache/tokens.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class KvManagerTest : public testing::Test {
 protected:
  void SetUp() override { kv.reset(/*num_blocks=*/8, /*num_host_blocks=*/0); }

  // As a sequence that computes all of `tokens` does.
  BlockTable compute(const std::vector<TokenId>& tokens, const char* scope = kScope,
                     int priority = 0) {
    BlockTable table;
    const auto count = static_cast<int>(tokens.size());
    EXPECT_TRUE(kv.reserve(0, count, &table));
    kv.offer(scope, tokens, count, priority, &table);
    return table;
  }
  PrefixHit match(const std::vector<TokenId>& tokens, const char* scope = kScope) {
    return kv.match(scope, tokens, static_cast<int>(tokens.size()) - 1, true);
  }
  void verify(std::vector<const BlockTable*> tables) {
    const absl::Status status = kv.verify(tables);
    EXPECT_TRUE(status.ok()) << status;
  }

  KvManager kv{{.block_size = 4, .prefix_caching = true, .hash_key = 99}};
};

TEST_F(KvManagerTest, CoversWhatIsAskedForAndNoMore) {
  BlockTable table;
  ASSERT_TRUE(kv.reserve(0, 5, &table));
  EXPECT_EQ(table.num_blocks(), 2);
  ASSERT_TRUE(kv.reserve(5, 8, &table));
  EXPECT_EQ(table.num_blocks(), 2);
  ASSERT_TRUE(kv.reserve(8, 9, &table));
  EXPECT_EQ(table.num_blocks(), 3);
  EXPECT_EQ(kv.num_used(), 3);
  verify({&table});
  kv.release(&table);
  EXPECT_EQ(kv.num_used(), 0);
  verify({});
}

TEST_F(KvManagerTest, NoRoomChangesNothing) {
  BlockTable first, second;
  ASSERT_TRUE(kv.reserve(0, 28, &first));
  EXPECT_FALSE(kv.reserve(0, 8, &second));
  EXPECT_EQ(second.num_blocks(), 0);
  EXPECT_EQ(kv.num_available(), 1);
  verify({&first, &second});
}

TEST_F(KvManagerTest, AForkSharesEverythingUntilOneWrites) {
  BlockTable parent, child;
  ASSERT_TRUE(kv.reserve(0, 6, &parent));
  kv.fork(&parent, &child);
  EXPECT_EQ(kv.num_used(), 2);
  EXPECT_EQ(kv.missing_blocks(6, 7, child), 1);
  const BlockId shared = child.blocks[1];
  ASSERT_TRUE(kv.reserve(6, 7, &child));  // writes into the partly filled block: copies it
  EXPECT_NE(child.blocks[1], shared);
  EXPECT_EQ(child.blocks[0], parent.blocks[0]);
  EXPECT_EQ(kv.num_used(), 3);
  ASSERT_TRUE(kv.reserve(6, 7, &parent));  // the last one writes in place
  EXPECT_EQ(parent.blocks[1], shared);
  verify({&parent, &child});
  const BlockMoves moves = kv.take_moves();
  EXPECT_THAT(moves.copies, ElementsAre(BlockCopy{0, shared, child.blocks[1]}));
  EXPECT_EQ(kv.num_used(), 3);
  verify({&parent, &child});
}

TEST_F(KvManagerTest, AForkAtABlocksEndCopiesNothing) {
  BlockTable parent, child;
  ASSERT_TRUE(kv.reserve(0, 8, &parent));
  kv.fork(&parent, &child);
  ASSERT_TRUE(kv.reserve(8, 9, &child));
  ASSERT_TRUE(kv.reserve(8, 9, &parent));
  EXPECT_THAT(kv.take_moves().copies, IsEmpty());
  EXPECT_EQ(kv.num_used(), 4);
}

// Its source stays until the workers have been told, though nobody else holds it any more.
TEST_F(KvManagerTest, TheSourceOfACopyIsNotUsedAgainInTheSamePlan) {
  BlockTable parent, child, other;
  ASSERT_TRUE(kv.reserve(0, 2, &parent));
  kv.fork(&parent, &child);
  const BlockId source = parent.blocks[0];
  ASSERT_TRUE(kv.reserve(2, 3, &child));
  kv.release(&parent);
  ASSERT_TRUE(kv.reserve(0, 24, &other));
  EXPECT_THAT(other.blocks, testing::Not(testing::Contains(source)));
  EXPECT_EQ(kv.num_available(), 0);
  kv.take_moves();
  EXPECT_EQ(kv.num_available(), 1);
  verify({&child, &other});
}

TEST_F(KvManagerTest, FullBlocksAreFoundAgain) {
  BlockTable first = compute(counting(0, 10));
  kv.release(&first);
  EXPECT_EQ(kv.num_used(), 0);
  EXPECT_EQ(kv.num_cached(), 2);
  const PrefixHit hit = match(counting(0, 10));
  EXPECT_EQ(hit.num_tokens, 8);
  EXPECT_THAT(hit.nodes, SizeIs(2));
  BlockTable second;
  kv.attach(hit, 0, &second);
  EXPECT_EQ(second.num_blocks(), 2);
  EXPECT_EQ(kv.num_cached(), 0);
  verify({&second});
}

TEST_F(KvManagerTest, TheLastTokenIsNeverFound) {
  BlockTable first = compute(counting(0, 8));
  const PrefixHit hit = match(counting(0, 8));
  EXPECT_THAT(hit.nodes, SizeIs(1));
  EXPECT_EQ(hit.num_tokens, 7);  // three of the second block, to be copied
  kv.release(&first);
}

TEST_F(KvManagerTest, NothingIsFoundUnderAnotherScope) {
  BlockTable first = compute(counting(0, 8));
  EXPECT_EQ(match(counting(0, 12), "someone else").num_tokens, 0);
  EXPECT_EQ(match(counting(0, 12)).num_tokens, 8);
  kv.release(&first);
}

TEST_F(KvManagerTest, OtherTokensBeforeMakeAnotherBlock) {
  BlockTable first = compute(counting(0, 8));
  std::vector<TokenId> other = counting(0, 12);
  other[0] = 77;
  EXPECT_EQ(match(other).num_tokens, 0);
  kv.release(&first);
}

TEST_F(KvManagerTest, PartOfABlockIsCopied) {
  BlockTable first = compute(counting(0, 8));
  std::vector<TokenId> other = counting(0, 12);
  other[7] = 77;
  const PrefixHit hit = match(other);
  EXPECT_EQ(hit.num_tokens, 7);
  BlockTable second;
  kv.attach(hit, 0, &second);
  EXPECT_EQ(second.blocks[0], first.blocks[0]);
  EXPECT_NE(second.blocks[1], first.blocks[1]);
  verify({&first, &second});
  EXPECT_THAT(kv.take_moves().copies, ElementsAre(BlockCopy{0, first.blocks[1], second.blocks[1]}));
  verify({&first, &second});
  kv.release(&first);
  kv.release(&second);
}

TEST_F(KvManagerTest, EqualContentEndsUpInOneBlock) {
  BlockTable first, second;
  const std::vector<TokenId> tokens = counting(0, 8);
  ASSERT_TRUE(kv.reserve(0, 8, &first));
  ASSERT_TRUE(kv.reserve(0, 8, &second));
  for (BlockTable* table : {&first, &second}) table->num_right = table->num_sent = 2;
  EXPECT_EQ(kv.num_used(), 4);
  kv.offer(kScope, tokens, 8, 0, &first);
  kv.offer(kScope, tokens, 8, 0, &second);
  EXPECT_EQ(kv.num_used(), 2);
  EXPECT_EQ(first.blocks, second.blocks);
  EXPECT_EQ(second.num_right, 0);  // the workers must hear of it
  EXPECT_EQ(second.num_sent, 2);
  verify({&first, &second});
  kv.release(&first);
  verify({&second});
}

TEST_F(KvManagerTest, TheLeafThatWasLeftFirstGoesFirst) {
  BlockTable a = compute(counting(0, 8));
  BlockTable b = compute(counting(100, 8));
  kv.release(&a);
  kv.release(&b);
  BlockTable big;
  ASSERT_TRUE(kv.reserve(0, 20, &big));  // takes four free blocks and one cached
  EXPECT_EQ(match(counting(0, 12)).num_tokens, 4);
  EXPECT_EQ(match(counting(100, 12)).num_tokens, 8);
  ASSERT_TRUE(kv.reserve(20, 24, &big));
  EXPECT_EQ(match(counting(0, 12)).num_tokens, 0);
  EXPECT_EQ(match(counting(100, 12)).num_tokens, 8);
  verify({&big});
}

TEST_F(KvManagerTest, WhatIsImportantStaysLonger) {
  BlockTable important = compute(counting(0, 4), kScope, /*priority=*/-1);
  BlockTable other = compute(counting(100, 4), kScope, /*priority=*/0);
  kv.release(&important);
  kv.release(&other);
  BlockTable big;
  ASSERT_TRUE(kv.reserve(0, 28, &big));
  EXPECT_EQ(match(counting(0, 8)).num_tokens, 4);
  EXPECT_EQ(match(counting(100, 8)).num_tokens, 0);
}

TEST_F(KvManagerTest, WithoutACacheNothingIsKept) {
  KvManager plain({.block_size = 4, .prefix_caching = false, .hash_key = 0});
  plain.reset(8, 4);
  const std::vector<TokenId> tokens = counting(0, 8);
  BlockTable table;
  ASSERT_TRUE(plain.reserve(0, 8, &table));
  plain.offer(kScope, tokens, 8, 0, &table);
  plain.release(&table);
  EXPECT_EQ(plain.num_cached(), 0);
  EXPECT_EQ(plain.match(kScope, tokens, 7, true).num_tokens, 0);
}

}  // namespace
}  // namespace quire
