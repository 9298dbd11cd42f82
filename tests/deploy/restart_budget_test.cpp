// Which pause follows which life.
#include "deploy/quire/restart_budget.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

using std::chrono::milliseconds;

TEST(RestartBudget, PausesGrowAndEndWithTheFifthLife) {
  RestartBudget budget;
  for (const int pause : {0, 500, 1000, 2000}) EXPECT_EQ(budget.next_pause(), milliseconds(pause));
  EXPECT_EQ(budget.next_pause(), std::nullopt);
  EXPECT_EQ(budget.failed_lives(), 5);
}

TEST(RestartBudget, OnlyLivesInARowWithoutAnAdvanceCount) {
  RestartBudget budget;
  for (int life = 0; life < 100; ++life) {
    EXPECT_EQ(budget.next_pause(), milliseconds(0)) << life;
    budget.advanced();
  }
  EXPECT_EQ(budget.next_pause(), milliseconds(0));
  EXPECT_EQ(budget.next_pause(), milliseconds(500));
  budget.advanced();
  EXPECT_EQ(budget.failed_lives(), 0);
  EXPECT_EQ(budget.next_pause(), milliseconds(0));
}

}  // namespace
}  // namespace quire
