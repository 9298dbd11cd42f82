#include "coordinator/cache/block_pool.h"

#include <gtest/gtest.h>

#include <set>

namespace quire {
namespace {

TEST(BlockPool, HandsOutEveryBlockOnce) {
  BlockPool pool;
  pool.reset(5);
  std::set<BlockId> seen;
  for (int i = 0; i < 5; ++i) seen.insert(pool.allocate());
  EXPECT_EQ(seen, (std::set<BlockId>{0, 1, 2, 3, 4}));
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_EQ(pool.num_used(), 5);
  EXPECT_TRUE(pool.verify().ok());
}

TEST(BlockPool, FreesWithTheLastReference) {
  BlockPool pool;
  pool.reset(2);
  const BlockId block = pool.allocate();
  pool.add_ref(block);
  pool.release(block);
  EXPECT_EQ(pool.refs(block), 1);
  EXPECT_EQ(pool.num_free(), 1);
  pool.release(block);
  EXPECT_EQ(pool.refs(block), 0);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_TRUE(pool.verify().ok());
}

TEST(BlockPool, ResetForgetsEverything) {
  BlockPool pool;
  pool.reset(3);
  pool.allocate();
  pool.reset(7);
  EXPECT_EQ(pool.num_total(), 7);
  EXPECT_EQ(pool.num_free(), 7);
  EXPECT_TRUE(pool.verify().ok());
}

TEST(BlockPoolDeathTest, MisuseIsCaught) {
  BlockPool pool;
  pool.reset(1);
  EXPECT_DEATH(pool.release(0), "CHECK failed");
  EXPECT_DEATH(pool.refs(1), "1 vs 1");
  pool.allocate();
  EXPECT_DEATH(pool.allocate(), "CHECK failed");
}

}  // namespace
}  // namespace quire
