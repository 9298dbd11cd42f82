#include "coordinator/cache/block_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(BlockPool, EveryBlockIsFreeUsedOrCached) {
  BlockPool pool;
  pool.reset(4);
  const BlockId a = pool.allocate();
  const BlockId b = pool.allocate();
  EXPECT_NE(a, b);
  EXPECT_EQ(pool.num_used(), 2);
  EXPECT_EQ(pool.release(a), 0);
  EXPECT_EQ(pool.num_used(), 1);
  EXPECT_EQ(pool.num_cached(), 1);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_TRUE(pool.verify().ok());
  pool.free(a);
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_TRUE(pool.verify().ok());
}

TEST(BlockPool, TheBlockFreedLastIsUsedFirst) {
  BlockPool pool;
  pool.reset(4);
  const BlockId a = pool.allocate();
  pool.allocate();
  pool.release(a);
  pool.free(a);
  EXPECT_EQ(pool.allocate(), a);
}

TEST(BlockPool, ACachedBlockComesBackWithAReference) {
  BlockPool pool;
  pool.reset(1);
  const BlockId a = pool.allocate();
  pool.release(a);
  EXPECT_EQ(pool.refs(a), 0);
  pool.add_ref(a);
  EXPECT_EQ(pool.refs(a), 1);
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_EQ(pool.num_used(), 1);
}

TEST(BlockPool, AReferenceKeepsABlockUsed) {
  BlockPool pool;
  pool.reset(2);
  const BlockId a = pool.allocate();
  pool.add_ref(a);
  EXPECT_EQ(pool.release(a), 1);
  EXPECT_EQ(pool.num_used(), 1);
  EXPECT_EQ(pool.release(a), 0);
  EXPECT_EQ(pool.num_used(), 0);
}

TEST(BlockPoolDeathTest, MisuseIsNoticed) {
  BlockPool pool;
  pool.reset(1);
  EXPECT_DEATH(pool.release(0), "");
  EXPECT_DEATH(pool.add_ref(0), "");
  EXPECT_DEATH(pool.free(0), "");
  pool.allocate();
  EXPECT_DEATH(pool.allocate(), "");
  EXPECT_DEATH(pool.free(0), "");
}

}  // namespace
}  // namespace quire
