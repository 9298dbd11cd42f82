// Several groups at once, of any size: who takes which seat, and what one's end means to the
// others.
#include "coordinator/fleet/groups.h"
#include "tests/coordinator/fleet/groups_fixture.h"

namespace quire::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class SeatsTest : public ::testing::Test {
 protected:
  static Groups of_any_size(int num_seats) {
    return Groups(rules_of(/*world=*/0, [] { return 5; }), num_seats);
  }

  RankHello hello(const std::string& instance, int rank, int world) {
    RankHello h = present_rank(instance, rank, world);
    h.host = "host-" + instance;
    h.kv_capacity_blocks = 50;
    return h;
  }
  // Every rank of an instance, on links first, first + 1, ...
  GroupActions present(const std::string& instance, LinkId first, int world) {
    GroupActions all;
    for (int rank = 0; rank < world; ++rank) {
      append(groups_.hello(first + static_cast<LinkId>(rank), hello(instance, rank, world), now_),
             &all);
    }
    return all;
  }
  // The dummy steps of the epoch that `presented` began.
  GroupActions prove(LinkId first, int world, const GroupActions& presented) {
    GroupActions all = presented;
    const EpochId epoch = only<action::Welcome>(presented).at(0).epoch;
    for (StepId step = 1; step <= 2; ++step) {
      StepResult result;
      result.epoch = epoch;
      result.step = step;
      result.rows.resize(step == 1 ? 1 : 0);
      append(groups_.result(first, result, now_), &all);
    }
    std::uint64_t digest = only<action::Welcome>(all).at(0).nonce;
    for (const auto& sent : only<action::Broadcast>(all)) {
      digest = wire::plan_digest(digest, sent.plan);
    }
    for (int rank = 1; rank < world; ++rank) {
      append(groups_.heartbeat(first + static_cast<LinkId>(rank), epoch, 2, digest, now_), &all);
    }
    return all;
  }
  GroupReady seat(const std::string& instance, LinkId first, int world) {
    const auto ready = only<action::Ready>(prove(first, world, present(instance, first, world)));
    EXPECT_THAT(ready, SizeIs(1));
    return ready.at(0).group;
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  Groups groups_ = of_any_size(/*num_seats=*/2);
};

TEST_F(SeatsTest, GroupsOfAnySizeTakeTheSeatsAndOthersStandBy) {
  const GroupReady first = seat("A", 1, 1);
  EXPECT_EQ(first.seat, 0);
  EXPECT_EQ(first.epoch, 1u);
  EXPECT_EQ(first.world, 1);
  EXPECT_EQ(first.instance, "A");
  const GroupReady second = seat("B", 10, 3);
  EXPECT_EQ(second.seat, 1);
  EXPECT_EQ(second.epoch, 2u);
  EXPECT_EQ(second.world, 3);
  EXPECT_THAT(groups_.ready_links(), ElementsAre(1, 10, 11, 12));
  EXPECT_THAT(present("C", 20, 2), IsEmpty());
  EXPECT_THAT(groups_.describe(), HasSubstr("epoch 1: 1 rank on host-A; epoch 2: 3 ranks on "
                                            "host-B; 2 of 2 ranks of C wait"));
}

TEST_F(SeatsTest, ManyGroupsMayComeTogetherRankByRank) {
  groups_ = of_any_size(/*num_seats=*/20);
  GroupActions all;
  for (int rank = 0; rank < 2; ++rank) {
    for (int group = 0; group < 20; ++group) {
      append(groups_.hello(static_cast<LinkId>(100 * group + rank + 1),
                           hello(std::string(1, static_cast<char>('A' + group)), rank, 2), now_),
             &all);
    }
  }
  EXPECT_THAT(only<action::Refuse>(all), IsEmpty());
  EXPECT_THAT(only<action::Welcome>(all), SizeIs(20));
}

TEST_F(SeatsTest, ALossTouchesItsOwnSeatOnly) {
  seat("A", 1, 1);
  seat("B", 10, 2);
  present("C", 20, 1);
  const GroupActions out = groups_.gone(11, "its stream ended", now_);
  const auto lost = only<action::Lost>(out);
  ASSERT_THAT(lost, SizeIs(1));
  EXPECT_EQ(lost[0].epoch, 2u);
  EXPECT_THAT(only<action::Close>(out).at(0).links, ElementsAre(10, 11));
  EXPECT_EQ(groups_.seat(0).epoch(), 1u);
  EXPECT_TRUE(groups_.seat(0).ready());
  const auto ready = only<action::Ready>(prove(20, 1, out));
  ASSERT_THAT(ready, SizeIs(1)) << "the standby has taken its place";
  EXPECT_EQ(ready[0].group.seat, 1);
  EXPECT_EQ(ready[0].group.epoch, 3u);
}

TEST_F(SeatsTest, PlansAndEndsGoToTheEpochThatTheyName) {
  seat("A", 1, 1);
  seat("B", 10, 2);
  StepPlan plan;
  plan.epoch = 2;
  plan.step = 3;
  const auto sent = only<action::Broadcast>(groups_.plan(plan, now_));
  ASSERT_THAT(sent, SizeIs(1));
  EXPECT_THAT(sent[0].links, ElementsAre(10, 11));
  EXPECT_THAT(groups_.end_epoch(7, EndCause::kStepDeadline, "why", now_), IsEmpty());
  const auto lost = only<action::Lost>(groups_.end_epoch(1, EndCause::kStepDeadline, "why", now_));
  ASSERT_THAT(lost, SizeIs(1));
  EXPECT_EQ(lost[0].epoch, 1u);
  EXPECT_TRUE(groups_.seat(1).ready());
}

TEST_F(SeatsTest, ARankCannotAnswerForAnotherGroup) {
  seat("A", 1, 1);
  seat("B", 10, 1);
  StepPlan plan;
  plan.epoch = 1;
  plan.step = 3;
  groups_.plan(plan, now_);
  StepResult result;
  result.epoch = 1;
  result.step = 3;
  EXPECT_THAT(groups_.result(10, result, now_), IsEmpty());
  EXPECT_EQ(groups_.stale_dropped(), 1u);
  EXPECT_THAT(only<action::Result>(groups_.result(1, result, now_)), SizeIs(1));
}

TEST_F(SeatsTest, RanksOfOneInstanceMustAgreeOnItsSize) {
  groups_.hello(1, hello("A", 0, 2), now_);
  auto refused = only<action::Refuse>(groups_.hello(2, hello("A", 1, 3), now_));
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_THAT(refused[0].reason, HasSubstr("its group has 3 ranks, but rank 0 on host-A"));
  groups_.hello(3, hello("A", 1, 2), now_);
  // A rank beyond the group that serves under that name.
  refused = only<action::Refuse>(groups_.hello(4, hello("A", 2, 3), now_));
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_THAT(refused[0].reason, HasSubstr("of the same instance is attached already"));
  refused = only<action::Refuse>(groups_.hello(5, hello("Z", 0, 0), now_));
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_THAT(refused[0].reason, HasSubstr("it must have 1 to 4096"));
}

TEST_F(SeatsTest, GroupsThatComputeOtherwiseAreRefused) {
  seat("A", 1, 1);
  RankHello other = hello("B", 0, 1);
  other.numerics_id = "avx2";
  auto refused = only<action::Refuse>(groups_.hello(2, other, now_));
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_THAT(refused[0].reason, HasSubstr("has numerics avx2, but the group that serves on"));
  groups_.gone(1, "its stream ended", now_);
  EXPECT_THAT(only<action::Welcome>(groups_.hello(3, other, now_)), SizeIs(1))
      << "nobody else serves";
}

// A device's collective adds in the order of its ranks: another number of them is another sum.
TEST_F(SeatsTest, GroupsOverADevicesCollectiveMustBeOfOneSize) {
  RankHello first = hello("A", 0, 1);
  first.collective = "nccl";
  ASSERT_THAT(only<action::Welcome>(groups_.hello(1, first, now_)), SizeIs(1));
  for (int rank = 0; rank < 2; ++rank) {
    RankHello wider = hello("B", rank, 2);
    wider.collective = "nccl";
    const auto refused =
        only<action::Refuse>(groups_.hello(static_cast<LinkId>(rank) + 2, wider, now_));
    ASSERT_THAT(refused, SizeIs(rank == 0 ? 0 : 2));
    if (rank == 1) {
      EXPECT_THAT(refused[0].reason, HasSubstr("has 2 ranks that meet over nccl, but"));
    }
  }
  RankHello alike = hello("C", 0, 1);
  alike.collective = "nccl";
  EXPECT_THAT(only<action::Welcome>(groups_.hello(9, alike, now_)), SizeIs(1));
}

}  // namespace
}  // namespace quire::test
