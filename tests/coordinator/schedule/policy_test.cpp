#include "coordinator/schedule/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

namespace quire {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);

std::int64_t order(Policy policy, absl::Duration arrival, int priority = 0,
                   int num_prompt_tokens = 1, absl::Time deadline = absl::InfiniteFuture()) {
  return policy::order_us({.policy = policy,
                           .arrival = kStart + arrival,
                           .deadline = deadline,
                           .priority = priority,
                           .ageing = absl::Seconds(10),
                           .num_prompt_tokens = num_prompt_tokens});
}

TEST(PolicyOrder, WithoutDeadlinesItIsTheOrderOfArrival) {
  EXPECT_LT(order(Policy::kFcfs, absl::ZeroDuration(), 5, 9000),
            order(Policy::kFcfs, absl::Milliseconds(1), -5, 1));
}

TEST(PolicyOrder, ANearDeadlineGoesFirstButNobodyWaitsForLongerThanAMinute) {
  const absl::Time soon = kStart + absl::Seconds(15);
  EXPECT_LT(order(Policy::kFcfs, absl::Seconds(10), 0, 1, soon),
            order(Policy::kFcfs, absl::ZeroDuration()));
  const absl::Time later = kStart + absl::Seconds(70);
  EXPECT_GT(order(Policy::kFcfs, absl::Seconds(65), 0, 1, later),
            order(Policy::kFcfs, absl::ZeroDuration()));
  // Of two that are equal otherwise the earlier deadline.
  EXPECT_LT(order(Policy::kFcfs, absl::ZeroDuration(), 0, 1, kStart + absl::Seconds(3)),
            order(Policy::kFcfs, absl::ZeroDuration(), 0, 1, kStart + absl::Seconds(4)));
}

TEST(PolicyOrder, WaitingMakesUpForPriority) {
  EXPECT_LT(order(Policy::kPriority, absl::Seconds(9), -1),
            order(Policy::kPriority, absl::ZeroDuration(), 0));
  EXPECT_GT(order(Policy::kPriority, absl::Seconds(11), -1),
            order(Policy::kPriority, absl::ZeroDuration(), 0));
}

TEST(PolicyOrder, WaitingMakesUpForALongPrompt) {
  EXPECT_LT(order(Policy::kSpf, absl::Seconds(1), 0, 10),
            order(Policy::kSpf, absl::ZeroDuration(), 0, 1000));
  EXPECT_GT(order(Policy::kSpf, absl::Seconds(3), 0, 10),
            order(Policy::kSpf, absl::ZeroDuration(), 0, 1000));
}

class VictimTest : public testing::Test {
 protected:
  Sequence* run(int computed, int priority = 0, int tenant = 0) {
    auto request = std::make_shared<ScheduledRequest>();
    request->order_us = static_cast<std::int64_t>(made_.size());
    request->priority = priority;
    request->tenant = tenant;
    auto sequence = std::make_unique<Sequence>();
    sequence->id = made_.size() + 1;
    sequence->request = std::move(request);
    sequence->num_computed_tokens = computed;
    made_.push_back(std::move(sequence));
    running_.push_back(made_.back().get());
    return running_.back();
  }
  Sequence* victim(const Sequence* needy, Policy policy = Policy::kFcfs) {
    return policy::pick_victim(
        {.policy = policy, .running = running_, .needy = needy, .service = service_});
  }

  std::vector<double> service_ = {0.0, 0.0};

 private:
  std::vector<std::unique_ptr<Sequence>> made_;
  std::vector<Sequence*> running_;
};

TEST_F(VictimTest, WhoLosesLeastOfThoseBehind) {
  run(5);
  Sequence* needy = run(50);
  run(200);
  Sequence* small = run(30);
  run(90);
  EXPECT_EQ(victim(needy), small);
  small->granted = true;
  EXPECT_NE(victim(needy), small);
}

TEST_F(VictimTest, NobodyBehindMeansNobody) {
  run(1);
  Sequence* last = run(500);
  EXPECT_EQ(victim(last), nullptr);
}

TEST_F(VictimTest, TheLatestOfEquals) {
  Sequence* first = run(10);
  run(10);
  Sequence* last = run(10);
  EXPECT_EQ(victim(first), last);
}

TEST_F(VictimTest, TheLeastImportantFirst) {
  Sequence* needy = run(10, -1);
  run(5, 0);
  Sequence* unimportant = run(900, 3);
  EXPECT_EQ(victim(needy, Policy::kPriority), unimportant);
}

TEST_F(VictimTest, TheTenantThatHadMostFirst) {
  service_ = {10.0, 500.0};
  Sequence* needy = run(10, 0, 0);
  run(5, 0, 0);
  Sequence* greedy = run(900, 0, 1);
  EXPECT_EQ(victim(needy, Policy::kFair), greedy);
}

}  // namespace
}  // namespace quire
