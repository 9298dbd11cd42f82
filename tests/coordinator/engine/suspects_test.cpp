// Who counts as what kills groups.
#include "coordinator/engine/suspects.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace quire {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class SuspectsTest : public testing::Test {
 protected:
  std::vector<RequestId> death(std::vector<RequestId> in_flight) {
    return suspects_.on_death(in_flight, [this](RequestId id) { return !elsewhere_.contains(id); });
  }
  Suspects suspects_;
  std::set<RequestId> elsewhere_;  // in another group than the one that dies
};

TEST_F(SuspectsTest, OneDeathMakesNobodySuspect) {
  EXPECT_THAT(death({1, 2}), IsEmpty());
  EXPECT_EQ(suspects_.alone(), std::nullopt);
}

TEST_F(SuspectsTest, TwoInARowDoAndAThirdIsTheEnd) {
  death({1, 2});
  EXPECT_THAT(death({2, 3}), IsEmpty());
  EXPECT_EQ(suspects_.alone(), 2u);
  EXPECT_THAT(death({2}), ElementsAre(2));
  EXPECT_EQ(suspects_.alone(), std::nullopt);
  EXPECT_TRUE(suspects_.empty() || !suspects_.alone().has_value());
}

TEST_F(SuspectsTest, ATokenBetweenThemClears) {
  death({1});
  suspects_.on_gain(1);
  EXPECT_THAT(death({1}), IsEmpty());
  EXPECT_EQ(suspects_.alone(), std::nullopt);
  death({1});
  EXPECT_EQ(suspects_.alone(), 1u);
  suspects_.on_gain(1);
  EXPECT_EQ(suspects_.alone(), std::nullopt);
  EXPECT_THAT(death({1}), IsEmpty()) << "it starts anew";
}

TEST_F(SuspectsTest, DeathsWithoutItBetweenThemClear) {
  death({1});
  death({});
  death({1});
  EXPECT_EQ(suspects_.alone(), std::nullopt);
}

// Of a batch that died twice each is tried alone, in order; those that wait for it keep the
// suspicion.
TEST_F(SuspectsTest, SeveralAreTriedOneAfterAnother) {
  death({1, 2, 3});
  death({1, 2, 3});
  EXPECT_EQ(suspects_.alone(), 1u);
  suspects_.on_gain(1);
  EXPECT_EQ(suspects_.alone(), 2u);
  EXPECT_THAT(death({2}), ElementsAre(2));
  EXPECT_EQ(suspects_.alone(), 3u);
  suspects_.forget(3);  // its client has gone
  EXPECT_TRUE(suspects_.empty());
}

TEST_F(SuspectsTest, TheDeathOfAnotherGroupSaysNothing) {
  EXPECT_THAT(death({1, 2}), IsEmpty());
  elsewhere_ = {1};  // it went to the group beside it
  EXPECT_THAT(death({5}), IsEmpty());
  elsewhere_ = {};
  EXPECT_THAT(death({1, 2}), IsEmpty());
  EXPECT_TRUE(suspects_.is_suspect(1)) << "twice in a row of groups that had it";
  EXPECT_FALSE(suspects_.is_suspect(2)) << "it was there and not in flight once";
  EXPECT_FALSE(suspects_.is_suspect(9));
}

}  // namespace
}  // namespace quire
