#include "coordinator/cache/recency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace quire {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int> in_order(const Recency& list) {
  std::vector<int> ids;
  for (auto id = list.first(); id != Recency::kNone; id = list.after(id)) ids.push_back(id);
  return ids;
}

TEST(Recency, TheOldestGoesFirst) {
  Recency list;
  for (const int id : {5, 1, 3}) list.push(id, 0);
  EXPECT_THAT(in_order(list), ElementsAre(5, 1, 3));
  list.remove(1);
  list.push(1, 0);
  EXPECT_THAT(in_order(list), ElementsAre(5, 3, 1));
  list.remove(5);
  list.remove(1);
  EXPECT_THAT(in_order(list), ElementsAre(3));
  EXPECT_FALSE(list.contains(5));
  EXPECT_TRUE(list.contains(3));
  list.remove(3);
  EXPECT_THAT(in_order(list), IsEmpty());
  EXPECT_EQ(list.size(), 0);
}

TEST(Recency, TheLeastImportantClassGoesFirst) {
  Recency list;
  list.push(0, 0);
  list.push(1, 7);
  list.push(2, -3);
  list.push(3, 7);
  EXPECT_THAT(in_order(list), ElementsAre(1, 3, 0, 2));
  list.remove(1);
  list.remove(3);
  EXPECT_EQ(list.first(), 0);
}

}  // namespace
}  // namespace quire
