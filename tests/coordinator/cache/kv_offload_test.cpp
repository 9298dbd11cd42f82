#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/cache/kv_manager.h"
#include "tests/coordinator/cache/tokens.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class KvOffloadTest : public testing::Test {
 protected:
  void SetUp() override { kv.reset(/*num_blocks=*/4, /*num_host_blocks=*/3); }

  void use(const std::vector<TokenId>& tokens) {
    BlockTable table;
    const auto count = static_cast<int>(tokens.size());
    ASSERT_TRUE(kv.reserve(0, count, &table));
    kv.offer(kScope, tokens, count, 0, &table);
    kv.release(&table);
  }
  int found(const std::vector<TokenId>& tokens, bool from_host = true) {
    return kv.match(kScope, tokens, static_cast<int>(tokens.size()) - 1, from_host).num_tokens;
  }
  void verify() {
    const absl::Status status = kv.verify({});
    EXPECT_TRUE(status.ok()) << status;
  }

  KvManager kv{{.block_size = 4, .prefix_caching = true, .hash_key = 5}};
};

TEST_F(KvOffloadTest, WhatIsEvictedIsSavedAndComesBack) {
  use(counting(0, 8));
  kv.take_moves();
  use(counting(100, 16));  // needs all four blocks
  EXPECT_THAT(kv.take_moves().saves, SizeIs(2));
  verify();
  EXPECT_EQ(found(counting(0, 9)), 8);
  EXPECT_EQ(found(counting(0, 9), /*from_host=*/false), 0);
  const PrefixHit hit = kv.match(kScope, counting(0, 9), 8, true);
  EXPECT_EQ(hit.num_loads, 2);
  BlockTable table;
  kv.attach(hit, 0, &table);
  const BlockMoves moves = kv.take_moves();
  EXPECT_THAT(moves.loads, SizeIs(2));
  EXPECT_EQ(moves.loads[0].block, table.blocks[0]);
  EXPECT_THAT(moves.saves, SizeIs(1));  // one place was left, two blocks had to go
  kv.release(&table);
  verify();
}

TEST_F(KvOffloadTest, ABlockThatWasLoadedIsNotSavedAgain) {
  use(counting(0, 4));
  BlockTable big;
  ASSERT_TRUE(kv.reserve(0, 16, &big));
  EXPECT_THAT(kv.take_moves().saves, SizeIs(1));
  kv.release(&big);
  BlockTable table;
  kv.attach(kv.match(kScope, counting(0, 5), 4, true), 0, &table);
  EXPECT_THAT(kv.take_moves().loads, SizeIs(1));
  kv.release(&table);
  ASSERT_TRUE(kv.reserve(0, 16, &big));
  EXPECT_THAT(kv.take_moves().saves, IsEmpty());
  EXPECT_EQ(found(counting(0, 5)), 4);
  kv.release(&big);
  verify();
}

TEST_F(KvOffloadTest, AFullStoreDropsWhatIsOldest) {
  for (int i = 0; i < 6; ++i) {
    use(counting(1000 * i, 16));
    kv.take_moves();
    verify();
  }
  EXPECT_EQ(found(counting(0, 16)), 0);
  EXPECT_GT(found(counting(4000, 17)), 0);
}

TEST_F(KvOffloadTest, WhatNobodyAskedForTwiceMayBeDropped) {
  kv.set_saving_all(false);
  use(counting(0, 4));
  use(counting(100, 4));
  BlockTable table;
  kv.attach(kv.match(kScope, counting(0, 5), 4, true), 0, &table);
  kv.release(&table);
  use(counting(200, 16));
  EXPECT_THAT(kv.take_moves().saves, SizeIs(1));
  EXPECT_EQ(found(counting(0, 5)), 4);
  EXPECT_EQ(found(counting(100, 5)), 0);
  verify();
}

TEST_F(KvOffloadTest, WhatComesBackIsSaved) {
  kv.set_saving_all(false);
  BlockTable table;
  ASSERT_TRUE(kv.reserve(0, 8, &table));
  kv.offer(kScope, counting(0, 8), 8, 0, &table);
  kv.keep(table);
  kv.release(&table);
  use(counting(200, 16));
  EXPECT_THAT(kv.take_moves().saves, SizeIs(2));
  verify();
}

TEST_F(KvOffloadTest, ALaterLifeFindsWhatWasSaved) {
  use(counting(0, 8));
  use(counting(100, 4));
  kv.begin_saving_all();
  kv.save_some(2);
  EXPECT_THAT(kv.take_moves().saves, SizeIs(2));
  kv.save_some(5);
  EXPECT_THAT(kv.take_moves().saves, SizeIs(1));
  kv.save_some(5);
  EXPECT_THAT(kv.take_moves().saves, IsEmpty());
  const std::string index = kv.stored_index();

  KvManager later({.block_size = 4, .prefix_caching = true, .hash_key = 6});
  later.reset(4, 3);
  ASSERT_TRUE(later.restore(index).ok());
  const PrefixHit hit = later.match(kScope, counting(0, 9), 8, true);
  EXPECT_EQ(hit.num_tokens, 8);
  EXPECT_EQ(hit.num_loads, 2);
  EXPECT_EQ(later.match("another", counting(0, 9), 8, true).num_tokens, 0);
  EXPECT_TRUE(later.verify({}).ok());
}

TEST_F(KvOffloadTest, TheLatestIsSavedWhereNotAllHasRoom) {
  use(counting(0, 4));
  use(counting(100, 12));
  kv.begin_saving_all();
  kv.save_some(100);
  kv.take_moves();
  const std::string index = kv.stored_index();
  KvManager later({.block_size = 4, .prefix_caching = true, .hash_key = 6});
  later.reset(4, 3);
  ASSERT_TRUE(later.restore(index).ok());
  EXPECT_EQ(later.match(kScope, counting(100, 13), 12, true).num_tokens, 12);
  EXPECT_EQ(later.match(kScope, counting(0, 5), 4, true).num_tokens, 0);
}

TEST_F(KvOffloadTest, SpoiledBytesAreRefused) {
  use(counting(0, 8));
  kv.begin_saving_all();
  kv.save_some(10);
  kv.take_moves();
  const std::string index = kv.stored_index();
  for (std::size_t i = 0; i < index.size(); ++i) {
    std::string spoiled = index;
    spoiled[i] = static_cast<char>(spoiled[i] ^ 1);
    KvManager later({.block_size = 4, .prefix_caching = true, .hash_key = 6});
    later.reset(4, 3);
    EXPECT_FALSE(later.restore(spoiled).ok()) << "byte " << i;
  }
  for (std::size_t size = 0; size < index.size(); ++size) {
    KvManager later({.block_size = 4, .prefix_caching = true, .hash_key = 6});
    later.reset(4, 3);
    EXPECT_FALSE(later.restore(index.substr(0, size)).ok()) << size << " bytes";
  }
  KvManager smaller({.block_size = 4, .prefix_caching = true, .hash_key = 6});
  smaller.reset(4, 2);
  EXPECT_FALSE(smaller.restore(index).ok());
}

}  // namespace
}  // namespace quire
